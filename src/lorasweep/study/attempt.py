"""A trial trained to whatever end: a typed outcome, and of exceptions their text alone."""

from __future__ import annotations

import errno
import math
import os
import sys
import traceback
from contextlib import suppress

from lorasweep.host import Interrupted
from lorasweep.processes.group import current
from lorasweep.processes.peers import PeerEnded
from lorasweep.rules import UserError
from lorasweep.study.outcomes import State
from lorasweep.study.worker import Job, Objective, Outcome, Reporter


def trained(objective: Objective, job: Job, reporter: Reporter) -> Outcome:
    """Return the outcome of a trial, which the other processes of the slot are given too and come to the end of."""
    group = current()
    try:
        group.firsts(job.message())
        outcome = objective.train(job, reporter)
        if outcome.state in (State.COMPLETE, State.PRUNED):
            group.exchange(None)
    except BaseException as error:
        if not isinstance(error, Interrupted | UserError | PeerEnded):
            with suppress(OSError):
                traceback.print_exc()
        return outcome_of(error)
    if outcome.state is State.COMPLETE and not _are_finite(outcome.values, len(job.objectives)):
        return Outcome(State.FAILED, facts=outcome.facts, reason=f"the objective is {outcome.values}")
    return outcome


def outcome_of(error: BaseException) -> Outcome:
    """Return what an exception makes of a trial; it is not kept itself: it would keep tensors alive."""
    if isinstance(error, Interrupted):
        return Outcome(State.INTERRUPTED, reason="stopped")
    if isinstance(error, UserError):
        return Outcome(State.FAILED, reason=str(error))
    if isinstance(error, PeerEnded):
        return Outcome(State(error.end.state), reason=str(error))
    if is_full_disk(error):
        return Outcome(State.INTERRUPTED, reason=words(error))
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return Outcome(State.OUT_OF_MEMORY if out_of_memory else State.FAILED, reason=words(error))


def words(error: BaseException) -> str:
    """Return an exception as one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def is_full_disk(error: BaseException) -> bool:
    """Tell whether there was no room for a file; libraries in Rust and C++ say so in their own exceptions."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def print_into(descriptor: int) -> None:
    """Send whatever is printed, by libraries in C too, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _are_finite(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )
