"""A run folder taken for a run: as its own and new, or as one to go on in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from lorasweep import checkpoints, record
from lorasweep.checkpointing import is_judged_anew, put_files_back
from lorasweep.checkpoints import Broken, Checkpoint
from lorasweep.file_hashes import file_hash
from lorasweep.identity import Difference, differences, identity, refusals
from lorasweep.means import by_other_means
from lorasweep.processes.group import Group
from lorasweep.results import read_json
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run

LOCK = ".lock"
ASKED = ("created", "command", "overrides", "choices", "lineage", "name")
"""Of a record what says how the run was asked for."""
LOADED = ("numerics", "start")
"""Of a record what is known once all is loaded."""
SECONDS_TO_UNLOCK = 10.0
"""Loader processes of a run that was killed hold its lock for a few seconds more."""


@dataclass(frozen=True)
class Place:
    """A run folder that is held, and the checkpoint to go on from; None: the run begins at step 0."""

    identity: dict[str, Any]
    checkpoint: Checkpoint | None = None
    changed: tuple[Difference, ...] = ()
    """What is otherwise from here on, because the user wants it so."""
    means: dict[str, list[Any]] = field(default_factory=dict)
    """What computes otherwise from here on, by name: as it was and as it is."""
    notes: list[str] = field(default_factory=list)
    """What to say about it."""


@contextmanager
def held(folder: Path, run: Run, written: dict[str, Any], group: Group | None = None) -> Iterator[Place]:
    """Hold a run's folder against others, with record and config of the run in it, and files as they were at its step.

    `written` is the record of the run as it is now. Raises UserError, and changes nothing, where the folder holds
    another run, or one that is not gone on with as this one: with every difference. Of several processes the first one
    holds it; the others wait for that, and read.
    """
    group = group or Group()
    if not group.is_first:
        yield _place(group.firsts({}))
        return
    if not run.resume:
        record.claim(folder, run)
    with _locked(folder):
        now = identity(record.saved_values(run), written)
        place = _taken_up(folder, run, now, written) if run.resume else Place(now)
        if run.resume:
            record.save_config(folder, run)
            put_files_back(folder, place.checkpoint, is_judged_anew(place.changed))
        _write_record(folder, run, written, place)
        group.firsts(_values(place))
        yield place


def _values(place: Place) -> dict[str, Any]:
    """Return what other processes need to know of a place."""
    checkpoint = place.checkpoint
    known = {"path": str(checkpoint.path), "step": checkpoint.step} if checkpoint else None
    return {"identity": place.identity, "checkpoint": known, "changed": list(place.changed)}


def _place(values: dict[str, Any]) -> Place:
    known, changed = values["checkpoint"], tuple(Difference(*item) for item in values["changed"])
    checkpoint = Checkpoint(Path(known["path"]), known["step"], {}) if known else None
    return Place(values["identity"], checkpoint, changed)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / LOCK, timeout=SECONDS_TO_UNLOCK):
            yield
    except Timeout:
        allowed = "the folder of a run that nothing trains now; a process has it locked"
        raise UserError(Problem("resume", str(folder), allowed)) from None


def _taken_up(folder: Path, run: Run, now: dict[str, Any], written: dict[str, Any]) -> Place:
    found = list(differences(_recorded(folder), now))
    of_trial = run.study is not None
    if not of_trial and (problems := refusals(found, folder, run.resume_anyway)):
        raise UserError(problems)
    accept = partial(_accept, now=now, with_code=of_trial, anyway=run.resume_anyway)
    checkpoint, notes = checkpoints.newest(folder / checkpoints.FOLDER, accept)
    notes += [f"{item.name} has changed: {item.before} -> {item.now}" for item in found]
    if checkpoint is None:
        notes.append("there is no checkpoint to go on from: the run begins at step 0")
        return Place(now, notes=notes)
    changed, told = tuple(differences(checkpoint.identity, now)), {item.name for item in found}
    means = by_other_means(read_json(folder / "record.json"), written)
    means = {name: values for name, values in means.items() if name not in told}
    notes += [f"{name} has changed: {before} -> {after}" for name, (before, after) in means.items()]
    checkpoints.adopt(checkpoint, now)  # or the run that goes on could not be gone on with
    return Place(now, checkpoint, changed, means, notes)


def _recorded(folder: Path) -> dict[str, Any]:
    """Return what the run of a folder was begun as; what is not known of it is left out."""
    try:
        config = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8").replace("\\${", "${"))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    return identity(config if isinstance(config, dict) else {}, read_json(folder / "record.json"))


def _accept(checkpoint: Checkpoint, now: Mapping[str, Any], with_code: bool, anyway: bool) -> None:
    """Raise Broken for the checkpoint of another run, for a trial also for one of other code."""
    for item in differences(checkpoint.identity, now):
        if item.is_of_state or (with_code if item.is_code else not anyway):
            raise Broken(f"it is of another run, with {item.name} {item.before!r}, not {item.now!r}")


def _write_record(folder: Path, run: Run, written: dict[str, Any], place: Place) -> None:
    """Write the record of a run; one that goes on is asked for as it was, and lists every time it was gone on with."""
    if run.resume:
        before = read_json(folder / "record.json")
        step = place.checkpoint.step if place.checkpoint else 0
        manifest = place.checkpoint.path / checkpoints.MANIFEST if place.checkpoint else None
        again = {
            "step": step,
            "time": written["created"],
            "device": written["device"]["name"],
            "notes": place.notes,
            "changed": {item.name: [item.before, item.now] for item in place.changed},
            "means": place.means,
            "lineage": written["lineage"],
            "checkpoint": file_hash(manifest) if manifest else None,
        }
        kept = (*ASKED, *LOADED) if place.checkpoint else ASKED
        written = written | {name: before[name] for name in kept if name in before}
        written["resumed"] = [*before.get("resumed", []), again]
    record.write_json(folder / "record.json", written)
    record.write_patch(folder)
