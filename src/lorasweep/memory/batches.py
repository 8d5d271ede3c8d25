"""The largest forward pass of a run, from its rows or from the length that they may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from lorasweep.schema import Run

if TYPE_CHECKING:
    from datasets import Dataset

    from lorasweep.steps import Plan


@dataclass(frozen=True)
class Batch:
    """The largest forward pass of a run: rows of so many tokens each, laid end to end or padded to the longest."""

    rows: int
    length: int
    supervised: int
    """Tokens that are learnt."""

    @property
    def tokens(self) -> int:
        """Return all tokens, padding included."""
        return self.rows * self.length


@dataclass(frozen=True)
class Scored:
    """The largest batch of an evaluation, and how many questions of so many tokens are answered at a time."""

    batch: Batch
    asked: int
    question: int


def any_batch(run: Run, length: int) -> Batch:
    """Return the largest pass that rows of at most `length` tokens can make, all of them learnt."""
    return Batch(run.train.batch_size, length, run.train.batch_size * length)


def any_scored(run: Run, length: int) -> Scored | None:
    """Return the largest batch that an evaluation on rows of at most `length` tokens can have; None: there is none."""
    if not run.data.has_evaluation:
        return None
    size = run.evaluation.batch_size
    return Scored(Batch(size, length, size * length), min(size, run.evaluation.generate), length)


def scored_rows(run: Run, rows: Dataset) -> Scored:
    """Return the largest batch of an evaluation on these rows."""
    columns = rows.select(range(min(len(rows), run.evaluation.max_samples or len(rows))))
    found = columns.select_columns(["tokens", "supervised"]).with_format("numpy")[:]
    size = min(run.evaluation.batch_size, len(columns))
    learnt = int(numpy.sort(found["supervised"])[::-1][:size].sum())
    question = int((found["tokens"] - found["supervised"]).max())
    batch = Batch(size, int(found["tokens"].max()), learnt)
    return Scored(batch, min(size, run.evaluation.generate), min(batch.length, max(1, question)))


def largest_batch(run: Run, rows: Dataset, plan: Plan | None, flat: bool, packed_length: int | None) -> Batch:
    """Return the largest pass that a run over these rows can meet: which rows meet is drawn, unless there is a plan."""
    columns = rows.select_columns(["tokens", "supervised"]).with_format("numpy")[:]
    lengths, supervised = columns["tokens"], columns["supervised"]
    size = min(run.train.batch_size, len(lengths))
    steps: Sequence[numpy.typing.NDArray[numpy.int64]] = plan.steps if plan else [numpy.arange(len(lengths))]
    passes = []
    for step in steps:
        if packed_length:
            room = size * packed_length
            tokens = min(room, int(lengths[step].sum()))
            passes.append(Batch(1, tokens, min(tokens, int(supervised[step].sum()))))
            continue
        longest = numpy.sort(lengths[step])[::-1][:size]
        learnt = int(numpy.sort(supervised[step])[::-1][:size].sum())
        rows_of, length = (1, int(longest.sum())) if flat else (len(longest), int(longest[0]))
        passes.append(Batch(rows_of, length, min(learnt, int(longest.sum()))))
    return max(passes, key=lambda batch: batch.tokens)
