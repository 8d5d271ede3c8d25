"""Counts what was really learnt from: tokens and supervised tokens, padding left out; and hashes it, in its order."""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Any

import torch

from lorasweep.data import IGNORED
from lorasweep.processes.group import Group

FACTORS = (6364136223846793005, 2862933555777941757, 3202034522624059733)
"""Odd, and so without a loss in arithmetic modulo 2 to the 64th, which is what int64 overflows by."""


class TokenCounter:
    """Watches a model's training forwards; counts stay on the device until asked for: a step never waits."""

    def __init__(self, model: torch.nn.Module, group: Group | None = None) -> None:
        self.group = group or Group()
        self._known = (0, 0)
        self._total: Any = 0
        self._supervised: Any = 0
        self._order = torch.tensor(0)
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
        mixed = _mixed(inputs["input_ids"], inputs["labels"])
        self._order = self._order.to(mixed.device) * FACTORS[0] + mixed

    def read(self) -> tuple[int, int]:
        """Return tokens and supervised tokens so far, of all processes, which must all ask."""
        total, supervised = self.group.sums([int(self._total), int(self._supervised)])
        self._known = (int(total), int(supervised))
        return self._known

    @property
    def known(self) -> tuple[int, int]:
        """The same without the others: where there are some, as it was last read."""
        return self._known if self.group.size > 1 else self.read()

    @property
    def order(self) -> str:
        """Return a 64-bit hash of every batch so far of this process, tokens and labels, in their order."""
        return f"{int(self._order) % 2**64:016x}"

    def order_of_all(self) -> str:
        """Return the same of all processes, which must all ask."""
        orders = self.group.exchange(self.order)
        return orders[0] if len(orders) == 1 else sha256(" ".join(orders).encode()).hexdigest()[:16]

    def state(self) -> dict[str, Any]:
        """Return the counts, the hash and the largest pass."""
        total, supervised = int(self._total), int(self._supervised)
        return {"total": total, "supervised": supervised, "order": int(self._order), "largest": self.largest}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting from there."""
        self._total, self._supervised, self._order = state["total"], state["supervised"], torch.tensor(state["order"])
        self.largest = tuple(state["largest"])

    def remove(self) -> None:
        """Stop counting."""
        self._handle.remove()


def _mixed(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return a number that another token, label or place changes; sums modulo 2 to the 64th are exact in any order."""
    places = torch.full((ids.numel(),), FACTORS[1], dtype=torch.int64, device=ids.device).cumprod(0)
    return ((ids.flatten() + labels.flatten() * FACTORS[2] + 1) * places).sum()
