"""Our step time and peak memory against a plain SFTTrainer script on the same work, interleaved, beside the noise.

python benchmarks/step_time.py                          the embedded model on this machine's CPU
python benchmarks/step_time.py --work llama2_7b         a random Llama-2-7B shape, for a GPU
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHAPE_7B = [
    "model=tiny", "model.shape.hidden_size=4096", "model.shape.intermediate_size=11008", "model.shape.layers=32",
    "model.shape.heads=32", "model.shape.kv_heads=32", "model.shape.vocab_size=32000", "model.shape.context=4096",
    "optim.lr=2e-4",
]  # fmt: skip
WORK = {
    "tiny": (["model=tiny"], 8, (24, 56)),
    "smollm2": (["model=smollm2_135m"], 8, (24, 56)),
    "llama2_7b": ([*SHAPE_7B, "optim=paged_adamw_32bit", "train.gradient_checkpointing=false"], 4, (32, 1024)),
}
"""Overrides, rows per step, and shortest and longest row of each work."""


def write_rows(path: Path, count: int, shortest: int, longest: int) -> None:
    """Write tokenised rows of log-normal length (median a third of the longest), the same for both arms."""
    import torch

    chance = torch.Generator().manual_seed(0)
    lengths = torch.exp(torch.log(torch.tensor(longest / 3)) + 0.75 * torch.randn(count, generator=chance))
    with open(path, "w") as file:
        for length in lengths.clamp(shortest, longest).int().tolist():
            ids = torch.randint(5, 400, (length,), generator=chance).tolist()
            file.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")


def measured(stamps: list[float]) -> dict[str, Any]:
    """Return what an arm prints: median step time without the first two steps, peak memory."""
    from lorasweep.device import Device, peak_gib

    steps = [second - first for first, second in itertools.pairwise(stamps)][1:]
    return {"step_s": statistics.median(steps), "peak_gib": peak_gib(Device.current())}


def run_ours(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Train through our own entry, with everything a run does per step."""
    from lorasweep import compose, metrics
    from lorasweep.record import Launch
    from lorasweep.run import train

    compose.register()
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))
    train(run, Launch(folder / "run", []))
    entries = [entry for entry in metrics.read(folder / "run") if "train/loss" in entry]
    assert all(entry["train/grad_norm"] > 0 for entry in entries)
    return measured([entry["seconds"] for entry in entries])


def run_plain(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Train with SFTTrainer as TRL documents it, on the same base, rows, adapter and optimizer."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from lorasweep import compose
    from lorasweep.input_files import location

    compose.register()
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    place = location(run.model)
    model = AutoModelForCausalLM.from_pretrained(
        place,
        dtype=dtype,
        device_map={"": 0 if gpu else "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        ),
    )
    stamps: list[float] = []

    class Clock(TrainerCallback):
        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            if "loss" in logs:
                stamps.append(time.time())

    rows = load_dataset("json", data_files=run.data.files, split="train", cache_dir=str(folder / "cache"))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder / "plain"),
            per_device_train_batch_size=run.train.batch_size,
            max_steps=run.train.max_steps,
            learning_rate=run.optim.lr,
            optim=run.optim.name,
            activation_checkpointing=False,
            bf16=gpu,
            use_cpu=not gpu,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            max_length=None,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(place),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.train()
    return measured(stamps)


def arm(name: str, overrides: list[str]) -> dict[str, Any]:
    """Run one arm in a process of its own and return what it measured."""
    command = [sys.executable, __file__, "--arm", name, *overrides]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=WORK, default="smollm2")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=["ours", "plain"])
    options, rest = parser.parse_known_args()
    if options.arm:
        with tempfile.TemporaryDirectory() as folder:
            result = (run_ours if options.arm == "ours" else run_plain)(rest, Path(folder))
        print(json.dumps(result))
        return
    overrides, batch, (shortest, longest) = WORK[options.work]
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows, batch * options.steps, shortest, longest)
        common = [
            *overrides, "data=jsonl", f"data.files={rows}", "data.eval_fraction=0", f"train.batch_size={batch}",
            f"train.max_steps={options.steps}", "evaluation.times=0", "tracking.wandb=disabled", "verbosity=quiet",
        ]  # fmt: skip
        found: dict[str, list[dict[str, Any]]] = {"ours": [], "plain": [], "plain again": []}
        for _ in range(options.rounds):
            for name in found:
                found[name].append(arm(name.split()[0], common))
    report(options.work, found)


def report(work: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table: medians, and ratios to plain."""
    middle = {
        name: {key: statistics.median(item[key] for item in items) for key in ("step_s", "peak_gib")}
        for name, items in found.items()
    }
    print(f"\n{work}: {len(found['ours'])} rounds, {time.strftime('%Y-%m-%d')}")
    print(f"{'':12} {'step ms':>9} {'ratio':>7} {'peak GiB':>9} {'ratio':>7}   step ms of each round")
    for name, values in middle.items():
        each = " ".join(f"{item['step_s'] * 1e3:.0f}" for item in found[name])
        ratios = {key: values[key] / middle["plain"][key] for key in values}
        print(
            f"{name:12} {values['step_s'] * 1e3:9.1f} {ratios['step_s']:7.3f}"
            f" {values['peak_gib']:9.2f} {ratios['peak_gib']:7.3f}   {each}"
        )


if __name__ == "__main__":
    main()
