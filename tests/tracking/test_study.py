"""W&B's own reader finds every trial of a study, however it ended, and the study as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.session import LOCK
from lorasweep.study.trial import Trial
from lorasweep.tracking.study_run import BEST, _plots, find, summary_of
from lorasweep.tracking.subject import study_identity
from tests.study.sessions import finished, processes_of, trials_of, until
from tests.tracking.offline import Written, written
from tests.tracking.recording import session

FAULTS = {
    2: "exception", 3: "kill", 4: "hang", 5: "out of memory", 6: "diverged", 7: "kill once", 8: "early exception", 9: "exit",
}  # fmt: skip
KILLED_TWICE = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of twelve trials, one of every fault among them, and bad ones ended early."""
    folder = tmp_path_factory.mktemp("studies") / "first"
    folder.mkdir()
    for name in (LOCK, BEST):  # as an earlier session leaves them
        (folder / name).touch()
    os.environ["TOY"] = str(folder)
    os.environ["WANDB_API_KEY"] = "a0secret" * 5
    text = session(
        folder, faults=FAULTS, n_trials=12, pruner="asha", prune_after=0.5, reduction_factor=2, slots=1, max_retries=1, hang_timeout=8.0,
        max_failures=None, study={"seconds": 0.05},
    )  # fmt: skip
    os.environ["WANDB_API_KEY"] = ""
    assert "W&B" not in text, text
    assert (folder / "wandb.log").read_text() == ""
    return folder


@pytest.fixture(scope="module")
def runs(study: Path) -> dict[str, list[Written]]:
    return written(study)


@pytest.fixture(scope="module")
def trials(study: Path) -> list[Trial]:
    return trials_of(study)


def last(runs: dict[str, list[Written]], study: Path, trial: Trial) -> Written:
    return runs[study_identity(study).trial(trial).id][-1]


def test_the_study_has_met_every_end(trials: list[Trial]) -> None:
    ends = {State.COMPLETE, State.PRUNED, State.FAILED, State.HUNG, State.OUT_OF_MEMORY, State.DIVERGED}
    assert {trial.state for trial in trials} == ends
    assert trials[KILLED_TWICE].reason == "its process was killed by SIGKILL 2 times"


def test_every_trial_is_a_run_and_so_is_the_study(
    runs: dict[str, list[Written]], study: Path, trials: list[Trial]
) -> None:
    base = study_identity(study).id
    assert set(runs) == {base, *(f"{base}-{trial.number}" for trial in trials)}
    assert {run.group for opened in runs.values() for run in opened} == {"first"}
    assert {run.project for opened in runs.values() for run in opened} == {"toys"}
    types = [last(runs, study, trial).job_type for trial in trials]
    assert types == ["baseline"] + ["trial"] * 11
    assert runs[base][-1].job_type == "study"


def test_a_run_ends_as_its_trial_did(runs: dict[str, list[Written]], study: Path, trials: list[Trial]) -> None:
    for trial in trials:
        run = last(runs, study, trial)
        assert run.tags == ["toy", trial.state.value]
        assert run.summary["state"] == trial.state.value
        assert run.exit_code == (0 if trial.state in (State.COMPLETE, State.PRUNED) else 1)
        assert run.summary.get("error") == trial.reason


def test_a_run_has_the_values_and_the_name_of_its_trial(
    runs: dict[str, list[Written]], study: Path, trials: list[Trial]
) -> None:
    for trial in trials:
        run = last(runs, study, trial)
        assert {key: run.config[key] for key in trial.point} == trial.point
        assert run.name.startswith(f"{trial.number}-x=")
        assert f"x={trial.point['x']}" in run.name


def test_a_history_has_every_step_that_was_written_and_its_time(
    runs: dict[str, list[Written]], study: Path, trials: list[Trial]
) -> None:
    lengths = {State.COMPLETE: [0, 1, 2, 3, 4], State.HUNG: [0, 1, 2], State.OUT_OF_MEMORY: [0, 1, 2]}
    for trial in trials:
        run = last(runs, study, trial)
        if trial.state in lengths:
            assert run.steps == lengths[trial.state]
        if trial.state is State.COMPLETE:
            assert run.history[4]["eval/loss"] == pytest.approx(trial.value)
            assert run.history[4]["train/loss"] == 0.25, "what a step wrote in two lines is one row"
            assert run.summary["objective"] == pytest.approx(trial.value)
            assert 0 <= run.history[0]["_timestamp"] - 1767261600 < 60, "as record.json has it"
    assert last(runs, study, trials[8]).steps == [], "it failed before it began"


def test_a_trial_that_is_run_again_goes_on_with_its_run(
    runs: dict[str, list[Written]], study: Path, trials: list[Trial]
) -> None:
    attempts = {trial.number: runs[study_identity(study).trial(trial).id] for trial in trials}
    assert {number: len(opened) for number, opened in attempts.items() if len(opened) > 1} == {KILLED_TWICE: 2, 7: 2}
    first, second = attempts[7]
    assert (first.tags, first.exit_code) == (["toy", "interrupted"], 1)
    assert first.steps == [0, 1], "the step in which it was killed may have had more to say"
    assert (second.tags, second.exit_code) == (["toy", trials[7].state.value], 0)
    assert second.steps[:3] == [0, 1, 2]


def test_the_study_as_a_whole_has_leaderboard_and_best_values(
    runs: dict[str, list[Written]], study: Path, trials: list[Trial]
) -> None:
    (run,) = runs[study_identity(study).id]
    complete = [trial for trial in trials if trial.value is not None]
    best = min(complete, key=lambda trial: trial.value or 0.0)
    assert run.exit_code == 0
    assert run.summary["best/trial"] == best.number
    assert run.summary["best/x"] == best.point["x"]
    assert run.summary["baseline/objective"] == pytest.approx(trials[0].value)
    assert run.summary["trials/hung"] == 1
    assert run.summary["leaderboard.nrows"] == 12
    plots = {name.partition("_table.")[0] for name in run.history[-1] if "_table." in name}
    assert {"history", "slice/x", "slice/y"} <= plots
    assert run.artifacts[-1] == "first-best"


def test_what_made_the_difference_is_told_once_there_are_enough_trials(tmp_path: Path) -> None:
    finished(tmp_path / "study", n_trials=16)
    findings = find(tmp_path / "study", None)
    summary = summary_of(findings)
    assert sum(summary[f"importance/objective/{key}"] for key in ("x", "y")) == pytest.approx(1)
    assert "importance/objective" in _plots(findings)


def test_no_key_reaches_a_file(study: Path) -> None:
    found = [path for path in study.rglob("*") if path.is_file() and b"a0secret" in path.read_bytes()]
    assert found == []


def test_no_process_is_left(study: Path) -> None:
    left = [process for process in processes_of(study) if process.pid != os.getpid()]
    assert until(lambda: not any(process.is_running() for process in left), 5.0)
