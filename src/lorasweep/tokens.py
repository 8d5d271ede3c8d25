"""Counts what was really learnt from: tokens and supervised tokens, padding left out."""

from __future__ import annotations

import math
from typing import Any

import torch

from lorasweep.data import IGNORED


class TokenCounter:
    """Watches a model's training forwards; counts stay on the device until asked for: a step never waits."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._total: Any = 0
        self._supervised: Any = 0
        self.largest = (0, 0)
        """Rows and tokens of each, padding included, of the largest pass so far."""
        self._handle = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, model: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        if not model.training or "labels" not in inputs:
            return
        mask = inputs.get("attention_mask")
        self.largest = max(self.largest, tuple(inputs["input_ids"].shape), key=math.prod)
        self._total = self._total + (inputs["input_ids"].numel() if mask is None else mask.sum())
        self._supervised = self._supervised + inputs["labels"][..., 1:].ne(IGNORED).sum()

    def read(self) -> tuple[int, int]:
        """Return tokens and supervised tokens so far."""
        return int(self._total), int(self._supervised)

    def remove(self) -> None:
        """Stop counting."""
        self._handle.remove()
