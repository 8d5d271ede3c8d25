"""The other processes of a slot: with its worker, which is the first of them, they train each of its trials.

They are forked before the worker imports what trains, live as long as it does, and keep base, data and what is compiled
as it does. What ends one of them ends the worker in the same way, so that its controller learns what it would learn of
a worker alone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import NoReturn

from lorasweep.processes.group import Processes, current
from lorasweep.processes.launched import take_gpu
from lorasweep.processes.peers import GONE, End, PeerEnded, Peers
from lorasweep.processes.share import Share
from lorasweep.study.attempt import outcome_of, print_into
from lorasweep.study.lifetime import die_with_parent
from lorasweep.study.outcomes import State
from lorasweep.study.worker import Job, Objective


def start(size: int) -> Processes:
    """Become so many processes, of which each sees a GPU of its own; return what each of them knows of the others."""
    worker = os.getpid()
    connections: dict[int, socket.socket] = {}
    siblings: list[int] = []
    for rank in range(1, size):
        ours, theirs = socket.socketpair()
        if not (pid := os.fork()):
            die_with_parent(worker)
            for connection in (ours, *connections.values()):
                connection.close()
            take_gpu(rank)
            return Processes(Peers(Share(rank, size), {0: theirs}))
        theirs.close()
        connections[rank] = ours
        siblings.append(pid)
    take_gpu(0)
    for pid in siblings:
        threading.Thread(target=_end_as, args=[pid], daemon=True).start()
    return Processes(Peers(Share(0, size), connections))


def _end_as(sibling: int) -> None:
    """Wait for the end of a sibling, and end this process in the same way."""
    _, status = os.waitpid(sibling, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.raise_signal(-code)
    os._exit(code or 1)


def end_if_one_is_lost() -> None:
    """Wait to be ended if a sibling is gone without a word: what that means for its trial is not said here."""
    joined = current()
    if isinstance(joined, Processes) and joined.peers.ended and joined.peers.ended.end.error == GONE:
        threading.Event().wait()


class Unheard:
    """What a sibling's trial tells while it goes: nothing, as the worker does."""

    def progress(self, step: int, total: int) -> None:
        """Tell nothing."""

    def stopping(self) -> bool:
        """Leave it to the worker to know."""
        return False

    def at_work(self) -> AbstractContextManager[None]:
        """Give no sign."""
        return nullcontext()

    def report(self, step: int, tokens: int, value: float, budget: int) -> bool:
        """Tell nothing, and leave it to the worker to know whether to go on."""
        return True


def follow(objective: Objective, joined: Processes) -> NoReturn:
    """Train what the worker trains, until this process is ended with it."""
    with suppress(PeerEnded):
        while True:
            end = _trained(objective, Job.of(joined.firsts({})), joined.share)
            if end.code:
                joined.peers.tell(end)
                break
            joined.exchange(None)  # all have come to the end of the trial
    while True:
        signal.pause()


def _trained(objective: Objective, job: Job, share: Share) -> End:
    """Return how a trial ended here, with a code if that ends the worker, too."""
    try:
        with open(job.folder / "log.txt", "ab") as log:
            print_into(log.fileno())
        outcome, trace = objective.train(job, Unheard()), ""
    except BaseException as error:
        outcome, trace = outcome_of(error), traceback.format_exc()
        name = f"process {share.rank} of {share.size}"
        with suppress(OSError):
            print("".join(f"{name}: {line}\n" for line in trace.splitlines()), end="", file=sys.stderr, flush=True)
    is_over = outcome.state in (State.COMPLETE, State.PRUNED)
    return End(outcome.state.value, 0 if is_over else 1, outcome.reason or outcome.state.value, trace)
