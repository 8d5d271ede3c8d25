"""Numbers of runs side by side, and which is better where that can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorasweep.comparison.fairness import other_questions, other_rows, same_budget, same_device
from lorasweep.comparison.sides import Side
from lorasweep.study.definition import direction_of

PERPLEXITY = "eval/perplexity"  # a function of the loss
COSTS = (
    "tokens/supervised", "steps", "train/seconds", "tokens/per_second", "tokens/supervised_per_second",
    "memory/peak_gib", "memory/added_gib", "adapter/parameters",
)  # fmt: skip
PLAIN = ("tokens/supervised", "steps", "adapter/parameters")
"""Neither more nor less of them is better."""
OF_WHOLE_RUNS = ("train/seconds",)
"""Costs that grow with the budget."""


@dataclass(frozen=True)
class Metric:
    """A number of every run, None where a run has not got it."""

    name: str
    values: list[float | None]
    direction: str | None
    """minimize, maximize, or None: neither is better, or it does not compare."""
    best: list[str]
    """The letters of the runs with the best value; empty where none is better."""


def metrics(sides: Sequence[Side]) -> list[Metric]:
    """Return scores and costs, those that some run has."""
    return [*_scores(sides), *_costs(sides)]


def _scores(sides: Sequence[Side]) -> Iterator[Metric]:
    first, others = sides[0], sides[1:]
    same_rows = not any(other_rows(first, other) for other in others)
    same_questions = same_rows and not any(other_questions(first, other) for other in others)
    evaluated = [_evaluation(side) for side in sides]
    for name in dict.fromkeys(name for known in evaluated for name in known):
        compares = same_rows if name == "eval/loss" else same_questions
        yield _metric(name, [known.get(name) for known in evaluated], sides, compares)


def _costs(sides: Sequence[Side]) -> Iterator[Metric]:
    for name in COSTS:
        values = [side.results.summary.get(name) for side in sides]
        compares = same_device(sides) and (name not in OF_WHOLE_RUNS or same_budget(sides))
        if any(value is not None for value in values):
            yield _metric(name, values, sides, compares and name not in PLAIN)


def _evaluation(side: Side) -> dict[str, float]:
    """Return the scores of what a run kept, and of the untuned model."""
    found: dict[str, float] = {}
    for prefix, step in (("untuned/", 0), ("", side.judged["step"] if side.judged else None)):
        lines = [line for line in side.results.metrics if line["step"] == step and "eval/loss" in line]
        scores = lines[-1] if lines else {}
        named = {name: value for name, value in scores.items() if name.startswith("eval/") and name != PERPLEXITY}
        found |= {f"{prefix}{name}": value for name, value in named.items()}
    return found


def _metric(name: str, values: list[float | None], sides: Sequence[Side], compares: bool) -> Metric:
    known = [value for value in values if value is not None]
    direction = direction_of(name) if compares and not name.startswith("untuned/") else None
    if direction is None or len(known) < 2 or len(set(known)) == 1:
        return Metric(name, values, direction, [])
    best = min(known) if direction == "minimize" else max(known)
    letters = [side.letter for side, value in zip(sides, values, strict=True) if value == best]
    return Metric(name, values, direction, letters)
