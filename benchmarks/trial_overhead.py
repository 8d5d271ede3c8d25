"""What a trial costs beyond its steps and evaluation: in a warm worker, in a process of its own, a script per trial.

python benchmarks/trial_overhead.py                        the tiny model
python benchmarks/trial_overhead.py --model smollm2_135m   the embedded one

Every arm trains the same trials, one at a time. `script per trial` is `python train.py` for each; `one process` calls
the same function for one trial after the other, as Hydra's basic launcher does.
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
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANKS = (4, 6, 8, 10, 12, 14)


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


def study(extra: list[str]) -> Callable[[list[str], Path, int], None]:
    def start(given: list[str], place: Path, trials: int) -> None:
        ranks = ",".join(map(str, RANKS[:trials]))
        sweep = ["-m", "study=overhead", f"lora.r={ranks}", "hydra.sweeper.slots=1", *extra]
        run([str(ROOT / "train.py"), *sweep, *given], place)

    return start


def script_per_trial(given: list[str], place: Path, trials: int) -> None:
    for rank in RANKS[:trials]:
        run([str(ROOT / "train.py"), *given, f"lora.r={rank}"], place)


def one_process(given: list[str], place: Path, trials: int) -> None:
    code = (
        "import sys; from pathlib import Path; from lorasweep import compose; from lorasweep.record import Launch;"
        "from lorasweep.run import train; compose.register();"
        f"conf, line = Path({str(ROOT / 'conf')!r}), compose.CommandLine.of;"
        f"[train(compose.checked_run(conf, line([*{given!r}, f'lora.r={{r}}'])),"
        f" Launch(Path('outputs') / str(r), [])) for r in {RANKS[:trials]!r}]"
    )
    run(["-c", code], place)


ARMS: dict[str, Callable[[list[str], Path, int], None]] = {
    "warm worker": study([]),
    "process per trial": study(["hydra.sweeper.fresh_process=true"]),
    "one process": one_process,
    "script per trial": script_per_trial,
}


def measure(arm: str, given: list[str], trials: int) -> tuple[float, float]:
    """Return seconds of an arm, and those of them that are training steps and the evaluation after them."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ARMS[arm](given, Path(folder), trials)
        seconds = time.perf_counter() - start
        summaries = [json.loads(path.read_text()) for path in Path(folder).rglob("summary.json")]
        return seconds, sum(summary["train/seconds"] + summary["evaluation/seconds"] for summary in summaries)


def main() -> None:
    """Print seconds per further trial: the difference between 6 trials and 2, so that starting up once is not in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    arguments = parser.parse_args()
    given = options(arguments.model, arguments.steps)
    print(
        "| | s per further trial | of which steps and evaluation | beyond them | start, once |\n|---|---|---|---|---|"
    )
    for arm in arguments.arms:
        few, many = measure(arm, given, 2), measure(arm, given, 6)
        each, steps = (many[0] - few[0]) / 4, (many[1] - few[1]) / 4
        print(f"| {arm} | {each:.2f} | {steps:.2f} | {each - steps:.2f} | {few[0] - 2 * each:.1f} |", flush=True)


if __name__ == "__main__":
    main()
