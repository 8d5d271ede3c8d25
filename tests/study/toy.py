"""A study without training: an objective that is a formula, with faults to order.

python -m tests.study.toy FOLDER '{"n_trials": 8, "seconds": 0.1}'      a session in a process of its own
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorasweep.host import Interrupted
from lorasweep.rules import Problem, UserError
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.space import Interval, Point, Space
from lorasweep.study.worker import Job, Outcome, Reporter

STEPS = 4
SPACE = Space((Interval("x", 0.0, 1.0), Interval("y", 1e-3, 1.0, log=True)), fixed={"x": 0.5, "y": 0.1})


def curve(x: float, y: float, step: int) -> float:
    """What the toy reports after a step; curves of different points cross."""
    return (x - 0.3) ** 2 + (math.log10(y) + 1) ** 2 + 2 * (1 - x) * (1 / step - 1 / STEPS)


class Toy:
    """Comes closer to its value with every step, or does what `fault` says at its second."""

    worn = False

    def check(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        study = runs[0]["study"]
        if study["fault"] == "problem":
            return {"problems": [{"key": "data", "value": "rows.json", "allowed": "a file"}], "facts": {}}
        return {"problems": [], "facts": {"rows": study["rows"]}}

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        run, study = job.run, job.run["study"]
        fault = study["faults"].get(str(job.number), study["fault"])
        print(f"trial {job.number} in process {os.getpid()} on {os.environ.get('CUDA_VISIBLE_DEVICES')}")
        value = 0.0
        for step in range(1, STEPS + 1):
            time.sleep(study["seconds"])
            try:
                reporter.progress(step, STEPS)
            except Interrupted:
                print("told to stop")
                raise
            if step == 2 and fault:
                happen(fault, job.folder)
            if step == 2 and fault in WARNINGS and not job.folder.with_name(f"{job.number}.attempt1").exists():
                os.kill(os.getppid(), WARNINGS[fault])
                evaluate(reporter, 600.0)
            if step == 2 and fault in LONG:
                LONG[fault](reporter, study["long"])
            if step == 2 and fault == "diverged":
                return Outcome(State.DIVERGED, facts={"objective": float("inf")}, reason="the loss is inf")
            value = study["sign"] * curve(run["x"], run["y"], step)
            done, tokens = (
                round(study["steps"] * step / STEPS),
                round(25 * study["steps"] * sum(study["rows_of"][:step])),
            )
            if not reporter.report(done, tokens, value, round(tokens * study["steps"] / done)):
                return Outcome(State.PRUNED, facts={"objective": value})
        (job.folder / "adapter").mkdir()
        (job.folder / "adapter" / "weights").write_bytes(repr((run["x"], run["y"])).encode() + bytes(study["bytes"]))
        with open(job.folder.parents[1] / "trained.txt", "a") as file:
            file.write(f"{job.number} {run['x']} {run['y']}\n")
        facts = {"objective": float("nan") if fault == "nan" else value, "seconds": run["x"]}
        return Outcome(State.COMPLETE, None if fault == "nothing" else [facts[name] for name in job.objectives], facts)


def happen(fault: str, folder: Path) -> None:
    """Let a trial meet its fault; of a fault that is none here, nothing."""
    if fault in ERRORS:
        raise ERRORS[fault]
    if fault == "kill" or (fault == "kill once" and not folder.with_name(f"{folder.name}.attempt1").exists()):
        os.kill(os.getpid(), signal.SIGKILL)
    while fault == "wait for 1" and not (folder.with_name("1") / "log.txt").exists():
        time.sleep(0.01)
    while fault == "outlast 3" and not (folder.with_name("3") / "outcome.json").exists():
        time.sleep(0.01)
    if fault in DEEDS:
        DEEDS[fault]()


def start_children() -> None:
    subprocess.Popen(["sleep", "3600"])
    if not os.fork():
        time.sleep(3600)


def evaluate(reporter: Reporter, seconds: float) -> None:
    """Ask before every batch of a long evaluation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not reporter.stopping():
        time.sleep(0.05)


def load(reporter: Reporter, seconds: float) -> None:
    """Wait for what says nothing."""
    with reporter.at_work():
        time.sleep(seconds)


WARNINGS = {"lose the job once": signal.SIGKILL, "preempt once": signal.SIGUSR2, "terminate once": signal.SIGTERM}
"""What the process that keeps a job's worker is sent."""
LONG = {"long evaluation": evaluate, "long load": load}
ERRORS = {
    "exception": RuntimeError("something is broken"),
    "sys.exit": SystemExit(0),
    "out of memory": MemoryError("no room"),
}
DEEDS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(7),
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(3600),
    "children": start_children,
}


def toy(
    folder: Path,
    faults: dict[int, str] | None = None,
    seconds: float = 0.0,
    space: Space = SPACE,
    refuses: Callable[[Point], bool] = lambda point: False,
    objective: str = "tests.study.toy:Toy",
    study: dict[str, Any] | None = None,
    base: dict[str, Any] | None = None,
    **settings: Any,
) -> Definition:
    """A study of the toy; `study` may change between its sessions, `base` and `settings` may not."""
    given = {"sampler": "random", "n_trials": 8, "baseline": True, "slots": 2, **settings}

    def compose(point: Point) -> Composed:
        if refuses(point):
            raise UserError(Problem("x", point.get("x"), "another value"))
        run: dict[str, Any] = {"x": 0.5, "y": 0.1, **(base or {}), **point}
        if isinstance(run["x"], int):
            run["x"] = float(run["x"])  # as the schema does
        run["study"] = {
            "faults": {str(number): fault for number, fault in (faults or {}).items()},
            **{"seconds": seconds, "fault": None, "rows": "abc", "sign": 1, "bytes": 0, "long": 0},
            **{"steps": STEPS, "rows_of": [1.0] * STEPS, **(study or {})},
        }
        overrides = [f"{key}={value}" for key, value in point.items()]
        return Composed(run, overrides, overrides, str({key: value for key, value in run.items() if key != "study"}))

    return Definition(folder.name, folder, Settings(**given), space, compose, objective)


def main() -> None:
    from lorasweep.rules import user_errors
    from lorasweep.study.session import run_session
    from lorasweep.study.view import build_console, build_view

    with user_errors():
        definition = toy(Path(sys.argv[1]), **json.loads(sys.argv[2]))
        reason = run_session(definition, build_view(build_console(), definition))
    raise SystemExit(os.EX_TEMPFAIL if reason == "interrupted" else 1 if reason else 0)


if __name__ == "__main__":
    main()
