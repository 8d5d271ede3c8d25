"""A study in Optuna's storage, opened by its controller alone. Nothing else here knows how trials are kept."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from lorasweep.rules import Problem, UserError, nearest
from lorasweep.study.folder import check_database
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Direction
from lorasweep.study.space import Choice, Dimension, Point, Space
from lorasweep.study.trial import Trial, as_kept

optuna.logging.set_verbosity(optuna.logging.WARNING)

SECONDS_FOR_OTHERS = 60
"""How long a SQLite file may be locked by something else, such as a copy being made; Python's own 5 are soon over."""

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


class Store:
    """Reads the trials of one study when it is opened, and writes what changes about them; nobody else does."""

    def __init__(self, url: str, name: str, directions: Sequence[Direction], space: Space) -> None:
        self.name, self.directions, self.space = name, list(directions), space
        self.storage = _storage(url)
        self._open()

    @property
    def attributes(self) -> dict[str, Any]:
        """Return what is kept about the study as a whole."""
        return self.study.user_attrs

    def keep(self, name: str, value: Any) -> None:
        """Keep something about the study as a whole."""
        self.study.set_user_attr(name, value)

    def trials(self) -> list[Trial]:
        """Return every trial, in the order of their numbers."""
        return [_trial(frozen) for frozen in self.frozen()]

    def trial(self, number: int) -> Trial:
        """Return one trial."""
        return _trial(self._frozen[number])

    def frozen(self) -> list[FrozenTrial]:
        """Return every trial as Optuna has it."""
        return self._frozen

    def create(self, point: Point, key: str, kind: str, state: State = State.RUNNING, reason: str | None = None) -> int:
        """Begin a trial, in one go with its end if it is refused; return its number."""
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
        self._frozen.append(self.storage.get_trial(self.storage.create_new_trial(self.id, template_trial=template)))
        return len(self._frozen) - 1

    def note(self, number: int, **facts: Any) -> None:
        """Keep something about a trial that runs."""
        for name, value in facts.items():
            self.storage.set_trial_user_attr(self._frozen[number]._trial_id, name, value)
            self._frozen[number].user_attrs[name] = value

    def report(self, number: int, tokens: int, value: float) -> None:
        """Keep the objective of a trial after so many supervised tokens."""
        frozen = self._frozen[number]
        if tokens not in frozen.intermediate_values:  # as it is where a trial is taken up again
            self.storage.set_trial_intermediate_value(frozen._trial_id, tokens, value)
            frozen.intermediate_values[tokens] = value

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

    def finish(self, number: int, state: State, values: list[float] | None, facts: Mapping[str, Any]) -> None:
        """End a trial for good."""
        trial_id = self._frozen[number]._trial_id
        self.note(number, end={"state": state.value, **facts})
        if state.is_infeasible:
            self.storage.set_trial_system_attr(trial_id, _constraint(state), 1.0)
        kept = values if state in (State.COMPLETE, State.PRUNED) else None
        self.storage.set_trial_state_values(trial_id, OPTUNA_STATES[state], kept)
        self._frozen[number] = self.storage.get_trial(trial_id)

    def begin_anew(self) -> None:
        """Forget what is kept about a study of which nothing has been tried."""
        optuna.delete_study(study_name=self.name, storage=self.storage)
        self._open()

    def close(self) -> None:
        """Let go of the database."""
        backend = getattr(self.storage, "_backend", self.storage)
        if isinstance(backend, RDBStorage):
            backend.remove_session()
            backend.engine.dispose()

    def _open(self) -> None:
        self.study = optuna.create_study(
            study_name=self.name, storage=self.storage, directions=self.directions, load_if_exists=True
        )
        self.id = self.study._study_id
        self._frozen = sorted(self.storage.get_all_trials(self.id), key=lambda trial: trial.number)


def open_store(folder: Path, url: str | None = None) -> Store:
    """Open the study of a folder to read it, whatever the folder is called by now."""
    path = folder / "study.db"
    if url is None:
        check_database(folder)
    try:
        storage = _storage(url or local_url(path))
        names = optuna.get_all_study_names(storage)
        name = names[0] if url is None and len(names) == 1 else folder.name
        if name not in names:
            raise UserError(Problem("STUDY", folder.name, f"a study in {url or path}", nearest(folder.name, names)))
        directions = optuna.load_study(study_name=name, storage=storage).directions
    except (SQLAlchemyError, StorageInternalError, ImportError) as error:
        words = str(getattr(error, "orig", error)).splitlines()[0]
        raise UserError(Problem("STUDY", str(folder), f"a study whose database can be read ({words})")) from None
    ways: list[Direction] = ["maximize" if way == StudyDirection.MAXIMIZE else "minimize" for way in directions]
    return Store(url or local_url(path), name, ways, Space(()))


def study_names(url: str) -> list[str]:
    """Return the names of the studies in a database."""
    return optuna.get_all_study_names(_storage(url))


def _storage(url: str) -> BaseStorage:
    """Open a database; what else reads or copies a SQLite file is waited for."""
    patient = {"connect_args": {"timeout": SECONDS_FOR_OTHERS}} if url.startswith("sqlite") else {}
    return get_storage(RDBStorage(url, engine_kwargs=patient))


def local_url(path: Path) -> str:
    """Return the address of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def make_file(path: Path) -> None:
    """Make a database without studies, whole or not at all.

    Where Optuna is killed while it makes its tables, it does not make up for what is missing: without the index that
    keeps names apart, every session begins a study of the same name.
    """
    staging = path.with_name(f".{path.name}.new")
    for rest in path.parent.glob(f"{staging.name}*"):
        rest.unlink()
    storage = RDBStorage(local_url(staging))
    storage.remove_session()
    storage.engine.dispose()
    staging.replace(path)


def check_file(path: Path) -> None:
    """Raise if a file cannot be the database of a study, whole as it was written; nothing there is fine."""
    if path.exists():
        try:
            with closing(sqlite3.connect(path)) as connection:
                ((found,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.Error as error:
            found = str(error)
        if found != "ok":
            raise UserError(Problem("study", str(path), f"a whole SQLite file ({found}); put a copy of it back"))


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn errors of the database, whenever they come, into what the user can mend."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        words = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        allowed = f"a database that can be read and written ({words}); the same command goes on with the study"
        raise UserError(Problem("hydra.sweeper.storage", url, allowed)) from None


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
