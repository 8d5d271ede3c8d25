"""The splits of rows that are read as they come: those held out, and the first of the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lorasweep.data.encoding import BATCH, Encoder, encode, kind_of, rows_hash
from lorasweep.data.sources import FIRST_ROWS, load
from lorasweep.data.streaming import RowStream, encoded, leave_out, row_count
from lorasweep.data.streams import Columns, Stream, open_stream
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

HELD = ("eval", "test")


@dataclass(frozen=True)
class First:
    """The first rows of a stream, prepared."""

    source: Stream
    encoder: Encoder
    rows: Columns


def build_streamed(
    data: Data, tokenizer: PreTrainedTokenizerBase, longest: int | None
) -> tuple[dict[str, Dataset], RowStream]:
    """Return every row of the splits that are held out, the first training rows, and where all of these come from."""
    counts = {name: _of_training(data, name) for name in HELD}
    held = sum(counts.values())
    first = _first(data, data.files, data.split, held + FIRST_ROWS, tokenizer, longest)
    if len(first.rows["row"]) <= held:
        name = next(name for name in HELD if counts[name] or not held)
        allowed = f"fewer than there are rows: {len(first.rows['row'])}"
        raise UserError(Problem(f"data.{name}_rows", getattr(data, f"{name}_rows"), allowed))
    splits: dict[str, Dataset] = {}
    start = 0
    for name, count in counts.items():
        rows = _slice(first.rows, start, start + count) if count else _of_its_own(data, name, tokenizer, longest)
        start += count
        splits |= {name: rows} if rows is not None else {}
    hashes = frozenset(value for rows in splits.values() for value in _hashes(rows))
    train = _slice(leave_out(_after(first.rows, held), hashes), 0, None)
    parts = [first.source.content, data.limit, held, sorted(hashes)]
    sha256 = rows_hash(parts, data, first.encoder.kind, tokenizer, longest)
    size = data.shuffle_buffer or BATCH
    return {"train": train, **splits}, RowStream(first.source, first.encoder, size, held, data.limit, hashes, sha256)


def _of_training(data: Data, name: str) -> int:
    """Return how many of the first training rows are held out for a split."""
    elsewhere = getattr(data, f"{name}_files") or getattr(data, f"{name}_split")
    return 0 if elsewhere else getattr(data, f"{name}_rows") or 0


def _of_its_own(data: Data, name: str, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> Dataset | None:
    """Return all rows of the files of a split, or the first so many of a split on the hub; None: there is neither."""
    if files := getattr(data, f"{name}_files"):
        return encode(load(data, files, None), data, tokenizer, longest)
    if not (split := getattr(data, f"{name}_split")):
        return None
    first = _first(data, None, split, getattr(data, f"{name}_rows"), tokenizer, longest)
    return _slice(first.rows, 0, None)


def _first(
    data: Data, files: object, split: str | None, count: int, tokenizer: PreTrainedTokenizerBase, longest: int | None
) -> First:
    source = open_stream(data, files, split)
    count = min(count, data.limit or count)
    batch: Columns = next((batch for batch, _ in source.batches(count)), {})
    if not row_count(batch):
        raise UserError(Problem("data", data.path or files, "at least one row; there is none"))
    kind = kind_of(source.columns(batch), data, tokenizer)
    encoder = Encoder(data, kind, tokenizer, longest, source.without_rows())
    return First(source, encoder, encoded(encoder, batch, range(row_count(batch))))


def _after(rows: Columns, start: int) -> Columns:
    return {name: values[start:] for name, values in rows.items()}


def _slice(rows: Columns, start: int, end: int | None) -> Dataset:
    return Dataset.from_dict({name: values[start:end] for name, values in rows.items()})


def _hashes(rows: Dataset) -> list[int]:
    facts = rows.with_format("numpy")
    found: list[int] = facts["hash"][:][numpy.flatnonzero(facts["supervised"][:])].tolist()
    return found
