"""A confirmation in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.confirm.comparison import Confirmation, Interval, verdict
from lorasweep.study.view import Lines

if TYPE_CHECKING:
    from lorasweep.study.leaderboard import Leaderboard


class Trials(Lines):
    """A line per event; what came of them all is shown as a comparison."""

    def end(self, board: Leaderboard | None = None) -> None:
        """Print nothing."""


def show(result: Confirmation) -> None:
    """Print means and spreads, and say whether the winner won."""
    console, judged = Console(highlight=False), result.objective
    table = Table(title=f"{result.study}: {len(result.seeds)} new seeds each", title_justify="left", box=None)
    for heading in (
        "trial",
        f"{judged} mean",
        "spread",
        "in the study",
        "winner minus it",
        "95 % over seeds",
        "over rows",
    ):
        table.add_column(heading, justify="right")
    compared = {item.other: item for item in result.comparisons}
    for candidate in result.candidates:
        versus = compared.get(candidate.trial)
        over_seeds = versus.over_seeds if versus else None
        name = f"{candidate.trial}{' (baseline)' if candidate.is_baseline else ''}"
        table.add_row(
            name, f"{candidate.mean:.4f}", f"{candidate.spread:.4f}", f"{candidate.in_study:.4f}",
            f"{over_seeds[0]:+.4f}" if over_seeds else "", _range(over_seeds),
            _range(versus.over_rows if versus else None),
        )  # fmt: skip
    console.print(table)
    for line in result.left_out:
        console.print(Text(line, style="red"))
    console.print(Text(verdict(result), style="bold"))
    _show_test(console, result.test, result.candidates[0].trial)


def _show_test(console: Console, test: dict[str, Any] | None, winner: int) -> None:
    if test is None:
        console.print("No rows were held out of all choices; data.test_fraction=0.1 in a study does.", style="dim")
        return
    table = Table(title="On the test rows, scored once", title_justify="left", box=None)
    sides = [name for name in ("untuned", "baseline", "winner") if f"{name}/metrics" in test]
    headings = {"winner": f"trial {test['winner']}"}
    for side in ("", *sides):
        table.add_column(headings.get(side, side), justify="right" if side else "left")
    for metric in test["untuned/metrics"]:
        values = (f"{test[f'{side}/metrics'][metric]:.4f}" for side in sides)
        table.add_row(metric.removeprefix("eval/").replace("_", " "), *values)
    console.print(table)
    if test["winner"] != winner:
        console.print(f"Trial {test['winner']} was ahead when they were scored; trial {winner} has not seen them.")


def _range(interval: Interval | None) -> str:
    return f"{interval[1]:+.4f} to {interval[2]:+.4f}" if interval else ""
