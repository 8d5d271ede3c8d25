"""TRL's trainer without the work of the host in a step that changes no result."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from lorasweep.divergence import check_norm
from lorasweep.engine import Engine
from lorasweep.watched_trainer import WatchedTrainer

TOKEN_METRICS = ("entropy", "mean_token_accuracy")


class LeanTrainer(WatchedTrainer):
    """TRL's trainer with the same steps, sooner.

    With adapters on every linear layer of a Llama-2-7B its modules and parameters number thousands, and a step walks
    all of them five times: to count operations, to switch to training, to clip, to look for gradients, to drop them.
    The adapter's parameters are listed once instead. What is logged of a step is fetched in one piece.
    """

    engine: Engine
    lean = True
    """False: TRL's own way, throughout."""
    scales_loss = False
    """Whether a loss scaler deals with gradients that are not finite."""

    @cached_property
    def adapter(self) -> list[torch.nn.Parameter]:
        """What is trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @cached_property
    def _passes(self) -> list[torch.Tensor]:
        """The token metrics of the forward passes of a step, still on the device: a row each."""
        return []

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train."""
        if self.lean:
            self.model.zero_grad = self._drop_gradients
            # A loaded base is in evaluation mode and the adapter on it in training mode: the model seems to be trained,
            # but its layers would keep what they are to compute again.
            self.model.train()
        return super().train(*arguments, **options)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return nothing: no one reads the count."""
        return 0 if self.lean else super().floating_point_ops(inputs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add up the gradients of a forward pass; return its share of the step's loss."""
        if not self.lean or num_items_in_batch is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        if not model.training:
            model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs), num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss per supervised token, of which the step has `num_items_in_batch`."""
        if not self.lean or num_items_in_batch is None or return_outputs or self.aux_loss_enabled:  # of experts
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        supervised = outputs.label_mask.sum().clamp(min=1)
        sums = (outputs.entropy.detach().sum(), outputs.is_top1.sum())
        self._passes.append(torch.stack([total / supervised for total in sums]))
        return (-outputs.log_probs).sum() / torch.as_tensor(num_items_in_batch).clamp(min=1)

    def _clip_grad_norm(self, model: Any) -> Any:
        if not self.lean:
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        return torch.nn.utils.clip_grad_norm_(self.adapter, self.args.max_grad_norm or float("inf"))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the norm of the gradients, and stop the run if it is not finite: here, before the update."""
        if not self.lean:
            return super()._get_grad_norm(model, grad_norm)
        norm = self._clip_grad_norm(model) if grad_norm is None else grad_norm
        norm, passes = self._fetch(norm)
        if not self.scales_loss:
            check_norm(norm, self.state.global_step + 1)
        for name, values in zip(TOKEN_METRICS, zip(*passes, strict=True), strict=False):
            self._metrics["train"][name].extend(values)
        return norm

    def _fetch(self, norm: torch.Tensor) -> tuple[float, list[list[float]]]:
        """Return the norm and the token metrics of every pass as numbers: the one wait of a step."""
        first, *rest = torch.cat([norm.reshape(1), *self._passes]).tolist()
        self._passes.clear()
        return first, [rest[start : start + 2] for start in range(0, len(rest), 2)]

    def _drop_gradients(self, set_to_none: bool = True) -> None:
        for parameter in self.adapter:
            parameter.grad = None
