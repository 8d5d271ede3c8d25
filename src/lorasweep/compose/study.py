"""From a command line with -m to a study: its settings, its space, and how a point becomes a run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from lorasweep.compose.spaces import as_overrides, read_params, read_sweep
from lorasweep.conflicts import conflicts
from lorasweep.processes.launched import undivided
from lorasweep.rules import MISSING, Problem, UserError, build, check, nearest
from lorasweep.schema import SECTIONS, Run
from lorasweep.study import settings as study_settings
from lorasweep.study.canonical import config_key
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.settings import Settings
from lorasweep.study.space import Choice, Dimension, Interval, Point, Space

if TYPE_CHECKING:
    from lorasweep.study.store import Store

SWEEPER = "hydra.sweeper"
VARIED = "a key that varies, in hydra.sweeper.params or on the command line"


@dataclass(frozen=True)
class Search:
    """What a study searches and how, as far as a command line says it."""

    settings: Settings
    space: Space
    problems: list[Problem] = field(default_factory=list)
    taken_out: tuple[str, ...] = ()
    """Overrides of the command line that took their keys out of the space."""


def read_search(
    sweeper: Mapping[str, Any],
    overrides: Iterable[Override],
    groups: set[str],
    value_of: Callable[[str], Any],
) -> Search:
    """Read `hydra.sweeper` and the swept overrides of a command line.

    `groups` are the names of config groups, `value_of` tells the value a key or group has in the config.
    """
    given = {name: value for name, value in sweeper.items() if not name.startswith("_")}
    problems = list(check(given, Settings, f"{SWEEPER}."))
    settings = build(given, Settings, {problem.key for problem in problems}, f"{SWEEPER}.")
    problems += study_settings.conflicts(settings)
    dimensions, unread = read_params(settings.params, groups)
    problems += unread
    swept, fixed, wrong = _read_overrides(overrides, groups)
    problems += wrong
    kept = [item for item in dimensions if item.key not in fixed and item.key not in swept]
    only_if, odd = _conditions(settings.only_if)
    known = {item.key for item in dimensions} | swept.keys()
    odd += [Problem(f"{SWEEPER}.only_if.{key}", MISSING, VARIED, nearest(key, known)) for key in only_if.keys() - known]
    only_if = {key: asked for key, asked in only_if.items() if key in known and key not in fixed}
    varied = [*kept, *swept.values()]
    known_values = {key: value_of(key) for key in _asked_about(varied, only_if)}
    fixed_values = {key: value for key, value in known_values.items() if value is not MISSING}
    space = Space(tuple(varied), only_if, fixed_values)
    problems += [*odd, *space.problems()]
    if settings.sampler == "grid":
        allowed = "values that can be gone through; an interval needs strategy=random or tpe"
        endless = [item for item in space if item.values() is None]
        problems += [Problem(f"{SWEEPER}.params.{item.key}", item.words(), allowed) for item in endless]
    taken_out = tuple(fixed[item.key] for item in dimensions if item.key in fixed)
    return Search(settings, space, problems, taken_out)


def _read_overrides(
    overrides: Iterable[Override], groups: set[str]
) -> tuple[dict[str, Dimension], dict[str, str], list[Problem]]:
    """Return what a command line sweeps, the overrides that fix a key, and what is wrong with that."""
    swept: dict[str, Dimension] = {}
    fixed: dict[str, str] = {}
    problems: list[Problem] = []
    for override in overrides:
        key = override.key_or_group
        if not override.is_sweep_override():
            fixed[key] = str(override.input_line).lstrip("+")
        else:
            try:
                swept[key] = read_sweep(override, key in groups)
            except UserError as error:
                problems += error.problems
        if key in fixed and key in swept:
            allowed = "a value or several, not both: it is on the command line twice"
            problems.append(Problem(key, override.get_value_string(), allowed))
    return swept, fixed, problems


def _conditions(given: Mapping[str, Any]) -> tuple[dict[str, dict[str, tuple[Any, ...]]], list[Problem]]:
    read: dict[str, dict[str, tuple[Any, ...]]] = {}
    problems = []
    for key, asked in given.items():
        if isinstance(asked, Mapping):
            read[key] = {name: tuple(item) if isinstance(item, list) else (item,) for name, item in asked.items()}
        else:
            allowed = "keys with the values they must have: {scheduler: [linear, cosine]}"
            problems.append(Problem(f"{SWEEPER}.only_if.{key}", asked, allowed))
    return read, problems


def _asked_about(dimensions: list[Dimension], only_if: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [*(item.key for item in dimensions), *(other for asked in only_if.values() for other in asked)]


def tried_values(dimension: Dimension) -> list[Any]:
    """Return values that show whether an option takes what a dimension offers: all of a choice, ends of an interval."""
    if isinstance(dimension, Choice):
        return list(dimension.options)
    assert isinstance(dimension, Interval)
    return [dimension.low, dimension.high] if not dimension.is_int else [int(dimension.low), int(dimension.high)]


class Composer:
    """Makes points into configs as Hydra would, an order of magnitude faster.

    Hydra composes once for every choice of groups; the values of a point, which Hydra applies last, are set in a copy.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, overrides: list[str], groups: set[str]) -> None:
        self.loader, self.master, self.groups = loader, master, groups
        parsed = OverridesParser.create().parse_overrides(overrides)
        self.fixed = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        self.name: str | None = None
        self.processes = 1
        """That train a run together."""
        self._bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}

    def __call__(self, point: Point) -> Composed:
        """Return the config of a point; UserError if its values contradict each other."""
        chosen = as_overrides({key: value for key, value in point.items() if key in self.groups})
        try:
            base, choices = self._base(tuple(chosen))
            config = copy.deepcopy(base)
            with open_dict(config):
                for key, value in point.items():
                    if key not in self.groups:
                        OmegaConf.update(config, key, value, merge=False)
            run = OmegaConf.to_object(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(Problem("config", MISSING, str(error).splitlines()[0])) from None
        assert isinstance(run, Run)
        run.study = self.name or run.study
        if problems := [*check(asdict(run), Run), *conflicts(run), *undivided(run, self.processes)]:
            raise UserError(problems)
        varied = as_overrides(point)
        return Composed(asdict(run), [*self.fixed, *varied], varied, config_key(run), choices)

    def _base(self, chosen: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
        if chosen not in self._bases:
            composed = self.loader.load_sweep_config(self.master, [*self.fixed, *chosen])
            choices = {name: str(composed.hydra.runtime.choices[name]) for name in SECTIONS}
            with open_dict(composed):
                del composed["hydra"]
            self._bases[chosen] = composed, choices
        return self._bases[chosen]


def start(settings: Settings, loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> None:
    """Run the study that Hydra has composed; exit with what its end means."""
    from lorasweep.promote import write_best
    from lorasweep.rules import user_errors
    from lorasweep.study.session import run_session
    from lorasweep.study.signals import undisturbed
    from lorasweep.study.view import build_console, build_view
    from lorasweep.tracking.subject import share_identity
    from lorasweep.tracking.view import followed

    with user_errors():
        definition = define(asdict(settings), loader, master, arguments)

        def closing(store: Store) -> str:
            from lorasweep.report import report_if_possible, write_report

            return report_if_possible(lambda: write_report(store, definition.folder))

        def opening(store: Store) -> None:
            if not store.database.is_local:
                share_identity(definition.folder, store.settle)

        with followed(definition, build_view(build_console(), definition)) as view:
            try:
                reason = run_session(definition, view, closing, opening)
            except BaseException:
                with undisturbed(), suppress(Exception):  # what has ended the study is what to say
                    write_best(definition)
                raise
            with undisturbed():
                write_best(definition)
    if reason:
        raise SystemExit(os.EX_TEMPFAIL if reason == "interrupted" else 1)


def define(sweeper: Mapping[str, Any], loader: ConfigLoader, master: DictConfig, arguments: list[str]) -> Definition:
    """Return the study that a composed master config and its overrides describe."""
    choices = OmegaConf.to_container(master.hydra.runtime.choices)
    assert isinstance(choices, dict)
    groups = {str(name) for name in choices}
    overrides = OverridesParser.create().parse_overrides(arguments)
    values = OmegaConf.to_container(master)
    assert isinstance(values, dict)
    search = read_search(sweeper, overrides, groups, lambda key: value_at(key, values, choices))
    if search.problems:
        raise UserError(search.problems)
    composer = Composer(loader, master, arguments, groups)
    folder = Path(str(master.hydra.sweep.dir)).absolute()
    composer.name, composer.processes = folder.name, search.settings.gpus_per_trial
    return Definition(folder.name, folder, search.settings, search.space, composer, taken_out=search.taken_out)


def value_at(key: str, values: Mapping[Any, Any], choices: Mapping[Any, Any]) -> Any:
    """Return what a group or a dotted key is in a composed config; MISSING if it is not there."""
    if key in choices:
        return choices[key]
    found: Any = values
    for part in key.split("."):
        found = found.get(part, MISSING) if isinstance(found, Mapping) else MISSING
    return found
