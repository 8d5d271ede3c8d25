"""The command compare: runs side by side. What differs, what came of it, how sure that is, and what is not alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lorasweep.comparison.configs import ConfigDifference, config_differences, group_choices
from lorasweep.comparison.fairness import warnings
from lorasweep.comparison.metrics import Metric, metrics
from lorasweep.comparison.rows import RowComparison, compare_rows
from lorasweep.comparison.samples import Sample, samples
from lorasweep.comparison.sides import Side, open_sides
from lorasweep.learning import Learning
from lorasweep.places import short, study_name

__all__ = ["Compared", "Comparison", "as_json", "compare"]


@dataclass(frozen=True)
class Compared:
    """One of the runs."""

    letter: str
    name: str
    folder: str
    label: str
    state: str
    objective: str
    study: str | None
    """The study that it is a trial of, as the other commands take it."""
    is_baseline: bool
    step: int | None
    """Of the evaluation that stands for it: that of the adapter it kept, else its last."""
    supervised_tokens: int | None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; the names of the fields are the keys of --json."""

    runs: list[Compared]
    warnings: list[str]
    """What is unlike and makes the comparison unfair."""
    groups: dict[str, list[str]]
    """Config groups from which different files were taken."""
    config: list[ConfigDifference]
    metrics: list[Metric]
    rows: list[RowComparison]
    curves: list[Learning]
    samples: list[Sample]


def compare(given: list[str], storage: str | None = None) -> Comparison:
    """Compare runs: folders, names, STUDY:NUMBER, STUDY:best, STUDY:baseline; the others with the first."""
    sides = open_sides(given, storage)
    return Comparison(
        runs=[_compared(side) for side in sides],
        warnings=list(warnings(sides)),
        groups=group_choices(sides),
        config=config_differences(sides),
        metrics=metrics(sides),
        rows=compare_rows(sides),
        curves=[side.learning for side in sides],
        samples=samples(sides),
    )


def as_json(comparison: Comparison) -> str:
    """Return a comparison as JSON."""
    return json.dumps(asdict(comparison), indent=1, ensure_ascii=False)


def _compared(side: Side) -> Compared:
    trial, study = side.named.trial, side.named.study
    return Compared(
        side.letter,
        side.named.name,
        short(side.named.folder),
        side.results.name,
        side.state,
        side.run.evaluation.objective,
        study_name(study.folder) if study else None,
        trial is not None and trial.kind == "baseline",
        side.judged["step"] if side.judged else None,
        side.supervised_tokens,
    )
