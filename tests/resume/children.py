"""Runs in processes of their own that are killed where a test says, and what is left of runs, to be compared.

Children are forked from a server that has imported everything and trained nothing, so that one starts in no time.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate.optimizer

from lorasweep import checkpoints, training_state
from lorasweep.after_step import NothingLeft
from lorasweep.evaluation import Evaluator
from lorasweep.host import Host
from lorasweep.lean_trainer import LeanTrainer
from lorasweep.record import Launch
from lorasweep.run import train
from lorasweep.schema import Run
from lorasweep.training_state import State
from lorasweep.watched_trainer import WatchedTrainer

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.resume.children"])
TIMES = ("seconds", "train/seconds", "evaluation/seconds", "tokens/per_second", "tokens/supervised_per_second")
"""What differs from process to process; memory does too."""
SITES: dict[str, tuple[Any, str]] = {
    "forward": (LeanTrainer, "compute_loss"),
    "optimizer": (accelerate.optimizer.AcceleratedOptimizer, "step"),
    "evaluation": (Evaluator, "_row_losses"),
    "flush": (checkpoints, "_flush"),
}
"""Functions after a call of which a run can be killed; a checkpoint is flushed file by file."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL from within, after so many calls at a site."""

    site: str
    count: int


class Stopper(Host):
    """Asks a run to stop once it has done so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0

    def progress(self, step: int, total: int) -> None:
        self.done = step

    def stopping(self) -> bool:
        return self.done >= self.steps


class Telling(Host):
    """Writes down how many steps of a run are done, for who looks at it once it is killed."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / "done.txt"
        self.place.unlink(missing_ok=True)

    def progress(self, step: int, total: int) -> None:
        self.place.write_text(str(step))


def child(run: Run, folder: Path, kill: Kill | None = None, before: Callable[[], None] | None = None) -> int:
    """Train in a process of its own, of a folder that holds a run the rest of it; its exit code."""
    run.resume = str(folder) if (folder / "run.yaml").exists() else None
    process = PROCESSES.Process(target=_train, args=(run, folder, kill, before))
    process.start()
    process.join(600)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def killed(run: Run, folder: Path, *kills: Kill) -> Path:
    """Kill a run again and again, then let it come to its end; its folder."""
    saved = []
    for kill in kills:
        assert child(run, folder, kill) == -signal.SIGKILL, f"{kill} did not come to pass"
        saved.append(saved_before(kill, run, folder))
    assert child(run, folder) == 0
    assert resumed_after(folder) == saved
    return folder


def saved_before(kill: Kill, run: Run, folder: Path) -> int:
    """The last step of which a checkpoint was written before a kill, 0 without one: by what was done, not by the disk.

    A step is evaluated before it is saved; of one that is being saved the disk alone tells whether it has come so far.
    """
    place, every = folder / "done.txt", run.train.save_every
    assert every
    done = int(place.read_text()) if place.exists() else 0
    is_saved = kill.site != "flush" or (folder / "checkpoints" / f"step-{done:06d}").exists()
    saved = done if kill.site != "evaluation" and is_saved else max(0, done - 1)
    return saved // every * every


def resumed_after(folder: Path) -> list[int]:
    """After which step a run was gone on with, every time."""
    record = json.loads((folder / "record.json").read_text())
    return [item["step"] for item in record.get("resumed", [])]


def _train(run: Run, folder: Path, kill: Kill | None, before: Callable[[], None] | None) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of loaders, as in a process of one's own
    if kill:
        _arm(kill)
    if before:
        before()
    tell_the_end()
    result = train(run, Launch(folder, []), Telling(folder))
    sys.exit(result.exit_code)


def _arm(kill: Kill) -> None:
    holder, name = SITES[kill.site]
    original, calls = getattr(holder, name), iter(range(kill.count - 1, -1, -1))

    def deadly(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if next(calls, -1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, deadly)


def tell_the_end() -> None:
    """Have every trainer of this process write down its state when its training is done."""
    original = WatchedTrainer.train

    def train_and_tell(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return original(self, *arguments, **options)
        finally:
            if sys.exc_info()[0] in (None, NothingLeft):
                (Path(self.args.output_dir) / "end.json").write_text(json.dumps(end_of(self)))

    WatchedTrainer.train = train_and_tell  # type: ignore[method-assign]


def end_of(trainer: Any) -> dict[str, Any]:
    """Every tensor and value of a trainer, hashed with its type, and its random streams."""
    state = State()
    training_state.take_random("now", state)
    taken = training_state.take(trainer)
    tensors = {**taken.tensors, **state.tensors}
    hashes = {
        name: f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(value.numpy().tobytes()).hexdigest()}"
        for name, value in tensors.items()
    }
    return {"tensors": hashes, **taken.values, **state.values}


def left_by(folder: Path) -> dict[str, Any]:
    """All that a run leaves but for times and memory."""
    lines = {
        name: [_timeless(json.loads(line)) for line in (folder / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "evaluation.jsonl")
    }
    adapter = hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()
    end = json.loads((folder / "end.json").read_text())
    return {
        "adapter": adapter,
        "end": end,
        "summary": _timeless(json.loads((folder / "summary.json").read_text())),
        **lines,
    }


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what two runs have left that is not the same."""
    return [name for name in one | other if one.get(name) != other.get(name)]


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in TIMES and not name.startswith("memory/")}
