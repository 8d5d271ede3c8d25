"""The command report: a study as a page to look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import Storage, Study
from lorasweep.rules import Problem, UserError
from lorasweep.study.folder import controller_of, find_study


def report(
    study: Study,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Default: report.html in the study's folder.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Write it again and again while the study runs.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", min=1, help="How often, with --watch.")] = 30.0,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    storage: Storage = None,
) -> None:
    """Write a study as a page that needs no network: leaderboard, figures, two trials side by side, answers."""
    folder = find_study(study)
    from lorasweep import report as reports

    page = out or folder / reports.PAGE
    owner = controller_of(folder) if watch else None
    try:
        reports.report(folder, page, storage, every if owner else None)
        typer.echo(os.path.relpath(page))
        if show:
            typer.launch(page.absolute().as_uri())
        if owner:
            typer.echo(f"again every {every:g} s while {owner} runs the study; Ctrl-C ends it")
            reports.watch(folder, page, storage, every)
        elif watch:
            typer.echo("nothing runs the study now: it is not written again")
    except OSError as error:
        raise UserError(Problem("--out", str(page), f"a file that can be written ({error.strerror})")) from None
