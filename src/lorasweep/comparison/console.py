"""A comparison in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lorasweep.blocks import DOUBT, heading
from lorasweep.comparison import Comparison
from lorasweep.comparison.answers_console import answers
from lorasweep.comparison.rows_console import rows
from lorasweep.comparison.tables import config, letter_style, metrics, runs
from lorasweep.curves import Curve, plot

WIDEST_PLOT, PLOT_HEIGHT = 96, 10


def show(known: Comparison, console: Console) -> None:
    """Print a comparison."""
    console.print(Group(*_parts(known, console)), crop=False)


def _parts(known: Comparison, console: Console) -> Iterator[RenderableType]:
    yield runs(known, console)
    if known.warnings:
        yield ""
        yield from (Text(f"! {words}", style=DOUBT) for words in known.warnings)
    yield ""
    yield from config(known)
    yield ""
    yield metrics(known, console)
    yield ""
    yield from rows(known, console)
    yield from _curves(known, console)
    if known.samples:
        yield ""
        yield from answers(known, console)


def _curves(known: Comparison, console: Console) -> Iterator[RenderableType]:
    curves = [
        Curve(run.letter, letter_style(at), learnt.training, learnt.evaluation)
        for at, (run, learnt) in enumerate(zip(known.runs, known.curves, strict=True))
    ]
    lines = list(plot(curves, console, min(WIDEST_PLOT, console.width - 12), PLOT_HEIGHT, "supervised tokens"))
    if not lines:
        return
    yield ""
    if console.options.ascii_only or console.color_system is None:
        yield heading("Loss", "small letters: steps; large: evaluation rows; *: curves meet")
    else:
        yield heading("Loss", "lines: steps; ●: evaluation rows")
    yield from lines
