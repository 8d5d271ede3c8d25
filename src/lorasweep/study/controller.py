"""A process that runs a study, alone or with others: keeps its slots busy, and writes down what came of trials."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from optuna.pruners import BasePruner

from lorasweep.checkpoints import has_checkpoint
from lorasweep.record import values_hash
from lorasweep.rules import Problem, UserError
from lorasweep.study.adapters import Adapters
from lorasweep.study.candidates import Candidates
from lorasweep.study.channel import Message
from lorasweep.study.company import Company
from lorasweep.study.definition import Definition
from lorasweep.study.folder import hold, set_aside, trial_folder
from lorasweep.study.inbox import Inbox
from lorasweep.study.leases import LeaseLost
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import build_pruner
from lorasweep.study.requests import take_requests
from lorasweep.study.signals import handled
from lorasweep.study.slots import Slot
from lorasweep.study.store import Store
from lorasweep.study.trial import Trial
from lorasweep.study.view import View
from lorasweep.study.worker import Outcome

SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_TO_STOP = 600.0
"""Without a sign of life, for a step and for writing a checkpoint; who cannot wait says so once more."""
SECONDS_TO_DIE = 5.0
SECONDS_TO_START = 300.0
"""For importing what trains, which says nothing meanwhile; from a cold or shared disk."""
STARTS_IN_A_ROW = 3
MOST_ROUNDED = 0.6
"""Steps by which an evaluation may come before the share of the run it is for: half of one, and the noise."""
DEADLY_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that come from outside: nothing is wrong with a trial that one of them ended."""


class CannotStart(UserError):
    """Workers end before they have begun."""

    def __init__(self, code: int, log: Path) -> None:
        super().__init__(Problem("worker", f"exit code {code}", f"a process that starts; {log} says why it did not"))


@dataclass
class Running:
    """A trial and the slot it is in."""

    number: int
    slot: Slot
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False
    preempted: bool = False
    """Whether its worker was told by its cluster that it will be ended, and has told the trial to stop."""


