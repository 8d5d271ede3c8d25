"""Which of several processes this is, and its share of what they divide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """The place of a process among those of a run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def alternate(self, items: Sequence[T]) -> Sequence[T]:
        """Return every so manieth item, the shares together being all."""
        return items[self.rank :: self.size]

    def all_even(self, costs: Sequence[int]) -> list[list[int]]:
        """Return the positions that each process has, in their order, so that their costs come to about the same.

        The dearest first, each to whom has least: every process finds the same shares for itself.
        """
        shares: list[list[int]] = [[] for _ in range(self.size)]
        loads = [(0, 0)] * self.size  # cost, and how many, which is all that tells apart what costs nothing
        for position in sorted(range(len(costs)), key=lambda position: -costs[position]):
            least = loads.index(min(loads))
            shares[least].append(position)
            loads[least] = (loads[least][0] + costs[position], loads[least][1] + 1)
        return [sorted(share) for share in shares]
