"""The commands under `lorasweep wandb`: sync what W&B lacks; save a report there; write a sweep for its agents."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lorasweep import places
from lorasweep.cli.arguments import Storage, Study
from lorasweep.rules import Problem, UserError
from lorasweep.study.folder import find_study

app = typer.Typer(help="What there is to do with Weights & Biases.", no_args_is_help=True)
Place = Annotated[str, typer.Argument(metavar="RUN|STUDY", help="A run, a study or STUDY:TRIAL: folder or name.")]


@app.command()
def sync(place: Place, storage: Storage = None) -> None:
    """Send what has not reached W&B, from the folders of runs. May be repeated: nothing is sent twice."""
    found = places.find(place, storage)
    from lorasweep.tracking import sync as syncing

    failed = False
    for one in syncing.sync(found, storage):
        failed |= one.failed
        typer.echo(f"{one.id}: {'not sent, ' * one.failed}{one.words}")
    if failed:
        raise typer.Exit(1)


@app.command()
def report(study: Study, storage: Storage = None) -> None:
    """Save a W&B report of a study: leaderboard, parallel coordinates, importances, learning curves."""
    if find_spec("wandb_workspaces") is None:
        how = "the package: pip install -c constraints.txt -e '.[wandb-reports]'"
        raise UserError(Problem("wandb-workspaces", None, how))
    folder = find_study(study)
    from lorasweep.tracking.saved_report import save_report

    typer.echo(save_report(folder, storage))


@app.command()
def sweep(
    study: Study,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file; default: the terminal.")] = None,
    storage: Storage = None,
) -> None:
    """Write the search of a study as a W&B sweep, whose agents run python train.py."""
    if out and out.exists():
        raise UserError(Problem("--out", str(out), "a new file; this one exists"))
    folder = find_study(study)
    from lorasweep import compose
    from lorasweep.tracking.sweep_file import sweep_file

    compose.register()
    written = sweep_file(folder, storage, str(out or "FILE"))
    if out:
        out.write_text(written.text)
        typer.echo("\n".join([f"{out}: wandb sweep {out}", *written.notes]))
    else:
        typer.echo(written.text, nl=False)
