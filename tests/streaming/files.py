"""Rows in files of every kind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

Rows = Sequence[dict[str, Any]]
KINDS = ("jsonl", "jsonl.gz", "json", "csv", "parquet")


def written(path: Path, rows: Rows) -> Path:
    """Write rows into a file of the kind that its name says; Parquet in groups of 7 rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".csv":
        Dataset.from_list(list(rows)).to_csv(path)
    elif path.suffix == ".parquet":
        Dataset.from_list(list(rows)).to_parquet(path, batch_size=7)
    else:
        path.write_text(lines)
    return path


def numbered(count: int, start: int = 0) -> Rows:
    """Rows of different lengths that tell their number."""
    return [
        {"prompt": f"What is {number}?", "completion": " ".join(["river"] * (1 + number * 7 % 5)) + f" {number}"}
        for number in range(start, start + count)
    ]
