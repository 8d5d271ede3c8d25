"""The commands around a study: plan before it; add, stop while it runs; confirm, promote after it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import ConfigDir, Overrides, Storage, Study
from lorasweep.record import CHECKOUT
from lorasweep.rules import UserError
from lorasweep.study import comparability
from lorasweep.study.folder import controller_of, find_study
from lorasweep.study.requests import Request, make_request
from lorasweep.study.space import Choice, Point, Space


def plan(
    overrides: Overrides = None,
    points: Annotated[int, typer.Option(min=0, help="How many of the first points to show.")] = 8,
    timed: Annotated[bool, typer.Option("--time", help="Train a few steps to say how long it would take.")] = False,
    config: Annotated[int | None, typer.Option(metavar="N", min=0, help="Print the whole config of point N.")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Show what a study would try and what it would refuse, before anything is trained."""
    from lorasweep import compose

    places = [f"--config-dir={config_dir}"] if config_dir else []
    compose.register()
    line = compose.CommandLine.of(["--multirun", *places, *(overrides or [])])
    run, definition = compose.checked_study(CHECKOUT / "conf", line)
    from lorasweep.study import estimate
    from lorasweep.study import plan as plans

    if config is not None:
        typer.echo(plans.config_of(definition, run, config))
        return
    found = plans.plan(definition, run, points)
    plans.show(found)
    estimate.show(definition, run, found.remaining, found.finished, timed)


def add(
    study: Study,
    values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What to try: lora.r=48 optim.lr=1e-4.")],
    config_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="As the study was started with.")] = None,
) -> None:
    """Have a study try these values, with all others as its config has them; on top of its total."""
    from lorasweep import compose

    folder = find_study(study)
    places = [f"--config-dir={config_dir}"] if config_dir else []
    compose.register()
    point = compose.read_point(CHECKOUT / "conf", compose.CommandLine.of([*places, *values]))
    _check_comparable(folder, point)
    make_request(folder, Request(point=point))
    owner = controller_of(folder)
    when = f"now, by {owner}" if owner else "when the study next runs: nothing runs it now"
    typer.echo(f"{folder}: {' '.join(values)} is taken up {when}")


def stop(study: Study, storage: Storage = None) -> None:
    """Have a study start no more trials; those that run are finished."""
    if storage:
        typer.echo(_stop_everywhere(Path(study), storage))
        return
    folder = find_study(study)
    owner = controller_of(folder)
    if owner is None:
        typer.echo(f"{folder}: nothing runs it now, so nothing is to be stopped")
        return
    make_request(folder, Request(stop=True))
    typer.echo(
        f"{folder}: {owner} starts no more trials and ends with those that run. The same command goes on with it"
    )


def _stop_everywhere(study: Path, storage: str) -> str:
    """Tell the controllers of a shared database, whatever hosts they are on."""
    from lorasweep.study.store import open_store

    store = open_store(study, storage)
    try:
        if others := store.others():
            store.tell_to_stop()
        names = ", ".join(other.words for other in others)
    finally:
        store.close()
    if not names:
        return f"{study.name}: nothing runs it now, so nothing is to be stopped"
    return f"{study.name}: no more trials are started by {names}; those that run are finished"


def confirm(
    study: Study,
    top: Annotated[int, typer.Option(min=1, help="How many of the best trials.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How many new seeds each.")] = 3,
    slots: Annotated[int | None, typer.Option(min=1, help="As hydra.sweeper.slots.")] = None,
    storage: Storage = None,
) -> None:
    """Train the best trials again with other seeds: is the winner inside the noise? Then score the test rows, once."""
    from rich.console import Console

    from lorasweep.confirm import confirm
    from lorasweep.confirm.console import Trials, show

    folder = find_study(study)
    show(confirm(folder, top, seeds, slots, storage, Trials(Console())))
    from lorasweep.report import PAGE, report, report_if_possible

    typer.echo(report_if_possible(lambda: report(folder, folder / PAGE, storage)))


def promote(
    study: Study,
    trial: Annotated[int | None, typer.Option(min=0, help="Which trial; default: the best.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the experiment; default: STUDY_best.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an experiment of that name.")] = False,
    storage: Storage = None,
) -> None:
    """Make a trial an experiment: conf/experiment/NAME.yaml."""
    folder = find_study(study)
    from lorasweep import compose
    from lorasweep.promote import promote, show

    compose.register()
    show(*promote(folder, trial, name, storage, force))


def _check_comparable(study: Path, point: Point) -> None:
    """Check that a trial with these values would be judged like the others of its study, once one of them has begun."""
    record = next(iter(sorted(study.glob("trials/*/run.yaml"))), None)
    if record is None:
        return
    from lorasweep.saved import as_recorded

    space = Space(tuple(Choice(key, (value,)) for key, value in point.items()))
    if problems := list(comparability.problems(space, as_recorded(record.parent), "none")):
        raise UserError(problems)
