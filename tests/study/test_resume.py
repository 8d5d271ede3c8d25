"""A study goes on where it ended, as the study it was begun as, and tries nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorasweep.rules import UserError
from lorasweep.study.database import local_url
from lorasweep.study.outcomes import State
from lorasweep.study.space import Choice, Interval, Point, Space
from lorasweep.study.store import Store
from tests.study.sessions import finished, refusal, run, trials_of
from tests.study.toy import SPACE, toy

NUMBERS = Space((Choice("x", (8, 16, 0.5)),), fixed={"x": 0.5})
CONDITIONAL = Space(
    (Choice("y", (0.1, 0.2, 0.3)), Choice("x", ("a", "b"))), {"y": {"x": ("a",)}}, fixed={"x": "b", "y": 0.5}
)


def points(folder: Path) -> list[Point]:
    return [trial.point for trial in trials_of(folder)]


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_raised_total_goes_on_as_if_it_had_been_the_total_from_the_start(tmp_path: Path, sampler: str) -> None:
    grid = Space((Choice("x", (0.1, 0.2, 0.3)), Choice("y", (0.1, 0.2))), fixed={"x": 0.5, "y": 0.1})
    options: dict[str, Any] = {"sampler": sampler, "slots": 1, "space": grid if sampler == "grid" else SPACE}
    if sampler == "tpe":
        options["sampler_kwargs"] = {"n_startup_trials": 2}
    assert len(finished(tmp_path / "study", n_trials=3, **options)) == 3
    trials = finished(tmp_path / "study", n_trials=5, **options)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert [trial.point for trial in trials] == [
        trial.point for trial in finished(tmp_path / "other" / "study", n_trials=5, **options)
    ]


CHANGES = {
    "hydra.sweeper.sampler": {"sampler": "tpe"},
    "hydra.sweeper.seed": {"seed": 1},
    "hydra.sweeper.objectives": {"objectives": ["seconds"]},
    "hydra.sweeper.direction": {"direction": "maximize"},
    "hydra.sweeper.pruner": {"pruner": "median"},
    "space.x": {"space": Space((Interval("x", 0.0, 2.0), SPACE.dimensions[1]), fixed=SPACE.fixed)},
    "only_if.y": {"space": Space(SPACE.dimensions, {"y": {"x": (0.5,)}}, SPACE.fixed)},
    "optim.lr": {"base": {"optim": {"lr": 1e-3}}},
    "rows": {"study": {"rows": "xyz"}},
}


def test_a_study_is_not_gone_on_with_as_another_one(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    options: dict[str, Any] = {"n_trials": 2, "base": {"optim": {"lr": 1e-4}}}
    before = finished(folder, **options)
    for key, change in CHANGES.items():
        error = refusal(toy(folder, **{**options, **change}))
        assert key in [problem.key for problem in error.problems]
        assert all("study=study_2" in problem.allowed for problem in error.problems)
    several = {name: value for key, change in CHANGES.items() if key != "rows" for name, value in change.items()}
    error = refusal(toy(folder, **{**options, **several}))
    assert {problem.key for problem in error.problems} >= CHANGES.keys() - {"rows", "space.x"}
    assert trials_of(folder) == before
    assert finished(folder, **options) == before


def test_values_that_look_the_same_are_another_space(tmp_path: Path) -> None:
    finished(tmp_path / "study", n_trials=2, space=NUMBERS)
    text = Space((Choice("x", ("8", 16, 0.5)),), fixed={"x": 0.5})
    assert refusal(toy(tmp_path / "study", n_trials=2, space=text)).problems[0].key == "space.x"


def test_a_study_of_which_nothing_was_tried_may_change(tmp_path: Path) -> None:
    broken = toy(tmp_path / "study", study={"fault": "problem"}, direction="maximize", base={"lr": 1})
    assert refusal(broken).problems[0].key == "data"
    assert not (tmp_path / "study").exists()
    with pytest.raises(UserError):
        run(toy(tmp_path / "study", objective="tests.study.nothing:Toy", direction="maximize", base={"lr": 1}))
    trials = finished(tmp_path / "study", n_trials=4)
    assert trials[0].value is not None


def test_the_config_itself_comes_first_then_what_is_enqueued(tmp_path: Path) -> None:
    folder, enqueue = tmp_path / "study", [{"x": 0.25}, {"x": 0.75, "y": 0.5}, {"x": 0.5, "y": 0.1}]
    reason, text = run(toy(folder, enqueue=enqueue, n_trials=4))
    assert reason is None
    assert [trial.kind for trial in trials_of(folder)] == ["baseline", "enqueued", "enqueued", "sampled"]
    assert points(folder)[:3] == [{"x": 0.5, "y": 0.1}, {"x": 0.25}, {"x": 0.75, "y": 0.5}]
    assert text.count("not trained again") == 1
    _, text = run(toy(folder, enqueue=[*enqueue, {"x": 0.1}], n_trials=5))
    assert points(folder)[4] == {"x": 0.1}
    assert "enqueued x=0.25" not in text


def test_a_finite_space_is_gone_through_once_and_then_the_study_is_done(tmp_path: Path) -> None:
    for sampler in ("grid", "tpe"):
        folder = tmp_path / sampler
        trials = finished(folder, sampler=sampler, space=NUMBERS, n_trials=100, enqueue=[{"x": 8.0}], slots=1)
        assert [trial.kind for trial in trials] == ["baseline", "enqueued", "sampled"]
        assert [trial.point["x"] for trial in trials] == [0.5, 8.0, 16]


def test_keys_vary_only_under_their_conditions(tmp_path: Path) -> None:
    for sampler in ("grid", "random"):
        folder = tmp_path / sampler
        run(toy(folder, sampler=sampler, space=CONDITIONAL, n_trials=100, slots=1, baseline=False, max_failures=None))
        assert sorted(map(str, points(folder))) == [
            *("{'x': 'a', 'y': 0.1}", "{'x': 'a', 'y': 0.2}", "{'x': 'a', 'y': 0.3}", "{'x': 'b'}")
        ]


def test_points_that_contradict_themselves_cost_nothing_and_come_once(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    options: dict[str, Any] = {"slots": 1, "refuses": lambda point: point.get("x", 1.0) < 0.45}
    trials = finished(folder, n_trials=4, **options)
    refused = [trial for trial in trials if trial.state is State.REFUSED]
    assert refused
    assert len(trials) - len(refused) == 4
    assert all(trial.reason and "another value" in trial.reason for trial in refused)
    assert not any((folder / "trials" / str(trial.number)).exists() for trial in refused)
    trials = finished(folder, n_trials=8, **options)
    assert trials == sorted(trials, key=lambda trial: trial.number)
    assert len({str(trial.point) for trial in trials}) == len(trials)
    whole = finished(tmp_path / "whole" / "study", n_trials=8, **options)
    assert [(trial.point, trial.state) for trial in trials] == [(trial.point, trial.state) for trial in whole]


def test_a_session_that_ends_after_a_refused_point_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    crashes, refused = [True], []

    def refuses(point: Point) -> bool:
        if point.get("x", 1.0) < 0.45:
            refused.append(point)
        elif refused and crashes:
            raise RuntimeError(crashes.pop())
        return point.get("x", 1.0) < 0.45

    options: dict[str, Any] = {"slots": 1, "n_trials": 5, "refuses": refuses}
    with pytest.raises(RuntimeError):
        run(toy(tmp_path / "study", **options))
    assert trials_of(tmp_path / "study")[-1].state is State.REFUSED
    trials = finished(tmp_path / "study", **options)
    whole = finished(tmp_path / "whole" / "study", **options)
    assert [(trial.point, trial.state) for trial in trials] == [(trial.point, trial.state) for trial in whole]


def test_a_space_in_which_all_is_refused_ends_the_study(tmp_path: Path) -> None:
    reason, _ = run(toy(tmp_path / "study", refuses=lambda point: "x" in point, baseline=False))
    assert reason == "100 sampled points in a row were refused"
    reason, _ = run(toy(tmp_path / "grid", refuses=lambda point: "x" in point, sampler="grid", space=NUMBERS))
    assert reason is None
    assert {trial.state for trial in trials_of(tmp_path / "grid")} == {State.REFUSED}


def test_an_end_that_was_half_written_down_is_taken_from_the_trial_itself(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    before = finished(folder, n_trials=2, slots=1)
    definition = toy(folder, slots=1, n_trials=4)
    for written_down, number in ((True, 2), (False, 3)):
        store = Store(local_url(folder / "study.db"), "study", ["minimize"], SPACE)
        point = {"x": 0.25 * number, "y": 0.1}
        assert store.create(point, definition.compose(point).key, "sampled") == number
        store.note(number, end={"state": State.COMPLETE.value, "facts": {}})  # and here the controller was killed
        store.close()
        if written_down:
            (folder / "trials" / "2").mkdir()
            outcome = (folder / "trials" / "1" / "outcome.json").read_text()
            (folder / "trials" / "2" / "outcome.json").write_text(outcome)
    trials = finished(folder, n_trials=4, slots=1)
    assert trials[:2] == before
    assert trials[2].values == trials[1].values
    assert trials[3].value is not None
    assert not (folder / "trials" / "2.attempt1").exists()


def test_a_trial_that_rules_have_come_to_refuse_does_not_end_the_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    finished(folder, n_trials=1)
    store = Store(local_url(folder / "study.db"), "study", ["minimize"], SPACE)
    store.create({"x": 0.75, "y": 0.1}, "a key", "sampled")
    store.close()
    trials = finished(folder, n_trials=2, refuses=lambda point: point.get("x") == 0.75)
    assert [trial.state for trial in trials] == [State.COMPLETE, State.REFUSED, State.COMPLETE]


def test_adapters_of_the_best_trials_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    for most in (3, 3, 1):
        trials = finished(folder, n_trials=6 if most == 3 else 7, keep_adapters=most)
        best = sorted(trials, key=lambda trial: trial.value or 0.0)[:most]
        kept = {path.parent.name for path in folder.glob("trials/*/adapter")}
        assert kept == {str(trial.number) for trial in best}
