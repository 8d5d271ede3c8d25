"""What a trial costs beyond its steps and evaluation: in a warm worker, in a process of its own, a script per trial.

python benchmarks/trial_overhead.py                        the tiny model
python benchmarks/trial_overhead.py --model smollm2_135m   the embedded one

Every arm trains the same trials, one at a time. `script per trial` is `python train.py` for each; Hydra's basic
launcher is that of a plain Hydra app around the same function, one trial after the other in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
RANKS = (4, 6, 8, 10, 12, 14)
APP = f"""
import hydra
from lorasweep import compose
from lorasweep.run import train

@hydra.main(version_base="1.3", config_path={str(ROOT / "conf")!r}, config_name="config")
def main(config):
    train(compose.to_run(config), compose.launch())

compose.register()
main()
"""
"""A plain Hydra app: train.py without what makes -m a study."""


def options(model: str, steps: int) -> list[str]:
    return [
        f"model={model}", "data.limit=64", f"train.max_steps={steps}", "train.batch_size=2", "evaluation.untuned=false",
        "evaluation.generate=0", "evaluation.max_samples=2", "tracking.wandb=disabled", "verbosity=quiet",
    ]  # fmt: skip


def run(arguments: list[str], place: Path) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def study(extra: list[str]) -> Callable[[list[str], Path], None]:
    def start(given: list[str], place: Path) -> None:
        ranks = ",".join(map(str, RANKS))
        sweep = ["-m", "study=overhead", f"lora.r={ranks}", "hydra.sweeper.slots=1", *extra]
        run([str(ROOT / "train.py"), *sweep, *given], place)

    return start


def script_per_trial(given: list[str], place: Path) -> None:
    for rank in RANKS:
        run([str(ROOT / "train.py"), *given, f"lora.r={rank}"], place)


def basic_launcher(given: list[str], place: Path) -> None:
    (place / "app.py").write_text(APP)
    sweep = ["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "~strategy", f"lora.r={','.join(map(str, RANKS))}"]
    run(["app.py", *sweep, *given], place)


ARMS: dict[str, Callable[[list[str], Path], None]] = {
    "warm worker": study([]),
    "process per trial": study(["hydra.sweeper.fresh_process=true"]),
    "Hydra's basic launcher": basic_launcher,
    "script per trial": script_per_trial,
}


def measure(arm: str, given: list[str]) -> tuple[float, float, float]:
    """Return medians over all trials but the first: seconds from end to end, of training and judging; and the start."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        ARMS[arm](given, Path(folder))
        paths = sorted(Path(folder).rglob("summary.json"), key=lambda path: path.stat().st_mtime)
        ends = [path.stat().st_mtime for path in paths]
        summaries = [json.loads(path.read_text()) for path in paths]
    each = median(after - before for before, after in pairwise(ends))
    work = [summary["train/seconds"] + summary["evaluation/seconds"] for summary in summaries]
    return each, median(work[1:]), ends[0] - start - each


def main() -> None:
    """Print what a further trial takes, and beyond its work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    arguments = parser.parse_args()
    given = options(arguments.model, arguments.steps)
    print("| | s per further trial | of which training and judging | beyond | start, once |\n|---|---|---|---|---|")
    for arm in arguments.arms:
        each, work, once = measure(arm, given)
        print(f"| {arm} | {each:.2f} | {work:.2f} | {each - work:.2f} | {once:.1f} |", flush=True)


if __name__ == "__main__":
    main()
