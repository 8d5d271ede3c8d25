"""From the section `data` to tokenised rows with labels: load, split, render, mask, cut, count."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import numpy
from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase

from lorasweep import cache, demo_rows
from lorasweep.local_files import local_files
from lorasweep.rendering import Rendered, render, row_format
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

IGNORED = -100
"""The label of a token that does not count in the loss."""
LOADERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one split."""

    rows: int
    kept: int
    cut: int
    dropped: int
    tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class Split:
    """Tokenised rows: input_ids and labels; prompt and answer are the texts before and of the last learnt part."""

    rows: Dataset
    counts: Counts

    def digest(self) -> str:
        """Return a hash of every token and label, in order."""
        digest = hashlib.sha256()
        for batch in self.rows.select_columns(["input_ids", "labels"]).with_format("arrow").iter(1000):
            for name in ("input_ids", "labels"):
                for ids in batch[name]:
                    digest.update(numpy.asarray(ids.values, dtype=numpy.int64).tobytes() + b"|")
        return digest.hexdigest()


def build_datasets(data: Data, tokenizer: PreTrainedTokenizerBase, context: int | None) -> dict[str, Split]:
    """Return the tokenised splits by name: train, and eval and test where there are any."""
    longest = data.max_length or context
    splits = {name: tokenise(rows, data, tokenizer, longest) for name, rows in load_splits(data).items() if len(rows)}
    for name in ("train", *splits):
        if name not in splits or not splits[name].counts.supervised_tokens:
            raise UserError(_nothing_to_learn(name, splits.get(name), data, longest))
    return splits


def load_splits(data: Data) -> dict[str, Dataset]:
    """Load raw rows and divide them: named splits or files as they are, else a seeded share of the training rows."""
    train = _load(data, data.files, data.split)
    if data.limit is not None:
        train = train.select(range(min(data.limit, len(train))))
    held_out = {
        "eval": _load(data, data.eval_files, data.eval_split) if data.eval_files or data.eval_split else None,
        "test": _load(data, data.test_files, data.test_split) if data.test_files or data.test_split else None,
    }
    order = numpy.random.default_rng(data.split_seed).permutation(len(train))
    fractions = {"eval": data.eval_fraction, "test": data.test_fraction}
    for name, rows in held_out.items():
        if rows is None and fractions[name]:
            count = max(1, round(fractions[name] * len(train)))
            if count >= len(order):
                allowed = f"0, or more rows: {len(train)} cannot be divided into train and {name}"
                raise UserError(Problem(f"data.{name}_fraction", fractions[name], allowed))
            held_out[name], order = train.select(sorted(order[:count].tolist())), order[count:]
    rest = train.select(sorted(order.tolist()))
    return {"train": rest, **{name: rows for name, rows in held_out.items() if rows is not None}}


def tokenise(rows: Dataset, data: Data, tokenizer: PreTrainedTokenizerBase, longest: int | None) -> Split:
    """Render and tokenise rows, cut them to `longest` tokens and drop those with nothing left to learn."""
    kind = row_format(data, rows.column_names, bool(tokenizer.chat_template))
    if kind == "chat" and not tokenizer.chat_template:
        raise UserError(
            Problem("model.chat_template", None, "a Jinja template: the tokenizer has none, data.format=chat needs one")
        )
    if kind == "tokens":
        encode: Any = partial(_as_labelled, longest=longest, vocabulary=len(tokenizer))
    else:
        encode = partial(_encode, data=data, kind=kind, tokenizer=tokenizer, longest=longest)
    encoded = rows.map(
        encode,
        remove_columns=rows.column_names,
        num_proc=_processes(data, rows),
        load_from_cache_file=False,  # its key knows neither this code nor the libraries' versions
        desc="Tokenising",
    )
    supervised = numpy.asarray(encoded["supervised"])
    kept = encoded.select(numpy.flatnonzero(supervised > 0).tolist())
    counts = Counts(
        rows=len(rows),
        kept=len(kept),
        cut=int(sum(encoded["cut"])),
        dropped=len(rows) - len(kept),
        tokens=sum(map(len, kept["input_ids"])),
        supervised_tokens=int(supervised.sum()),
    )
    return Split(kept.remove_columns(["cut", "supervised"]), counts)


