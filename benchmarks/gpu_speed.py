"""Tokens per second of QLoRA on one GPU: plain TRL, and ours with one optimisation after the other.

python benchmarks/gpu_speed.py --minutes 9                           a random Llama-2-7B shape in NF4
python benchmarks/gpu_speed.py --shape tiny --minutes 5              every arm on a CPU, to see that it runs
python benchmarks/gpu_speed.py --arms ours --profile                 where the time of a step goes

Two jobs, r 16 on all linear layers, dropout 0.1. packed: 4 rows of 2,048 tokens a step, several in each (bfd).
tutorial: 4 rows of 32 to 1,024 tokens a step, about 1,500 in all. Every arm is a process of its own that does one job
after the other; the arms take turns until the minutes are over. Real tokens are counted, no padding.
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
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "llama2_7b": (4096, 11008, 32, 32, 32, 32000),
    "llama3_8b": (4096, 14336, 32, 32, 8, 128256),
    "llama3_1b": (2048, 8192, 16, 32, 8, 128256),
    "smollm2_135m": (576, 1536, 30, 9, 3, 49152),
    "tiny": (64, 128, 2, 4, 2, 512),
}
FIELDS = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size")
JOBS: dict[str, list[str]] = {"packed": ["data.packing=true", "data.max_length=2048"], "tutorial": []}
"""Our overrides of each."""
OURS = {
    "ours": [],
    "ours, checkpointed": ["train.gradient_checkpointing=true"],
    "ours, plain": ["model.attention=sdpa", "train.padding_free=false", "train.compile=false", "train.lean=false"],
    "+ attention": ["train.compile=false", "train.lean=false"],
    "+ compile": ["train.lean=false"],
}
"""Each with what it leaves out of all of ours."""
PLAIN = {
    "TRL, best flags": {"activation_checkpointing": False, "optim": "adamw_torch_fused"},
    "TRL, tutorial flags": {"activation_checkpointing": True, "optim": "paged_adamw_32bit"},
}
ARMS = (
    "TRL, best flags",
    "ours",
    "+ attention",
    "+ compile",
    "TRL, tutorial flags",
    "ours, plain",
    "ours, checkpointed",
)
"""In the order of importance."""


class Watch:
    """Takes the time of every step; profiles three of them if asked to."""

    def __init__(self, warm: int, steps: int, profiled: bool) -> None:
        self.warm, self.steps, self.profiled = warm, steps, profiled
        self.stamps = [time.perf_counter()]
        self.profiler: Any = None

    def __call__(self, step: int) -> None:
        """Note that a step is done."""
        import torch

        gpu = torch.cuda.is_available()
        if step == self.warm and gpu:
            torch.cuda.synchronize()
        self.stamps.append(time.perf_counter())
        if self.profiled and step == self.steps - 3:
            kinds = torch.profiler.ProfilerActivity
            self.profiler = torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if gpu else [])])
            self.profiler.start()
        if self.profiler and step == self.steps:
            if gpu:
                torch.cuda.synchronize()
            self.profiler.stop()

    def measured(self, tokens: list[int], norms: list[float]) -> dict[str, Any]:
        """Return what an arm prints; tokens so far after every step."""
        import torch

        last = self.steps - 3 if self.profiled else self.steps
        each = [after - before for before, after in itertools.pairwise(self.stamps)]
        assert min(norms) > 0
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        seconds = self.stamps[last] - self.stamps[self.warm]
        return {
            "ms": round(statistics.median(each[self.warm : last]) * 1e3, 1),
            "tokens_per_s": round((tokens[last - 1] - tokens[self.warm - 1]) / seconds),
            "tokens_per_step": round((tokens[last - 1] - tokens[self.warm - 1]) / (last - self.warm)),
            "peak_gib": round(peak, 1),
            "first_steps_s": [round(item, 1) for item in sorted(each[: self.warm], reverse=True)[:4]],
            "grad_norm": [round(min(norms), 4), round(max(norms), 4)],
        }


def overrides_of(shape: str, job: str, rows: Path, steps: int) -> list[str]:
    options = JOBS[job]
    shapes = [f"model.shape.{name}={value}" for name, value in zip(FIELDS, SHAPES[shape], strict=True)]
    if shape == "tiny":
        options = [option.replace("2048", "256") for option in options]
    return [
        "model=tiny", *shapes, "data=jsonl", f"data.files={rows}", "data.eval_fraction=0", "evaluation.times=0",
        "evaluation.untuned=false", "tracking.wandb=disabled", "verbosity=quiet", "lora.dropout=0.1", "lora.r=16",
        "optim=adamw_torch_fused", "optim.lr=2e-4", "train.gradient_checkpointing=false", "train.batch_size=4",
        "train.max_grad_norm=0.3", f"train.max_steps={steps}", "scheduler=constant", "train.compile=true", *options,
    ]  # fmt: skip


def write_rows(path: Path, job: str, shape: str) -> None:
    """Write tokenised rows of log-normal length, as long as those of guanaco: 300 in the middle, 378 on average."""
    import torch

    chance, longest = torch.Generator().manual_seed(0), 128 if shape == "tiny" else 1024
    scale = 5.7 if longest == 1024 else 3.7
    lengths = torch.exp(scale + 0.75 * torch.randn(2000 if job == "packed" else 1000, generator=chance))
    with open(path, "w") as file:
        for length in lengths.clamp(32 if longest == 1024 else 8, longest).int().tolist():
            ids = torch.randint(5, SHAPES[shape][-1] - 1, (length,), generator=chance).tolist()
            file.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")


def run_ours(name: str, shape: str, jobs: list[str], folder: Path, watches: Callable[[], Watch]) -> Iterator[Any]:
    """Train through our own entry, with everything a run does per step; the base stays from job to job."""
    from lorasweep import compose, metrics
    from lorasweep.record import Launch
    from lorasweep.resident import Resident
    from lorasweep.run import train

    class Host(Resident):
        def progress(self, step: int, total: int) -> None:
            watch(step)

    host = Host()
    compose.register()
    for job in jobs:
        watch = watches()
        write_rows(rows := folder / f"{job}.jsonl", job, shape)
        given = [*overrides_of(shape, job, rows, watch.steps), *OURS[name]]
        result = train(
            compose.checked_run(ROOT / "conf", compose.CommandLine.of(given)), Launch(folder / job, []), host
        )
        entries = [entry for entry in metrics.read(folder / job) if "train/loss" in entry]
        found = [[entry[key] for entry in entries] for key in ("tokens/total", "train/grad_norm", "train/loss")]
        engine = {key: value for key, value in result.summary.items() if key.startswith("engine/")}
        yield job, watch, {**watch.measured(*found[:2]), "loss": round(found[2][-1], 3), **engine}


def run_plain(name: str, shape: str, jobs: list[str], folder: Path, watches: Callable[[], Watch]) -> Iterator[Any]:
    """Train with SFTTrainer as TRL documents it, on the same base, rows, adapter and schedule."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from lorasweep import compose
    from lorasweep.model import location
    from lorasweep.quant import keep_gradients_on_cpu
    from lorasweep.resident import copy_modules

    compose.register()
    gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if gpu else torch.float32
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    base: Any = None
    for job in jobs:
        watch = watches()
        write_rows(rows := folder / f"{job}.jsonl", job, shape)
        run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides_of(shape, job, rows, watch.steps)))
        place = location(run.model)
        if base is None:
            base = AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype, device_map={"": 0 if gpu else "cpu"}, quantization_config=nf4
            )
            keep_gradients_on_cpu(base)

        class Clock(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, watch: Watch = watch, **_: Any) -> None:
                watch(state.global_step)

        trainer = SFTTrainer(
            model=copy_modules(base),
            args=SFTConfig(
                output_dir=str(folder / f"plain-{job}"),
                per_device_train_batch_size=4,
                max_steps=watch.steps,
                learning_rate=run.optim.lr,
                max_grad_norm=0.3,
                lr_scheduler_type="constant",
                bf16=gpu,
                use_cpu=not gpu,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                packing=run.data.packing,
                max_length=run.data.max_length or 1024,
                **({} if run.data.packing else {"train_sampling_strategy": "group_by_length"}),
                **PLAIN[name],
            ),
            train_dataset=load_dataset("json", data_files=str(rows), split="train", cache_dir=str(folder / "cache")),
            processing_class=AutoTokenizer.from_pretrained(place),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
        log = [entry for entry in trainer.state.log_history if "loss" in entry]
        tokens, norms = ([entry[key] for entry in log] for key in ("num_tokens", "grad_norm"))
        yield job, watch, {**watch.measured(tokens, norms), "loss": round(log[-1]["loss"], 3)}
        del trainer
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()


CLASSES = {
    "attention": ("flash", "fmha", "attention"),
    "dequantise": ("dequant",),
    "loss": ("_forward_kernel", "_backward_kernel"),
    "matrix products": ("gemm", "nvjet", "cutlass", "xmma", "cublas", "splitk"),
    "compiled": ("triton_",),
    "optimizer, norms": ("adam", "multi_tensor"),
    "copies": ("memcpy", "memset", "copy"),
    "elementwise": ("elementwise", "vectorized", "reduce", "index", "cat", "scatter", "gather"),
}
"""Kernels by what their names contain; the first that fits."""


def show_profile(watch: Watch, measured: dict[str, Any]) -> None:
    """Print the time on the device by class of kernel, the time it stood idle, and what the host was at."""
    events = [event for event in watch.profiler.events() if "CUDA" in str(event.device_type)]
    time_of: dict[str, float] = defaultdict(float)
    kernels: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = event.name.lower()
        kind = next((kind for kind, words in CLASSES.items() if any(word in name for word in words)), "other")
        time_of[kind] += event.device_time_total / 3e3
        kernels[event.name[:100]].append(event.device_time_total / 3e3)
    busy = sum(time_of.values())
    print(f"  {busy:.1f} of {measured['ms']} ms a step on the device, {len(events) // 3} kernels and copies")
    for kind, spent in sorted(time_of.items(), key=lambda item: -item[1]):
        print(f"    {kind:16} {spent:8.2f} ms {spent / max(busy, 1e-9):6.1%}")
    for name, each in sorted(kernels.items(), key=lambda item: -sum(item[1]))[:25]:
        print(f"      {sum(each):8.2f} ms {len(each) / 3:7.0f} x {name}")
    print("  host, itself and within:")
    print(watch.profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60))


