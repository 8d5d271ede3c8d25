"""What a running study shows."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.study.definition import Definition
from lorasweep.study.leaderboard import Leaderboard, show
from lorasweep.study.space import Point
from lorasweep.study.trial import Trial


class View(Protocol):
    """Is told what happens in a study."""

    def begin(self, slots: int) -> None:
        """Show that a session begins, on so many slots; its configs are still to be checked."""

    def started(self, trial: Trial, slot: int) -> None:
        """Show that a trial begins, or begins again."""

    def step(self, number: int, step: int, total: int) -> None:
        """Show how far a running trial is."""

    def reported(self, number: int, value: float) -> None:
        """Show what a running trial reported."""

    def ended(self, trial: Trial) -> None:
        """Show what came of a trial, now or in an earlier session."""

    def seen(self, trial: Trial) -> None:
        """Show what came of a trial that another controller runs or has run."""

    def say(self, text: str) -> None:
        """Show a line."""

    def tick(self) -> None:
        """Show that time passes."""

    def end(self, board: Leaderboard | None = None) -> None:
        """Show what came of the session; called however it ends, and perhaps twice."""


class Lines:
    """A line per event, for logs and pipes; quiet, only of what is wrong, and the end."""

    def __init__(self, console: Console, definition: Definition | None = None, quiet: bool = False) -> None:
        self.console, self.definition, self.quiet = console, definition, quiet

    def begin(self, slots: int) -> None:
        """Print what is about to be searched."""
        if self.definition and not self.quiet:
            self.console.print(header(self.definition, slots))

    def started(self, trial: Trial, slot: int) -> None:
        """Print what begins."""
        if not self.quiet:
            self.say(f"trial {trial.number} started: {words(trial.point)}")

    def step(self, number: int, step: int, total: int) -> None:
        """Print nothing: there are too many."""

    def reported(self, number: int, value: float) -> None:
        """Print nothing."""

    def ended(self, trial: Trial) -> None:
        """Print what came of it."""
        if not self.quiet or trial.state.is_failure:
            self.say(ending(trial))

    def seen(self, trial: Trial) -> None:
        """Print what came of it elsewhere."""
        if trial.state.is_finished:
            self.ended(trial)

    def say(self, text: str) -> None:
        """Print it."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Do nothing."""

    def end(self, board: Leaderboard | None = None) -> None:
        """Print the best trials."""
        if board:
            show(board, self.console)


class Output:
    """Standard output that may go away, as a closed terminal does: what is written then is lost, and nothing else."""

    def __init__(self, file: IO[str]) -> None:
        self.file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        """Write it, if there is still somebody to read it."""
        with self._whatever_comes():
            self.file.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is still to be written."""
        with self._whatever_comes():
            self.file.flush()

    @contextmanager
    def _whatever_comes(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def build_console() -> Console:
    """Return the console of a study, which goes on without one."""
    return Console(file=cast(IO[str], Output(sys.stdout)))


def build_view(console: Console, definition: Definition) -> View:
    """Return the live view for a terminal, lines for everything else."""
    from lorasweep.study.live import Live

    quiet = definition.compose({}).run.get("verbosity") == "quiet"
    if console.is_terminal and not console.is_dumb_terminal and not quiet:
        return Live(console, definition)
    return Lines(console, definition, quiet)


def header(definition: Definition, slots: int) -> Table:
    """Return what is searched, how and where."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(definition, slots):
        table.add_row(name, value)
    return table


def _facts(definition: Definition, slots: int) -> Iterator[tuple[str, Text]]:
    settings, space = definition.settings, definition.space
    yield "study", Text(definition.name, style="bold")
    longest = max((len(dimension.key) for dimension in space), default=0)
    for index, dimension in enumerate(space):
        conditions = space.only_if.get(dimension.key, {})
        asked = " and ".join(f"{key} is {' or '.join(map(str, values))}" for key, values in conditions.items())
        line = Text.assemble(f"{dimension.key:<{longest}}  {dimension.words()}", (f"  if {asked}" * bool(asked), "dim"))
        yield "" if index else "space", line
    for fixed in taken_out(definition):
        yield "", Text(fixed, style="dim")
    total = definition.total()
    pruner = f", {settings.pruner} ends trials early" if settings.pruner != "none" else ""
    several = f", {slots} at the same time" if slots > 1 else ""
    shared = f", {settings.gpus_per_trial} processes each" if settings.gpus_per_trial > 1 else ""
    yield "search", Text(f"{settings.sampler}, {total or 'any number of'} trials{several}{shared}{pruner}")
    goals = zip(definition.directions(), definition.objective_names(), strict=True)
    yield "goal", Text(", ".join(f"{direction} {name}" for direction, name in goals))
    yield "folder", Text(os.path.relpath(definition.folder))


def ending(trial: Trial) -> str:
    """Return a line about what came of a trial."""
    value = f" {trial.value:.6g}" if trial.value is not None else ""
    reason = f": {trial.reason.splitlines()[0]}" if trial.reason else ""
    return f"trial {trial.number} {trial.state.value}{value}{reason}"


def taken_out(definition: Definition) -> Iterator[str]:
    """Yield a line about every key that does not vary though the space has it."""
    for override in definition.taken_out:
        yield f"{override} is fixed by the command line and leaves the space"


def words(point: Point) -> str:
    """Return a point as it is written on a command line."""
    written = (f"{key}={'null' if value is None else value}" for key, value in point.items())
    return " ".join(written) or "the config itself"
