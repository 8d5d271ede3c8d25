"""From a run folder to a run of W&B's: opened, fed as the folder fills, and finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lorasweep.record import TIME
from lorasweep.results import read_json, read_results
from lorasweep.tracking.account import Account
from lorasweep.tracking.rows import Row, Rows
from lorasweep.tracking.subject import Subject

SECONDS_BETWEEN_LOOKS = 1.0
GOOD_ENDS = ("complete", "pruned")
TO_BE_CONTINUED = "interrupted"


@dataclass(frozen=True)
class Ending:
    """How a run ended, as the one who ran it knows."""

    state: str
    reason: str | None = None

    @property
    def exit_code(self) -> int:
        """Return 0 for an end that is as it should be."""
        return 0 if self.state in GOOD_ENDS else 1


def feed(
    subject: Subject,
    folder: Path,
    account: Account,
    wait: Callable[[float], Ending | None],
    opened: Callable[[Any], None] = lambda run: None,
) -> int:
    """Feed `folder` to W&B until the run has ended; return how many rows W&B did not have.

    `wait` waits so many seconds, or until the run has ended, and then returns how.
    """
    ending = None
    while ending is None and not (folder / "record.json").exists():
        ending = wait(SECONDS_BETWEEN_LOOKS)
    record = read_json(folder / "record.json")
    pid = None if ending else record.get("pid")
    rows, fed, began = Rows(folder / "metrics.jsonl"), 0, _began(record)
    name = record.get("name") or subject.name
    with account.open(subject, name, config_of(folder, subject), pid) as run, closing(rows):
        opened(run)
        while ending is None:
            fed += _log(run, rows.whole(), began)
            ending = wait(SECONDS_BETWEEN_LOOKS)
        fed += _log(run, rows_of(rows, ending), began)
        run.summary.update(summary_of(folder, ending))
        run.tags = (*account.tracking.tags, ending.state)
        account.close(run, ending.exit_code)
    return fed


def rows_of(rows: Rows, ending: Ending) -> Iterator[Row]:
    """Yield what is left of a run that has ended; without its last step if it may be continued."""
    yield from rows.whole()
    if ending.state != TO_BE_CONTINUED:
        yield from rows.last()


def config_of(folder: Path, subject: Subject) -> dict[str, Any]:
    """Return the config of a run, flat, and what a study varies: a choice of a config group is in no file."""
    config = read_results(folder).values if (folder / "run.yaml").exists() else {}
    return config | subject.values


def summary_of(folder: Path, ending: Ending) -> dict[str, Any]:
    """Return what W&B shows of a run as a whole."""
    values = read_json(folder / "summary.json")
    kept = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
    return kept | {"state": ending.state} | ({"error": ending.reason} if ending.reason else {})


def _log(run: Any, rows: Iterator[Row], began: float) -> int:
    """Log the rows that W&B does not have, with the time at which they were measured; return how many."""
    count = 0
    for step, values in rows:
        if step >= run.starting_step:
            run.log({**values, "_timestamp": began + values["seconds"]}, step=step, commit=True)
            count += 1
    return count


def _began(record: dict[str, Any]) -> float:
    return datetime.strptime(record["created"], TIME).timestamp() if record else time.time()
