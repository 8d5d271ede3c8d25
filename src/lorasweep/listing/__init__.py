"""The command ls: studies and runs in a folder, what has come of them, when and how large they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorasweep.listing.processes import writers
from lorasweep.places import TRIALS, is_run, run_name, short, study_name
from lorasweep.results import UNFINISHED, last_lines, read_json
from lorasweep.rules import Problem, UserError
from lorasweep.study.definition import direction_of
from lorasweep.study.folder import controller_of, is_study
from lorasweep.study.reading import KeptStudy, read_study

OUTPUTS = Path("outputs")
OBJECTIVE = re.compile(r"^evaluation:\n  objective: (\S+)$", re.MULTILINE)
"""What a run is judged by, as run.yaml has it: to parse the whole file takes a hundred times as long."""
CHANGING = ("study.db", "summary.json", "metrics.jsonl", "record.json", "run.yaml")
DEEPEST = 5
"""Folders within folders that are looked into."""
BYTES_PER_BLOCK = 512
"""Of `st_blocks`, whatever the file system's own are."""


@dataclass(frozen=True)
class Entry:
    """A run or a study; the names of the fields are the keys of --json."""

    kind: str
    """run or study"""
    name: str
    """What the other commands take."""
    folder: str
    state: str
    objective: str | None = None
    """What it is judged by."""
    best: float | None = None
    """Its value: of a study of the best trial, of a run that goes on of its last evaluation."""
    changed: float = 0.0
    """When it was last written to, in seconds since 1970."""
    size_bytes: int | None = None
    """Room that its files take on the disk."""
    label: str | None = None
    """What a run is called: by default what was overridden."""
    step: int | None = None
    steps: int | None = None
    """How far a run is that goes on, and how far it goes where that is known."""
    trials: dict[str, int] | None = None
    """Of a study, how many are in each state."""
    done: int | None = None
    total: int | None = None
    """Trials of a study that count towards its total."""
    process: str | None = None
    """What runs it now."""
    problem: str | None = None
    """Why nothing more can be said."""


def entries(places: Sequence[Path], sort: str = "newest", most: int | None = None) -> tuple[list[Entry], int]:
    """Return the runs and studies in some folders, sorted, and how many more than `most` there are."""
    missing = [place for place in places if not place.is_dir() and place != OUTPUTS]
    if missing:
        raise UserError(Problem("PLACE", str(place), "a folder") for place in missing)
    folders = list(dict.fromkeys(folder for place in places for folder in _found(place)))
    count = len(folders)
    if sort == "newest":  # then most of them need not be read
        folders = sorted(folders, key=_changed, reverse=True)[:most]
    studies: dict[Path, KeptStudy] = {}
    listed = _with_processes([_entry(folder, studies) for folder in folders])
    if sort == "size":
        listed = [_measured(entry) for entry in listed]
    listed = sorted(listed, key=ORDERS[sort])[:most]
    return [entry if entry.size_bytes is not None else _measured(entry) for entry in listed], count - len(listed)


def _best_first(entry: Entry) -> tuple[Any, ...]:
    """Order by what is judged, and by how good it is."""
    if entry.best is None:
        return (True,)
    name = entry.objective or ""
    return (False, name, entry.best if direction_of(name) == "minimize" else -entry.best)


ORDERS: dict[str, Callable[[Entry], Any]] = {
    "newest": lambda entry: -entry.changed,
    "name": lambda entry: (entry.kind, _natural(entry.name)),
    "state": lambda entry: (entry.state, -entry.changed),
    "best": _best_first,
    "size": lambda entry: -(entry.size_bytes or 0),
}


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what orders names with numbers in them: first:2 before first:10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _found(place: Path, deep: int = DEEPEST) -> Iterator[Path]:
    """Yield the folders of runs and studies in a folder; what is in a study is listed when it is asked for."""
    if is_run(place):
        yield place
        return
    try:
        inside = sorted(place.iterdir()) if place.is_dir() else []
    except OSError as error:
        raise UserError(Problem("PLACE", str(place), f"a folder that can be read ({error.strerror})")) from None
    for folder in inside:
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if is_run(folder) or is_study(folder):
            yield folder
        elif deep:
            yield from _found(folder, deep - 1)


def _entry(folder: Path, studies: dict[Path, KeptStudy]) -> Entry:
    """Return what there is to say of a run or a study."""
    if is_study(folder):
        return _study(folder)
    entry = _run(folder)
    place = folder.parent.parent
    if folder.parent.name != TRIALS or not folder.name.isdecimal() or not (place / "study.db").is_file():
        return entry
    entry = replace(entry, name=f"{study_name(place)}:{folder.name}")
    try:
        study = studies.get(place) or studies.setdefault(place, read_study(place))
    except UserError:  # what the run's own files say is all there is
        return entry
    trial = next((trial for trial in study.trials() if str(trial.number) == folder.name), None)
    return replace(entry, state=trial.state.value) if trial and trial.state.is_finished else entry


def _run(folder: Path) -> Entry:
    summary, record = read_json(folder / "summary.json"), read_json(folder / "record.json")
    found = None
    with suppress(OSError):  # it may have been moved meanwhile
        found = OBJECTIVE.search((folder / "run.yaml").read_text(encoding="utf-8"))
    entry = Entry(
        "run", run_name(folder), short(folder), str(summary.get("state", UNFINISHED)),
        found[1] if found else None, summary.get("objective"), _changed(folder),
        label=record.get("name"),
    )  # fmt: skip
    return entry if summary else _so_far(entry, folder, record)


def _so_far(entry: Entry, folder: Path, record: Mapping[str, Any]) -> Entry:
    """Add how far a run is that has not ended."""
    lines = last_lines(folder / "metrics.jsonl")
    values = [value for line in lines if (value := line.get(f"eval/{entry.objective}")) is not None]
    return replace(
        entry,
        best=values[-1] if values else None,
        step=lines[-1]["step"] if lines else 0,
        steps=record.get("steps", {}).get("count"),
    )


def _study(folder: Path) -> Entry:
    entry = Entry("study", study_name(folder), short(folder), UNFINISHED, process=controller_of(folder))
    try:
        study = read_study(folder)
    except UserError as error:
        return replace(entry, changed=_changed(folder), problem=error.problems[0].allowed)
    return replace(
        entry,
        state=study.state,
        objective=study.objectives[0],
        best=study.best.value if study.best else None,
        changed=_changed(folder),
        trials={state.value: count for state, count in study.counts.items()},
        done=study.done,
        total=study.total,
    )


def _with_processes(entries: Sequence[Entry]) -> list[Entry]:
    """Find out which of the runs that have not ended are running."""
    folders = [Path(entry.folder) for entry in entries if entry.kind == "run" and entry.state == UNFINISHED]
    known = writers(folders) if folders else {}
    return [
        replace(entry, state="running", process=known[Path(entry.folder)])
        if entry.kind == "run" and Path(entry.folder) in known
        else entry
        for entry in entries
    ]


def _changed(folder: Path) -> float:
    """Return when a run or a study was last written to."""
    times = [0.0]
    for name in CHANGING:
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def _measured(entry: Entry) -> Entry:
    return replace(entry, size_bytes=_size(entry.folder))


def _size(folder: str) -> int:
    """Return the room on the disk that the files of a folder take; what disappears meanwhile takes none."""
    total = 0
    with suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if item.is_dir(follow_symlinks=False):
                total += _size(item.path)
            else:
                with suppress(OSError):
                    total += item.stat(follow_symlinks=False).st_blocks * BYTES_PER_BLOCK
    return total
