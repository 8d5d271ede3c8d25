"""TRL's trainer with a place between its steps, and without its own way of going on from a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any

from torch.utils.data import DataLoader
from trl import SFTTrainer


class WatchedTrainer(SFTTrainer):
    """TRL's trainer, told what to do after a step.

    A subclass because no callback comes after the line of a step is logged, and because with a checkpoint transformers
    does two things in one: it finds its place in the data, which is right, and loads weights, optimizer and random
    streams of files it has written itself, which is not exact (research: PEFT's float32, no check of anything). Here it
    finds its place alone; `checkpointing` puts back the rest.
    """

    after_step: Callable[[], None] = staticmethod(lambda: None)
    """Called once a step is done and its line is logged, and, for the same step again, at the end of an epoch."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of a run, whose processes end with it and at no signal to the whole job."""
        loader: DataLoader[Any] = super().get_train_dataloader()
        base = getattr(loader, "base_dataloader", loader)  # accelerate's is a shell: what is set on it reaches nothing
        base.worker_init_fn = partial(_heed_parent, base.worker_init_fn or _nothing)
        if base.num_workers:
            base.multiprocessing_context = BornDeaf()
        return loader

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        super()._maybe_log_save_evaluate(*arguments, **options)
        self.after_step()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load nothing: it would not find adapters under our names."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load nothing."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Load nothing."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load nothing: by then a sampler may have drawn the order of an epoch from another stream."""


class DeafProcess(ForkProcess):
    """A process that begins with SIGTERM blocked, so that there is no moment in which it dies of one.

    Sent to all processes of a job, as Slurm does, it would end the step which is to be finished: torch's handler dies
    of it.
    """

    def start(self) -> None:
        """Start it; what is blocked here is inherited."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class BornDeaf(ForkContext):
    """Makes such processes."""

    Process = DeafProcess


def _heed_parent(prepare: Callable[[int], None], worker: int) -> None:
    """Have a loader's process, which SIGTERM does not reach, end when its parent sends one."""
    prepare(worker)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def _nothing(worker: int) -> None:
    """Prepare nothing."""
