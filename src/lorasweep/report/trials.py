"""The trials of a page: what they tried, what came of it, where they are and how they are run again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lorasweep.record import CHECKOUT
from lorasweep.results import RunResults
from lorasweep.study.folder import trial_folder
from lorasweep.study.leaderboard import UNTUNED, Leaderboard, Row
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial

FROM_BOARD = ("rank", "front", "difference", "reached", "seconds", "why", "kind")


def describe(
    board: Leaderboard, trials: Mapping[int, Trial], runs: Mapping[int, RunResults], beside: Path, is_running: bool
) -> list[dict[str, Any]]:
    """Return the trials in the order of the leaderboard; links start from the folder `beside`."""
    return [
        _trial(board, row, trials[row["trial"]], runs.get(row["trial"]), beside, is_running)
        for row in board.rows
        if row["state"] != UNTUNED
    ]


def _trial(
    board: Leaderboard, row: Row, trial: Trial, run: RunResults | None, beside: Path, is_running: bool
) -> dict[str, Any]:
    folder = trial_folder(board.folder, trial.number)
    state = trial.state if is_running or trial.state is not State.RUNNING else State.INTERRUPTED
    return {name: row[name] for name in FROM_BOARD if name in row} | {
        "number": trial.number,
        "state": state.value,
        "values": trial.values if trial.value is not None else None,
        "point": trial.point,
        "metrics": {name: row[name] for name in board.metrics if name in row and not name.startswith("untuned/")},
        "curve": _curve(board, trial),
        "slot": trial.slot,
        "folder": link(folder, beside),
        "log": link(folder / "log.txt", beside),
        "again": command_again(folder),
        "wandb": _address(run),
    }


def command_again(folder: Path) -> str | None:
    """Return the command that trains a trial again, from the root of the checkout; None if its config is not kept."""
    if not (folder / "experiment" / "saved.yaml").is_file():
        return None
    place = folder.absolute()
    place = place.relative_to(CHECKOUT) if place.is_relative_to(CHECKOUT) else place
    return f"python train.py --config-dir {shlex.quote(str(place))} experiment=saved"


def _curve(board: Leaderboard, trial: Trial) -> list[tuple[int, float]]:
    """Return supervised tokens and the objective after them, from the untuned model on."""
    seen = trial.facts.get("tokens/supervised")
    # an attempt that was interrupted may have come further
    points = sorted((tokens, value) for tokens, value in trial.reports.items() if seen is None or tokens <= seen)
    untuned = trial.facts.get(f"untuned/eval/{board.judged}")
    return [(0, untuned), *points] if points and untuned is not None else points


def link(path: Path, beside: Path) -> str | None:
    """Return the address of a file or a folder as seen from another; None if it is not there."""
    if not path.exists():
        return None
    relative = Path(os.path.relpath(path.absolute(), beside)).as_posix()
    return quote(f"{relative}/" if path.is_dir() else relative)


def _address(run: RunResults | None) -> str | None:
    """Return where W&B shows a trial, once it is known to have it."""
    given = run and (run.summary.get("wandb_url") or run.record.get("wandb_url"))
    return given if isinstance(given, str) and given.startswith(("https://", "http://")) else None
