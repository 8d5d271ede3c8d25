"""The command reproduce: a recorded run, made again and compared with the first."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import AsJson, Overrides, Storage
from lorasweep.cli.looking import Named
from lorasweep.rules import Problem, UserError


def reproduce(
    run: Annotated[str, typer.Argument(metavar="RUN", help=f"{Named}; a folder that push has written.")],
    overrides: Overrides = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is another; train nothing.")] = False,
    other: Annotated[
        str | None, typer.Option("--with", metavar="RUN", help="Compare with this run; train nothing.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The new run folder; default: in outputs/runs.")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Train a recorded run again: what is another, where numbers part, and whether it is the same run.

    Exit code 0: exact or equivalent; with --check, nothing that matters is another. Otherwise 1.
    """
    from rich.console import Console

    from lorasweep import reproduce as reproducing
    from lorasweep.reproduce import console, written

    if other and (overrides or check or out):
        raise UserError(Problem("--with", other, "used alone: nothing is trained, so that nothing else has an effect"))
    reporter = console.Reporter(Console(highlight=False, quiet=as_json))
    if other:
        done = reproducing.compare(run, other, storage)
    else:
        known = reproducing.check(run, overrides or [], out, storage)
        reporter.check(known)
        if check:
            if as_json:
                print(written.as_json(written.values_of(known)))
            raise typer.Exit(int(not known.is_same))
        known.run.verbosity = "quiet" if as_json else known.run.verbosity
        logging.getLogger().addHandler(logging.NullHandler())
        done = reproducing.reproduce(known, overrides or [], reporter)
        written.keep(done)
    reporter.result(done)
    if as_json:
        print(written.as_json(written.result_of(done)))
    raise typer.Exit(done.judgement.verdict.exit_code)
