"""Whatever is killed and when: nothing is lost, nothing is done twice, nothing stays behind, nothing else is tried."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from lorasweep.study.database import local_url
from lorasweep.study.outcomes import State
from tests.study.kills import finished_attempts, kill_until_done, trained
from tests.study.sessions import finished, launch, processes_of, trials_of, until

COUNT, KILLS = 12, 22


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"sampler": "random"}, {"sampler": "tpe", "sampler_kwargs": {"n_startup_trials": 4}}]
)
def test_a_study_that_is_killed_again_and_again_is_the_one_it_would_have_been(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    options |= {"n_trials": COUNT, "slots": 1}
    killed = tmp_path / "study"
    toll = kill_until_done(killed, KILLS, seed=7, seconds=0.15, study={"fault": "children"}, **options)
    trials = trials_of(killed)
    assert toll.kills >= KILLS
    assert toll.controllers
    assert toll.workers
    assert toll.left == []
    assert [trial.number for trial in trials] == list(range(COUNT))
    assert {trial.state for trial in trials} == {State.COMPLETE}
    calm = finished(tmp_path / "calm" / "study", **options)
    assert [(trial.point, trial.values) for trial in trials] == [(trial.point, trial.values) for trial in calm]
    assert len(trained(killed)) == COUNT
    assert finished_attempts(killed) == []
    study = optuna.load_study(study_name="study", storage=local_url(killed / "study.db"))
    assert [trial.number for trial in study.trials] == list(range(COUNT))
    assert study.best_value == min(trial.value for trial in calm if trial.value is not None)


@pytest.mark.slow
def test_with_several_slots_no_finished_trial_is_lost_or_trained_again(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    toll = kill_until_done(folder, KILLS, seed=3, seconds=0.1, n_trials=16, slots=3, keep_adapters=None)
    trials = trials_of(folder)
    assert toll.left == []
    assert [trial.number for trial in trials] == list(range(16))
    assert len({str(trial.point) for trial in trials}) == 16
    for trial in trials:
        assert trial.values == [pytest.approx(trial.facts["objective"])]
        assert (folder / "trials" / str(trial.number) / "adapter" / "weights").exists()
    assert finished_attempts(folder) == []


def test_no_process_outlives_its_controller(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    session = launch(folder, {"TOY": str(folder)}, seconds=0.1, study={"fault": "children"}, n_trials=1000)
    until(lambda: len(processes_of(folder)) >= 9)  # the session, and two workers with a guard and two children each
    session.kill()
    session.communicate()
    until(lambda: not processes_of(folder), 5.0)
    assert processes_of(folder) == []


def test_no_process_outlives_its_worker(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    faults = {"0": "children"}
    session = launch(folder, {"TOY": str(folder)}, seconds=0.3, faults=faults, n_trials=3, slots=1, keep_adapters=None)
    sleeper = until(lambda: [process for process in processes_of(folder) if process.name() == "sleep"])[0]
    psutil.Process(session.pid).children()[0].kill()
    until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE, 5.0)
    assert session.wait(60) == 0
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 3
