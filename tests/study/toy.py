"""A study without training: an objective that is a formula, with faults to order."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.space import Interval, Point, Space
from lorasweep.study.worker import Job, Outcome, Reporter

STEPS = 4
SPACE = Space((Interval("x", 0.0, 1.0), Interval("y", 1e-3, 1.0, log=True)), fixed={"x": 0.5, "y": 0.1})


class Toy:
    """Comes closer to its value with every step, or does what `fault` says at its second."""

    def check(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"problems": [], "facts": {"data": "toy"}}

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        run = job.run
        goal = (run["x"] - 0.3) ** 2 + (math.log10(run["y"]) + 1) ** 2
        fault = run["faults"].get(str(job.number))
        for step in range(1, STEPS + 1):
            time.sleep(run["seconds"])
            reporter.progress(step, STEPS)
            if step == 2 and fault:
                happen(fault, job.folder)
            value = goal + 1 / step
            if not reporter.report(step, 100 * step, value, 100 * STEPS):
                return Outcome(State.PRUNED, facts={"objective": value})
        (job.folder / "adapter").mkdir()
        (job.folder / "adapter" / "weights").write_bytes(repr((run["x"], run["y"])).encode())
        value = float("nan") if fault == "nan" else goal
        return Outcome(State.COMPLETE, None if fault == "nothing" else [value], {"objective": goal})


def happen(fault: str, folder: Path) -> None:
    if fault == "exception":
        raise RuntimeError("something is broken")
    if fault == "exit":
        os._exit(7)
    if fault == "sys.exit":
        raise SystemExit(0)
    if fault == "kill" or (fault == "kill once" and not folder.with_name(f"{folder.name}.attempt1").exists()):
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "out of memory":
        raise MemoryError("no room")
    if fault == "hang":
        time.sleep(3600)


def toy(folder: Path, faults: dict[int, str] | None = None, seconds: float = 0.0, **settings: Any) -> Definition:
    """A study of the toy."""
    given = {"sampler": "random", "n_trials": 8, "baseline": True, "slots": 2, **settings}

    def compose(point: Point) -> Composed:
        run = {"x": 0.5, "y": 0.1, **point, "seconds": seconds}
        run["faults"] = {str(number): fault for number, fault in (faults or {}).items()}
        overrides = [f"{key}={value}" for key, value in point.items()]
        return Composed(run, overrides, overrides, f"{run['x']} {run['y']}")

    return Definition(folder.name, folder, Settings(**given), SPACE, compose, "tests.study.toy:Toy")
