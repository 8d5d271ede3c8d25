"""Which files a path or a pattern in a config means."""

from __future__ import annotations

from collections.abc import Iterable
from glob import escape, glob
from pathlib import Path, PurePath
from typing import Any

ROWS = (".json", ".jsonl", ".jsonl.gz", ".csv", ".parquet")
"""The endings of files with rows."""


def local_files(pattern: str) -> list[str]:
    """Return the files a path or a pattern names, sorted, of a folder those with rows; what exists is literal."""
    if Path(pattern).is_file():
        return [pattern]
    if Path(pattern).is_dir():
        inside = (path for path in Path(pattern).rglob("*") if path.name.lower().endswith(ROWS))
        return sorted(str(path) for path in inside if path.is_file())
    return sorted(path for path in glob(pattern, recursive=True) if Path(path).is_file())


def patterns(given: Any) -> list[str]:
    """Return a path or a list of paths as a list."""
    return [given] if isinstance(given, str) else list(given or [])


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return by path as much of its end as tells it from the others."""
    known = {path: PurePath(path).parts for path in paths}

    def short(path: str) -> str:
        for count in range(1, len(known[path])):
            if sum(parts[-count:] == known[path][-count:] for parts in known.values()) == 1:
                return str(PurePath(*known[path][-count:]))
        return path

    return {path: short(path) for path in known}


def absolute(pattern: str) -> str:
    """Return the path or pattern as it is found from any working directory."""
    if Path(pattern).is_absolute():
        return pattern
    return str(Path.cwd() / pattern if Path(pattern).exists() else Path(escape(str(Path.cwd()))) / pattern)
