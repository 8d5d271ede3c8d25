"""The W&B run of a study as a whole: leaderboard, importances, plots, and the best config as an artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import wandb

from lorasweep.study.importance import importances
from lorasweep.study.leaderboard import Leaderboard, Row, build_leaderboard
from lorasweep.study.space import Dimension, dimension_of
from lorasweep.study.store import open_store
from lorasweep.study.trial import Trial
from lorasweep.tracking.account import Account
from lorasweep.tracking.subject import StudyIdentity

BEST = "best.yaml"


@dataclass(frozen=True)
class Findings:
    """What a study has found so far."""

    definition: dict[str, Any]
    dimensions: list[Dimension]
    board: Leaderboard
    trials: list[Trial]
    """Finished ones, in the order in which they ended."""
    importances: dict[str, dict[str, float]]
    """Of every objective: shares by key."""


def summarise(study: StudyIdentity, storage: str | None, account: Account) -> Any:
    """Bring a study's own W&B run up to date; return it, finished. What it showed before stays in its history."""
    findings = find(study.folder, storage)
    subject = study.summary()
    with account.open(subject, subject.name, findings.definition) as run:
        run.log({"leaderboard": _table(findings.board), **_plots(findings)})
        run.summary.update(summary_of(findings))
        if (study.folder / BEST).is_file():
            artifact = wandb.Artifact(f"{study.group}-best", type="config", metadata=_best(findings.board))
            artifact.add_file(str(study.folder / BEST))
            run.log_artifact(artifact)
        account.close(run)
    return run


def find(folder: Path, storage: str | None) -> Findings:
    """Read what a study has found."""
    store = open_store(folder, storage)
    try:
        board = build_leaderboard(store, folder)
        finished = [trial for trial in store.trials() if trial.state.is_finished and trial.ended]
        finished.sort(key=lambda trial: (trial.ended, trial.number))
        shares = {name: importances(store, index) for index, name in enumerate(board.objectives)}
        dimensions = [dimension_of(item) for item in store.attributes.get("search", {}).get("dimensions", [])]
        return Findings(store.attributes.get("definition", {}), dimensions, board, finished, shares)
    finally:
        store.close()


def summary_of(findings: Findings) -> dict[str, Any]:
    """Return what W&B shows of a study in a table of runs."""
    board = findings.board
    states = Counter(trial.state.value for trial in findings.trials)
    values: dict[str, Any] = {f"trials/{state}": count for state, count in states.items()}
    values |= {"trials": len(findings.trials)}
    for name, row in (("best", board.best), ("baseline", board.baseline)):
        values |= {f"{name}/{key}": _cell(row[key]) for key in ("trial", *board.objectives) if row and key in row}
    values |= {f"best/{key}": _cell(value) for key, value in _best(board).items()}
    for objective, shares in findings.importances.items():
        values |= {f"importance/{objective}/{key}": share for key, share in shares.items()}
    return values


def _best(board: Leaderboard) -> dict[str, Any]:
    row = board.best or {}
    return {key: row[key] for key in board.varied if key in row}


def _table(board: Leaderboard) -> wandb.Table:
    columns = [name for name in board.columns if any(name in row for row in board.rows)]
    data = [[_cell(row.get(name)) for name in columns] for row in board.rows]
    return wandb.Table(columns, data, allow_mixed_types=True)


def _plots(findings: Findings) -> dict[str, Any]:
    """Return the objective as trials ended and over what varies, and which of that made the difference."""
    board = findings.board
    plots = {"history": _history(findings)} if board.best else {}
    for key in board.varied:
        rows = [row for row in board.rows if "rank" in row and key in row]
        if rows:
            plots[f"slice/{key}"] = _slice(rows, key, board.objectives[0])
    for name, shares in findings.importances.items():
        if shares:
            table = wandb.Table(["key", "share"], [[key, share] for key, share in shares.items()])
            plots[f"importance/{name}"] = wandb.plot.bar(table, "key", "share", f"importance for {name}")
    return plots


def _slice(rows: Sequence[Row], key: str, objective: str) -> Any:
    """Return a point per trial over a number, the mean per value over anything else."""
    title = f"{objective} by {key}"
    if all(_is_number(row[key]) for row in rows):
        table = wandb.Table([key, objective], [[row[key], row[objective]] for row in rows])
        return wandb.plot.scatter(table, key, objective, title)
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(str(_cell(row[key])), []).append(row[objective])
    table = wandb.Table([key, objective], [[name, fmean(found)] for name, found in values.items()])
    return wandb.plot.bar(table, key, objective, f"mean {title}")


def _history(findings: Findings) -> Any:
    better = max if findings.board.directions[0] == "maximize" else min
    values = [trial.value for trial in findings.trials if trial.value is not None]
    best = [better(values[: index + 1]) for index in range(len(values))]
    numbers = list(range(len(values)))
    return wandb.plot.line_series([numbers, numbers], [values, best], ["trial", "best so far"], "history", "complete")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> Any:
    """Return a value as W&B's tables take it."""
    return value if value is None or isinstance(value, str | int | float) else str(value)
