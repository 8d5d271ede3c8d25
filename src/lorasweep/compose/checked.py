"""What the commands ask of a command line: the run, the study or the point it describes, or all that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lorasweep import schema
from lorasweep.compose.command_line import CommandLine
from lorasweep.compose.composition import COMPOSITION_ERRORS, Composition, compose_loosely, plain
from lorasweep.compose.study import define
from lorasweep.rules import UserError
from lorasweep.study.definition import Definition
from lorasweep.study.space import Point


def checked_run(conf: Path, line: CommandLine) -> schema.Run:
    """Return the run a command line describes, or raise every problem found in it."""
    with _checked(conf, line) as (composition, _):
        return composition.run


def checked_study(conf: Path, line: CommandLine) -> tuple[schema.Run, Definition]:
    """Return the unchanged run and the study that a command line with -m describes, or raise every problem in it."""
    with _checked(conf, line) as (composition, master):
        texts = [str(item.input_line) for item in line.overrides]
        task = [text for text, item in zip(texts, line.overrides, strict=True) if not item.is_hydra_override()]
        HydraConfig.instance().set_config(master)
        settings = {name: value for name, value in plain(master.hydra.sweeper).items() if not name.startswith("_")}
        return composition.run, define(settings, composition.loader, master, task)


def composed_values(conf: Path, overrides: list[str], config_dir: Path | None = None) -> dict[str, Any]:
    """Return the plain values that overrides compose to, unchecked: of themselves they need not make a run."""
    with initialised(conf, config_dir):
        values = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def read_point(conf: Path, line: CommandLine) -> Point:
    """Return the values of options and groups that a command line gives, or raise every problem found in them."""
    problems, point = list(line.problems), Point()
    with initialised(conf, line.config_dir):
        composition = Composition(line)
        for override in line.overrides:
            found = list(composition.overrides.point_problems(override))
            point |= {} if found else {override.key_or_group: override.value()}
            problems += found
    if problems:
        raise UserError(problems)
    return point


@contextmanager
def initialised(conf: Path, config_dir: Path | None) -> Iterator[None]:
    """Initialise Hydra with the search path that `hydra.main` gives it, --config-dir included."""
    version.setbase("1.3")
    search_path = create_config_search_path(str(conf))
    if config_dir:
        search_path.prepend("command-line", f"file://{config_dir}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2(task_name="train", config_search_path=search_path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


@contextmanager
def _checked(conf: Path, line: CommandLine) -> Iterator[tuple[Composition, Any]]:
    if any(problem.key.startswith("--") for problem in line.problems):
        raise UserError(line.problems)
    untouched = _own_settings_of_hydra(conf)
    with initialised(conf, line.config_dir):
        composition = Composition(line, untouched)
        if problems := [*line.problems, *composition.find_problems()]:
            raise UserError(problems)
        yield composition, composition.compose_strictly()


def _own_settings_of_hydra(conf: Path) -> Any:
    try:
        return _settings_of_hydra(conf)
    except COMPOSITION_ERRORS:  # which the composition of the command line meets and reports
        return {}


@cache
def _settings_of_hydra(conf: Path) -> Any:
    """Return what the config folder itself says, without a --config-dir, which may come from anyone."""
    with initialised(conf, None):
        return OmegaConf.to_container(compose_loosely([]).hydra, resolve=False)
