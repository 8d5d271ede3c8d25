"""The process that owns a study: decides what to try, keeps every slot busy, and writes down what came of it."""

from __future__ import annotations

import bisect
import itertools
import json
import selectors
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import FrameType

from optuna.pruners import BasePruner

from lorasweep.rules import Problem, UserError
from lorasweep.study.channel import Message
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import build_pruner, proposals
from lorasweep.study.requests import take_requests
from lorasweep.study.slots import Slot
from lorasweep.study.space import Point
from lorasweep.study.store import Store, Trial
from lorasweep.study.view import View, words
from lorasweep.study.worker import OUTCOME, Outcome

SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_TO_STOP = 15.0
SECONDS_TO_DIE = 5.0
STARTS_IN_A_ROW = 3
MOST_REFUSED = 100
"""Sampled points in a row that contradict themselves, after which there is no use in sampling more."""
DEADLY_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that come from outside: nothing is wrong with a trial that one of them ended."""


class CannotStart(UserError):
    """Workers end before they have begun."""

    def __init__(self, code: int, log: Path) -> None:
        super().__init__(Problem("worker", f"exit code {code}", f"a process that starts; {log} says why it did not"))


@dataclass(frozen=True)
class Next:
    """What comes next: a point, made into a config, and the number it has if it was begun before."""

    composed: Composed
    point: Point
    kind: str
    number: int | None = None


@dataclass
class Running:
    """A trial and the slot it is in."""

    number: int
    slot: Slot
    started: float = field(default_factory=time.monotonic)
    stopped: bool = False


class Controller:
    """Runs the trials of a study until it is done, or until it is told to stop."""

    def __init__(self, definition: Definition, store: Store, slots: list[Slot], view: View) -> None:
        self.definition, self.settings, self.store = definition, definition.settings, store
        self.slots, self.view = slots, view
        self.directions = definition.directions()
        self.running: dict[int, Running] = {}
        self.again: deque[int] = deque()
        self.waiting: deque[tuple[Point, str]] = deque()
        self.next: Next | None = None
        self.keys: set[str] = set()
        """What has been tried, hashed."""
        self.points: set[str] = set()
        """Points that need not be composed again: they were tried, refused or found to be the same as another."""
        self.exhausted = False
        self.counted, self.refused = 0, 0
        """Trials that count towards the total; sampled points refused in a row."""
        self.best: list[tuple[float, int]] = []
        """The trials whose adapters are kept, best first, by what is to be minimised and number."""
        self.error: CannotStart | None = None
        self.reason: str | None = None
        """Why no trial is started any more; None while there is more to do."""
        self.pruner: BasePruner | None = None
        self.signals, self.failures, self.failed_starts = 0, 0, 0
        self.warned = False
        self.started = time.monotonic()

    def run(self) -> str | None:
        """Run to the end; return why the study ended before it was done, None if it is."""
        with self._signals():
            self._take_up()
            while True:
                self._obey()
                self._fill()
                if not self.running and (self.reason or self.next is None):
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
        trials = self.store.trials()
        for trial in trials:
            self._know(trial.point, trial.key, trial.kind)
            self.counted -= trial.state is State.REFUSED
            outcome = None if trial.state.is_finished else self._left_behind(trial.number)
            if outcome:
                self._finish(trial.number, outcome)
            elif trial.state.is_finished:
                self.view.ended(trial)
                self._clear_adapters(trial)
            else:
                self.again.append(trial.number)
        if self.settings.baseline and not any(trial.kind == "baseline" for trial in trials):
            self.waiting.append((self.definition.space.baseline(), "baseline"))
        begun = [trial.point for trial in trials if trial.kind == "enqueued"]
        self.waiting += [(dict(point), "enqueued") for point in self.settings.enqueue if dict(point) not in begun]

    def _fill(self) -> None:
        """Give every free slot a trial, or a worker to train one, as long as there is something to do."""
        busy = {running.slot.index for running in self.running.values()}
        for slot in self.slots:
            if self.reason or slot.index in busy or (slot.process and not slot.ready):
                continue
            if not self._prepare():
                return
            if slot.process is None:
                slot.start()
            else:
                self._start(slot)

    def _prepare(self) -> bool:
        """Decide what comes next, unless that is decided; return whether there is anything."""
        while self.next is None and self.again:
            self.next = self._taken_up(self.again.popleft())
        while self.next is None and self.waiting and self._wants_more():
            self.next = self._untried(*self.waiting.popleft())
        while self.next is None and not self.exhausted and not self.reason and self._wants_more():
            self._propose()
        return self.next is not None

    def _wants_more(self) -> bool:
        """Tell whether the total leaves room; added points come on top, refused ones have cost nothing."""
        return self.settings.n_trials is None or self.counted < self.settings.n_trials

    def _taken_up(self, number: int) -> Next | None:
        """Return a trial that was begun before as what to try next."""
        trial = self.store.trial(number)
        try:
            return Next(self.definition.compose(trial.point), trial.point, trial.kind, number)
        except UserError as error:  # of a rule that is newer than the trial
            self.counted -= trial.kind != "added"
            self._finish(number, Outcome(State.REFUSED, reason=str(error)))
            return None

    def _propose(self) -> None:
        """Find a point that was not tried; one that is refused is history, from which what comes next follows."""
        refused = self.refused
        for point in proposals(self.settings, self.definition.space, self.store.frozen(), self.directions):
            self.next = self._untried(point, "sampled")
            if self.next:
                self.refused = 0
                return
            if self.refused > refused:
                if self.refused >= MOST_REFUSED and self.settings.sampler != "grid":
                    self.reason = f"{MOST_REFUSED} sampled points in a row were refused"
                return
        self.exhausted = True

    def _untried(self, point: Point, kind: str) -> Next | None:
        """Return a point as what to try next; None if an equal one was tried, or its values contradict each other."""
        written = json.dumps(point, sort_keys=True)
        composed = None
        if written not in self.points:
            self.points.add(written)
            try:
                composed = self.definition.compose(point)
            except UserError as error:
                number = self.store.create(point, f"refused {written}", kind, State.REFUSED, str(error))
                self.refused += 1
                self.view.ended(self.store.trial(number))
                return None
        if composed and composed.key not in self.keys:
            return Next(composed, point, kind)
        if kind != "sampled":
            self.view.say(f"{kind} {words(point)}: not trained again, a trial before it is the same")
        return None

    def _know(self, point: Point, key: str, kind: str) -> None:
        """Remember what is being tried."""
        self.points.add(json.dumps(point, sort_keys=True))
        self.keys.add(key)
        self.counted += kind != "added"

    def _start(self, slot: Slot) -> None:
        """Begin the trial that comes next."""
        assert self.next
        composed, number = self.next.composed, self.next.number
        if number is None:
            number = self.store.create(self.next.point, composed.key, self.next.kind)
            self._know(self.next.point, composed.key, self.next.kind)
        else:
            self.store.note(number, state=State.RUNNING.value, reason=None)
        self.next = None
        begun = datetime.now().isoformat(timespec="milliseconds")
        self.store.note(number, start={"choices": composed.choices, "slot": slot.index, "begun": begun})
        folder = self.folder_of(number)
        if folder.exists():  # of an attempt that was interrupted
            folder.rename(next(place for place in _attempts(folder) if not place.exists()))
        self.running[number] = Running(number, slot)
        job = {"number": number, "folder": str(folder), "objectives": self.settings.objectives, **asdict(composed)}
        slot.send({"do": "train", **job})
        slot.heard = time.monotonic()
        self.view.started(self.store.trial(number), slot.index)

    def _listen(self) -> None:
        """Take in what workers say; wait a little if they say nothing."""
        with selectors.DefaultSelector() as selector:
            for slot in self.slots:
                if slot.channel:
                    selector.register(slot.channel, selectors.EVENT_READ, slot)
            for key, _ in selector.select(SECONDS_BETWEEN_LOOKS):
                slot = key.data
                messages = slot.channel.receive()
                if messages is None:
                    self._gone(slot)
                    continue
                slot.heard = time.monotonic()
                for message in messages:
                    self._hear(slot, message)

    def _hear(self, slot: Slot, message: Message) -> None:
        event = message["event"]
        if event == "ready":
            slot.ready, self.failed_starts = True, 0
            return
        running = self._in(slot)
        if running is None:
            return
        if event == "step":
            self.view.step(running.number, message["step"], message["total"])
        elif event == "report":
            slot.send({"do": "answer", "go_on": self._goes_on(running.number, message)})
        elif event == "outcome":
            outcome = Outcome.of(message)
            del self.running[running.number]
            self._settle(running, outcome)
            keeps = outcome.state in (State.COMPLETE, State.PRUNED) and not message["worn"]
            if self.settings.fresh_process or not keeps:
                slot.end()

    def _goes_on(self, number: int, message: Message) -> bool:
        """Keep what a trial reports and ask the pruner about it."""
        self.store.report(number, message["tokens"], message["value"])
        self.view.reported(number, message["value"])
        if self.pruner is None:
            self.pruner = build_pruner(self.settings, message["budget"])
        is_last = message["tokens"] >= message["budget"]
        return self.pruner is None or is_last or not self.store.is_worse(number, message["tokens"], self.pruner)

    def _gone(self, slot: Slot) -> None:
        """Find out what a worker died of, and of its trial whether that was to blame."""
        running, was_ready = self._in(slot), slot.ready
        code = slot.end(SECONDS_TO_DIE)
        if running is None:
            self.failed_starts += not was_ready
            if self.failed_starts >= STARTS_IN_A_ROW and not self.error:
                self.error = CannotStart(code, slot.log)
                self.reason = self.reason or "workers end before they begin"
            return
        del self.running[running.number]
        if outcome := self._left_behind(running.number):
            self._settle(running, outcome)
        elif running.stopped or -code in DEADLY_SIGNALS:
            self._killed(running, code)
        else:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._settle(running, Outcome(State.FAILED, reason=f"its process ended with {how}"))

    def _killed(self, running: Running, code: int) -> None:
        """Run a trial again whose process was killed, but not for ever."""
        if running.stopped:
            self._settle(running, Outcome(State.INTERRUPTED, reason="stopped"))
            return
        deaths = self.store.trial(running.number).deaths + 1
        self.store.note(running.number, deaths=deaths)
        reason = f"its process was killed by {signal.Signals(-code).name}"
        if deaths > self.settings.max_retries:
            self._settle(running, Outcome(State.FAILED, reason=f"{reason} {deaths} times"))
            return
        self.again.append(running.number)
        self._settle(running, Outcome(State.INTERRUPTED, reason=reason))

    def _settle(self, running: Running, outcome: Outcome) -> None:
        """Write the end of a trial down, for now or for good, and see what it means for the study."""
        seconds = round(time.monotonic() - running.started, 3)
        if not outcome.state.is_finished:
            self.store.note(running.number, state=State.INTERRUPTED.value, reason=outcome.reason)
            self.view.ended(self.store.trial(running.number))
            if not running.stopped and running.number not in self.again:  # it asks for what only the user can do
                self.reason = self.reason or outcome.reason or "a trial was interrupted"
            return
        facts = {**outcome.facts, "seconds_in_slot": seconds}
        self._finish(running.number, replace(outcome, facts=facts))
        most = self.settings.max_failures
        self.failures = self.failures + 1 if outcome.state.is_failure else 0
        if most and self.failures >= most:
            self.reason = self.reason or f"{most} trials in a row failed (hydra.sweeper.max_failures)"

    def _finish(self, number: int, outcome: Outcome) -> None:
        self.store.finish(number, outcome.state, outcome.values, {"facts": outcome.facts, "reason": outcome.reason})
        trial = self.store.trial(number)
        self.view.ended(trial)
        self._clear_adapters(trial)

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
            if silence and slot.process and not slot.ready and now - slot.heard > silence:
                slot.dump_stacks()
                self._gone(slot)
        if self.settings.timeout and now - self.started > self.settings.timeout:
            self.reason = self.reason or f"hydra.sweeper.timeout={self.settings.timeout:g} s is over"

    def _end(self, running: Running, state: State, reason: str) -> None:
        running.slot.end()
        del self.running[running.number]
        self._settle(running, self._left_behind(running.number) or Outcome(state, reason=reason))

    def _obey(self) -> None:
        """Do what signals and the commands of other terminals ask for."""
        for request in take_requests(self.definition.folder):
            if isinstance(request, Path):
                self.view.say(f"{request} is no request and is left alone")
            elif request.stop:
                self.reason = self.reason or "lorasweep stop"
            else:
                self._add(request.point)
        if self.signals and not self.warned:
            self.warned, self.reason = True, self.reason or "interrupted"
            if self.running:
                self.view.say(f"finishing {len(self.running)} running trials; once more to stop at once")
        if self.signals > 1:
            self._stop_running()

    def _add(self, point: Point) -> None:
        """Keep a point that was asked for as a trial that has yet to begin, so that it outlives this session."""
        if found := self._untried(point, "added"):
            number = self.store.create(point, found.composed.key, "added", State.INTERRUPTED)
            self._know(point, found.composed.key, "added")
            self.again.append(number)
            self.view.say(f"added {words(point)} as trial {number}")

    def _stop_running(self) -> None:
        """Stop every trial now, so that it can be run again."""
        for running in self.running.values():
            if not running.stopped:
                running.stopped, running.slot.heard = True, time.monotonic()
                running.slot.send({"do": "stop"})
        for running in list(self.running.values()):
            if self.signals > 2 or time.monotonic() - running.slot.heard > SECONDS_TO_STOP:
                self._end(running, State.INTERRUPTED, "stopped")

    def _left_behind(self, number: int) -> Outcome | None:
        """Return the outcome that a trial wrote down before anybody could hear of it."""
        try:
            outcome = Outcome.of(json.loads((self.folder_of(number) / OUTCOME).read_text()))
        except (OSError, ValueError, KeyError):
            return None
        return outcome if outcome.state.is_finished else None

    def _clear_adapters(self, trial: Trial) -> None:
        """Keep the adapters of the best trials alone; of several objectives, all."""
        most = self.settings.keep_adapters
        if trial.value is None or most is None or len(self.directions) > 1:
            return
        value = -trial.value if self.directions[0] == "maximize" else trial.value
        bisect.insort(self.best, (value, trial.number))
        for _, number in self.best[most:]:
            for name in ("adapter", "checkpoints"):
                shutil.rmtree(self.folder_of(number) / name, ignore_errors=True)
        del self.best[most:]

    def _in(self, slot: Slot) -> Running | None:
        return next((running for running in self.running.values() if running.slot is slot), None)

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.definition.folder / "trials" / str(number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def count(number: int, frame: FrameType | None) -> None:
            self.signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _attempts(folder: Path) -> Iterator[Path]:
    return (folder.with_name(f"{folder.name}.attempt{number}") for number in itertools.count(1))
