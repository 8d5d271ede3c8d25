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
        ended: str,
        loaded: Callable[[], None],
        differs: Callable[[list[Difference]], None],
    ) -> None:
        self.folder, self.steps, self.ended = folder, steps, ended
        self.loaded, self.differs = loaded, differs
        self.read = 0
        self.step, self.is_loaded = 0, False

    def progress(self, step: int, total: int) -> None:
        """Compare what is there."""
        self.step = step
        if not self.is_loaded:
            self.is_loaded = True
            self.loaded()
        self.look()

    def report(self, step: int, tokens: int, value: float) -> bool:
        """End the run where the recorded one was pruned."""
        return self.ended != "pruned" or step < self.steps.last

    def stopping(self) -> bool:
        """Tell whether a signal has come, or the recorded run was interrupted here."""
        return super().stopping() or (self.ended == "interrupted" and self.step >= self.steps.last)

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
