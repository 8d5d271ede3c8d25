"""The rows of one optimizer step after the other, out of rows that are read as they come."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy

from lorasweep.data.splits import Counts
from lorasweep.data.streaming import Block, RowStream, Start
from lorasweep.steps import Row


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


def _extended(digest: str, numbers: list[int]) -> str:
    """Return a hash of a hash and what comes after it."""
    return hashlib.sha256(bytes.fromhex(digest) + numpy.array(numbers, "<i8").tobytes()).hexdigest()
