"""Rows are prepared once per host: of several processes that want the same at once, one makes them, the others wait."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from lorasweep import cache
from lorasweep.data import build_datasets, encoding
from lorasweep.model import build_tokenizer
from lorasweep.schema import Data, Model
from tests.streaming.files import numbered, written

pytestmark = pytest.mark.slow
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.test_prepared_once"])
COUNT = 4


def prepare(folder: Path, name: str, killed: bool, gate: Any) -> None:
    """Prepare the rows of a folder once all are ready; leave a note of having prepared, and of what came of it."""
    os.environ["LORASWEEP_CACHE"] = str(folder / "cache")
    encode = encoding.Encoder.__call__

    def noted(self: encoding.Encoder, batch: Mapping[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        with open(folder / "prepared", "a") as file:
            file.write(f"{name}\n")
        columns = encode(self, batch, numbers)
        if killed and numbers[0] >= 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        return columns

    encoding.Encoder.__call__ = noted  # type: ignore[method-assign]
    tokenizer = build_tokenizer(Model(source="random", name="tiny"))
    gate.wait(300)
    splits = build_datasets(Data(source="files", files=str(folder / "rows.jsonl")), tokenizer, 64)
    (folder / f"{name}.json").write_text(json.dumps({part: split.digest() for part, split in splits.items()}))


def started(folder: Path, names: list[str], killed: bool = False) -> list[BaseProcess]:
    """Processes that begin to prepare at the same time."""
    gate = PROCESSES.Barrier(len(names))
    processes = [PROCESSES.Process(target=prepare, args=(folder, name, killed, gate)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode is not None, "it hangs"
    return processes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows of three batches, and a cache of its own with the tiny model in it."""
    monkeypatch.setenv("LORASWEEP_CACHE", str(tmp_path / "cache"))
    build_tokenizer(Model(source="random", name="tiny"))
    written(tmp_path / "rows.jsonl", numbered(2500))
    return tmp_path


def left(folder: Path) -> list[str]:
    """What is in the cache of prepared rows beside locks."""
    return [path.name for path in (cache.root() / "rows").iterdir() if path.suffix != ".lock"]


def notes(folder: Path) -> list[str]:
    return (folder / "prepared").read_text().split()


def test_one_of_several_processes_prepares_and_all_read_the_same(folder: Path) -> None:
    names = [str(number) for number in range(COUNT)]
    assert [process.exitcode for process in started(folder, names)] == [0] * COUNT
    assert len(notes(folder)) == 3, "three batches, each prepared once"
    assert len(set(notes(folder))) == 1
    assert len({(folder / f"{name}.json").read_text() for name in names}) == 1
    assert len(left(folder)) == 1
    started(folder, ["later"])
    assert len(notes(folder)) == 3, "what is kept is read"


def test_a_preparer_that_is_killed_leaves_nothing_broken(folder: Path) -> None:
    names = [str(number) for number in range(COUNT)]
    ended = started(folder, names, killed=True)
    assert [process.exitcode for process in ended] == [-signal.SIGKILL] * COUNT, (
        "each took over, and was killed in turn"
    )
    assert notes(folder) == [name for name in dict.fromkeys(notes(folder)) for _ in range(2)]
    assert all(name.startswith(".") for name in left(folder)), "nothing that looks whole"
    started(folder, ["after", "beside"])
    assert len(notes(folder)) == 2 * COUNT + 3
    assert (folder / "after.json").read_text() == (folder / "beside.json").read_text()
    assert [name for name in left(folder) if name.startswith(".")] == []
