"""From the section `data` to tokenised rows with labels: load, render, mask, cut, split, count."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy
from datasets import Dataset, disable_caching
from transformers import PreTrainedTokenizerBase

from lorasweep import hub
from lorasweep.data.encoding import IGNORED, encode
from lorasweep.data.sources import Source, load
from lorasweep.file_hashes import file_hash
from lorasweep.input_files import data_files
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

__all__ = ["IGNORED", "Counts", "Source", "Split", "build_datasets", "divide", "file_hash", "fingerprint", "load"]

EXCERPT = 600
"""Characters of a row shown in an error."""


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one split."""

    rows: int
    kept: int
    cut: int
    """Kept rows that lost their end at max_length."""
    dropped: dict[str, int]
    """Rows left out, by reason: empty, no answer, cut off, bad."""
    tokens: int
    supervised_tokens: int
    replaced_template: int
    """Rows rendered with TRL's training variant of the chat template."""
    thoughtless: int
    """Rows whose chat template leaves out what the assistant thought before an answer."""
    also_in_train: int = 0
    """Rows of another split that are training rows too, token by token."""
    also_in_eval: int = 0
    """Rows of the test split that are evaluation rows too."""


@dataclass(frozen=True)
class Split:
    """The rows of one split in which something is learnt (columns as in `encoding.encode`), and what became of all."""

    rows: Dataset
    counts: Counts

    def digest(self) -> str:
        """Return a hash of every token and label, in order."""
        digest = hashlib.sha256()
        for batch in self.rows.select_columns(["input_ids", "labels"]).with_format("arrow").iter(1000):
            for name in ("input_ids", "labels"):
                column = batch[name].combine_chunks()
                digest.update(column.value_lengths().to_numpy(zero_copy_only=False).tobytes())
                digest.update(column.flatten().to_numpy(zero_copy_only=False).astype(numpy.int64).tobytes())
        return digest.hexdigest()

    def rows_digest(self) -> str:
        """Return a hash of the rows' tokens, whatever their order."""
        return hashlib.sha256(numpy.sort(self.rows.with_format("numpy")["hash"][:]).tobytes()).hexdigest()


def build_datasets(data: Data, tokenizer: PreTrainedTokenizerBase, context: int | None) -> dict[str, Split]:
    """Return the tokenised splits by name: train, and eval and test where there are any."""
    disable_caching()  # of datasets: its keys know neither this code nor the libraries' versions (encoding's do)
    longest = data.max_length or context
    encoded = {name: encode(source, data, tokenizer, longest) for name, source in load_sources(data).items()}
    parts = divide(len(encoded["train"]), data, held_out=set(encoded) - {"train"})
    rows = {name: encoded["train"].select(chosen) for name, chosen in parts.items()}
    rows |= {name: other for name, other in encoded.items() if name != "train"}
    problems = [
        _nothing_to_learn(name, part, data, longest, tokenizer)
        for name, part in rows.items()
        if not any(part["supervised"])
    ]
    if problems:
        raise UserError(problems)
    splits = {name: kept_rows(part) for name, part in rows.items()}
    return {name: _compared(name, split, splits) for name, split in splits.items()}


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
        "commit": hub.commit(data.path, "dataset", data.revision) if data.path else None,
        "splits": {
            name: {**asdict(split.counts), "sha256": split.digest(), "rows_sha256": split.rows_digest()}
            for name, split in splits.items()
        },
    }


def kept_rows(rows: Dataset) -> Split:
    columns = ["supervised", "tokens", "cut", "dropped", "replaced_template", "thoughtless"]
    facts = rows.select_columns(columns).with_format("numpy")[:]
    keep = numpy.flatnonzero(facts["supervised"] > 0)
    counts = Counts(
        rows=len(rows),
        kept=len(keep),
        cut=int((facts["cut"][keep] > 0).sum()),
        dropped=dict(Counter(reason for reason in facts["dropped"].tolist() if reason)),
        tokens=int(facts["tokens"][keep].sum()),
        supervised_tokens=int(facts["supervised"].sum()),
        replaced_template=int(facts["replaced_template"][keep].sum()),
        thoughtless=int(facts["thoughtless"][keep].sum()),
    )
    return Split(rows.select(keep) if len(keep) < len(rows) else rows, counts)


def _compared(name: str, split: Split, splits: Mapping[str, Split]) -> Split:
    """Count the rows that other splits have as well."""
    hashes = {other: splits[other].rows.with_format("numpy")["hash"][:] for other in splits}

    def shared(other: str) -> int:
        return int(numpy.isin(hashes[name], hashes.get(other, [])).sum())

    in_train, in_eval = shared("train") if name != "train" else 0, shared("eval") if name == "test" else 0
    return replace(split, counts=replace(split.counts, also_in_train=in_train, also_in_eval=in_eval))


def _nothing_to_learn(
    name: str, rows: Dataset, data: Data, longest: int | None, tokenizer: PreTrainedTokenizerBase
) -> Problem:
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(rows["dropped"]).most_common())
    text = tokenizer.decode(rows[0]["input_ids"])
    shown = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
    said = f"{name} rows with something to learn; of {len(rows)} none is left ({reasons}). The first one:\n  {shown!r}"
    if "no answer" in reasons and data.response_part:
        return Problem("data.response_part", data.response_part, f"text that opens an answer in {said}")
    if "cut off" in reasons:
        return Problem("data.max_length", longest, f"more tokens, so that there are {said}")
    return Problem("data", data.path or data.files or data.source, said)
