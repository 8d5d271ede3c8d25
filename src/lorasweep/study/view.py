"""What a running study shows."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console

from lorasweep.study.space import Point
from lorasweep.study.store import Trial


class View(Protocol):
    """Is told what happens in a study."""

    def started(self, trial: Trial, slot: int) -> None:
        """Show that a trial begins, or begins again."""

    def step(self, number: int, step: int, total: int) -> None:
        """Show how far a running trial is."""

    def reported(self, number: int, value: float) -> None:
        """Show what a running trial reported."""

    def ended(self, trial: Trial) -> None:
        """Show what came of a trial, now or in an earlier session."""

    def say(self, text: str) -> None:
        """Show a line."""

    def tick(self) -> None:
        """Show that time passes."""


class Lines:
    """A line per event, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def started(self, trial: Trial, slot: int) -> None:
        """Print what begins."""
        self.say(f"trial {trial.number} started: {words(trial.point)}")

    def step(self, number: int, step: int, total: int) -> None:
        """Print nothing: there are too many."""

    def reported(self, number: int, value: float) -> None:
        """Print nothing."""

    def ended(self, trial: Trial) -> None:
        """Print what came of it."""
        value = f" {trial.value:.6g}" if trial.value is not None else ""
        reason = f": {trial.reason.splitlines()[0]}" if trial.reason else ""
        self.say(f"trial {trial.number} {trial.state.value}{value}{reason}")

    def say(self, text: str) -> None:
        """Print it."""
        self.console.print(text, markup=False, highlight=False)

    def tick(self) -> None:
        """Do nothing."""


def words(point: Point) -> str:
    """Return a point as it is written on a command line."""
    written = (f"{key}={'null' if value is None else value}" for key, value in point.items())
    return " ".join(written) or "the config itself"
