"""What is kept of trials row by row and step by step: losses of evaluation rows, answers, training losses."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from lorasweep.learning import Point, learning
from lorasweep.results import RunResults
from lorasweep.study.wording import unframed

MOST_LOSSES = 200_000
"""Numbers on a page, about 1.5 MB of them; with more rows it shows fewer trials."""
MOST_QUESTIONS = 30
LONGEST = 1000
"""Characters of a question or an answer."""
MOST_POINTS = 100
"""Points of a training curve."""
Evaluation = dict[str, Any]


def row_losses(runs: Mapping[int, RunResults]) -> dict[str, Any] | None:
    """Return the summed loss of every evaluation row, by trial; of those that were judged on the rows of the first."""
    kept = {number: evaluation for number, run in runs.items() if (evaluation := run.kept)}
    if not kept:
        return None
    first, untuned = next(iter(kept.values())), next((run.untuned for run in runs.values() if run.untuned), None)
    most = max(2, MOST_LOSSES // max(1, len(first["row_tokens"])))
    same = {number: item for number, item in kept.items() if item["row_tokens"] == first["row_tokens"]}
    return {
        "numbers": first.get("rows") or list(range(len(first["row_tokens"]))),
        "tokens": first["row_tokens"],
        "untuned": _rounded(untuned["row_losses"]) if untuned else None,
        "losses": {number: _rounded(item["row_losses"]) for number, item in list(same.items())[:most]},
    }


def answers(runs: Mapping[int, RunResults]) -> dict[str, Any] | None:
    """Return the first questions and the answers to them, by trial and of the untuned model; None without any."""
    given = {number: item["answers"] for number, run in runs.items() if (item := run.kept) and item["answers"]}
    if not given:
        return None
    questions = next(iter(given.values()))[:MOST_QUESTIONS]
    untuned = next((run.untuned["answers"] for run in runs.values() if run.untuned and run.untuned["answers"]), None)
    inner = unframed([item["prompt"] for item in questions])
    return {
        "questions": [
            {
                "row": item["row"],
                "prompt": _cut(item["prompt"]),
                "inner": _cut(words),
                "expected": _cut(item["expected"]),
            }
            for item, words in zip(questions, inner, strict=True)
        ],
        "untuned": _given(untuned) if untuned else None,
        "given": {number: _given(items) for number, items in given.items()},
    }


def training_losses(runs: Mapping[int, RunResults]) -> dict[int, list[Point]]:
    """Return supervised tokens and training loss, averaged over as many steps as makes the curve short, by trial."""
    return {number: thinned(points) for number, run in runs.items() if (points := learning(run).training)}


def thinned(points: list[Point]) -> list[Point]:
    """Return at most `MOST_POINTS` means of neighbouring points."""
    size = -(-len(points) // MOST_POINTS)
    parts = (points[start : start + size] for start in range(0, len(points), size))
    return [(round(fmean(x for x, _ in part)), float(f"{fmean(y for _, y in part):.5g}")) for part in parts]


def _given(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": _cut(item["generated"]), "scores": item["scores"]} for item in items[:MOST_QUESTIONS]]


def _rounded(losses: list[float]) -> list[float]:
    return [float(f"{loss:.5g}") for loss in losses]


def _cut(text: str) -> str:
    """Leave out the middle of a long text: what is asked often stands at its end."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} […] {text[-LONGEST // 2 :]}"
