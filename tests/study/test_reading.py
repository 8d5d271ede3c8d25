"""A study read without Optuna is the one that Optuna reads."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lorasweep.rules import UserError
from lorasweep.study.leaderboard import build_leaderboard
from lorasweep.study.outcomes import State
from lorasweep.study.reading import DONE, SESSION, read_study
from lorasweep.study.session import run_session
from lorasweep.study.store import open_store
from lorasweep.study.view import Lines
from tests.study.toy import toy
from tests.study.trials import ended, kept

FAULTS = {2: "exception", 3: "diverged", 4: "out of memory", 5: "nan"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with trials of many states."""
    folder = tmp_path_factory.mktemp("reading") / "toys"
    definition = toy(folder, faults=FAULTS, n_trials=9, pruner="median", prune_after=0.5)
    assert run_session(definition, Lines(Console(quiet=True))) is None
    return folder


def test_trials_and_attributes_are_those_of_optuna(study: Path) -> None:
    found, store = read_study(study), open_store(study)
    assert found.trials() == store.trials()
    assert len({trial.state for trial in found.trials()}) >= 4
    assert found.attributes == store.attributes
    assert found.directions == store.directions
    assert build_leaderboard(found, study) == build_leaderboard(store, study)
    best = build_leaderboard(store, study).best
    assert best
    assert found.best
    assert found.best.number == best["trial"]
    store.close()


def test_a_study_in_another_database_is_read_through_optuna(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{study / 'study.db'}"
    (tmp_path / "toys" / "trials").mkdir(parents=True)
    assert read_study(tmp_path / "toys", url).trials() == read_study(study).trials()
    with pytest.raises(UserError, match=r"hydra\.sweeper\.storage"):
        read_study(tmp_path / "toys")


def test_of_several_objectives_the_best_is_the_first_of_the_front(tmp_path: Path) -> None:
    store = kept(tmp_path / "s", objectives=["objective", "memory/peak_gib"], directions=["maximize", "minimize"])
    for values in ([1.0, 1.0], [2.0, 9.0], [2.0, 8.0]):
        ended(store, {"a": values[1]}, values)
    found = read_study(tmp_path / "s")
    best = build_leaderboard(store, tmp_path / "s").best
    assert best
    assert found.best
    assert found.best.number == best["trial"] == 2
    assert found.objectives == ["loss", "memory/peak_gib"]
    store.close()


def test_a_study_knows_its_total_and_why_its_session_ended(tmp_path: Path) -> None:
    folder, view = tmp_path / "s", Lines(Console(quiet=True))
    run_session(toy(folder, n_trials=3, timeout=1e-9), view)
    begun = read_study(folder)
    assert begun.ended
    assert "hydra.sweeper.timeout" in begun.ended
    assert (begun.state, begun.total, begun.left) == ("unfinished", 3, 3 - begun.done)
    run_session(toy(folder, n_trials=3), view)
    done = read_study(folder)
    assert (done.state, done.ended, done.done, done.left) == ("complete", DONE, 3, 0)
    run_session(toy(folder, n_trials=4), view)
    assert read_study(folder).total == 4


def test_a_trial_that_ran_when_the_study_was_killed_is_interrupted(tmp_path: Path) -> None:
    store = kept(tmp_path / "s")
    store.create({"a": 1}, "key", "sampled")
    store.keep(SESSION, {"total": 2, "ended": None})
    store.close()
    found = read_study(tmp_path / "s")
    assert [trial.state for trial in found.trials()] == [State.INTERRUPTED]
    assert found.state == "unfinished"


def test_a_study_is_read_while_another_process_writes_to_it(study: Path) -> None:
    connection = sqlite3.connect(study / "study.db")
    connection.execute("BEGIN IMMEDIATE")
    assert read_study(study).trials()
    connection.close()


def test_reading_a_study_imports_neither_optuna_nor_numpy(study: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lorasweep.study.reading import read_study;"
        f"read_study(Path({str(study)!r}));"
        "print(sorted({'optuna', 'numpy', 'sqlalchemy', 'hydra', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr
