"""What of a run's record and numbers is for everybody: enough to reproduce it, nothing of this machine or its user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lorasweep.local_files import short_names
from lorasweep.means import COMPUTE, KERNELS
from lorasweep.versions import SCHEMA_VERSION

AS_THEY_ARE = (
    "seeds", "code", "constraints", "python", "device", "numerics", "start", "steps", "choices",
)  # fmt: skip
NUMBERS = ("step", "train/", "eval/", "tokens/", "objective")
"""How the names of the numbers begin that are pushed of every step."""


def public_record(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without paths, accounts, names of files and of packages that compute nothing.

    `values` is the config as it is pushed.
    """
    found = {name: record[name] for name in AS_THEY_ARE if name in record}
    found["config"] = {"schema_version": SCHEMA_VERSION, "values": dict(values)}
    found["packages"] = {name: value for name, value in record.get("packages", {}).items() if COMPUTE.match(name)}
    found |= {name: dict(part) for name, part in _parts(record) if part}
    return found


def public_numbers(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the lines of metrics.jsonl with what a reproduction is compared by."""
    for line in lines:
        yield {name: value for name, value in line.items() if name.startswith(NUMBERS)}


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    data, hardware, environment = (record.get(name, {}) for name in ("data", "hardware", "environment"))
    names = short_names(data.get("files", {}))
    yield "data", {**data, "files": {names[path]: value for path, value in data.get("files", {}).items()}}
    yield "model", _without(record.get("model", {}), "location")
    yield "tokenizer", _without(record.get("tokenizer", {}), "location")
    yield "adapter", _without(record.get("adapter", {}), "location")
    yield "git", _without(record.get("git", {}), "changed")
    gpu = {"gpu": _without(hardware["gpu"], "uuid")} if "gpu" in hardware else {}
    yield "hardware", {**hardware, **gpu}
    set_there = {name: value for name, value in environment.get("variables", {}).items() if name in KERNELS}
    yield "environment", {"libc": environment["libc"], "variables": set_there} if environment else {}


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
