"""Trials that go wrong in every way there is end as what they are, and change nothing about the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial
from tests.study.sessions import finished, log_of, process_of, run, trials_of
from tests.study.toy import toy

FAULTS = {
    1: ("exception", State.FAILED, "RuntimeError: something is broken"),
    3: ("exit", State.FAILED, "exit code 7"),
    5: ("sys.exit", State.FAILED, "SystemExit: 0"),
    7: ("kill", State.FAILED, "killed by SIGKILL 3 times"),
    8: ("kill once", State.COMPLETE, None),
    10: ("segfault", State.FAILED, "signal SIGSEGV"),
    12: ("out of memory", State.OUT_OF_MEMORY, "MemoryError: no room"),
    14: ("nan", State.FAILED, "the objective is [nan]"),
    16: ("nothing", State.FAILED, "the objective is None"),
    18: ("hang", State.HUNG, "no sign of life"),
    20: ("diverged", State.DIVERGED, "the loss is inf"),
}
COUNT = 24


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial], Path, list[Trial]]:
    """A study with every fault and the same one without any."""
    faulty, sound = tmp_path_factory.mktemp("faults") / "faulty", tmp_path_factory.mktemp("sound") / "sound"
    faults = {number: fault for number, (fault, _, _) in FAULTS.items()}
    options = {"n_trials": COUNT, "keep_adapters": None, "hang_timeout": 8.0}
    return faulty, finished(faulty, faults=faults, **options), sound, finished(sound, **options)


def test_every_fault_ends_as_what_it_is(studies: tuple[Path, list[Trial], Path, list[Trial]]) -> None:
    _, trials, _, _ = studies
    assert [trial.number for trial in trials] == list(range(COUNT))
    for trial in trials:
        _, state, reason = FAULTS.get(trial.number, (None, State.COMPLETE, None))
        assert (trial.number, trial.state) == (trial.number, state)
        assert (reason or "") in (trial.reason or "")
        assert trial.value is None or state is State.COMPLETE


def test_trials_beside_faulty_ones_have_the_values_and_bytes_they_have_alone(
    studies: tuple[Path, list[Trial], Path, list[Trial]],
) -> None:
    faulty, trials, sound, others = studies
    for trial, other in zip(trials, others, strict=True):
        assert trial.point == other.point
        if trial.state is State.COMPLETE:
            assert trial.values == other.values
            weights = Path("trials", str(trial.number), "adapter", "weights")
            assert (faulty / weights).read_bytes() == (sound / weights).read_bytes()


def test_a_log_says_where_a_trial_failed(studies: tuple[Path, list[Trial], Path, list[Trial]]) -> None:
    faulty, _, _, _ = studies
    for number in (1, 5, 12):
        assert "Traceback" in log_of(faulty, number)
        assert "in happen" in log_of(faulty, number)
    for number in (10, 18):
        assert "in happen" in log_of(faulty, number)
        assert "most recent call first" in log_of(faulty, number)
    assert "Traceback" not in log_of(faulty, 0)


def test_a_worker_outlives_good_trials_alone(studies: tuple[Path, list[Trial], Path, list[Trial]]) -> None:
    faulty, trials, sound, _ = studies
    assert len({process_of(sound, number) for number in range(COUNT)}) <= 2
    for trial in [trial for trial in trials if trial.state is not State.COMPLETE]:
        later = [other for other in trials if other.started and trial.ended and other.started > trial.ended]
        assert process_of(faulty, trial.number) not in {process_of(faulty, other.number) for other in later}


def test_an_attempt_that_was_killed_is_kept_aside(studies: tuple[Path, list[Trial], Path, list[Trial]]) -> None:
    faulty, trials, _, _ = studies
    assert (faulty / "trials" / "8.attempt1" / "log.txt").exists()
    assert (faulty / "trials" / "7.attempt2" / "log.txt").exists()
    assert (trials[7].deaths, trials[8].deaths) == (3, 1)


def test_a_sampler_learns_from_points_that_cannot_be_trained(tmp_path: Path) -> None:
    options = {"sampler": "tpe", "sampler_kwargs": {"n_startup_trials": 4}, "n_trials": 8, "slots": 1}
    sound = finished(tmp_path / "sound", **options)
    best = min(range(5), key=lambda number: sound[number].value)
    faulty = finished(tmp_path / "faulty", faults={best: "out of memory"}, **options)
    assert faulty[best].state is State.OUT_OF_MEMORY
    assert [trial.point for trial in faulty[:4]] == [trial.point for trial in sound[:4]]
    assert [trial.point for trial in faulty[5:]] != [trial.point for trial in sound[5:]]


def test_failures_in_a_row_end_the_study(tmp_path: Path) -> None:
    faults = dict.fromkeys((0, 1, 3, 4, 5), "exception")
    reason, text = run(toy(tmp_path / "study", faults, slots=1, max_failures=3))
    assert reason == "3 trials in a row failed (hydra.sweeper.max_failures)"
    assert reason in text
    assert [trial.state for trial in trials_of(tmp_path / "study")] == [
        *(State.FAILED, State.FAILED, State.COMPLETE, State.FAILED, State.FAILED, State.FAILED)
    ]


@pytest.mark.parametrize("fault", ["long evaluation", "long load"])
def test_what_takes_long_and_is_at_work_does_not_hang(fault: str, tmp_path: Path) -> None:
    options = {"n_trials": 2, "slots": 1, "hang_timeout": 6.0, "study": {"long": 9.0}}
    trials = finished(tmp_path / "study", faults={1: fault}, **options)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 2
    planted = finished(tmp_path / "planted", faults={1: "hang"}, **options)
    assert planted[1].state is State.HUNG


def test_without_retries_a_killed_trial_is_a_failed_one(tmp_path: Path) -> None:
    trials = finished(tmp_path / "study", faults={1: "kill once"}, n_trials=3, max_retries=0)
    assert trials[1].state is State.FAILED
    assert not (tmp_path / "study" / "trials" / "1.attempt1").exists()


def test_a_trial_may_take_so_long(tmp_path: Path) -> None:
    trials = finished(tmp_path / "study", faults={1: "hang"}, n_trials=3, trial_timeout=3.0)
    assert trials[1].state is State.FAILED
    assert trials[1].reason == "took longer than hydra.sweeper.trial_timeout=3 s"


def test_a_study_may_take_so_long(tmp_path: Path) -> None:
    reason, _ = run(toy(tmp_path / "study", seconds=0.1, n_trials=10_000, timeout=1.0))
    assert reason == "hydra.sweeper.timeout=1 s is over"
    trials = trials_of(tmp_path / "study")
    assert {trial.state for trial in trials} == {State.COMPLETE}
    assert len(trials) < 100
