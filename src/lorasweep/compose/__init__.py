"""From a command line to a checked `schema.Run`: all that is wrong is found before Hydra touches the disk."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lorasweep import schema
from lorasweep.compose.checked import checked_run, checked_study, composed_values, read_point
from lorasweep.compose.command_line import CommandLine
from lorasweep.compose.resuming import check_unchanged, end_of, resumed_folder, resuming_line
from lorasweep.conflicts import conflicts
from lorasweep.processes import launched
from lorasweep.record import Launch
from lorasweep.redaction import SECRET_NAME
from lorasweep.rules import MISSING, UserError, check, user_errors

__all__ = [
    "CommandLine", "check_command_line", "checked_run", "checked_study", "composed_values", "launch", "read_point",
    "register", "to_run", "user_errors",
]  # fmt: skip

GROUPS = (*schema.SECTIONS, "experiment")


def register() -> None:
    """Put the schema and the resolvers of conf/ where Hydra finds them."""
    ConfigStore.instance().store(name="schema", node=schema.Run)
    OmegaConf.register_new_resolver("oc.env", _environment_variable, replace=True)
    OmegaConf.register_new_resolver("either", lambda value, other: value or other, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)


def _environment_variable(name: str, default: Any = MISSING) -> Any:
    if SECRET_NAME.search(name):
        raise ValueError(f"the environment variable {name} looks like a secret and may not enter a config")
    if name in os.environ:
        return os.environ[name]
    if default is MISSING:
        raise KeyError(f"environment variable {name!r} is not set")
    return default


def check_command_line(conf: Path, arguments: Sequence[str] | None = None) -> schema.Run | None:
    """Check a command line whole; print every problem and exit with 2, or return the run it describes.

    None where Hydra is asked for something else than a run: help, information, completion, the config itself, a study.
    """
    register()
    given = sys.argv[1:] if arguments is None else arguments
    line = CommandLine.of(given)
    if line.informs:
        return None
    with user_errors():
        folder = resumed_folder(line)
        if folder and (end := end_of(folder)):
            if launched.speaks():
                print(end)
            raise SystemExit(0)
        if folder:
            sys.argv[1:] = resuming_line(folder, given)
            line = replace(CommandLine.of(sys.argv[1:]), resumes=True)
        run = checked_run(conf, line)
        if problems := list(launched.problems(run, line.multirun)):
            raise UserError(problems)
        if folder:
            check_unchanged(folder, run)
    return None if line.shows_config or line.multirun else run


def to_run(config: DictConfig) -> schema.Run:
    """Turn a composed config into the typed run it describes; no OmegaConf beyond this line."""
    run = OmegaConf.to_object(config)
    assert isinstance(run, schema.Run)
    # Of several values on the command line, this combination has not been checked yet.
    if problems := [*check(asdict(run), schema.Run), *conflicts(run)]:
        raise UserError(problems)
    return run


def is_multirun() -> bool:
    """Tell whether the job being started is one of several."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def launch() -> Launch:
    """Return where Hydra put the run that is being started, and how it was asked for."""
    hydra = HydraConfig.get()
    choices = {str(name): str(option) for name, option in hydra.runtime.choices.items() if name in GROUPS}
    return Launch(Path(hydra.runtime.output_dir), list(hydra.overrides.task), choices)
