"""What the configs of runs differ in, and whether that changes what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorasweep.comparison.sides import Side
from lorasweep.rules import build
from lorasweep.schema import SECTIONS, Run
from lorasweep.study.canonical import canonical
from lorasweep.study.definition import FREE

ABSENT = None
"""Stands for a key that a run has not got."""


@dataclass(frozen=True)
class ConfigDifference:
    """A key and its value in every run."""

    key: str
    values: list[Any]
    has_effect: bool
    """False: with or without it the same is trained, as scheduler.warmup with a constant rate."""


def config_differences(sides: Sequence[Side]) -> list[ConfigDifference]:
    """Return the options that differ, those with an effect first."""
    keys = dict.fromkeys(key for side in sides for key in side.values if key.partition(".")[0] not in FREE)
    found = []
    for key in keys:
        values = [side.values.get(key, ABSENT) for side in sides]
        if any(value != values[0] for value in values):
            found.append(ConfigDifference(key, values, _has_effect(key, sides)))
    return sorted(found, key=lambda item: not item.has_effect)


def group_choices(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Return the config groups from which the runs took different files, where that is known of all of them."""
    chosen = [_choices(side) for side in sides]
    options = {group: [known.get(group) for known in chosen] for group in SECTIONS}
    return {
        group: [option for option in names if option is not None]
        for group, names in options.items()
        if None not in names and len(set(names)) > 1
    }


def _choices(side: Side) -> dict[str, str]:
    """Return files of groups: of a trial those that the study noted, of a run those that its command line named."""
    if side.named.trial:
        return side.named.trial.choices
    overrides = (text.partition("=") for text in side.results.record.get("overrides", []))
    return {name: option for name, _, option in overrides if name in SECTIONS}


def _has_effect(key: str, sides: Sequence[Side]) -> bool:
    """Tell whether some run would train otherwise with the value that another has."""
    return any(
        _with(side, key, other.values.get(key, ABSENT)) != canonical(side.run)
        for side, other in _pairs(sides)
        if side.values.get(key, ABSENT) != other.values.get(key, ABSENT)
    )


def _pairs(sides: Sequence[Side]) -> Iterator[tuple[Side, Side]]:
    for other in sides[1:]:
        yield sides[0], other
        yield other, sides[0]


def _with(side: Side, key: str, value: Any) -> dict[str, Any]:
    """Return what a run would train with another value."""
    values = asdict(side.run)
    *path, last = key.split(".")
    place = values
    for name in path:
        place = place.setdefault(name, {})
    place[last] = value
    run = build(values, Run, set())
    assert isinstance(run, Run)
    return canonical(run)
