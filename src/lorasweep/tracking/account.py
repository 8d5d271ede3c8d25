"""Where W&B runs go, and how one is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from lorasweep.schema import Tracking
from lorasweep.tracking.subject import Subject

SECONDS_TO_OPEN = 20.0
SECONDS_TO_CLOSE = 60.0


class Complaints:
    """Takes what W&B's client says. That it has given up sending something it tells nobody but the terminal."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def info(self, msg: str) -> None:
        """Leave it."""

    def warning(self, msg: str) -> None:
        """Keep it."""
        self.texts.append(msg)

    error = warning


@dataclass(frozen=True)
class Account:
    """Where runs go: W&B's project and entity, or offline files."""

    tracking: Tracking
    online: bool
    place: Path
    """The folder that W&B's own files are in, below wandb/."""
    complaints: Complaints

    def open(self, subject: Subject, name: str, config: dict[str, Any], pid: int | None = None) -> Any:
        """Open a W&B run, new or where it was left; raises wandb.errors.Error if W&B cannot or will not.

        `pid`: the process whose memory and GPU W&B samples; None: nothing is sampled.
        """
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,  # of this process, not of the run; with git and packages 0.15 s each run, in record.json
            disable_git=True,
            x_save_requirements=False,
            x_disable_stats=pid is None,
            x_stats_pid=pid or os.getpid(),
            init_timeout=SECONDS_TO_OPEN,
            finish_timeout=SECONDS_TO_CLOSE,
            finish_timeout_raises=True,
            stop_fn=lambda: None,  # the button Stop, which would interrupt this process
        )
        return wandb.init(
            dir=str(self.place),
            mode="online" if self.online else "offline",
            project=self.tracking.project,
            entity=self.tracking.entity,
            tags=self.tracking.tags,
            id=subject.id,
            resume="allow" if self.online else None,
            reinit="create_new",
            name=name,
            group=subject.group,
            job_type=subject.job_type,
            config=config,
            settings=settings,
        )

    def close(self, run: Any, exit_code: int = 0) -> None:
        """Finish a run; raises wandb.errors.Error or TimeoutError if W&B has not got all of it."""
        before = len(self.complaints.texts)
        run.finish(exit_code=exit_code)
        if complaints := self.complaints.texts[before:]:
            raise wandb.Error("; ".join(complaints))


def connect(tracking: Tracking, place: Path) -> Account:
    """Return where runs go; with tracking.wandb=auto to W&B if the user is logged in, without asking the network."""
    complaints = Complaints()
    wandb.setup()
    wandb.termsetup(wandb.Settings(silent=True), complaints)
    mode = tracking.wandb
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if is_logged_in() else "offline")
    return Account(tracking, mode in ("online", "run"), place, complaints)


def is_logged_in() -> bool:
    """Tell whether W&B's client finds a key, in the environment or where `wandb login` has put it."""
    return wandb.login(prompt=False, verify=False)
