"""The objective that times a study's own config: a trial is not trained to its end, and tells what its parts took."""

from __future__ import annotations

import time
from collections.abc import Callable

from lorasweep.device import Device
from lorasweep.evaluation import Scores
from lorasweep.host import Interrupted
from lorasweep.record import Launch
from lorasweep.run import Result, train
from lorasweep.schema import Run
from lorasweep.study.outcomes import State
from lorasweep.study.training import STATES, Training, Warm, build_run
from lorasweep.study.worker import Job, Outcome, Reporter

STEPS = 4
"""Steps that are trained: the first, which is slower, and those that are timed."""


class Stopwatch(Warm):
    """Surroundings that note when steps are done, and end a run when it has done enough."""

    most, total = 1, 1
    """Steps after which a run is ended; steps that it would have had."""
    evaluation = 0.0
    """Seconds that one took; 0 without evaluation rows."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []
        """When the steps of the last run were done."""

    @property
    def has_enough(self) -> bool:
        """Whether the last run got as far as it was to get."""
        return len(self.ends) == min(self.most, self.total)

    def untuned(self, run: Run, device: Device, score: Callable[[], Scores]) -> Scores:
        """Return the scores before the first step: one evaluation, the first time."""
        start = time.perf_counter()
        scores = super().untuned(run, device, score)
        self.evaluation = max(self.evaluation, time.perf_counter() - start)
        return scores

    def progress(self, step: int, total: int) -> None:
        """Note that a step is done; raises `Interrupted` when that is enough."""
        super().progress(step, total)
        self.ends.append(time.perf_counter())
        self.total = total
        if step == self.most:
            raise Interrupted


class Timing(Training):
    """Trains the first steps of a config twice: cold, then warm, as it goes for every trial of a slot but its first."""

    host: Stopwatch

    def __init__(self) -> None:
        self.host = Stopwatch()

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Return the seconds of a step, of an evaluation and of all else in a warm trial, its first step included."""
        host, self.host.reporter = self.host, reporter
        cold = build_run(job.run)
        cold.evaluation.untuned = True  # to evaluate once, whatever the trials do
        result = self._begin(cold, 1, Launch(job.folder / "cold", job.overrides))
        start = time.perf_counter()
        if host.has_enough:
            result = self._begin(build_run(job.run), STEPS, Launch(job.folder / "warm", job.overrides))
        if not host.has_enough:
            return Outcome(STATES.get(result.state, State.FAILED), reason=result.error)
        warm, timed = time.perf_counter() - start, len(host.ends) - 1
        step = (host.ends[-1] - host.ends[0]) / timed if timed else warm
        facts = {"warm": warm, "step": step, "timed": timed, "steps": host.total, "evaluation": host.evaluation}
        return Outcome(State.COMPLETE, [0.0], facts)

    def _begin(self, run: Run, steps: int, launch: Launch) -> Result:
        self.host.most, self.host.ends = steps, []
        return train(run, launch, self.host)
