"""Tokens per second of QLoRA on one GPU: plain TRL, ours, and ours without each of its optimisations.

python benchmarks/gpu_speed.py --minutes 9                           a random Llama-2-7B shape in NF4
python benchmarks/gpu_speed.py --arms ours --profile ours            where the time of a step goes
python benchmarks/gpu_speed.py --shape tiny --steps 5 --warm 5       every arm on a CPU, to see that it runs

Two jobs, r 16 on all linear layers, dropout 0.1, the same rows, adapters and learning rate for all. packed: 4 rows of
2,048 tokens a step, several in each (bfd). tutorial: 4 rows of 32 to 1,024 tokens a step, of similar length, about
1,500 in all; transformers goes from long to short rows within 50 steps, so that 50 are measured. Every arm is a process
of its own that does one job after the other. One that fails or runs out of memory says so, and the rest go on. Real
tokens are counted, no padding. With $OUT, results are kept there after every job.
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
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import kernel_classes

SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "llama2_7b": (4096, 11008, 32, 32, 32, 32000),
    "llama3_8b": (4096, 14336, 32, 32, 8, 128256),
    "llama3_1b": (2048, 8192, 16, 32, 8, 128256),
    "smollm2_135m": (576, 1536, 30, 9, 3, 49152),
    "tiny": (64, 128, 2, 4, 2, 512),
}
FIELDS = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size")
MEASURED = {"packed": 15, "tutorial": 50}
"""Steps that are measured of each, the same for all arms."""
RANK, SEED, CONTEXT = 16, 42, 4096
JOBS = {
    "packed": ["data.packing=true", "data.max_length=2048"],
    "tutorial": ["train.group_by_length=true"],
}
"""Our overrides of each."""
OFF = {
    "varlen": ["model.attention=sdpa", "train.padding_free=false", "train.compile=false"],
    "compile": ["train.compile=false"],
    "lean": ["train.lean=false"],
}
"""How each optimisation is switched off; without varlen, train.compile=auto compiles nothing either."""
OURS = {
    "ours": [],
    **{f"ours without {name}": off for name, off in OFF.items()},
    "ours, all off": [*OFF["varlen"], *OFF["lean"]],
    "ours, checkpointed": ["train.gradient_checkpointing=true"],
}
BEST: dict[str, Any] = {"activation_checkpointing": False, "optim": "adamw_torch_fused"}
PLAIN: dict[str, dict[str, Any]] = {
    "TRL, best flags": BEST,
    "TRL, tutorial flags": {"activation_checkpointing": True, "optim": "paged_adamw_32bit"},
    "TRL, best flags, compiled": {**BEST, "torch_compile": True},
    "TRL, best flags, row by row": {**BEST, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
}
ARMS = [
    "TRL, best flags", "ours", "ours without lean", "ours without compile", "TRL, tutorial flags", "ours, checkpointed",
    "TRL, best flags, row by row", "ours without varlen", "ours, all off", "TRL, best flags, compiled",
]  # fmt: skip
"""In the order of importance."""
ONE_JOB = {"TRL, best flags, row by row": "packed"}
"""Arms that make no difference in the other job."""
assert {*ARMS} == {*OURS, *PLAIN}
ENGINE = ("attention", "padding_free", "compiled")
"""What a record says of how our arms compute."""
LOGGED = 5
"""Every so many steps a line is logged, by all arms."""


class Enough(Exception):
    """The steps of a job are measured."""


class Watch:
    """Takes the time of every step, profiles two after them if asked to, and ends a job when it has seen enough."""

    PROFILED = 2

    def __init__(self, options: argparse.Namespace, job: str) -> None:
        self.warm: int = options.warm
        self.most: int = options.steps or MEASURED[job]
        self.profiled = options.arm in options.profile
        self.stamps = [time.perf_counter()]
        self.last = 0
        self.profiler: Any = None
        assert self.warm % LOGGED == self.most % LOGGED == 0

    @property
    def planned(self) -> int:
        """Steps that a trainer is given: more than are taken."""
        return self.warm + self.most + LOGGED + self.PROFILED

    def __call__(self, step: int) -> None:
        """Note that a step is done; the step after the last logged one is not measured."""
        if self.last:
            self._after(step)
            return
        if step == self.warm:
            synchronize()
        self.stamps.append(time.perf_counter())
        if step == self.warm + self.most:
            synchronize()
            self.stamps[-1] = time.perf_counter()
            self.last = step

    def _after(self, step: int) -> None:
        import torch

        if not self.profiled:
            raise Enough
        if self.profiler is None:
            kinds = torch.profiler.ProfilerActivity
            activities = [kinds.CPU, *([kinds.CUDA] if torch.cuda.is_available() else [])]
            synchronize()
            self.profiler = torch.profiler.profile(activities=activities, record_shapes=True)
            self.profiler.start()
        elif step == self.last + 1 + self.PROFILED:
            synchronize()
            self.profiler.stop()
            raise Enough

    def measured(self, entries: list[tuple[int, int, float, float]]) -> dict[str, Any]:
        """Return what an arm prints; step, tokens so far, gradient norm and loss of every line that was logged."""
        import torch

        assert self.last, "not one step was measured"
        tokens = {step: count for step, count, _, _ in entries}
        norms = [norm for _, _, norm, _ in entries]
        assert min(norms) > 0
        each = [after - before for before, after in itertools.pairwise(self.stamps)]
        seconds, count = self.stamps[self.last] - self.stamps[self.warm], tokens[self.last] - tokens[self.warm]
        gpu = torch.cuda.is_available()
        peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if gpu else (0, 0)
        return {
            "tokens_per_s": round(count / seconds),
            "ms": round(statistics.median(each[self.warm : self.last]) * 1e3, 1),
            "tokens_per_step": round(count / (self.last - self.warm)),
            "steps": self.last - self.warm,
            "peak_gib": round(peaks[0] / 2**30, 1),
            "reserved_gib": round(peaks[1] / 2**30, 1),
            "first_steps_s": [round(item, 1) for item in sorted(each[: self.warm], reverse=True)[:4]],
            "grad_norm": [round(min(norms), 4), round(max(norms), 4)],
            "loss": round(entries[-1][3], 3),
        }


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def overrides_of(shape: str, job: str, rows: Path, steps: int) -> list[str]:
    """Return what all of our arms are given, and the other side reads its settings from."""
    options = JOBS[job]
    shapes = [f"model.shape.{name}={value}" for name, value in zip(FIELDS, SHAPES[shape], strict=True)]
    if shape == "tiny":
        options = [option.replace("2048", "256") for option in options]
    return [
        "model=tiny", *shapes, f"model.shape.context={CONTEXT}", "data=jsonl", f"data.files={rows}",
        "data.eval_fraction=0", "evaluation.times=0", "evaluation.untuned=false", "tracking.wandb=disabled",
        "verbosity=quiet", f"lora.r={RANK}", "lora.alpha=32", "lora.dropout=0.1", "optim=adamw_torch_fused",
        "optim.lr=2e-4", "scheduler=constant", "train.batch_size=4", "train.max_grad_norm=0.3",
        f"train.max_steps={steps}", f"train.seed={SEED}", f"train.log_every={LOGGED}",
        "train.gradient_checkpointing=false", "train.compile=true", *options,
    ]  # fmt: skip


def write_rows(path: Path, job: str, shape: str) -> None:
    """Write tokenised rows of log-normal length, as long as those of guanaco: 300 in the middle, 378 on average."""
    import torch

    chance, longest = torch.Generator().manual_seed(0), 128 if shape == "tiny" else 1024
    scale = 5.7 if longest == 1024 else 3.7
    lengths = torch.exp(scale + 0.75 * torch.randn(2000 if job == "packed" else 1000, generator=chance))
    with open(path, "w") as file:
        for length in lengths.clamp(32 if longest == 1024 else 8, longest).int().tolist():
            ids = torch.randint(5, 400, (length,), generator=chance).tolist()
            file.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")


class Ours:
    """Trains through our own entry, with everything a run does per step; the base stays from job to job."""

    def __init__(self, name: str, shape: str, folder: Path) -> None:
        from lorasweep import compose
        from lorasweep.resident import Resident

        class Host(Resident):
            watch: Watch

            def progress(self, step: int, total: int) -> None:
                self.watch(step)

        self.given, self.shape, self.folder, self.host = OURS[name], shape, folder, Host()
        compose.register()

    def __call__(self, job: str, watch: Watch) -> dict[str, Any]:
        """Do a job."""
        from lorasweep import compose, metrics
        from lorasweep.record import Launch
        from lorasweep.run import train

        write_rows(rows := self.folder / f"{job}.jsonl", job, self.shape)
        given = [*overrides_of(self.shape, job, rows, watch.planned), *self.given]
        run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(given))
        self.host.watch = watch
        launch = Launch(self.folder / job, [])
        try:
            result = train(run, launch, self.host)
            raise AssertionError(f"ended as {result.state}: {result.error}")
        except Enough:
            pass
        names = ("step", "tokens/total", "train/grad_norm", "train/loss")
        entries = [tuple(item[name] for name in names) for item in metrics.read(launch.folder) if names[-1] in item]
        numerics = json.loads((launch.folder / "record.json").read_text())["numerics"]
        return {**watch.measured(entries), **{name: numerics[name] for name in ENGINE}}


class Plain:
    """Trains with SFTTrainer as TRL documents it, on the same base, rows, adapter and schedule."""

    def __init__(self, name: str, shape: str, folder: Path) -> None:
        from lorasweep import compose

        self.given, self.shape, self.folder = PLAIN[name], shape, folder
        self.base: Any = None
        compose.register()

    def __call__(self, job: str, watch: Watch) -> dict[str, Any]:
        """Do a job."""
        import torch
        from datasets import load_dataset
        from peft import LoraConfig
        from transformers import AutoTokenizer, TrainerCallback
        from trl import SFTConfig, SFTTrainer

        from lorasweep import compose
        from lorasweep.input_files import location
        from lorasweep.resident import copy_modules

        write_rows(rows := self.folder / f"{job}.jsonl", job, self.shape)
        given = overrides_of(self.shape, job, rows, watch.planned)
        run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(given))
        place, gpu = location(run.model), torch.cuda.is_available()
        self.base = self.base or self.load(place, gpu)

        class Clock(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                watch(state.global_step)

        settings = {
            "output_dir": str(self.folder / f"plain-{job}"),
            "per_device_train_batch_size": 4,
            "max_steps": watch.planned,
            "learning_rate": run.optim.lr,
            "max_grad_norm": 0.3,
            "lr_scheduler_type": "constant",
            "bf16": gpu,
            "use_cpu": not gpu,
            "seed": SEED,
            "logging_steps": LOGGED,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "packing": run.data.packing,
            "max_length": run.data.max_length or 1024,
            **({} if run.data.packing else {"train_sampling_strategy": "group_by_length"}),
            **self.given,
        }
        trainer = SFTTrainer(
            model=copy_modules(self.base),
            args=SFTConfig(**settings),
            train_dataset=load_dataset(
                "json", data_files=str(rows), split="train", cache_dir=str(self.folder / "kept")
            ),
            processing_class=AutoTokenizer.from_pretrained(place),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=32, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        try:
            trainer.train()
            raise AssertionError("ended before enough was measured")
        except Enough:
            pass
        names = ("step", "num_tokens", "grad_norm", "loss")
        log = [tuple(item[name] for name in names) for item in trainer.state.log_history if "loss" in item]
        return watch.measured(log)

    @staticmethod
    def load(place: str, gpu: bool) -> Any:
        """Return the base in NF4."""
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        from lorasweep.quant import keep_gradients_on_cpu

        dtype = torch.bfloat16 if gpu else torch.float32
        nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        base = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype, device_map={"": 0 if gpu else "cpu"}, quantization_config=nf4
        )
        if not gpu:
            keep_gradients_on_cpu(base)
        return base


def jobs_of(name: str, jobs: list[str]) -> list[str]:
    """Return those of the jobs that an arm does."""
    return [job for job in jobs if ONE_JOB.get(name, job) == job]


def arm(options: argparse.Namespace) -> None:
    """Do the jobs of one arm in this process; a line of JSON for each, also where one fails."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        do: Callable[[str, Watch], dict[str, Any]]
        do = (Ours if options.arm in OURS else Plain)(options.arm, options.shape, Path(folder))
        for job in jobs_of(options.arm, options.jobs):
            watch = Watch(options, job)
            result = {"arm": options.arm, "job": job}
            try:
                result |= do(job, watch)
                if watch.profiler:
                    found = kernel_classes.summary(watch.profiler, Watch.PROFILED, RANK, SHAPES[options.shape][-1])
                    host = watch.profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25)
                    result |= {"profile": found, "host": host}
            except Exception as error:
                traceback.print_exc()
                result |= {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
            print(json.dumps(result), flush=True)
            del watch
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def start_arm(name: str, options: argparse.Namespace, seconds: float, keep: Callable[[dict[str, Any]], None]) -> None:
    """Run one arm in a process of its own for at most so long, and take in each of its lines as it comes."""
    command = [sys.executable, "-u", __file__, "--arm", name, "--shape", options.shape, "--jobs", *options.jobs]
    command += ["--steps", str(options.steps), "--warm", str(options.warm)]
    command += ["--profile", *options.profile] if options.profile else []
    start, done = time.monotonic(), set()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            ["timeout", "--kill-after=5", str(round(seconds)), *command],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdout
        for line in process.stdout:
            if line.startswith('{"arm"'):
                result = json.loads(line)
                done.add(result["job"])
                keep(result)
        if process.wait():
            errors.seek(0)
            reason = f"took over {seconds:.0f} s" if process.returncode in (124, 137) else f"exit {process.returncode}"
            print(f"{name}: {reason}\n{errors.read()[-1500:]}", file=sys.stderr, flush=True)
            for job in [job for job in jobs_of(name, options.jobs) if job not in done]:
                keep({"arm": name, "job": job, "error": reason})
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def prepare(shape: str) -> None:
    """Write the weights, once, before anything is timed."""
    names = dict(zip(FIELDS, SHAPES[shape], strict=True), context=CONTEXT)
    code = "import sys, json; from lorasweep import random_model, schema;"
    code += "print(random_model.folder(schema.Shape(**json.loads(sys.argv[1]))))"
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", code, json.dumps(names)], check=True)
    print(f"weights of {shape}: {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama2_7b")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--minutes", type=float, default=9.0, help="no arm starts or goes on after that")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds that one arm may take")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0, help="measured; 0: as many as a job needs")
    parser.add_argument("--warm", type=int, default=10, help="steps before that")
    parser.add_argument("--profile", nargs="+", choices=ARMS, default=[])
    parser.add_argument("--name", default="gpu_speed", help="of the file in $OUT")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        arm(options)
        return
    end, found = time.monotonic() + 60 * options.minutes, list[dict[str, Any]]()
    out = Path(os.environ["OUT"]) / f"{options.name}.json" if "OUT" in os.environ else None
    prepare(options.shape)

    def keep(result: dict[str, Any]) -> None:
        found.append(result)
        print(json.dumps({key: value for key, value in result.items() if key not in ("profile", "host")}), flush=True)
        if "profile" in result:
            print(kernel_classes.show(f"{result['arm']}, {result['job']}", result["profile"]), flush=True)
        if out:
            out.write_text(json.dumps(found, indent=1))

    for name in options.arms * options.rounds:
        if (left := end - time.monotonic()) > 30:
            start_arm(name, options, min(left, options.limit), keep)
        else:
            print(f"{name}: left out, no time", flush=True)
    report(options, found)


