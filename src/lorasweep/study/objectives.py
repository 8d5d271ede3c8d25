"""What a study can optimise: the numbers that every run's summary.json has at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lorasweep.answer_metrics import metric_name
from lorasweep.rules import Problem, nearest
from lorasweep.schema import Run

MEASURED = (
    "train/seconds", "evaluation/seconds", "steps", "tokens/total", "tokens/supervised", "tokens/per_second",
    "tokens/supervised_per_second", "memory/peak_gib", "memory/added_gib", "memory/start_gib", "memory/total_gib",
    "memory/peak_share", "memory/added_share", "adapter/parameters",
)  # fmt: skip
ON_GPU = ("memory/allocated_gib", "memory/predicted_gib", "memory/predicted_seen_gib")


def numbers(run: Run) -> list[str]:
    """Return the names of the numbers that the summary of a run will have."""
    scores = ["eval/loss", "eval/perplexity"]
    if run.evaluation.generate:
        scores += [f"eval/{metric_name(name)}" for name in run.evaluation.metrics]
    named = ["objective", "objective/step", *scores, *(f"last/{name}" for name in scores)]
    if run.evaluation.untuned:
        named += [f"untuned/{name}" for name in scores]
    return [*named, *MEASURED, *ON_GPU]


def problems(asked: Sequence[str], run: Run) -> Iterator[Problem]:
    """Yield what a study is to optimise and no run of it will have."""
    known = numbers(run)
    for name in asked:
        if name not in known:
            allowed = f"numbers of a run's summary: {', '.join(known)}"
            yield Problem("hydra.sweeper.objectives", name, allowed, nearest(name, known))
