"""What a slot's process and what it trains trials with say to each other, and how it hears its controller."""

from __future__ import annotations

import json
import math
import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lorasweep.host import Interrupted
from lorasweep.study.channel import Channel, Message
from lorasweep.study.folder import is_taken
from lorasweep.study.outcomes import State

OUTCOME = "outcome.json"
JOB = ("number", "run", "overrides", "varied", "objectives", "choices", "lineage", "holder")
SECONDS_BETWEEN_STEPS_TOLD = 0.2
SECONDS_BETWEEN_SIGNS = 1.0


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

    def message(self) -> Message:
        """Return it as JSON takes it."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def of(cls, message: Message) -> Job:
        """Read what `message` made, or a controller, among other things that it says."""
        return cls(Path(message["folder"]), **{name: message[name] for name in JOB})


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


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
