"""What W&B has as a run: a run folder, a trial of a study, the study itself; and what it knows them by."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep.record import slug, write_json
from lorasweep.results import read_json
from lorasweep.study.folder import trial_folder

if TYPE_CHECKING:
    from lorasweep.study.trial import Trial

IDENTITY = "wandb.json"
"""In the folder of a run or a study: the id that W&B knows it by."""
CONFIRMATION = "confirm"
"""The folder of a study in which its best trials are repeated."""


@dataclass(frozen=True)
class Subject:
    """One run of W&B's, and the folder that it is fed from."""

    id: str
    folder: Path
    job_type: str
    group: str | None = None
    name: str = ""
    """Until record.json says a better one."""
    values: dict[str, Any] = field(default_factory=dict)
    """What it varies, of a study."""

    def message(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def of(cls, message: dict[str, Any]) -> Subject:
        """Read what `message` made."""
        return cls(**{**message, "folder": Path(message["folder"])})


@dataclass(frozen=True)
class StudyIdentity:
    """A study as W&B knows it: all its runs are in one group, and their ids begin with its own."""

    folder: Path
    id: str
    group: str
    is_confirmation: bool
    """Whether it repeats the best trials of another study, in whose group it is."""

    def trial(self, trial: Trial) -> Subject:
        """Return a trial as W&B's run."""
        job_type = "confirm" if self.is_confirmation else "baseline" if trial.kind == "baseline" else "trial"
        values = slug(",".join(f"{key}={value}" for key, value in trial.point.items()))
        return Subject(
            id=f"{self.id}-{trial.number}",
            folder=trial_folder(self.folder, trial.number),
            job_type=job_type,
            group=self.group,
            name=f"{trial.number}-{values or trial.kind}",
            values=trial.point,
        )

    def summary(self) -> Subject:
        """Return the study itself as W&B's run."""
        return Subject(self.id, self.folder, "study", self.group, self.group)


def run_subject(folder: Path) -> Subject:
    """Return a run on its own; its id is its folder's name, or what W&B's agent has given it."""
    known = read_json(folder / IDENTITY)
    if not known:
        known = {"id": os.environ.get("WANDB_RUN_ID") or slug(folder.resolve().name, 64)}
        write_json(folder / IDENTITY, known)
    return Subject(known["id"], folder, "run", name=folder.name)


def share_identity(folder: Path, settle: Callable[[str, Any], Any]) -> None:
    """Have all hosts of a study use one id; `settle` keeps a value unless one is kept, and returns what is kept."""
    study = study_identity(folder)
    mine = {"id": study.id, "group": study.group}
    if (kept := settle("wandb", mine)) != mine:
        write_json(folder.resolve() / IDENTITY, kept)


def study_identity(folder: Path) -> StudyIdentity:
    """Return what W&B knows a study by.

    Four characters tell it from others of its name: W&B adds to a run whose id it has, and drops the steps it had.
    """
    folder = folder.resolve()
    confirmed = folder.parent if folder.name == CONFIRMATION and (folder.parent / "trials").is_dir() else None
    known = read_json(folder / IDENTITY)
    if not known:
        name = f"{confirmed.name}_{folder.name}" if confirmed else folder.name
        known = {"id": f"{slug(name, 48)}-{uuid.uuid4().hex[:4]}", "group": (confirmed or folder).name}
        write_json(folder / IDENTITY, known)
    return StudyIdentity(folder, known["id"], known["group"], confirmed is not None)
