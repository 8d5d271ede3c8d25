"""How many trials a second a study takes, and how long its slots wait, by where it is kept and how many slots it has.

Trials that only pretend to train, as in idle_slots.py, in one controller with all slots or in several that share them.

python benchmarks/storage_throughput.py                                      SQLite: 1, 8, 64, 256 slots
python benchmarks/storage_throughput.py --postgres                           and a PostgreSQL of its own
python benchmarks/storage_throughput.py --postgres --controllers 4           and four controllers, which SQLite has not
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.idle_slots import Clock, Pretence, Silent, durations_of
from lorasweep.study.controller import Controller
from lorasweep.study.database import local_url
from lorasweep.study.store import Store
from tests.study.toy import SPACE, toy

SECONDS_FOR_ALL = 3600.0


@dataclass(frozen=True)
class Part:
    """What one controller does: its share of the slots of a study of so many trials of so many seconds."""

    place: str
    url: str
    slots: int
    trials: int
    mean: float
    sampler: str


def run_part(part: Part) -> tuple[float, float]:
    """Run a controller to the end of its study; return when it began to and the seconds that its slots trained."""
    definition = toy(
        Path(part.place, "study"), n_trials=part.trials, baseline=False, slots=part.slots, sampler=part.sampler
    )
    clock, durations = Clock(), durations_of(range(part.trials), part.mean)
    store = Store(part.url, "study", definition.directions(), SPACE)
    store.join(definition.settings.lease_seconds, is_alone=False)
    slots = [
        Pretence(index, Path(part.place, "log"), "", clock=clock, durations=durations) for index in range(part.slots)
    ]
    began = time.monotonic()
    Controller(definition, store, list(slots), Silent()).run()
    store.leases.leave()
    store.close()
    return began, sum(seconds for slot in slots for seconds in slot.trained)


def measure(url: str, slots: int, controllers: int, trials: int, mean: float, sampler: str) -> dict[str, float]:
    """Run a study with so many slots among controllers, each a process; return trials a second and idle share."""
    shares = [slots // controllers + (index < slots % controllers) for index in range(controllers)]
    with tempfile.TemporaryDirectory() as place:
        url = url or local_url(Path(place, "study.db"))
        Store(url, "study", ["minimize"], SPACE).close()
        parts = [Part(place, url, share, trials, mean, sampler) for share in shares if share]
        if len(parts) == 1:
            found = [run_part(parts[0])]
        else:
            with multiprocessing.get_context("spawn").Pool(len(parts)) as pool:
                found = pool.map_async(run_part, parts, chunksize=1).get(SECONDS_FOR_ALL)
        seconds = time.monotonic() - min(began for began, _ in found)
    trained = sum(busy for _, busy in found)
    return {"seconds": seconds, "a second": trials / seconds, "idle": max(0.0, 1 - trained / (seconds * slots))}


@contextmanager
def databases(is_wanted: bool) -> Iterator[dict[str, str]]:
    """Give the addresses of empty databases by name: a new file for SQLite."""
    with ExitStack() as stack:
        found = {"SQLite": ""}
        if is_wanted:
            from tests.study.postgres import server

            place = Path(tempfile.mkdtemp(prefix="lorasweep-postgres-", dir="/tmp"))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            running = stack.enter_context(server(place))
            found["PostgreSQL"] = running.create(f"study_{time.monotonic_ns()}")
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--trials", type=int, default=600, help="trials of a study")
    parser.add_argument("--mean", type=float, nargs="+", default=[0.0, 8.0], help="seconds of a trial; 0: at once")
    parser.add_argument("--controllers", type=int, nargs="+", default=[1])
    parser.add_argument("--sampler", nargs="+", choices=("random", "tpe"), default=["random"])
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL too, started for this")
    given = parser.parse_args()
    print("database    sampler  controllers  slots  s a trial  trials  trials/s  idle")
    cases = itertools.product(given.sampler, given.controllers, given.slots, given.mean)
    for sampler, controllers, slots, mean in cases:
        with databases(given.postgres) as found:
            for name, url in found.items():
                if controllers > 1 and name == "SQLite":
                    continue
                row = measure(url, slots, controllers, given.trials, mean, sampler)
                print(
                    f"{name:11} {sampler:8} {controllers:11} {slots:6} {mean:10.2f} {given.trials:7}"
                    f" {row['a second']:9.2f} {row['idle']:5.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
