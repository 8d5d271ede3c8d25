"""How a process ends with another: a worker with its controller, and all that a worker has started with it."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from contextlib import suppress

PR_SET_PDEATHSIG = 1


def guard(end: int) -> None:
    """Leave a process behind that ends all this one has started when it is gone, however it went.

    Processes forked by a data loader outlive a killed worker otherwise, and hold its end of the conversation open.
    """
    group, worker = os.getpgrp(), os.pidfd_open(os.getpid())
    if os.fork():
        os.close(worker)
        return
    os.setsid()
    os.close(end)
    select.select([worker], [], [])
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    os._exit(0)


def die_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends; `parent`: what it was started by, which may be gone already."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
