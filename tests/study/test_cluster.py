"""Slots that are jobs: brought by submitit, reached over a socket, warned before they end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lorasweep.study.outcomes import State
from tests.study.sessions import finished, processes_of, until

LOCAL = {"cluster": "local", "cluster_options": {"timeout_min": 30}}


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study whose processes can be found."""
    folder = tmp_path / "study"
    monkeypatch.setenv("TOY", str(folder))
    return folder


def no_jobs(folder: Path) -> bool:
    return not [process for process in processes_of(folder) if process.pid != os.getpid()]


@pytest.mark.slow
def test_a_study_of_jobs_ends_as_one_of_processes_does_and_leaves_none(known: Path, tmp_path: Path) -> None:
    faults = {2: "kill once", 3: "exception", 4: "exit", 5: "segfault", 6: "kill"}
    options = {"faults": faults, "n_trials": 9, "pruner": "median", "max_failures": None, "slots": 1}
    jobs = finished(known, **options, **LOCAL)
    here = finished(tmp_path / "here", **options)
    assert [(trial.state, trial.values, trial.point, trial.deaths, trial.reason) for trial in jobs] == [
        (trial.state, trial.values, trial.point, trial.deaths, trial.reason) for trial in here
    ]
    assert {State.COMPLETE, State.FAILED} <= {trial.state for trial in jobs}
    until(lambda: no_jobs(known))
    assert not list(known.glob("workers/*/call-*"))
