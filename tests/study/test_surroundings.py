"""Places where no study can be are refused before the first trial, and nothing that was there is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorasweep.rules import UserError
from lorasweep.study.outcomes import State
from lorasweep.study.store import Store
from lorasweep.study.trial import Trial
from tests.study.sessions import ROOT, finished, launch, refusal, run, trials_of
from tests.study.toy import toy


def test_one_controller_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    errors = []

    def second(trial: Trial) -> None:
        if not errors:
            errors.append(refusal(toy(folder)))

    run(toy(folder, n_trials=2), second)
    assert f"process {os.getpid()} on" in str(errors[0])
    assert len(finished(folder, n_trials=3)) == 3


def test_of_four_that_start_at_once_one_runs_the_study(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    sessions = [launch(folder, n_trials=3, slots=1, seconds=0.2) for _ in range(4)]
    ends = [(session.communicate(timeout=180)[0], session.returncode) for session in sessions]
    assert sorted({code for _, code in ends}) in ([0, 2], [0]), ends  # 0 too where one begins when another is done
    assert all("lorasweep stop" in text and "Traceback" not in text for text, code in ends if code)
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 3
    trained = (folder / "trained.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in trained) == ["0", "1", "2"]


def test_a_shared_database_has_one_study_of_a_name(tmp_path: Path) -> None:
    here, there = tmp_path / "here" / "study", tmp_path / "there" / "study"
    url = f"sqlite:///{tmp_path}/all.db"
    errors = []

    def elsewhere(trial: Trial) -> None:
        errors.append(refusal(toy(there, storage=url)))

    run(toy(here, n_trials=2, storage=url), elsewhere)
    for error in (*errors, refusal(toy(there, storage=url))):
        assert str(here) in str(error)
    assert len(errors) == 2
    assert not there.exists()
    here.rename(there)
    assert run(toy(there, n_trials=3, storage=url))[0] is None
    assert (there / "trials" / "2" / "log.txt").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("mine")
    assert refusal(toy(tmp_path / "study")).problems[0].key == "hydra.sweep.dir"
    assert refusal(toy(tmp_path / "study" / "below")).problems[0].key == "hydra.sweep.dir"
    assert (tmp_path / "study").read_text() == "mine"


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    error = refusal(toy(tmp_path))
    assert "notes.txt" in str(error)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_database_that_is_not_whole(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    before = finished(folder, n_trials=2)
    database = folder / "study.db"
    whole = database.read_bytes()
    pieces = {
        "half": whole[: len(whole) // 2],
        "a page less": whole[:-4096],
        "a few bytes": whole[:50],
        "nothing": b"",
        "something else": b"x" * 5000,
        "a page torn": whole[:8192] + os.urandom(4096) + whole[12288:],
    }
    for name, piece in pieces.items():
        database.write_bytes(piece)
        error = refusal(toy(folder, n_trials=2))
        assert "put a copy of it back" in str(error), name
        assert (folder / "trials" / "1" / "log.txt").exists()
    database.unlink()
    assert "put a copy of it back" in str(refusal(toy(folder, n_trials=2)))
    database.write_bytes(whole)
    assert finished(folder, n_trials=2) == before


def test_a_database_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    finished(folder, n_trials=1)
    shutil.rmtree(folder / "trials")
    whole = (folder / "study.db").read_bytes()
    (folder / "study.db").unlink()
    (folder / ".study.db.new").write_bytes(whole[: len(whole) // 2])
    (folder / ".study.db.new-journal").write_bytes(whole[:1000])
    trials = finished(folder, n_trials=1)
    assert finished(folder, n_trials=2)[:1] == trials
    assert not list(folder.glob(".study.db.new*"))


def test_a_database_that_something_else_holds_for_a_while_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    finished(folder, n_trials=1)
    holder = sqlite3.connect(folder / "study.db", isolation_level=None, check_same_thread=False)
    letting_go = threading.Timer(8.0, lambda: holder.execute("ROLLBACK"))

    def hold(trial: Trial) -> None:
        if trial.number == 1:
            holder.execute("BEGIN EXCLUSIVE")
            letting_go.start()

    assert run(toy(folder, n_trials=3, slots=1), hold)[0] is None
    letting_go.join()
    holder.close()
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 3


def test_an_address_of_no_database(tmp_path: Path) -> None:
    for url in ("nosuch://host/name", f"sqlite:///{tmp_path}/no/folder/study.db"):
        assert refusal(toy(tmp_path / "study", storage=url)).problems[0].key == "hydra.sweeper.storage"
        assert not (tmp_path / "study").exists()


def test_workers_that_do_not_start(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    error = refusal(toy(folder, objective="tests.study.nothing:Toy"))
    log = folder / "workers" / "slot-0.log"
    assert str(log) in str(error)
    assert "No module named 'tests.study.nothing'" in log.read_text()
    assert len(finished(folder, n_trials=2)) == 2


def test_a_controller_may_be_the_first_process_as_it_is_in_a_container(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    session = [sys.executable, "-m", "tests.study.toy", str(folder), '{"n_trials": 2}']
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *session],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 2


def test_workers_that_stop_starting_end_the_study_when_running_trials_have_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"

    def break_workers(trial: Trial) -> None:
        monkeypatch.setenv("PYTHONPATH", "/nowhere")
        monkeypatch.setenv("PYTHONHOME", "/nowhere")

    with pytest.raises(UserError) as caught:
        run(toy(folder, seconds=1.0, n_trials=2), break_workers)
    assert "slot-1.log" in str(caught.value)
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE]
    monkeypatch.undo()
    assert len(finished(folder, n_trials=2)) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few hundred KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "lorasweep-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill_up(filler: Path) -> None:
    """Take all the room there is, also where a worker takes some of it meanwhile."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    filler = small_disk / "filler"
    for free in (0, 4, 8, 60):  # KiB; the first file of a study takes 4, its database more than 100
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - free * 1024))
        assert refusal(toy(small_disk / "study", n_trials=2)).problems
        filler.unlink()
        assert list(small_disk.iterdir()) == []
    assert len(finished(small_disk / "study", n_trials=2)) == 2


