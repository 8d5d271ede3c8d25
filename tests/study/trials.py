"""Studies whose trials are made by hand: real configs, results to order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from lorasweep.compose.study import define
from lorasweep.record import claim
from lorasweep.rules import build
from lorasweep.schema import Run
from lorasweep.study.database import local_url
from lorasweep.study.definition import Definition
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Direction
from lorasweep.study.space import Point, Space
from lorasweep.study.store import Store


def defined(folder: Path, *overrides: str, config_dir: Path | None = None) -> Definition:
    """The study of a command line with -m; composing goes on working while the fixture `hydra` holds."""
    arguments = [f"hydra.sweep.dir={folder}", *overrides]
    loader = GlobalHydra.instance().config_loader()
    master = loader.load_configuration("config", [item for item in arguments if "," not in item], RunMode.MULTIRUN)
    from omegaconf import OmegaConf

    sweeper = OmegaConf.to_container(master.hydra.sweeper)
    return define(sweeper, loader, master, arguments)  # type: ignore[arg-type]


def kept(folder: Path, definition: Definition | None = None, **facts: Any) -> Store:
    """The store of a study, with what a controller keeps about it."""
    folder.mkdir(parents=True, exist_ok=True)
    objectives: list[str] = facts.pop("objectives", ["objective"])
    directions: list[Direction] = facts.pop("directions", ["minimize"] * len(objectives))
    store = Store(
        local_url(folder / "study.db"), folder.name, directions, definition.space if definition else Space(())
    )
    settled = {"hydra.sweeper.objectives": objectives, "hydra.sweeper.direction": directions}
    store.keep("definition", (definition.lasting() if definition else {}) | settled | facts)
    return store


def ended(
    store: Store,
    point: Point,
    result: float | Sequence[float] | State = 1.0,
    kind: str = "sampled",
    facts: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> int:
    """A trial that ended in this state, or complete with these values."""
    number = store.create(point, f"{point} {kind}", kind)
    state = result if isinstance(result, State) else State.COMPLETE
    values = (
        None
        if isinstance(result, State)
        else [float(v) for v in (result if isinstance(result, Sequence) else [result])]
    )
    store.finish(number, state, values, {"facts": dict(facts or {}), "reason": reason})
    return number


def trained(store: Store, definition: Definition, point: Point, value: float = 1.0, kind: str = "sampled") -> int:
    """A complete trial with the config of a point in its folder, as the engine leaves it."""
    composed = definition.compose(point)
    number = store.create(point, composed.key, kind)
    store.note(number, choices=composed.choices)
    claim(definition.folder / "trials" / str(number), build(composed.run, Run, set()))
    store.finish(number, State.COMPLETE, [value], {"facts": {"objective": value}, "reason": None})
    return number
