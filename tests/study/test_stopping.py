"""Signals, and what other terminals ask for: a study stops so that the same command goes on with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.requests import INBOX, Request, make_request
from lorasweep.study.session import run_session
from lorasweep.study.trial import Trial
from tests.study.sessions import Told, finished, log_of, run, trials_of
from tests.study.toy import toy


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_running_trials_finish_and_starts_no_more(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "study"

    def interrupt(trial: Trial) -> None:
        if trial.number == 2:
            os.kill(os.getpid(), number)

    reason, text = run(toy(folder, seconds=0.1), interrupt)
    assert reason == "interrupted"
    assert "once more to stop at once" in text
    trials = trials_of(folder)
    assert {trial.state for trial in trials} == {State.COMPLETE}
    assert 3 <= len(trials) <= 4
    assert finished(folder, seconds=0.1)[: len(trials)] == trials


def test_a_second_signal_stops_trials_which_run_again_under_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def interrupt(trial: Trial) -> None:
        if trial.number == 2:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    reason, _ = run(toy(folder, seconds=0.4, slots=1, n_trials=4), interrupt)
    assert reason == "interrupted"
    *before, stopped = trials_of(folder)
    assert (stopped.number, stopped.state, stopped.reason) == (2, State.INTERRUPTED, "stopped")
    trials = finished(folder, slots=1, n_trials=4)
    assert trials[:2] == before
    assert trials[2].point == stopped.point
    assert [trial.state for trial in trials] == [State.COMPLETE] * 4
    assert "told to stop" in (folder / "trials" / "2.attempt1" / "log.txt").read_text()
    assert "trial 2" in log_of(folder, 2)
    assert not (folder / "trials" / "3.attempt1").exists()


def test_a_third_signal_does_not_wait_for_a_trial_that_does_not_listen(tmp_path: Path) -> None:
    def interrupt(trial: Trial) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)

    reason, _ = run(toy(tmp_path / "study", seconds=3600.0, slots=1), interrupt)
    assert reason == "interrupted"
    assert trials_of(tmp_path / "study")[0].state is State.INTERRUPTED


def test_a_stop_that_is_asked_for_ends_the_session_that_runs(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def ask(trial: Trial) -> None:
        if trial.number == 1:
            make_request(folder, Request(stop=True))

    reason, _ = run(toy(folder, slots=1), ask)
    assert reason == "lorasweep stop"
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 2
    make_request(folder, Request(stop=True))  # while nothing runs
    assert len(finished(folder, slots=1)) == 8
    assert not list((folder / INBOX).iterdir())


def test_points_are_added_on_top_of_the_total(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def add(trial: Trial) -> None:
        if trial.number == 1:
            make_request(folder, Request(point={"x": 0.3}))
            make_request(folder, Request(point={"x": 0.5, "y": 0.1}))

    reason, text = run(toy(folder, slots=1, n_trials=3), add)
    assert reason is None
    assert "added x=0.5 y=0.1: not trained again" in text
    trials = trials_of(folder)
    assert [trial.kind for trial in trials].count("added") == 1
    assert len(trials) == 4
    make_request(folder, Request(point={"x": 0.7}))  # while nothing runs
    trials = finished(folder, slots=1, n_trials=3)
    assert (trials[4].kind, trials[4].point, trials[4].state) == ("added", {"x": 0.7}, State.COMPLETE)
    assert not list((folder / INBOX).iterdir())


def test_an_added_point_that_is_refused_makes_no_room_for_another_trial(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    options: dict[str, Any] = {"n_trials": 3, "slots": 1, "refuses": lambda point: point.get("x") == 0.9}
    finished(folder, **options)
    make_request(folder, Request(point={"x": 0.9}))
    for _ in range(2):
        trials = finished(folder, **options)
        assert [(trial.kind, trial.state) for trial in trials[3:]] == [("added", State.REFUSED)]


def test_a_point_that_was_added_outlives_a_session_that_is_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def add(trial: Trial) -> None:
        make_request(folder, Request(point={"x": 0.3}))
        make_request(folder, Request(stop=True))

    reason, _ = run(toy(folder, slots=1, n_trials=3), add)
    assert reason == "lorasweep stop"
    assert [(trial.kind, trial.state) for trial in trials_of(folder)] == [
        ("baseline", State.COMPLETE),
        ("added", State.INTERRUPTED),
    ]
    trials = finished(folder, slots=1, n_trials=3)
    assert [trial.kind for trial in trials] == ["baseline", "added", "sampled", "sampled"]
    assert not list((folder / "trials").glob("*.attempt*"))


def test_a_point_that_is_added_while_the_configs_are_checked_comes_after_the_baseline(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    class Adding(Told):
        def begin(self, slots: int) -> None:
            make_request(folder, Request(point={"x": 0.3}))

    assert run_session(toy(folder, slots=1, n_trials=2), Adding()) is None
    assert [trial.kind for trial in trials_of(folder)] == ["baseline", "added", "sampled"]


def test_an_added_point_that_is_refused_leaves_the_total_as_it_is(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n_trials": 2, "refuses": lambda point: point.get("x") == 0.3}
    before = finished(tmp_path / "study", **options)
    make_request(tmp_path / "study", Request(point={"x": 0.3}))
    for _ in range(2):
        *others, refused = finished(tmp_path / "study", **options)
        assert others == before
        assert (refused.kind, refused.state) == ("added", State.REFUSED)


def test_a_request_that_cannot_be_read_is_said_and_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "study"

    def tear(trial: Trial) -> None:
        (folder / INBOX).mkdir(exist_ok=True)
        for name, text in {"a": '{"stop": tr', "b": "", "c": "[1]", "d": '{"x": 1}', "e": '{"point": 5}'}.items():
            if trial.number == 0:
                (folder / INBOX / f"{name}.json").write_text(text)

    reason, text = run(toy(folder, slots=1, n_trials=3), tear)
    assert reason is None
    assert text.count("is no request and is left alone") == 5
    assert len(list((folder / INBOX).glob("*.broken"))) == 5
    assert len(trials_of(folder)) == 3
