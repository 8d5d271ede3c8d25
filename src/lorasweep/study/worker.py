"""A slot's process: trains one trial after the other for its controller, and dies with it.

python -m lorasweep.study.worker FD module:factory PID
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import importlib
import json
import math
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lorasweep.host import Interrupted
from lorasweep.record import write_json
from lorasweep.rules import UserError
from lorasweep.study.channel import Channel, Message
from lorasweep.study.folder import is_taken
from lorasweep.study.outcomes import State

OUTCOME = "outcome.json"
JOB = ("number", "run", "overrides", "varied", "objectives", "choices", "lineage", "holder")
SECONDS_BETWEEN_STEPS_TOLD = 0.2
SECONDS_BETWEEN_SIGNS = 1.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """A trial to train: its folder and number, its config as plain values, and the overrides that make it."""

    folder: Path
    number: int
    run: dict[str, Any]
    overrides: list[str]
    varied: list[str]
    """Of the overrides those that tell this trial from others."""
    objectives: list[str]
    """Names of the numbers that are the trial's values."""
    choices: dict[str, str]
    """The option that every config group has."""
    lineage: dict[str, Any]
    """The study, and what this trial is in it."""
    holder: str = ""
    """The controller that the trial belongs to."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    state: State
    values: list[float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None

    def message(self) -> Message:
        """Return it as JSON takes it, without facts that are no number."""
        facts = {name: value for name, value in self.facts.items() if not _is_odd(value)}
        return {**asdict(self), "state": self.state.value, "facts": facts}

    @classmethod
    def of(cls, message: Message) -> Outcome:
        """Read what `message` made."""
        return cls(State(message["state"]), message["values"], message["facts"], message["reason"])

    @classmethod
    def left_in(cls, folder: Path) -> Outcome | None:
        """Return the outcome that a trial wrote down before anybody could hear of it."""
        try:
            outcome = cls.of(json.loads((folder / OUTCOME).read_text()))
        except (OSError, ValueError, KeyError):
            return None
        return outcome if outcome.state.is_finished else None


class Reporter(Protocol):
    """What a trial tells while it goes."""

    def progress(self, step: int, total: int) -> None:
        """Tell that a step is done; raises `Interrupted` if the trial is to stop."""

    def stopping(self) -> bool:
        """Tell whether the trial is to stop; that somebody asks is a sign of life."""

    def at_work(self) -> AbstractContextManager[None]:
        """Be alive as long as this goes on, which may take long and says nothing."""

    def report(self, step: int, tokens: int, value: float, budget: int) -> bool:
        """Tell the objective after so many supervised tokens of a budget; returns whether to go on."""


class Objective(Protocol):
    """What a worker does with a job; made once per process, so it may keep what trials have in common."""

    @property
    def worn(self) -> bool:
        """Whether the process had better be replaced before the next trial."""

    def check(self, runs: list[dict[str, Any]]) -> Message:
        """Return what is wrong with configs before any of them is trained (problems), and facts of the study."""

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial."""


class Listener:
    """The worker's end of the conversation: what the controller says goes to where it is waited for."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.jobs: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.job: Job | None = None
        self._told = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def stopping(self) -> bool:
        """Tell whether the controller wants the trial to stop."""
        self._give_sign()
        return self.stop.is_set()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give signs of life from beside."""
        done = threading.Event()

        def give_signs() -> None:
            while not done.wait(SECONDS_BETWEEN_SIGNS):
                self._give_sign()

        beside = threading.Thread(target=give_signs, daemon=True)
        beside.start()
        try:
            yield
        finally:
            done.set()
            beside.join()

    def progress(self, step: int, total: int) -> None:
        """Tell that a step is done, not more often than anybody would look."""
        self._stop_if_told()
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_STEPS_TOLD or step == total:
            self._told = now
            self.end_if_taken()
            self.channel.send({"event": "step", "step": step, "total": total})

    def report(self, step: int, tokens: int, value: float, budget: int) -> bool:
        """Tell the objective and wait for the controller's word."""
        self._stop_if_told()
        self.end_if_taken()
        self.channel.send({"event": "report", "step": step, "tokens": tokens, "value": value, "budget": budget})
        go_on = self.answers.get()
        self._stop_if_told()
        return go_on

    def end_if_taken(self) -> None:
        """End this process if another controller has taken its trial: two would write into one folder."""
        if self.job and is_taken(self.job.folder, self.job.holder):
            os._exit(os.EX_TEMPFAIL)

    def _give_sign(self) -> None:
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_SIGNS:
            self._told = now
            self.end_if_taken()
            self.channel.send({"event": "alive"})

    def _stop_if_told(self) -> None:
        if self.stop.is_set():
            raise Interrupted("stopped")

    def _listen(self) -> None:
        for message in self.channel.messages():
            if message["do"] == "answer":
                self.answers.put(bool(message["go_on"]))
            elif message["do"] == "stop":
                self.stop.set()
                self.answers.put(False)
            else:
                self.jobs.put(message)
        os._exit(1)  # without a controller there is nobody to train for


