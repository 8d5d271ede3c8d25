"""What is wrong with an override by itself, before anything is composed with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from hydra._internal.config_repository import IConfigRepository
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from lorasweep import schema
from lorasweep.compose.contents import OPEN_HYDRA_KEYS
from lorasweep.compose.spaces import read_sweep
from lorasweep.rules import MISSING, Problem, check, nearest
from lorasweep.study.definition import FREE

STUDY_KEYS = ("study", "space", "strategy")


class Overrides:
    """Checks overrides against the schema and the files of config groups."""

    def __init__(self, repository: IConfigRepository, multirun: bool) -> None:
        self.repository, self.multirun = repository, multirun

    def problems(self, override: Override) -> Iterator[Problem]:
        """Yield what is wrong with an override of a run or a study."""
        key, problems = override.key_or_group, list(self._refusals(override))
        if not problems and override.is_sweep_override():
            problems = [problem for value in _swept_values(override) for problem in self.value_problems(key, value)]
            if isinstance(override.value(), IntervalSweep):
                problems = [_with_whole_numbers(problem, override) for problem in problems]
        elif not problems and self.is_group(key) and not override.is_delete():
            problems += self._option_problems(key, override.value())
        yield from _from_command_line(problems, override)

    def point_problems(self, override: Override) -> Iterator[Problem]:
        """Yield what is wrong with one value of a point; whether it goes with the others only the study knows."""
        key, problems = override.key_or_group, list(self._refusals(override))
        never_varies = re.split("[./]", key)[0] in ("hydra", "experiment", *STUDY_KEYS, *FREE)
        if never_varies or override.is_delete() or override.is_add():
            problems.append(Problem(key, MISSING, "an option of the run that can differ between trials: lora.r=48"))
        if not problems:
            problems += self.value_problems(key, override.value())
        yield from _from_command_line(problems, override)

    def value_problems(self, key: str, value: Any) -> Iterator[Problem]:
        """Yield why an option, or a group, cannot have a value."""
        if self.is_group(key):
            return self._option_problems(key, value)
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        return check(tree, schema.Run)

    def is_group(self, key: str) -> bool:
        """Tell whether a key is a config group, whose values are names of files."""
        return bool(self.repository.group_exists(key))

    def _refusals(self, override: Override) -> Iterator[Problem]:
        key, value = override.key_or_group, None if override.is_sweep_override() else override.value()
        if key.startswith(("hydra.", "hydra/")) and not OPEN_HYDRA_KEYS.match(key):
            yield Problem(key, value, "not open to change: it can make Hydra run other code")
        elif key.startswith("hydra.") and override.is_sweep_override():
            yield Problem(key, MISSING, "one value, in quotes if it has commas; what varies is written lora.r=8,16")
        elif not self.multirun and override.is_sweep_override():
            yield Problem(key, MISSING, "one value; several make a study: python train.py -m …")
        elif not self.multirun and key in STUDY_KEYS and value is not None:
            yield Problem(key, value, "only for studies: python train.py -m …")

    def _option_problems(self, group: str, value: Any) -> Iterator[Problem]:
        options = self.repository.get_group_options(group, ObjectType.CONFIG)
        for option in value if isinstance(value, list) else [value]:
            if option is None and group in schema.SECTIONS:
                yield Problem(group, None, f"one of {', '.join(options)}")
            elif option is not None and str(option) not in options:
                yield Problem(group, option, f"one of {', '.join(options)}", nearest(str(option), options))


def _from_command_line(problems: Iterable[Problem], override: Override) -> Iterator[Problem]:
    for problem in problems:
        yield replace(problem, source=f"command line: {override.input_line}")


def _swept_values(override: Override) -> Iterable[Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        return read_sweep(override, is_group=False).values() or ()
    if isinstance(sweep, RangeSweep):
        return [sweep.start, sweep.stop]
    return [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else []


def _with_whole_numbers(problem: Problem, override: Override) -> Problem:
    """Say how an interval becomes one of whole numbers, where that is what is missing."""
    if not problem.allowed.startswith("a whole number") or not float(problem.value).is_integer():
        return problem
    return replace(problem, allowed=f"{problem.allowed}: {override.key_or_group}=int({override.get_value_string()})")
