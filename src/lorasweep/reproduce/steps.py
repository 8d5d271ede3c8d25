"""The numbers of a run against those of its reproduction, step by step, while it trains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

UNCOMPARED = ("step", "seconds", "train/seconds", "tokens/per_second", "tokens/supervised_per_second")
"""Numbers that are others every time, as are those of memory."""


@dataclass(frozen=True)
class Difference:
    """A number that came out as another one."""

    step: int
    name: str
    before: float
    now: float

    @property
    def size(self) -> float:
        """Return by how much."""
        return abs(self.now - self.before)

    def values(self) -> dict[str, Any]:
        """Return it as JSON takes it, which has no NaN."""
        numbers = {"before": self.before, "now": self.now}
        plain = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        return {"step": self.step, "name": self.name, **plain}

    def __str__(self) -> str:
        share = f" ({self.size / abs(self.before):.1e} of it)" if self.before else ""
        return f"step {self.step}: {self.name} {self.before!r} -> {self.now!r}, by {self.size:.3g}{share}"


@dataclass
class Steps:
    """Compares lines of metrics.jsonl with those that were recorded for the same steps."""

    recorded: Mapping[int, Mapping[str, float]]
    compared: set[int] = field(default_factory=set)
    """Steps of which at least one number was compared."""
    numbers: int = 0
    first: list[Difference] = field(default_factory=list)
    """Of the first step that differs, everything that does."""
    largest: dict[str, Difference] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[Mapping[str, Any]], leave_out: str | None = None) -> Steps:
        """Take in the lines of a run; `leave_out` is how names begin that cannot be compared."""
        recorded: dict[int, dict[str, float]] = {}
        for line in lines:
            values = {name: value for name, value in line.items() if _is_compared(name, leave_out)}
            recorded.setdefault(line["step"], {}).update(values)
        return cls(recorded)

    @property
    def last(self) -> int:
        """Return the last step that was recorded."""
        return max(self.recorded, default=0)

    def take(self, lines: Iterable[Mapping[str, Any]]) -> list[Difference]:
        """Compare lines; return the differences of the first step that has any, once."""
        told = bool(self.first)
        for line in lines:
            for item in self._differences(line):
                if item.name not in self.largest or item.size > self.largest[item.name].size:
                    self.largest[item.name] = item
                if not told and (not self.first or self.first[0].step == item.step):
                    self.first.append(item)
        return [] if told else self.first

    def missing(self) -> list[int]:
        """Return the recorded steps of which nothing was compared."""
        return sorted(step for step, values in self.recorded.items() if values and step not in self.compared)

    def _differences(self, line: Mapping[str, Any]) -> Iterator[Difference]:
        step = line["step"]
        known = self.recorded.get(step, {})
        for name in (name for name in line if name in known):
            self.compared.add(step)
            self.numbers += 1
            if line[name] != known[name] and not (math.isnan(line[name]) and math.isnan(known[name])):
                yield Difference(step, name, known[name], line[name])


def _is_compared(name: str, leave_out: str | None) -> bool:
    return name not in UNCOMPARED and not name.startswith("memory/") and not (leave_out and name.startswith(leave_out))
