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


def check_norm(norm: float, step: int) -> None:
    """Raise `Diverged` unless the norm of a step's gradients is finite, and so every gradient."""
    if not math.isfinite(norm):
        raise Diverged("the gradient", step)


class StopOnNonFinite(TrainerCallback):
    """Raises `Diverged` between backward and update, unless the trainer itself `looks` at gradients there.

    With float16 the loss scaler looks for itself, leaves steps that overflow out and lowers its scale, which is no
    divergence until it never ends: 25 such steps in a row take the scale from 65,536 to nothing.
    """

    MOST_SKIPPED = 25

    def __init__(self, scales_loss: bool, looks: bool = False) -> None:
        self.scales_loss, self.looks = scales_loss, looks
        self.skipped = 0

    def state(self) -> dict[str, Any]:
        """Return how many steps in a row were left out."""
        return {"skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting from there."""
        self.skipped = state["skipped"]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check every gradient; one wait for the device per step."""
        if self.scales_loss or self.looks:
            return
        gradients = [item.grad for item in kwargs["model"].parameters() if item.grad is not None]
        if not torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all():
            raise Diverged("the gradient", state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count the steps in a row that the loss scaler left out."""
        if self.scales_loss:
            self.skipped = self.skipped + 1 if kwargs["optimizer"].step_was_skipped else 0
            if self.skipped >= self.MOST_SKIPPED:
                raise Diverged("the gradient, whatever its scale,", state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Refuse a run in which no step was taken."""
        if self.skipped and self.skipped == state.global_step:
            raise Diverged("the gradient of every step", state.global_step)

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
