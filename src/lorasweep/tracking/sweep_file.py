"""The command wandb sweep: the search of a study as W&B's own sweep, whose agents run `python train.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lorasweep.compose import composed_values
from lorasweep.compose.spaces import as_overrides, literal
from lorasweep.promote import CONF, as_experiment
from lorasweep.results import flat
from lorasweep.rules import Problem, UserError
from lorasweep.study.definition import FREE, Search
from lorasweep.study.space import Choice, Dimension, Interval
from lorasweep.study.store import open_store

METHODS = {"grid": "grid", "random": "random", "tpe": "bayes"}
HEADER = "# wandb sweep {file}, and then, here in the checkout, the wandb agent that it names\n"


@dataclass(frozen=True)
class SweepFile:
    """A sweep file, and what W&B cannot do as the study does."""

    text: str
    notes: list[str]


def sweep_file(study: Path, storage: str | None, file: str) -> SweepFile:
    """Return the search of a study as a W&B sweep."""
    store = open_store(study, storage)
    try:
        kept, directions = store.attributes.get("search"), store.directions
    finally:
        store.close()
    if kept is None:
        raise UserError(Problem("STUDY", str(study), "a study that has begun"))
    search = Search.of(kept)
    if search.settings.sampler not in METHODS or not search.space.dimensions:
        raise UserError(Problem("STUDY", study.name, "a study that searches a space, not a list of points"))
    metric = {"name": _metric(search), "goal": directions[0]}
    tracking = {name: search.run["tracking"][name] for name in ("project", "entity") if search.run["tracking"][name]}
    sweep = {
        "name": study.resolve().name,
        **tracking,
        "program": "train.py",
        "command": ["${env}", "python", "train.py", *fixed_overrides(search), "${args_no_hyphens}"],
        "method": METHODS[search.settings.sampler],
        "metric": metric,
        **({"run_cap": search.settings.n_trials} if search.settings.n_trials else {}),
        **_early_termination(search),
        "parameters": {item.key: parameter(item, METHODS[search.settings.sampler]) for item in search.space},
    }
    notes = list(_notes(search))
    text = HEADER.format(file=file) + "".join(f"# {note}\n" for note in notes)
    return SweepFile(text + yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True), notes)


def parameter(dimension: Dimension, method: str) -> dict[str, Any]:
    """Return a key as W&B describes it; what agents are given is put on the command line as it is."""
    values = dimension.values()
    if isinstance(dimension, Choice) or (values is not None and method == "grid"):
        assert values is not None
        return {"values": [_argument(value) for value in values]}
    assert isinstance(dimension, Interval)
    if values is None:
        scale = "log_uniform_values" if dimension.log else "uniform"
        return {"distribution": scale, "min": float(dimension.low), "max": float(dimension.high)}
    if dimension.log:
        return {"distribution": "q_log_uniform_values", "min": values[0], "max": values[-1], "q": 1}
    if dimension.is_int and dimension.step in (None, 1):
        return {"distribution": "int_uniform", "min": values[0], "max": values[-1]}
    step = int(dimension.step or 1) if dimension.is_int else dimension.step
    assert step
    if abs(values[0] / step - round(values[0] / step)) < 1e-9:  # W&B rounds to multiples of the step
        return {"distribution": "q_uniform", "min": values[0], "max": values[-1], "q": step}
    return {"values": list(values)}


def fixed_overrides(search: Search) -> list[str]:
    """Return the overrides that make the config of a study from the defaults, but for what varies."""
    wanted = {name: value for name, value in search.run.items() if name not in FREE}
    choices, values, _ = as_experiment(wanted, search.choices)
    groups = [f"{section}={option}" for section, option in choices.items()]
    known = flat(composed_values(CONF, groups))
    varied = {dimension.key for dimension in search.space}
    kept = {key: value for key, value in flat(values).items() if key not in varied}
    added = [("" if key in known else "+") + text for key, text in zip(kept, as_overrides(kept), strict=True)]
    return [text for text, section in zip(groups, choices, strict=True) if section not in varied] + added


def _metric(search: Search) -> str:
    """Return what agents log: with early termination what every evaluation does, not only the last."""
    name: str = search.settings.objectives[0]
    return f"eval/{search.run['evaluation']['objective']}" if name == "objective" and _is_asha(search) else name


def _early_termination(search: Search) -> dict[str, Any]:
    if not _is_asha(search):
        return {}
    evaluation, settings = search.run["evaluation"], search.settings
    # W&B counts how often the metric was logged, before the first step too
    first = max(1, round(settings.prune_after * evaluation["times"])) + evaluation["untuned"]
    return {"early_terminate": {"type": "hyperband", "min_iter": first, "eta": settings.reduction_factor}}


def _is_asha(search: Search) -> bool:
    return search.settings.pruner == "asha"


def _argument(value: Any) -> Any:
    """Return a value that is read back as itself from key=value; W&B writes null as None."""
    return value if isinstance(value, int | float) else literal(value)


def _notes(search: Search) -> Iterator[str]:
    """Yield what W&B does otherwise."""
    settings = search.settings
    for key, asked in search.space.only_if.items():
        conditions = " and ".join(f"{other} is {' or '.join(map(str, values))}" for other, values in asked.items())
        yield f"{key} varies here always; in the study only if {conditions}"
    for dimension in search.space:
        if isinstance(dimension, Choice) and any(isinstance(value, list | dict) for value in dimension.options):
            yield f"{dimension.key} has lists, which are texts to W&B"
    if settings.baseline or settings.enqueue:
        yield "the config itself and enqueued points are not tried first"
    if settings.pruner == "median":
        yield "W&B has no median pruner: no run ends early"
    if _is_asha(search):
        yield "early ends go by evaluations, not by supervised tokens"
    if len(settings.objectives) > 1:
        yield f"W&B optimises one metric: {settings.objectives[0]}"
