"""What a study tries next: trials to be run again, points that were asked for, then what is proposed; each once."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from lorasweep.rules import UserError
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import proposals
from lorasweep.study.space import Point
from lorasweep.study.store import Store
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
    """Decides what comes next; a point is composed once, and of equal configs the first alone is trained."""

    def __init__(self, definition: Definition, store: Store, view: View) -> None:
        self.definition, self.settings, self.store, self.view = definition, definition.settings, store, view
        self.directions = definition.directions()
        self.next: Next | None = None
        """What has been decided and not yet begun."""
        self.reason: str | None = None
        """Why no more is proposed, where that is not because all is tried."""
        self._again: deque[int] = deque()
        self._waiting: deque[tuple[Point, str]] = deque()
        self._keys: set[str] = set()
        """What has been tried, hashed."""
        self._points: set[str] = set()
        """Points that need not be composed again: they were tried, refused or found to be the same as another."""
        self._exhausted = False
        self._counted, self._refused = 0, 0
        """Trials that count towards the total; sampled points refused in a row."""

    def take_up(self) -> None:
        """Go on where an earlier session ended: what was tried is known, what has not ended is run again."""
        trials = self.store.trials()
        for trial in trials:
            self._points.add(_written(trial.point))
            self._keys.add(trial.key)
            self._counted += trial.kind != "added" and trial.state is not State.REFUSED
            if not trial.state.is_finished:
                self.run_again(trial.number)
        if self.settings.baseline and not any(trial.kind == "baseline" for trial in trials):
            self._waiting.append((self.definition.space.baseline(), "baseline"))
        begun = [trial.point for trial in trials if trial.kind == "enqueued"]
        self._waiting += [(dict(point), "enqueued") for point in self.settings.enqueue if dict(point) not in begun]

    @property
    def waits_for_baseline(self) -> bool:
        """Whether nothing may be added yet, because it would be trial 0."""
        return self.settings.baseline and not self.store.frozen()

    def run_again(self, number: int) -> None:
        """Have a trial that has not ended begin again, before anything new."""
        self._again.append(number)

    def add(self, point: Point) -> None:
        """Keep a point that was asked for as a trial that has yet to begin, so that it outlives this session."""
        if found := self._untried(point, "added"):
            number = self.store.create(point, found.composed.key, "added", State.INTERRUPTED)
            self.run_again(number)
            self.view.say(f"added {words(point)} as trial {number}")

    def decide(self) -> bool:
        """Decide what comes next, unless that is decided; return whether there is anything."""
        while self.next is None and self._again:
            self.next = self._taken_up(self._again.popleft())
        while self.next is None and self._waiting and self._wants_more():
            self.next = self._untried(*self._waiting.popleft())
        while self.next is None and not self._exhausted and self._wants_more():
            self._propose()
        return self.next is not None

    def begin(self, slot: int) -> tuple[int, Composed]:
        """Make what comes next a trial in a slot; return its number and its config."""
        assert self.next
        composed, number = self.next.composed, self.next.number
        if number is None:
            number = self.store.create(self.next.point, composed.key, self.next.kind)
            self._counted += 1
        else:
            self.store.note(number, state=State.RUNNING.value, reason=None)
        begun = datetime.now().isoformat(timespec="milliseconds")
        self.store.note(number, start={"choices": composed.choices, "slot": slot, "begun": begun})
        self.next = None
        return number, composed

    def _wants_more(self) -> bool:
        """Tell whether the total leaves room; added points come on top of it, refused ones have cost nothing."""
        return self.settings.n_trials is None or self._counted < self.settings.n_trials

    def _taken_up(self, number: int) -> Next | None:
        """Return a trial that was begun before as what to try next."""
        trial = self.store.trial(number)
        try:
            return Next(self.definition.compose(trial.point), trial.point, trial.kind, number)
        except UserError as error:  # of a rule that is newer than the trial
            self._counted -= trial.kind != "added"
            self.store.finish(number, State.REFUSED, None, {"facts": {}, "reason": str(error)})
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
        composed = None
        if _written(point) not in self._points:
            self._points.add(_written(point))
            try:
                composed = self.definition.compose(point)
            except UserError as error:
                number = self.store.create(point, f"refused {_written(point)}", kind, State.REFUSED, str(error))
                self._refused += 1
                self.view.ended(self.store.trial(number))
                return None
        if composed and composed.key not in self._keys:
            self._keys.add(composed.key)
            return Next(composed, point, kind)
        if kind != "sampled":
            self.view.say(f"{kind} {words(point)}: not trained again, a trial before it is the same")
        return None


def _written(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
