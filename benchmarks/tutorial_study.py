"""The first tutorial as a study: 16 trials over the six knobs, 1,000 rows, one epoch each, beside a script per trial.

python benchmarks/tutorial_study.py --rows gsm8k/train.jsonl                   SmolLM2-135M, on a GPU
python benchmarks/tutorial_study.py --work llama2_7b --trials 4 --limit 100    a random 7B shape, shorter
python benchmarks/tutorial_study.py --work tiny --trials 3 --limit 60          every arm on a CPU, to see that it runs

The plain side is a SFTTrainer script for each trial, one after the other, at the tutorial's flags (everything computed
again, paged_adamw_32bit) and at its best ones. Ours is one study, and what it gains is shown apart: faster steps (a
process per trial still), the base kept warm, trials together (several slots on the GPU), early stopping. All arms train
the same points on the same rows and judge the same rows at the end; a script that packs takes fewer and larger steps,
ours learns from the same rows in a step, packed or not. An arm that was given fewer trials (--scripts) is extrapolated
to all, and marked by a star.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.gpu_speed import CONTEXT, FIELDS, SHAPES, Plain, write_rows

KNOBS: dict[str, list[Any]] = {
    "lora.r": [8, 16, 32, 64],
    "lora.alpha": [16, 32, 64, 128],
    "lora.dropout": [0.0, 0.05, 0.1],
    "scheduler": ["constant", "linear", "cosine"],
    "train.max_grad_norm": [0.3, 1.0],
    "data.packing": [False, True],
}
FLAGS: dict[str, dict[str, Any]] = {
    "TRL, tutorial flags": {"gradient_checkpointing": True, "optim": "paged_adamw_32bit"},
    "TRL, best flags": {"gradient_checkpointing": False, "optim": "adamw_torch_fused"},
}
ASHA = ["evaluation.times=4", *(f"hydra.sweeper.{item}" for item in ("pruner=asha", "reduction_factor=3"))]
OURS = {
    "ours, a process per trial": ["hydra.sweeper.fresh_process=true"],
    "ours, warm": [],
    "ours, warm, 2 together": ["hydra.sweeper.slots=2"],
    "ours, warm, 4 together": ["hydra.sweeper.slots=4"],
    "ours, warm, early stopping": ASHA,
    "ours, warm, 2 together, early stopping": ["hydra.sweeper.slots=2", *ASHA],
}
RATE, EVALUATED, LENGTH = 1e-3, 100, 512


@dataclass
class Measured:
    """An arm: seconds in all and of each trial, the loss of each point that was trained to its end."""

    seconds: float
    trials: list[float]
    losses: dict[int, float]
    training: list[float] = field(default_factory=list)
    """Of each trial, as far as it is known, the seconds it trained and judged."""
    is_extrapolated: bool = False

    @property
    def best(self) -> int:
        """The point with the lowest loss."""
        return min(self.losses, key=lambda point: self.losses[point])


def points(count: int) -> list[dict[str, Any]]:
    """Return different points of the space, the same ones every time; the first is the tutorial's."""
    chance = random.Random(0)
    first = {"lora.r": 64, "lora.alpha": 16, "lora.dropout": 0.1, "scheduler": "constant", "train.max_grad_norm": 0.3}
    found = [{**first, "data.packing": False}]
    while len(found) < count:
        if (point := {name: chance.choice(values) for name, values in KNOBS.items()}) not in found:
            found.append(point)
    return found


def model_of(work: str) -> list[str]:
    """Return the overrides that name a model."""
    if work == "smollm2_135m":
        return ["model=smollm2_135m"]
    shape = [f"model.shape.{name}={value}" for name, value in zip(FIELDS, SHAPES[work], strict=True)]
    return ["model=tiny", *shape, f"model.shape.context={CONTEXT}"]


class Job:
    """What is trained: a model, rows to train on and rows to judge by."""

    def __init__(self, work: str, source: Path | None, limit: int, folder: Path) -> None:
        self.work, self.train, self.eval = work, folder / "train.jsonl", folder / "eval.jsonl"
        if work == "smollm2_135m":
            assert source, "--rows: the train.jsonl of gsm8k"
            rows = [json.loads(line) for line in source.open()]
            lines = [json.dumps({"prompt": row["question"], "completion": row["answer"]}) for row in rows]
        else:
            write_rows(folder / "all.jsonl", "tutorial", work)
            lines = (folder / "all.jsonl").read_text().splitlines()
        self.train.write_text("\n".join(lines[:limit]) + "\n")
        self.eval.write_text("\n".join(lines[-min(EVALUATED, limit) :]) + "\n")

    def overrides(self) -> list[str]:
        """Return what every trial of ours has in common."""
        return [
            *model_of(self.work), "data=jsonl", f"data.files={self.train}", f"data.eval_files={self.eval}",
            f"data.max_length={LENGTH}", "optim=adamw_torch_fused", f"optim.lr={RATE}", "train.batch_size=4",
            "train.epochs=1", "train.tokens_per_step=auto", "train.gradient_checkpointing=false", "evaluation.times=1",
            "evaluation.untuned=false", "evaluation.generate=0", "tracking.wandb=disabled", "verbosity=quiet",
        ]  # fmt: skip


