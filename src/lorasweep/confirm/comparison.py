"""What training again showed: means, spreads, and the winner against the others, paired."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lorasweep.paired import RowScores, paired_difference, students_t
from lorasweep.results import read_results

Interval = tuple[float, float, float]
"""A mean and its 95 % interval."""


@dataclass(frozen=True)
class Candidate:
    """A trial of the study and what its config scored with each seed."""

    trial: int
    is_baseline: bool
    in_study: float
    """Its objective in the study, which chose it: the best of many trials flatters itself."""
    folders: list[Path]
    values: list[float]

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """Return the standard deviation over seeds; NaN for one."""
        return stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """Winner minus another candidate, paired over seeds and, of the loss, over rows."""

    other: int
    over_seeds: Interval | None
    """None with one seed."""
    over_rows: Interval | None
    """Of rows averaged over seeds; None where the objective is not the loss."""

    @property
    def inside_noise(self) -> bool:
        """Whether the difference may be chance."""
        known = [interval for interval in (self.over_seeds, self.over_rows) if interval]
        return not known or any(low <= 0 <= high for _, low, high in known)


@dataclass(frozen=True)
class Confirmation:
    """What the repetition showed."""

    study: str
    objective: str
    seeds: list[int]
    candidates: list[Candidate]
    """Best mean first."""
    comparisons: list[Comparison]
    test: dict[str, Any] | None
    """Scores on the rows that no choice has seen; None where the study held none out."""
    left_out: list[str] = field(default_factory=list)
    """Trials that did not come to their end with every seed, and why."""


def compare(winner: Candidate, other: Candidate, by_loss: bool) -> Comparison:
    """Return the winner minus another candidate, over rows too where the objective is the loss."""
    gains = [one - two for one, two in zip(winner.values, other.values, strict=True)]
    over_seeds = None
    if len(gains) > 1:
        half = students_t(len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
        over_seeds = (fmean(gains), fmean(gains) - half, fmean(gains) + half)
    rows = paired_difference(_averaged(other.folders), _averaged(winner.folders)) if by_loss else None
    over_rows = (rows.mean, rows.low, rows.high) if rows else None
    return Comparison(other.trial, over_seeds, over_rows)


def verdict(result: Confirmation) -> str:
    """Return in a sentence whether the winner won."""
    winner = result.candidates[0].trial
    close = [str(item.other) for item in result.comparisons if item.inside_noise]
    if not result.comparisons:
        return f"Trial {winner} stands alone: there is nothing to compare it with."
    if close:
        return f"Trial {winner} is ahead, but inside the noise of trial {', '.join(close)}: choose the cheaper one."
    return f"Trial {winner} wins: it is ahead of every other outside the noise."


def _averaged(folders: Iterable[Path]) -> RowScores:
    """Return the losses of the evaluation rows, averaged over runs."""
    kept = [evaluation for folder in folders if (evaluation := read_results(folder).kept)]
    losses = [fmean(row) for row in zip(*(item["row_losses"] for item in kept), strict=True)]
    return RowScores(losses, kept[0]["row_tokens"])
