"""The rows of a W&B history: what metrics.jsonl says of a step, once it has said all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Row = tuple[int, dict[str, Any]]


class Rows:
    """Reads a file that grows: a row per step, when the next one has begun.

    W&B takes each step once. What a killed process had still to say of its last one would be lost there, if the trial
    is run again under the same id. A run that goes on from a checkpoint gets a file that ends there; the steps that
    it takes again are passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._step: int | None = None
        self._values: dict[str, Any] = {}

    def whole(self) -> Iterator[Row]:
        """Yield the steps that are over, of those not yielded before."""
        file = self._opened()
        while file and (line := file.readline()):
            if not line.endswith(b"\n"):
                file.seek(-len(line), os.SEEK_CUR)
                return
            entry = json.loads(line)
            step = entry.pop("step")
            if self._step is not None and step > self._step:
                yield self._step, self._values
                self._values = {}
            if self._step is None or step >= self._step:
                self._step = step
                self._values |= entry

    def last(self) -> Iterator[Row]:
        """Yield the step that nothing has followed."""
        if self._step is not None:
            yield self._step, self._values
            self._step = None

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _opened(self) -> BinaryIO | None:
        """Return the file, from its beginning if it was put there anew."""
        try:
            if self._file is None or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
                self.close()
                self._file = open(self.path, "rb")  # noqa: SIM115 closed in close()
        except FileNotFoundError:
            return None
        return self._file
