"""What would be recorded of a run if it began here and now, as far as that is known without loading it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lorasweep import hub
from lorasweep.continuation import origin
from lorasweep.environment import environment
from lorasweep.input_files import data_files, is_made, model_facts, tokenizer_facts
from lorasweep.means import KERNELS
from lorasweep.record import surroundings
from lorasweep.schema import Run

THREADS = "OMP_NUM_THREADS"


def taken_over(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables that a run is reproduced with because its record has them.

    What is set here already is left as it is, and then shows as a difference.
    """
    before = record.get("environment", {}).get("variables", {})
    found = {name: before[name] for name in KERNELS if name in before}
    if threads := record.get("device", {}).get("threads"):
        found[THREADS] = str(threads)
    return {name: value for name, value in found.items() if name not in os.environ}


def present_record(run: Run, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a record that needs neither torch nor the rows."""
    known = {**os.environ, **taken_over(recorded)}
    record = surroundings(run) | {"environment": environment(known)}
    commit = hub.commit(run.data.path, "dataset", run.data.revision) if run.data.path else None
    record["data"] = {"files": data_files(run.data), "commit": commit}
    if is_made(run.model):
        record |= {"model": model_facts(run.model), "tokenizer": tokenizer_facts(run.model)}
    if run.model.adapter:
        record["adapter"] = origin(run.model.adapter)
    if (threads := known.get(THREADS, "").split(",")[0]).isdecimal():
        record["device"] = {"threads": int(threads)}
    return record
