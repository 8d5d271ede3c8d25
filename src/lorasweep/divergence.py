"""Stops a run whose loss or gradient is no longer a finite number, before the update that would spoil the adapter."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Diverged(ArithmeticError):
    """A loss or gradient is not finite; carries the step."""

    def __init__(self, what: str, step: int) -> None:
        self.step = step
        super().__init__(f"{what} is not finite at step {step}; a lower optim.lr or train.max_grad_norm may help")


class StopOnNonFinite(TrainerCallback):
    """Raises `Diverged` between backward and update.

    With float16 the loss scaler skips overflowing steps itself, which is no divergence; there only the loss counts.
    """

    def __init__(self, scales_loss: bool) -> None:
        self.scales_loss = scales_loss

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check every gradient; one wait for the device per step."""
        gradients = [item.grad for item in kwargs["model"].parameters() if item.grad is not None]
        if not self.scales_loss and not torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all():
            raise Diverged("the gradient", state.global_step + 1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Check the logged loss."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise Diverged("the loss", state.global_step)
