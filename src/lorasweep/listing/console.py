"""The listing in a terminal: as many columns as there is room for."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import GAP, room_beside
from lorasweep.listing import Entry
from lorasweep.study.wording import age, room, shown, style_of

LEAST_COLUMNS = 3
"""Kind, name and state: the others are left out where there is no room."""
LEAST_LABEL = 16
"""Below this width what runs are called says nothing and is left out."""
HEADINGS: tuple[str | Text, ...] = ("", "name", "state", "best", "age", "size")


def show(entries: Sequence[Entry], more: int, places: Sequence[Path], console: Console) -> None:
    """Print a listing."""
    if not entries:
        words = ", ".join(map(str, places))
        console.print(f"no runs or studies in {words}; python train.py makes a run, python train.py -m … a study")
        return
    cells = [_cells(entry) for entry in entries]
    count = len(HEADINGS)
    while count > LEAST_COLUMNS and room_beside(console.width, [row[:count] for row in (HEADINGS, *cells)]) < -GAP:
        count -= 1
    left = room_beside(console.width, [row[:count] for row in (HEADINGS, *cells)])
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for heading in HEADINGS[:count]:
        table.add_column(heading, justify="right" if heading in ("age", "size") else "left", no_wrap=True)
    has_labels = left >= LEAST_LABEL
    if has_labels:
        table.add_column("", no_wrap=True, overflow="ellipsis", style="dim", max_width=left)
    for entry, row in zip(entries, cells, strict=True):
        table.add_row(*row[:count], *([_label(entry)] if has_labels else []))
    console.print(table)
    if more:
        console.print(f"\n{more} more: --most {len(entries) + more}", style="dim", highlight=False)


def as_json(entries: Sequence[Entry]) -> str:
    """Return a listing as JSON; what is not known is left out."""
    listed = [{key: value for key, value in asdict(entry).items() if value is not None} for entry in entries]
    return json.dumps(listed, indent=1, ensure_ascii=False)


def _cells(entry: Entry) -> tuple[str | Text, ...]:
    best = "" if entry.best is None else f"{entry.objective} {shown(entry.best)}"
    return (
        Text(entry.kind, style="bold" if entry.kind == "study" else "dim"),
        Text(entry.name),
        Text.assemble((entry.state.replace("_", " "), style_of(entry.state)), f" {_how_far(entry)}"),
        Text(best),
        Text(age(time.time() - entry.changed), style="dim"),
        Text(room(entry.size_bytes or 0), style="dim"),
    )


def _how_far(entry: Entry) -> str:
    if entry.kind == "study":
        return "" if entry.done is None else f"{entry.done}/{entry.total}" if entry.total else str(entry.done)
    return "" if entry.step is None else f"{entry.step}/{entry.steps}" if entry.steps else f"step {entry.step}"


def _label(entry: Entry) -> str:
    if entry.problem:
        return entry.problem
    if entry.kind == "run":
        return entry.label or ""
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in (entry.trials or {}).items())
    return ", ".join(filter(None, [counts, entry.process and f"by {entry.process}"]))
