"""Raw rows from where the section `data` says, with a key that names their content."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value, load_dataset

from lorasweep import cache, demo_rows
from lorasweep.data.text_files import LOADERS, ending, open_text
from lorasweep.data.unreadable import encoding_problems, file_problems, is_one_document, unique
from lorasweep.file_hashes import file_hash
from lorasweep.local_files import local_files, patterns
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

FIRST_ROWS = 1000


@dataclass(frozen=True)
class Source:
    """Rows as they were read, in order, and what their content is known by."""

    rows: Dataset
    content: str
    files: tuple[str, ...] = ()
    is_json: bool = False
    """Whether rows are JSON texts in the column json: a table would guess their types and rewrite their values."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns, of JSON those of the first rows."""
        if not self.is_json:
            return list(self.rows.column_names)
        first = (json.loads(text) for text in self.rows[:FIRST_ROWS]["json"])
        return list(dict.fromkeys(name for row in first for name in row))

    def place(self, row: int) -> str:
        """Say where row number `row` (from 0) stands: file and line where the files are made of lines."""
        before = 0
        for path in self.files if all(ending(path).startswith(".jsonl") for path in self.files) else ():
            with open_text(path) as file:
                for number, line in enumerate(file, 1):
                    before += bool(line.strip())
                    if before > row:
                        return f"{path} line {number}"
        return f"{self.files[0]} row {row + 1}" if len(self.files) == 1 else f"row {row + 1}"


def load(data: Data, files: Any, split: str | None) -> Source:
    """Load the rows of `files`, of `split` on the hub, or of the generator."""
    if data.source == "demo":
        count = data.limit or 400
        return Source(Dataset.from_list(demo_rows.generate(count, data.split_seed)), f"demo {count} {data.split_seed}")
    paths = files_of(files)
    with readable(data, files, paths):
        return _load_hub(data, split) if data.source == "hub" else _load_files(files, paths)


def files_of(given: Any) -> tuple[str, ...]:
    """Return the files that a path, a pattern or a list of them names, in order."""
    return tuple(path for pattern in patterns(given) for path in local_files(pattern))


@contextmanager
def readable(data: Data, files: Any, paths: Sequence[str]) -> Iterator[None]:
    """Raise what goes wrong with rows as the user's problem, with its place in a file where that is known."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of datasets, pyarrow, the file system or the hub's client, all of them about the data
        with suppress(OSError, EOFError):
            if problems := list(encoding_problems(paths)) or list(file_problems(paths)):
                raise UserError(problems) from error
        key, value = ("data.path", data.path) if data.source == "hub" else ("data.files", files)
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UserError(Problem(key, value, f"data that can be read ({reason[0][:300]})")) from error


def _load_hub(data: Data, split: str | None) -> Source:
    assert data.path
    if not Path(data.path).is_dir():
        rows = load_dataset(data.path, data.subset, split=split, revision=data.revision)
        return Source(rows, rows._fingerprint)  # follows the commit
    content = folder_content(data.path)
    rows = load_dataset(data.path, data.subset, split=split, cache_dir=str(cache.root() / "datasets" / content))
    return Source(rows, f"{content} {data.subset} {split}")


def _load_files(files: Any, paths: tuple[str, ...]) -> Source:
    kind = loader_of(files, paths)
    if problems := list(encoding_problems(paths)):  # Arrow takes any bytes, and fails on them rows later
        raise UserError(problems)
    content = content_key(paths)
    folder = str(cache.root() / "datasets" / content)
    if kind == "json":
        column = Features({"json": Value("string")})
        rows = Dataset.from_generator(json_rows, column, folder, gen_kwargs={"paths": list(paths)})
        return Source(rows, content, paths, is_json=True)
    rows = load_dataset(kind, **table_options(kind, paths), split="train", cache_dir=folder)
    return Source(rows, content, paths)


def loader_of(files: Any, paths: Sequence[str]) -> str:
    """Return the loader of datasets for files that are all of one kind."""
    kinds = {LOADERS.get(ending(path)) for path in paths}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        raise UserError(Problem("data.files", files, f"files of one kind: {', '.join(LOADERS)}"))
    return kind


def table_options(kind: str, paths: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `load_dataset` for tables in files."""
    options = _cells_are_text(paths[0]) if kind == "csv" else {}
    return {"data_files": [escape(str(Path(path).absolute())) for path in paths], **options}


def json_rows(paths: list[str]) -> Iterator[dict[str, str]]:
    """Yield the rows of JSON files as JSON; ValueError for what is none."""
    for path in paths:
        with open_text(path) as file:
            if ending(path).startswith(".jsonl") or not is_one_document(Path(path)):
                texts: Iterable[str] = filter(str.strip, file)
            else:
                texts = map(json.dumps, _rows_of(json.load(file)))
            for text in texts:
                if not isinstance(json.loads(text, object_pairs_hook=unique), dict):
                    raise ValueError("a row that is no object")
                yield {"json": text}


def _rows_of(document: Any) -> Any:
    """Return the rows of a JSON document: a list of them, or an object of columns of one length."""
    if isinstance(document, dict) and len({len(v) if isinstance(v, list) else -1 for v in document.values()}) == 1:
        return [dict(zip(document, values, strict=True)) for values in zip(*document.values(), strict=True)]
    if not isinstance(document, list):
        raise ValueError("a document that is no list")
    return document


def _cells_are_text(path: str) -> dict[str, Any]:
    """Return the options that leave cells alone: pandas makes 3.0 of a 3 above an empty cell, and null of "NA"."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file))
    if len(header) == 1 and (found := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise UserError(Problem("data.files", path, f"commas between the columns; this file has {found!r}"))
    names = [name or f"Unnamed: {position}" for position, name in enumerate(header)]  # as pandas names an index
    if twice := {name for name in names if names.count(name) > 1}:
        raise UserError(Problem("data.files", path, f"columns of different names; {', '.join(sorted(twice))} is twice"))
    return {"features": Features({name: Value("string") for name in names}), "keep_default_na": False}


def folder_content(folder: str) -> str:
    """Return a key of the names and the content of all files in a folder."""
    place = Path(folder)
    files = [str(path.relative_to(place)) for path in sorted(place.rglob("*")) if path.is_file()]
    return hashlib.sha256(f"{files} {content_key([str(place / name) for name in files])}".encode()).hexdigest()[:16]


def content_key(paths: Any) -> str:
    """Return a key of what is in files; datasets' own cache trusts name, size and time, and would serve old rows."""
    return hashlib.sha256("".join(map(file_hash, paths)).encode()).hexdigest()[:16]