def test_a_disk_that_fills_up_stops_the_study_until_there_is_room(small_disk: Path) -> None:
    folder, filler = small_disk / "study", small_disk / "filler"
    options = {"n_trials": 6, "slots": 1, "keep_adapters": None, "study": {"bytes": 20_000}}

    def fill(trial: Trial) -> None:
        if trial.number == 3:
            fill_up(filler)

    try:
        reason, _ = run(toy(folder, **options), fill)
    except UserError as error:
        reason = str(error)
    assert reason
    assert "No space left" in reason or "full" in reason
    filler.unlink()
    before = trials_of(folder)
    assert [trial.state for trial in before[:3]] == [State.COMPLETE] * 3
    assert not before[3].state.is_finished
    trials = finished(folder, **options)
    assert trials[:3] == before[:3]
    assert [trial.state for trial in trials] == [State.COMPLETE] * 6


@pytest.mark.parametrize("size", [20_000, 0])
def test_a_trial_without_room_is_run_again_when_there_is_some(small_disk: Path, tmp_path: Path, size: int) -> None:
    folder, filler = small_disk / "study", small_disk / "filler"
    options = {"slots": 1, "n_trials": 4, "study": {"bytes": size}, "keep_adapters": None}
    options |= {"storage": f"sqlite:///{tmp_path}/study.db"}

    def fill(trial: Trial) -> None:
        if trial.number == 2:
            fill_up(filler)

    reason, text = run(toy(folder, **options), fill)
    assert "No space left" in str(reason)
    assert str(reason) in text
    filler.unlink()
    assert finished_elsewhere(folder, options) == [State.COMPLETE] * 4


def finished_elsewhere(folder: Path, options: dict[str, Any]) -> list[State]:
    assert run(toy(folder, **options))[0] is None
    definition = toy(folder, **options)
    store = Store(options["storage"], "study", definition.directions(), definition.space)
    try:
        return [trial.state for trial in store.trials()]
    finally:
        store.close()


def test_a_command_line_without_room_ends_without_a_traceback(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(560 * 1024))
    before = psutil.Process().children()
    session = launch(small_disk / "study", n_trials=2)
    text, _ = session.communicate(timeout=120)
    assert session.returncode == 2
    assert "1 problem" in text
    assert "Traceback" not in text
    assert psutil.Process().children() == before
