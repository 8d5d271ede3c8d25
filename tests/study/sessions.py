"""Sessions of toy studies, and what tests look at afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from lorasweep.rules import UserError
from lorasweep.study.database import local_url
from lorasweep.study.definition import Definition
from lorasweep.study.session import run_session
from lorasweep.study.store import Store
from lorasweep.study.trial import Trial
from lorasweep.study.view import Lines
from tests.study.toy import toy

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds after which something that takes one or two has not happened."""


class Told(Lines):
    """Keeps what is shown; calls `then` after every trial that begins."""

    def __init__(self, then: Callable[[Trial], None] = lambda trial: None) -> None:
        self.text = StringIO()
        super().__init__(Console(file=self.text, width=400))
        self.then = then
        self.order: list[int] = []

    def started(self, trial: Trial, slot: int) -> None:
        super().started(trial, slot)
        self.order.append(trial.number)
        self.then(trial)


def run(definition: Definition, then: Callable[[Trial], None] = lambda trial: None) -> tuple[str | None, str]:
    """Run a session here; why it ended and what was shown."""
    view = Told(then)
    return run_session(definition, view), view.text.getvalue()


def trials_of(folder: Path, name: str | None = None) -> list[Trial]:
    """The trials of a study as they are kept."""
    definition = toy(folder)
    store = Store(local_url(folder / "study.db"), name or folder.name, definition.directions(), definition.space)
    try:
        return store.trials()
    finally:
        store.close()


def finished(folder: Path, **options: Any) -> list[Trial]:
    """The trials of a study of the toy that has been run to its end."""
    reason, text = run(toy(folder, **options))
    assert reason is None, text
    return trials_of(folder)


def refusal(definition: Definition) -> UserError:
    """The error that a session ends with before its first trial."""
    try:
        reason, text = run(definition)
    except UserError as error:
        return error
    raise AssertionError(f"the session ran: {reason} {text}")


def launch(
    folder: Path, environment: Mapping[str, str] | None = None, output: int = subprocess.PIPE, **options: Any
) -> subprocess.Popen[str]:
    """A session in a process of its own."""
    command = [sys.executable, "-m", "tests.study.toy", str(folder), json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), **(environment or {})}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)


def until(true: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until something is so."""
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes that work in or were started for a study, found by what only they have in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TOY") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def log_of(folder: Path, number: int) -> str:
    """What a trial has printed."""
    return (folder / "trials" / str(number) / "log.txt").read_text()


def process_of(folder: Path, number: int) -> str:
    """The process that a trial ran in."""
    return log_of(folder, number).split("process ")[1].split()[0]
