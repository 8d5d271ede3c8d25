"""The run folder: what reproduces the run, written before its first step, and what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lorasweep.checkout import FOLDER, checkout, code_hash, constraints_hash
from lorasweep.environment import environment, hardware, installed_packages
from lorasweep.local_files import absolute
from lorasweep.means import by_other_means
from lorasweep.redaction import redacted
from lorasweep.results import read_json
from lorasweep.rules import Problem, UserError
from lorasweep.schema import SECTIONS, Run
from lorasweep.versions import SCHEMA_VERSION, versioned

CHECKOUT = FOLDER
TIME = "%Y-%m-%dT%H:%M:%S%z"
NOT_SAVED = ("resume", "resume_anyway")
"""Options that say how a run is started, and nothing about what it is."""
PATCH = "code.patch"
SEEDS = (
    "seed: adapter, dropout, and order of rows unless data_seed is given; data_seed with the number of the epoch: order"
    " of rows; split_seed: which rows are held out, and generated rows; sampler_seed with the number of the trial: what"
    " a study's sampler draws. Of several processes each but the first draws dropout from a stream of its own, which"
    " follows from seed and its number"
)


@dataclass(frozen=True)
class Launch:
    """Where a run goes and how it was asked for."""

    folder: Path
    overrides: list[str]
    choices: dict[str, str] = field(default_factory=dict)
    """The file that was taken of every config group."""
    lineage: dict[str, Any] = field(default_factory=dict)
    """What the run comes from: the study it is a trial of, or the run that it reproduces."""


def claim(folder: Path, run: Run) -> None:
    """Make `folder` this run's own by writing run.yaml, and its values as a Hydra config directory; refuse a used one.

    Every group gets a file of its own, so that one chosen beside `--config-dir FOLDER experiment=saved` replaces the
    saved one whole. Paths are saved absolute, so that the folder works from any working directory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        open(folder / "run.yaml", "x").close()
    except FileExistsError:
        raise UserError(Problem("hydra.run.dir", str(folder), "a new folder; this one holds another run")) from None
    save_config(folder, run)


def save_config(folder: Path, run: Run) -> None:
    """Write the config of a run into its folder, over what is there."""
    for path, text in _config_files(folder, run).items():
        path.parent.mkdir(exist_ok=True)
        write_text(path, text)


def saved_values(run: Run) -> dict[str, Any]:
    """Return the values of a run as run.yaml has them: paths absolute, without how it was started."""
    values = asdict(run)
    return _found_from_anywhere({name: value for name, value in values.items() if name not in NOT_SAVED})


def values_hash(values: Mapping[str, Any]) -> str:
    """Return a hash of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _config_files(folder: Path, run: Run) -> dict[Path, str]:
    """Return path and text of the config files of a run folder."""
    values = literal(saved_values(run))
    experiment = {
        "defaults": [{f"override /{section}": "saved"} for section in SECTIONS],
        **{name: value for name, value in values.items() if name not in SECTIONS and name != "study"},
    }
    header = f"# @package _global_\n# python train.py --config-dir {folder} experiment=saved\n"
    files = {folder / "run.yaml": _yaml(versioned(values))}
    files |= {folder / section / "saved.yaml": _yaml(values[section]) for section in SECTIONS}
    return files | {folder / "experiment" / "saved.yaml": header + _yaml(experiment)}


def build_record(launch: Launch, run: Run, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a run was asked for, with which code, packages, data, model and machine. Secrets are left out."""
    return {
        "created": time.strftime(TIME),
        "command": redacted(shlex.join(["python", *sys.argv])),
        "overrides": [redacted(text) for text in launch.overrides],
        "choices": launch.choices,
        "name": run.name or default_name(run, launch.overrides),
        "lineage": launch.lineage,
        "pid": os.getpid(),
        **surroundings(run),
        **facts,
    }


def surroundings(run: Run) -> dict[str, Any]:
    """Return what is recorded of a run before anything of it is loaded: config, seeds, code, packages, machine."""
    values, state = saved_values(run), checkout()
    return {
        "config": {"schema_version": SCHEMA_VERSION, "sha256": values_hash(values), "values": values},
        "seeds": {
            "seed": run.train.seed,
            "data_seed": data_seed(run),
            "split_seed": run.data.split_seed,
            "rule": SEEDS,
        },
        "git": state.facts() if state else {},
        "code": code_hash(),
        "constraints": constraints_hash(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": installed_packages(),
        "environment": environment(),
        "hardware": hardware(),
    }


def complete_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Add to a run's record what is known once all is loaded; from then on it is only read.

    Of a run that is gone on with it was known before, and what is otherwise now is listed.
    """
    path = folder / "record.json"
    before = read_json(path)
    now = before | dict(facts)
    if now.get("resumed"):
        now["resumed"][-1]["means"] |= by_other_means(before, now)
    write_json(path, now)
    path.chmod(0o444)


def write_patch(folder: Path) -> None:
    """Write the uncommitted changes of the code into a run folder, for `git apply` on the commit of its record."""
    if (state := checkout()) and state.patch:
        write_text(folder / PATCH, state.patch, errors="surrogateescape")


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file whole or not at all; `errors` as `open` takes it."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with open(staging, "w", encoding="utf-8", errors=errors, newline="") as file:
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


def _yaml(values: Any) -> str:
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


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
