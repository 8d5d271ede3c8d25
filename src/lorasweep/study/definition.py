"""What a study is, and what of it may not change between its sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lorasweep.rules import MISSING, Problem, UserError
from lorasweep.study.settings import Direction, Settings
from lorasweep.study.space import Choice, Point, Space, dimension_of

FREE = ("tracking", "verbosity", "name", "study", "resume", "resume_anyway")
"""Sections of a config that change nothing about what is trained and measured."""
LASTING = (
    "sampler", "sampler_kwargs", "seed", "objectives", "pruner", "prune_after", "reduction_factor", "gpus_per_trial",
)  # fmt: skip
"""Settings that all sessions share: what is tried, how it is judged, and the processes that train it, as each has a
dropout of its own and sums are rounded in another order."""
COSTS = ("memory/", "train/seconds", "evaluation/seconds", "seconds", "adapter/")


@dataclass(frozen=True)
class Composed:
    """A point made into a config: its plain values, the overrides that make it, and a hash of what it trains."""

    run: dict[str, Any]
    overrides: list[str]
    varied: list[str]
    """Of the overrides those of the point."""
    key: str
    choices: dict[str, str] = field(default_factory=dict)
    """The option that every config group has."""


@dataclass(frozen=True)
class Definition:
    """A study: what is searched, how, and how a point becomes a config."""

    name: str
    folder: Path
    settings: Settings
    space: Space
    compose: Callable[[Point], Composed]
    """Raises UserError for a point whose values contradict each other."""
    objective: str = "lorasweep.study.training:Training"
    """What trains a job, as module:factory; named by code alone, never by a config."""
    taken_out: tuple[str, ...] = ()
    """Overrides of the command line that took their keys out of the space."""

    def samples(self) -> Iterator[Point]:
        """Yield points that between them have every value of what is chosen from, the config itself first."""
        yield {}
        for dimension in self.space:
            for value in dimension.options if isinstance(dimension, Choice) else ():
                yield {dimension.key: value}

    def directions(self) -> list[Direction]:
        """Return minimize or maximize for every objective."""
        given = self.settings.direction
        if given is not None:
            return list(given) if isinstance(given, list) else [given] * len(self.settings.objectives)
        judged = self.compose({}).run.get("evaluation", {}).get("objective", "loss")
        return [direction_of(name, judged) for name in self.settings.objectives]

    def objective_names(self) -> list[str]:
        """Return what the objectives are called where people read them: loss, not objective."""
        judged = self.compose({}).run.get("evaluation", {}).get("objective", "loss")
        return [judged if name == "objective" else name for name in self.settings.objectives]

    def total(self) -> int | None:
        """Return how many trials the study will have at most, without added ones; None if nothing but time ends it."""
        size, asked = self.space.size(), self.settings.n_trials
        if size is None:
            return asked
        first = [self.space.baseline()] * self.settings.baseline + [dict(point) for point in self.settings.enqueue]
        size += sum(not self.space.holds(point) for point in first)
        return size if asked is None else min(size, asked)

    def lasting(self) -> dict[str, Any]:
        """Return what all sessions of the study must share, flat."""
        settings = self.settings
        facts: dict[str, Any] = {
            f"space.{dimension.key}": list(dimension.options) if isinstance(dimension, Choice) else dimension.words()
            for dimension in self.space
        }
        facts |= {
            f"only_if.{key}": {other: list(values) for other, values in asked.items()}
            for key, asked in self.space.only_if.items()
        }
        for name in LASTING:
            facts[f"hydra.sweeper.{name}"] = getattr(settings, name)
        facts["hydra.sweeper.direction"] = self.directions()
        varied = {dimension.key for dimension in self.space}
        base = {name: value for name, value in self.compose({}).run.items() if name not in FREE}
        return facts | {key: value for key, value in flat(base).items() if key not in varied}

    def search(self) -> dict[str, Any]:
        """Return what is searched and how, and from what config, as `Search.of` reads it."""
        base = self.compose({})
        return {
            "dimensions": [asdict(dimension) for dimension in self.space],
            "only_if": {key: dict(asked) for key, asked in self.space.only_if.items()},
            "settings": {**asdict(self.settings), "storage": None},  # it may have a password in it
            "run": base.run,
            "choices": base.choices,
        }


@dataclass(frozen=True)
class Search:
    """What a study searches, how, and from what config, as it is kept with the study."""

    space: Space
    settings: Settings
    run: dict[str, Any]
    """The config itself."""
    choices: dict[str, str]
    """The option that every config group has in it."""

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Search:
        """Read what `Definition.search` made."""
        space = Space(tuple(map(dimension_of, kept["dimensions"])), kept["only_if"])
        return cls(space, Settings(**kept["settings"]), kept["run"], kept["choices"])


def check_unchanged(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if a study that is gone on with is not the one that was begun, with every difference."""
    problems = [
        Problem(key, now.get(key, MISSING), _way_back(name, before.get(key, MISSING)))
        for key in dict.fromkeys((*before, *now))
        if before.get(key, MISSING) != now.get(key, MISSING)
    ]
    if problems:
        raise UserError(problems)


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested values under dotted keys."""
    return dict(_flat(values, path))


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _way_back(name: str, before: Any) -> str:
    was = "not there" if before is MISSING else repr(before)
    return f"{was}, as the study {name} was begun with; what changes it needs another name: study={name}_2"


def direction_of(name: str, judged: str = "loss") -> Direction:
    """Return which way a number of a run is better; `judged` is what its objective is."""
    if name == "objective":
        return "minimize" if judged == "loss" else "maximize"
    is_cost = name.startswith(COSTS) or name.endswith(("loss", "perplexity"))
    return "minimize" if is_cost else "maximize"
