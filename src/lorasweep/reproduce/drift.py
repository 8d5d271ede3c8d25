"""What is not as it was recorded, each thing by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lorasweep.identity import Difference
from lorasweep.reproduce.facts import LOCATED, MEANS, Fact, Weight

ABSENT = "none"
IN_GROUPS = ("package ", "data file ", "model file ", "tokenizer file ")
"""Of these a fact that only one side has is a difference; of all others it is only not known on the other side."""
OF_MODEL, ON_HUB = ("model file ", "tokenizer file "), "commit of the model"


@dataclass(frozen=True)
class Drift:
    """A fact that is another one now."""

    name: str
    weight: Weight
    before: Any
    now: Any


@dataclass(frozen=True)
class Comparison:
    """Facts of a record against those of another."""

    drift: list[Drift]
    unknown: list[str]
    """Facts that could matter, are known now, and are not in the record: it is older, or was pushed."""
    unchecked: list[str]
    """Facts of the record that are not known now: they show once the run is loaded."""

    def of(self, weight: Weight) -> list[Drift]:
        """Return the differences of a weight."""
        return [item for item in self.drift if item.weight is weight]


def compared(before: Mapping[str, Fact], now: Mapping[str, Fact]) -> Comparison:
    """Return what differs between recorded facts and those of now, the weightiest first."""
    both = before.keys() & now.keys()
    shown = {key for key, start in LOCATED.items() if any(name.startswith(start) for name in both)}
    found = [item for item in _differences(before, now) if item.name not in shown]
    names = {item.name for item in found}
    found = [item for item in found if item.name.removeprefix("order of the ") not in names - {item.name}]
    found.sort(key=lambda item: list(Weight).index(item.weight))
    unlike = {item.name for item in found}
    return Comparison(
        found,
        [name for name in now if name not in before and name not in unlike and now[name].weight is not Weight.NOTE],
        [name for name in before if name not in now and name not in unlike],
    )


def gone_on_otherwise(record: Mapping[str, Any]) -> list[Drift]:
    """Return what was another in the first steps of a run that has been gone on with: nothing repeats both parts."""
    found = []
    for time in record.get("resumed", ()):
        changed, means = time.get("changed") or {}, time.get("means") or {}
        for name, (before, now) in {**changed, **means}.items() if time["step"] else ():
            weight = Weight.MEANS if name in means or _is_means(name) else Weight.INPUT
            found.append(Drift(f"{name} up to step {time['step']}", weight, before, now))
    return found


def _is_means(name: str) -> bool:
    return Difference(name, None, None).is_code or name == "precision" or name in MEANS


def _differences(before: Mapping[str, Fact], now: Mapping[str, Fact]) -> Iterator[Drift]:
    for name, fact in before.items():
        if name in now:
            if fact.value != now[name].value:
                yield Drift(name, fact.weight, fact.value, now[name].value)
        elif _is_listed(name, fact, now):
            yield Drift(name, fact.weight, fact.value, ABSENT)
    for name, fact in now.items():
        if name not in before and _is_listed(name, fact, before):
            yield Drift(name, fact.weight, ABSENT, fact.value)


def _is_listed(name: str, fact: Fact, others: Mapping[str, Fact]) -> bool:
    """Tell whether others list such things at all, so that one that is not among them is not there."""
    group = next((group for group in IN_GROUPS if name.startswith(group)), None)
    if group in OF_MODEL and ON_HUB in others:
        return False  # of a repository only those files are there that were needed
    return group is not None and any(
        other.startswith(group) and known.weight is fact.weight for other, known in others.items()
    )
