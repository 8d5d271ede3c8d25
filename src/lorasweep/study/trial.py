"""A trial as a study keeps it, and what is read from a study whatever keeps it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from lorasweep.study.outcomes import State
from lorasweep.study.space import Point


@dataclass(frozen=True)
class Trial:
    """A trial as it is kept."""

    number: int
    state: State
    point: Point
    key: str
    """What the trial trains, hashed: equal keys are equal configs, however they were written."""
    kind: str
    """baseline, enqueued or sampled."""
    values: list[float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What its summary.json says."""
    reason: str | None = None
    choices: dict[str, str] = field(default_factory=dict)
    """The option that every config group had."""
    deaths: int = 0
    """How often its process was killed."""
    reports: dict[int, float] = field(default_factory=dict)
    """Its objective after so many supervised tokens."""
    slot: int | None = None
    """Where its last attempt ran."""
    started: datetime | None = None
    """When its last attempt began."""
    ended: datetime | None = None

    @property
    def value(self) -> float | None:
        """Return the first objective of a complete trial."""
        return self.values[0] if self.values and self.state is State.COMPLETE else None


class Trials(Protocol):
    """A study to read."""

    @property
    def attributes(self) -> dict[str, Any]:
        """Return what is kept about the study as a whole."""

    def trials(self) -> list[Trial]:
        """Return every trial, in the order of their numbers."""


def as_kept(
    number: int,
    attributes: Mapping[str, Any],
    values: Sequence[float] | None,
    started: datetime | None,
    ended: datetime | None,
    has_ended: bool,
    reports: Mapping[int, float],
) -> Trial:
    """Return the trial that was kept with these attributes; what its end says counts once it has ended."""
    known = {**attributes, **attributes.get("start", {}), **(attributes.get("end", {}) if has_ended else {})}
    begun = known.get("begun")
    return Trial(
        number=number,
        state=State(known["state"]),
        point=known["point"],
        key=known["key"],
        kind=known["kind"],
        values=[value for value in values or [] if math.isfinite(value)] or None,
        facts=known.get("facts", {}),
        reason=known.get("reason"),
        choices=known.get("choices", {}),
        deaths=known.get("deaths", 0),
        reports=dict(reports),
        slot=known.get("slot"),
        started=datetime.fromisoformat(begun) if begun else started,
        ended=ended,
    )