def arm(options: argparse.Namespace) -> None:
    """Do the jobs of one arm in this process; a line of JSON for each."""
    steps = options.steps + options.warm + (3 if options.profile else 0)
    with tempfile.TemporaryDirectory() as folder:
        function = run_ours if options.arm in OURS else run_plain
        watches = lambda: Watch(options.warm, steps, options.profile)  # noqa: E731
        for job, watch, found in function(options.arm, options.shape, options.jobs, Path(folder), watches):
            print(json.dumps({"arm": options.arm, "job": job, **found}), flush=True)
            if options.profile:
                show_profile(watch, found)
                sys.stdout.flush()


def start_arm(name: str, options: argparse.Namespace, seconds: float, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run one arm in a process of its own for at most so long, and take in each of its lines as it comes."""
    command = [sys.executable, "-u", __file__, "--arm", name, "--shape", options.shape, "--jobs", *options.jobs]
    command += ["--steps", str(options.steps), "--warm", str(options.warm), *(["--profile"] if options.profile else [])]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            ["timeout", str(round(seconds)), *command], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout
        for line in process.stdout:
            if line.startswith('{"arm"'):
                keep(json.loads(line))
            else:
                print(line, end="", flush=True)
        if process.wait():
            errors.seek(0)
            print(f"{name}: exit {process.returncode}\n{errors.read()[-1500:]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama2_7b")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        arm(options)
        return
    end, found = time.monotonic() + 60 * options.minutes, list[dict[str, Any]]()
    out = Path(os.environ["OUT"]) / "gpu_speed.json" if "OUT" in os.environ else None

    def keep(result: dict[str, Any]) -> None:
        found.append(result)
        print(json.dumps(result), flush=True)
        if out:
            out.write_text(json.dumps(found, indent=1))

    for name in options.arms * options.rounds:
        if (left := end - time.monotonic()) > 20:
            start_arm(name, options, left, keep)
    report(options, found)


def report(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Print the table: medians over the rounds, and ratios to plain TRL's best."""
    print(f"\n{options.shape}, {time.strftime('%Y-%m-%d')}")
    for job in options.jobs:
        print(
            f"{job:22} {'tokens/s':>9} {'ratio':>6} {'ms/step':>8} {'peak GiB':>9} {'tokens/step':>12}  first steps, s"
        )
        results = [result for result in found if result["job"] == job]
        best = [result["tokens_per_s"] for result in results if result["arm"] == "TRL, best flags"]
        for name in dict.fromkeys(result["arm"] for result in results):
            mine = [result for result in results if result["arm"] == name]
            middle = {
                key: statistics.median(result[key] for result in mine)
                for key in ("tokens_per_s", "ms", "peak_gib", "tokens_per_step")
            }
            ratio = f"{middle['tokens_per_s'] / statistics.median(best):6.2f}" if best else " " * 6
            print(
                f"{name:22} {middle['tokens_per_s']:9,.0f} {ratio} {middle['ms']:8.1f} {middle['peak_gib']:9.1f}"
                f" {middle['tokens_per_step']:12,.0f}  {mine[-1]['first_steps_s']}"
            )


if __name__ == "__main__":
    main()
