"""Optimizer steps over rows that are read as they come: the same steps that a plan over all rows would have."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy
from datasets import Dataset

from lorasweep.data.splits import Counts, Split
from lorasweep.data.streaming import RowStream
from lorasweep.record import data_seed
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.step_reader import Place, StepReader
from lorasweep.steps import Plan, StepCollator, build_plan


@dataclass(frozen=True)
class StreamPlan:
    """As many optimizer steps as a budget gives, over rows that are read as they come."""

    count: int
    tokens_per_step: float
    """Supervised tokens; where a step has so many rows, about, by the first of them."""
    rows_each: float
    """Rows of a step, about, by the first of them."""
    reader: StepReader

    @property
    def rows_per_step(self) -> list[float]:
        """Return how many rows each step learns from, about."""
        return [self.rows_each] * self.count

    def sizes(self, supervised: Any) -> list[int]:
        """Return the supervised tokens of the first steps if rows with so many came as they are."""
        weights = supervised if self.reader.by_tokens else numpy.ones_like(supervised)
        steps = (2 * numpy.cumsum(weights) - weights) // (2 * self.reader.size)
        whole: list[int] = numpy.bincount(steps, supervised).astype(int).tolist()
        return whole[:-1][: self.count] or whole

    def dataset(self) -> Dataset:
        """Return a row per step: its number."""
        return Dataset.from_dict({"rows": numpy.arange(self.count).reshape(-1, 1)})

    def facts(self) -> dict[str, Any]:
        """Return what identifies the plan; equal hashes mean the same rows in every step."""
        reader = self.reader
        parts = [reader.stream.sha256, reader.stream.size, reader.shuffled, reader.seed, reader.size, reader.by_tokens]
        digest = hashlib.sha256(json.dumps([self.count, *parts]).encode()).hexdigest()
        return {"count": self.count, "tokens_per_step": self.tokens_per_step, "sha256": digest}


AnyPlan = Plan | StreamPlan


def choose_plan(run: Run, train: Split) -> AnyPlan | None:
    """Return the plan of a run; None where the batch size decides what a step learns from."""
    if train.stream:
        return _stream_plan(run, train.stream, train.counts)
    return build_plan(run.train, train.rows, data_seed(run))


def _stream_plan(run: Run, stream: RowStream, first: Counts) -> StreamPlan:
    settings, longest = run.train, stream.encoder.longest
    size = settings.tokens_per_step or settings.batch_size * settings.grad_accum
    if settings.tokens_per_step and (longest is None or size < longest):
        allowed = f"at least {longest}, the tokens that a row can have; data.max_length makes it fewer"
        raise UserError(Problem("train.tokens_per_step", size, allowed))
    per_row = first.supervised_tokens / first.kept
    tokens = size if settings.tokens_per_step else size * per_row
    assert settings.max_steps or settings.max_tokens
    count = settings.max_steps or math.ceil((settings.max_tokens or 0) / size)
    shuffled = run.data.shuffle_buffer > 0
    reader = StepReader(stream, size, bool(settings.tokens_per_step), shuffled, data_seed(run))
    return StreamPlan(count, tokens, tokens / per_row, reader)


@dataclass(frozen=True)
class StreamCollator(StepCollator):
    """Says with the batches of a step where in the stream it ends."""

    def __call__(self, steps: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Return the batches of one step, how many supervised tokens each has, and the place after it as text."""
        assert isinstance(self.rows_of, StepReader)
        return {**super().__call__(steps), "place": self.rows_of.place.text()}


class StreamPosition:
    """What a checkpoint keeps of a stream: where the step that is done ended, whatever has been read ahead."""

    def __init__(self, trainer: Any, plan: StreamPlan) -> None:
        self.trainer, self.reader = trainer, plan.reader

    @property
    def place(self) -> Place:
        """Where the step that is done ended."""
        return Place.of(self.trainer.place) if self.trainer.place else self.reader.start

    def facts(self) -> dict[str, Any]:
        """Return what a summary says of it: what became of the rows read so far, and the order they were learnt in."""
        place = self.place
        return {"rows": {**asdict(place.counts), "passes": place.block.passes, "order": place.order}}

    def state(self) -> dict[str, Any]:
        """Return the place."""
        return asdict(self.place)

    def restore(self, state: dict[str, Any]) -> None:
        """Read on from there."""
        self.reader.start = Place.of(json.dumps(state))


def position_of(trainer: Any, plan: AnyPlan | None) -> StreamPosition | None:
    """Return what follows a run through its stream; None for one whose rows were prepared before."""
    return StreamPosition(trainer, plan) if isinstance(plan, StreamPlan) else None
