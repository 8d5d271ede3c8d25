"""The database of a study: opened, made, and waited for while it is away; never named with its password."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, ResourceClosedError, SQLAlchemyError
from sqlalchemy.orm import Session

from lorasweep.redaction import redacted
from lorasweep.rules import Problem, UserError

SECONDS_FOR_OTHERS = 60
"""How long a SQLite file may be locked by something else, such as a copy being made; Python's own 5 are soon over."""
SECONDS_TO_CONNECT = 10
LONGEST_WAIT = 5.0
"""Seconds between two attempts to reach a database that is away; well below what a lease lasts."""
ATTEMPTS_TO_MAKE_TABLES = 8
ERRORS = (StorageInternalError, SQLAlchemyError, ImportError)
EXTRAS = {"psycopg": "postgresql"}
"""What of pyproject.toml brings a driver along."""
T = TypeVar("T")


class Database(RDBStorage):
    """Optuna's storage, of which a new trial is told in the transaction that makes it, with the study's row locked."""

    def __init__(self, url: str) -> None:
        super().__init__(url, engine_kwargs=_options(url))
        self.on_create: Callable[[Session, int, int], None] = lambda session, trial_id, number: None
        """Is told id and number of a trial; what it raises undoes the trial."""
        self.on_wait: Callable[[float], bool] | None = None
        """Waits so many seconds for a database that is away, and tells whether to go on; None: it is not waited for."""

    @property
    def is_local(self) -> bool:
        """Whether it is a file, which one controller alone may use."""
        return bool(self.engine.dialect.name == "sqlite")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give the session of this thread; what Optuna writes next is in the same transaction, and ends it."""
        session: Session = self.scoped_session()
        try:
            yield session
            session.commit()
        except BaseException:
            session.rollback()
            raise
        finally:
            session.close()

    def patiently(self, do: Callable[[], T]) -> T:
        """Do something that can be done again, as often as it takes, while the database is away."""
        wait = 0.25
        while True:
            try:
                return do()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not self._is_away(error) or self.on_wait is None or not self.on_wait(wait):
                    raise
            wait = min(wait * 2, LONGEST_WAIT)

    def close(self) -> None:
        """Let go of it."""
        self.remove_session()
        self.engine.dispose()

    def _is_away(self, error: Exception) -> bool:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        return not self.is_local and isinstance(cause, OperationalError | InterfaceError | ResourceClosedError)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Session) -> Any:
        trial = super()._get_prepared_new_trial(study_id, template_trial, session)
        self.on_create(session, int(trial.trial_id), int(trial.number))
        return trial


def made(url: str, make: Callable[[], T]) -> T:
    """Do what makes tables where there are none.

    Of several processes that make them at the same time one succeeds; the others find them when they try again.
    """
    for attempt in range(1, ATTEMPTS_TO_MAKE_TABLES):
        try:
            return make()
        except (SQLAlchemyError, StorageInternalError, AssertionError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else error
            if isinstance(cause, OperationalError | ArgumentError) or is_file(url):
                raise
            time.sleep(random.uniform(0.05, 0.3) * attempt)
    return make()


def study_names(url: str) -> list[str]:
    """Return the names of the studies in a database."""
    database = made(url, lambda: Database(url))
    try:
        return optuna.get_all_study_names(database)
    finally:
        database.close()


def local_url(path: Path) -> str:
    """Return the address of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def is_file(url: str) -> bool:
    """Tell whether an address is that of a SQLite file."""
    return url.startswith("sqlite")


def make_file(path: Path) -> None:
    """Make a database without studies, whole or not at all.

    Where Optuna is killed while it makes its tables, it does not make up for what is missing: without the index that
    keeps names apart, every session begins a study of the same name.
    """
    staging = path.with_name(f".{path.name}.new")
    for rest in path.parent.glob(f"{staging.name}*"):
        rest.unlink()
    Database(local_url(staging)).close()
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
    except ERRORS as error:
        allowed = (
            f"a database that can be read and written ({reason(error, url)}); the same command goes on with the study"
        )
        raise UserError(Problem("hydra.sweeper.storage", redacted(url), allowed)) from None


def reason(error: Exception, url: str) -> str:
    """Return in a line why a database cannot be used, and what brings its driver along."""
    cause = error.__cause__ if isinstance(error, StorageInternalError | ImportError) and error.__cause__ else error
    words = redacted(str(getattr(cause, "orig", None) or cause).splitlines()[0])
    if isinstance(cause, ImportError) and (extra := _extra(url)):
        words += f": pip install -c constraints.txt -e '.[{extra}]'"
    return words


def _extra(url: str) -> str | None:
    _, _, driver = url.partition("://")[0].partition("+")
    return EXTRAS.get(driver)


def _options(url: str) -> dict[str, Any]:
    """Return what the engine is made with: who else uses a SQLite file is waited for, a dead server not for long."""
    if is_file(url):
        return {"connect_args": {"timeout": SECONDS_FOR_OTHERS}}
    driver = make_url(url).drivername
    if driver in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        patience = {"connect_timeout": SECONDS_TO_CONNECT, "tcp_user_timeout": 2000 * SECONDS_TO_CONNECT}
        return {"pool_pre_ping": True, "connect_args": patience}
    return {"pool_pre_ping": True}
