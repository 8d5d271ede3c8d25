"""Training rows prepared block by block while they are trained on, over and over."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy

from lorasweep.data.encoding import BATCH, Encoder
from lorasweep.data.splits import FACTS, Counts, counted
from lorasweep.data.streams import Columns, Stream
from lorasweep.rules import Problem, UserError

USELESS_IN_A_ROW = 1000
"""Rows one after the other that nothing is learnt from and that end a run: it would read on and train nothing."""
HELD_OUT = "held out"
"""Why a row is dropped that is, token by token, one of evaluation or test."""
LEARNT = ("input_ids", "labels", "supervised", "row")
"""The columns that training needs."""


@dataclass(frozen=True)
class Start:
    """Where a block begins, and what was before it; plain values."""

    number: int = 0
    passes: int = 0
    """How often all rows have been read."""
    row: int = 0
    """The number of its first row."""
    state: dict[str, Any] | None = None
    """Of the stream; None: its beginning."""
    useless: int = 0
    """Rows just before it that nothing is learnt from."""


@dataclass(frozen=True)
class Block:
    """Rows that are read and shuffled together: those in which something is learnt, by column, and counts of all."""

    start: Start
    end: int
    """The number of the row after it."""
    rows: Columns
    counts: Counts

    def __len__(self) -> int:
        return len(self.rows["row"])

    def useless(self) -> int:
        """Return how many rows at its end, and before it if that is all of it, nothing is learnt from."""
        return self.end - 1 - self.rows["row"][-1] if len(self) else self.start.useless + self.counts.rows


@dataclass(frozen=True)
class RowStream:
    """The training rows of a run."""

    source: Stream
    encoder: Encoder
    size: int
    """Rows of a block."""
    first: int
    """The number of the first training row; those before it are held out."""
    limit: int | None
    held_out: frozenset[int]
    """The hashes of all rows that are."""
    sha256: str
    """Hash of all that decides which rows there are, and what they become."""

    def blocks(self, start: Start) -> Iterator[Block]:
        """Yield blocks without end, from one that begins at `start`; raises UserError where rows are of no use."""
        while True:
            for batch, after in self.source.batches(self.size, start.state):
                block = self._prepared(start, batch)
                yield block
                if (useless := block.useless()) >= USELESS_IN_A_ROW:
                    raise UserError(self._nothing(block, useless))
                start = Start(start.number + 1, start.passes, block.end, after, useless)
                if block.end == self.limit:
                    break
            if not start.row:
                raise UserError(self._problem("at least one row; there is none"))
            start = Start(start.number, start.passes + 1, useless=start.useless)

    def _prepared(self, start: Start, batch: Columns) -> Block:
        end = start.row + row_count(batch)
        end = end if self.limit is None else min(end, self.limit)
        numbers = range(max(start.row, self.first), max(end, self.first))
        at = numbers.start - start.row
        part = {name: values[at : at + len(numbers)] for name, values in batch.items()}
        return Block(start, end, *chosen(leave_out(encoded(self.encoder, part, numbers), self.held_out)))

    def _nothing(self, block: Block, useless: int) -> Problem:
        reasons = ", ".join(f"{count} {reason}" for reason, count in block.counts.dropped.items())
        return self._problem(f"rows to learn from; in {useless:,} one after the other there is nothing ({reasons})")

    def _problem(self, allowed: str) -> Problem:
        data = self.source.data
        return Problem("data", data.path or data.files, allowed)


def row_count(batch: Columns) -> int:
    """Return how many rows columns have."""
    return len(next(iter(batch.values()), ()))


def encoded(encoder: Encoder, batch: Columns, numbers: range) -> Columns:
    """Return the columns that the rows with these numbers become."""
    found: Columns = {name: [] for name in (*FACTS, *LEARNT, "hash")}
    for first in range(0, len(numbers), BATCH):
        part = {name: values[first : first + BATCH] for name, values in batch.items()}
        for name, values in encoder(part, list(numbers[first : first + BATCH])).items():
            found.setdefault(name, []).extend(values)
    return found


def leave_out(rows: Columns, held_out: Set[int]) -> Columns:
    """Drop, in place, the rows with these hashes."""
    for index, found in enumerate(rows["hash"]):
        if found in held_out and rows["supervised"][index]:
            rows["dropped"][index], rows["supervised"][index] = HELD_OUT, 0
    return rows


def chosen(rows: Columns) -> tuple[Columns, Counts]:
    """Return what training needs of the rows in which something is learnt, and counts of all."""
    counts = counted({name: numpy.array(rows[name]) for name in FACTS})
    keep = numpy.flatnonzero(rows["supervised"]).tolist()
    return {name: [rows[name][index] for index in keep] for name in LEARNT}, counts
