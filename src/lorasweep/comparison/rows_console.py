"""Differences row by row in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import BAD, DOUBT, GAP, GOOD, heading, room_beside
from lorasweep.comparison import Comparison
from lorasweep.comparison.rows import RowComparison
from lorasweep.comparison.tables import letters
from lorasweep.study.wording import difference, interval

MOST, MOST_OF_SEVERAL = 5, 3


def rows(known: Comparison, console: Console) -> Iterator[RenderableType]:
    """Yield every run against the first."""
    yield heading("Row by row", "loss per supervised token on the same evaluation rows")
    named = letters(known)
    for item in known.rows:
        yield Text.assemble(named[item.other], " against ", named[item.first], ": ", _verdict(item))
    if any(item.changed for item in known.rows):
        studies = {run.study for run in known.runs if run.study}
        how = f": lorasweep confirm {shlex.quote(studies.pop())} measures that" if len(studies) == 1 else ""
        yield Text(f"The interval covers the choice of rows, not what another seed would change{how}.", style="dim")
    with_rows = [item for item in known.rows if item.changed]
    for item in with_rows:
        yield ""
        yield heading(f"Where {item.other} and {item.first} differ most")
        yield _changed(item, named, MOST if len(with_rows) == 1 else MOST_OF_SEVERAL, console.width)
    if with_rows and not all(row.text for row in with_rows[0].changed):
        yield _how_to_see(known, with_rows[0])


def _verdict(item: RowComparison) -> Text:
    if item.not_comparable:
        return Text(f"not comparable, other rows were scored: {'; '.join(item.not_comparable)}", style=DOUBT)
    if item.difference is None:
        return Text("a single row has no interval")
    found, other = item.difference, item.other
    if not item.better and not item.worse:
        return Text(f"the same on each of {item.count} rows")
    words = Text(f"{difference(found.mean)}, 95 % interval {interval(found.low, found.high)}, ")
    if found.inside_noise:
        words.append("inside the noise", style=DOUBT)
    else:
        how, style = ("better", GOOD) if found.mean < 0 else ("worse", BAD)
        words.append(f"{other} is {how}", style=f"bold {style}")
    if item.unlike:
        words.append(f" (unlike in {', '.join(item.unlike)})", style=DOUBT)
    return words.append(f"; of {item.count} rows {item.better} are better, {item.worse} worse", style="dim")


def _how_to_see(known: Comparison, item: RowComparison) -> Text:
    """Return how a row is shown; a line is not broken, so that it can be copied."""
    folder = next(run.folder for run in known.runs if run.letter == item.first)
    place = f"--config-dir {shlex.quote(folder)} experiment=saved --split eval --row {item.changed[0].row}"
    return Text(f"lorasweep preview {place}", style="dim", no_wrap=True, overflow="ignore")


def _changed(item: RowComparison, named: Mapping[str, Text], most: int, width: int) -> Table:
    headings: list[str | Text] = ["row", "tokens", named[item.first], named[item.other], "difference"]
    cells: list[list[str | Text]] = []
    for row in item.changed[:most]:
        gain = row.other - row.first
        numbers = (str(row.row), str(row.tokens), f"{row.first:.4f}", f"{row.other:.4f}")
        cells.append([*numbers, Text(difference(gain), style=GOOD if gain < 0 else BAD)])
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    if any(row.text for row in item.changed):
        left = room_beside(width, [headings, *cells])
        table.add_column("", no_wrap=True, overflow="ellipsis", style="dim", max_width=max(left, 1))
        for line, row in zip(cells, item.changed, strict=False):
            line.append(Text(row.text or ""))
    for line in cells:
        table.add_row(*line)
    return table
