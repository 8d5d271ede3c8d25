"""Pieces that runs and studies are shown with in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lorasweep.study.wording import style_of

LABEL = 12
"""Characters of the names to the left."""
GAP = 2
"""Characters between columns."""
GOOD, BAD, DOUBT = "green", "red", "yellow"


def title(name: str, state: str, process: str | None = None) -> Text:
    """Return what is shown, and how it stands."""
    return Text.assemble(
        (name, "bold"), "  ", (state.replace("_", " "), style_of(state)), (f"  {process}" if process else "", "dim")
    )


def heading(words: str, aside: str = "") -> Text:
    """Return the line above a part."""
    return Text.assemble((words, "bold"), (f"  {aside}" if aside else "", "dim"))


def grid(rows: Iterable[tuple[str | Text, str | Text]]) -> Table:
    """Return names and what belongs to them, side by side."""
    table = Table(show_header=False, box=None, padding=(0, GAP, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=LABEL - GAP)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def room_beside(width: int, rows: Sequence[Sequence[str | Text]]) -> int:
    """Return how many characters of a line are left beside the cells of a table, headings among them."""
    return width - sum(max(map(len, column)) + GAP for column in zip(*rows, strict=True)) - GAP


def commands(known: Mapping[str, str]) -> Text:
    """Return how to go on; a line is not broken, so that it can be copied (print it with crop=False)."""
    longest = max(map(len, known), default=0)
    lines = (Text.assemble((f"{what:<{longest}}  ", "dim"), (command, "cyan")) for what, command in known.items())
    joined = Text("\n").join(lines)
    joined.no_wrap, joined.overflow = True, "ignore"
    return joined
