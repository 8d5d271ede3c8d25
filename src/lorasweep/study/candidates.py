"""What a study tries next: trials to be run again, points that were asked for, then what is proposed; each once."""

from __future__ import annotations

import json
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from lorasweep.rules import UserError
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import proposals
from lorasweep.study.space import Point
from lorasweep.study.store import Overtaken, Store
from lorasweep.study.trial import Trial
from lorasweep.study.view import View, words

MOST_REFUSED = 100
"""Sampled points in a row that contradict themselves, after which there is no use in sampling more."""


@dataclass(frozen=True)
class Next:
    """A point, made into a config, and the number it has if it was begun before."""

    composed: Composed
    point: Point
    kind: str
    number: int | None = None


class Candidates:
    """Decides what comes next; a point is composed once, and of equal configs the first alone is trained.

    What is decided follows from the trials that there are: if another controller makes one first, it is decided anew.
    """

    def __init__(self, definition: Definition, store: Store, view: View) -> None:
        self.definition, self.settings, self.store, self.view = definition, definition.settings, store, view
        self.directions = definition.directions()
        self.next: Next | None = None
        """What has been decided and not yet begun."""
        self.reason: str | None = None
        """Why no more is proposed, where that is not because all is tried."""
        self.ended: list[Trial] = []
        """Trials that other controllers have ended, to be shown."""
        self._again: deque[int] = deque()
        self._keys: set[str] = set()
        """What has been tried, hashed."""
        self._points: set[str] = set()
        """Points that need not be composed again: they were tried, refused or found to be the same as another."""
        self._begun: set[tuple[str, str]] = set()
        """Kind and point of every trial."""
        self._counted: set[int] = set()
        """Trials that count towards the total."""
        self._exhausted, self._refused = False, 0
        """Whether nothing new is left; sampled points refused in a row."""

    def take_up(self) -> None:
        """Go on where an earlier session ended: what was tried is known, what has not ended is run again."""
        self._know(self.store.trials())
        self._again.extend(self.store.free())

    def look(self) -> None:
        """Learn what other controllers have tried, and take what they have left behind."""
        changed = [self.store.trial(number) for number in self.store.refresh()]
        self._know(changed)
        if changed and self.next and self.next.number is None:  # decided on without them
            self.next = None
        self.ended += [trial for trial in changed if trial.state.is_finished]
        self._again = deque(number for number in self._again if number in self.store.held)
        self._again.extend(self.store.free())

    @property
    def waits_for_baseline(self) -> bool:
        """Whether nothing may be added yet, because it would be trial 0."""
        return self.settings.baseline and not self.store.frozen()

    @property
    def may_come(self) -> bool:
        """Whether a trial may have to be run again that another controller runs now."""
        return bool(self.store.unfinished())

    def run_again(self, number: int) -> None:
        """Have a trial that has not ended begin again, before anything new."""
        self._again.append(number)

    def add(self, point: Point) -> None:
        """Keep a point that was asked for as a trial that has yet to begin, so that it outlives this session."""
        while True:
            try:
                if found := self._untried(point, "added"):
                    number = self._create(found, State.INTERRUPTED)
                    self.run_again(number)
                    self.view.say(f"added {words(point)} as trial {number}")
                return
            except Overtaken:
                self.look()

    def decide(self) -> bool:
        """Decide what comes next, unless that is decided; return whether there is anything."""
        while self.next is None:
            try:
                self._decide()
                break
            except Overtaken:
                self.look()
        return self.next is not None

    def begin(self, slot: int) -> tuple[int, Composed] | None:
        """Make what comes next a trial in a slot; return its number and its config.

        None: another controller was quicker, and what comes next has to be decided anew. Raises LeaseLost.
        """
        assert self.next
        chosen, self.next = self.next, None
        number = chosen.number
        if number is None:
            try:
                number = self._create(chosen)
            except Overtaken:
                self.look()
                return None
        else:
            self.store.note(number, state=State.RUNNING.value, reason=None)
        begun = datetime.now().isoformat(timespec="milliseconds")
        where = {"slot": slot, "host": socket.gethostname(), "pid": os.getpid()}
        self.store.note(number, start={"choices": chosen.composed.choices, "begun": begun, **where})
        return number, chosen.composed

    def _know(self, trials: Iterable[Trial]) -> None:
        for trial in trials:
            self._points.add(_written(trial.point))
            self._keys.add(trial.key)
            self._begun.add((trial.kind, _written(trial.point)))
            if trial.kind != "added" and trial.state is not State.REFUSED:
                self._counted.add(trial.number)
            else:
                self._counted.discard(trial.number)

    def _create(self, chosen: Next, state: State = State.RUNNING) -> int:
        number = self.store.create(chosen.point, chosen.composed.key, chosen.kind, state)
        self._know([self.store.trial(number)])
        return number

    def _decide(self) -> None:
        while self.next is None and self._again:
            self.next = self._taken_up(self._again.popleft())
        for point, kind in self._asked():
            if self.next is None and self._wants_more():
                self.next = self._untried(point, kind)
        while self.next is None and not self._exhausted and self._wants_more():
            self._propose()

    def _asked(self) -> Iterator[tuple[Point, str]]:
        """Yield the points that come first and have not been begun."""
        if self.settings.baseline and not any(kind == "baseline" for kind, _ in self._begun):
            yield self.definition.space.baseline(), "baseline"
        for point in self.settings.enqueue:
            if ("enqueued", _written(point)) not in self._begun:
                yield dict(point), "enqueued"

    def _wants_more(self) -> bool:
        """Tell whether the total leaves room; added points come on top of it, refused ones have cost nothing."""
        return self.settings.n_trials is None or len(self._counted) < self.settings.n_trials

    def _taken_up(self, number: int) -> Next | None:
        """Return a trial that was begun before as what to try next, unless another controller has taken it."""
        if not self.store.claim(number):
            return None
        trial = self.store.trial(number)
        try:
            return Next(self.definition.compose(trial.point), trial.point, trial.kind, number)
        except UserError as error:  # of a rule that is newer than the trial
            self.store.finish(number, State.REFUSED, None, {"facts": {}, "reason": str(error)})
            self._know([self.store.trial(number)])
            self.view.ended(self.store.trial(number))
            return None

    def _propose(self) -> None:
        """Find a point that was not tried; one that is refused is history, from which what comes next follows."""
        if self._refused >= MOST_REFUSED and self.settings.sampler != "grid":
            self.reason, self._exhausted = f"{MOST_REFUSED} sampled points in a row were refused", True
            return
        refused = self._refused
        for point in proposals(self.settings, self.definition.space, self.store.frozen(), self.directions):
            self.next = self._untried(point, "sampled")
            if self.next:
                self._refused = 0
            if self.next or self._refused > refused:
                return
        self._exhausted = True

    def _untried(self, point: Point, kind: str) -> Next | None:
        """Return a point as what to try next; None if an equal one was tried, or its values contradict each other."""
        if _written(point) not in self._points:
            try:
                composed = self.definition.compose(point)
            except UserError as error:
                number = self.store.create(point, f"refused {_written(point)}", kind, State.REFUSED, str(error))
                self._know([self.store.trial(number)])
                self._refused += 1
                self.view.ended(self.store.trial(number))
                return None
            if composed.key not in self._keys:
                return Next(composed, point, kind)
            self._points.add(_written(point))
        self._begun.add((kind, _written(point)))
        if kind != "sampled":
            self.view.say(f"{kind} {words(point)}: not trained again, a trial before it is the same")
        return None


def _written(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
