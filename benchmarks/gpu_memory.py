"""Predicted and measured peak memory of QLoRA on one GPU, setting by setting.

python benchmarks/gpu_memory.py --out results                     every setting: some ten minutes on an H100
python benchmarks/gpu_memory.py --out results --shape tiny        every setting on a CPU, to see that it runs
python benchmarks/gpu_memory.py --predict                         predict again what was measured before

A setting is a run of ours over a few steps of the same size. Settings of one base are trained in one process; the peak
is reset between them. Random weights: what a tensor holds does not change what it takes.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GIB = 2**30
SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary, context
    "7b": (4096, 11008, 32, 32, 32, 32000, 4096),
    "1b": (2048, 8192, 16, 32, 8, 128256, 8192),
    "135m": (576, 1536, 30, 9, 3, 49152, 8192),
    "tiny": (64, 128, 4, 4, 2, 512, 8192),
}
FIELDS = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size", "context")


@dataclass(frozen=True)
class Setting:
    """What is trained: a base, the rows of a forward pass and their tokens, and what differs from the default run."""

    name: str
    base: str
    """Settings of one base follow each other in one process."""
    rows: int
    tokens: int
    """Of a row: all of that length if packed, else three in four."""
    options: str
    limit_gib: float | None = None
    """Torch may take no more than this."""
    dissected: bool = False
    """Afterwards two steps more, to list what is allocated at the peak."""


KEPT, AGAIN = "train.gradient_checkpointing=false", "train.gradient_checkpointing=true"
PACKED, PADDED = "data.packing=true", "model.attention=sdpa train.padding_free=false"
COMPILED, PLAIN = "train.compile=true", "train.compile=false"
SETTINGS = (
    Setting("1b kept", "1b nf4", 4, 1024, f"{KEPT} {PACKED} {PLAIN}"),
    Setting("1b padded, 8 bit", "1b nf4", 16, 512, f"{KEPT} {PADDED} {PLAIN} optim=paged_adamw_8bit lora.r=64"),
    Setting("1b sdpa end to end", "1b nf4", 4, 1024, f"{KEPT} {PACKED} {PLAIN} model.attention=sdpa"),
    Setting("1b compiled", "1b nf4", 8, 1024, f"{KEPT} {PACKED} {COMPILED}"),
    Setting("135m bfloat16", "135m none", 16, 512, f"quant=none {KEPT} {PADDED} {PLAIN}"),
    Setting("135m checkpointed", "135m none", 16, 1024, f"quant=none {AGAIN} {PACKED} {PLAIN} lora.dropout=0.1"),
    Setting("tutorial in float16", "7b nf4 float16", 4, 1024, f"{AGAIN} {PADDED} {PLAIN} model.dtype=float16"
            " lora=attention lora.r=64 lora.dropout=0.1 optim=paged_adamw_32bit", limit_gib=15.0),
    Setting("7b packed, checkpointed", "7b nf4", 4, 2048, f"{AGAIN} {PACKED} {PLAIN}"),
    Setting("7b packed, kept", "7b nf4", 2, 2048, f"{KEPT} {PACKED} {PLAIN}", dissected=True),
    Setting("7b packed, kept, dropout", "7b nf4", 1, 2048, f"{KEPT} {PACKED} {PLAIN} lora.dropout=0.1"),
    Setting("7b padded, kept", "7b nf4", 4, 512, f"{KEPT} {PADDED} {PLAIN} lora.dropout=0.1", dissected=True),
    Setting("7b padded, q and v", "7b nf4", 4, 1024, f"{KEPT} {PADDED} {PLAIN} lora=attention lora.r=64"
            " optim=paged_adamw_32bit"),
    Setting("7b padded, q and v, checkpointed", "7b nf4", 4, 1024, f"{AGAIN} {PADDED} {PLAIN} lora=attention lora.r=64"
            " optim=paged_adamw_32bit lora.dropout=0.1"),
    Setting("7b every 2nd, 8 bit", "7b nf4", 4, 1024, f"train.gradient_checkpointing=2 {PACKED} {PLAIN} lora.r=64"
            " optim=adamw_8bit"),
    Setting("7b compiled, kept", "7b nf4", 2, 2048, f"{KEPT} {PACKED} {COMPILED}", dissected=True),
    Setting("7b compiled, kept, dropout", "7b nf4", 2, 2048, f"{KEPT} {PACKED} {COMPILED} lora.dropout=0.1",
            dissected=True),
    Setting("7b compiled, checkpointed", "7b nf4", 4, 2048, f"{AGAIN} {PACKED} {COMPILED}"),
    Setting("7b compiled, every 2nd", "7b nf4", 4, 1024, f"train.gradient_checkpointing=2 {PACKED} {COMPILED}"
            " lora.r=64 lora.dropout=0.1"),
    Setting("7b long row, r 256", "7b nf4", 1, 4096, f"{AGAIN} {PACKED} {PLAIN} lora.r=256 optim=adamw_torch_fused"),
    Setting("7b every 4th, lion", "7b nf4", 2, 1024, f"train.gradient_checkpointing=4 {PACKED} {PLAIN}"
            " optim=lion_8bit"),
    Setting("7b int8", "7b int8", 4, 1024, f"quant=int8 {AGAIN} {PADDED} {PLAIN}"),
    Setting("7b int8, kept", "7b int8", 1, 1024, f"quant=int8 {KEPT} {PACKED} {PLAIN}", dissected=True),
    Setting("7b double, adafactor", "7b double", 2, 1024, f"quant=nf4_double {AGAIN} {PACKED} {PLAIN} optim=adafactor"),
    Setting("7b bfloat16", "7b none", 4, 1024, f"quant=none {AGAIN} {PACKED} {PLAIN}"),
)  # fmt: skip


def overrides_of(setting: Setting, shape: str | None, rows: Path, steps: int) -> list[str]:
    """Return the overrides of a setting; `shape` in place of its own."""
    values = SHAPES[shape or setting.base.split()[0]]
    options = setting.options.split()
    if "data.packing=true" in options:
        options.append(f"data.max_length={setting.tokens}")
    return [
        "model=tiny", *(f"model.shape.{name}={value}" for name, value in zip(FIELDS, values, strict=True)),
        "data=jsonl", f"data.files={rows}", "data.eval_fraction=0", "evaluation.times=0", "evaluation.untuned=false",
        "tracking.wandb=disabled", "verbosity=quiet", "scheduler=constant", "lora.dropout=0.0",
        f"train.batch_size={setting.rows}", f"train.max_steps={steps}", *options,
    ]  # fmt: skip


def write_rows(path: Path, setting: Setting, steps: int) -> None:
    """Write tokenised rows: packed full to the last token, otherwise every fourth is half as long."""
    packed = "data.packing=true" in setting.options
    with open(path, "w") as file:
        for number in range(setting.rows * (steps + 2) * (2 if packed else 1)):
            # two halves make a packed row, so that there is a border between rows in it
            length = setting.tokens // 2 if packed or number % 4 == 3 else setting.tokens
            ids = [5 + (7 * number + 3 * place) % 400 for place in range(length)]
            file.write(json.dumps({"input_ids": ids, "labels": ids}) + "\n")


class Meter:
    """Reads the allocator at the borders of forward, backward and optimizer of every step."""

    def __init__(self) -> None:
        self.readings: list[tuple[str, float, float, float]] = []

    def read(self, phase: str) -> None:
        """Note what is allocated after a phase, and the peaks of allocated and reserved so far, in GiB."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            now = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        else:
            now = 0, 0, 0
        held, allocated, reserved = (round(item / GIB, 4) for item in now)
        self.readings.append((phase, held, allocated, reserved))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read after every phase of the steps within."""
        from accelerate import Accelerator

        from lorasweep.lean_trainer import LeanTrainer

        plain = (LeanTrainer.compute_loss, Accelerator.backward, LeanTrainer._get_grad_norm)

        def reading(phase: str, function: Any) -> Any:
            def wrapped(*arguments: Any, **options: Any) -> Any:
                result = function(*arguments, **options)
                self.read(phase)
                return result

            return wrapped

        LeanTrainer.compute_loss = reading("forward", plain[0])  # type: ignore[method-assign]
        Accelerator.backward = reading("backward", plain[1])
        LeanTrainer._get_grad_norm = reading("norm", plain[2])  # type: ignore[method-assign]
        try:
            yield
        finally:
            LeanTrainer.compute_loss, Accelerator.backward, LeanTrainer._get_grad_norm = plain  # type: ignore[method-assign]


def at_the_peak(most: int = 60) -> list[dict[str, Any]]:
    """Return what torch held at the peak of the recorded history, by size and place in the code, largest first."""
    import torch

    (events,) = [trace for trace in torch.cuda.memory._snapshot()["device_traces"] if trace]
    live: dict[int, int] = {}
    total = highest = top = 0
    for number, event in enumerate(events):
        if event["action"] == "alloc":
            live[event["addr"]] = event["size"]
            total += event["size"]
        elif event["action"] == "free_completed":
            total -= live.pop(event["addr"], 0)
        if total > highest:
            highest, top = total, number
    held: dict[int, tuple[int, str]] = {}
    for event in events[: top + 1]:
        if event["action"] == "alloc":
            held[event["addr"]] = event["size"], _place(event.get("frames", []))
        elif event["action"] == "free_completed":
            held.pop(event["addr"], None)
    counts = Counter(held.values())
    ordered = sorted(counts.items(), key=lambda item: -item[0][0] * item[1])
    groups = [{"bytes": size, "count": count, "place": place} for (size, place), count in ordered[:most]]
    return [{"recorded_gib": round(highest / GIB, 3), "events": len(events)}, *groups]


def _place(frames: list[dict[str, Any]]) -> str:
    """Return the innermost lines of Python that are no plumbing."""
    dull = ("nn/modules/module.py", "_functional.py", "autograd/function.py", "utils/_contextlib.py", "??")
    lines = [
        f"{frame['filename'].rsplit('/', 1)[-1]}:{frame['line']}"
        for frame in frames
        if frame["filename"].endswith(".py") and not frame["filename"].endswith(dull)
    ]
    return " < ".join(lines[:5])


def measure(setting: Setting, shape: str | None, host: Any, folder: Path, steps: int) -> dict[str, Any]:
    """Train a setting through our own entry and return what it took."""
    import torch

    from lorasweep import compose
    from lorasweep.record import Launch
    from lorasweep.run import train

    gpu = torch.cuda.is_available()
    write_rows(rows := folder / "rows.jsonl", setting, steps)
    given = overrides_of(setting, shape, rows, steps)
    if not gpu:
        given = [item for item in given if item not in ("model.dtype=float16", COMPILED)]
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(given))
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        share = (setting.limit_gib or 1e9) * GIB / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
        if setting.dissected:
            torch.cuda.memory._record_memory_history(max_entries=1_000_000, stacks="python", context="alloc")
    meter, start = Meter(), time.perf_counter()
    found: dict[str, Any] = {}
    with meter.reading():
        try:
            result = train(run, Launch(folder / "run", []), host)
            found |= {"state": result.state, "summary": result.summary}
            found |= {"numerics": json.loads((result.folder / "record.json").read_text()).get("numerics")}
        except Exception:
            found |= {"state": "failed", "error": traceback.format_exc()[-2000:]}
    meter.read("end")
    if gpu and setting.dissected:
        found["at_the_peak"] = at_the_peak()
        torch.cuda.memory._record_memory_history(enabled=None)
    if gpu:
        torch.cuda.set_per_process_memory_fraction(1.0)
    peaks = [reading[2:] for reading in meter.readings]
    return {
        **asdict(setting),
        "shape": shape,
        "overrides": given,
        "seconds": round(time.perf_counter() - start, 1),
        "allocated_gib": max(allocated for allocated, _ in peaks),
        "reserved_gib": max(reserved for _, reserved in peaks),
        "readings": [*meter.readings[:8], *meter.readings[8:][-4:]],
        **found,
    }


def machine() -> dict[str, Any]:
    """Return what was measured on, with the memory that CUDA takes for itself."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if torch.cuda.is_available():
        torch.zeros(8, 8, device="cuda") @ torch.zeros(8, 8, device="cuda")
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        found |= {
            "device": torch.cuda.get_device_name(),
            "total_gib": round(total / GIB, 3),
            "context_gib": round((total - free - torch.cuda.memory_reserved()) / GIB, 3),
        }
    return found


