"""SIGKILL at random moments, to the controller of a toy study and to its workers, until the study is done."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from lorasweep.study.outcomes import State
from tests.study.sessions import launch, processes_of, until

SECONDS_TO_VANISH = 5.0
SESSIONS_IN_VAIN = 5


@dataclass
class Toll:
    """What was killed, and what it cost."""

    controllers: int = 0
    workers: int = 0
    left: list[str] = field(default_factory=list)
    """Processes that were still there long after their controller had gone."""
    slowest: float = 0.0
    """Seconds until the last process of a killed session was gone."""

    @property
    def kills(self) -> int:
        """All of them."""
        return self.controllers + self.workers


def kill_until_done(folder: Path, kills: int, seed: int, **options: Any) -> Toll:
    """Run a study session after session, killing until there were so many kills; then let it end."""
    chance, toll = random.Random(seed), Toll()
    options = {"max_retries": 10_000, "environment": {"TOY": str(folder)}, **options}
    in_vain = 0
    while in_vain < SESSIONS_IN_VAIN:
        session, before = launch(folder, **options), toll.kills
        code = _session(session, chance, toll, kills)
        _count_what_is_left(folder, toll)
        if code == 0:
            return toll
        in_vain = 0 if toll.kills > before else in_vain + 1
    raise AssertionError("sessions end although nobody ends them")


def _session(session: subprocess.Popen[str], chance: random.Random, toll: Toll, kills: int) -> int:
    """Kill in one session; its exit code."""
    while session.poll() is None:
        if toll.kills >= kills:
            session.communicate(timeout=600)
            break
        try:
            session.wait(chance.uniform(0.0, 2.0))
        except subprocess.TimeoutExpired:
            if chance.random() < 0.5:
                toll.controllers += 1
                session.kill()
                session.wait()
            else:
                toll.workers += _kill_a_worker(session.pid, chance)
    if session.stdout:
        session.stdout.close()
    return session.returncode


def _kill_a_worker(controller: int, chance: random.Random) -> bool:
    """Kill a worker of a session, which may have to start one first."""
    try:
        process = psutil.Process(controller)
        workers = until(lambda: process.children() or process.status() == psutil.STATUS_ZOMBIE)
        if workers is True:  # it has ended
            return False
        chance.choice(workers).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def _count_what_is_left(folder: Path, toll: Toll) -> None:
    start = time.monotonic()
    try:
        until(lambda: not processes_of(folder), SECONDS_TO_VANISH)
    except AssertionError:
        toll.left += [" ".join(process.cmdline()) for process in processes_of(folder)]
    toll.slowest = max(toll.slowest, time.monotonic() - start)


def trained(folder: Path) -> Counter[str]:
    """How often each trial was trained to its end, by number and point."""
    path = folder / "trained.txt"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def finished_attempts(folder: Path) -> list[str]:
    """Attempts that were put aside, and so trained again, although they had come to their end."""
    outcomes = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("trials/*.attempt*/outcome.json")
    }
    return [name for name, outcome in outcomes.items() if State(outcome["state"]).is_finished]
