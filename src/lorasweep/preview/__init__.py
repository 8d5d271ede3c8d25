"""What a run would learn from, before it does: facts about its rows, and some of them with their masks."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from lorasweep.data import IGNORED, Counts, Split, build_datasets
from lorasweep.data.segments import segments
from lorasweep.model import build_config, build_tokenizer, context_length
from lorasweep.packing import bins
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.stream_steps import StreamPlan, choose_plan

BARS = 12


@dataclass(frozen=True)
class SplitFacts:
    """The kept rows of a split: lengths in tokens, first tokens (BOS), learnt stop tokens."""

    name: str
    counts: Counts
    shortest: int
    median: int
    longest: int
    histogram: list[tuple[int, int, int]]
    """First and last length of a bar, rows in it."""
    stopping: int
    """Rows that learn a stop token at their end."""
    stop_tokens: list[str]
    bos_least: int
    bos_most: int
    bos_doubled: int
    """Rows that begin with two first tokens."""
    first: bool = False
    """Whether these are only the first rows: all are read when they are trained on."""

    @property
    def title(self) -> str:
        """What rows these are."""
        return f"{self.name}, its first rows" if self.first else self.name


@dataclass(frozen=True)
class Packing:
    """How training rows fit into rows of `length` tokens, best fit first."""

    length: int
    rows: int
    packed_rows: int
    fill: float


@dataclass(frozen=True)
class Steps:
    """How supervised tokens are dealt out to optimizer steps."""

    count: int
    least: int
    most: int


@dataclass(frozen=True)
class Example:
    """A row as text: pieces, each with whether it is learnt, and the tokens lost to max_length."""

    split: str
    number: int
    tokens: int
    supervised: int
    cut: int
    pieces: list[tuple[str, bool]]


@dataclass(frozen=True)
class Preview:
    """Everything a preview shows."""

    model: str
    splits: list[SplitFacts]
    packing: Packing | None
    steps: Steps | None
    examples: list[Example]


def preview(run: Run, split: str = "train", rows: int = 3, row: int | None = None) -> Preview:
    """Prepare the rows of a run as training would and describe them; no weights are loaded.

    Examples are `rows` of `split`, spread evenly, one that was cut among them if there is one; or row number `row`.
    Raises UserError for a split or a row that is not there.
    """
    tokenizer = build_tokenizer(run.model)
    context = context_length(build_config(run.model))
    splits = build_datasets(run.data, tokenizer, context)
    if split not in splits:
        allowed = f"a split that there is: {', '.join(splits)} (data.{split}_fraction=0.1 makes one)"
        raise UserError(Problem("--split", split, allowed))
    chosen = splits[split].rows
    shown = _choice(chosen, rows, row)
    if row is not None and not shown:
        numbers = chosen["row"][:]
        allowed = f"one of the {len(numbers)} kept rows of {split}, which are numbered {min(numbers) + 1} to"
        allowed += f" {max(numbers) + 1}; this one is in another split, left out, or not there"
        raise UserError(Problem("--row", row + 1, allowed))
    return Preview(
        run.model.name,
        [_facts(name, part, tokenizer) for name, part in splits.items()],
        _packing(splits["train"], run.data.max_length or context),
        _steps(run, splits["train"]),
        [_example(chosen[at], split, tokenizer) for at in shown],
    )


def show(preview: Preview, command: list[str], html: Path | None, as_json: bool) -> None:
    """Print a preview, as JSON if asked, or write it as a page."""
    from lorasweep.preview import console, page

    if as_json:
        print(json.dumps(asdict(preview), indent=1, ensure_ascii=False))
    elif html is None:
        console.show(preview, Console(highlight=False))
    else:
        try:
            html.write_text(page.render(preview, shlex.join(command)), encoding="utf-8")
        except OSError as error:
            raise UserError(Problem("--html", str(html), f"a file that can be written ({error.strerror})")) from None
        print(f"written to {html}")


def _facts(name: str, split: Split, tokenizer: PreTrainedTokenizerBase) -> SplitFacts:
    lengths = split.rows.with_format("numpy")["tokens"][:]
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if tokenizer.bos_token_id != tokenizer.eos_token_id:
        special.discard(tokenizer.bos_token_id)
    blank = functools.cache(lambda token: not tokenizer.decode([token]).strip())
    bos = numpy.zeros(len(lengths), dtype=int)
    doubled, ends = 0, []
    for index, (ids, labels) in enumerate(_arrays(split.rows)):
        bos[index] = (ids == tokenizer.bos_token_id).sum()
        doubled += bool(bos[index] > 1 and (ids[:2] == tokenizer.bos_token_id).all())
        learnt = labels[labels != IGNORED].tolist()
        while learnt and blank(learnt[-1]):  # the line break that templates write after a turn
            learnt.pop()
        ends.append(learnt[-1] if learnt and learnt[-1] in special else None)
    # Cut short, a row may end in a special token that ends nothing.
    whole = [end for end, cut in zip(ends, split.rows["cut"][:], strict=True) if not cut]
    stops = {end for end in whole if end is not None}
    stopping = sum(end in stops for end in ends)
    return SplitFacts(
        name,
        split.counts,
        int(lengths.min()),
        int(numpy.median(lengths)),
        int(lengths.max()),
        _histogram(lengths),
        stopping,
        sorted(tokenizer.convert_ids_to_tokens(sorted(stops))),
        int(bos.min()),
        int(bos.max()),
        doubled,
        split.stream is not None,
    )


def _arrays(rows: Dataset) -> Iterator[tuple[Any, Any]]:
    for batch in rows.select_columns(["input_ids", "labels"]).with_format("numpy").iter(1000):
        yield from zip(batch["input_ids"], batch["labels"], strict=True)


def _histogram(lengths: Any) -> list[tuple[int, int, int]]:
    low, high = int(lengths.min()), int(lengths.max())
    width = max(1, -(-(high - low + 1) // BARS))
    borders = numpy.arange(low, high + width + 1, width)
    counts, _ = numpy.histogram(lengths, borders)
    # numpy takes the last border in
    bars = [
        (int(start), int(end) - 1, int(count)) for start, end, count in zip(borders, borders[1:], counts, strict=False)
    ]
    return bars[: 1 + max(index for index, bar in enumerate(bars) if bar[2])]


def _packing(train: Split, length: int | None) -> Packing | None:
    lengths = train.rows["tokens"][:]
    if not length:
        return None
    packed = bins(lengths, length)
    return Packing(length, len(lengths), len(packed), sum(lengths) / (len(packed) * length))


def _steps(run: Run, train: Split) -> Steps | None:
    plan = choose_plan(run, train)
    if plan is None:
        return None
    supervised = train.rows.with_format("numpy")["supervised"][:]
    if isinstance(plan, StreamPlan):
        sizes = plan.sizes(supervised)
    else:
        sizes = [int(supervised[rows].sum()) for rows in plan.steps]
    return Steps(plan.count, min(sizes), max(sizes))


def _choice(rows: Dataset, count: int, number: int | None) -> list[int]:
    """Return positions of the rows to show."""
    numbers = rows["row"][:]
    if number is not None:
        return [numbers.index(number)] if number in numbers else []
    count = min(count, len(rows))
    places = [index * len(rows) // count for index in range(count)]
    cut = [index for index, lost in enumerate(rows["cut"][:]) if lost]
    if cut and places and not set(cut) & set(places):
        places[-1] = cut[0]
    return places


def _example(row: dict[str, Any], split: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    pieces = segments(row["input_ids"], row["labels"], tokenizer)
    return Example(split, row["row"], row["tokens"], row["supervised"], row["cut"], pieces)
