"""The fastest way to train a run that fits into so much memory, with the same rows in every step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lorasweep.device import Device
from lorasweep.memory.prediction import Prediction
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run

AGAIN = 0.38
"""Share of a step's time that computing the activations of all layers again adds (an H100: 737 ms after 533)."""
PER_PASS = 4000
"""Tokens in whose time a forward and backward pass does what does not depend on their number: launching kernels and
turning weights back into 16 bit (an H100 with a Llama-2-7B: 194 ms, and 41 ms for 1,000 tokens)."""
CHECKPOINTING = (0, 4, 3, 2, 1)


class WontFit(Exception):
    """A run takes more memory than there is; found before anything is loaded."""


@dataclass(frozen=True)
class Choice:
    """A way to train a run: with how many rows at a time, and every n-th layer computed again (0: none)."""

    batch_size: int
    grad_accum: int
    every: int

    def slowness(self, tokens_per_row: float) -> float:
        """Return the time of a step beside that of one pass without anything computed again."""
        share = 1 / self.every if self.every else 0.0
        return (1 + AGAIN * share) * (1 + PER_PASS / (self.batch_size * tokens_per_row))

    def applied(self, run: Run) -> Run:
        """Return the run trained like that."""
        checkpointing = self.every if self.every > 1 else bool(self.every)
        train = replace(
            run.train, batch_size=self.batch_size, grad_accum=self.grad_accum, gradient_checkpointing=checkpointing
        )
        return replace(run, train=train)


def target(run: Run, here: Device) -> Device:
    """Return the device that a run is to fit on: the one it is trained on, with the memory and card that it names."""
    if not run.train.fit:
        return here
    amount, unit, major, minor = _parts(run.train.fit)
    gib = float(amount) * (1 if unit == "GiB" else 1e9 / 2**30)
    if not major and here.is_gpu:
        return replace(here, memory_gib=min(gib, here.memory_gib))
    capability = (int(major), int(minor)) if major and minor else (8, 0)
    if here.is_gpu and capability > here.compute_capability:
        least = "sm{}{}".format(*here.compute_capability)
        raise UserError(Problem("train.fit", run.train.fit, f"a GPU that can do no more than this one, {least}"))
    return Device.imagined(gib, capability, run.model.dtype)


def as_on(run: Run, card: Device, here: Device) -> Run:
    """Return a run that computes here as it would on another GPU."""
    if card.capability is None or not here.is_gpu:
        return run
    model = replace(run.model, dtype=str(card.precision).removeprefix("torch."))
    if model.attention == "auto" and card.capability < (8, 0):
        model.attention = "sdpa"
    return replace(run, model=model)


def choose(
    run: Run, card: Device, rows: int, tokens_per_row: float, predicted: Callable[[Run], Prediction]
) -> tuple[Run, Prediction]:
    """Return the run in the fastest way that fits on a card, and what it takes; raises WontFit if none does.

    A step learns from at most so many rows, packed ones where they are packed.
    """
    ways = sorted(choices(run, rows), key=lambda choice: (choice.slowness(tokens_per_row), choice.batch_size))
    least: Prediction | None = None
    for choice in ways:
        chosen = choice.applied(run)
        prediction = predicted(chosen)
        if prediction.needed_gib <= card.memory_gib:
            return chosen, prediction
        least = min(filter(None, (least, prediction)), key=lambda each: each.needed_gib)
    assert least
    raise WontFit(f"train.fit={run.train.fit}: this run needs {least.needed_gib:.1f} GiB at the least")


def choices(run: Run, rows: int) -> Iterator[Choice]:
    """Yield the ways to train a run that leave what a step learns from as it is: at most so many rows."""
    train = run.train
    given = train.gradient_checkpointing
    kinds = CHECKPOINTING if given == "auto" else (int(given),)
    if isinstance(train.tokens_per_step, int):  # passes follow from the batch size, whatever it is
        sizes = [2**power for power in range(rows.bit_length())]
        yield from (Choice(size, 1, every) for size in sizes for every in kinds)
        return
    rows = train.batch_size * train.grad_accum
    sizes = [size for size in range(1, rows + 1) if rows % size == 0]
    yield from (Choice(size, rows // size, every) for size in sizes for every in kinds)


def _parts(text: str) -> tuple[str, str, str | None, str | None]:
    found = re.fullmatch(r"([\d.]+)(GiB|GB)(?:@sm(\d+)(\d))?", text)
    assert found
    amount, unit, major, minor = found.groups()
    return amount, unit, major, minor
