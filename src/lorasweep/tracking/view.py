"""A study's view through which its follower hears of trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from lorasweep.schema import Tracking
from lorasweep.study.definition import Definition
from lorasweep.study.outcomes import State
from lorasweep.tracking.follower import Follower
from lorasweep.tracking.subject import Subject, study_identity

if TYPE_CHECKING:
    from lorasweep.study.leaderboard import Leaderboard
    from lorasweep.study.trial import Trial
    from lorasweep.study.view import View


class Followed:
    """Passes everything on to another view, and to a follower which trials begin and how they end."""

    def __init__(self, view: View, follower: Follower) -> None:
        self.view, self.follower = view, follower
        self.began = datetime.now()
        self.open: dict[int, Subject] = {}
        """By number, the trials that W&B is told of and has not been told the end of."""

    def begin(self, slots: int) -> None:
        """Pass it on."""
        self.view.begin(slots)

    def started(self, trial: Trial, slot: int) -> None:
        """Have the trial followed."""
        self.view.started(trial, slot)
        self._follow(trial)

    def step(self, number: int, step: int, total: int) -> None:
        """Pass it on."""
        self.view.step(number, step, total)

    def reported(self, number: int, value: float) -> None:
        """Pass it on."""
        self.view.reported(number, value)

    def ended(self, trial: Trial) -> None:
        """Tell how the trial ended; of one that an earlier session left behind, whose end W&B has wrong, too."""
        self.view.ended(trial)
        if trial.number not in self.open and self._was_left_behind(trial):
            self._follow(trial)
        if subject := self.open.pop(trial.number, None):
            self.follower.end(subject, trial.state.value, trial.reason)

    def seen(self, trial: Trial) -> None:
        """Pass it on: the controller that ran the trial tells W&B."""
        self.view.seen(trial)
        self.open.pop(trial.number, None)

    def say(self, text: str) -> None:
        """Pass it on."""
        self.view.say(text)

    def tick(self) -> None:
        """Show what the follower has to say."""
        self.view.tick()
        for line in self.follower.news():
            self.view.say(line)

    def end(self, board: Leaderboard | None = None) -> None:
        """Pass it on."""
        self.view.end(board)

    def _follow(self, trial: Trial) -> None:
        try:
            subject = study_identity(self.follower.place).trial(trial)
            subject.folder.mkdir(parents=True, exist_ok=True)  # the worker makes it too, whoever is first
        except OSError:
            return  # the worker will have more to say about that
        self.follower.follow(subject)
        self.open[trial.number] = subject

    def _was_left_behind(self, trial: Trial) -> bool:
        ended_here = trial.ended is not None and trial.ended >= self.began
        return ended_here and trial.state is not State.REFUSED


@contextmanager
def followed(definition: Definition, view: View) -> Iterator[View]:
    """Give a view through which W&B learns of a study; at the end W&B gets the study as a whole."""
    tracking = Tracking(**definition.compose({}).run["tracking"])
    follower = Follower(definition.folder, tracking)
    if not follower.is_wanted:
        yield view
        return
    try:
        yield Followed(view, follower)
    finally:
        follower.summarise(definition.folder, definition.settings.storage)
        for line in follower.finish():
            view.say(line)
