"""The surroundings of a run that reproduces another: compared after every step, and ended where that one was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorasweep.host import OwnProcess
from lorasweep.reproduce.steps import Difference, Steps


class Reproducing(OwnProcess):
    """Reads the run's own metrics as they are written.

    A step is told of before its line is there, so that what differs is said one step later, or at the end.
    """

    def __init__(
        self,
        folder: Path,
        steps: Steps,
        prune_after: int | None,
        loaded: Callable[[], None],
        differs: Callable[[list[Difference]], None],
    ) -> None:
        self.folder, self.steps, self.prune_after = folder, steps, prune_after
        self.loaded, self.differs = loaded, differs
        self.read = 0
        self.is_loaded = False

    def progress(self, step: int, total: int) -> None:
        """Compare what is there."""
        if not self.is_loaded:
            self.is_loaded = True
            self.loaded()
        self.look()

    def report(self, step: int, tokens: int, value: float) -> bool:
        """End the run where the recorded one was pruned."""
        return self.prune_after is None or step < self.prune_after

    def look(self) -> None:
        """Compare the lines that have been written since the last look."""
        if found := self.steps.take(self._lines()):
            self.differs(found)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Look once more at the end."""
        with super().listening():
            yield
        self.look()

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self.read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.read += len(line)
                yield json.loads(line)
