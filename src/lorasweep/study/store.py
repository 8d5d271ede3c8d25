"""A study in Optuna's storage. Nothing else here knows how trials are kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import optuna
import sqlalchemy as sql
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.storages import get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.orm import Session

from lorasweep.redaction import redacted
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.study.database import ERRORS, Database, local_url, made, reason
from lorasweep.study.folder import check_database
from lorasweep.study.leases import Leases, Other
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Direction
from lorasweep.study.space import Choice, Dimension, Point, Space
from lorasweep.study.trial import Trial, as_kept

optuna.logging.set_verbosity(optuna.logging.WARNING)

OPTUNA_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.PRUNED: TrialState.PRUNED,
    # with a violated constraint, which the samplers keep away from; a failed trial they would ignore
    State.OUT_OF_MEMORY: TrialState.PRUNED,
    State.DIVERGED: TrialState.PRUNED,
    State.REFUSED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
    State.HUNG: TrialState.FAIL,
}
ATTRIBUTES = sql.table("study_user_attributes", sql.column("study_id"), sql.column("key"), sql.column("value_json"))
P = ParamSpec("P")
T = TypeVar("T")


class Overtaken(Exception):
    """Another controller has made a trial meanwhile: what was to be tried next follows from fewer trials."""


def _patient(method: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """Have a method, which may be done again, wait for a database that is away."""

    @wraps(method)
    def patient(self: Store, /, *arguments: P.args, **named: P.kwargs) -> T:
        return self.database.patiently(lambda: method(self, *arguments, **named))

    return patient


class Store:
    """The trials of one study as they were when last looked at, and what this process changes about them."""

    def __init__(self, url: str, name: str, directions: Sequence[Direction], space: Space) -> None:
        self.name, self.directions, self.space = name, list(directions), space
        self.leases = made(url, lambda: Leases(Database(url)))
        self.database = self.leases.database
        self.database.on_create = self._lease
        self.storage = get_storage(self.database)
        self.held: set[int] = set()
        """Numbers of the trials that this process runs, or is about to."""
        self._frozen: list[FrozenTrial] = []
        self._open()

    @property
    def attributes(self) -> dict[str, Any]:
        """Return what is kept about the study as a whole."""
        return self.study.user_attrs

    @_patient
    def keep(self, name: str, value: Any) -> None:
        """Keep something about the study as a whole."""
        self.study.set_user_attr(name, value)

    def settle(self, name: str, value: Any) -> Any:
        """Keep something about the study as a whole unless it is kept already; return what is kept."""
        this = sql.select(ATTRIBUTES.c.value_json).where(ATTRIBUTES.c.study_id == self.id, ATTRIBUTES.c.key == name)
        with self.database.transaction() as session:
            self.leases.lock(session, self.id)
            before = session.scalar(this)
            if before is None:
                self.study.set_user_attr(name, value)
        return value if before is None else json.loads(before)

    def join(self, seconds: float, is_alone: bool) -> None:
        """Become a controller of the study, for so many seconds; `is_alone`: no other can be alive."""
        while True:
            try:
                with self.database.transaction() as session:
                    self.leases.join(session, self.id, seconds)
                break
            except KeyError:  # begun anew by another
                self._open()
        if is_alone:
            self.leases.bury(self.id, seconds, all_others=True)

    def begin_anew(self, seconds: float) -> None:
        """Forget what is kept about a study of which nothing has been tried, unless others have joined it."""
        with self.database.transaction() as session:
            self.leases.lock(session, self.id)
            if self.leases.others(self.id, session):
                return
            self.storage.delete_study(self.id)
        self._open()
        self.join(seconds, is_alone=False)

    @_patient
    def others(self) -> list[Other]:
        """Return the other controllers of the study that are alive."""
        return self.leases.others(self.id)

    @_patient
    def renew(self, seconds: float) -> bool:
        """Stay a controller of the study for so many seconds, and remove the dead; return whether to stop."""
        is_to_stop = self.leases.renew(self.id, seconds)
        self.leases.bury(self.id, seconds)
        return is_to_stop

    @_patient
    def tell_to_stop(self) -> None:
        """Have all controllers of the study start no more trials."""
        self.leases.tell_to_stop(self.id)

    def trials(self) -> list[Trial]:
        """Return every trial, in the order of their numbers."""
        return [_trial(frozen) for frozen in self.frozen()]

    def trial(self, number: int) -> Trial:
        """Return one trial."""
        return _trial(self._frozen[number])

    def frozen(self) -> list[FrozenTrial]:
        """Return every trial as Optuna has it."""
        return self._frozen

    @_patient
    def refresh(self) -> list[int]:
        """Look at what other controllers have done; return the numbers of trials that are new or have ended."""
        before = self._frozen
        self._frozen = self.storage.get_all_trials(self.id, deepcopy=False)
        return [
            number
            for number, trial in enumerate(self._frozen)
            if number >= len(before) or (trial is not before[number] and trial.state != before[number].state)
        ]

    def unfinished(self) -> set[int]:
        """Return the numbers of trials that have not ended and are not run by this process."""
        return {trial.number for trial in self._frozen if not trial.state.is_finished()} - self.held

    @_patient
    def free(self) -> list[int]:
        """Return the numbers of trials that have not ended and that nobody runs."""
        known = {self._frozen[number]._trial_id: number for number in sorted(self.unfinished())}
        held = self.leases.held_by_others(self.id, known.keys())
        return [number for trial, number in known.items() if trial not in held]

    @_patient
    def claim(self, number: int) -> bool:
        """Take a trial that has not ended; return whether it is this process's now."""
        trial = self._frozen[number]._trial_id
        if number not in self.held and self.leases.claim(trial):
            self._frozen[number] = self.storage.get_trial(trial)
            self.held.add(number)
        return number in self.held

    @_patient
    def lost(self) -> set[int]:
        """Return which of the trials that this process holds another has taken."""
        known = {self._frozen[number]._trial_id: number for number in self.held}
        return {known[trial] for trial in self.leases.lost(known.keys())}

    @_patient
    def create(self, point: Point, key: str, kind: str, state: State = State.RUNNING, reason: str | None = None) -> int:
        """Begin a trial, in one go with its end if it is refused; return its number.

        Raises Overtaken if there is another trial of that number by now.
        """
        known = distributions(self.space)
        inside = {
            dimension.key: encoded(dimension, point[dimension.key])
            for dimension in self.space
            if dimension.key in point and dimension.holds(point[dimension.key])
        }
        template = create_trial(
            state=OPTUNA_STATES.get(state, TrialState.RUNNING),
            params=inside,
            distributions={name: known[name] for name in inside},
            user_attrs={"state": state.value, "point": point, "key": key, "kind": kind, "reason": reason},
            system_attrs={_constraint(state): 1.0} if state.is_infeasible else {},
        )
        number = len(self._frozen)
        self._frozen.append(self.storage.get_trial(self.storage.create_new_trial(self.id, template_trial=template)))
        if state is State.RUNNING:
            self.held.add(number)
        return number

    @_patient
    def note(self, number: int, /, **facts: Any) -> None:
        """Keep something about a trial that runs; raises LeaseLost."""
        for name, value in facts.items():
            with self._owned(number) as trial:
                self.storage.set_trial_user_attr(trial, name, value)
            self._frozen[number].user_attrs[name] = value

    @_patient
    def report(self, number: int, tokens: int, value: float) -> None:
        """Keep the objective of a trial after so many supervised tokens; raises LeaseLost."""
        if tokens not in self._frozen[number].intermediate_values:  # as it is where a trial is taken up again
            with self._owned(number) as trial:
                self.storage.set_trial_intermediate_value(trial, tokens, value)
            self._frozen[number].intermediate_values[tokens] = value

    @_patient
    def is_worse(self, number: int, tokens: int, pruner: BasePruner, due: int) -> bool:
        """Ask a pruner about a trial that has just reported its value after so many tokens.

        `due`: the tokens after which the report was due; asha's rungs count these, the median those of equal reports.
        """
        frozen = copy.copy(self.storage.get_trial(self._frozen[number]._trial_id))
        # not what an attempt that was interrupted has reported later
        frozen.intermediate_values = {
            step: value for step, value in frozen.intermediate_values.items() if step <= tokens
        }
        if isinstance(pruner, SuccessiveHalvingPruner):
            frozen.intermediate_values = {due: frozen.intermediate_values[tokens]}
        return pruner.prune(self.study, frozen)

    @_patient
    def finish(self, number: int, state: State, values: list[float] | None, facts: Mapping[str, Any]) -> None:
        """End a trial for good; raises LeaseLost."""
        trial_id = self._frozen[number]._trial_id
        with self.database.transaction() as session:
            self.leases.check(session, trial_id)
        if not self.storage.get_trial(trial_id).state.is_finished():  # as where the database went before it said so
            self.note(number, end={"state": state.value, **facts})
            if state.is_infeasible:
                with self._owned(number):
                    self.storage.set_trial_system_attr(trial_id, _constraint(state), 1.0)
            kept = values if state in (State.COMPLETE, State.PRUNED) else None
            with self._owned(number):
                self.storage.set_trial_state_values(trial_id, OPTUNA_STATES[state], kept)
        self._frozen[number] = self.storage.get_trial(trial_id)
        self.held.discard(number)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    @contextmanager
    def _owned(self, number: int) -> Iterator[int]:
        """Give the id of a trial for what Optuna writes next; raises LeaseLost, and nothing is written."""
        trial = self._frozen[number]._trial_id
        with self.database.transaction() as session:
            self.leases.check(session, trial)
            yield trial

    def _lease(self, session: Session, trial_id: int, number: int) -> None:
        """Take a trial that is being made, if it is the one that was decided on."""
        if number != len(self._frozen):
            raise Overtaken
        self.leases.begin(session, trial_id)

    def _open(self) -> None:
        while True:
            try:
                self.study = optuna.create_study(
                    study_name=self.name, storage=self.storage, directions=self.directions, load_if_exists=True
                )
                self.id = self.study._study_id
                self._frozen = self.storage.get_all_trials(self.id, deepcopy=False)
            except KeyError:  # another controller has just begun it anew
                continue
            return


