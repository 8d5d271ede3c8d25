"""One command line composed twice: loosely, to find everything wrong with it at once, then exactly as Hydra will."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lorasweep import schema
from lorasweep.compose.command_line import CommandLine
from lorasweep.compose.spaces import as_overrides
from lorasweep.compose.study import define, read_search, tried_values, value_at
from lorasweep.conflicts import conflicts
from lorasweep.local_files import local_files
from lorasweep.record import adapter_folder
from lorasweep.rules import MISSING, Problem, UserError, build, check, nearest
from lorasweep.study import comparability
from lorasweep.study.definition import FREE, Definition
from lorasweep.study.space import Choice, Point, Space

CODE_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}
STUDY_KEYS = ("study", "space", "strategy")
OPEN_HYDRA_KEYS = re.compile(
    r"hydra\.(run\.dir|sweep\.(dir|subdir)|sweeper\.(?!_)\w+|verbose|searchpath|mode|overrides|runtime"
    r"|job\.(name|override_dirname|num|id|config_name))(\.|$)"
)
"""What a config may change of Hydra itself; much of the rest names code to run, such as callbacks and launchers."""
SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|private", re.IGNORECASE)
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError, KeyError)


def checked_run(conf: Path, line: CommandLine) -> schema.Run:
    """Return the run a command line describes, or raise every problem found in it."""
    with _checked(conf, line) as composition:
        return composition.run


def checked_study(conf: Path, line: CommandLine) -> tuple[schema.Run, Definition]:
    """Return the unchanged run and the study that a command line with -m describes, or raise every problem in it."""
    with _checked(conf, line) as composition:
        texts = [str(item.input_line) for item in line.overrides]
        task = [text for text, item in zip(texts, line.overrides, strict=True) if not item.is_hydra_override()]
        kept = [str(item.input_line) for item in composition.kept]
        master = composition.loader.load_configuration("config", kept, RunMode.MULTIRUN)
        HydraConfig.instance().set_config(master)
        settings = {name: value for name, value in _plain(master.hydra.sweeper).items() if not name.startswith("_")}
        return composition.run, define(settings, composition.loader, master, task)


@contextmanager
def _checked(conf: Path, line: CommandLine) -> Iterator[Composition]:
    if any(problem.key.startswith("--") for problem in line.problems):
        raise UserError(line.problems)
    with _hydra(conf, line.config_dir):
        composition = Composition(line)
        problems = [*line.problems, *composition.find_problems()]
        if not problems:
            problems = composition.compose_strictly()
        if problems:
            raise UserError(problems)
        yield composition


def composed_values(conf: Path, overrides: list[str], config_dir: Path | None = None) -> dict[str, Any]:
    """Return the plain values that overrides compose to, unchecked: of themselves they need not make a run."""
    with _hydra(conf, config_dir):
        values = OmegaConf.to_container(compose("config", overrides=overrides), resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def read_point(conf: Path, line: CommandLine) -> Point:
    """Return the values of options and groups that a command line gives, or raise every problem found in them."""
    problems, point = list(line.problems), Point()
    with _hydra(conf, line.config_dir):
        composition = Composition(line)
        for override in line.overrides:
            found = list(composition.point_problems(override))
            point |= {} if found else {override.key_or_group: override.value()}
            problems += found
    if problems:
        raise UserError(problems)
    return point


@contextmanager
def _hydra(conf: Path, config_dir: Path | None) -> Iterator[None]:
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


class Composition:
    """The composition of one command line; needs an initialised Hydra."""

    def __init__(self, line: CommandLine) -> None:
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader, self.line = loader, line
        search = [str(item.input_line) for item in line.overrides if item.key_or_group == "hydra.searchpath"]
        _, self.repository = loader._parse_overrides_and_create_caching_repo("config", search)
        self.kept: list[Override] = []
        self.run = schema.Run()

    def find_problems(self) -> list[Problem]:
        """Return every problem of the overrides and of the files they select."""
        problems = [problem for override in self.line.overrides for problem in self._override_problems(override)]
        try:
            untouched = _flat(OmegaConf.to_container(self._compose_loosely([]).hydra, resolve=False), "hydra")
            composed = self._compose_loosely(self.kept)
            values = {key: _plain(composed[key]) for key in composed if key != "hydra"}
            folder = str(composed.hydra["sweep" if self.line.multirun else "run"].dir)
        except COMPOSITION_ERRORS as error:
            return [*problems, Problem("config", MISSING, _first_lines(error))]
        found = list(_code_problems(values))
        found += list(check(values, schema.Run))
        self.run = build(values, schema.Run, {problem.key for problem in found})
        found += [problem for problem in conflicts(self.run) if problem.key not in {p.key for p in found}]
        found += _missing_files(self.run.data, self.run.model)
        found += _hydra_problems(OmegaConf.to_container(composed.hydra, resolve=False), untouched)
        found += self._study_problems(composed, values)
        found += _folder_problems(folder, self.line.multirun)
        return problems + [self._with_source(problem) for problem in found]

    def _study_problems(self, composed: Any, values: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what is wrong with the study that is asked for: its settings, its space, or that it is no study."""
        sweeper, choices = _plain(composed.hydra.sweeper), _plain(composed.hydra.runtime.choices)
        if not self.line.multirun:
            if self.run.study is not None:
                yield Problem("study", self.run.study, "only for studies: python train.py -m …")
            return
        sweeps = [item for item in self.line.overrides if not item.key_or_group.startswith("hydra")]
        self.search = read_search(sweeper, sweeps, set(choices), lambda key: value_at(key, values, choices))
        yield from self.search.problems
        written = {item.key_or_group for item in sweeps}  # and checked already
        for dimension in self.search.space:
            for value in tried_values(dimension) if dimension.key not in written else ():
                for problem in self._value_problems(dimension.key, value):
                    yield replace(problem, source=f"hydra.sweeper.params.{dimension.key}")
        yield from comparability.problems(self.search.space, self.run, self.search.settings.pruner)
        for point in self.search.settings.enqueue:
            yield from self._enqueued_problems(point)

    def _enqueued_problems(self, point: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield what is wrong with a point to try first, as `lorasweep add` does."""
        line = CommandLine.of(as_overrides(dict(point)))
        found = [*line.problems, *(problem for item in line.overrides for problem in self.point_problems(item))]
        if not found:
            space = Space(tuple(Choice(key, (value,)) for key, value in point.items()))
            found = list(comparability.problems(space, self.run, "none"))
        yield from (replace(problem, source="hydra.sweeper.enqueue") for problem in found)

    def point_problems(self, override: Override) -> Iterator[Problem]:
        """Yield what is wrong with one value of a point; whether it goes with the others only the study knows."""
        key = override.key_or_group
        problems = list(self._refusals(key, override))
        if (
            override.is_delete()
            or override.is_add()
            or re.split("[./]", key)[0] in ("hydra", "experiment", *STUDY_KEYS, *FREE)
        ):
            problems.append(Problem(key, MISSING, "an option of the run that can differ between trials: lora.r=48"))
        if not problems:
            problems += self._value_problems(key, override.value())
        yield from (replace(problem, source=f"command line: {override.input_line}") for problem in problems)

    def compose_strictly(self) -> list[Problem]:
        """Compose as Hydra will, with the typed schema: the net under the checks."""
        try:
            compose("config", overrides=[str(item.input_line) for item in self.kept])
        except COMPOSITION_ERRORS as error:
            return [Problem("config", MISSING, _first_lines(error))]
        return []

    def _compose_loosely(self, overrides: list[Override]) -> Any:
        """Compose without the schema, adding every key: what is wrong stays in the tree and ends nothing."""
        store = ConfigStore.instance()
        store.store(name="schema", node={})
        try:
            texts = [
                text if item.is_delete() or self._is_group(item.key_or_group) else f"++{text.lstrip('+')}"
                for item, text in ((item, str(item.input_line)) for item in overrides)
            ]
            return compose("config", overrides=texts, return_hydra_config=True)
        finally:
            store.store(name="schema", node=schema.Run)

    def _is_group(self, key: str) -> bool:
        return bool(self.repository.group_exists(key))

    def _override_problems(self, override: Override) -> Iterator[Problem]:
        """Yield what is wrong with one override; keep it for the composition if nothing is."""
        key, source = override.key_or_group, f"command line: {override.input_line}"
        problems = list(self._refusals(key, override))
        if not problems and override.is_sweep_override():
            for value in _swept_values(override):
                problems += self._value_problems(key, value)
            if isinstance(override.value(), IntervalSweep):
                problems = [_with_whole_numbers(problem, override) for problem in problems]
        elif not problems:
            if self._is_group(key) and not override.is_delete():
                problems += self._option_problems(key, override.value())
            if not problems:
                self.kept.append(override)
        yield from (replace(problem, source=source) for problem in problems)

    def _refusals(self, key: str, override: Override) -> Iterator[Problem]:
        value = None if override.is_sweep_override() else override.value()
        if key.startswith(("hydra.", "hydra/")) and not OPEN_HYDRA_KEYS.match(key):
            yield Problem(key, value, "not open to change: it can make Hydra run other code")
        elif not self.line.multirun and override.is_sweep_override():
            yield Problem(key, MISSING, "one value; several make a study: python train.py -m …")
        elif not self.line.multirun and key in STUDY_KEYS and value is not None:
            yield Problem(key, value, "only for studies: python train.py -m …")

    def _option_problems(self, group: str, value: Any) -> Iterator[Problem]:
        options = self.repository.get_group_options(group, ObjectType.CONFIG)
        for option in value if isinstance(value, list) else [value]:
            if option is None and group in schema.SECTIONS:
                yield Problem(group, None, f"one of {', '.join(options)}")
            elif option is not None and str(option) not in options:
                yield Problem(group, option, f"one of {', '.join(options)}", nearest(str(option), options))

    def _value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        if self._is_group(key):
            return self._option_problems(key, value)
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        return check(tree, schema.Run)

    def _with_source(self, problem: Problem) -> Problem:
        for override in reversed(self.kept):
            key = override.key_or_group
            if problem.key == key or (problem.key.startswith(f"{key}.") and not self._is_group(key)):
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


def _plain(node: Any) -> Any:
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


def _flat(tree: Any, path: str) -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, node in tree.items() for key, value in _flat(node, f"{path}.{name}").items()}


def _code_problems(values: dict[Any, Any], path: str = "") -> Iterator[Problem]:
    """Yield and remove every key that would name code to run."""
    for name in list(values):
        key = f"{path}{name}"
        if name in CODE_KEYS:
            yield Problem(key, values.pop(name), "not allowed: a config holds values and never names code to run")
        elif isinstance(values[name], dict):
            yield from _code_problems(values[name], f"{key}.")


def _hydra_problems(hydra: Any, untouched: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a file changed of Hydra's own settings beyond what is open."""
    for key, value in _flat(hydra, "hydra").items():
        if untouched.get(key, MISSING) != value and not OPEN_HYDRA_KEYS.match(key):
            yield Problem(key, value, "not open to change: it can make Hydra run other code")


def _swept_values(override: Override) -> Iterable[Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return override.sweep_iterator()
    if isinstance(sweep, RangeSweep):
        return [sweep.start, sweep.stop]
    return [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else []


def _with_whole_numbers(problem: Problem, override: Override) -> Problem:
    """Say how an interval becomes one of whole numbers, where that is what is missing."""
    if not problem.allowed.startswith("a whole number") or not float(problem.value).is_integer():
        return problem
    return replace(problem, allowed=f"{problem.allowed}: {override.key_or_group}=int({override.get_value_string()})")


def _missing_files(data: schema.Data, model: schema.Model) -> Iterator[Problem]:
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


def _folder_problems(folder: str, multirun: bool) -> Iterator[Problem]:
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
