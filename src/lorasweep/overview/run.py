"""What there is to know of one run, finished or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorasweep.learning import Learning, learning
from lorasweep.listing.processes import writers
from lorasweep.overview.advice import commands, warnings
from lorasweep.paired import Difference, RowScores, paired_difference
from lorasweep.places import NamedRun, short
from lorasweep.record import adapter_folder
from lorasweep.results import UNFINISHED, RunResults, flat, read_results
from lorasweep.schema import Run
from lorasweep.study.definition import FREE, direction_of
from lorasweep.study.outcomes import State

RUNNING = "running"
TAIL = 12
"""Lines that are shown of what a run that failed left behind."""
COUNTED = ("rows", "kept", "cut", "dropped", "tokens", "supervised_tokens")


@dataclass(frozen=True)
class Setting:
    """An option that is not at its default."""

    key: str
    value: Any
    default: Any


@dataclass(frozen=True)
class Score:
    """A score of the evaluation rows before and after training; of the loss with the paired 95 % interval."""

    name: str
    untuned: float | None
    tuned: float
    is_better: bool | None
    interval: Difference | None = None


@dataclass(frozen=True)
class Sample:
    """An answer beside what was expected and what the untuned model had answered."""

    prompt: str
    expected: str
    untuned: str | None
    tuned: str
    scores: dict[str, float]


@dataclass(frozen=True)
class RunOverview:
    """A run; the names of the fields are the keys of --json."""

    kind: str
    name: str
    folder: str
    label: str
    state: str
    process: str | None
    """What trains it now."""
    error: str | None
    log: list[str]
    """The end of the traceback, or of the log, of a run that failed."""
    created: str | None
    command: str | None
    """How it was started; a trial by its study."""
    seconds: float | None
    device: str | None
    method: dict[str, Any]
    """How it is trained in a few words, default or not: model, quant, precision, r, alpha, optimizer, lr, scheduler."""
    config: list[Setting]
    """Options that differ from the defaults in schema.py."""
    data: dict[str, dict[str, Any]]
    """Rows and tokens by split."""
    objective: str
    kept_step: int | None
    """The step whose adapter was kept, and whose scores these are."""
    scores: list[Score]
    facts: dict[str, Any]
    """The numbers of summary.json, of a run that goes on those of its last step."""
    planned_steps: int | None
    adapter: str | None
    curve: Learning
    samples: list[Sample]
    warnings: list[str]
    commands: dict[str, str]
    """How to go on, by what for."""


def run_overview(named: NamedRun) -> RunOverview:
    """Read what there is to know of a run."""
    results = read_results(named.folder)
    run, record, summary = results.run, results.record, results.summary
    process = writers([named.folder]).get(named.folder) if not summary else None
    state, error = _ending(named, results, process)
    adapter, judged = adapter_folder(named.folder), results.judged
    return RunOverview(
        kind="run",
        name=named.name,
        folder=short(named.folder),
        label=results.name,
        state=state,
        process=process,
        error=error,
        log=_log(named.folder, state),
        created=record.get("created"),
        command=record.get("command") if named.trial is None else None,
        seconds=summary.get("seconds"),
        device=record.get("device", {}).get("name"),
        method=_method(run, record),
        config=settings(run),
        data=_data(results),
        objective=run.evaluation.objective,
        kept_step=judged["step"] if judged else None,
        scores=list(_scores(results)),
        facts=facts(results),
        planned_steps=record.get("steps", {}).get("count"),
        adapter=short(adapter) if adapter else None,
        curve=learning(results),
        samples=_samples(results),
        warnings=list(warnings(results, state)),
        commands=dict(commands(named)),
    )


def settings(run: Run) -> list[Setting]:
    """Return the options of a run that are not at the defaults of the schema, but for those that train nothing."""
    values, defaults = (_plain(item) for item in (run, Run()))
    keys = [key for key in {**values, **defaults} if values.get(key) != defaults.get(key)]
    return [Setting(key, values.get(key), defaults.get(key)) for key in keys if key.partition(".")[0] not in FREE]


def _method(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": run.model.name,
        "quant": run.quant.method,
        "precision": record.get("device", {}).get("precision"),
        "r": run.lora.r,
        "alpha": run.lora.effective_alpha,
        "optimizer": run.optim.name,
        "lr": run.optim.lr,
        "scheduler": run.scheduler.name,
    }


def facts(results: RunResults) -> dict[str, Any]:
    """Return the numbers of a run: those it ended with, else the last that it wrote down."""
    if results.summary:
        named = ("steps", "train/", "tokens/", "memory/", "adapter/")
        return {key: value for key, value in results.summary.items() if key.startswith(named)}
    lines = [line for line in results.metrics if "tokens/total" in line]
    if not lines:
        return {}
    last = lines[-1]
    return {"steps": last["step"]} | {key: value for key, value in last.items() if key.startswith("tokens/")}


def _plain(run: Run) -> dict[str, Any]:
    values = flat(asdict(run))
    return {key: value for key, value in values.items() if value != "???"}


def _ending(named: NamedRun, results: RunResults, process: str | None) -> tuple[str, str | None]:
    """Return how a run ended and why; of a trial that was ended from outside its study knows."""
    trial, error = named.trial, results.summary.get("error")
    if trial and trial.state.is_finished:
        return trial.state.value, trial.reason or error
    if results.state != UNFINISHED:
        return results.state, error
    return RUNNING if process else UNFINISHED, None


def _log(folder: Path, state: str) -> list[str]:
    """Return the end of what tells why a run failed."""
    if state not in (State.FAILED, State.HUNG):
        return []
    for name in ("error.txt", "log.txt", "train.log"):
        path = folder / name
        if path.is_file() and (text := path.read_text(encoding="utf-8", errors="replace").strip()):
            return text.splitlines()[-TAIL:]
    return []


def _data(results: RunResults) -> dict[str, dict[str, Any]]:
    """Return the counts of every split, of rows that are read as they come those of what has been read."""
    splits, read = results.record.get("data", {}).get("splits", {}), results.summary.get("rows")
    counts = {name: read if read and split.get("streamed") else split for name, split in splits.items()}
    return {name: {key: split.get(key) for key in COUNTED} for name, split in counts.items()}


def _scores(results: RunResults) -> Iterator[Score]:
    """Yield the scores of what was kept, or of the last evaluation so far, against those of the untuned model."""
    judged, untuned = results.judged, results.untuned
    if judged is None:
        return
    before, after = (_metrics(results, item["step"]) if item else {} for item in (untuned, judged))
    for name, value in after.items():
        is_loss = name == "eval/loss" and untuned
        interval = paired_difference(RowScores.of(untuned), RowScores.of(judged)) if is_loss and untuned else None
        old = before.get(name)
        gain = None if old is None else old - value if direction_of(name) == "minimize" else value - old
        yield Score(name.removeprefix("eval/"), old, value, None if not gain else gain > 0, interval)


def _metrics(results: RunResults, step: int) -> dict[str, float]:
    """Return the scores of an evaluation, but for the perplexity, which the loss says."""
    lines = [line for line in results.metrics if line["step"] == step and "eval/loss" in line]
    found = lines[-1] if lines else {}
    return {name: value for name, value in found.items() if name.startswith("eval/") and name != "eval/perplexity"}


def _samples(results: RunResults) -> list[Sample]:
    judged, untuned = results.judged or {}, results.untuned or {}
    answers, before = judged.get("answers", []), untuned.get("answers", [])
    return [
        Sample(
            answer["prompt"], answer["expected"], before[at]["generated"] if at < len(before) else None,
            answer["generated"], answer["scores"],
        )
        for at, answer in enumerate(answers)
    ]  # fmt: skip
