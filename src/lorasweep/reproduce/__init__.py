"""The command reproduce: what is not as it was when a run was recorded; the run again; and whether it is the same."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorasweep import determinism
from lorasweep.places import RUNS, find_run, is_run
from lorasweep.record import Launch, slug, values_hash
from lorasweep.reproduce.composing import composed
from lorasweep.reproduce.drift import Comparison, compared, gone_on_otherwise
from lorasweep.reproduce.facts import Weight, facts
from lorasweep.reproduce.present import THREADS, present_record, taken_over
from lorasweep.results import RunResults, read_json, read_results
from lorasweep.schema import Run

if TYPE_CHECKING:
    from lorasweep.reproduce.console import Reporter
    from lorasweep.reproduce.steps import Steps
    from lorasweep.reproduce.verdict import Judgement


@dataclass(frozen=True)
class Check:
    """A recorded run, the run that it would be here and now, and what differs between the two."""

    name: str
    results: RunResults
    run: Run
    folder: Path
    """Where it would be trained."""
    facts: Comparison
    taken_over: dict[str, str]
    """Environment variables that are set as they are recorded."""

    @property
    def expected(self) -> str:
        """Return what a reproduction can come to at best."""
        if self.facts.of(Weight.INPUT):
            return "not comparable"
        repeats = self.run.deterministic or self.results.record.get("device", {}).get("kind") != "cuda"
        return "exact" if repeats and self.is_same else "equivalent"

    @property
    def is_same(self) -> bool:
        """Whether nothing is another that could matter."""
        return all(item.weight is Weight.NOTE for item in self.facts.drift)


@dataclass(frozen=True)
class Reproduction:
    """A run that was trained again, compared with the first."""

    check: Check
    facts: Comparison
    """As `check.facts`, of all that is known once the run has been loaded."""
    steps: Steps
    judgement: Judgement


def check(given: str, overrides: Sequence[str], out: Path | None = None, storage: str | None = None) -> Check:
    """Compare what is recorded of a run with what is here, in about a second."""
    named = find_run(given, storage)
    results = read_results(named.folder)
    folder = out or RUNS / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{uuid.uuid4().hex[:4]}"
    run = composed(results, overrides, folder.absolute())
    if not any(text.startswith("name=") for text in overrides):
        run.name = slug(f"reproduction of {named.name}")
    return Check(named.name, results, run, folder, drift(results, run), taken_over(results.record))


def drift(results: RunResults, run: Run) -> Comparison:
    """Compare what is recorded of a run with what would be recorded of another one that began here and now."""
    return _compared(results, present_record(run, results.record))


def reproduce(known: Check, overrides: Sequence[str], reporter: Reporter) -> Reproduction:
    """Train a run again and compare it with what is recorded, step by step and at its end."""
    os.environ |= known.taken_over
    determinism.prepare(known.run.deterministic)
    import torch

    from lorasweep.preflight import check_inputs
    from lorasweep.reproduce.host import Reproducing
    from lorasweep.run import train

    if THREADS in known.taken_over:  # which torch, if it was loaded before, does not know of
        torch.set_num_threads(int(known.taken_over[THREADS]))
    check_inputs(known.run)
    results, steps = known.results, _steps(known.results, known.facts)
    record = results.record
    origin = {"run": known.name, "folder": str(results.folder.absolute()), "record": values_hash(record)}
    host = Reproducing(
        known.folder,
        steps,
        results.state,
        lambda: reporter.loaded(known, _facts_of(results, known.folder)),
        reporter.differs,
    )
    launch = Launch(known.folder, list(overrides), record.get("choices", {}), {"reproduces": origin})
    train(known.run, launch, host)
    if not is_run(known.folder):  # stopped before it began
        raise KeyboardInterrupt
    return _judged(known, steps, known.folder)


def compare(given: str, other: str, storage: str | None = None) -> Reproduction:
    """Compare a run with one that has reproduced it before."""
    named, folder = find_run(given, storage), find_run(other, storage).folder
    results, again = read_results(named.folder), read_results(folder)
    known = Check(named.name, results, again.run, folder, _facts_of(results, folder), {})
    steps = _steps(results, known.facts)
    steps.take(again.metrics)
    return _judged(known, steps, folder)


def _judged(known: Check, steps: Steps, folder: Path) -> Reproduction:
    from lorasweep.reproduce.verdict import judge

    comparison = _facts_of(known.results, folder)
    return Reproduction(known, comparison, steps, judge(known.results, read_results(folder), comparison, steps))


def _facts_of(results: RunResults, folder: Path) -> Comparison:
    """Compare what is recorded of a run with the record of another."""
    return _compared(results, read_json(folder / "record.json"))


def _compared(results: RunResults, record: Mapping[str, Any]) -> Comparison:
    found = compared(facts(results.record, results.config), facts(record, {}))
    return replace(found, drift=[*gone_on_otherwise(results.record), *found.drift])


def _steps(results: RunResults, comparison: Comparison) -> Steps:
    from lorasweep.reproduce.steps import Steps

    other_means = any(item.name == "train.log_every" for item in comparison.drift)
    return Steps.of(results.metrics, "train/" if other_means else None)
