"""Versions of the config schema: what an older run.yaml says is read as what it meant, a newer one is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorasweep.rules import Problem, UserError

SCHEMA_VERSION = 1
"""Raise it with a migration when an option gets another name, place or meaning; a new option needs neither."""
KEY = "schema_version"
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version, what makes the values of a config those of the next one."""


def versioned(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config with the version of their schema, as they are saved."""
    return {KEY: SCHEMA_VERSION, **values}


def current(saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return saved values as this version has them; raises UserError for those of a newer one.

    Files without a version are older than versions are, and of the first.
    """
    values = dict(saved)
    version = values.pop(KEY, 1)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        allowed = f"{SCHEMA_VERSION} or less: a newer lorasweep has written {path}, and reads it"
        raise UserError(Problem(KEY, version, allowed))
    for number in range(version, SCHEMA_VERSION):
        values = MIGRATIONS[number](values)
    return values
