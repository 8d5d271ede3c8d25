"""What there is to know of one study, finished or not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lorasweep.places import short, study_name
from lorasweep.study.importance import FEWEST, importances
from lorasweep.study.leaderboard import UNTUNED, Leaderboard, build_leaderboard
from lorasweep.study.reading import DONE, KeptStudy
from lorasweep.study.trial import Trial


@dataclass(frozen=True)
class Standing:
    """A trial, or the untuned model, and its objectives."""

    trial: int | None
    values: list[float]


@dataclass(frozen=True)
class StudyOverview:
    """A study; the names of the fields are the keys of --json."""

    kind: str
    name: str
    folder: str
    state: str
    process: str | None
    """What runs it now."""
    ended: str | None
    """Why its last session ended before the study was done."""
    objectives: list[str]
    directions: list[str]
    search: dict[str, Any]
    """sampler, pruner and seed of the search"""
    space: dict[str, Any]
    """What varies: values to choose from, or an interval in words."""
    trials: dict[str, int]
    """How many are in each state."""
    done: int
    total: int | None
    left: int | None
    untuned: Standing | None
    baseline: Standing | None
    best: Standing | None
    importances: dict[str, float]
    """Shares of the varied keys in what sets the best trials apart; empty with fewer than 8 complete trials."""
    leaderboard: Leaderboard
    commands: dict[str, str]
    """How to go on, by what for."""


def study_overview(study: KeptStudy, storage: str | None = None) -> StudyOverview:
    """Return what there is to know of a study."""
    known, board = study.definition, build_leaderboard(study, study.folder)
    return StudyOverview(
        kind="study",
        name=study_name(study.folder),
        folder=short(study.folder),
        state=study.state,
        process=study.process,
        ended=study.ended if study.ended != DONE else None,
        objectives=study.objectives,
        directions=[str(way) for way in study.directions],
        search={name: known.get(f"hydra.sweeper.{name}") for name in ("sampler", "pruner", "seed")},
        space={key.removeprefix("space."): value for key, value in known.items() if key.startswith("space.")},
        trials={state.value: count for state, count in study.counts.items()},
        done=study.done,
        total=study.total,
        left=study.left,
        untuned=_untuned(board),
        baseline=_standing(study.baseline),
        best=_standing(study.best),
        importances=_importances(study, storage),
        leaderboard=board,
        commands=dict(_commands(study)),
    )


def _standing(trial: Trial | None) -> Standing | None:
    return Standing(trial.number, trial.values) if trial and trial.value is not None and trial.values else None


def _untuned(board: Leaderboard) -> Standing | None:
    row = next((row for row in board.rows if row["state"] == UNTUNED), {})
    known = [row[name] for name in board.objectives if name in row]
    return Standing(None, known) if known else None


def _importances(study: KeptStudy, storage: str | None) -> dict[str, float]:
    """Ask Optuna, which takes a second to import, where there are enough trials to ask about."""
    if sum(trial.value is not None for trial in study.trials()) < FEWEST:
        return {}
    from lorasweep.study.store import open_store

    store = open_store(study.folder, storage)
    try:
        return importances(store)
    finally:
        store.close()


def _commands(study: KeptStudy) -> Iterator[tuple[str, str]]:
    name, best, baseline = shlex.quote(study_name(study.folder)), study.best, study.baseline
    if study.state == "running":
        yield "end it early", f"lorasweep stop {name}"
    if best is None:
        return
    yield "look at the best", f"lorasweep show {name}:best"
    if baseline and baseline.value is not None and baseline is not best:
        yield "compare it", f"lorasweep compare {name}:baseline {name}:best"
    if len(study.directions) == 1:
        yield "is it luck", f"lorasweep confirm {name}"
    yield "keep its settings", f"lorasweep promote {name}"
