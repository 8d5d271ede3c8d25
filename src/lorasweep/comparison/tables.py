"""Runs, their configs and their numbers, in a column each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import GAP, GOOD, heading, room_beside
from lorasweep.comparison import Comparison
from lorasweep.comparison.metrics import Metric
from lorasweep.study.wording import clock, shown, style_of

STYLES = ("cyan", "yellow", "magenta", "green", "blue", "red")
LONGEST_VALUE = 28
WORDS = {
    "tokens/supervised": "supervised tokens",
    "train/seconds": "training time",
    "tokens/per_second": "tokens/s",
    "tokens/supervised_per_second": "supervised tokens/s",
    "memory/peak_gib": "peak memory, GiB",
    "memory/added_gib": "added by training, GiB",
    "adapter/parameters": "adapter parameters",
}


def letter_style(at: int) -> str:
    """Return the colour of a run, by its place."""
    return STYLES[at % len(STYLES)]


def letters(known: Comparison) -> dict[str, Text]:
    """Return the letters of the runs in their colours."""
    return {run.letter: Text(run.letter, style=f"bold {letter_style(at)}") for at, run in enumerate(known.runs)}


def runs(known: Comparison, console: Console) -> Table:
    """Return which run is which."""
    cells = []
    for run, letter in zip(known.runs, letters(known).values(), strict=True):
        state = Text(run.state.replace("_", " "), style=style_of(run.state))
        state.append(" baseline" if run.is_baseline else "", style="dim")
        cells.append((letter, Text(run.name, style="bold"), state, Text(run.label, style="dim")))
    table = Table(show_header=False, box=None, padding=(0, GAP, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    left = room_beside(console.width, [row[:3] for row in cells])
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(left, 1))
    for row in cells:
        table.add_row(*row)
    return table


def config(known: Comparison) -> Iterator[RenderableType]:
    """Yield what the configs differ in: files of groups, then values, then what makes no difference."""
    table = _table(known, "What differs")
    written = [item.values for item in known.config]
    for group, options in known.groups.items():
        if options not in written:  # a file that is called as what it names says nothing more
            table.add_row(Text(f"{group} (file)"), *map(Text, options))
    for item in known.config:
        if item.has_effect:
            values = ("" if value is None else shown(value, LONGEST_VALUE) for value in item.values)
            table.add_row(item.key, *map(Text, values))
    yield table if table.row_count else heading("What differs", "nothing that changes what is trained")
    if idle := [item for item in known.config if not item.has_effect]:
        words = ", ".join(f"{item.key} {' | '.join(map(shown, item.values))}" for item in idle)
        yield Text(f"without effect: {words}", style="dim")


def metrics(known: Comparison, console: Console) -> Table:
    """Return scores and costs, the best of a row marked."""
    table = _table(known, "What came of it")
    mark = "<" if console.options.ascii_only else "◂"
    judged = {f"eval/{run.objective}" for run in known.runs}
    for metric in known.metrics:
        words = Text(_words(metric.name), style="bold" if metric.name in judged else "")
        table.add_row(words, *_numbers(metric, [run.letter for run in known.runs], mark))
    return table


def _numbers(metric: Metric, named: Sequence[str], mark: str) -> Iterator[Text]:
    """Yield the numbers, those that look best marked unless all look the same."""
    numbers = [_number(metric, value) for value in metric.values]
    best = {number for letter, number in zip(named, numbers, strict=True) if letter in metric.best}
    for number in numbers:
        is_best = number in best and set(filter(None, numbers)) > best
        yield Text.assemble((number, f"bold {GOOD}" if is_best else ""), (f" {mark if is_best else ' '}", GOOD))


def _table(known: Comparison, first: str) -> Table:
    """Return a table with a column per run."""
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="")
    table.add_column(Text(first, style="bold"), no_wrap=True)
    for letter in letters(known).values():
        table.add_column(letter, justify="right", overflow="fold")
    return table


def _words(name: str) -> str:
    words = WORDS.get(name) or name.removeprefix("untuned/").removeprefix("eval/").replace("_", " ")
    return f"{words}, untuned" if name.startswith("untuned/") else words


def _number(metric: Metric, value: float | None) -> str:
    if value is None:
        return ""
    if metric.name.endswith("seconds"):
        return clock(value)
    if "eval/" in metric.name:
        return f"{value:.4f}"
    return f"{value:.2f}" if metric.name.startswith("memory/") else f"{value:,.0f}"
