"""Which controller a trial belongs to: leases in the study's database, which end when a controller is silent.

A controller is alive as long as its row is there: it renews the row, and whoever finds one that was not renewed in time
removes it. All times are the database's. A trial whose controller has no row is free to be taken.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from lorasweep.study.database import Database

TABLES = sql.MetaData()
CONTROLLERS = sql.Table(
    "lorasweep_controllers",
    TABLES,
    sql.Column("holder", sql.String(32), primary_key=True),
    sql.Column("study_id", sql.Integer, nullable=False, index=True),
    sql.Column("host", sql.String(255), nullable=False),
    sql.Column("pid", sql.Integer, nullable=False),
    sql.Column("began", sql.Double, nullable=False),
    sql.Column("renewed", sql.Double, nullable=False),
    sql.Column("seconds", sql.Double, nullable=False),
    sql.Column("is_to_stop", sql.Boolean, nullable=False, default=False),
)
LEASES = sql.Table(
    "lorasweep_leases",
    TABLES,
    sql.Column("trial_id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("holder", sql.String(32), nullable=False),
)
STUDIES = sql.table("studies", sql.column("study_id"))
TRIALS = sql.table("trials", sql.column("trial_id"), sql.column("state"))
NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "cast(extract(epoch from clock_timestamp()) as double precision)",
    "mysql": "unix_timestamp(now(6))",
    "mariadb": "unix_timestamp(now(6))",
}
"""Seconds since 1970, by the clock of the database."""


class LeaseLost(Exception):
    """A trial belongs to another controller: what this one knows of it is written nowhere."""


@dataclass(frozen=True)
class Other:
    """A controller that is alive."""

    holder: str
    host: str
    pid: int

    @property
    def words(self) -> str:
        """Return which it is."""
        return f"process {self.pid} on {self.host}"


class Leases:
    """What one controller, or one that only looks, knows and says of leases."""

    def __init__(self, database: Database) -> None:
        self.database, self.holder = database, uuid.uuid4().hex
        self._now: sql.TextClause = sql.text(NOW[database.engine.dialect.name])
        self._in_touch_since: float | None = None
        """Since when, by this host's clock, the database has answered without a break."""
        TABLES.create_all(database.engine)

    def join(self, session: Session, study: int, seconds: float) -> None:
        """Become a controller of a study; raises KeyError if it has just been removed."""
        self.lock(session, study)
        session.execute(sql.delete(CONTROLLERS).where(CONTROLLERS.c.holder == self.holder))
        row = {"holder": self.holder, "study_id": study, "host": socket.gethostname()[:255], "pid": os.getpid()}
        session.execute(sql.insert(CONTROLLERS).values(**row, began=self._now, renewed=self._now, seconds=seconds))
        self._in_touch_since = time.monotonic()

    def renew(self, study: int, seconds: float) -> bool:
        """Stay alive, for so many seconds; return whether to stop. Whoever was taken for dead comes back."""
        mine = CONTROLLERS.c.holder == self.holder
        with self.database.transaction() as session:
            change = sql.update(CONTROLLERS).where(mine).values(renewed=self._now, seconds=seconds)
            if not session.execute(change).rowcount:  # type: ignore[attr-defined]
                self.join(session, study, seconds)
            return bool(session.scalar(sql.select(CONTROLLERS.c.is_to_stop).where(mine)))

    def leave(self) -> None:
        """Be a controller no more: what it had is free."""
        with self.database.transaction() as session:
            session.execute(sql.delete(CONTROLLERS).where(CONTROLLERS.c.holder == self.holder))

    def was_away(self) -> None:
        """Take note that the database did not answer: others could not renew their leases either."""
        self._in_touch_since = None

    def bury(self, study: int, seconds: float, all_others: bool = False) -> None:
        """Remove the controllers that have been silent for too long; not soon after the database was away."""
        now = time.monotonic()
        self._in_touch_since = self._in_touch_since or now
        if not all_others and now - self._in_touch_since < seconds:
            return
        late = sql.true() if all_others else CONTROLLERS.c.renewed + CONTROLLERS.c.seconds < self._now
        with self.database.transaction() as session:
            session.execute(sql.delete(CONTROLLERS).where(*self._others(study), late))

    def others(self, study: int, session: Session | None = None) -> list[Other]:
        """Return the other controllers of a study that have renewed their leases in time."""
        if session is None:
            with self.database.transaction() as session:
                return self.others(study, session)
        columns = (CONTROLLERS.c.holder, CONTROLLERS.c.host, CONTROLLERS.c.pid)
        alive = CONTROLLERS.c.renewed + CONTROLLERS.c.seconds >= self._now
        return [Other(*row) for row in session.execute(sql.select(*columns).where(*self._others(study), alive))]

    def tell_to_stop(self, study: int) -> None:
        """Have all controllers of a study start no more trials."""
        with self.database.transaction() as session:
            session.execute(sql.update(CONTROLLERS).where(CONTROLLERS.c.study_id == study).values(is_to_stop=True))

    def held_by_others(self, study: int, trials: Collection[int]) -> set[int]:
        """Return which of these trials, by their ids, belong to controllers that have not been removed."""
        held = sql.select(LEASES.c.trial_id).join(CONTROLLERS, CONTROLLERS.c.holder == LEASES.c.holder)
        with self.database.transaction() as session:
            found = session.scalars(held.where(*self._others(study), LEASES.c.trial_id.in_(trials)))
            return set(found) if trials else set()

    def lost(self, trials: Collection[int]) -> set[int]:
        """Return which of these trials, by their ids, another controller has taken."""
        mine = sql.select(LEASES.c.trial_id).where(LEASES.c.holder == self.holder, LEASES.c.trial_id.in_(trials))
        with self.database.transaction() as session:
            return set(trials) - set(session.scalars(mine)) if trials else set()

    def begin(self, session: Session, trial: int) -> None:
        """Take a trial that is being made."""
        session.execute(sql.delete(LEASES).where(LEASES.c.trial_id == trial))
        session.execute(sql.insert(LEASES).values(trial_id=trial, holder=self.holder))

    def claim(self, trial: int) -> bool:
        """Take a trial that has not ended and is free; return whether it is this controller's now."""
        this = LEASES.c.trial_id == trial
        try:
            with self.database.transaction() as session:
                holder = session.scalar(sql.select(LEASES.c.holder).where(this).with_for_update())
                state = session.scalar(sql.select(TRIALS.c.state).where(TRIALS.c.trial_id == trial))
                alive = sql.select(CONTROLLERS.c.holder).where(CONTROLLERS.c.holder == holder)
                if state != "RUNNING" or (holder not in (None, self.holder) and session.scalar(alive)):
                    return False
                if holder is None:  # of a study from before there were leases
                    session.execute(sql.insert(LEASES).values(trial_id=trial, holder=self.holder))
                else:
                    session.execute(sql.update(LEASES).where(this).values(holder=self.holder))
                return True
        except IntegrityError:  # another was quicker
            return False

    def check(self, session: Session, trial: int) -> None:
        """Raise LeaseLost unless a trial is this controller's, which it stays until the transaction ends."""
        this = LEASES.c.trial_id == trial
        if session.scalar(sql.select(LEASES.c.holder).where(this).with_for_update()) != self.holder:
            raise LeaseLost

    def lock(self, session: Session, study: int) -> None:
        """Hold the row of a study until the transaction ends; raises KeyError if it is not there."""
        if session.scalar(sql.select(STUDIES.c.study_id).where(STUDIES.c.study_id == study).with_for_update()) is None:
            raise KeyError(study)

    def _others(self, study: int) -> Iterator[sql.ColumnElement[bool]]:
        yield CONTROLLERS.c.study_id == study
        yield CONTROLLERS.c.holder != self.holder
