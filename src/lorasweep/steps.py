"""Optimizer steps of constant supervised tokens: which rows each learns from, and how the trainer computes one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from lorasweep.data import IGNORED
from lorasweep.lean_trainer import TOKEN_METRICS, LeanTrainer
from lorasweep.packing import pack_rows
from lorasweep.processes.group import Group
from lorasweep.processes.share import Share
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Train

Numbers = NDArray[numpy.int64]


@dataclass(frozen=True)
class Plan:
    """The numbers of the rows that each optimizer step learns from, and the mean supervised tokens of a step."""

    steps: list[Numbers]
    tokens_per_step: float

    @property
    def count(self) -> int:
        """Return how many steps there are."""
        return len(self.steps)

    @property
    def rows_per_step(self) -> list[int]:
        """Return how many rows each step learns from."""
        return [len(rows) for rows in self.steps]

    def dataset(self) -> Dataset:
        """Return a row per step: the numbers of its rows."""
        return Dataset.from_dict({"rows": self.steps})

    def facts(self) -> dict[str, Any]:
        """Return what identifies the plan; equal hashes mean the same rows in every step."""
        digest = hashlib.sha256()
        for rows in self.steps:
            digest.update(rows.astype("<i8").tobytes() + b"|")
        return {"count": len(self.steps), "tokens_per_step": self.tokens_per_step, "sha256": digest.hexdigest()}


def build_plan(train: Train, rows: Dataset, seed: int) -> Plan | None:
    """Return the plan of a run over tokenised rows; None where the batch size decides what a step learns from."""
    if not train.tokens_per_step:
        return None
    supervised = rows.with_format("numpy")["supervised"][:]
    if train.tokens_per_step == "auto":
        usual = round(supervised.mean() * train.batch_size * train.grad_accum)
        train = replace(train, tokens_per_step=max(usual, int(supervised.max())))
    return plan_steps(train, supervised, seed)


def plan_batches(rows: int, batch_size: int, steps: int, seed: int) -> list[Numbers]:
    """Return the numbers of the rows of every step of so many, in the order that transformers' trainer draws."""
    sampler = SeedableRandomSampler(range(rows), data_seed=seed)
    found: list[Numbers] = []
    while len(found) < steps:
        order = numpy.array(list(sampler))  # and the sampler goes on to the next epoch
        found += numpy.split(order, range(batch_size, rows, batch_size))
    return found[:steps]


