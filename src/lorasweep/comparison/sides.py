"""The runs that are compared, and what all comparisons read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Any

from lorasweep.learning import Learning, learning
from lorasweep.listing.processes import writers
from lorasweep.places import NamedRun, find_run
from lorasweep.results import UNFINISHED, RunResults, flat, read_results
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run

MOST = len(ascii_uppercase)


@dataclass(frozen=True)
class Side:
    """One of the runs, called A, B, C … in what is shown."""

    letter: str
    named: NamedRun
    results: RunResults
    state: str

    @property
    def run(self) -> Run:
        """Return its config."""
        return self.results.run

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return its config by dotted key."""
        return flat(asdict(self.run))

    @cached_property
    def judged(self) -> dict[str, Any] | None:
        """Return the evaluation that stands for it."""
        return self.results.judged

    @cached_property
    def learning(self) -> Learning:
        """Return its learning curve."""
        return learning(self.results)

    @property
    def splits(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what is recorded of its rows, by split."""
        splits: Mapping[str, Mapping[str, Any]] = self.results.record.get("data", {}).get("splits", {})
        return splits

    @property
    def supervised_tokens(self) -> int | None:
        """Return how much it has learnt from: the budget, once it has ended."""
        known = self.results.summary.get("tokens/supervised")
        return int(known) if known else int(self.learning.training[-1][0]) if self.learning.training else None


def open_sides(given: list[str], storage: str | None = None) -> list[Side]:
    """Return the runs that are meant, the first the one that the others are compared with."""
    if not 2 <= len(given) <= MOST:
        raise UserError(Problem("RUN", " ".join(given), f"2 to {MOST} runs; lorasweep show describes a single one"))
    named = [find_run(item, storage) for item in given]
    folders = [item.folder.resolve() for item in named]
    if twice := [item for item, folder in zip(given, folders, strict=True) if folders.count(folder) > 1]:
        raise UserError(Problem("RUN", " ".join(given), f"different runs; {' and '.join(twice)} are the same one"))
    results = [read_results(item.folder) for item in named]
    running = writers([item.folder for item in results if item.state == UNFINISHED])
    return [
        Side(letter, item, result, _state(item, result, result.folder in running))
        for letter, item, result in zip(ascii_uppercase, named, results, strict=False)
    ]


def _state(named: NamedRun, results: RunResults, is_running: bool) -> str:
    if named.trial and named.trial.state.is_finished:
        return named.trial.state.value
    return "running" if is_running else results.state
