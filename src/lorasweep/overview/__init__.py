"""The command show: what there is to know of one run or one study."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console, Group

from lorasweep.overview import run_console, study_console
from lorasweep.overview.run import RunOverview, run_overview
from lorasweep.overview.study import StudyOverview, study_overview
from lorasweep.places import NamedRun, find

__all__ = ["RunOverview", "StudyOverview", "as_json", "overview", "show"]


def overview(given: str, storage: str | None = None) -> RunOverview | StudyOverview:
    """Return what there is to know of the run or the study that is meant."""
    found = find(given, storage)
    return run_overview(found) if isinstance(found, NamedRun) else study_overview(found, storage)


def show(known: RunOverview | StudyOverview, console: Console) -> None:
    """Print an overview."""
    parts = run_console.parts(known, console) if isinstance(known, RunOverview) else study_console.parts(known, console)
    console.print(Group(*parts), crop=False)


def as_json(known: RunOverview | StudyOverview) -> str:
    """Return an overview as JSON, of a study with the rows of its leaderboard."""
    values = asdict(known)
    if isinstance(known, StudyOverview):
        values["leaderboard"] = known.leaderboard.rows
    return json.dumps(values, indent=1, ensure_ascii=False)
