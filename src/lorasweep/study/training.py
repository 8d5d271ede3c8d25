"""The objective of real studies: a trial is a run, trained in a worker that keeps what trials have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from lorasweep.device import Device
from lorasweep.ending import Result
from lorasweep.host import Interrupted
from lorasweep.inputs import Inputs, prepare
from lorasweep.library_logs import quiet_libraries
from lorasweep.places import is_run
from lorasweep.preflight import check_inputs
from lorasweep.processes.group import Processes, current
from lorasweep.processes.meeting import store_of
from lorasweep.record import Launch, slug
from lorasweep.resident import Resident
from lorasweep.rules import Problem, UserError, build
from lorasweep.run import train
from lorasweep.schema import Run
from lorasweep.stream_steps import choose_plan
from lorasweep.study.channel import Message
from lorasweep.study.outcomes import State
from lorasweep.study.worker import Job, Outcome, Reporter

STATES = {
    "complete": State.COMPLETE,
    "pruned": State.PRUNED,
    "diverged": State.DIVERGED,
    "out_of_memory": State.OUT_OF_MEMORY,
    "interrupted": State.INTERRUPTED,
}


class Warm(Resident):
    """Surroundings of a run that pass on how it goes."""

    reporter: Reporter | None = None
    last = (0, 1)
    """The last step and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.group = current()
        if isinstance(self.group, Processes):
            self.group.connect(store_of(self.group.peers))

    def inputs(self, run: Run, prepare: Callable[[], Inputs]) -> Inputs:
        """Return tokenizer and data; rows by the million take their time."""
        with self._at_work():
            return super().inputs(run, prepare)

    def base(self, run: Run, device: Device, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """Return the base, which may have to be fetched first."""
        with self._at_work():
            return super().base(run, device, load)

    def progress(self, step: int, total: int) -> None:
        """Tell that a step is done; a run that is to stop does so by itself, once it has a checkpoint."""
        self.last = step, total
        if self.reporter:
            with suppress(Interrupted):
                self.reporter.progress(step, total)

    def stopping(self) -> bool:
        """Tell whether the controller wants the trial to stop."""
        return self.reporter is not None and self.reporter.stopping()

    def report(self, step: int, tokens: int, value: float) -> bool:
        """Tell the objective; returns whether to go on, which the first process alone is told.

        Raises Interrupted in all processes if that one is to stop.
        """
        _, total = self.last
        goes_on: bool | None = True
        try:
            if self.reporter:
                goes_on = self.reporter.report(step, tokens, value, round(tokens * total / step))
        except Interrupted:
            goes_on = None
        goes_on = self.group.firsts(goes_on)
        if goes_on is None:
            raise Interrupted("stopped")
        return goes_on

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Give signs of life until all processes have what this one may have kept from the last trial."""
        if not self.reporter:  # configs are checked, by the first process alone
            yield
            return
        with self.reporter.at_work():
            yield
            self.group.exchange(None)


class Training:
    """Trains the trials of a study one after the other."""

    def __init__(self) -> None:
        self.host = Warm()

    @property
    def worn(self) -> bool:
        """Whether what trials leave behind has become too much."""
        return self.host.worn

    def check(self, runs: list[dict[str, Any]]) -> Message:
        """Return what is wrong with the configs' models, tokenizers, targets and data, and what the data is."""
        quiet_libraries()
        problems: list[Problem] = []
        checked: set[str] = set()
        for run in map(build_run, runs):
            asked = repr((run.model, run.lora, run.scheduler, run.evaluation.metrics, run.data.max_length, run.quant))
            if asked in checked:
                continue
            checked.add(asked)
            try:
                check_inputs(run)
            except UserError as error:
                problems += [problem for problem in error.problems if problem not in problems]
        facts: dict[str, Any] = {}
        if not problems:
            try:
                facts = self._facts(build_run(runs[0]))
            except UserError as error:
                problems += error.problems
        return {"problems": [asdict(problem) for problem in problems], "facts": facts}

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        """Train a trial, from its newest checkpoint where it was begun before.

        Its values are those of the study's objectives in the run's summary.
        """
        self.host.reporter, self.host.runs = reporter, job.lineage.get("runs_of_worker", 1)
        run = build_run(job.run)
        run.resume = str(job.folder) if self.host.group.firsts(is_run(job.folder)) else None
        run.name = f"{job.number}-{run.name or slug(','.join(job.varied)) or 'baseline'}"
        result = train(run, Launch(job.folder, job.overrides, job.choices, job.lineage), self.host)
        summary = {name: value for name, value in result.summary.items() if isinstance(value, int | float | str)}
        state = STATES.get(result.state, State.FAILED)
        is_complete = state is State.COMPLETE and self.host.group.is_first  # which has all of the summary
        values = [_value(result, name) for name in job.objectives] if is_complete else None
        return Outcome(state, values, summary, None if state is State.COMPLETE else result.error)

    def _facts(self, run: Run) -> dict[str, Any]:
        """Return what identifies rows and steps of the study's own config."""
        inputs = self.host.inputs(run, lambda: prepare(run))
        plan = choose_plan(run, inputs.splits["train"])
        splits = inputs.facts()["data"]["splits"]
        facts: dict[str, Any] = {f"rows of {name}": split["sha256"] for name, split in splits.items()}
        return facts | ({"tokens per step": plan.tokens_per_step} if plan else {})


def build_run(values: dict[str, Any]) -> Run:
    """Return the run that plain values describe."""
    run = build(values, Run, set())
    assert isinstance(run, Run)
    return run


def _value(result: Result, name: str) -> Any:
    if name not in result.summary:
        known = ", ".join(key for key, value in result.summary.items() if isinstance(value, int | float))
        raise UserError(Problem("hydra.sweeper.objectives", name, f"a number of a run's summary: {known}"))
    return result.summary[name]
