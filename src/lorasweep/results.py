"""What a run folder says of its run, finished or not: read from its files, without data, model or config checks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lorasweep.rules import Problem, UserError, build
from lorasweep.schema import Run

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML has it: ten times as fast, and a study has hundreds of these files."""
UNFINISHED = "unfinished"
"""The state of a run without summary.json: it goes on, or its process was killed."""


@dataclass(frozen=True)
class RunResults:
    """A run folder, whose longer files are read when they are asked for."""

    folder: Path
    config: dict[str, Any]
    """run.yaml, by section."""
    record: dict[str, Any]
    summary: dict[str, Any]

    @property
    def state(self) -> str:
        """Return how the run ended."""
        return str(self.summary.get("state", UNFINISHED))

    @property
    def name(self) -> str:
        """Return what the run is called."""
        return str(self.record.get("name") or self.folder.name)

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return the config by dotted key."""
        return flat(self.config)

    @cached_property
    def run(self) -> Run:
        """Return the config as it was trained with."""
        run = build(self.config, Run, set())
        assert isinstance(run, Run)
        return run

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl: `step` and what was measured after it."""
        return read_lines(self.folder / "metrics.jsonl")

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """Return the lines of evaluation.jsonl: `step`, loss and supervised tokens of every row, answers."""
        return read_lines(self.folder / "evaluation.jsonl")

    @property
    def untuned(self) -> dict[str, Any] | None:
        """Return the evaluation of the model before its first step."""
        return next((item for item in self.evaluations if item["step"] == 0), None)

    @property
    def kept(self) -> dict[str, Any] | None:
        """Return the evaluation of the adapter that was kept; None while the run has not ended."""
        step = self.summary.get("objective/step")
        return next((item for item in self.evaluations if item["step"] == step), None)

    @property
    def judged(self) -> dict[str, Any] | None:
        """Return the evaluation that stands for the run: of what it kept, of one that has not ended the last so far."""
        return self.kept or next((item for item in reversed(self.evaluations) if item["step"] > 0), None)


def read_results(folder: Path) -> RunResults:
    """Read a run folder; raises UserError for a folder that holds no run."""
    try:
        text = (folder / "run.yaml").read_text(encoding="utf-8").replace("\\${", "${")
        config = yaml.load(text, SafeLoader)
    except (OSError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):  # or one that was killed as it wrote it
        raise UserError(Problem("RUN", str(folder), "a run folder, which holds run.yaml"))
    return RunResults(folder, config, read_json(folder / "record.json"), read_json(folder / "summary.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a run folder; empty if it is not there or cut short."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file with one a line, but for a last line that is still being written."""
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")  # answers can hold what else ends a line
    return [json.loads(line) for line in lines]


def last_lines(path: Path, most: int = 1 << 16) -> list[dict[str, Any]]:
    """Return the last whole lines of such a file, within so many bytes."""
    try:
        with open(path, "rb") as file:
            begins = max(file.seek(0, os.SEEK_END) - most, 0)
            file.seek(begins)
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines[bool(begins) :] if line.endswith(b"\n")]


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found
