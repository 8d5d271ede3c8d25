"""The commands to look at what there is: ls, show, compare. They read, and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lorasweep.cli.arguments import AsJson, Sort, Storage

MOST = 30

Named = "A run folder or its name in outputs/runs; STUDY:NUMBER, STUDY:best, STUDY:baseline"


def ls(
    places: Annotated[
        list[Path] | None, typer.Argument(metavar="[PLACE]...", help="Folders to look in; default: outputs.")
    ] = None,
    sort: Annotated[Sort, typer.Option(help="What comes first; best: the best of every objective.")] = Sort.newest,
    most: Annotated[int | None, typer.Option(min=1, help=f"How many; default: {MOST}, as JSON all.")] = None,
    as_json: AsJson = False,
) -> None:
    """List studies and runs: state, best objective, age, size on disk. A study's folder lists its trials."""
    from rich.console import Console

    from lorasweep import listing
    from lorasweep.listing import console

    where = places or [listing.OUTPUTS]
    entries, more = listing.entries(where, sort.value, most or (None if as_json else MOST))
    if as_json:
        print(console.as_json(entries))
    else:
        console.show(entries, more, where, Console(highlight=False))


def show(
    what: Annotated[str, typer.Argument(metavar="RUN|STUDY", help=f"{Named}; the folder or the name of a study.")],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show one run or one study: config, data, scores, curve, costs, what is doubtful, and how to go on."""
    from rich.console import Console

    from lorasweep import overview

    known = overview.overview(what, storage)
    if as_json:
        print(overview.as_json(known))
    else:
        overview.show(known, Console(highlight=False))


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help=f"{Named}. The others against the first.")],
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: what differs, what came of it, how sure that is row by row, and what makes it unfair."""
    from rich.console import Console

    from lorasweep import comparison
    from lorasweep.comparison import console

    known = comparison.compare(runs, storage)
    if as_json:
        print(comparison.as_json(known))
    else:
        console.show(known, Console(highlight=False))
