"""Raw rows from where the section `data` says, with a key that names their content."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, load_dataset

from lorasweep import cache, demo_rows
from lorasweep.data.unreadable import encoding_problems, file_problems
from lorasweep.local_files import local_files
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

LOADERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """Rows as they were read, in order, and what their content is known by."""

    rows: Dataset
    content: str
    files: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """Say where row number `row` (from 0) stands: file and line where the files are made of lines."""
        before = 0
        for path in self.files if all(path.endswith(".jsonl") for path in self.files) else ():
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    before += bool(line.strip())
                    if before > row:
                        return f"{path} line {number}"
        return f"row {row + 1}"


def load(data: Data, files: Any, split: str | None) -> Source:
    """Load the rows of `files`, of `split` on the hub, or of the generator."""
    if data.source == "demo":
        count = data.limit or 400
        return Source(Dataset.from_list(demo_rows.generate(count, data.split_seed)), f"demo {count} {data.split_seed}")
    paths = tuple(path for pattern in patterns(files) for path in local_files(pattern))
    key, value = ("data.path", data.path) if data.source == "hub" else ("data.files", files)
    try:
        return _load_hub(data, split) if data.source == "hub" else _load_files(files, paths)
    except UserError:
        raise
    except Exception as error:  # of datasets, pyarrow, the file system or the hub's client, all of them about the data
        if problems := list(file_problems(paths)):
            raise UserError(problems) from error
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UserError(Problem(key, value, f"data that can be read ({reason[0][:300]})")) from error


def patterns(given: Any) -> list[str]:
    """Return a path or a list of paths as a list."""
    return [given] if isinstance(given, str) else list(given or [])


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_hub(data: Data, split: str | None) -> Source:
    assert data.path
    if not Path(data.path).is_dir():
        rows = load_dataset(data.path, data.subset, split=split, revision=data.revision)
        return Source(rows, rows._fingerprint)  # follows the commit
    content = _content([str(path) for path in sorted(Path(data.path).rglob("*")) if path.is_file()])
    folder = str(cache.root() / "datasets" / content)
    return Source(load_dataset(data.path, data.subset, split=split, cache_dir=folder), f"{content} {split}")


def _load_files(files: Any, paths: tuple[str, ...]) -> Source:
    kinds = {Path(path).suffix.lower() for path in paths}
    if len(kinds) != 1 or not kinds <= LOADERS.keys():
        raise UserError(Problem("data.files", files, f"files of one kind: {', '.join(LOADERS)}"))
    if problems := list(encoding_problems(paths)):  # Arrow takes any bytes, and fails on them rows later
        raise UserError(problems)
    kind = LOADERS[kinds.pop()]
    options = _cells_are_text(paths[0]) if kind == "csv" else {}
    content = _content(paths)
    folder = str(cache.root() / "datasets" / content)
    literal = [escape(str(Path(path).absolute())) for path in paths]
    return Source(load_dataset(kind, data_files=literal, split="train", cache_dir=folder, **options), content, paths)


def _cells_are_text(path: str) -> dict[str, Any]:
    """Return the options that leave cells alone: pandas makes 3.0 of a 3 above an empty cell, and null of "NA"."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file))
    return {"features": Features({name: Value("string") for name in names}), "keep_default_na": False}


def _content(paths: Any) -> str:
    """Return a key of what is in files; datasets' own cache trusts name, size and time, and would serve old rows."""
    return hashlib.sha256("".join(map(file_hash, paths)).encode()).hexdigest()[:16]
