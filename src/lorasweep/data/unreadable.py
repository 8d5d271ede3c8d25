"""What exactly is wrong with a data file that could not be read: file, line, column or byte."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lorasweep.data.text_files import ending, open_bytes, open_text
from lorasweep.rules import Problem

TEXT_KINDS = (".json", ".jsonl", ".jsonl.gz", ".csv")
CHUNK = 2**20


def file_problems(paths: Sequence[str]) -> Iterator[Problem]:
    """Yield the first thing wrong with each file; nothing for a file without a fault that is known here."""
    for path in paths:
        allowed = _first_fault(Path(path))
        if allowed:
            yield Problem("data.files", path, allowed)


def encoding_problems(paths: Sequence[str]) -> Iterator[Problem]:
    """Yield the first byte of each text file that is not UTF-8."""
    for path in paths:
        fault = _encoding_fault(Path(path)) if ending(path) in TEXT_KINDS else None
        if fault:
            yield Problem("data.files", path, fault)


def _first_fault(path: Path) -> str | None:
    if ending(path) not in TEXT_KINDS:
        return "at least one row; the file is empty" if not path.stat().st_size else None
    with open_text(path) as file:
        lines = [line for line, _ in zip(filter(str.strip, file), range(2), strict=False)]
    if not lines:
        return "at least one row; the file is empty"
    if ending(path) == ".csv":
        return "at least one row below the line of column names" if len(lines) < 2 else None
    return _lines_fault(path) if ending(path).startswith(".jsonl") or not is_one_document(path) else _whole_fault(path)


def _encoding_fault(path: Path) -> str | None:
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with open_bytes(path) as file:
        start = file.read(2)
        file.seek(0)
        while True:
            chunk = file.read(CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                guess = "UTF-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "WINDOWS-1252"
                return (
                    f"text in UTF-8; byte {position - pending + error.start} is not. If it is {guess}: "
                    f"iconv -f {guess} -t UTF-8 {path.name} > utf8{path.suffix}"
                )
            if not chunk:
                return None
            position += len(chunk)


def is_one_document(path: Path | str) -> bool:
    """Tell a JSON document from lines of JSON under the same ending."""
    with open_text(path) as file:
        first = next(line for line in file if line.strip())
    return first.lstrip().startswith("[") or not first.rstrip().endswith("}")


def _whole_fault(path: Path) -> str | None:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except ValueError as error:
        return f"JSON; {_reason(error)}"
    if not rows or not isinstance(rows, list | dict):
        return "a list of at least one row"
    whole = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return None if whole else "a list of objects, or an object of columns of one length"


def _lines_fault(path: Path) -> str | None:
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=unique)
            except ValueError as error:
                return f"one JSON object per line; line {number}: {_reason(error, in_line=True)}"
            if not isinstance(row, dict):
                return f"one JSON object per line; line {number} is {type(row).__name__}: {line.strip()[:80]}"
    return None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; ValueError if it has a key twice."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} twice in one row")
    return row


def _reason(error: ValueError, in_line: bool = False) -> str:
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    place = f"column {error.colno}" if in_line else f"line {error.lineno}, column {error.colno}"
    return f"{error.msg} at {place}"
