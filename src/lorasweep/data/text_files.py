"""Files of rows by their ending, and those of text as they are read, compressed or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, TextIO, cast

LOADERS = {".json": "json", ".jsonl": "json", ".jsonl.gz": "json", ".csv": "csv", ".parquet": "parquet"}
"""The loader of datasets for every ending."""


def ending(path: str | Path) -> str:
    """Return the ending that says what a file holds, with .gz where it is compressed."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def open_text(path: str | Path) -> TextIO:
    """Open a file of UTF-8 text, with or without a mark in front, decompressed."""
    if ending(path).endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig"))
    return open(path, encoding="utf-8-sig")


def open_bytes(path: str | Path) -> BinaryIO:
    """Open a file's bytes, decompressed."""
    return cast(BinaryIO, gzip.open(path, "rb") if ending(path).endswith(".gz") else open(path, "rb"))
