"""The trials of a study as a table, best first: leaderboard.csv with everything, the terminal with what matters."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group

from lorasweep.record import write_text
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial, Trials

CSV = "leaderboard.csv"
UNTUNED = "untuned"
ORDER = (
    State.COMPLETE, State.RUNNING, State.INTERRUPTED, State.PRUNED, State.OUT_OF_MEMORY, State.DIVERGED,
    State.FAILED, State.HUNG, State.REFUSED,
)  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Leaderboard:
    """Rows by column; a row has only the columns that it has values for."""

    folder: Path
    rows: list[Row]
    objectives: list[str]
    directions: list[str]
    judged: str
    """What `objective` is: loss, or a score of answers."""
    varied: list[str]
    metrics: list[str]
    """What else the trials say of themselves, most telling first."""

    @property
    def columns(self) -> list[str]:
        """Return every column, in order."""
        front = ["front"] if len(self.objectives) > 1 else []
        begin = ["rank", "trial", "kind", "state", *front, *self.objectives, "difference", *self.varied]
        return [*begin, "reached", *self.metrics, "seconds", "folder", "why"]

    @property
    def best(self) -> Row | None:
        """Return the best row, the first of the front where there are several objectives."""
        return next((row for row in self.rows if row.get("rank") == 1), None)

    @property
    def baseline(self) -> Row | None:
        """Return the row of the config as it stands."""
        return next((row for row in self.rows if row.get("kind") == "baseline"), None)


def build_leaderboard(store: Trials, folder: Path) -> Leaderboard:
    """Return the trials of a study, ranked."""
    definition = store.attributes.get("definition", {})
    objectives = definition.get("hydra.sweeper.objectives", ["objective"])
    directions = definition.get("hydra.sweeper.direction", ["minimize"])
    trials = store.trials()
    space = [key.removeprefix("space.") for key in definition if key.startswith("space.")]
    varied = list(dict.fromkeys([*space, *(key for trial in trials for key in trial.point)]))
    complete = ranked([trial for trial in trials if trial.value is not None], directions)
    others = [trial for trial in trials if trial.value is None]
    cost = -1 if directions[0] == "maximize" else 1
    others.sort(
        key=lambda trial: (ORDER.index(trial.state), cost * trial.facts.get(objectives[0], math.inf), trial.number)
    )
    baseline = next((trial.value for trial in trials if trial.kind == "baseline"), None)
    rows = [_row(trial, objectives, baseline, folder) for trial in (*complete, *others)]
    for rank, row in enumerate(rows[: len(complete)], 1):
        row["rank"] = rank
    if len(objectives) > 1:
        front = _front(complete, directions)
        for row, trial in zip(rows, complete, strict=False):
            row["front"] = trial.number in front
    judged = definition.get("evaluation.objective", "loss")
    rows[len(complete) : len(complete)] = _untuned(trials, objectives, judged, baseline)
    return Leaderboard(folder, rows, objectives, directions, judged, varied, _metrics(rows, objectives, varied))


def write_leaderboard(board: Leaderboard) -> None:
    """Write every trial with every column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, board.columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in board.rows)
    write_text(board.folder / CSV, text.getvalue())


def show(board: Leaderboard, console: Console, most: int | None = 15) -> None:
    """Print the best trials; None prints all."""
    from lorasweep.study.board import tables

    console.print(Group(*tables(board, console, most)))


def ranked(trials: list[Trial], directions: Sequence[str]) -> list[Trial]:
    """Return complete trials, the Pareto front first, each part by the first objective."""
    front = _front(trials, directions) if len(directions) > 1 else set()
    return sorted(trials, key=lambda trial: (trial.number not in front, *_costs(trial, directions), trial.number))


def _front(trials: Sequence[Trial], directions: Sequence[str]) -> set[int]:
    """Return the numbers of the trials than which none is as good in everything and better in something."""
    costs = {trial.number: _costs(trial, directions) for trial in trials}

    def is_beaten(mine: list[float]) -> bool:
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs.values())

    return {number for number, mine in costs.items() if not is_beaten(mine)}


def _costs(trial: Trial, directions: Sequence[str]) -> list[float]:
    assert trial.values
    return [-value if way == "maximize" else value for value, way in zip(trial.values, directions, strict=True)]


def _row(trial: Trial, objectives: Sequence[str], baseline: float | None, folder: Path) -> Row:
    facts = {name: value for name, value in trial.facts.items() if value is not None and name != "state"}
    lasted = (trial.ended - trial.started).total_seconds() if trial.started and trial.ended else None
    row: Row = {"trial": trial.number, "kind": trial.kind, "state": trial.state.value, **facts, **trial.point}
    row |= {"seconds": facts.get("seconds_in_slot", lasted), "folder": f"trials/{trial.number}", "why": trial.reason}
    row.pop("seconds_in_slot", None)
    if trial.value is None:
        # not in the objective's own column: half a trial does not compare with a whole one
        row["reached"] = row.pop(objectives[0], None)
    else:
        row |= dict(zip(objectives, trial.values or [], strict=True))
        row |= {} if baseline is None else {"difference": trial.value - baseline}
    return {name: value for name, value in row.items() if value is not None or name in trial.point}


def _untuned(trials: Sequence[Trial], objectives: Sequence[str], judged: str, baseline: float | None) -> Iterator[Row]:
    """Yield a row of the base model as it is, of which every trial knows the scores."""
    known = next((trial.facts for trial in trials if any(name.startswith("untuned/") for name in trial.facts)), {})
    row = {name.removeprefix("untuned/"): value for name, value in known.items() if name.startswith("untuned/")}
    if not row:
        return
    for name in objectives:
        source = f"eval/{judged}" if name == "objective" else name
        if source in row:
            row[name] = row[source]
    if baseline is not None and objectives[0] in row:
        row["difference"] = row[objectives[0]] - baseline
    yield {"state": UNTUNED, **row}


def _metrics(rows: Sequence[Row], objectives: Sequence[str], varied: Sequence[str]) -> list[str]:
    named = {"rank", "trial", "kind", "state", "front", "difference", "reached", "seconds", "folder", "why"}
    named |= {*objectives, *varied}
    first = ("eval/", "memory/peak_gib", "train/seconds", "tokens/per_second")
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in named]

    def place(name: str) -> int:
        return next((index for index, start in enumerate(first) if name.startswith(start)), len(first))

    return sorted(names, key=lambda name: (place(name), name.startswith("untuned/")))


def _cell(value: Any) -> Any:
    """Return a value as a CSV file has it: numbers and text as they are, everything else as JSON."""
    return value if isinstance(value, str | float) or type(value) is int else json.dumps(value)
