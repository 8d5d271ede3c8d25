"""The config of a recorded run, composed again: today's schema, the saved values, and what is to be another on top."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lorasweep import compose
from lorasweep.record import CHECKOUT, save_config
from lorasweep.results import RunResults
from lorasweep.rules import Problem, UserError, build, check
from lorasweep.schema import Run

LEFT_OUT = ("experiment", "resume", "study", "strategy", "space")


def composed(results: RunResults, overrides: Sequence[str], folder: Path) -> Run:
    """Return the run of a folder, checked as a command line is, to be trained in another folder.

    What came from the hub is taken at the commit that was recorded. Raises UserError with everything that is wrong.
    """
    source = results.folder / "run.yaml"
    if problems := list(check(results.config, Run)):
        raise UserError(replace(problem, source=str(source)) for problem in problems)
    with tempfile.TemporaryDirectory() as place:
        saved = build(results.config, Run, set())
        assert isinstance(saved, Run)
        save_config(Path(place), saved)
        compose.register()
        arguments = [f"--config-dir={place}", "experiment=saved", f"hydra.run.dir={_quoted(folder)}", *_pins(results)]
        line = compose.CommandLine.of([*arguments, *overrides])
        line.problems += _refused(compose.CommandLine.of(overrides))
        try:
            return compose.checked_run(CHECKOUT / "conf", line)
        except UserError as error:
            raise UserError(_with_source(problem, place, source) for problem in error.problems) from None


def _pins(results: RunResults) -> Iterator[str]:
    for part in ("model", "data"):
        if commit := results.record.get(part, {}).get("commit"):
            yield f"{part}.revision={_quoted(commit)}"


def _refused(line: compose.CommandLine) -> Iterator[Problem]:
    for override in line.overrides:
        key = re.split(r"[./]", override.key_or_group)[0]
        if key in LEFT_OUT or key == "hydra":
            allowed = "left out: a run is reproduced with its own config, and options that are to be others"
            yield Problem(override.key_or_group, override.value(), allowed)


def _with_source(problem: Problem, place: str, source: Path) -> Problem:
    """Name the file that the user knows instead of the one that was composed from."""
    is_saved = problem.source is not None and Path(place).name in problem.source
    return replace(problem, source=str(source)) if is_saved else problem


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"
