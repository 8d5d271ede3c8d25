"""The commands under `lorasweep wandb`: sync what W&B lacks; save a report there; write a sweep for its agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import Storage

app = typer.Typer(help="What there is to do with Weights & Biases.", no_args_is_help=True)
Place = Annotated[
    str,
    typer.Argument(metavar="RUN|STUDY", help="A run folder, or that of a study, or its name below outputs/studies."),
]


@app.command()
def sync(place: Place, storage: Storage = None) -> None:
    """Send what has not reached W&B, from the folders of runs. May be repeated: nothing is sent twice."""
    from lorasweep.study.folder import find_study
    from lorasweep.tracking.sync import sync_run, sync_study

    is_run = (Path(place) / "run.yaml").is_file()
    sent = sync_run(Path(place)) if is_run else sync_study(find_study(place), storage)
    failed = False
    for one in sent:
        failed |= one.failed
        typer.echo(f"{one.id}: {'not sent, ' * one.failed}{one.words}")
    if failed:
        raise typer.Exit(1)