def encode_rendered(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Return input_ids and labels; a token is learnt if any of its text is (it may merge across the border)."""
    encoded = tokenizer(rendered.text, add_special_tokens=rendered.add_special_tokens, return_offsets_mapping=True)
    whole = rendered.spans == [(0, len(rendered.text))]
    labels = [
        token if whole or any(first < end and last > start for start, end in rendered.spans) else IGNORED
        for token, (first, last) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]
    return {"input_ids": encoded["input_ids"], "labels": labels}


def fingerprint(data: Data, splits: Mapping[str, Split]) -> dict[str, Any]:
    """Return what identifies the data of a run: hashes of local files, and of every split as it is learnt."""
    patterns = [p for given in (data.files, data.eval_files, data.test_files) for p in _patterns(given)]
    return {
        "files": {path: file_hash(path) for pattern in patterns for path in local_files(pattern)},
        "splits": {name: {**asdict(split.counts), "sha256": split.digest()} for name, split in splits.items()},
    }


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(
    row: Mapping[str, Any], data: Data, kind: str, tokenizer: PreTrainedTokenizerBase, longest: int | None
) -> dict[str, Any]:
    rendered = render(row, data, kind, tokenizer)
    start, end = rendered.spans[-1] if rendered.spans else (0, 0)
    return {
        **_cut(encode_rendered(rendered, tokenizer), longest),
        "prompt": rendered.text[:start],
        "answer": rendered.text[start:end],
        "add_special_tokens": rendered.add_special_tokens,
    }


def _as_labelled(row: Mapping[str, Any], longest: int | None, vocabulary: int) -> dict[str, Any]:
    ids, labels = row["input_ids"], row.get("labels") or row["input_ids"]
    if len(ids) != len(labels):
        raise UserError(
            Problem("data.format", "tokens", f"as many labels as input_ids; a row has {len(labels)} and {len(ids)}")
        )
    if max(ids, default=0) >= vocabulary:
        raise UserError(
            Problem("data.format", "tokens", f"ids below {vocabulary}, the tokenizer's size; a row has {max(ids)}")
        )
    cut = _cut({"input_ids": ids, "labels": labels}, longest)
    return {**cut, "prompt": "", "answer": "", "add_special_tokens": False}


def _cut(row: dict[str, list[int]], longest: int | None) -> dict[str, Any]:
    ids, labels = row["input_ids"][:longest], row["labels"][:longest]
    # The first token of a row is predicted from nothing, so its label never counts.
    supervised = sum(label != IGNORED for label in labels[1:])
    return {"input_ids": ids, "labels": labels, "cut": len(row["input_ids"]) > len(ids), "supervised": supervised}


def _load(data: Data, files: Any, split: str | None) -> Dataset:
    if data.source == "demo":
        return Dataset.from_list(demo_rows.generate(data.limit or 400, seed=data.split_seed))
    try:
        return _load_hub(data, split) if data.source == "hub" else _load_files(files)
    except UserError:
        raise
    except Exception as error:  # of datasets, pyarrow, the file system or the hub's client, all of them about the data
        key, value = ("data.path", data.path) if data.source == "hub" else ("data.files", files)
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UserError(Problem(key, value, f"data that can be read ({reason[0][:300]})")) from error


def _load_hub(data: Data, split: str | None) -> Dataset:
    return load_dataset(data.path, data.subset, split=split, revision=data.revision)


def _load_files(files: Any) -> Dataset:
    paths = [path for pattern in _patterns(files) for path in local_files(pattern)]
    kinds = {Path(path).suffix.lower() for path in paths}
    if len(kinds) != 1 or not kinds <= LOADERS.keys():
        raise UserError(Problem("data.files", files, f"files of one kind: {', '.join(LOADERS)}"))
    # Keyed by content: datasets' own cache trusts name, size and modification time, and would serve old rows.
    content = hashlib.sha256("".join(map(file_hash, paths)).encode()).hexdigest()[:16]
    folder = str(cache.root() / "datasets" / content)
    literal = [escape(path) for path in paths]
    return load_dataset(LOADERS[kinds.pop()], data_files=literal, split="train", cache_dir=folder)


def _patterns(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given or [])


def _processes(data: Data, rows: Dataset) -> int | None:
    # Starting processes costs seconds and sharding has to find rows for each: not worth it for a few hundred rows.
    return data.num_proc if data.num_proc and len(rows) >= 2000 else None


def _nothing_to_learn(name: str, split: Split | None, data: Data, longest: int | None) -> Problem:
    if split is None:
        return Problem("data", data.path or data.files or data.source, f"at least one row for {name}; there is none")
    allowed = (
        f"{name} rows with something to learn: 0 of {split.counts.rows} keep a supervised token at {longest} tokens"
    )
    if data.response_part:
        return Problem("data.response_part", data.response_part, f"{allowed}; is this text in the rows?")
    return Problem("data.max_length", data.max_length, allowed)
