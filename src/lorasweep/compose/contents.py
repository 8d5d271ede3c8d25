"""What no config may hold, and what it names that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorasweep import schema
from lorasweep.local_files import local_files
from lorasweep.record import adapter_folder
from lorasweep.rules import MISSING, Problem

CODE_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
OPEN_HYDRA_KEYS = re.compile(
    r"hydra\.(run\.dir|sweep\.(dir|subdir)|sweeper\.(?!_)\w+|verbose|searchpath|mode|overrides|runtime"
    r"|job\.(name|override_dirname|num|id|config_name))(\.|$)"
)
"""What a config may change of Hydra itself; much of the rest names code to run, such as callbacks and launchers."""


def code_problems(values: dict[Any, Any], path: str = "") -> Iterator[Problem]:
    """Yield and remove every key that would name code to run."""
    for name in list(values):
        key = f"{path}{name}"
        if name in CODE_KEYS:
            yield Problem(key, values.pop(name), "not allowed: a config holds values and never names code to run")
        elif isinstance(values[name], dict):
            yield from code_problems(values[name], f"{key}.")


def hydra_problems(hydra: Any, untouched: Any) -> Iterator[Problem]:
    """Yield what a file changed of Hydra's own settings beyond what is open."""
    before = _flat(untouched, "hydra")
    for key, value in _flat(hydra, "hydra").items():
        if before.get(key, MISSING) != value and not OPEN_HYDRA_KEYS.match(key):
            yield Problem(key, value, "not open to change: it can make Hydra run other code")


def missing_files(data: schema.Data, model: schema.Model) -> Iterator[Problem]:
    """Yield local files that are named but not there."""
    for name in ("files", "eval_files", "test_files"):
        given = getattr(data, name)
        for pattern in [given] if isinstance(given, str) else given or []:
            if not local_files(pattern):
                yield Problem(f"data.{name}", pattern, "an existing file, or a pattern that matches one")
    if model.adapter and not adapter_folder(Path(model.adapter)):
        yield Problem("model.adapter", model.adapter, "a run folder with an adapter, or one with adapter_config.json")
    template = model.chat_template
    if template and template.endswith((".jinja", ".j2")) and not Path(template).is_file():
        yield Problem("model.chat_template", template, "an existing file, or the template itself")


def folder_problems(folder: str, multirun: bool) -> Iterator[Problem]:
    """Yield why results could not be written to `folder`, without making it."""
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    path = Path(folder).absolute()
    parent = next(place for place in (path, *path.parents) if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        yield Problem(
            key, folder, f"a folder that can be written; {parent} is {'read-only' if parent.is_dir() else 'a file'}"
        )
    elif (path / "run.yaml").exists():
        yield Problem(key, folder, "a new folder; this one holds another run")


def _flat(tree: Any, path: str) -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, node in tree.items() for key, value in _flat(node, f"{path}.{name}").items()}
