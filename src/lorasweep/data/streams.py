"""Rows that are read as they come, from where the section `data` says, and known by their content like others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, Features, IterableDataset, Value, load_dataset

from lorasweep import hub
from lorasweep.data.sources import (
    FIRST_ROWS,
    Source,
    content_key,
    files_of,
    folder_content,
    json_rows,
    loader_of,
    readable,
    table_options,
)
from lorasweep.data.text_files import ending
from lorasweep.data.unreadable import is_one_document
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Stream:
    """Rows in their order, from the first or from where a state says; read by one reader at a time."""

    rows: IterableDataset
    data: Data
    content: str
    files: tuple[str, ...] = ()
    is_json: bool = False
    """As in `Source`."""
    commit: str | None = None
    """Of a data set on the hub."""
    stamps: tuple[tuple[int, int], ...] = field(init=False)
    start: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamps", self._stamps())
        object.__setattr__(self, "start", self.rows.state_dict())

    def batches(self, size: int, state: dict[str, Any] | None = None) -> Iterator[tuple[Columns, dict[str, Any]]]:
        """Yield columns of so many rows, of fewer at the end, each time with the state from which reading goes on."""
        self.rows.load_state_dict(state or self.start)
        with readable(self.data, list(self.files), self.files):
            for batch in self.rows.iter(size):
                self._check_unchanged()
                yield batch, self.rows.state_dict()

    def columns(self, first: Columns) -> list[str]:
        """Return the names of the columns from the first rows."""
        if not self.is_json:
            return list(self.rows.column_names or first)
        return list(dict.fromkeys(name for text in first["json"][:FIRST_ROWS] for name in json.loads(text)))

    def without_rows(self) -> Source:
        """Return what tells where a row stands."""
        return Source(Dataset.from_dict({}), self.content, self.files, self.is_json)

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        facts = map(os.stat, self.files)
        return tuple((found.st_size, found.st_mtime_ns) for found in facts)

    def _check_unchanged(self) -> None:
        for path, before, now in zip(self.files, self.stamps, self._stamps(), strict=True):
            if before != now:
                raise UserError(Problem("data.files", path, "a file that stays as it is while it is trained on"))


def open_stream(data: Data, files: Any, split: str | None) -> Stream:
    """Open the rows of `files`, or of `split` on the hub, without reading them."""
    paths = files_of(files)
    with readable(data, files, paths):
        return _open_hub(data, split) if data.source == "hub" else _open_files(data, files, paths)


def _open_hub(data: Data, split: str | None) -> Stream:
    assert data.path
    if os.path.isdir(data.path):
        rows = load_dataset(data.path, data.subset, split=split, streaming=True)
        return Stream(rows, data, f"{folder_content(data.path)} {data.subset} {split}")
    commit = hub.latest_commit(data.path, "dataset", data.revision)
    rows = load_dataset(data.path, data.subset, split=split, revision=commit, streaming=True)
    return Stream(rows, data, f"{data.path} {data.subset} {split} {commit}", commit=commit)


def _open_files(data: Data, files: Any, paths: tuple[str, ...]) -> Stream:
    kind = loader_of(files, paths)
    for path in paths if kind == "json" else ():
        if ending(path) == ".json" and is_one_document(path):
            allowed = "lines of JSON (.jsonl): data.streaming=true would have to read this document whole"
            raise UserError(Problem("data.files", path, allowed))
    content = content_key(paths)
    if kind == "json":
        column = Features({"json": Value("string")})
        rows = IterableDataset.from_generator(json_rows, column, gen_kwargs={"paths": list(paths)})
        return Stream(rows, data, content, paths, is_json=True)
    rows = load_dataset(kind, **table_options(kind, paths), split="train", streaming=True)
    return Stream(rows, data, content, paths)
