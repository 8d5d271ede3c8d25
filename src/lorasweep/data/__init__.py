"""From the section `data` to tokenised rows with labels: load, render, mask, cut, split, count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy
from datasets import Dataset, disable_caching
from transformers import PreTrainedTokenizerBase

from lorasweep import hub
from lorasweep.data.encoding import IGNORED, encode
from lorasweep.data.held_out import build_streamed
from lorasweep.data.sources import Source, load
from lorasweep.data.splits import Counts, Split, compared, kept_rows, nothing_to_learn
from lorasweep.data.streaming import RowStream
from lorasweep.file_hashes import file_hash
from lorasweep.input_files import data_files
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

__all__ = ["IGNORED", "Counts", "Source", "Split", "build_datasets", "divide", "file_hash", "fingerprint", "load"]


def build_datasets(data: Data, tokenizer: PreTrainedTokenizerBase, context: int | None) -> dict[str, Split]:
    """Return the tokenised splits by name: train, and eval and test where there are any."""
    disable_caching()  # of datasets: its keys know neither this code nor the libraries' versions (encoding's do)
    longest = data.max_length or context
    stream: RowStream | None = None
    if data.streaming:
        rows, stream = build_streamed(data, tokenizer, longest)
    else:
        rows = _cached(data, tokenizer, longest)
    problems = [
        nothing_to_learn(name, part, data, longest, tokenizer)
        for name, part in rows.items()
        if not any(part["supervised"])
    ]
    if problems:
        raise UserError(problems)
    splits = {name: kept_rows(part) for name, part in rows.items()}
    splits["train"] = replace(splits["train"], stream=stream)
    return {name: compared(name, split, splits) for name, split in splits.items()}


def _cached(data: Data, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> dict[str, Dataset]:
    """Return all rows of every split, prepared now or before."""
    encoded = {name: encode(source, data, tokenizer, longest) for name, source in load_sources(data).items()}
    parts = divide(len(encoded["train"]), data, held_out=set(encoded) - {"train"})
    rows = {name: encoded["train"].select(chosen) for name, chosen in parts.items()}
    return rows | {name: other for name, other in encoded.items() if name != "train"}


def load_sources(data: Data) -> dict[str, Source]:
    """Load the training rows (no more than `limit`), and evaluation and test rows where they are named."""
    train = load(data, data.files, data.split)
    if data.limit is not None and data.limit < len(train.rows):
        first = train.rows.select(range(data.limit))
        train = replace(train, rows=first, content=f"{train.content} first {data.limit}")
    sources = {"train": train}
    if data.eval_files or data.eval_split:
        sources["eval"] = load(data, data.eval_files, data.eval_split)
    if data.test_files or data.test_split:
        sources["test"] = load(data, data.test_files, data.test_split)
    if empty := [name for name, source in sources.items() if not len(source.rows)]:
        value = data.path or data.files or data.source
        raise UserError(Problem("data", value, f"at least one row for {empty[0]}; there is none"))
    return sources


def divide(count: int, data: Data, held_out: set[str]) -> dict[str, list[int]]:
    """Return row numbers by split: seeded shares of `count` rows for eval and test unless they are held out already."""
    order = numpy.random.default_rng(data.split_seed).permutation(count)
    fractions = {"eval": data.eval_fraction, "test": data.test_fraction}
    parts = {}
    for name, fraction in fractions.items():
        if fraction and name not in held_out:
            share = max(1, round(fraction * count))
            if share >= len(order):
                allowed = f"0, or more rows: {count} cannot be divided into train and {name}"
                raise UserError(Problem(f"data.{name}_fraction", fraction, allowed))
            parts[name], order = sorted(order[:share].tolist()), order[share:]
    return {"train": sorted(order.tolist()), **parts}


def fingerprint(data: Data, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Return what identifies the data of a run: commit or file hashes, and a hash of every split as it is learnt."""
    return {
        "files": data_files(data),
        "commit": _commit(data, splits),
        "splits": {name: {**asdict(split.counts), **_hashes(split)} for name, split in splits.items()},
    }


def _commit(data: Data, splits: Mapping[str, Split]) -> str | None:
    stream = splits["train"].stream if "train" in splits else None
    if stream:
        return stream.source.commit
    return hub.commit(data.path, "dataset", data.revision) if data.path else None


def _hashes(split: Split) -> dict[str, Any]:
    """Return the hashes of a split; rows that are read as they come are known by what decides them."""
    if split.stream:
        return {"sha256": split.stream.sha256, "streamed": True}
    return {"sha256": split.digest(), "rows_sha256": split.rows_digest()}
