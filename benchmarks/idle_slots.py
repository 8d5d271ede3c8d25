"""How long slots stand idle between trials, and what the controller costs, with workers that only pretend to train.

As many trials end in a second as of 64 that take a minute each, and the study has 1,000 before them.

python benchmarks/idle_slots.py                         1, 8 and 64 slots, 200 trials each: about 25 minutes
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from lorasweep.study.channel import Channel, Message
from lorasweep.study.controller import Controller
from lorasweep.study.database import local_url
from lorasweep.study.outcomes import State
from lorasweep.study.slots import Slot
from lorasweep.study.store import Store
from tests.study.toy import SPACE, curve, toy

SPREAD = 0.5
"""Standard deviation of the logarithm of a trial's duration: the longest of 64 takes some three times the median."""
REPORTS = 4
SECONDS_OF_A_TRIAL = 60.0


@dataclass
class Clock:
    """Does things when they are due, in a thread of its own, as workers would in processes of theirs."""

    due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    order: Any = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something later."""
        with self.changed:
            heapq.heappush(self.due, (time.monotonic() + seconds, next(self.order), do))
            self.changed.notify()

    def _run(self) -> None:
        while True:
            with self.changed:
                wait = self.due[0][0] - time.monotonic() if self.due else None
                if wait is None or wait > 0:
                    self.changed.wait(wait)
                    continue
                _, _, do = heapq.heappop(self.due)
            do()


@dataclass
class Pretence(Slot):
    """A slot whose worker reports on time and trains nothing."""

    clock: Clock = field(default_factory=Clock)
    durations: dict[int, float] = field(default_factory=dict)
    idle: list[float] = field(default_factory=list)
    trained: list[float] = field(default_factory=list)
    """Seconds that each of its trials took."""
    ended: float | None = None

    def start(self) -> None:
        """Pretend that a worker starts."""
        ours, self.theirs = map(Channel, socket.socketpair())
        self.channel, self.process = ours, True  # type: ignore[assignment]
        self.theirs.send({"event": "ready"})

    def send(self, message: Message) -> None:
        """Take a trial, and report again and again when it has been answered."""
        if message["do"] == "train":
            if self.ended is not None:
                self.idle.append(time.monotonic() - self.ended)
            self.number, self.run, self.step = message["number"], message["run"], 0
            self.began = time.monotonic()
        self.clock.after(self.durations[self.number] / REPORTS, self._tell)

    def end(self, patience: float = 0.0) -> int:
        """Pretend that the worker ends."""
        self.process, self.channel, self.ready = None, None, False
        return 0

    def _tell(self) -> None:
        self.step += 1
        value = curve(self.run["x"], self.run["y"], self.step)
        tokens = {"step": self.step, "tokens": 100 * self.step, "budget": 100 * REPORTS}
        if self.step < REPORTS:
            self.theirs.send({"event": "report", "value": value, **tokens})
            return
        self.ended = time.monotonic()
        self.trained.append(self.ended - self.began)
        outcome = {"state": "complete", "values": [value], "facts": {"objective": value}, "reason": None}
        self.theirs.send({"event": "outcome", **outcome, "worn": False})


class Silent:
    """Shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: None


def measure(slots: int, trials: int, history: int, mean: float, sampler: str) -> dict[str, float]:
    """Run a study of pretended trials of `mean` seconds, with as many before them as `history` says."""
    chance, clock = random.Random(0), Clock()
    durations = durations_of(range(history, history + trials), mean)
    with tempfile.TemporaryDirectory() as place:
        definition = toy(Path(place, "study"), n_trials=history + trials, baseline=False, slots=slots, sampler=sampler)
        definition.folder.mkdir()
        store = Store(local_url(definition.folder / "study.db"), "study", definition.directions(), SPACE)
        for number in range(history):
            point = {"x": chance.random(), "y": 10 ** chance.uniform(-3, 0)}
            value = curve(point["x"], point["y"], REPORTS)
            store.create(point, str(number), "sampled")
            for step in range(1, REPORTS):
                store.report(number, 100 * step, curve(point["x"], point["y"], step))
            store.finish(number, State.COMPLETE, [value], {"objective": value})
        pretences = [
            Pretence(index, Path(place, "log"), "", clock=clock, durations=durations) for index in range(slots)
        ]
        start, cpu = time.monotonic(), time.thread_time()
        Controller(definition, store, list(pretences), Silent()).run()
        seconds, cpu = time.monotonic() - start, time.thread_time() - cpu
        store.close()
    idle = [item for slot in pretences for item in slot.idle]
    return {
        "seconds": seconds,
        "idle": sum(idle) / max(1, len(idle)),
        "most": max(idle, default=0.0),
        "cpu": cpu / trials,
        "batches": batches(list(durations.values()), slots) / refilled(list(durations.values()), slots),
    }


def durations_of(numbers: Iterable[int], mean: float) -> dict[int, float]:
    """Return how long each trial takes, `mean` seconds on average."""
    chance, scale = random.Random(0), mean / pow(2.718281828459045, SPREAD**2 / 2)
    return {number: scale * chance.lognormvariate(0, SPREAD) for number in numbers}


def refilled(durations: list[float], slots: int) -> float:
    """Return the time that trials take when every slot gets the next one at once."""
    free = [0.0] * slots
    for seconds in durations:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def batches(durations: list[float], slots: int) -> float:
    """Return the time that trials take when each batch waits for its slowest."""
    return sum(max(durations[start : start + slots]) for start in range(0, len(durations), slots))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--history", type=int, default=1000, help="trials that the study has already")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--load", type=float, default=1.1, help="trials a second that come to an end")
    parser.add_argument("--sampler", nargs="+", choices=("random", "tpe"), default=["random", "tpe"])
    given = parser.parse_args()
    print(f"{given.trials} trials after {given.history}, {given.load:g} ending a second (64 slots of a minute: 1.1)")
    print("sampler slots  s a trial  idle s a refill (most)  idle of a minute  CPU s a trial  batches take")
    for sampler, slots in itertools.product(given.sampler, given.slots):
        mean = slots / given.load
        found = measure(slots, given.trials, given.history, mean, sampler)
        share = found["idle"] / (SECONDS_OF_A_TRIAL + found["idle"])
        print(
            f"{sampler:7} {slots:5}  {mean:9.2f}  {found['idle']:15.3f} ({found['most']:.3f}) "
            f"{share:17.3%} {found['cpu']:14.3f} {found['batches']:12.2f} x",
            flush=True,
        )


if __name__ == "__main__":
    main()
