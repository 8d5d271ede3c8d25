"""`python train.py resume=RUN`: the command line of a run that goes on, made of the config saved in its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorasweep import schema
from lorasweep.compose.command_line import CommandLine
from lorasweep.identity import differences, identity, refusals
from lorasweep.places import MOST_NAMED, RUNS, is_run, latest_runs
from lorasweep.record import saved_values
from lorasweep.results import read_results
from lorasweep.rules import Problem, UserError, nearest

ALONE = "python train.py resume=RUN, with nothing beside it but tracking, verbosity and the like"


def resumed_folder(line: CommandLine) -> Path | None:
    """Return the run folder that a command line asks to go on with; raises UserError if that cannot be."""
    given = next((item for item in line.overrides if item.key_or_group == "resume"), None)
    if given is None or (value := given.value()) is None:
        return None
    if given.is_sweep_override() or line.multirun:
        raise UserError(Problem("resume", str(value), "one run; the command of a study, once more, goes on with it"))
    folder = next((place for place in (Path(str(value)), RUNS / str(value)) if is_run(place)), None)
    if folder is None:
        raise UserError(_unknown(str(value)))
    if problems := [*_other_sources(line), *_no_run(folder)]:
        raise UserError(problems)
    return folder


def resuming_line(folder: Path, arguments: Sequence[str]) -> list[str]:
    """Return arguments that compose the saved config of a run folder, for a run in that folder.

    What came from the hub is taken at the commit that was recorded, whatever has been added there since.
    """
    place = str(folder.resolve())
    quoted = place.replace("\\", "\\\\").replace("'", "\\'")
    record = read_results(folder).record
    commits = {part: record.get(part, {}).get("commit") for part in ("model", "data")}
    pins = [f"{part}.revision='{commit}'" for part, commit in commits.items() if commit]
    return [f"--config-dir={place}", "experiment=saved", f"hydra.run.dir='{quoted}'", *pins, *arguments]


def end_of(folder: Path) -> str | None:
    """Return what to say of a run that has come to its end; None of others."""
    results = read_results(folder)
    if results.state not in ("complete", "pruned"):
        return None
    value = results.summary.get("objective")
    return f"{folder} is {results.state}{'' if value is None else f', objective {value:.4f}'}: nothing is left to train"


def check_unchanged(folder: Path, run: schema.Run) -> None:
    """Raise if a composed run is not the one that was begun in a folder, with every option that is another."""
    before, now = identity(read_results(folder).config, {}), identity(saved_values(run), {})
    if problems := refusals(differences(before, now), folder, run.resume_anyway):
        raise UserError(problems)


def _unknown(given: str) -> Problem:
    names = latest_runs()
    allowed = f"the folder of a run, or its name in {RUNS}"
    allowed += f". The latest: {', '.join(names[:MOST_NAMED])}" if names else ". There is none here yet"
    return Problem("resume", given, allowed, nearest(Path(given).name, names))


def _other_sources(line: CommandLine) -> Iterator[Problem]:
    if line.config_dir:
        yield Problem("--config-dir", str(line.config_dir), f"left out: {ALONE}")
    for override in line.overrides:
        key = override.key_or_group
        if key == "experiment" or key.startswith("hydra."):
            yield Problem(key, override.value(), f"left out: {ALONE}")


def _no_run(folder: Path) -> Iterator[Problem]:
    """Yield why a run folder cannot be gone on in."""
    begin = f"python train.py --config-dir {os.path.relpath(folder)} experiment=saved"
    try:
        results = read_results(folder)
    except UserError:  # an empty config
        results = None
    if results is None or not (folder / "experiment" / "saved.yaml").is_file():
        yield Problem("resume", str(folder), "a run that has begun; this one was killed before it did: begin it again")
    elif study := results.config.get("study"):
        allowed = f"a run of its own; this is a trial of {study}, whose command, once more, goes on with it"
        yield Problem("resume", str(folder), allowed)
    elif results.state == "diverged":
        allowed = f"a run that can go on; this one diverged, and would again. Another one like it: {begin} optim.lr=…"
        yield Problem("resume", str(folder), allowed)
