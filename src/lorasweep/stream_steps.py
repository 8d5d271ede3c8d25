"""Optimizer steps over rows that are read as they come: the same steps that a plan over all rows would have."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy
from datasets import Dataset

from lorasweep.data.splits import Counts, Split
from lorasweep.data.streaming import Block, RowStream, Start
from lorasweep.record import data_seed
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.steps import Plan, Row, StepCollator, build_plan


@dataclass(frozen=True)
class Place:
    """Where in a stream a step begins; plain values, from which the rest of the stream follows."""

    step: int = 0
    block: Start = field(default_factory=Start)
    taken: int = 0
    """How many rows of the block, in the order they are learnt in, the steps before it have."""
    laid: int = 0
    """The supervised tokens of all steps before it, or their rows where steps are as many rows."""
    order: str = ""
    """Hash of the numbers of all rows before it, step by step."""
    before: Counts = field(default_factory=Counts)
    """What became of the rows before the block."""
    counts: Counts = field(default_factory=Counts)
    """What became of those in the block, too."""

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Place:
        """Return what `text` has written."""
        values = json.loads(text)
        block = Start(**values.pop("block"))
        before, counts = (Counts(**values.pop(name)) for name in ("before", "counts"))
        return cls(**values, block=block, before=before, counts=counts)


class StepReader:
    """Deals the rows of a stream out to optimizer steps; asked for one step after the other it reads on.

    The rows are laid end to end as in `steps.plan_steps`: a row goes to the step its middle lies in. Every block of
    rows is shuffled by the seed and its own number, so that a block that holds all rows is an epoch of such a plan.
    """

    def __init__(self, stream: RowStream, size: int, by_tokens: bool, shuffled: bool, seed: int) -> None:
        self.stream, self.size, self.by_tokens = stream, size, by_tokens
        self.shuffled, self.seed = shuffled, seed
        self.start = Place()
        """Where to begin reading for any step after it."""
        self.place = self.start
        """Where the last step that was asked for ended."""
        self._steps: Iterator[tuple[list[Row], Place]] | None = None

    def __call__(self, numbers: list[int]) -> list[Row]:
        """Return the rows of a step."""
        (number,) = numbers
        if self._steps is None or number != self.place.step:
            self.place = self.start if self.start.step <= number else Place()
            self._steps = self._deal(self.place)
        while True:
            rows, self.place = next(self._steps)
            if self.place.step > number:
                return rows

    def _deal(self, place: Place) -> Iterator[tuple[list[Row], Place]]:
        """Yield the rows of every step from a place on, with the place after it."""
        step, laid, digest, before = place.step, place.laid, place.order, place.before
        numbers: list[int] = []
        rows: list[Row] = []
        for block in self.stream.blocks(place.block):
            counts = before + block.counts
            order, taken = self._order(block), place.taken if block.start.number == place.block.number else 0
            for position, index in enumerate(order[taken:].tolist(), taken):
                weight = int(block.rows["supervised"][index]) if self.by_tokens else 1
                if 2 * laid + weight >= 2 * self.size * (step + 1):
                    step, digest = step + 1, _extended(digest, numbers)
                    yield rows, Place(step, block.start, position, laid, digest, before, counts)
                    numbers, rows = [], []
                laid += weight
                numbers.append(block.rows["row"][index])
                rows.append({name: block.rows[name][index].tolist() for name in ("input_ids", "labels")})
            before = counts

    def _order(self, block: Block) -> Any:
        if not self.shuffled:
            return numpy.arange(len(block))
        return numpy.random.default_rng((self.seed, block.start.number)).permutation(len(block))


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

    def __init__(self, trainer: Any, reader: StepReader) -> None:
        self.trainer, self.reader = trainer, reader

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


def _extended(digest: str, numbers: list[int]) -> str:
    """Return a hash of a hash and what comes after it."""
    return hashlib.sha256(bytes.fromhex(digest) + numpy.array(numbers, "<i8").tobytes()).hexdigest()
