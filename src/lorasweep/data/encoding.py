"""From rendered rows to token ids with labels, kept on disk under a key of all that went into them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from lorasweep import cache
from lorasweep.data.fields import BadRow
from lorasweep.data.rendering import Rendered, Renderer, row_format
from lorasweep.data.sources import Source
from lorasweep.library_logs import progress_bars
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

IGNORED = -100
"""The label of a token that does not count in the loss."""
ROWS_WORTH_A_PROCESS = 2000
ROWS_WORTH_A_BAR = 10_000
BATCH = 1000
LIBRARIES = ("tokenizers", "transformers", "trl", "jinja2")
MATTERS = (
    "format", "messages", "prompt", "completion", "system", "text", "response_only", "instruction_part",
    "response_part", "template_kwargs", "template_date", "bad_rows",
)  # fmt: skip
"""The options that decide what the rows of a source become."""


def encode(source: Source, data: Data, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> Dataset:
    """Return every row of a source, in order, from the cache or made now and kept there.

    Columns: input_ids and labels (cut to `longest`), tokens and supervised (their numbers), prompt and answer (texts
    before and of the last learnt part), add_special_tokens, cut (tokens lost to `longest`), replaced_template and
    thoughtless (as in `Rendered`), dropped (why nothing is left to learn, else empty), hash (of the ids) and row (its
    number in the source).
    """
    kind = kind_of(source.columns, data, tokenizer)
    key = _key(source, data, kind, tokenizer, longest)
    folder = cache.folder(f"rows/{key}", lambda staging: _write(source, data, kind, tokenizer, longest, staging))
    rows = concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(folder.glob("rows*.arrow"))])
    assert len(rows) == len(source.rows)
    return rows


def kind_of(columns: list[str], data: Data, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the format of rows with these columns; raises UserError where rows cannot be prepared."""
    kind = row_format(data, columns, bool(tokenizer.chat_template))
    if not tokenizer.is_fast:
        raise UserError(Problem("model.tokenizer", tokenizer.name_or_path, "a fast tokenizer: masks need its offsets"))
    return kind


