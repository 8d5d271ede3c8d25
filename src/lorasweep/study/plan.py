"""The command plan: what a study would try, before it costs anything."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.study import comparability
from lorasweep.study.database import check_file, local_url, readable, study_names
from lorasweep.study.definition import Definition
from lorasweep.study.outcomes import State
from lorasweep.study.proposal import proposals
from lorasweep.study.slots import count_slots
from lorasweep.study.space import Point
from lorasweep.study.store import Store
from lorasweep.study.trial import Trial
from lorasweep.study.view import taken_out, words

MOST_COMPOSED = 2000
"""Points of a grid that are composed to find those that would be refused; about 10 ms each."""


@dataclass(frozen=True)
class Planned:
    """A point that would be tried, or why it would not."""

    point: Point
    kind: str
    refused: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a study would do."""

    definition: Definition
    points: list[Planned]
    combinations: int | None
    """Of the space; None if there are too many to count."""
    distinct: int | None
    """Points of a grid that would be trained; None where the search does not go through all."""
    notes: list[str]
    finished: list[Trial]
    """Trials of earlier sessions."""

    @property
    def total(self) -> int | None:
        """Return the trials that the study has at its end."""
        asked, distinct = self.definition.settings.n_trials, self.distinct
        return min(asked, distinct) if asked and distinct else asked or distinct

    @property
    def remaining(self) -> int | None:
        """Return the trials that have yet to be run."""
        return None if self.total is None else max(0, self.total - len(self.finished))


def plan(definition: Definition, run: Run, most: int) -> Plan:
    """Return what a study would do: the first `most` points as it would try them, and what it would refuse."""
    finished = _finished(definition)
    grid = definition.settings.sampler in ("grid", "list")
    with TemporaryDirectory() as place:
        store = Store(local_url(Path(place) / "plan.db"), definition.name, definition.directions(), definition.space)
        points = _first_points(definition, store, MOST_COMPOSED if grid else most)
        store.close()
    size = definition.space.size()
    whole = grid and size is not None and size <= MOST_COMPOSED
    distinct = sum(not item.refused for item in points) if whole else size if grid else None
    refused = [item for item in points if item.refused]
    shown = [*itertools.islice((item for item in points if not item.refused), most), *refused[:most]]
    notes = list(comparability.notes(definition.space, run))
    return Plan(definition, shown, size, distinct, notes, finished)


def config_of(definition: Definition, run: Run, number: int) -> str:
    """Return the composed config of a point that would be tried, as YAML."""
    points = [item.point for item in plan(definition, run, number + 1).points if not item.refused]
    if number >= len(points):
        raise UserError(Problem("--config", number, f"the number of a point: 0 to {len(points) - 1}"))
    composed = definition.compose(points[number])
    return f"# {words(points[number])}\n" + yaml.safe_dump(composed.run, sort_keys=False, allow_unicode=True)


def _first_points(definition: Definition, store: Store, most: int) -> list[Planned]:
    """Return points in the order in which they would be tried, while no trial has ended yet."""
    asked = [(definition.space.baseline(), "baseline")] if definition.settings.baseline else []
    asked += [(dict(point), "enqueued") for point in definition.settings.enqueue]
    found: list[Planned] = []
    keys: set[str] = set()

    def take(point: Point, kind: str) -> bool:
        try:
            composed = definition.compose(point)
        except UserError as error:
            found.append(Planned(point, kind, str(error.problems[0])))
            store.create(point, f"refused {point}", kind, State.REFUSED)  # what comes next follows from it
            return True
        if composed.key in keys:
            return False
        keys.add(composed.key)
        found.append(Planned(point, kind))
        store.create(point, composed.key, kind)
        return True

    for point, kind in asked:
        take(point, kind)
    if definition.settings.sampler == "grid":
        for point in itertools.islice(definition.space.points(), most):
            take(point, "sampled")
        return found
    while len(found) < most:
        tried = proposals(definition.settings, definition.space, store.frozen(), definition.directions())
        if not any(take(point, "sampled") for point in tried):
            break
    return found


def _finished(definition: Definition) -> list[Trial]:
    file, url = definition.folder / "study.db", definition.settings.storage
    if url is None and not file.exists():
        return []
    with readable(url or local_url(file)):
        if url is None:
            check_file(file)
        elif definition.name not in study_names(url):
            return []
        store = Store(url or local_url(file), definition.name, definition.directions(), definition.space)
    try:
        return [trial for trial in store.trials() if trial.state.is_finished and trial.state is not State.REFUSED]
    finally:
        store.close()


def show(plan: Plan) -> None:
    """Print a plan."""
    console, definition = Console(highlight=False), plan.definition
    settings = definition.settings
    console.print(Text(f"Study {definition.name}", style="bold"), Text(f"in {definition.folder}", style="dim"))
    console.print(_space_table(plan))
    for line in taken_out(definition):
        console.print(Text(f"  {line}", style="dim"))
    size = plan.combinations
    slots = count_slots(settings)
    together = "one at a time" if slots == 1 else f"{slots} at a time"
    combinations = f"{size:,} combinations" if size else "more combinations than can be counted"
    total = f"{plan.total:,} trials" if plan.total else "trials without end"
    console.print(f"\n{combinations}; {settings.sampler} tries {total}, {together}, pruned by {settings.pruner}")
    for line in plan.notes:
        console.print(Text(f"! {line}", style="yellow"))
    console.print()
    for number, item in enumerate(item for item in plan.points if not item.refused):
        kind = "" if item.kind == "sampled" else f"{item.kind}: "
        console.print(Text(f"{number:>4}  {kind}{words(item.point)}"), soft_wrap=True)
    for item in plan.points:
        if item.refused:
            console.print(Text(f"   -  refused: {words(item.point)}\n      {item.refused}", style="red"))


def _space_table(plan: Plan) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for dimension in plan.definition.space:
        asked = plan.definition.space.only_if.get(dimension.key, {})
        only = "".join(f", only if {key} is {' or '.join(map(str, values))}" for key, values in asked.items())
        table.add_row(dimension.key, Text(f"{dimension.words()}{only}"))
    return table
