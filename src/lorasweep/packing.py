"""Packing: several rows in one, best fit first, each attending only to itself."""

from __future__ import annotations

from datasets import Dataset


def pack(rows: Dataset, length: int) -> Dataset:
    """Return rows of up to `length` tokens with a column seq_lengths, from which positions restart at every border."""
    from trl import pack_dataset

    packed: Dataset = pack_dataset(rows, length, strategy="bfd")
    return packed
