"""lorasweep ls: which runs and studies there are, in what state, which first."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorasweep.record import write_json
from lorasweep.study.folder import OWNER, STUDIES
from lorasweep.study.outcomes import State
from tests.looking.conftest import Command
from tests.looking.made import made
from tests.study.trials import ended, kept

RUNS = Path("outputs/runs")


def study(name: str = "guanaco") -> Path:
    """A study of three trials, one of which has not ended."""
    store = kept(STUDIES / name)
    ended(store, {"lora.r": 8}, 1.5, "baseline")
    ended(store, {"lora.r": 16}, 1.25)
    store.create({"lora.r": 32}, "key", "sampled")
    store.keep("session", {"total": 5, "ended": None})
    store.close()
    return STUDIES / name


def test_runs_and_studies_are_listed_newest_first(lorasweep: Command):
    made(RUNS / "old", [2.0] * 6, age=3 * 86400)
    made(RUNS / "new", [1.0] * 6, age=60, state="diverged", facts={"objective": None})
    study()
    listed = lorasweep("ls", "--json").json()
    assert [entry["name"] for entry in listed] == ["guanaco", "new", "old"]
    assert [entry["kind"] for entry in listed] == ["study", "run", "run"]
    assert [entry["state"] for entry in listed] == ["unfinished", "diverged", "complete"]
    assert (listed[2]["objective"], listed[2]["best"]) == ("loss", 2.0)
    assert "best" not in listed[1]
    assert listed[0]["best"] == 1.25
    assert listed[0]["trials"] == {"complete": 2, "interrupted": 1}
    assert (listed[0]["done"], listed[0]["total"]) == (2, 5)
    assert listed[2]["changed"] == pytest.approx(time.time() - 3 * 86400, abs=600)
    lines = lorasweep("ls").out.splitlines()
    assert "unfinished 2/5" in lines[1]
    assert "loss 1.25" in lines[1]
    assert "3 d" in lines[3]


def test_a_listing_can_be_sorted_and_cut(lorasweep: Command):
    for number, loss in enumerate((2.0, 1.0, 3.0)):
        made(RUNS / f"run{number}", [loss] * 6, age=number)
    (RUNS / "run2" / "adapter" / "weights").write_bytes(bytes(100_000))
    made(RUNS / "scored", facts={"objective": 0.5}, evaluation__objective="exact_match")
    made(RUNS / "better", facts={"objective": 0.75}, evaluation__objective="exact_match")

    def names(*arguments: str) -> list[str]:
        return [entry["name"] for entry in lorasweep("ls", "--json", *arguments).json()]

    assert names("--sort", "best") == ["better", "scored", "run1", "run0", "run2"]
    assert names("--sort", "name") == ["better", "run0", "run1", "run2", "scored"]
    assert names("--sort", "size")[0] == "run2"
    assert "3 more: --most 5" in lorasweep("ls", "--most", "2").out
    assert len(names("--most", "2")) == 2


def test_the_size_is_the_room_that_the_files_take(lorasweep: Command):
    made(RUNS / "run")
    before = lorasweep("ls", "--json").json()[0]["size_bytes"]
    (RUNS / "run" / "adapter" / "weights").write_bytes(b"x" * 40_000)
    after = lorasweep("ls", "--json").json()[0]["size_bytes"]
    assert 40_000 <= after - before <= 50_000


def test_a_run_without_an_end_is_running_as_long_as_a_process_writes_to_it(lorasweep: Command):
    folder = made(RUNS / "run", state=None, record={"steps": {"count": 9}})
    entry = lorasweep("ls", "--json").json()[0]
    assert (entry["state"], entry["step"], entry["steps"], entry["best"]) == ("unfinished", 4, 9, 1.0)
    program = (
        f"import sys; file = open({str(folder / 'metrics.jsonl')!r}, 'a'); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        entry = lorasweep("ls", "--json").json()[0]
        assert (entry["state"], entry["process"]) == ("running", f"process {process.pid}")
        assert "running 4/9" in lorasweep("ls").out
        process.communicate("")


def test_a_reader_of_the_metrics_does_not_make_a_run_running(lorasweep: Command):
    folder = made(RUNS / "run", state=None)
    with open(folder / "metrics.jsonl"):
        assert lorasweep("ls", "--json").json()[0]["state"] == "unfinished"


def test_a_study_is_running_while_its_controller_lives(lorasweep: Command):
    folder = study()
    write_json(folder / OWNER, {"pid": os.getppid(), "host": os.uname().nodename})
    entry = lorasweep("ls", "--json").json()[0]
    assert entry["state"] == "running"
    assert f"process {os.getppid()}" in entry["process"]
    assert entry["trials"] == {"complete": 2, "running": 1}


def test_the_folder_of_a_study_lists_its_trials_as_the_other_commands_take_them(lorasweep: Command):
    folder = study()
    made(folder / "trials" / "0", [1.5] * 6)
    made(folder / "trials" / "1", state=None)
    store = kept(folder / "confirm")
    store.close()
    listed = {entry["name"]: entry for entry in lorasweep("ls", str(folder), "--json").json()}
    assert set(listed) == {"guanaco:0", "guanaco:1", "guanaco/confirm"}
    assert listed["guanaco:1"]["state"] == "complete", "as its study knows"
    assert [entry["name"] for entry in lorasweep("ls", "--json").json()] == ["guanaco"]


def test_trials_are_sorted_by_their_numbers_and_listed_without_their_study(lorasweep: Command):
    folder = study()
    for number in (2, 10, 1):
        made(folder / "trials" / str(number))
    (folder / "study.db").write_text("no database")
    listed = lorasweep("ls", str(folder), "--sort", "name", "--json").json()
    assert [entry["name"] for entry in listed] == ["guanaco:1", "guanaco:2", "guanaco:10"]
    assert {entry["state"] for entry in listed} == {"complete"}


def test_places_are_looked_into_and_what_is_no_folder_is_said(lorasweep: Command):
    made(Path("elsewhere/deep/run"))
    assert [entry["name"] for entry in lorasweep("ls", "elsewhere", "--json").json()] == ["elsewhere/deep/run"]
    assert [entry["name"] for entry in lorasweep("ls", "elsewhere/deep/run", "--json").json()] == ["elsewhere/deep/run"]
    done = lorasweep("ls", "elsewhere", "nowhere", "nothing")
    assert done.code == 2
    assert done.err.count("PLACE = ") == 2


def test_without_outputs_it_is_said_what_makes_them(lorasweep: Command):
    assert "python train.py makes a run" in lorasweep("ls").out
    assert lorasweep("ls", "--json").json() == []


def test_what_cannot_be_read_is_listed_with_why(lorasweep: Command):
    folder = study()
    (folder / "study.db").write_text("no database")
    made(RUNS / "run")
    (RUNS / "run" / "record.json").write_text("{")
    (RUNS / "run" / "summary.json").write_text("")
    listed = {entry["kind"]: entry for entry in lorasweep("ls", "--json").json()}
    assert "whose database can be read" in listed["study"]["problem"]
    assert listed["run"]["state"] == "unfinished"


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_a_listing_fits_the_terminal(lorasweep: Command, width: int):
    made(RUNS / "2026-11-22_02-06-38_63fa", record={"name": "lora.r=64," * 20})
    study()
    done = lorasweep("ls", width=width)
    assert max(map(len, done.out.splitlines())) <= width
    assert ("lora.r=64" in done.out) == (width >= 120)
    if width >= 80:
        assert "2026-11-22_02-06-38_63fa" in done.out


def test_states_are_those_of_the_trials(lorasweep: Command):
    store = kept(STUDIES / "odd")
    ended(store, {"a": 1}, State.REFUSED, reason="contradicts itself")
    store.keep("session", {"total": 1, "ended": "done"})
    store.close()
    entry = lorasweep("ls", "--json").json()[0]
    assert (entry["state"], entry["trials"], entry["done"]) == ("complete", {"refused": 1}, 0)
