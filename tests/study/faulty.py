"""Real training with faults to order."""

from __future__ import annotations

import time

from lorasweep.study.training import Training, Warm
from lorasweep.study.worker import Job, Outcome, Reporter
from tests.study.toy import happen

FAULTS = {
    2: "exception", 4: "exit", 6: "kill", 7: "kill once", 9: "segfault", 11: "out of memory", 13: "diverged", 15: "hang",
    17: "wrong objective",
}  # fmt: skip


class Breaking(Warm):
    """Surroundings in which a run breaks at its second step."""

    job: Job

    def progress(self, step: int, total: int) -> None:
        """Break, or go on."""
        fault = FAULTS.get(self.job.number)
        if step == 2 and fault == "out of memory":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        if step == 2 and fault == "hang":
            time.sleep(3600)
        if step == 2 and fault in ("exception", "exit", "kill", "kill once", "segfault"):
            happen(fault, self.job.folder)
        super().progress(step, total)


class Faulty(Training):
    """Trains trials, some of which break."""

    def __init__(self) -> None:
        self.host = Breaking()

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial that may break."""
        self.host.job = job  # type: ignore[attr-defined]
        fault = FAULTS.get(job.number)
        if fault == "diverged":
            job.run["optim"] |= {"name": "sgd", "lr": 1e38}
        if fault == "wrong objective":
            job.objectives[:] = ["eval/lss"]
        return super().train(job, reporter)