@dataclass
class Encoder:
    """Turns a batch of rows into columns; picklable, for the processes of `data.num_proc`."""

    data: Data
    kind: str
    tokenizer: PreTrainedTokenizerBase
    longest: int | None
    source: Source | None = None
    renderer: Renderer | None = field(init=False)

    def __post_init__(self) -> None:
        self.renderer = None if self.kind == "tokens" else Renderer(self.data, self.kind, self.tokenizer)

    def __call__(self, batch: Mapping[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        """Return the columns of `encode` for the rows with these numbers."""
        if self.source and self.source.is_json:
            rows = [json.loads(text) for text in batch["json"]]
        else:
            rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        read: list[Any] = []
        faults: dict[int, BadRow] = {}
        for number, row in zip(numbers, rows, strict=True):
            try:
                read.append(self.renderer(row) if self.renderer else self._given(row))
            except BadRow as error:
                faults[number] = error
                read.append(Rendered("", [], False) if self.renderer else ([], []))
        if faults and self.data.bad_rows == "error":
            raise self._explained(faults)
        encoded = self._encoded(read) if self.renderer else [self._columns(ids, labels) for ids, labels in read]
        for number, columns in zip(numbers, encoded, strict=True):
            columns["row"] = number
            columns["dropped"] = "bad" if number in faults else columns["dropped"]
        return {name: [columns[name] for columns in encoded] for name in encoded[0]}

    def _encoded(self, rendered: list[Rendered]) -> list[dict[str, Any]]:
        assert self.renderer
        encodings: dict[int, Any] = {}
        for adds in (True, False):
            chosen = [index for index, item in enumerate(rendered) if item.add_special_tokens is adds]
            if chosen:
                texts = [rendered[index].text for index in chosen]
                made = self.tokenizer(texts, add_special_tokens=adds, return_attention_mask=False)
                encodings |= dict(zip(chosen, made.encodings, strict=True))
        columns = []
        for index, item in enumerate(rendered):
            ids, labels = labelled(encodings[index], item, int(self.tokenizer.eos_token_id))
            start, end = item.spans[-1] if item.spans else (0, 0)
            learnt = "".join(item.text[first:last] for first, last in item.spans)
            made = self._columns(ids, labels, unanswered=not item.spans, blank=self.renderer.is_blank(learnt))
            made |= {"prompt": item.text[:start], "answer": item.text[start:end]}
            made |= {name: getattr(item, name) for name in ("add_special_tokens", "replaced_template", "thoughtless")}
            columns.append(made)
        return columns

    def _columns(self, ids: Any, labels: Any, unanswered: bool = False, blank: bool = False) -> dict[str, Any]:
        cut = numpy.asarray(ids, dtype=numpy.int32)[: self.longest]
        kept = numpy.asarray(labels, dtype=numpy.int32)[: self.longest]
        # The first token of a row is predicted from nothing, so its label never counts.
        supervised = int((kept[1:] != IGNORED).sum())
        lost = len(ids) - len(cut)
        nothing_left = "" if supervised else "cut off" if lost else "no answer"
        dropped = "no answer" if unanswered else "empty" if blank else nothing_left
        return {
            "input_ids": cut,
            "labels": kept,
            "tokens": len(cut),
            "supervised": 0 if dropped else supervised,
            "prompt": "",
            "answer": "",
            "add_special_tokens": False,
            "replaced_template": False,
            "thoughtless": False,
            "cut": lost,
            "dropped": dropped,
            "hash": int.from_bytes(hashlib.blake2b(cut.tobytes(), digest_size=8).digest(), "big", signed=True),
        }

    def _given(self, row: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Return ids and labels of a tokenised row."""
        ids: Any = row.get("input_ids")
        labels: Any = ids if row.get("labels") is None else row["labels"]
        for name, values in (("input_ids", ids), ("labels", labels)):
            if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
                raise BadRow("data.format", "tokens", f"lists of whole numbers; {name} is {values!r:.60}")
        if len(ids) != len(labels):
            raise BadRow(
                "data.format", "tokens", f"as many labels as input_ids; there are {len(labels)} and {len(ids)}"
            )
        for name, values in (("input_ids", ids), ("labels", [label for label in labels if label != IGNORED])):
            if wrong := [value for value in values if not 0 <= value < len(self.tokenizer)]:
                allowed = f"ids from 0 to {len(self.tokenizer) - 1}, the tokenizer's; {name} has {wrong[0]}"
                raise BadRow("data.format", "tokens", allowed)
        return ids, labels

    def _explained(self, faults: Mapping[int, BadRow]) -> UserError:
        """Return one problem for every kind of fault in a batch, at its first row."""
        first: dict[tuple[str, str], tuple[int, BadRow, int]] = {}
        for number, error in faults.items():
            known = first.get((error.key, error.allowed), (number, error, 0))
            first[(error.key, error.allowed)] = (known[0], known[1], known[2] + 1)
        problems = []
        for number, error, count in list(first.values())[:5]:
            place = self.source.place(number) if self.source else f"row {number + 1}"
            more = f" and {count - 1} more near it" if count > 1 else ""
            allowed = f"{error.allowed} ({place}{more}; data.bad_rows=drop leaves such rows out)"
            problems.append(Problem(error.key, error.value, allowed))
        return UserError(problems)


def labelled(encoding: Any, rendered: Rendered, stop: int) -> tuple[Any, Any]:
    """Return ids and labels; a token is learnt if any of its text is (it may merge across the border)."""
    count = len(encoding.ids)
    if count and encoding.special_tokens_mask[-1] and encoding.ids[-1] == stop and rendered.spans:
        count -= 1  # the tokenizer's own stop token after the one in the text
    ids = numpy.asarray(encoding.ids[:count], dtype=numpy.int32)
    if rendered.spans == [(0, len(rendered.text))]:
        return ids, ids
    offsets = numpy.asarray(encoding.offsets[:count], dtype=numpy.int64).reshape(-1, 2)
    learnt = numpy.zeros(len(ids), dtype=bool)
    for start, end in rendered.spans:
        learnt |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return ids, numpy.where(learnt, ids, IGNORED)


def _write(
    source: Source, data: Data, kind: str, tokenizer: PreTrainedTokenizerBase, longest: int | None, staging: Path
) -> None:
    rows = source.rows
    with progress_bars(len(rows) >= ROWS_WORTH_A_BAR), _own_environment():
        rows.map(
            Encoder(data, kind, tokenizer, longest, _without_rows(source)),
            batched=True,
            batch_size=BATCH,
            with_indices=True,
            remove_columns=rows.column_names,
            num_proc=data.num_proc if (data.num_proc or 1) > 1 and len(rows) >= ROWS_WORTH_A_PROCESS else None,
            load_from_cache_file=False,
            new_fingerprint="rows",  # hashing the tokenizer takes longer than a small data set; the cache is ours
            cache_file_name=str(staging / "rows.arrow"),
            desc="Tokenising",
        )


@contextmanager
def _own_environment() -> Iterator[None]:
    """Keep the object os.environ: datasets puts a copy in its place, and whoever holds the first sees no change."""
    environment = os.environ
    try:
        yield
    finally:
        os.environ = environment  # noqa: B003 not to clear it


def _without_rows(source: Source) -> Source:
    return replace(source, rows=source.rows.select([]))


def _key(source: Source, data: Data, kind: str, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> str:
    code = [_code_hash(), *((name, version(name)) for name in LIBRARIES)]
    return rows_hash([source.content, *code], data, kind, tokenizer, longest)[:20]


def rows_hash(content: Any, data: Data, kind: str, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> str:
    """Return a hash of all that decides what rows of this content become, but for code unless it is part of it."""
    options = {name: getattr(data, name) for name in MATTERS}
    parts = [content, options, kind, longest, _tokenizer_hash(tokenizer)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    parts = (backend.to_str(), str(tokenizer.chat_template), json.dumps(tokenizer.special_tokens_map, default=str))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def _code_hash() -> str:
    """Return a hash of this package: rows made by other code are made again."""
    sources = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"\0".join(sources)).hexdigest()
