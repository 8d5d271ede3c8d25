"""Toy trials that leave a run folder behind, as real ones do: what W&B is fed from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lorasweep import record
from lorasweep.metrics import Metrics
from lorasweep.rules import user_errors
from lorasweep.schema import Tracking
from lorasweep.study.definition import Definition
from lorasweep.study.session import run_session
from lorasweep.study.trial import Trial
from lorasweep.study.view import Lines
from lorasweep.study.worker import Job, Outcome, Reporter
from lorasweep.tracking.view import followed
from tests.study.sessions import Told
from tests.study.toy import Toy, toy


class Telling:
    """Passes on what a toy reports, and writes it down."""

    def __init__(self, reporter: Reporter, metrics: Metrics) -> None:
        self.reporter, self.metrics = reporter, metrics

    def progress(self, step: int, total: int) -> None:
        self.metrics.write(step, {"train/loss": 1 / step})
        self.reporter.progress(step, total)

    def report(self, step: int, tokens: int, value: float, budget: int) -> bool:
        self.metrics.write(step, {"eval/loss": value})
        return self.reporter.report(step, tokens, value, budget)


class Recording(Toy):
    """A toy with config, record, metrics and summary in its folder."""

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        if job.run["study"]["faults"].get(str(job.number)) == "early exception":
            raise RuntimeError("broken before there was a run")
        tracking = job.run["tracking"]
        (job.folder / "run.yaml").write_text(
            yaml.safe_dump(
                {"study": job.folder.parents[1].name, "tracking": tracking, "x": job.run["x"], "y": job.run["y"]}
            )
        )
        name = f"{job.number}-{record.slug(','.join(job.varied)) or 'baseline'}"
        record.write_json(job.folder / "record.json", {"created": "2026-01-01T10:00:00+0000", "name": name})
        metrics = Metrics(job.folder)
        metrics.write(0, {"eval/loss": 9.0})
        outcome = super().train(job, Telling(reporter, metrics))
        record.write_json(job.folder / "summary.json", {**outcome.message()["facts"], "state": outcome.state.value})
        return outcome


def recorded(folder: Path, wandb: str = "offline", **options: Any) -> Definition:
    """A study of toys that W&B is told of."""
    base = {"tracking": asdict(Tracking(wandb=wandb, project="toys", tags=["toy"]))}
    return toy(folder, objective="tests.tracking.recording:Recording", base=base, **options)


def session(folder: Path, then: Callable[[Trial], None] = lambda trial: None, **options: Any) -> str:
    """Run a study to its end, as the command line does, `then` at the beginning of each trial; what was shown."""
    definition, view = recorded(folder, **options), Told(then)
    with followed(definition, view) as listening:
        assert run_session(definition, listening) is None
    return view.text.getvalue()


def main() -> None:
    """A session in a process of its own: python -m tests.tracking.recording FOLDER OPTIONS."""
    with user_errors():
        definition = recorded(Path(sys.argv[1]), **json.loads(sys.argv[2]))
        with followed(definition, Lines(Console())) as view:
            reason = run_session(definition, view)
    raise SystemExit(1 if reason else 0)


if __name__ == "__main__":
    main()