def study(job: Job, given: list[str], tried: list[dict[str, Any]], folder: Path) -> Measured:
    """Run a study of these points."""
    written = ",".join(
        "{" + ",".join(f"{name}:{str(value).lower()}" for name, value in point.items()) + "}" for point in tried
    )
    sweep = ["-m", "study=tutorial", "hydra.sweeper.sampler=list", f"hydra.sweeper.enqueue=[{written}]"]
    folder.mkdir()
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "train.py"), *sweep, "hydra.sweeper.slots=1", *job.overrides(), *given]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stdout[-1500:])
    with open(folder / "outputs" / "studies" / "tutorial" / "leaderboard.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["trial"]]
    losses = {int(row["trial"]): float(row["objective"]) for row in rows if row["state"] == "complete"}
    summaries = [json.loads(path.read_text()) for path in sorted(folder.rglob("trials/*/summary.json"))]
    work = [round(each["train/seconds"] + each["evaluation/seconds"], 1) for each in summaries]
    return Measured(seconds, [float(row["seconds"]) for row in rows], losses, work)


def scripts(job: Job, name: str, tried: list[dict[str, Any]], count: int) -> Measured:
    """Run a script for each of the first points, one after the other; what all of them take is extrapolated."""
    trials, losses = list[float](), dict[int, float]()
    for number, point in enumerate(tried[:count]):
        start = time.perf_counter()
        given = {"point": point, "flags": FLAGS[name], "work": job.work, "train": str(job.train), "eval": str(job.eval)}
        command = [sys.executable, __file__, "--script", json.dumps(given)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-1500:])
        trials.append(time.perf_counter() - start)
        losses[number] = float(done.stdout.split()[-1])
    return Measured(sum(trials) / len(trials) * len(tried), trials, losses, [], len(trials) < len(tried))


def script(given: dict[str, Any]) -> None:
    """Train one trial as TRL's documentation does, and print its loss on the rows to judge by."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from lorasweep import compose
    from lorasweep.input_files import location

    compose.register()
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(model_of(given["work"])))
    place, gpu, point = location(run.model), torch.cuda.is_available(), given["point"]
    with tempfile.TemporaryDirectory() as folder:
        rows = load_dataset("json", data_files={"train": given["train"], "eval": given["eval"]}, cache_dir=folder)
        trainer = SFTTrainer(
            model=Plain.load(place, gpu),
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=4, num_train_epochs=1, learning_rate=RATE,
                lr_scheduler_type=point["scheduler"], max_grad_norm=point["train.max_grad_norm"], max_length=LENGTH,
                packing=point["data.packing"], bf16=gpu, use_cpu=not gpu, seed=42, report_to="none",
                save_strategy="no", disable_tqdm=True, eval_packing=False, per_device_eval_batch_size=8,
                logging_steps=25, **given["flags"],
            ),
            train_dataset=rows["train"],
            eval_dataset=rows["eval"],
            processing_class=AutoTokenizer.from_pretrained(place),
            peft_config=LoraConfig(
                r=point["lora.r"], lora_alpha=point["lora.alpha"], lora_dropout=point["lora.dropout"],
                target_modules="all-linear", task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
        trainer.train()
        print("\n", trainer.evaluate()["eval_loss"])


def show(found: dict[str, Measured], first: str) -> str:
    """Return the table: wall time, how many times faster than the first arm, and which trial is best."""
    lines = [
        "| | s in all | times faster | s a trial, median | ended early | best trial |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in found.items():
        star = "*" if arm.is_extrapolated else ""
        middle = sorted(arm.trials)[len(arm.trials) // 2]
        early = len(arm.trials) - len(arm.losses)
        best = f"{arm.best} ({arm.losses[arm.best]:.4f}){star}"
        ratio = found[first].seconds / arm.seconds
        lines.append(f"| {name} | {arm.seconds:.1f}{star} | {ratio:.2f} | {middle:.1f} | {early} | {best} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=("smollm2_135m", "llama2_7b", "tiny"), default="smollm2_135m")
    parser.add_argument("--rows", type=Path, help="gsm8k's train.jsonl: question and answer")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--limit", type=int, default=1000, help="rows of a trial")
    parser.add_argument("--scripts", type=int, help="trials that the plain arms really run")
    parser.add_argument("--arms", nargs="+", choices=[*FLAGS, *OURS], default=[*FLAGS, *OURS])
    parser.add_argument("--minutes", type=float, default=60.0, help="no arm starts after that")
    parser.add_argument("--script", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.script:
        script(json.loads(options.script))
        return
    found, end = dict[str, Measured](), time.monotonic() + 60 * options.minutes
    tried = points(options.trials)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(options.work, options.rows, options.limit, Path(folder))
        for number, name in enumerate(options.arms):
            if time.monotonic() > end:
                print(f"{name}: left out, no time", flush=True)
                continue
            try:
                if name in FLAGS:
                    found[name] = scripts(job, name, tried, options.scripts or len(tried))
                else:
                    found[name] = study(job, OURS[name], tried, Path(folder) / str(number))
            except RuntimeError as error:
                print(f"{name}: {error}", flush=True)
                continue
            print(f"{name}: {found[name].seconds:.1f} s", flush=True)
            if "OUT" in os.environ:
                kept = json.dumps({name: asdict(arm) for name, arm in found.items()}, indent=1)
                (Path(os.environ["OUT"]) / f"tutorial_study_{options.work}.json").write_text(kept)
    print(show(found, next(iter(found))))


if __name__ == "__main__":
    main()
