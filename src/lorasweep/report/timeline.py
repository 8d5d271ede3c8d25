"""Which trial ran in which slot and when, without the time between sessions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial

SHARE_OF_IDLE = 0.1
"""Idle time longer than this share of all busy time is left out."""
GAP = 0.02
"""What stands in its place, as a share of all busy time."""
Span = tuple[float, float]


def timeline(trials: Sequence[Trial], now: float | None) -> dict[str, Any] | None:
    """Return the last attempt of every trial as a bar, in seconds from the first, and the breaks between them.

    Trials that run end `now`, in seconds since the epoch; None: none runs. None where no slots are known.
    """
    spans = {trial.number: span for trial in trials if (span := _span(trial, now))}
    if not spans:
        return None
    busy = _merged(list(spans.values()))
    pieces, gaps = _pieces(busy)
    bars = [
        {"trial": trial.number, "slot": trial.slot, "begin": _shown(begin, pieces), "end": _shown(end, pieces)}
        for trial in trials
        if trial.number in spans
        for begin, end in [spans[trial.number]]
    ]
    return {"bars": bars, "gaps": gaps, "length": _shown(busy[-1][1], pieces)}


def _span(trial: Trial, now: float | None) -> Span | None:
    if trial.slot is None or trial.started is None:
        return None
    end = trial.ended.timestamp() if trial.ended else now if trial.state is State.RUNNING else None
    begin = trial.started.timestamp()
    return (begin, max(begin, end)) if end is not None else None


def _merged(spans: list[Span]) -> list[Span]:
    """Return the times when anything ran."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return merged


def _pieces(busy: list[Span]) -> tuple[list[tuple[float, float]], list[dict[str, float]]]:
    """Return from when on how many seconds are left out, and where the page breaks its axis for how long."""
    total = sum(end - begin for begin, end in busy)
    left_out = busy[0][0]
    pieces, gaps = [(busy[0][0], left_out)], []
    for (_, before), (after, _) in pairwise(busy):
        if after - before > SHARE_OF_IDLE * total:
            gaps.append({"at": before - left_out, "width": GAP * total, "seconds": after - before})
            left_out += after - before - GAP * total
            pieces.append((after, left_out))
    return pieces, gaps


def _shown(moment: float, pieces: list[tuple[float, float]]) -> float:
    """Return where a moment stands on the axis."""
    return round(moment - next(left_out for begin, left_out in reversed(pieces) if moment >= begin), 3)
