"""Counts what was really learnt from: tokens and supervised tokens, padding left out."""

from __future__ import annotations

from typing import Any

import torch

from lorasweep.data import IGNORED


class TokenCounter:
    """Watches a model's training forwards; counts stay on the device until asked for: a step never waits."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._total: Any = 0
        self._supervised: Any = 0
        self._handle = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, model: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        if not model.training or "labels" not in inputs:
            return
        mask = inputs.get("attention_mask")
        self._total = self._total + (inputs["input_ids"].numel() if mask is None else mask.sum())
        self._supervised = self._supervised + inputs["labels"][..., 1:].ne(IGNORED).sum()

    def read(self) -> tuple[int, int]:
        """Return tokens and supervised tokens so far."""
        return int(self._total), int(self._supervised)

    def state(self) -> dict[str, Any]:
        """Return the counts."""
        total, supervised = self.read()
        return {"total": total, "supervised": supervised}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting from there."""
        self._total, self._supervised = state["total"], state["supervised"]

    def remove(self) -> None:
        """Stop counting."""
        self._handle.remove()
