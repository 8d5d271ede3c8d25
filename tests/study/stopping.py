"""Real training whose worker or whole study is killed, once at every place, in the middle of a trial."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from lorasweep.lean_trainer import LeanTrainer
from lorasweep.study.training import Training, Warm
from lorasweep.study.worker import Job, Outcome, Reporter

KILLED = {1: 3, 2: 2}
"""After which step of which trial its worker is."""
PREEMPTED = {0: 1, 1: 3}
"""After which step of which trial its job is warned."""
KILLED_IN_PASS = {1: 5, 2: 8}
"""After which forward pass of which trial its worker is: with three of them a step, in the middle of its second or third."""
TOPPLED = ((0, 1), (0, 4), (1, 2), (1, 3), (2, 1))
"""After which step of which trial the whole study is."""


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


class Preempting(Warm):
    """Surroundings whose cluster wants its node back."""

    job: Job

    def progress(self, step: int, total: int) -> None:
        """Have the job warned, the first time, and wait until that has come back as word to stop."""
        mark = self.job.folder.parents[1] / f"preempted-{self.job.number}"
        if step == PREEMPTED.get(self.job.number) and not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGUSR2)
            while not self.stopping():
                time.sleep(0.05)
        super().progress(step, total)


class Toppling(Warm):
    """Surroundings that end the study."""

    job: Job

    def progress(self, step: int, total: int) -> None:
        """End it, once at every place."""
        mark = self.job.folder.parents[1] / f"toppled-{self.job.number}-{step}"
        if (self.job.number, step) in TOPPLED and not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
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


class Preempted(Training):
    """Trains trials, some of whose jobs are warned that they will end."""

    def __init__(self) -> None:
        self.host = Preempting()

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial that may be preempted."""
        self.host.job = job  # type: ignore[attr-defined]
        return super().train(job, reporter)


class KilledInPass(Training):
    """Trains trials, some of which are killed while they add up gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_loss = LeanTrainer.compute_loss

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial that may be killed."""
        passes, mark = iter(range(1, 100)), job.folder.parents[1] / f"killed-{job.number}"

        def deadly(trainer: LeanTrainer, *arguments: Any, **options: Any) -> Any:
            loss = self.compute_loss(trainer, *arguments, **options)
            if next(passes) == KILLED_IN_PASS.get(job.number) and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return loss

        LeanTrainer.compute_loss = deadly  # type: ignore[method-assign]
        return super().train(job, reporter)


class Toppled(Training):
    """Trains trials of a study that is killed."""

    def __init__(self) -> None:
        self.host = Toppling()

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial in the middle of which the study may be killed."""
        self.host.job = job  # type: ignore[attr-defined]
        return super().train(job, reporter)
