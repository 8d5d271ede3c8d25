"""A check and a reproduction as JSON takes them; the keys are documented in docs/reproduce.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lorasweep.places import short
from lorasweep.record import write_json
from lorasweep.reproduce import Check, Reproduction

RESULT = "reproduction.json"
"""In the folder of a run that reproduces another."""


def values_of(known: Check) -> dict[str, Any]:
    """Return a check as JSON takes it."""
    return {
        "run": known.name,
        "folder": short(known.results.folder),
        "state": known.results.state,
        "expected": known.expected,
        **asdict(known.facts),
        "taken_over": known.taken_over,
    }


def result_of(done: Reproduction) -> dict[str, Any]:
    """Return a reproduction as JSON takes it."""
    steps, judgement = done.steps, done.judgement
    return {
        "run": done.check.name,
        "folder": short(done.check.results.folder),
        "reproduction": short(done.check.folder),
        "verdict": judgement.verdict.value,
        "reasons": judgement.reasons,
        "metric": asdict(judgement.metric) if judgement.metric else None,
        "digests": {name: {"before": was, "now": is_now} for name, (was, is_now) in judgement.digests.items()},
        "steps": {
            "compared": len(steps.compared),
            "numbers": steps.numbers,
            "missing": steps.missing(),
            "first": [item.values() for item in steps.first],
            "largest": {name: item.values() for name, item in steps.largest.items()},
        },
        **asdict(done.facts),
        "taken_over": done.check.taken_over,
    }


def keep(done: Reproduction) -> None:
    """Write what came of a reproduction into its folder."""
    write_json(done.check.folder / RESULT, result_of(done))


def as_json(values: Mapping[str, Any]) -> str:
    """Return a result as JSON."""
    return json.dumps(values, indent=1, ensure_ascii=False)