def plan_steps(train: Train, supervised: Numbers, seed: int) -> Plan:
    """Deal rows of so many supervised tokens out to optimizer steps; batch size and packing play no part in it.

    The rows, shuffled anew for every epoch, are laid end to end and cut every `tokens_per_step` tokens; a row goes to
    the step its middle lies in. Every step is thus within one row of its size, and the error never adds up.
    """
    longest, epoch = int(supervised.max()), int(supervised.sum())
    assert train.tokens_per_step
    if train.tokens_per_step < longest:
        allowed = f"at least {longest}, the supervised tokens of the longest row"
        raise UserError(Problem("train.tokens_per_step", train.tokens_per_step, allowed))
    total, count = _extent(train, epoch, longest)
    epochs = range(math.ceil(total / epoch))
    order = numpy.concatenate([numpy.random.default_rng((seed, n)).permutation(len(supervised)) for n in epochs])
    tokens = supervised[order]
    middles = 2 * numpy.cumsum(tokens) - tokens  # in half tokens, which are whole numbers
    borders = -(-2 * total * numpy.arange(count + 1) // count)
    starts = numpy.searchsorted(middles, borders)
    return Plan(numpy.split(order[: starts[-1]], starts[1:-1]), total / count)


def _extent(train: Train, epoch: int, longest: int) -> tuple[int, int]:
    """Return the supervised tokens of the run and its steps; a step is never shorter than a row, so none is empty."""
    tokens_per_step = train.tokens_per_step
    assert tokens_per_step
    if train.max_steps:
        return train.max_steps * tokens_per_step, train.max_steps
    if train.max_tokens:
        count = math.ceil(train.max_tokens / tokens_per_step)
        return count * tokens_per_step, count
    assert train.epochs
    total = max(longest, round(train.epochs * epoch))
    return total, max(1, min(round(total / tokens_per_step), total // longest))


Row = dict[str, list[int]]
"""A tokenised row: input_ids and labels."""


@dataclass(frozen=True)
class StepCollator:
    """Turns what an item of `Plan.dataset` says of a step into forward passes of at most `batch_size` (packed) rows."""

    rows_of: Callable[[list[int]], list[Row]]
    """Returns the rows of a step."""
    collate: DataCollatorForLanguageModeling
    batch_size: int
    packed_length: int | None
    """Tokens of a packed row; None: rows stay as they are."""
    longest_first: bool = True
    """Whether rows that stay as they are are sorted: less padding."""
    share: Share = Share()
    """Which of several processes this is: each computes a share of the (packed) rows of a pass."""

    def __call__(self, steps: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Return this process's batches of one step, how many supervised tokens each has, and all passes of all have.

        `batch_size` are the rows that a pass has in all processes together.
        """
        (step,) = steps
        examples = self.examples(step["rows"])
        shares = self.share.all_even([len(row["input_ids"]) for row in examples])
        own, size = shares[self.share.rank], self.batch_size // self.share.size
        starts = range(0, len(own), size)
        batches = [self.collate([examples[index] for index in own[start : start + size]]) for start in starts]
        supervised = [int((b["labels"][:, 1:] != IGNORED).sum()) for b in batches]
        total = sum(supervised) if self.share.size == 1 else sum(map(_supervised, examples))
        passes = sum(-(-len(share) // size) for share in shares)
        return {"batches": batches, "supervised": supervised, "total": total, "passes": passes}

    def examples(self, numbers: list[int]) -> list[Row]:
        """Return the rows of a step, longest first, or packed: several in one, with their seq_lengths."""
        rows = self.rows_of(numbers)
        if self.packed_length is not None:
            return pack_rows(rows, self.packed_length)
        return sorted(rows, key=lambda row: -len(row["input_ids"])) if self.longest_first else rows


def _supervised(row: Row) -> int:
    """Return the supervised tokens of a (packed) row: nothing predicts the first one of what stands alone."""
    starts = set(accumulate(row.get("seq_lengths", ()), initial=0))
    return sum(label != IGNORED for place, label in enumerate(row["labels"]) if place not in starts)


def build_collate(
    tokenizer: PreTrainedTokenizerBase, packed_length: int | None, flat: bool
) -> DataCollatorForLanguageModeling:
    """Return what makes a batch of rows, `flat` or padded; they can be packed ones only if it is flat."""
    assert tokenizer.pad_token_id is not None
    assert flat or packed_length is None
    return DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id, padding_free=flat)


class StepTrainer(LeanTrainer):
    """TRL's trainer where one item of the data is a whole optimizer step, however many forward passes that takes.

    A subclass because neither callback nor argument can do it: the trainer fetches the same number of batches for
    every step.
    """

    loss_is_scaled_for_ga = True  # it is the mean over the supervised tokens of the step already
    group = Group()

    place: str | None = None
    """Where in a stream of rows the last step ended."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add up the gradients of every forward pass of a step; return the step's loss per supervised token.

        Of several processes each does its share; gradients and loss are then those of the step in all of them.
        """
        self.place = inputs.get("place")
        step, self._supervised = super().training_step, inputs["supervised"]
        self.current_gradient_accumulation_steps = inputs["passes"]  # for the auxiliary loss of experts
        losses = [step(model, batch, inputs["total"]) for batch in inputs["batches"]]
        loss = torch.stack(losses).sum() if losses else torch.zeros((), device=self.args.device)
        if self.group.size > 1:
            self._add_up(loss)
        return loss

    def _add_up(self, loss: torch.Tensor) -> None:
        for parameter in self.adapter:
            if parameter.grad is None:  # there was nothing to do here
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.adapter if parameter.grad is not None]
        self.group.add_up([*gradients, loss])

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Return the norm; TRL's metrics become those of the step: a plain mean over passes depends on the passes."""
        norm = super()._get_grad_norm(model, grad_norm)
        count = len(self._supervised)
        lists = [self._metrics["train"][name] for name in TOKEN_METRICS]
        of_passes = [[values.pop() for _ in range(count)][::-1] for values in lists]
        for values, mean in zip(lists, self._means(of_passes), strict=True):
            values.append(mean)
        return norm

    def _means(self, of_passes: list[list[float]]) -> list[float]:
        """Return the mean of every metric over the supervised tokens of a step, of which all processes have passes."""
        if self.group.size == 1:
            return [numpy.average(values, weights=self._supervised).item() for values in of_passes]
        sums = [float(numpy.dot(values, self._supervised)) for values in of_passes]
        *totals, supervised = self.group.sums([*sums, sum(self._supervised)])
        return [total / supervised for total in totals]
