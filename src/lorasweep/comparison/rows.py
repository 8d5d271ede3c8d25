"""The evaluation rows of two runs against each other: how sure the difference is, and where it is largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorasweep.comparison.fairness import other_rows, unlike
from lorasweep.comparison.sides import Side
from lorasweep.paired import Difference, RowScores, paired_difference
from lorasweep.study.wording import one_line, unframed

MOST_CHANGED = 5


@dataclass(frozen=True)
class ChangedRow:
    """A row that two runs score differently, in loss per supervised token."""

    row: int
    """Its number in the data, from 1, as lorasweep preview --row takes it."""
    tokens: int
    first: float
    other: float
    text: str | None
    """Its question and answer, where one of the runs was asked."""


@dataclass(frozen=True)
class RowComparison:
    """A run against the first."""

    first: str
    other: str
    """Their letters."""
    not_comparable: list[str]
    """The facts that differ, where the runs were evaluated on different rows; there is nothing else then."""
    unlike: tuple[str, ...] = ()
    """In what their training differs besides the options: budget, seeds, rows."""
    count: int = 0
    difference: Difference | None = None
    """Of the losses, other - first, with the paired 95 % interval."""
    better: int = 0
    worse: int = 0
    """Rows that the other scores better, and worse."""
    changed: tuple[ChangedRow, ...] = ()
    """The rows that differ most, per supervised token."""


def compare_rows(sides: Sequence[Side], most: int = MOST_CHANGED) -> list[RowComparison]:
    """Return every run against the first, row by row."""
    return [_compared(sides[0], other, most) for other in sides[1:]]


def _compared(first: Side, other: Side, most: int) -> RowComparison:
    if reasons := other_rows(first, other):
        return RowComparison(first.letter, other.letter, reasons)
    assert first.judged
    assert other.judged
    before, after = RowScores.of(first.judged), RowScores.of(other.judged)
    gains = [new - old for old, new in zip(before.row_losses, after.row_losses, strict=True)]
    return RowComparison(
        first.letter,
        other.letter,
        [],
        tuple(unlike(first, other)),
        len(gains),
        paired_difference(before, after),
        sum(gain < 0 for gain in gains),
        sum(gain > 0 for gain in gains),
        _changed(first.judged, other.judged, most),
    )


def _changed(first: dict[str, Any], other: dict[str, Any], most: int) -> tuple[ChangedRow, ...]:
    texts = _texts([*first["answers"], *other["answers"]])
    rows = [
        ChangedRow(row + 1, tokens, old / tokens, new / tokens, texts.get(row))
        for row, tokens, old, new in zip(
            first["rows"], first["row_tokens"], first["row_losses"], other["row_losses"], strict=True
        )
    ]
    rows = [row for row in rows if not math.isclose(row.first, row.other)]
    return tuple(sorted(rows, key=lambda row: -abs(row.other - row.first))[:most])


def _texts(answers: list[dict[str, Any]]) -> dict[int | None, str]:
    """Return questions and what was expected, by row."""
    questions = unframed([answer["prompt"] for answer in answers])
    return {
        answer.get("row"): f"{question} → {one_line(answer['expected'])}"
        for question, answer in zip(questions, answers, strict=True)
    }
