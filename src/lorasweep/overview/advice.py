"""What to know of a run before it is trusted, and how to go on with it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lorasweep.doubts import config_doubts, split_doubts
from lorasweep.places import NamedRun, short, study_name
from lorasweep.record import adapter_folder
from lorasweep.results import UNFINISHED, RunResults
from lorasweep.study.outcomes import State


def warnings(results: RunResults, state: str) -> Iterator[str]:
    """Yield what to know before a run is trusted."""
    run, summary, record = results.run, results.summary, results.record
    if state == UNFINISHED:
        yield "no process of yours on this machine writes to it: it was killed, or runs elsewhere"
    for name, counts in record.get("data", {}).get("splits", {}).items():
        yield from split_doubts(name, counts)
    yield from config_doubts(run)
    if run.model.trust_remote_code:
        yield "model.trust_remote_code: Python code that came with the model ran"
    judged = results.judged
    answers = len(judged["answers"]) if judged else run.evaluation.generate
    if answers < run.evaluation.generate:
        yield f"evaluation.generate={run.evaluation.generate}: {answers} evaluation rows could be asked"
    kept, last = summary.get("objective/step"), summary.get("steps")
    if kept and last and kept < last and state == State.COMPLETE:
        words = f"the best evaluation was at step {kept} of {last}"
        yield f"{words}; at the end the loss was {summary['last/eval/loss']:.4f}, not {summary['eval/loss']:.4f}"
    if summary.get("eval/loss", 0.0) > summary.get("untuned/eval/loss", float("inf")):
        yield "the tuned model has a higher evaluation loss than the untuned one"


def commands(named: NamedRun) -> Iterator[tuple[str, str]]:
    """Yield how to go on with a run: what for, and what to type."""
    folder = shlex.quote(short(named.folder))
    if adapter_folder(named.folder):
        yield "score it", f"lorasweep evaluate {folder}"
        yield "talk to it", f"lorasweep chat {folder}"
        yield "merge it", f"lorasweep merge {folder} merged"
    if named.study and named.trial:
        study = shlex.quote(study_name(named.study.folder))
        baseline = named.study.baseline
        if baseline and baseline is not named.trial:
            yield "compare it", f"lorasweep compare {study}:baseline {shlex.quote(named.name)}"
        if named.trial.value is not None:
            yield "keep its settings", f"lorasweep promote {study} --trial {named.trial.number}"
    yield "run it again", f"python train.py --config-dir {folder} experiment=saved"
