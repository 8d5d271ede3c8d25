"""W&B's offline files, read back with W&B's own reader."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


@dataclass
class Written:
    """A run as its offline file has it."""

    id: str = ""
    project: str = ""
    name: str = ""
    group: str | None = None
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    """None of a run that was never finished."""
    artifacts: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[int]:
        """The steps of its history."""
        return [row["_step"] for row in self.history]


def written(place: Path) -> dict[str, list[Written]]:
    """The runs below a folder's wandb/, by id, each as often as it was opened, in that order."""
    found: dict[str, list[Written]] = {}
    for path in sorted(place.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        run = read(path)
        found.setdefault(run.id, []).append(run)
    return found


def only(place: Path) -> Written:
    """The one run there."""
    ((run,),) = written(place).values()
    return run


def read(path: Path) -> Written:
    """One file, by the program that `wandb leet inspect` starts."""
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "-run-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    run = Written()
    for line in done.stdout.splitlines():
        record = json.loads(line)
        _take_in(run, record["type"], record.get(record["type"], {}))
    return run


def _take_in(run: Written, kind: str, record: dict[str, Any]) -> None:
    if kind == "run":
        run.id, run.project, run.name = record["run_id"], record["project"], record["display_name"]
        run.group, run.job_type, run.tags = record.get("run_group"), record["job_type"], record.get("tags", [])
        run.config |= record.get("config", {}).get("update", {})
    elif kind == "history":
        run.history.append(record["item"])
    elif kind == "summary":
        run.summary |= record["update"]
    elif kind == "artifact":
        run.artifacts.append(record["name"])
    elif kind == "exit":
        run.exit_code = record.get("exit_code", 0)
