"""A study as it is kept, to look at while it runs or later: without Optuna, which takes a second to import."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorasweep.rules import Problem, UserError
from lorasweep.study.folder import check_database, controller_of
from lorasweep.study.leaderboard import ranked
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial, as_kept

SESSION, DONE = "session", "done"
"""What is kept about the last session: how many trials it wanted, and why it ended."""
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
"""Optuna's states of trials that have ended."""


@dataclass(frozen=True)
class KeptStudy:
    """A study that was read as a whole."""

    folder: Path
    attributes: dict[str, Any]
    directions: list[str]
    kept: list[Trial]
    controllers: str | None = None
    """Which processes run it now, in words, as far as a database says that they share."""

    def trials(self) -> list[Trial]:
        """Return every trial, in the order of their numbers."""
        return self.kept

    @property
    def definition(self) -> dict[str, Any]:
        """Return what all sessions of the study share, flat."""
        known: dict[str, Any] = self.attributes.get("definition", {})
        return known

    @property
    def objectives(self) -> list[str]:
        """Return the objectives as people read them: loss, not objective."""
        judged = self.definition.get("evaluation.objective", "loss")
        names = self.definition.get("hydra.sweeper.objectives", ["objective"])
        return [judged if name == "objective" else name for name in names]

    @property
    def best(self) -> Trial | None:
        """Return the best complete trial, of several objectives the first of the front."""
        complete = [trial for trial in self.kept if trial.value is not None]
        return ranked(complete, self.directions)[0] if complete else None

    @property
    def baseline(self) -> Trial | None:
        """Return the trial of the config as it stands."""
        return next((trial for trial in self.kept if trial.kind == "baseline"), None)

    @property
    def counts(self) -> Counter[State]:
        """Return how many trials there are in each state."""
        return Counter(trial.state for trial in self.kept)

    @property
    def total(self) -> int | None:
        """Return how many trials its last session wanted, without added ones; None if no number ends it."""
        total: int | None = self.attributes.get(SESSION, {}).get("total")
        return total

    @property
    def done(self) -> int:
        """Return how many trials count towards the total."""
        counting = (trial for trial in self.kept if trial.state.is_finished and trial.state is not State.REFUSED)
        return sum(trial.kind != "added" for trial in counting)

    @property
    def left(self) -> int | None:
        """Return how many trials are still to come; None if that is not known."""
        if self.ended == DONE:
            return 0
        return None if self.total is None else max(self.total - self.done, 0)

    @property
    def ended(self) -> str | None:
        """Return why its last session ended: `done`, or what stopped it; None while it lasts or if it was killed."""
        ended: str | None = self.attributes.get(SESSION, {}).get("ended")
        return ended

    @property
    def process(self) -> str | None:
        """Return which process runs it now, in words, or which ones; None if none does."""
        return self.controllers or controller_of(self.folder)

    @property
    def state(self) -> str:
        """Return running, complete or unfinished."""
        if self.process:
            return "running"
        if SESSION not in self.attributes:  # begun by a version that did not keep it
            return "unfinished" if self.counts[State.INTERRUPTED] else "complete"
        return "complete" if self.ended == DONE else "unfinished"


def read_study(folder: Path, storage: str | None = None) -> KeptStudy:
    """Read a study; raises UserError where its database is elsewhere, or cannot be read."""
    study = _read(folder, storage)
    if study.process:
        return study
    # what the database has as running was, when the controller was killed
    return replace(study, kept=[_not_running(trial) for trial in study.kept])


def _not_running(trial: Trial) -> Trial:
    return replace(trial, state=State.INTERRUPTED) if trial.state is State.RUNNING else trial


def _read(folder: Path, storage: str | None) -> KeptStudy:
    if storage:
        return _through_optuna(folder, storage)
    check_database(folder)
    try:
        with closing(sqlite3.connect(f"{(folder / 'study.db').absolute().as_uri()}?mode=rw", uri=True)) as connection:
            return _from(folder, connection)
    except sqlite3.Error as error:
        allowed = f"a study whose database can be read ({error})"
        raise UserError(Problem("STUDY", str(folder), allowed)) from None


def _through_optuna(folder: Path, storage: str) -> KeptStudy:
    from lorasweep.study.store import open_store

    store = open_store(folder, storage)
    try:
        names = ", ".join(other.words for other in store.others())
        return KeptStudy(folder, store.attributes, [*store.directions], store.trials(), names or None)
    finally:
        store.close()


def _from(folder: Path, connection: sqlite3.Connection) -> KeptStudy:
    studies = connection.execute("SELECT study_id, study_name FROM studies").fetchall()
    if len(studies) > 1:  # a file that holds other studies too, as hydra.sweeper.storage can name one
        studies = [item for item in studies if item[1] == folder.name]
    if not studies:  # it is just being made
        return KeptStudy(folder, {}, ["minimize"], [])
    which = studies[0][:1]
    ways = connection.execute("SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective", which)
    kept = connection.execute("SELECT key, value_json FROM study_user_attributes WHERE study_id = ?", which)
    attributes = {name: json.loads(text) for name, text in kept}
    return KeptStudy(folder, attributes, [way.lower() for (way,) in ways], _trials(connection, which))


def _trials(connection: sqlite3.Connection, study: tuple[int]) -> list[Trial]:
    attributes: dict[int, dict[str, Any]] = {}
    values: dict[int, list[float]] = {}
    reports: dict[int, dict[int, float]] = {}
    of_study = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = ?)"
    known = f"SELECT trial_id, key, value_json FROM trial_user_attributes WHERE {of_study}"
    for number, key, text in connection.execute(known, study):
        attributes.setdefault(number, {})[key] = json.loads(text)
    finite = f"SELECT trial_id, value FROM trial_values WHERE value_type = 'FINITE' AND {of_study}"
    for number, value in connection.execute(f"{finite} ORDER BY objective", study):
        values.setdefault(number, []).append(value)
    finite = f"SELECT trial_id, step, intermediate_value FROM trial_intermediate_values WHERE {of_study}"
    for number, step, value in connection.execute(f"{finite} AND intermediate_value_type = 'FINITE'", study):
        reports.setdefault(number, {})[step] = value
    rows = connection.execute(
        "SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials WHERE study_id = ?"
        " ORDER BY number",
        study,
    )
    return [
        as_kept(
            number,
            attributes[key],
            values.get(key),
            _local(start),
            _local(end),
            state in FINISHED,
            reports.get(key, {}),
        )
        for key, number, state, start, end in rows
    ]


def _local(written: str | None) -> datetime | None:
    """Return a time as Optuna does: local, of a database that has it in UTC."""
    return datetime.fromisoformat(written).replace(tzinfo=UTC).astimezone().replace(tzinfo=None) if written else None