def report(options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    """Print the table: medians over the rounds, and ratios to plain TRL's best."""
    print(f"\n{options.shape}, {time.strftime('%Y-%m-%d')}")
    for job in options.jobs:
        heading = f"{job:28} {'tokens/s':>9} {'ratio':>6} {'ms/step':>8} {'peak GiB':>9} {'tokens/step':>12}"
        print(f"{heading}  first steps, s")
        results = [result for result in found if result["job"] == job]
        plain = [item["tokens_per_s"] for item in results if item["arm"] in PLAIN and "error" not in item]
        for name in dict.fromkeys(result["arm"] for result in results):
            mine = [result for result in results if result["arm"] == name and "error" not in result]
            if not mine:
                print(f"{name:28} {next(result['error'] for result in results if result['arm'] == name)}")
                continue
            keys = ("tokens_per_s", "ms", "peak_gib", "tokens_per_step")
            middle = {key: statistics.median(result[key] for result in mine) for key in keys}
            ratio = f"{middle['tokens_per_s'] / max(plain):6.2f}" if plain else " " * 6
            print(
                f"{name:28} {middle['tokens_per_s']:9,.0f} {ratio} {middle['ms']:8.1f} {middle['peak_gib']:9.1f}"
                f" {middle['tokens_per_step']:12,.0f}  {mine[-1]['first_steps_s']}"
            )


if __name__ == "__main__":
    main()
