"""The places that trials run in: how many there are, and the worker that is in each."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lorasweep.rules import Problem, UserError
from lorasweep.study.channel import Channel, Message
from lorasweep.study.process import LocalProcess, Place, Process
from lorasweep.study.settings import Settings


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that a study may use, without opening any of them."""
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = (name.strip() for name in given.split(","))
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), names))  # as CUDA reads it
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


@dataclass
class Slot:
    """A place for one trial at a time, and the worker that is in it."""

    index: int
    log: Path
    """Where a worker without a trial writes; on a cluster a folder."""
    objective: str
    gpu: str | None = None
    """The GPUs that the slot sees, as CUDA_VISIBLE_DEVICES has them; each of its processes takes one."""
    threads: int | None = None
    processes: int = 1
    """That train a trial together, a GPU each."""
    place: Place | None = None
    """Where workers run; None: here."""
    process: Process | None = None
    channel: Channel | None = None
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)
    """When the worker was last heard of."""

    def start(self) -> None:
        """Start a worker."""
        ours, theirs = socket.socketpair()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with theirs:
            if self.place:
                self.process = self.place.start(self.objective, theirs)
            else:
                self.process = LocalProcess(self.objective, theirs, self.log, self._environment(), self.processes)
        self.channel, self.ready, self.heard = Channel(ours), False, time.monotonic()

    def send(self, message: Message) -> None:
        """Tell the worker something; that it is gone is noticed where it is listened to."""
        assert self.channel
        with suppress(OSError):
            self.channel.send(message)

    def dump_stacks(self) -> None:
        """Have the worker, and then each sibling, write where each of its threads is into its log."""
        assert self.process
        self.process.dump_stacks()

    def end(self, patience: float = 0.0) -> int:
        """End the worker and all it has started; return its exit code, negative for a signal.

        `patience`: seconds for a worker that is about to end by itself.
        """
        assert self.process
        code = self.process.end(patience)
        if self.channel:
            self.channel.close()
        self.process, self.channel, self.ready = None, None, False
        return code

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.threads:
            environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        return environment


@contextmanager
def ending(slots: list[Slot]) -> Iterator[None]:
    """Leave no process behind, however the study ends."""
    try:
        yield
    finally:
        for slot in slots:
            if slot.process:
                slot.end()


def count_slots(settings: Settings) -> int:
    """Return how many trials run at the same time: as many as are asked for, or as there are GPUs for."""
    return settings.slots or max(1, len(visible_gpus()) // settings.gpus_per_trial)


def idle_gpus(settings: Settings) -> list[str]:
    """Return the visible GPUs that no slot takes."""
    return visible_gpus()[count_slots(settings) * settings.gpus_per_trial :]


def build_slots(settings: Settings, objective: str, folder: Path) -> list[Slot]:
    """Return the slots of a study, among which the visible GPUs are divided; with more slots they are shared evenly.

    Raises UserError if there are GPUs, but fewer than a trial is to take.
    """
    gpus, count, size = visible_gpus(), count_slots(settings), settings.gpus_per_trial
    if gpus and size > len(gpus):
        allowed = f"at most {len(gpus)}, the visible GPUs, of which each process of a trial takes one"
        raise UserError(Problem("hydra.sweeper.gpus_per_trial", size, allowed))
    threads = max(1, len(os.sched_getaffinity(0)) // (count * size)) if count * size > 1 else None
    return [
        Slot(index, folder / f"slot-{index}.log", objective, ",".join(own) if gpus else None, threads, size)
        for index in range(count)
        for own in [[gpus[(index * size + rank) % len(gpus)] for rank in range(size)] if gpus else []]
    ]
