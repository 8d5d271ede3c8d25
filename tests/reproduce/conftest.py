"""A recorded run of local files, all of which a test may change, and the command as a user types it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lorasweep import demo_rows, random_model, reproduce
from lorasweep.record import Launch, write_json
from lorasweep.results import read_json, read_results
from lorasweep.run import train
from tests.after.conftest import lorasweep
from tests.conftest import composed, tiny

__all__ = ["lorasweep"]


@dataclass(frozen=True)
class Recorded:
    """A run folder, and the files that it was made from."""

    folder: Path
    data: Path
    model: Path

    def drift(self, *overrides: str) -> list[str]:
        """The names of what --check finds to be another."""
        return [item.name for item in reproduce.check(str(self.folder), list(overrides)).facts.drift]

    def drift_as_saved(self) -> list[str]:
        """The same without overrides, and without composing the config, which takes a second."""
        results = read_results(self.folder)
        return [item.name for item in reproduce.drift(results, results.run).drift]

    def copied(self, place: Path) -> Recorded:
        """The same run in a folder of its own, whose record may be changed."""
        shutil.copytree(self.folder, place)
        return Recorded(place, self.data, self.model)

    def record(self) -> dict[str, Any]:
        return read_json(self.folder / "record.json")

    def rewrite(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change the record."""
        record = self.record()
        change(record)
        write_json(self.folder / "record.json", record)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run on rows, a model, a tokenizer and a chat template in local files."""
    place = tmp_path_factory.mktemp("recorded")
    data, model = place / "data", place / "base"
    data.mkdir()
    for name, count, seed in (("rows.jsonl", 24, 0), ("held.jsonl", 6, 1)):
        rows = demo_rows.generate(count, seed)
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copytree(random_model.folder(tiny().model.shape), model)
    (place / "mine.jinja").write_text(random_model.TEMPLATE)
    run = composed(
        "model=llama2_7b_chat", f"model.name={model}", f"model.chat_template={place}/mine.jinja", "data=jsonl",
        f"data.files={data}/rows.jsonl", f"data.eval_files={data}/held.jsonl", "data.max_length=128",
        "train.batch_size=4", "train.max_steps=4", "optim.lr=2e-2", "evaluation.generate=0", "evaluation.times=2",
        "lora.dropout=0.1", "tracking.wandb=disabled", "verbosity=quiet",
    )  # fmt: skip
    assert train(run, Launch(place / "run", [])).state == "complete"
    return Recorded(place / "run", data, model)


@contextmanager
def edited(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Change a file for a while, its size and times as they were if that is possible."""
    before, stat = path.read_bytes(), path.stat()
    after = change(before)
    assert after != before
    try:
        path.write_bytes(after)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        yield
    finally:
        path.write_bytes(before)
