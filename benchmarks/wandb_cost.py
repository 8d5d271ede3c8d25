"""What W&B costs a trial: disabled, offline, online, and with a server that is dead, slow, dies or hangs.

python benchmarks/wandb_cost.py                                            the tiny model, trials of a second
python benchmarks/wandb_cost.py --model smollm2_135m --steps 8 --trials 4   the embedded one
python benchmarks/wandb_cost.py --steps 100 --trials 12                     longer trials: more lines for W&B

Every arm runs the same study in one warm worker, the arms in turns. W&B's server is a stand-in on the loopback
interface (tests/tracking/server.py): a slow one takes half a second for every answer, one that dies does so after a few
steps, one that hangs takes all and never answers that a run is done. A trial talks to no W&B: what it
can lose is the processor time that the processes feeding W&B take from it, where no core is free for them. That is
counted, too, and far steadier than the clock; a study of one trial tells what of it is spent once.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Event, Thread

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tracking.server import wandb_server

ARMS = ("disabled", "offline", "online", "dead", "slow", "dies", "hangs")
SECONDS_PER_ANSWER = 0.5
ROWS_BEFORE_DEATH = 5


@dataclass
class Processors:
    """Seconds of processor time of a process and all that it starts, by process; those that feed W&B, too."""

    parent: psutil.Process
    spent: dict[int, float] = field(default_factory=dict)
    feeding: set[int] = field(default_factory=set)
    done: Event = field(default_factory=Event)

    def watch(self) -> None:
        """Look four times a second, since what a process has spent is gone with it."""
        while not self.done.wait(0.25):
            with suppress(psutil.Error):
                for process in (self.parent, *self.parent.children(recursive=True)):
                    with suppress(psutil.Error):
                        times = process.cpu_times()
                        self.spent[process.pid] = times.user + times.system
                        words = " ".join(process.cmdline())
                        if "lorasweep.tracking" in words or "wandb-core" in words:
                            self.feeding.add(process.pid)

    def seconds(self) -> float:
        """Return what was spent on feeding W&B."""
        return sum(self.spent[process] for process in self.feeding)


def study(arm: str, model: str, steps: int, trials: int) -> tuple[list[float], float]:
    """Return the seconds of every trial but the first, which loads the base, and those spent on feeding W&B."""
    mode = arm if arm in ("disabled", "offline") else "online"
    ranks = ",".join(str(2 * index + 4) for index in range(trials))
    options = [
        "-m", "study=cost", f"lora.r={ranks}", "hydra.sweeper.slots=1", f"model={model}", "data.limit=64",
        f"train.max_steps={steps}", "train.batch_size=2", "evaluation.max_samples=4", "evaluation.generate=0",
        f"tracking.wandb={mode}", "verbosity=quiet",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place, wandb_server() as server:
        server.delay = SECONDS_PER_ANSWER if arm == "slow" else 0.0
        server.dies_after = ROWS_BEFORE_DEATH if arm == "dies" else None
        server.hangs_at_finish = arm == "hangs"
        url = "http://127.0.0.1:9" if arm == "dead" else server.url
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        command = [sys.executable, str(ROOT / "train.py"), *options]
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        processors = Processors(psutil.Process(process.pid))
        (watch := Thread(target=processors.watch)).start()
        said, _ = process.communicate()
        processors.done.set()
        watch.join()
        if process.returncode:
            raise SystemExit(said)
        with open(Path(place) / "outputs" / "studies" / "cost" / "leaderboard.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["trial"]]
    return [float(row["seconds"]) for row in rows if row["trial"] != "0"], processors.seconds()


def main() -> None:
    """Print seconds per trial, as a median, beside those without W&B, and the share that is spent on feeding it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    arguments = parser.parse_args()
    given = (arguments.model, arguments.steps)
    clock: dict[str, list[float]] = {arm: [] for arm in arguments.arms}
    once: dict[str, list[float]] = {arm: [] for arm in arguments.arms}
    each: dict[str, list[float]] = {arm: [] for arm in arguments.arms}
    for _ in range(arguments.repeats):
        for arm in arguments.arms:
            seconds, fed = study(arm, *given, arguments.trials)
            _, fed_first = study(arm, *given, 1)
            clock[arm] += seconds
            once[arm].append(fed_first)
            each[arm].append((fed - fed_first) / (arguments.trials - 1))
    first = median(clock[arguments.arms[0]])
    heads = ["s per trial", "ratio", "processor s for the first trial and the study", "for each further trial", "of it"]
    print("| W&B |", " | ".join(heads), "|\n|---|---|---|---|---|---|")
    for arm, trials in clock.items():
        middle = median(trials)
        words = f"{median(once[arm]):.2f} | {median(each[arm]):.3f} | {median(each[arm]) / middle:.1%}"
        print(f"| {arm} | {middle:.3f} | {middle / first:.3f} | {words} |")


if __name__ == "__main__":
    main()
