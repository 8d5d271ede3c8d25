"""Several controllers work on one study in a shared database as one would."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.store import open_store
from lorasweep.study.trial import Trial
from tests.study.kills import trained
from tests.study.postgres import Server, server
from tests.study.sessions import launch


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A server in a folder that its user can reach, which those of pytest are not."""
    place = Path(tempfile.mkdtemp(prefix="lorasweep-postgres-", dir="/tmp"))
    try:
        with server(place) as started:
            yield started
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def url(postgres: Server, request: pytest.FixtureRequest) -> str:
    """The address of a database for one test."""
    return postgres.create(f"test_{abs(hash(request.node.name)) % 10**8}_{os.getpid()}")


def trials_in(folder: Path, url: str) -> list[Trial]:
    """The trials that a database has of a study."""
    store = open_store(folder, url)
    try:
        return store.trials()
    finally:
        store.close()


def assert_exact(trials: list[Trial], count: int) -> None:
    """All trials are there, complete, once."""
    assert [trial.number for trial in trials] == list(range(count))
    assert {trial.state for trial in trials} == {State.COMPLETE}
    assert len({str(trial.point) for trial in trials}) == count
    assert [trial.kind for trial in trials].count("baseline") == 1
    assert trials[0].kind == "baseline"


@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "folder per host"])
def test_two_controllers_share_a_study_whose_total_is_exact(tmp_path: Path, url: str, shared: bool) -> None:
    folders = [tmp_path / "study"] * 2 if shared else [tmp_path / name / "study" for name in ("a", "b")]
    sessions = [launch(folder, n_trials=20, seconds=0.05, storage=url) for folder in folders]
    ends = [(session.communicate(timeout=180)[0], session.returncode) for session in sessions]
    assert [code for _, code in ends] == [0, 0], ends
    trials = trials_in(folders[0], url)
    assert_exact(trials, 20)
    lines = sum((trained(folder) for folder in set(folders)), start=trained(tmp_path))
    assert len(lines) == sum(lines.values()) == 20
