"""The largest forward pass of a run, from its rows or from the length that they may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from datasets import Dataset

from lorasweep.memory.tracing import Batch
from lorasweep.schema import Run
from lorasweep.steps import Plan


def any_batch(run: Run, length: int) -> Batch:
    """Return the largest pass that rows of at most `length` tokens can make, all of them learnt."""
    return Batch(run.train.batch_size, length, run.train.batch_size * length)


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