class Controller:
    """Runs the trials of a study until it is done, or until it is told to stop."""

    def __init__(self, definition: Definition, store: Store, slots: list[Slot], view: View) -> None:
        self.definition, self.settings, self.store = definition, definition.settings, store
        self.slots, self.view = slots, view
        self.candidates, self.adapters = Candidates(definition, store, view), Adapters(definition)
        self.company = Company(store, self.candidates, self.settings.lease_seconds, view)
        self.definition_hash = values_hash(definition.lasting())
        self.running: dict[int, Running] = {}
        self.inbox = Inbox(slots)
        self.error: UserError | None = None
        self.reason: str | None = None
        """Why no trial is started any more; None while there is more to do."""
        self.pruner: BasePruner | None = None
        self.budget = 0
        """Supervised tokens of a trial, by the first that reported; what the pruner goes by."""
        self.signals, self.failures, self.failed_starts = 0, 0, 0
        self.warned = False
        self.started = time.monotonic()

    def run(self) -> str | None:
        """Run to the end; return why the study ended before it was done, None if it is."""
        with handled(self._count_signal), self.company.waited_for(self._pause):
            self._take_up()
            while True:
                self._meet()
                self._obey()
                self._fill()
                done = self.candidates.next is None and not self.candidates.may_come
                if not self.running and (self.reason or done):
                    break
                self._listen()
                self._watch()
                self.view.tick()
        if self.error:
            raise self.error
        if self.reason:
            self.view.say(f"the study is not done: {self.reason}. The same command goes on with it")
        return self.reason

    def _take_up(self) -> None:
        """Go on where an earlier session ended: what is finished is kept, what was running is run again."""
        for trial in self.store.trials():
            if trial.state.is_finished:
                self._show_end(trial)
            elif (outcome := Outcome.left_in(self._folder_of(trial.number))) and self.store.claim(trial.number):
                self._finish(trial.number, outcome)
        self.candidates.take_up()

    def _meet(self) -> None:
        """Hear what other controllers have done, and what they have taken from this one."""
        if self.company.meet():
            self.reason = self.reason or "lorasweep stop"
        while self.candidates.ended:
            trial = self.candidates.ended.pop(0)
            self.view.seen(trial)
            self.adapters.judge(trial)
            self._count_failures(trial.state)
        for number in self.company.lost():
            self._lose(number)

    def _lose(self, number: int) -> None:
        """Let go of a trial that another controller has taken, which had not heard of this one for too long."""
        self.store.held.discard(number)
        if running := self.running.pop(number, None):
            running.slot.end()
        self.view.say(f"trial {number} was taken over by another controller")
        self.view.seen(self.store.trial(number))

    @contextmanager
    def _unless_lost(self, running: Running | None) -> Iterator[None]:
        """Let go of a trial if it turns out to be another controller's."""
        try:
            yield
        except LeaseLost:
            assert running
            self._lose(running.number)

    def _fill(self) -> None:
        """Give every free slot a trial, or a worker to train one, as long as there is something to do."""
        busy = {running.slot.index for running in self.running.values()}
        for slot in self.slots:
            if self.reason or slot.index in busy or (slot.process and not slot.ready):
                continue
            while self.candidates.decide():
                if slot.process is None:
                    self._start_worker(slot)
                    break
                if self._start(slot):
                    break
            else:
                self.reason = self.candidates.reason
                return

    def _start_worker(self, slot: Slot) -> None:
        """Start a worker; a cluster that does not take its job for now may the next time."""
        try:
            slot.start()
        except UserError as error:
            self._cannot_start(error)

    def _cannot_start(self, error: UserError) -> None:
        self.failed_starts += 1
        if self.failed_starts >= STARTS_IN_A_ROW and not self.error:
            self.error = error
            self.reason = self.reason or "workers end before they begin"

    def _start(self, slot: Slot) -> bool:
        """Begin the trial that comes next; return whether it was still there to be begun."""
        try:
            begun = self.candidates.begin(slot.index)
        except LeaseLost:
            begun = None
        if begun is None:
            return False
        number, composed = begun
        folder = self._folder_of(number)
        if outcome := Outcome.left_in(folder):  # by another controller, which died before it heard of it
            self._finish(number, outcome)
            return False
        if not has_checkpoint(folder):  # from which the worker goes on
            set_aside(folder)
        hold(folder, self.store.leases.holder)
        self.running[number] = Running(number, slot)
        trial = self.store.trial(number)
        job = {"number": number, "folder": str(folder), "objectives": self.settings.objectives, **asdict(composed)}
        slot.send({"do": "train", **job, "lineage": self._lineage(trial), "holder": self.store.leases.holder})
        slot.heard = time.monotonic()
        self.view.started(trial, slot.index)
        return True

    def _lineage(self, trial: Trial) -> dict[str, Any]:
        """Return what a trial's record says of where its values come from."""
        return {
            "study": self.definition.name,
            "study_sha256": self.definition_hash,
            "sampler": self.settings.sampler,
            "sampler_seed": self.settings.seed,
            "trial": trial.number,
            "kind": trial.kind,
            "parameters": trial.point,
            "deaths": trial.deaths,
            "runs_of_worker": self._runs_of_worker(),
        }

    def _runs_of_worker(self) -> int:
        """Return about how many trials each worker trains, which what it compiles has to pay for."""
        total = None if self.settings.fresh_process else self.definition.total()
        return math.ceil((total or 1) / len(self.slots))

    def _listen(self) -> None:
        """Act on what workers say; wait a little if they say nothing."""
        self.inbox.take_in(SECONDS_BETWEEN_LOOKS)
        for slot, message in self.inbox.messages():
            if message is None:
                self._gone(slot)
                continue
            with self._unless_lost(self._in(slot)):
                self._hear(slot, message)

    def _hear(self, slot: Slot, message: Message) -> None:
        event, running = message["event"], self._in(slot)
        if event == "ready":
            slot.ready, self.failed_starts = True, 0
            return
        if event == "preempted":
            self._preempted(slot, running)
        if running is None:
            return
        if event == "step":
            self.view.step(running.number, message["step"], message["total"])
        elif event == "report":
            go_on = self._goes_on(running.number, message)
            if not message.get("answered"):
                slot.send({"do": "answer", "go_on": go_on})
        elif event == "outcome":
            outcome = Outcome.of(message)
            del self.running[running.number]
            self._settle(running, outcome)
            keeps = outcome.state in (State.COMPLETE, State.PRUNED) and not message["worn"]
            if self.settings.fresh_process or not keeps or running.preempted:
                slot.end()

    def _preempted(self, slot: Slot, running: Running | None) -> None:
        """Have a trial that its worker has told to stop go on elsewhere."""
        if running:
            running.preempted = True
        else:
            slot.end()

    def _goes_on(self, number: int, message: Message) -> bool:
        """Keep what a trial reports and ask the pruner about it."""
        self.store.report(number, message["tokens"], message["value"])
        self.view.reported(number, message["value"])
        if self.pruner is None:
            self.budget, self.pruner = message["budget"], build_pruner(self.settings, message["budget"])
        share = message["tokens"] / message["budget"]
        # an evaluation is due at a share of the run and comes at a whole step: at 2 of 10 steps for a quarter
        due = share * (1 + MOST_ROUNDED / message["step"])
        if self.pruner is None or share >= 1 or due < self.settings.prune_after:
            return True
        is_worse = self.store.is_worse(number, message["tokens"], self.pruner, round(due * self.budget))
        return not is_worse or self.store.trial(number).kind == "baseline"  # that the others are compared with

    def _gone(self, slot: Slot) -> None:
        """Find out what a worker died of, and of its trial whether that was to blame."""
        running, was_ready = self._in(slot), slot.ready
        code = slot.end(SECONDS_TO_DIE)
        if running is None:
            if not was_ready:
                self._cannot_start(CannotStart(code, slot.log))
            return
        del self.running[running.number]
        with self._unless_lost(running):
            if outcome := Outcome.left_in(self._folder_of(running.number)):
                self._settle(running, outcome)
            elif running.stopped or running.preempted or -code in DEADLY_SIGNALS:
                self._killed(running, code)
            else:
                how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                self._settle(running, Outcome(State.FAILED, reason=f"its process ended with {how}"))

    def _killed(self, running: Running, code: int) -> None:
        """Run a trial again whose process was killed, but not for ever."""
        if running.stopped or running.preempted:
            self._settle(running, Outcome(State.INTERRUPTED, reason="stopped"))
            return
        deaths = self.store.trial(running.number).deaths + 1
        self.store.note(running.number, deaths=deaths)
        reason = f"its process was killed by {signal.Signals(-code).name}"
        if deaths > self.settings.max_retries:
            self._settle(running, Outcome(State.FAILED, reason=f"{reason} {deaths} times"))
            return
        self._interrupt(running.number, reason)
        self.candidates.run_again(running.number)

    def _settle(self, running: Running, outcome: Outcome) -> None:
        """Write the end of a trial down, for now or for good, and see what it means for the study."""
        seconds = round(time.monotonic() - running.started, 3)
        if not outcome.state.is_finished:
            self._interrupt(running.number, "preempted" if running.preempted else outcome.reason)
            if running.preempted:
                self.candidates.run_again(running.number)
            elif not running.stopped:  # it asks for what only the user can do
                self.reason = self.reason or outcome.reason or "a trial was interrupted"
            return
        facts = {**outcome.facts, "seconds_in_slot": seconds}
        self._finish(running.number, replace(outcome, facts=facts))
        self._count_failures(outcome.state)

    def _count_failures(self, state: State) -> None:
        """End the study where too many of its trials have failed one after the other."""
        most = self.settings.max_failures
        self.failures = self.failures + 1 if state.is_failure else 0
        if most and self.failures >= most:
            self.reason = self.reason or f"{most} trials in a row failed (hydra.sweeper.max_failures)"

    def _interrupt(self, number: int, reason: str | None) -> None:
        """Write down that a trial has yet to be run again."""
        self.store.note(number, state=State.INTERRUPTED.value, reason=reason)
        self.view.ended(self.store.trial(number))

    def _finish(self, number: int, outcome: Outcome) -> None:
        self.store.finish(number, outcome.state, outcome.values, {"facts": outcome.facts, "reason": outcome.reason})
        self._show_end(self.store.trial(number))

    def _show_end(self, trial: Trial) -> None:
        self.view.ended(trial)
        self.adapters.judge(trial)

    def _watch(self) -> None:
        """Look for trials that take too long or have gone silent, and for the end of the study's time."""
        now, limit, silence = time.monotonic(), self.settings.trial_timeout, self.settings.hang_timeout
        for running in list(self.running.values()):
            slot = running.slot
            if limit and now - running.started > limit:
                self._end(running, State.FAILED, f"took longer than hydra.sweeper.trial_timeout={limit:g} s")
            elif silence and now - slot.heard > silence:
                slot.dump_stacks()
                self._end(running, State.HUNG, f"gave no sign of life for {silence:g} s; log.txt shows where it is")
        for slot in self.slots:
            if silence and slot.process and not slot.ready and now - slot.heard > max(silence, SECONDS_TO_START):
                slot.dump_stacks()
                self._gone(slot)
        if self.settings.timeout and now - self.started > self.settings.timeout:
            self.reason = self.reason or f"hydra.sweeper.timeout={self.settings.timeout:g} s is over"

    def _end(self, running: Running, state: State, reason: str) -> None:
        running.slot.end()
        del self.running[running.number]
        with self._unless_lost(running):
            self._settle(running, Outcome.left_in(self._folder_of(running.number)) or Outcome(state, reason=reason))

    def _obey(self) -> None:
        """Do what signals and the commands of other terminals ask for."""
        # what is added waits in its file until trial 0 is the baseline
        for request in take_requests(self.definition.folder, stops_alone=self.candidates.waits_for_baseline):
            if isinstance(request, Path):
                self.view.say(f"{request} is no request and is left alone")
            elif request.stop:
                self.reason = self.reason or "lorasweep stop"
                self.store.tell_to_stop()
            else:
                self.candidates.add(request.point)
        if self.signals and not self.warned:
            self.warned, self.reason = True, self.reason or "interrupted"
            if self.running:
                count, after_step = f"{len(self.running)} running trials", "each after its step"
                soft = f"finishing {count}; once more to stop {after_step}"
                self.view.say(soft if self.signals == 1 else f"stopping {count}, {after_step}")
        if self.signals > 1:
            self._stop_running()

    def _stop_running(self) -> None:
        """Stop every trial after its step, so that it can be gone on with."""
        for running in self.running.values():
            if not running.stopped:
                running.stopped, running.slot.heard = True, time.monotonic()
                running.slot.send({"do": "stop"})
        for running in list(self.running.values()):
            if self.signals > 2 or time.monotonic() - running.slot.heard > SECONDS_TO_STOP:
                self._end(running, State.INTERRUPTED, "stopped")

    def _pause(self, seconds: float) -> bool:
        """Have trials go on while nothing can be written down, at no charge; return whether to wait any longer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.signals < 2:
            self.inbox.take_in(min(SECONDS_BETWEEN_LOOKS, seconds))
            self.inbox.let_go_on()
            self.view.tick()
        for running in self.running.values():
            running.started += seconds
        return self.signals < 2

    def _in(self, slot: Slot) -> Running | None:
        return next((running for running in self.running.values() if running.slot is slot), None)

    def _folder_of(self, number: int) -> Path:
        return trial_folder(self.definition.folder, number)

    def _count_signal(self, number: int, frame: FrameType | None) -> None:
        """Count Ctrl-C; whoever sends another signal does not wait for trials to come to their end."""
        self.signals += 1 if number == signal.SIGINT else 2
