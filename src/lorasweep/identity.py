"""What makes a run the run it is: two of the same identity go through the same steps and give the same numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lorasweep.rules import Problem

FREE = (
    "name", "study", "resume", "resume_anyway", "verbosity", "tracking", "train.save_every", "train.keep_checkpoints",
    "data.num_proc", "model.revision", "data.revision",
)  # fmt: skip
"""Options, or sections of them, that change nothing about what is learnt and measured, or nothing that hashes of files,
commits and rows do not show."""
PACKAGES = (
    "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "numpy",
)  # fmt: skip
"""The packages that decide numbers."""
CODE, PROCESSES = "code of lorasweep", "number of processes"
OF_STATE = (
    "model.", "quant.", "lora.", "optim.name", "file of the model ", "commit of the model", "adapter that ", PROCESSES,
)  # fmt: skip
"""What adapter and optimizer states are of: with another, there is nothing to go on with. A process has its own random
streams and counts."""
JUDGED_BY = ("evaluation.", "rows of eval")
SEEDS = ("train.seed", "train.data_seed")


class Difference(NamedTuple):
    """One thing that was otherwise, and whether it is code: ours or a package."""

    name: str
    before: Any
    now: Any

    @property
    def is_code(self) -> bool:
        """Whether this is about what computes, and not about what is computed."""
        return self.name == CODE or self.name.startswith("package ")

    @property
    def is_of_state(self) -> bool:
        """Whether the state of the run is none any more, so that nobody can go on with it."""
        return self.name.startswith(OF_STATE)


def identity(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies a run, flat, from its config by section and its record."""
    found = {key: value for key, value in options(config).items() if not is_free(key)}
    data, model = record.get("data", {}), record.get("model", {})
    found |= {f"rows of {name}": split["sha256"] for name, split in data.get("splits", {}).items()}
    found |= {f"file of the model {name}": value for name, value in (model.get("sha256") or {}).items()}
    found |= {"commit of the model": model["commit"]} if model.get("commit") else {}
    found |= {"adapter that is trained further": record["adapter"]["sha256"]} if "adapter" in record else {}
    found |= {"rows of every step": record["steps"]["sha256"]} if "steps" in record else {}
    found |= {"precision": record["device"]["precision"]} if "device" in record else {}
    found |= {PROCESSES: record.get("processes", {}).get("count", 1)} if "device" in record else {}
    found |= {CODE: record["code"]} if "code" in record else {}
    packages = record.get("packages", {})
    return found | {f"package {name}": packages[name] for name in PACKAGES if name in packages}


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config by dotted key; what an option has inside is part of its value."""
    found: dict[str, Any] = {}
    for section, values in config.items():
        found |= {f"{section}.{name}": value for name, value in values.items()} if isinstance(values, dict) else {}
        found |= {} if isinstance(values, dict) else {section: values}
    return found


def is_free(key: str) -> bool:
    """Tell whether an option, by its dotted key, may change while a run goes on."""
    return any(key == name or key.startswith(f"{name}.") for name in FREE)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what is not as it was; options that only one of two versions knows have their default in both."""
    for name, value in before.items():
        if name in now and now[name] != value:
            yield Difference(name, value, now[name])


def refusals(found: Iterable[Difference], folder: Path, anyway: bool) -> list[Problem]:
    """Return what to tell a user who goes on with the run of a folder as with another one."""
    return [_refusal(item, folder) for item in found if item.is_of_state or not anyway]


def _refusal(item: Difference, folder: Path) -> Problem:
    was = f"{item.before!r}, as the run was begun"
    if item.is_code:
        return Problem(item.name, item.now, f"{was}; resume_anyway=true goes on all the same")
    again = f"python train.py --config-dir {os.path.relpath(folder)} experiment=saved"
    if "." in item.name and isinstance(item.now, int | float):
        again += f" {item.name}={item.now}"
    anyway = "" if item.is_of_state else "; resume_anyway=true goes on with it from here on"
    return Problem(item.name, item.now, f"{was}; {again} begins another run like it{anyway}")
