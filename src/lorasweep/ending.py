"""How a run ends: its states, its exit codes, and the summary.json that says so."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lorasweep import checkpoints, record
from lorasweep.divergence import Diverged
from lorasweep.host import Interrupted
from lorasweep.judge import Pruned
from lorasweep.memory.fit import WontFit
from lorasweep.metrics import Metrics
from lorasweep.processes.peers import PeerEnded
from lorasweep.rules import UserError
from lorasweep.schema import Run
from lorasweep.terminal import Terminal

EXIT_CODES = {
    "complete": 0, "pruned": 0, "failed": 1, "diverged": 3, "out_of_memory": 4, "interrupted": os.EX_TEMPFAIL,
}  # fmt: skip
FINISHED = ("complete", "pruned")
"""States after which nothing is left to train."""


@dataclass(frozen=True)
class Result:
    """How a run ended, and what summary.json says of it."""

    state: str
    folder: Path
    summary: dict[str, Any]

    @property
    def objective(self) -> float | None:
        """Return the objective; of a pruned run the best so far, of other runs that are not complete none."""
        return self.summary.get("objective")

    @property
    def error(self) -> str | None:
        """Return what ended a run that is neither complete nor pruned."""
        return self.summary.get("error")

    @property
    def exit_code(self) -> int:
        """Return the exit code of a process that ran only this."""
        return EXIT_CODES[self.state]


@dataclass
class Ledger:
    """What a run writes while it goes: its folder, its metrics, what it shows, and the summary that ends it."""

    folder: Path
    metrics: Metrics
    terminal: Terminal
    summary: dict[str, Any] = field(default_factory=dict)
    writes: bool = True
    """False where another process does."""


@contextmanager
def ending(run: Run, ledger: Ledger) -> Iterator[None]:
    """Write summary.json however the run ends. Only the user's mistakes and bugs go on as exceptions."""
    try:
        yield
    except BaseException as error:
        ledger.summary |= {"state": _state_of(error)}
        if not isinstance(error, Pruned):
            ledger.summary |= {"error": str(error) or type(error).__name__}
        if ledger.summary["state"] == "failed":
            if ledger.writes:
                trace = error.end.trace if isinstance(error, PeerEnded) else ""
                (ledger.folder / "error.txt").write_text(trace or traceback.format_exc())
            if run.study is None and not isinstance(error, UserError) and checkpoints.has_checkpoint(ledger.folder):
                ledger.terminal.say(f"Once this is mended: {_way_on(ledger.folder)}")
            if not isinstance(error, PeerEnded):
                raise
            if ledger.writes:
                print(_explained(error), file=sys.stderr)
            return
        ledger.terminal.say(_explained(error), style="bold red")
        stopped = ledger.summary["state"] in ("interrupted", "out_of_memory") and not isinstance(error, WontFit)
        if stopped and run.study is None:
            ledger.terminal.say(_way_on(ledger.folder))
    finally:
        ledger.metrics.close()
        summary = {**ledger.summary, "seconds": round(ledger.metrics.seconds, 3)}
        if ledger.writes:
            record.write_json(ledger.folder / "summary.json", summary)


def _state_of(error: BaseException) -> str:
    if isinstance(error, PeerEnded):
        return error.end.state
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, Pruned):
        return "pruned"
    if isinstance(error, torch.OutOfMemoryError | WontFit):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _explained(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        knobs = (
            "train.fit=16GiB (or what there is: chooses how to train so that it fits), data.max_length,"
            " train.gradient_checkpointing, train.batch_size (train.tokens_per_step or train.grad_accum makes up"
            " for it)"
        )
        return f"Out of memory. What helps: {knobs}.\n{str(error).splitlines()[0]}"
    if isinstance(error, WontFit):
        return f"Not loaded: {error}."
    if isinstance(error, Interrupted | Pruned | PeerEnded):
        return f"{str(error).capitalize()}."
    return f"Stopped: {str(error) or 'interrupted'}"


def _way_on(folder: Path) -> str:
    step = checkpoints.latest_step(folder / checkpoints.FOLDER)
    start = "from the beginning, for there is no checkpoint" if step is None else f"after step {step}"
    return f"It goes on {start}, with\n  python train.py resume={os.path.relpath(folder)}"
