"""Everything that a page shows of a study, as plain values."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorasweep.places import study_name
from lorasweep.report.configs import differences
from lorasweep.report.confirmed import confirmed
from lorasweep.report.details import answers, row_losses, training_losses
from lorasweep.report.surroundings import surroundings
from lorasweep.report.timeline import timeline
from lorasweep.report.trials import describe, link
from lorasweep.results import RunResults, read_results
from lorasweep.rules import UserError
from lorasweep.study.folder import controller_of, trial_folder
from lorasweep.study.importance import FEWEST, importances
from lorasweep.study.leaderboard import CSV, UNTUNED, Leaderboard, build_leaderboard
from lorasweep.study.reading import KeptStudy
from lorasweep.study.space import Choice, Interval, dimension_of
from lorasweep.study.store import Store
from lorasweep.study.wording import short_names

MOST_DETAILED = 50
"""Trials whose answers, losses row by row and training losses are shown: the first of the leaderboard."""


def gather(store: Store, study: Path, beside: Path) -> dict[str, Any]:
    """Return what the page of a study shows, ready for JSON; its links start from the folder `beside`."""
    board, running = build_leaderboard(store, study), controller_of(study)
    kept = KeptStudy(study, store.attributes, [*store.directions], store.trials())
    runs = {trial.number: run for trial in kept.trials() if (run := _run(trial_folder(study, trial.number)))}
    detailed = {number: runs[number] for number in _detailed(board) if number in runs}
    values = {
        "name": study.absolute().name,
        "called": shlex.quote(study_name(study)),
        "table": link(study / CSV, beside),
        "running": running,
        "left": kept.left if running else None,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "surroundings": surroundings(kept.definition, list(runs.values())),
        "objectives": _objectives(board),
        "keys": _keys(board, kept.attributes.get("search", {}).get("dimensions", [])),
        "metrics": [name for name in board.metrics if not name.startswith("untuned/")],
        "trials": describe(board, {trial.number: trial for trial in kept.trials()}, runs, beside, bool(running)),
        "untuned": next((row for row in board.rows if row["state"] == UNTUNED), None),
        "importances": [importances(store, index) for index in range(len(board.objectives))],
        "fewest": FEWEST,
        "timeline": timeline(kept.trials(), time.time() if running else None),
        "configs": differences({number: run.values for number, run in runs.items()}),
        "training": training_losses(detailed),
        "rows": row_losses(detailed),
        "answers": answers(detailed),
        "detailed": len(detailed) if len(detailed) < len(runs) else None,
        "confirmed": confirmed(study),
    }
    return {name: finite(value) for name, value in values.items()}


def finite(value: Any) -> Any:
    """Return a value with null for every number that JSON does not know, nested ones too."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _run(folder: Path) -> RunResults | None:
    try:
        return read_results(folder)
    except UserError:  # of a trial that was refused or not begun there is none
        return None


def _detailed(board: Leaderboard) -> list[int]:
    """Return the numbers of the first trials, the baseline among them."""
    numbers = [row["trial"] for row in board.rows if row["state"] != UNTUNED]
    baseline = [board.baseline["trial"]] if board.baseline else []
    return list(dict.fromkeys([*numbers[:MOST_DETAILED], *baseline]))


def _objectives(board: Leaderboard) -> list[dict[str, Any]]:
    return [
        {"key": key, "name": board.judged if key == "objective" else key, "maximised": direction == "maximize"}
        for key, direction in zip(board.objectives, board.directions, strict=True)
    ]


def _keys(board: Leaderboard, searched: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what varies: key, heading, the values it is chosen from or null, whether its scale is logarithmic."""
    names, dimensions = short_names(board.varied), {item["key"]: dimension_of(item) for item in searched}
    found = []
    for key in board.varied:
        dimension = dimensions.get(key)
        options = list(dimension.options) if isinstance(dimension, Choice) else None
        is_log = isinstance(dimension, Interval) and dimension.log
        found.append({"key": key, "name": names[key], "options": options, "log": is_log})
    return found
