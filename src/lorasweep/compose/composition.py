"""One command line composed twice: loosely, to find everything wrong with it at once, then exactly as Hydra will."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lorasweep import schema
from lorasweep.compose.command_line import CommandLine
from lorasweep.compose.contents import (
    code_problems,
    folder_problems,
    hydra_problems,
    missing_files,
    secret_problems,
)
from lorasweep.compose.overrides import Overrides
from lorasweep.compose.spaces import as_overrides
from lorasweep.compose.study import read_search, tried_values, value_at
from lorasweep.conflicts import conflicts
from lorasweep.processes.launched import undivided
from lorasweep.rules import MISSING, Problem, UserError, build, check
from lorasweep.study import comparability, objectives
from lorasweep.study.space import Choice, Space

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, KeyError)


class Composition:
    """The composition of one command line; needs an initialised Hydra."""

    def __init__(self, line: CommandLine, untouched: Any = None) -> None:
        """`untouched`: Hydra's own settings as the config has them without a command line."""
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.line, self.untouched = loader, line, untouched
        search = [str(item.input_line) for item in line.overrides if item.key_or_group == "hydra.searchpath"]
        _, self.repository = loader._parse_overrides_and_create_caching_repo("config", search)
        self.overrides = Overrides(self.repository, line.multirun)
        self.kept: list[Override] = []
        """Overrides with which nothing is wrong by themselves, but for sweeps, which are not composed."""
        self.run = schema.Run()

    def find_problems(self) -> list[Problem]:
        """Return every problem of the overrides and of the files they select."""
        problems: list[Problem] = []
        for override in self.line.overrides:
            found = list(self.overrides.problems(override))
            problems += found
            if not found and not override.is_sweep_override():
                self.kept.append(override)
        try:
            composed = self._compose_loosely(self.kept)
            values = {key: plain(composed[key]) for key in composed if key != "hydra"}
            folder = str(composed.hydra["sweep" if self.line.multirun else "run"].dir)
        except COMPOSITION_ERRORS as error:
            return [*problems, Problem("config", MISSING, _first_lines(error))]
        found = list(code_problems(values))
        found += secret_problems(values)
        found += list(check(values, schema.Run))
        self.run = build(values, schema.Run, {problem.key for problem in found})
        found += [problem for problem in conflicts(self.run) if problem.key not in {p.key for p in found}]
        found += missing_files(self.run.data, self.run.model)
        found += hydra_problems(OmegaConf.to_container(composed.hydra, resolve=False), self.untouched)
        found += self._study_problems(composed, values)
        if self.run.resume is None:
            found += folder_problems(folder, self.line.multirun)
        elif not self.line.resumes:
            found.append(Problem("resume", self.run.resume, "only on the command line of train.py, for one run"))
        return problems + [self._with_source(problem) for problem in found]

    def compose_strictly(self) -> Any:
        """Compose as Hydra will, with the typed schema: the net under the checks."""
        try:
            mode = RunMode.MULTIRUN if self.line.multirun else RunMode.RUN
            return self.loader.load_configuration("config", [str(item.input_line) for item in self.kept], mode)
        except COMPOSITION_ERRORS as error:
            raise UserError(Problem("config", MISSING, _first_lines(error))) from None

    def _study_problems(self, composed: Any, values: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what is wrong with the study that is asked for: its settings, its space, or that it is no study."""
        sweeper, choices = plain(composed.hydra.sweeper), plain(composed.hydra.runtime.choices)
        if not self.line.multirun:
            if self.run.study is not None:
                yield Problem("study", self.run.study, "only for studies: python train.py -m …")
            return
        sweeps = [item for item in self.line.overrides if not item.key_or_group.startswith("hydra")]
        search = read_search(sweeper, sweeps, set(choices), lambda key: value_at(key, values, choices))
        yield from search.problems
        written = {item.key_or_group for item in sweeps}  # and checked already
        for dimension in search.space:
            for value in tried_values(dimension) if dimension.key not in written else ():
                for problem in self.overrides.value_problems(dimension.key, value):
                    yield replace(problem, source=f"hydra.sweeper.params.{dimension.key}")
        for key, asked in search.space.only_if.items():
            for other, value in ((other, value) for other, allowed in asked.items() for value in allowed):
                for problem in self.overrides.value_problems(other, value):
                    yield replace(problem, source=f"hydra.sweeper.only_if.{key}")
        yield from comparability.problems(search.space, self.run, search.settings.pruner)
        yield from undivided(self.run, search.settings.gpus_per_trial)
        yield from objectives.problems(search.settings.objectives, self.run)
        for point in search.settings.enqueue:
            yield from self._enqueued_problems(point)

    def _enqueued_problems(self, point: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what is wrong with a point to try first, as `lorasweep add` does."""
        line = CommandLine.of(as_overrides(dict(point)))
        found = [*line.problems]
        found += [problem for item in line.overrides for problem in self.overrides.point_problems(item)]
        if not found:
            space = Space(tuple(Choice(key, (value,)) for key, value in point.items()))
            found = list(comparability.problems(space, self.run, "none"))
        yield from (replace(problem, source="hydra.sweeper.enqueue") for problem in found)

    def _compose_loosely(self, overrides: list[Override]) -> Any:
        """Compose adding every key."""
        return compose_loosely(
            text if item.is_delete() or self.overrides.is_group(item.key_or_group) else f"++{text.lstrip('+')}"
            for item, text in ((item, str(item.input_line)) for item in overrides)
        )

    def _with_source(self, problem: Problem) -> Problem:
        for override in reversed(self.kept):
            key = override.key_or_group
            if problem.key == key or (problem.key.startswith(f"{key}.") and not self.overrides.is_group(key)):
                return replace(problem, source=f"command line: {override.input_line}")
        overrides = [str(item.input_line) for item in self.kept]
        for default in reversed(self.loader.compute_defaults_list("config", overrides, RunMode.RUN).defaults):
            loaded = self.repository.load_config(default.config_path) if default.config_path else None
            if loaded is None or not loaded.path.startswith("file://"):
                continue
            inner = problem.key.removeprefix(f"{default.package}.") if default.package else problem.key
            if (inner != problem.key or not default.package) and _holds(loaded.config, inner):
                return replace(
                    problem, source=os.path.relpath(f"{loaded.path.removeprefix('file://')}/{default.config_path}.yaml")
                )
        return problem


def compose_loosely(overrides: Iterable[str]) -> Any:
    """Compose without the schema: what is wrong stays in the tree and ends nothing."""
    store = ConfigStore.instance()
    store.store(name="schema", node={})
    try:
        return compose("config", overrides=[*overrides], return_hydra_config=True)
    finally:
        store.store(name="schema", node=schema.Run)


def plain(node: Any) -> Any:
    """Return a part of a composed config as dictionaries, lists and values."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _holds(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not OmegaConf.is_dict(config) or part not in config:
            return False
        config = config._get_node(part)
    return True


def _first_lines(error: Exception, count: int = 6) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return "\n  ".join(lines[:count]) or type(error).__name__
