"""The run folder: what reproduces the run, written before its first step, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

from lorasweep.local_files import absolute
from lorasweep.rules import Problem, UserError
from lorasweep.schema import SECTIONS, Run

CHECKOUT = Path(__file__).parents[2]
TIME = "%Y-%m-%dT%H:%M:%S%z"


@dataclass(frozen=True)
class Launch:
    """Where a run goes and how it was asked for."""

    folder: Path
    overrides: list[str]


def claim(folder: Path, run: Run) -> None:
    """Make `folder` this run's own by writing run.yaml, and its values as a Hydra config directory; refuse a used one.

    Every group gets a file of its own, so that one chosen beside `--config-dir FOLDER experiment=saved` replaces the
    saved one whole. Paths are saved absolute, so that the folder works from any working directory.
    """
    values = literal(_found_from_anywhere(asdict(run)))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_yaml(folder / "run.yaml", values)
    except FileExistsError:
        raise UserError(Problem("hydra.run.dir", str(folder), "a new folder; this one holds another run")) from None
    for section in SECTIONS:
        _write_yaml(folder / section / "saved.yaml", values[section])
    experiment = {
        "defaults": [{f"override /{section}": "saved"} for section in SECTIONS],
        **{name: value for name, value in values.items() if name not in SECTIONS and name != "study"},
    }
    header = f"# @package _global_\n# python train.py --config-dir {folder} experiment=saved\n"
    _write_yaml(folder / "experiment" / "saved.yaml", experiment, header)


def write_record(folder: Path, run: Run, overrides: list[str], facts: Mapping[str, Any]) -> None:
    """Write record.json: how the run was asked for, with which code, packages, data, model and machine."""
    record = {
        "created": time.strftime(TIME),
        "command": shlex.join(["python", *sys.argv]),
        "overrides": overrides,
        "name": run.name or default_name(run, overrides),
        "pid": os.getpid(),
        "seeds": {"seed": run.train.seed, "data_seed": data_seed(run), "split_seed": run.data.split_seed},
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed_packages(),
        **facts,
    }
    write_json(folder / "record.json", record)


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with open(staging, "w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)


def share_weights(folder: Path) -> None:
    """Let weights be read by whom the user's other files can be: safetensors makes its files private."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~umask)


def adapter_folder(folder: Path) -> Path | None:
    """Return where the adapter of a run folder is, or `folder` if it is an adapter itself; None without one."""
    places = (folder / "adapter", folder)
    return next((place for place in places if (place / "adapter_config.json").is_file()), None)


def data_seed(run: Run) -> int:
    """Return the seed of the order of rows."""
    return run.train.seed if run.train.data_seed is None else run.train.data_seed


def default_name(run: Run, overrides: list[str]) -> str:
    """Name a run after what was overridden, else after its model and data."""
    told = [text for text in overrides if not text.startswith(("tracking.", "verbosity", "hydra", "name=", "study="))]
    return (
        slug(",".join(text.lstrip("+~") for text in told))
        or f"{slug(run.model.name)}-{slug(run.data.path or run.data.source)}"
    )


def slug(text: str, longest: int = 100) -> str:
    """Return text as a safe file and W&B name."""
    return re.sub(r"[^A-Za-z0-9=,._-]+", "-", text).strip("-.")[:longest]


@cache
def installed_packages() -> dict[str, str]:
    """Return the version of every package; reading them takes a quarter of a second, so once in a process."""
    return {item.name: item.version for item in sorted(distributions(), key=lambda item: item.name.lower())}


def git_state() -> dict[str, Any]:
    """Return commit and changed files of the checkout; empty outside one."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    return {
        "commit": commit.strip(),
        "changed": sorted(line[3:] for line in _git("status", "--porcelain").splitlines()),
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _write_yaml(path: Path, values: Any, header: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "x", encoding="utf-8") as file:
        file.write(header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _found_from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Make the paths among a run's values absolute; a hub id is no path unless a folder of that name is here."""
    data, model = values["data"], values["model"]
    for name in ("files", "eval_files", "test_files") if data["source"] == "files" else ():
        given = data[name]
        data[name] = [absolute(path) for path in given] if isinstance(given, list) else given and absolute(given)
    for name in ("name", "tokenizer", "adapter", "chat_template"):
        given = model[name]
        # a template can itself be the value, longer than any path
        if given and len(given) < 4096 and "\n" not in given and os.path.exists(given):
            model[name] = given if name == "name" and model["source"] != "hub" else os.path.abspath(given)
    return values


def literal(values: Any) -> Any:
    """Escape what OmegaConf would read as an interpolation; saved values are final."""
    if isinstance(values, dict):
        return {key: literal(value) for key, value in values.items()}
    if isinstance(values, list):
        return [literal(value) for value in values]
    return values.replace("${", "\\${") if isinstance(values, str) else values
