"""What the processes of a run do together; one alone does the same with itself."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lorasweep.processes.peers import Peers
from lorasweep.processes.share import Share

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]

    from lorasweep.device import Device

T = TypeVar("T")
SECONDS_TO_HEAR = 10.0
"""How long after a failed sum its cause, that another process has ended, can take to be heard of."""
LONGEST_NAP = 1e-3
PATIENCE = timedelta(hours=12)
"""How long a sum may wait for a process that is there: one may evaluate, or compile, for long."""


class Group:
    """A process of its own."""

    def __init__(self, share: Share | None = None) -> None:
        self.share = share or Share()

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.share.is_first

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.share.size

    def exchange(self, value: T) -> list[T]:
        """Return what every process gives, by rank; as JSON takes it."""
        return [value]

    def firsts(self, value: T) -> T:
        """Return what the first process gives."""
        return self.exchange(value)[0]

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so."""
        return any(self.exchange(flag))

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        return [sum(column) for column in zip(*self.exchange(list(values)), strict=True)]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make tensors of one dtype and device, in place, their sums over all processes."""

    def seed(self, seed: int) -> None:
        """Give each process but the first, which goes on as one alone, random streams of its own for dropout."""

    def facts(self, device: Device) -> dict[str, Any]:
        """Return what a record says of the processes; nothing of one alone."""
        return {}


class Processes(Group):
    """Several processes, which speak through their connections and add up through torch's process group."""

    def __init__(self, peers: Peers, backend: str = "") -> None:
        super().__init__(peers.share)
        self.peers, self.backend = peers, backend

    def connect(self, store: Store) -> None:
        """Make torch's process group; call it in all processes, each of which has its GPU."""
        import torch
        import torch.distributed as dist

        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0"  # it would abort whoever is still to say what has happened
        self.backend = "nccl" if torch.cuda.is_available() else "gloo"
        rank, size = self.share.rank, self.size
        dist.init_process_group(self.backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)

    def exchange(self, value: T) -> list[T]:
        """Return what every process gives, by rank; raises PeerEnded once one has ended."""
        return self.peers.exchange(value)

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Add up; raises PeerEnded once a process has ended, where torch alone would wait for it for ever."""
        import torch
        import torch.distributed as dist

        together = torch.cat([tensor.flatten() for tensor in tensors])
        try:
            work = dist.all_reduce(together, async_op=True)
            nap = 1e-5
            while not work.is_completed():
                self.peers.check()
                time.sleep(nap)
                nap = min(2 * nap, LONGEST_NAP)
            work.wait()
        except RuntimeError:
            self._blame()
            raise
        totals = torch.split(together, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.copy_(total.view_as(tensor))

    def seed(self, seed: int) -> None:
        """Give each process but the first random streams that follow from the seed and its rank."""
        from numpy.random import SeedSequence
        from transformers import set_seed

        if not self.is_first:
            set_seed(int(SeedSequence([seed, self.share.rank]).generate_state(1)[0]))

    def _blame(self) -> None:
        """Raise PeerEnded if that is why adding up has failed."""
        end = time.monotonic() + SECONDS_TO_HEAR
        while time.monotonic() < end:
            self.peers.check()
            time.sleep(0.05)

    def facts(self, device: Device) -> dict[str, Any]:
        """Return the number of processes, how they add up, and where each of them runs."""
        own = {"host": socket.gethostname(), "pid": os.getpid(), "device": device.name}
        return {"processes": {"count": self.size, "backend": self.backend, "of": self.exchange(own)}}


_current = Group()


def current() -> Group:
    """Return the processes that this one is of."""
    return _current


def enter(group: Group) -> None:
    """Make this process one of a group."""
    global _current
    _current = group
