"""Real training whose worker is killed, once, in the middle of a trial."""

from __future__ import annotations

import os
import signal

from lorasweep.study.training import Training, Warm
from lorasweep.study.worker import Job, Outcome, Reporter

KILLED = {1: 3, 2: 2}
"""After which step of which trial."""


class Fragile(Warm):
    """Surroundings that end the process."""

    job: Job

    def progress(self, step: int, total: int) -> None:
        """End it, the first time."""
        mark = self.job.folder.parents[1] / f"killed-{self.job.number}"
        if step == KILLED.get(self.job.number) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().progress(step, total)


class Killed(Training):
    """Trains trials, some of which are killed."""

    def __init__(self) -> None:
        self.host = Fragile()

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial that may be killed."""
        self.host.job = job  # type: ignore[attr-defined]
        return super().train(job, reporter)
