"""W&B as a view: one follower process per run turns metrics.jsonl into a W&B run, live, without touching training."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from lorasweep.results import flat
from lorasweep.schema import Tracking

SECONDS_TO_FINISH = 20.0
"""How long a finished run waits for its follower; after that the follower goes on alone."""


class Follower:
    """The follower process of a run folder: started with the run, given a little time at its end."""

    def __init__(self, folder: Path, tracking: Tracking) -> None:
        self.folder, self.wanted = folder, tracking.wandb != "disabled"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start following, unless W&B is disabled; needs record.json."""
        if not self.wanted:
            return
        command = [sys.executable, "-m", "lorasweep.tracking", str(self.folder), "--parent", str(os.getpid())]
        with open(self.folder / "wandb.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> str | None:
        """Wait for the follower to notice summary.json; return what to tell the user."""
        if self.process is None:
            return None
        try:
            self.process.wait(SECONDS_TO_FINISH)
        except subprocess.TimeoutExpired:
            return "W&B is still taking the run in, in the background; see wandb.log in the run folder"
        return None if self.process.returncode == 0 else "W&B did not take the run; see wandb.log in the run folder"


def _alive(process: psutil.Process | None) -> bool:
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def follow(folder: Path, parent: int | None) -> None:
    """Feed a run folder to W&B until summary.json is written or its process is gone; replays what is there."""
    import wandb

    process = psutil.Process(parent) if parent and psutil.pid_exists(parent) else None
    config = yaml.safe_load((folder / "run.yaml").read_text())
    record = json.loads((folder / "record.json").read_text())
    settings = Tracking(**config["tracking"])
    mode = settings.wandb
    if mode == "auto":
        mode = "online" if wandb.login(prompt=False, verify=False) else "offline"
    run = wandb.init(
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        project=settings.project,
        entity=settings.entity,
        tags=settings.tags or None,
        id=record["wandb_id"],
        resume="allow",
        name=record["name"],
        group=config["study"],
        job_type="trial" if config["study"] else "run",
        config=flat(config),
        settings=wandb.Settings(silent=True, console="off", x_stats_pid=parent or os.getpid()),
    )
    position = 0
    while True:
        alive = _alive(process) and not (folder / "summary.json").exists()
        position = _feed(run, folder / "metrics.jsonl", position)
        if not alive:
            break
        time.sleep(1.0)
    summary = json.loads(path.read_text()) if (path := folder / "summary.json").exists() else {"state": "interrupted"}
    run.summary.update({name: value for name, value in summary.items() if isinstance(value, int | float | str)})
    run.tags = (*(run.tags or ()), summary["state"])
    run.finish(exit_code=0 if summary["state"] in ("complete", "pruned") else 1)


def _feed(run: Any, path: Path, position: int) -> int:
    """Log the whole lines after `position`; return where the next one starts."""
    if not path.exists():
        return position
    with open(path, "rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            run.log(entry, step=entry.pop("step"))
            position += len(line)
    return position


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args()
    os.nice(10)
    follow(options.folder.resolve(), options.parent)
