"""The one stream of numbers of a run: a line of JSON per entry, written at once; TensorBoard on request."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Metrics:
    """Appends to metrics.jsonl, which everything else is made from: W&B, tables, reports.

    `step`: the last one of which it has entries, where a run is resumed. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False, step: int = 0) -> None:
        path = folder / "metrics.jsonl" if folder else os.devnull
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 closed in close()
        self._board: Any = None
        self.started = time.time()
        if tensorboard and folder:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one entry."""
        entry = {"step": step, "seconds": round(self.seconds, 3), **values}
        self._file.write(json.dumps(entry) + "\n")
        for name, value in values.items() if self._board else ():
            self._board.add_scalar(name, value, step)

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began, without those between its end and its being resumed."""
        return time.time() - self.started

    def state(self) -> dict[str, Any]:
        """Return the seconds so far."""
        return {"seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Count from there."""
        self.started -= state["seconds"]

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board:
            self._board.close()


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the entries written so far; a last line cut short by a crash is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]
