"""What a study varies: keys with the values they may take, and when they vary at all."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorasweep.rules import MISSING, Problem

Point = dict[str, Any]
"""Values by key; what is not in it stays as the config has it."""
DIGITS_OF_STEPS = 12
"""Of a number that steps lead to: only the noise of adding them up goes."""
DIGITS = 4
"""Significant digits of a sampled number: enough for any knob, few enough to be read and typed."""


@dataclass(frozen=True)
class Choice:
    """A key that takes one of some values; of a config group they are names of its files."""

    key: str
    options: tuple[Any, ...]
    is_group: bool = False

    def values(self) -> Sequence[Any] | None:
        """Return every value."""
        return self.options

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of them; 1 is 1.0 but not true."""
        return any(isinstance(value, bool) is isinstance(option, bool) and value == option for option in self.options)

    def problem(self) -> str | None:
        """Return what is wrong with it."""
        for one, other in itertools.combinations(self.options, 2):
            # Optuna keeps lists as text, and takes 1 for true and for 1.0
            if one == other or repr(one) == other or one == repr(other):
                return f"values that differ; {one!r} and {other!r} are one to the search"
        return None if self.options else "one value at least"

    def words(self) -> str:
        """Describe it in a line."""
        return ", ".join("null" if value is None else str(value) for value in self.options)


@dataclass(frozen=True)
class Interval:
    """A key that takes a number between two, both of which belong to it."""

    key: str
    low: float
    high: float
    step: float | None = None
    log: bool = False
    is_int: bool = False
    is_group: bool = False

    def values(self) -> Sequence[Any] | None:
        """Return every value; None if there are too many to count."""
        if self.is_int:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        count = 1 + math.floor((self.high - self.low) / self.step + 1e-9)
        return tuple(self.rounded(self.low + index * self.step) for index in range(count))

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies in it."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        values = self.values()
        return self.low <= value <= self.high if values is None else value in values

    def rounded(self, value: float) -> float:
        """Return a number near `value` that is short to write and lies in the interval."""
        if self.step:  # its ends have the noise of steps, too
            return float(f"{value:.{DIGITS_OF_STEPS}g}")
        digits = DIGITS
        if self.low < self.high:  # numbers of a narrow interval differ in their later digits
            digits += max(0, math.floor(math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low))))
        return min(max(float(f"{value:.{digits}g}"), self.low), self.high)

    def problem(self) -> str | None:
        """Return what is wrong with it."""
        if self.low > self.high:
            return f"a low end below its high end; {self.low:g} is above {self.high:g}"
        if self.log and self.low <= 0:
            return f"numbers above 0 for a logarithmic scale; it begins at {self.low:g}"
        if self.log and self.step:
            return "a step or a logarithmic scale, not both"
        return None

    def words(self) -> str:
        """Describe it in a line."""
        scale = ", logarithmic" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{', whole' if self.is_int else ''}{scale}"


Dimension = Choice | Interval


def dimension_of(values: Mapping[str, Any]) -> Dimension:
    """Return the dimension with these fields."""
    return Choice(**{**values, "options": tuple(values["options"])}) if "options" in values else Interval(**values)


@dataclass(frozen=True)
class Space:
    """Dimensions, in order, and the conditions under which some of them vary."""

    dimensions: tuple[Dimension, ...]
    only_if: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """The values that the config has, by key and by group, of every key here and in the conditions."""

    def __post_init__(self) -> None:
        # A key is decided after those its condition asks about.
        ordered = sorted(self.dimensions, key=lambda item: self._depth(item.key, ()))
        object.__setattr__(self, "dimensions", tuple(ordered))

    def __iter__(self) -> Iterator[Dimension]:
        return iter(self.dimensions)

    def varies(self, key: str, chosen: Point) -> bool:
        """Tell whether a key varies, given what has been chosen before it."""
        conditions = self.only_if.get(key, {})
        return all(chosen.get(other, self.fixed.get(other)) in values for other, values in conditions.items())

    def points(self) -> Iterator[Point]:
        """Return every combination, the last key changing fastest; each value must be countable."""
        return self._points(0, {})

    def size(self) -> int | None:
        """Return the number of combinations; None if there are too many to count."""
        if not self.is_countable:
            return None
        asked = {other for conditions in self.only_if.values() for other in conditions}
        return self._count(0, {}, asked)

    @property
    def is_countable(self) -> bool:
        """Tell whether the space has an end."""
        return all(dimension.values() is not None for dimension in self.dimensions)

    def holds(self, point: Point) -> bool:
        """Tell whether a point is one of the combinations."""
        return all(item.holds(point.get(item.key)) for item in self.dimensions if self.varies(item.key, point))

    def baseline(self) -> Point:
        """Return the values that the config itself has for what varies."""
        point: Point = {}
        for dimension in self.dimensions:
            # what the config leaves out, such as an argument of a schedule, its baseline leaves out
            if dimension.key in self.fixed and self.varies(dimension.key, point):
                point[dimension.key] = self.fixed[dimension.key]
        return point

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with it, other than values that no option takes."""
        keys = [dimension.key for dimension in self.dimensions]
        for dimension in self.dimensions:
            if words := dimension.problem():
                yield Problem(f"hydra.sweeper.params.{dimension.key}", dimension.words(), words)
        for key in dict.fromkeys(key for key in keys if keys.count(key) > 1):
            yield Problem(f"hydra.sweeper.params.{key}", MISSING, "one entry; it has two, one of them nested perhaps")
        for key, conditions in self.only_if.items():
            for other in conditions:
                if other not in keys and other not in self.fixed:
                    allowed = f"a key or group of the config; {key} cannot depend on it"
                    yield Problem(f"hydra.sweeper.only_if.{key}", other, allowed)
                elif "." in other and other.partition(".")[0] in keys:
                    allowed = f"{other.partition('.')[0]}, the group that varies, with names of its files"
                    yield Problem(f"hydra.sweeper.only_if.{key}", other, allowed)

    def _points(self, index: int, chosen: Point) -> Iterator[Point]:
        if index == len(self.dimensions):
            yield dict(chosen)
            return
        dimension = self.dimensions[index]
        if not self.varies(dimension.key, chosen):
            yield from self._points(index + 1, chosen)
            return
        values = dimension.values()
        assert values is not None
        for value in values:
            yield from self._points(index + 1, {**chosen, dimension.key: value})

    def _count(self, index: int, chosen: Point, asked: set[str]) -> int:
        """Count points without going through the values that no condition asks about."""
        if index == len(self.dimensions):
            return 1
        dimension = self.dimensions[index]
        if not self.varies(dimension.key, chosen):
            return self._count(index + 1, chosen, asked)
        values = dimension.values()
        assert values is not None
        if dimension.key not in asked:
            return len(values) * self._count(index + 1, chosen, asked)
        return sum(self._count(index + 1, {**chosen, dimension.key: value}, asked) for value in values)

    def _depth(self, key: str, above: tuple[str, ...]) -> int:
        """Return how many conditions stand before a key; conditions in a circle count as none."""
        others = [other for other in self.only_if.get(key, {}) if other not in above]
        return max((1 + self._depth(other, (*above, key)) for other in others), default=0)
