"""The rows of a W&B history: what metrics.jsonl says of a step, once it has said all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Row = tuple[int, dict[str, Any]]


class Rows:
    """Reads a file that grows: a row per step, when the next one has begun.

    W&B takes each step once. What a killed process had still to say of its last one would be lost there, if the trial
    is run again under the same id.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._step: int | None = None
        self._values: dict[str, Any] = {}

    def whole(self) -> Iterator[Row]:
        """Yield the steps that are over, of those not yielded before."""
        if self._file is None:
            if not self.path.exists():
                return
            self._file = open(self.path, "rb")  # noqa: SIM115 closed in close()
        while (line := self._file.readline()).endswith(b"\n"):
            entry = json.loads(line)
            step = entry.pop("step")
            if self._step is not None and step != self._step:
                yield self._step, self._values
                self._values = {}
            self._step = step
            self._values |= entry
        self._file.seek(-len(line), 1)

    def last(self) -> Iterator[Row]:
        """Yield the step that nothing has followed."""
        if self._step is not None:
            yield self._step, self._values
            self._step = None

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
