"""Which trials are pruned, when, and in which direction, against slow references written from the definitions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorasweep.rules import Problem
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import build_pruner
from lorasweep.study.settings import Settings, conflicts
from lorasweep.study.space import Space
from lorasweep.study.store import Store
from lorasweep.study.trial import Trial
from tests.study.sessions import finished
from tests.study.toy import SPACE, STEPS, curve, toy

Curves = list[list[float]]
"""What trials have reported, one after the other."""


def pruned_by_median(curves: Curves) -> Curves:
    """A trial ends where the best it had is worse than the median of the complete trials before it, if there are 4."""
    told: Curves = []
    for curve_ in curves:
        complete = [one for one in told if len(one) == STEPS]
        for step in range(1, STEPS):
            if len(complete) >= 4 and min(curve_[:step]) > statistics.median(one[step - 1] for one in complete):
                told.append(curve_[:step])
                break
        else:
            told.append(curve_)
    return told


def pruned_by_halving(curves: Curves) -> Curves:
    """A trial ends at steps 1 and 3 unless it is in the best third of those that have come there, or the best."""
    told: Curves = []
    rungs: dict[int, list[float]] = {1: [], 3: []}
    for curve_ in curves:
        for step, seen in rungs.items():
            seen.append(curve_[step - 1])
            if curve_[step - 1] > sorted(seen)[max(1, len(seen) // 3) - 1]:
                told.append(curve_[:step])
                break
        else:
            told.append(curve_)
    return told


def reported(trial: Trial, sign: int) -> list[float]:
    """What a trial has reported up to its end, as something to minimise."""
    point = {"x": 0.5, "y": 0.1, **trial.point}
    values = [curve(point["x"], point["y"], step) for step in range(1, STEPS + 1)]
    if trial.state is State.COMPLETE:
        return values
    assert trial.state is State.PRUNED
    return values[: 1 + [round(value, 9) for value in values].index(round(sign * trial.facts["objective"], 9))]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("pruner", "reference"), [("median", pruned_by_median), ("asha", pruned_by_halving)])
def test_trials_are_pruned_where_the_reference_prunes_them(
    tmp_path: Path, pruner: str, reference: Callable[[Curves], Curves], sign: int
) -> None:
    direction = "minimize" if sign > 0 else "maximize"
    options: dict[str, Any] = {"pruner": pruner, "direction": direction, "study": {"sign": sign}}
    trials = finished(tmp_path / "study", n_trials=20, slots=1, **options)
    whole = [[curve(*point, step) for step in range(1, STEPS + 1)] for point in map(_point, trials)]
    expected = reference(whole)
    assert [len(reported(trial, sign)) for trial in trials] == [len(values) for values in expected]
    assert len({len(values) for values in expected}) > 2  # pruned early, later and not at all


@pytest.mark.parametrize(
    ("pruner", "steps", "rows"),
    [("asha", 10, None), ("median", 19, None), ("asha", 101, None), ("median", 100, [1.1, 1.0, 0.9, 1.0])],
)
def test_a_quarter_of_a_run_is_one_whatever_its_steps_and_rows(
    tmp_path: Path, pruner: str, steps: int, rows: list[float] | None
) -> None:
    options: dict[str, Any] = {"n_trials": 16, "slots": 1, "pruner": pruner}
    even = finished(tmp_path / "even" / "study", **options)
    trials = finished(tmp_path / "study", study={"steps": steps, "rows_of": rows or [1.0] * STEPS}, **options)
    assert {len(reported(trial, 1)) for trial in trials} >= {1, STEPS}
    assert [len(reported(trial, 1)) for trial in trials] == [len(reported(trial, 1)) for trial in even]


def test_what_all_others_are_compared_with_is_not_pruned(tmp_path: Path) -> None:
    worst = Space(SPACE.dimensions, fixed={"x": 0.9, "y": 0.9})
    options: dict[str, Any] = {"pruner": "asha", "prune_after": 0.5, "space": worst, "faults": {0: "outlast 3"}}
    baseline, *others = finished(tmp_path / "study", n_trials=6, **options)
    assert (baseline.kind, baseline.state) == ("baseline", State.COMPLETE)
    assert State.PRUNED in [trial.state for trial in others]


def test_pruning_begins_where_it_is_told_to(tmp_path: Path) -> None:
    trials = finished(tmp_path / "study", n_trials=14, slots=1, pruner="median", prune_after=0.75)
    lengths = {len(reported(trial, 1)) for trial in trials}
    assert lengths == {3, STEPS}


def test_the_last_evaluation_is_no_reason_to_prune(tmp_path: Path) -> None:
    trials = finished(tmp_path / "study", n_trials=14, slots=1, pruner="median", prune_after=1.0)
    assert {trial.state for trial in trials} == {State.COMPLETE}


def test_a_trial_that_runs_again_is_judged_by_what_it_has_reported_again() -> None:
    store = Store("sqlite://", "study", ["minimize"], SPACE)
    for number in range(5):
        store.create({"x": number / 10}, str(number), "sampled")
        for tokens in (100, 200, 300):
            store.report(number, tokens, 1.0 if number < 4 else 5.0 if tokens == 100 else 0.0)
        if number < 4:
            store.finish(number, State.COMPLETE, [1.0], {})
    pruner = build_pruner(Settings(pruner="median"), 400)
    assert pruner
    assert [store.is_worse(4, tokens, pruner, tokens) for tokens in (100, 200, 300)] == [True, False, False]


def test_what_is_pruned_is_the_same_where_a_trial_was_killed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_trials": 12, "slots": 1, "pruner": "median", "sampler": "random"}
    calm = finished(tmp_path / "calm" / "study", **options)
    late = next(trial.number for trial in calm if trial.number > 5 and len(reported(trial, 1)) > 2)
    trials = finished(tmp_path / "study", faults={late: "kill once"}, **options)
    assert trials[late].deaths == 1
    assert [(trial.state, trial.facts["objective"]) for trial in trials] == [
        (trial.state, trial.facts["objective"]) for trial in calm
    ]


def test_several_objectives_are_kept_and_none_is_pruned(tmp_path: Path) -> None:
    options: dict[str, Any] = {"objectives": ["objective", "seconds"], "sampler": "tpe", "keep_adapters": 1}
    trials = finished(tmp_path / "study", n_trials=12, faults={3: "out of memory"}, **options)
    for trial in trials:
        point = _point(trial)
        expected = [curve(*point, STEPS), point[0]]
        assert trial.values == (None if trial.number == 3 else pytest.approx(expected))
    assert len(list(tmp_path.glob("study/trials/*/adapter"))) == 11
    assert [*conflicts(Settings(sampler="grid", objectives=["objective", "seconds"], pruner="median"))] == [
        Problem("hydra.sweeper.pruner", "median", "none: with several objectives no trial is worse early")
    ]


def test_the_best_is_the_greatest_where_more_is_better(tmp_path: Path) -> None:
    options: dict[str, Any] = {"direction": "maximize", "study": {"sign": -1}, "keep_adapters": 1}
    trials = finished(tmp_path / "study", n_trials=6, **options)
    best = max(trials, key=lambda trial: trial.value or -math.inf)
    assert [path.parent.name for path in tmp_path.glob("study/trials/*/adapter")] == [str(best.number)]
    assert toy(tmp_path).directions() == ["minimize"]


def _point(trial: Trial) -> tuple[float, float]:
    return trial.point.get("x", 0.5), trial.point.get("y", 0.1)