def main() -> None:
    """Serve a controller until it is gone."""
    end = int(sys.argv[1])
    _die_with_parent(int(sys.argv[3]))
    _guard(end)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole job, but the controller's to handle
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    listener = Listener(Channel(socket.socket(fileno=end)))
    module, _, factory = sys.argv[2].partition(":")
    objective: Objective = getattr(importlib.import_module(module), factory)()
    listener.channel.send({"event": "ready"})
    while True:
        message = listener.jobs.get()
        if message["do"] == "check":
            listener.channel.send({"event": "checked", **_checked(objective, message["runs"])})
            continue
        job = Job(Path(message.pop("folder")), **{name: message[name] for name in JOB})
        listener.job = job
        outcome = _outcome(objective, job, listener)
        listener.job = None
        listener.channel.send({"event": "outcome", **outcome, "worn": objective.worn})


def _outcome(objective: Objective, job: Job, reporter: Listener) -> Message:
    """Train a trial with a folder and a log of its own; a full disk is no fault of the trial."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "log.txt", "ab") as log:
            _print_into(log.fileno())
        outcome = _trained(objective, job, reporter).message()
        sys.stdout.flush()
        sys.stderr.flush()
        reporter.end_if_taken()
        write_json(job.folder / OUTCOME, outcome)  # a controller that dies before it hears of it finds it here
    except OSError as error:
        if not _is_full_disk(error):
            raise
        return Outcome(State.INTERRUPTED, reason=_words(error)).message()
    return outcome


def _checked(objective: Objective, runs: list[dict[str, Any]]) -> Message:
    try:
        return objective.check(runs)
    except Exception:  # a bug: the controller raises it, with this text
        return {"broken": traceback.format_exc()}


def _trained(objective: Objective, job: Job, reporter: Reporter) -> Outcome:
    """Return the outcome of a trial; text is kept of an exception, never itself: it would keep tensors alive."""
    try:
        outcome = objective.train(job, reporter)
    except Interrupted:
        return Outcome(State.INTERRUPTED, reason="stopped")
    except UserError as error:
        return Outcome(State.FAILED, reason=str(error))
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        with suppress(OSError):
            traceback.print_exc()
        if _is_full_disk(error):
            return Outcome(State.INTERRUPTED, reason=_words(error))
        out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        return Outcome(State.OUT_OF_MEMORY if out_of_memory else State.FAILED, reason=_words(error))
    if outcome.state is State.COMPLETE and not _are_finite(outcome.values, len(job.objectives)):
        return Outcome(State.FAILED, facts=outcome.facts, reason=f"the objective is {outcome.values}")
    return outcome


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


def _is_full_disk(error: BaseException) -> bool:
    """Tell whether there was no room for a file; libraries in Rust and C++ say so in their own exceptions."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def _are_finite(values: object, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _print_into(descriptor: int) -> None:
    """Send whatever is printed, by libraries in C too, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _guard(end: int) -> None:
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


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    # the module that objectives import, not a second one of the same file
    importlib.import_module("lorasweep.study.worker").main()
