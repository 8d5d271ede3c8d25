"""How a model is judged: loss per supervised token over fixed unpacked rows, and answers to some of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

import torch
from datasets import Dataset
from transformers import GenerationConfig, PreTrainedTokenizerBase

from lorasweep.answer_metrics import build_metrics
from lorasweep.attention import for_padded_rows
from lorasweep.data import IGNORED
from lorasweep.device import Device
from lorasweep.host import Interrupted
from lorasweep.processes.group import Group
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Evaluation

T = TypeVar("T")
COLUMNS = ["prompt", "answer", "add_special_tokens", "cut", "row"]


@dataclass(frozen=True)
class Answer:
    """One generated answer beside what was expected, and its scores by metric."""

    prompt: str
    expected: str
    generated: str
    scores: dict[str, float] = field(default_factory=dict)
    row: int | None = None
    """The number of its row in the data."""


@dataclass(frozen=True)
class Scores:
    """One evaluation: summed loss and supervised tokens of every row, in the order of the rows, and answers.

    `rows` are their numbers in the data they come from.
    """

    row_losses: list[float]
    row_tokens: list[int]
    answers: list[Answer] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Return the mean over all supervised tokens of all rows, whatever the batches were."""
        return math.fsum(self.row_losses) / sum(self.row_tokens)

    @property
    def answered(self) -> dict[str, float]:
        """Return the mean score of the answers by metric; nothing without answers."""
        names = self.answers[0].scores if self.answers else {}
        return {name: math.fsum(answer.scores[name] for answer in self.answers) / len(self.answers) for name in names}

    def metrics(self) -> dict[str, float]:
        """Return the scores under metric names."""
        scores = {"eval/loss": self.loss, "eval/perplexity": math.exp(min(self.loss, 700.0))}
        return scores | {f"eval/{name}": score for name, score in self.answered.items()}


class Evaluator:
    """Scores a model on the same rows every time, without moving any random stream.

    `between` is called before every batch; what it raises ends the evaluation. Several processes divide the batches,
    and each gets all scores; where one is stopped, all are.
    """

    def __init__(
        self,
        rows: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        settings: Evaluation,
        device: Device,
        between: Callable[[], None] = lambda: None,
        group: Group | None = None,
    ) -> None:
        self.group = group or Group()
        rows = rows.select(range(min(len(rows), settings.max_samples or len(rows))))
        self.rows, self.tokenizer, self.settings, self.device = rows, tokenizer, settings, device
        self.between = between
        self.metrics = build_metrics(settings.metrics)
        self.asked = questions(rows, settings.generate)

    def __call__(self, model: Any) -> Scores:
        """Score a model whose head TRL has fused (see `run`): loss of every row, answers to the first few."""
        with scoring(model, self.device):
            parts = self._together(lambda: self._row_losses(model))
            losses, tokens = (
                [sum(shares) for shares in zip(*lists, strict=True)] for lists in zip(*parts, strict=True)
            )
            return Scores(losses, tokens, self._answers(model), self.rows["row"][:])

    def _together(self, compute: Callable[[], T]) -> list[T]:
        """Return what every process computes, once all have; raises Interrupted in all if one was stopped meanwhile."""
        own: T | None = None
        try:
            own = compute()
        except Interrupted:
            if self.group.size == 1:
                raise
        parts = [part for part in self.group.exchange(own) if part is not None]
        if len(parts) < self.group.size:
            raise Interrupted("stopped")
        return parts

    def _row_losses(self, model: Any) -> tuple[list[float], list[int]]:
        """Return loss and supervised tokens of every row; where processes divide them, of others 0."""
        examples = self.rows.select_columns(["input_ids", "labels"]).to_list()
        by_length = sorted(range(len(examples)), key=lambda index: len(examples[index]["input_ids"]), reverse=True)
        losses, tokens = [0.0] * len(examples), [0] * len(examples)
        for batch in self.group.share.alternate(list(_batches(by_length, self.settings.batch_size))):
            self.between()
            inputs = pad_right([examples[index] for index in batch], int(self.tokenizer.pad_token_id), model.device)
            outputs = model(**inputs, fused_lm_head=True, use_cache=False)
            sums = (-outputs.log_probs.double()).sum(1).tolist()
            for index, loss, count in zip(batch, sums, outputs.label_mask.sum(1).tolist(), strict=True):
                losses[index], tokens[index] = loss, count
        return losses, tokens

    def _answers(self, model: Any) -> list[Answer]:
        batches = list(_batches(self.asked, self.settings.batch_size))
        own = self.group.share.alternate(batches)
        parts = self._together(lambda: [[asdict(answer) for answer in self._generate(model, batch)] for batch in own])
        size = self.group.size
        return [Answer(**a) for number, _ in enumerate(batches) for a in parts[number % size][number // size]]

    def _generate(self, model: Any, rows: list[dict[str, Any]]) -> Iterator[Answer]:
        self.between()
        tokenizer = self.tokenizer
        ids = [tokenizer(row["prompt"], add_special_tokens=row["add_special_tokens"])["input_ids"] for row in rows]
        batch = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
        outputs = model.generate(**batch, generation_config=self._greedy(model))
        for row, generated in zip(rows, outputs[:, batch["input_ids"].shape[1] :], strict=True):
            expected = tokenizer(row["answer"], add_special_tokens=False)["input_ids"]
            texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in (expected, generated)]
            scores = {name: metric(texts[1], texts[0], row["prompt"]) for name, metric in self.metrics.items()}
            yield Answer(row["prompt"], texts[0], texts[1], scores, row["row"])

    def _greedy(self, model: Any) -> GenerationConfig:
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.max_new_tokens,
            repetition_penalty=1.0,
            eos_token_id=stop_ids(model, self.tokenizer, [row["answer"] for row in self.asked]),
            pad_token_id=self.tokenizer.pad_token_id,
        )


def questions(rows: Dataset, most: int) -> list[dict[str, Any]]:
    """Return the first rows that can be asked; one cut short has lost its answer, and often part of its question."""
    asked = (row for row in rows.select_columns(COLUMNS) if row["prompt"] and not row["cut"])
    return list(islice(asked, most))


def check_questions(rows: Dataset, settings: Evaluation) -> str | None:
    """Raise if the objective needs answers and no row can be asked; return what to say if fewer can than wanted."""
    found = len(questions(rows.select(range(min(len(rows), settings.max_samples or len(rows)))), settings.generate))
    if not found and settings.objective != "loss":
        allowed = "loss: none of the evaluation rows has a question and an answer apart"
        raise UserError(Problem("evaluation.objective", settings.objective, allowed))
    if found < settings.generate:
        return f"evaluation.generate={settings.generate}: {found} of {len(rows)} evaluation rows can be asked"
    return None


def stop_ids(model: Any, tokenizer: PreTrainedTokenizerBase, answers: Iterable[str] = ()) -> list[int]:
    """Return the tokens that end an answer: the model's own, the tokenizer's, and the special ones `answers` end in."""
    own = model.generation_config.eos_token_id
    stops = {own} if isinstance(own, int) else set(own or ())
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    for answer in answers:
        ids = tokenizer(answer.rstrip(), add_special_tokens=False)["input_ids"]
        stops |= special & set(ids[-1:])
    return sorted(stops | {int(tokenizer.eos_token_id)})


@contextmanager
def scoring(model: Any, device: Device, flat: bool = False) -> Iterator[None]:
    """Switch dropout and gradients off, in training's precision, and leave mode and random streams as they were.

    Rows are padded, or `flat`: laid end to end as in training.
    """
    training = model.training
    model.eval()
    layout = nullcontext() if flat else for_padded_rows(model)
    try:
        with torch.random.fork_rng(enabled=True), torch.no_grad(), device.autocast(), layout:
            yield
    finally:
        model.train(training)


def pad_right(rows: list[dict[str, list[int]]], pad_token_id: int, device: Any) -> dict[str, torch.Tensor]:
    """Return a padded batch: input_ids, attention_mask and labels, each (rows, longest)."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([value + [filler] * (longest - len(value)) for value in values], device=device)

    ids = [row["input_ids"] for row in rows]
    return {
        "input_ids": padded(ids, pad_token_id),
        "attention_mask": padded([[1] * len(value) for value in ids], 0),
        "labels": padded([row["labels"] for row in rows], IGNORED),
    }


def schedule(times: int, total_steps: int) -> set[int]:
    """Return the steps after which to evaluate: the same fractions of every run, the last one its end."""
    return {max(1, round(total_steps * number / times)) for number in range(1, times + 1)} if times else set()


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
