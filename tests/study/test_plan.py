"""lorasweep plan: what a study would try, what it would refuse, and how long it would take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep.cli import app
from lorasweep.rules import UserError
from lorasweep.study.database import study_names
from lorasweep.study.estimate import Speed, words
from lorasweep.study.outcomes import State
from lorasweep.study.plan import plan
from lorasweep.study.trial import Trial
from tests.conftest import ROOT, composed
from tests.study.sessions import finished
from tests.study.toy import toy

STUDY = ("model=tiny", "data.limit=24", "lora.r=4,8", "train.max_steps=7", "evaluation.times=2", "study=planned")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and one for temporary files beside it."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where workers find the toy
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `lorasweep plan …` prints."""
    app(["plan", *arguments], standalone_mode=False)
    return capsys.readouterr().out


def nothing_is_left(place: Path) -> bool:
    return not [*(place / "here").iterdir(), *(place / "temporary").iterdir()]


def test_the_plan_shows_space_points_and_doubts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["model=tiny", "lora.init=default,orthogonal", "lora.r=7,8", "quant=none", "study=planned"]
    shown = planned(capsys, *overrides)
    assert "4 combinations; grid tries 3 trials" in shown
    assert "refused: lora.init=orthogonal lora.r=7" in shown
    assert "optim.lr does not vary" in shown
    assert "--time trains a few steps" in shown
    assert nothing_is_left(place)


def test_the_plan_prints_a_composed_config_whole(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["model=tiny", "lora.r=7,8", "scheduler=linear,cosine", "study=planned"]
    config = yaml.safe_load(planned(capsys, *overrides, "--config", "3"))
    assert (config["lora"]["r"], config["scheduler"]["name"], config["study"]) == (8, "cosine", "planned")
    with pytest.raises(UserError, match="0 to 3"):
        planned(capsys, *overrides, "--config", "4")
    assert nothing_is_left(place)


def test_the_plan_says_which_keys_the_command_line_takes_out_of_the_space(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["model=tiny", "space=[qlora,schedule]", "strategy=tpe", "lora.r=64", "scheduler=cosine", "optim.lr=1"]
    shown = planned(capsys, *overrides)
    for override in ("lora.r=64", "scheduler=cosine"):
        assert shown.count(f"{override} is fixed by the command line and leaves the space") == 1
    assert "optim.lr=1 is fixed" not in shown


@pytest.mark.slow
def test_the_first_steps_tell_how_long_the_config_takes_and_leave_nothing_behind(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = planned(capsys, *STUDY, "hydra.sweeper.slots=1", "evaluation.untuned=false", "--time")
    assert re.search(r"Timed now on 3 steps .* without the first.*: [\d.]+ s a step, [\d.]+ s an evaluation", shown)
    assert re.search(r"has 7 steps and 2 evaluations: about [\d.]+ seconds a trial", shown)
    assert re.search(r"2 such trials: about [\d.]+ \w+, of which [\d.]+ \w+ to start", shown)
    assert "Other values may take more or less time" in shown
    assert nothing_is_left(place)


@pytest.mark.slow
def test_a_config_that_cannot_be_trained_is_said_and_leaves_nothing_behind(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="its first steps ended diverged"):
        planned(capsys, *STUDY, "optim=sgd", "optim.lr=1e38", "--time")
    assert nothing_is_left(place)


@pytest.mark.slow
def test_a_trial_of_one_step_without_evaluation_rows_is_timed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = planned(capsys, "model=tiny", "data=demo", "data.limit=24", "lora.r=4,8", "train.max_steps=1",
                    "data.eval_fraction=0", "evaluation.times=0", "evaluation.generate=0", "--time")  # fmt: skip
    assert re.search(r"the only step of the config itself: [\d.]+ s a step\.", shown)
    assert "has 1 step: about" in shown


SPEED = Speed(start=30.0, setup=5.0, step=2.0, evaluation=10.0, steps=101, evaluations=4, timed=3)


def test_the_estimate_counts_steps_evaluations_rounds_and_what_starts_how_often(tmp_path: Path) -> None:
    assert SPEED.trial == 5 + 100 * 2 + 4 * 10
    warm, fresh = toy(tmp_path, slots=4), toy(tmp_path, slots=4, fresh_process=True, pruner="median")
    (said,) = (line for line in words(warm, 9, [], SPEED) if "such" in line)
    assert said == "9 such trials, 4 at a time: about 13 minutes, of which 30 seconds to start."  # 30 + 3 x 245
    said = " ".join(words(fresh, 9, [], SPEED))
    assert "about 14 minutes, of which 90 seconds to start" in said
    assert "What median ends early takes less" in said
    assert "trials that share a device slow each other down" in said
    assert "such" not in " ".join(words(toy(tmp_path, n_trials=None), None, [], SPEED))


def test_trials_that_have_ended_tell_how_long_the_others_take(tmp_path: Path) -> None:
    trials = [Trial(number, State.COMPLETE, {}, "", "sampled", [1.0], {"seconds_in_slot": 60.0}) for number in range(3)]
    (said,) = words(toy(tmp_path, slots=2), 5, trials, None)
    assert said == "3 trials are finished; the others take about 2 minutes at their speed."


def test_the_plan_goes_on_after_a_refused_point_as_the_study_does(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_trials": 6, "slots": 1, "refuses": lambda point: point.get("x", 1.0) < 0.45}
    planned = plan(toy(tmp_path / "study", **options), composed("model=tiny"), 6).points
    trials = finished(tmp_path / "study", **options)[:6]
    assert {item.refused is None for item in planned} == {True, False}
    for refused in (True, False):
        tried = [trial.point for trial in trials if (trial.state is State.REFUSED) is refused]
        assert [item.point for item in planned if bool(item.refused) is refused] == tried


def test_a_plan_reads_what_is_there_and_begins_nothing(tmp_path: Path) -> None:
    run, folder = composed("model=tiny"), tmp_path / "study"
    url = f"sqlite:///{tmp_path}/all.db"
    assert plan(toy(folder, storage=url), run, 2).finished == []
    assert study_names(url) == []
    trials = finished(folder, n_trials=2)
    assert plan(toy(folder), run, 2).finished == trials
    (folder / "study.db").write_bytes((folder / "study.db").read_bytes()[:20_000])
    with pytest.raises(UserError, match="put a copy of it back"):
        plan(toy(folder), run, 2)
