"""What a controller has to do with the other controllers of its study, all of it through the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lorasweep.study.candidates import Candidates
from lorasweep.study.store import Store
from lorasweep.study.view import View

RENEWALS = 3
"""Times that a lease is renewed before it would run out."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At what others have done; a trial takes far longer."""
SECONDS_OF_A_PAUSE = 0.1


class Company:
    """Keeps this controller's leases, looks for what others have done or left, and waits when the database is away."""

    def __init__(self, store: Store, candidates: Candidates, seconds: float, view: View) -> None:
        self.store, self.candidates, self.seconds, self.view = store, candidates, seconds, view
        self.has_others = False
        self._lost: set[int] = set()
        self._renewed = self._looked = -seconds
        self._is_away = False

    def meet(self) -> bool:
        """Renew this controller's lease and look at the others, if it is time; return whether to stop."""
        is_to_stop = False
        if time.monotonic() - self._renewed >= self.seconds / RENEWALS:
            is_to_stop = self.store.renew(self.seconds)
            self._renewed = time.monotonic()
            self.has_others = bool(self.store.others())
            self._lost = self.store.lost()
            if self._is_away:
                self._is_away = False
                self.view.say("the database answers again")
        is_shared = self.has_others or self.candidates.may_come
        if is_shared and time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self.candidates.look()
            self._looked = time.monotonic()
        return is_to_stop

    def lost(self) -> set[int]:
        """Return the trials that another controller has taken from this one, once."""
        lost, self._lost = self._lost & self.store.held, set()
        return lost

    @contextmanager
    def waited_for(self, pause: Callable[[float], bool]) -> Iterator[None]:
        """Wait for a database that is away, as long as `pause`, which passes so many seconds, says to go on."""

        def wait(seconds: float) -> bool:
            if not self._is_away:
                self._is_away = True
                self.view.say("the database does not answer: running trials go on, and it is tried again until it does")
            self.store.leases.was_away()
            self._renewed = -self.seconds
            return pause(seconds)

        self.store.database.on_wait = wait
        try:
            yield
        finally:
            self.store.database.on_wait = None
