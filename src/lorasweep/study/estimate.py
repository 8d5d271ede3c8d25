"""How long a study will take: from trials that have ended, or from the first steps of its own config, trained now."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from lorasweep.rules import MISSING, Problem, UserError
from lorasweep.schema import Run
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.session import run_session
from lorasweep.study.settings import Settings
from lorasweep.study.slots import count_slots, visible_gpus
from lorasweep.study.space import Point, Space
from lorasweep.study.store import open_store
from lorasweep.study.trial import Trial
from lorasweep.study.view import Lines
from lorasweep.study.wording import duration, state_words

OBJECTIVE = "lorasweep.study.timing:Timing"
FACTS = ("warm", "step", "timed", "steps", "evaluation")
"""What the objective tells."""


@dataclass(frozen=True)
class Speed:
    """How fast the config of a study trains, in seconds, and what there is of it to train."""

    start: float
    """Of a process, until it goes on at the speed of a trial that is not its first."""
    setup: float
    """What a trial takes besides its later steps and its evaluations."""
    step: float
    evaluation: float
    steps: int
    evaluations: int
    timed: int
    """Steps that were timed."""

    @property
    def trial(self) -> float:
        """Return the time of a trial in a process that has started."""
        return self.setup + (self.steps - 1) * self.step + self.evaluations * self.evaluation


def measure(definition: Definition, run: Run) -> Speed:
    """Train the first steps of a study's own config where its trials would be, in a worker, and leave nothing behind.

    Raises UserError if the config cannot be trained.
    """
    began = time.monotonic()
    with TemporaryDirectory() as place, _temporary_files(place):
        timing = _timing(definition, Path(place, "timing"))
        if run_session(timing, Lines(Console(quiet=True))) == "interrupted":
            raise SystemExit(130)
        store = open_store(timing.folder)
        trial = store.trial(0)
        store.close()
    if trial.state is not State.COMPLETE:
        allowed = f"a config that can be trained; its first steps ended {state_words(trial.state)}: {trial.reason}"
        raise UserError(Problem("--time", MISSING, allowed))
    warm, step, timed, steps, evaluation = (trial.facts[name] for name in FACTS)
    start = time.monotonic() - began - warm - (0.0 if run.evaluation.untuned else evaluation)
    evaluations = min(run.evaluation.times, steps) if evaluation else 0
    return Speed(start, warm - timed * step, step, evaluation, steps, evaluations, timed)


@contextmanager
def _temporary_files(place: str) -> Iterator[None]:
    """Have processes that are started put their temporary files here: a worker is killed, and cannot tidy up."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = place
    try:
        yield
    finally:
        del os.environ["TMPDIR"]
        os.environ |= {} if before is None else {"TMPDIR": before}


def _timing(definition: Definition, folder: Path) -> Definition:
    """Return a study of one trial, which is timed instead of trained to its end."""

    def compose(point: Point) -> Composed:
        composed = definition.compose({})
        tracking = {**composed.run["tracking"], "wandb": "disabled"}
        evaluation = {**composed.run["evaluation"], "times": 0}
        return replace(composed, run={**composed.run, "tracking": tracking, "evaluation": evaluation})

    asked = definition.settings
    settings = Settings(
        sampler="list",
        enqueue=[{}],
        slots=asked.slots,
        gpus_per_trial=asked.gpus_per_trial,
        hang_timeout=asked.hang_timeout,
    )
    return Definition("timing", folder, settings, Space(()), compose, OBJECTIVE)


def show(definition: Definition, run: Run, remaining: int | None, finished: Sequence[Trial], timed: bool) -> None:
    """Print how long the trials that remain take, and how that is known: from those that have ended, or timed now."""
    console, speed = Console(highlight=False), None
    if timed:
        with console.status("training a few steps of the config itself"):
            speed = measure(definition, run)
    console.print()
    for line in words(definition, remaining, finished, speed):
        console.print(Text(line, style="dim"))


def words(
    definition: Definition, remaining: int | None, finished: Sequence[Trial], speed: Speed | None
) -> Iterator[str]:
    """Yield what `show` prints."""
    slots = count_slots(definition.settings)
    times = [float(trial.facts["seconds_in_slot"]) for trial in finished if "seconds_in_slot" in trial.facts]
    if times and remaining is not None:
        rest = duration(fmean(times) * remaining / slots)
        yield f"{len(finished)} trials are finished; the others take about {rest} at their speed."
    if speed:
        yield from _speed_words(speed)
        if remaining:
            yield _study_words(speed, remaining, slots, definition.settings.fresh_process)
        yield from _caveats(definition, slots)
    elif not times:
        yield "How long a trial takes is known when the first has run; --time trains a few steps to tell before."


def _speed_words(speed: Speed) -> Iterator[str]:
    took = f"{speed.step:.3g} s a step" + (f", {speed.evaluation:.3g} s an evaluation" if speed.evaluation else "")
    if speed.timed:
        steps = _count(speed.timed, "step")
        yield f"Timed now on {steps} of the config itself, without the first, which is slower: {took}."
    else:
        yield f"Timed now on the only step of the config itself: {took}."
    has = _count(speed.steps, "step")
    if speed.evaluations:
        has += f" and {_count(speed.evaluations, 'evaluation')}"
    yield f"The config as it stands has {has}: about {duration(speed.trial)} a trial."


def _study_words(speed: Speed, trials: int, slots: int, fresh_process: bool) -> str:
    rounds = math.ceil(trials / slots)
    starting = speed.start * (rounds if fresh_process else 1)
    together = f", {slots} at a time" if slots > 1 else ""
    total = duration(starting + rounds * speed.trial)
    return f"{_count(trials, 'such trial')}{together}: about {total}, of which {duration(starting)} to start."


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' * (number != 1)}"


def _caveats(definition: Definition, slots: int) -> Iterator[str]:
    """Yield why it may come otherwise."""
    if len(definition.space.dimensions):
        yield "Other values may take more or less time."
    if definition.settings.pruner != "none":
        yield f"What {definition.settings.pruner} ends early takes less."
    if slots * definition.settings.gpus_per_trial > max(1, len(visible_gpus())):
        yield "It was timed alone; trials that share a device slow each other down."
