"""What W&B costs a trial: disabled, offline, online, and with a server that is dead or slow.

python benchmarks/wandb_cost.py                                            the tiny model, trials of a second
python benchmarks/wandb_cost.py --model smollm2_135m --steps 8 --trials 4   the embedded one

Every arm runs the same study in one warm worker, the arms in turns. W&B's server is a stand-in on the loopback
interface (tests/tracking/server.py); a slow one takes half a second for every answer.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.tracking.server import wandb_server

ARMS = ("disabled", "offline", "online", "dead", "slow")
SECONDS_PER_ANSWER = 0.5


def study(arm: str, model: str, steps: int, trials: int) -> tuple[list[float], float]:
    """Return the seconds of every trial after the first, which loads the base, and of the session."""
    mode = arm if arm in ("disabled", "offline") else "online"
    ranks = ",".join(str(2 * index + 4) for index in range(trials + 1))
    options = [
        "-m", "study=cost", f"lora.r={ranks}", "hydra.sweeper.slots=1", f"model={model}", "data.limit=64",
        f"train.max_steps={steps}", "train.batch_size=2", "evaluation.max_samples=4", "evaluation.generate=0",
        f"tracking.wandb={mode}", "verbosity=quiet",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as place, wandb_server() as server:
        server.delay = SECONDS_PER_ANSWER if arm == "slow" else 0.0
        url = "http://127.0.0.1:9" if arm == "dead" else server.url
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        command = [sys.executable, str(ROOT / "train.py"), *options]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        with open(Path(place) / "outputs" / "studies" / "cost" / "leaderboard.csv") as file:
            rows = [row for row in csv.DictReader(file) if row["trial"]]
    return [float(row["seconds"]) for row in rows if row["trial"] != "0"], seconds


def main() -> None:
    """Print seconds per trial, as a median, beside those without W&B."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=ARMS)
    arguments = parser.parse_args()
    trials: dict[str, list[float]] = {arm: [] for arm in arguments.arms}
    sessions: dict[str, list[float]] = {arm: [] for arm in arguments.arms}
    for _ in range(arguments.repeats):
        for arm in arguments.arms:
            each, whole = study(arm, arguments.model, arguments.steps, arguments.trials)
            trials[arm] += each
            sessions[arm].append(whole)
    first = arguments.arms[0]
    print(f"| W&B | s per trial | of {first} | s per study of {arguments.trials + 1} |\n|---|---|---|---|")
    for arm in arguments.arms:
        seconds = median(trials[arm])
        ratio = seconds / median(trials[first])
        print(f"| {arm} | {seconds:.3f} | {ratio:.3f} | {median(sessions[arm]):.1f} |")


if __name__ == "__main__":
    main()