def open_store(folder: Path, url: str | None = None) -> Store:
    """Open the study of a folder to read it, whatever the folder is called by now."""
    path = folder / "study.db"
    if url is None:
        check_database(folder)
    address = url or local_url(path)
    try:
        database = made(address, lambda: Database(address))
        names = optuna.get_all_study_names(database)
        name = names[0] if url is None and len(names) == 1 else folder.name
        if name not in names:
            raise UserError(
                Problem("STUDY", folder.name, f"a study in {redacted(url or str(path))}", nearest(folder.name, names))
            )
        directions = optuna.load_study(study_name=name, storage=database).directions
        database.close()
    except ERRORS as error:
        allowed = f"a study whose database can be read ({reason(error, address)})"
        raise UserError(Problem("STUDY", str(folder), allowed)) from None
    ways: list[Direction] = ["maximize" if way == StudyDirection.MAXIMIZE else "minimize" for way in directions]
    return Store(address, name, ways, Space(()))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the space as Optuna describes it."""
    return {dimension.key: distribution(dimension) for dimension in space}


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a dimension as Optuna describes it."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution([encoded(dimension, value) for value in dimension.options])
    values = dimension.values()
    # steps may end below its high end
    low, high = (values[0], values[-1]) if values else (dimension.low, dimension.high)
    if dimension.is_int:
        step = int(dimension.step or 1)
        return IntDistribution(int(low), int(high), log=dimension.log, step=step)
    return FloatDistribution(float(low), float(high), log=dimension.log, step=dimension.step)


def encoded(dimension: Dimension, value: Any) -> Any:
    """Return a value as Optuna keeps it: lists and other structures as text."""
    return repr(value) if isinstance(dimension, Choice) and isinstance(value, list | dict) else value


def decoded(dimension: Dimension, value: Any) -> Any:
    """Return a value as the config takes it: of a list the list, of a number a short one."""
    if isinstance(dimension, Choice):
        return next(option for option in dimension.options if encoded(dimension, option) == value)
    return dimension.rounded(value) if isinstance(value, float) else value


def _constraint(state: State) -> str:
    return f"constraints:{state.value}"


def _trial(frozen: FrozenTrial) -> Trial:
    return as_kept(
        frozen.number,
        frozen.user_attrs,
        frozen.values,
        frozen.datetime_start,
        frozen.datetime_complete,
        # otherwise its end was being written down when the controller died
        has_ended=frozen.state.is_finished(),
        reports=frozen.intermediate_values,
    )
