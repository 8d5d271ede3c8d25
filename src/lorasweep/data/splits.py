"""The rows of a split in which something is learnt, and what became of all."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from lorasweep.rules import Problem
from lorasweep.schema import Data

if TYPE_CHECKING:
    from lorasweep.data.streaming import RowStream

EXCERPT = 600
"""Characters of a row shown in an error."""


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one split."""

    rows: int = 0
    kept: int = 0
    cut: int = 0
    """Kept rows that lost their end at max_length."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason: empty, no answer, cut off, bad, held out."""
    tokens: int = 0
    supervised_tokens: int = 0
    replaced_template: int = 0
    """Rows rendered with TRL's training variant of the chat template."""
    thoughtless: int = 0
    """Rows whose chat template leaves out what the assistant thought before an answer."""
    also_in_train: int = 0
    """Rows of another split that are training rows too, token by token."""
    also_in_eval: int = 0
    """Rows of the test split that are evaluation rows too."""

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both together."""
        dropped = dict(sorted((Counter(self.dropped) + Counter(other.dropped)).items()))
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in NUMBERS}, dropped=dropped)


NUMBERS = [item.name for item in fields(Counts) if item.name != "dropped"]
FACTS = ("supervised", "tokens", "cut", "dropped", "replaced_template", "thoughtless")
"""The columns of `encoding.encode` that say what becomes of a row."""


@dataclass(frozen=True)
class Split:
    """The rows of one split in which something is learnt (columns as in `encoding.encode`), and what became of all."""

    rows: Dataset
    counts: Counts
    stream: RowStream | None = None
    """Where all rows are read from as they come: `rows` and `counts` are then those of the first of them."""

    @property
    def epoch_tokens(self) -> int | None:
        """Return the supervised tokens of all rows; None: nobody knows, they are read as they come."""
        return None if self.stream else self.counts.supervised_tokens

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


def kept_rows(rows: Dataset) -> Split:
    """Return the rows in which something is learnt, and what became of all."""
    facts = rows.select_columns(list(FACTS)).with_format("numpy")[:]
    keep = numpy.flatnonzero(facts["supervised"] > 0)
    return Split(rows.select(keep) if len(keep) < len(rows) else rows, counted(facts))


def counted(facts: Mapping[str, Any]) -> Counts:
    """Return what became of rows, from their `FACTS` as arrays."""
    keep = numpy.flatnonzero(facts["supervised"] > 0)
    return Counts(
        rows=len(facts["supervised"]),
        kept=len(keep),
        cut=int((facts["cut"][keep] > 0).sum()),
        dropped=dict(Counter(reason for reason in facts["dropped"].tolist() if reason)),
        tokens=int(facts["tokens"][keep].sum()),
        supervised_tokens=int(facts["supervised"].sum()),
        replaced_template=int(facts["replaced_template"][keep].sum()),
        thoughtless=int(facts["thoughtless"][keep].sum()),
    )


def compared(name: str, split: Split, splits: Mapping[str, Split]) -> Split:
    """Count the rows that other splits have as well."""
    hashes = {other: splits[other].rows.with_format("numpy")["hash"][:] for other in splits}

    def shared(other: str) -> int:
        return int(numpy.isin(hashes[name], hashes.get(other, [])).sum())

    in_train, in_eval = shared("train") if name != "train" else 0, shared("eval") if name == "test" else 0
    return replace(split, counts=replace(split.counts, also_in_train=in_train, also_in_eval=in_eval))


def nothing_to_learn(
    name: str, rows: Dataset, data: Data, longest: int | None, tokenizer: PreTrainedTokenizerBase
) -> Problem:
    """Return what to tell the user of a split in which nothing is learnt."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(rows["dropped"]).most_common())
    text = tokenizer.decode(rows[0]["input_ids"])
    shown = text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
    said = f"{name} rows with something to learn; of {len(rows)} none is left ({reasons}). The first one:\n  {shown!r}"
    if "no answer" in reasons and data.response_part:
        return Problem("data.response_part", data.response_part, f"text that opens an answer in {said}")
    if "cut off" in reasons:
        return Problem("data.max_length", longest, f"more tokens, so that there are {said}")
    return Problem("data", data.path or data.files or data.source, said)
