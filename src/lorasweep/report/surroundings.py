"""What a study was run with: model, data, budget, search, machine, code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorasweep.results import RunResults

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "optuna")
SEARCH = ("sampler", "pruner")


def surroundings(definition: Mapping[str, Any], runs: Sequence[RunResults]) -> list[tuple[str, str]]:
    """Return a heading and a line for everything that is known."""
    record = next((run.record for run in runs if run.record), {})
    lines = [
        ("model", _words(_model(definition))),
        ("data", _words(_data(definition, record))),
        ("budget", _words(_budget(definition, record))),
        ("search", _words(definition.get(f"hydra.sweeper.{name}") for name in SEARCH)),
        ("machine", _words(_machine(record))),
        ("code", _words(_code(record))),
    ]
    return [(heading, words) for heading, words in lines if words]


def _model(definition: Mapping[str, Any]) -> Iterator[Any]:
    yield definition.get("model.name")
    yield definition.get("quant.method")


def _data(definition: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Any]:
    files = definition.get("data.files")
    yield definition.get("data.path") or (", ".join(files) if isinstance(files, list) else files)
    yield definition.get("data.source")
    for name, split in record.get("data", {}).get("splits", {}).items():
        yield f"rows {name} read as they come" if split.get("streamed") else f"{split['kept']:,} rows {name}"


def _budget(definition: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[Any]:
    if steps := record.get("steps"):
        yield f"{steps['count']:,} steps of {steps['tokens_per_step']:,.4g} supervised tokens"
    else:
        known = ("max_tokens", "max_steps", "epochs")
        given = next((name for name in known if definition.get(f"train.{name}") is not None), None)
        yield f"{given.removeprefix('max_')} {definition[f'train.{given}']:g}" if given else None
    seed = definition.get("train.seed")
    yield None if seed is None else f"seed {seed}"


def _machine(record: Mapping[str, Any]) -> Iterator[Any]:
    device = record.get("device", {})
    yield device.get("name")
    yield f"{device['memory_gib']:.4g} GiB" if "memory_gib" in device else None
    yield device.get("precision")


def _code(record: Mapping[str, Any]) -> Iterator[Any]:
    git = record.get("git", {})
    if commit := git.get("commit"):
        yield f"commit {commit[:8]}{' and changes' if git.get('changed') else ''}"
    packages = record.get("packages", {})
    yield from (f"{name} {packages[name]}" for name in PACKAGES if name in packages)


def _words(parts: Iterator[Any]) -> str:
    return " · ".join(str(part) for part in parts if part not in (None, "", "none"))