def measure_base(options: argparse.Namespace) -> None:
    """Measure the settings of some bases in this process; a file for each, written as soon as it is measured."""
    from lorasweep import compose
    from lorasweep.resident import Resident

    compose.register()
    host, facts = Resident(), machine()
    for setting in chosen(options.settings):
        if setting.base not in options.bases:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = {"machine": facts, **measure(setting, options.shape, host, Path(folder), options.steps)}
        name = setting.name.replace(",", "").replace(" ", "_")
        (options.out / f"{name}.json").write_text(json.dumps(found, indent=1))
        print(line(found), flush=True)


def chosen(part: str) -> list[Setting]:
    return [setting for setting in SETTINGS if part in setting.name]


def entry(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a prediction needs of a result, and what was measured."""
    numerics, options = found["numerics"], found["options"].split()
    wanted = next(item.partition("=")[2] for item in options if item.startswith("train.gradient_checkpointing="))
    kept = [item for item in options if not item.startswith(("train.", "data.", "model."))]
    return {
        "name": found["name"],
        "shape": found["shape"] or found["base"].split()[0],
        "rows": found["rows"],
        "tokens": found["tokens"],
        "attention": numerics["attention"],
        "flat": numerics["padding_free"],
        "compiled": numerics["compiled"],
        "every": int({"true": 1, "false": 0}.get(wanted, wanted)),
        "options": kept if "lora.dropout" in found["options"] else [*kept, "lora.dropout=0.0"],
        "allocated_gib": round(found["allocated_gib"], 2),
        "reserved_gib": round(found["reserved_gib"], 2),
    }


def predict_again(path: Path) -> None:
    """Print what is predicted now beside what was measured, and how far off it is."""
    from lorasweep import compose
    from lorasweep.attention import Layout
    from lorasweep.device import Device
    from lorasweep.memory.batches import Batch
    from lorasweep.memory.prediction import Predictor
    from lorasweep.model import build_config

    compose.register()
    device, errors = Device.imagined(80.0, (9, 0)), []
    print(f"{'':38} {'predicted':>9} {'allocated':>9} {'error':>6}  GiB")
    for item in json.loads(path.read_text()):
        values = zip(FIELDS, SHAPES[item["shape"]], strict=True)
        given = ["model=tiny", "data=demo", *(f"model.shape.{name}={value}" for name, value in values)]
        run = compose.checked_run(ROOT / "conf", compose.CommandLine.of([*given, *item["options"]]))
        layout = Layout(item["attention"], item["flat"])
        batch = Batch(item["rows"], item["tokens"], item["rows"] * item["tokens"])
        found = Predictor(run, build_config(run.model), device)(
            run, layout, batch, compiled=item["compiled"], every=item["every"]
        )
        errors.append(found.allocated_gib / item["allocated_gib"] - 1)
        numbers = f"{found.allocated_gib:9.2f} {item['allocated_gib']:9.2f} {errors[-1]:+6.1%}"
        print(f"{item['name']:38} {numbers}  {found.peak.name}", flush=True)
    sizes = [abs(error) for error in errors]
    print(f"{len(sizes)} settings: {sum(sizes) / len(sizes):.1%} off in the mean, {max(sizes):.1%} at most")


def line(found: dict[str, Any]) -> str:
    """Return a line of the table."""
    predicted, measured = found.get("summary", {}).get("memory/predicted_gib"), found["allocated_gib"]
    error = f"{predicted / measured - 1:+6.1%}" if predicted and measured else " " * 6
    shown = f"{predicted:9.2f}" if predicted else " " * 9
    return (
        f"{found['name']:34} {shown} {measured:9.2f} {error} {found['reserved_gib']:9.2f} {found['seconds']:6.1f} s"
        f"  {found['state']}"
    )


ALL = "gpu_memory.json"
HEADING = f"{'':34} {'predicted':>9} {'allocated':>9} {'error':>6} {'reserved':>9}  GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder for the results")
    parser.add_argument("--shape", choices=SHAPES, help="this shape in place of those of the settings")
    parser.add_argument("--settings", default="", help="only those with this in their name")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=600.0, help="start no further process after so many")
    parser.add_argument(
        "--predict", nargs="?", const=ROOT / "benchmarks" / "gpu_memory.json", type=Path, metavar="FILE",
        help="predict what was measured before",
    )  # fmt: skip
    parser.add_argument("--bases", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        predict_again(options.predict)
        return
    if not options.out:
        parser.error("--out is needed")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.bases:
        measure_base(options)
        return
    print(HEADING, flush=True)
    end = time.monotonic() + options.seconds
    bases = list(dict.fromkeys(setting.base for setting in chosen(options.settings)))
    command = [sys.executable, "-u", *sys.argv, "--bases"]
    for group in ([base for base in bases if base[:2] != "7b"], [base for base in bases if base[:2] == "7b"]):
        if group and time.monotonic() < end:
            subprocess.run(["timeout", str(round(end - time.monotonic() + 60)), *command, *group], check=False)
    results = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json")) if path.name != ALL]
    (options.out / ALL).write_text(
        json.dumps([entry(item) for item in results if item["state"] == "complete"], indent=1)
    )


if __name__ == "__main__":
    main()
