"""How the loss of a run fell, against the supervised tokens it had learnt from."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from lorasweep.results import RunResults

Point = tuple[float, float]
"""Supervised tokens, and the loss per token there."""


@dataclass(frozen=True)
class Learning:
    """The losses of the steps, each over the rows of its step, and those of the evaluations."""

    training: list[Point]
    evaluation: list[Point]


def learning(results: RunResults) -> Learning:
    """Read the learning curve of a run, finished or not."""
    steps: list[Point] = [(0.0, 0.0)]
    training: list[Point] = []
    for line in results.metrics:
        if "train/loss" in line and "tokens/supervised" in line:
            steps.append((float(line["step"]), float(line["tokens/supervised"])))
            if math.isfinite(line["train/loss"]):
                training.append((float(line["tokens/supervised"]), float(line["train/loss"])))
    # a run that is ended by an evaluation does not log that step
    if results.summary.get("steps", 0) > steps[-1][0]:
        steps.append((float(results.summary["steps"]), float(results.summary["tokens/supervised"])))
    losses = [(line["step"], line["eval/loss"]) for line in results.metrics if "eval/loss" in line]
    return Learning(training, [(_between(steps, step), float(loss)) for step, loss in losses])


def _between(known: list[Point], step: float) -> float:
    """Return the tokens after a step, on the line between the logged ones next to it, or through the last two."""
    after = min(max(bisect_left(known, (step,)), 1), len(known) - 1)
    if not after:
        return 0.0
    (first, low), (last, high) = known[after - 1], known[after]
    return low + (step - first) * (high - low) / (last - first)
