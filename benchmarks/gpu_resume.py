"""Kill a run, go on with it, and compare every bit with runs that nobody killed: parameters and optimizer states.

python benchmarks/gpu_resume.py                    a random Llama of 1B shape, for a GPU
python benchmarks/gpu_resume.py --work tiny        a random 2-layer Llama, on this machine's CPU too

Two runs that nobody killed show what the device itself does not repeat; going on should be no further off than that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHAPE_1B = [
    "model.shape.hidden_size=2048", "model.shape.intermediate_size=8192", "model.shape.layers=16",
    "model.shape.heads=32", "model.shape.kv_heads=8", "model.shape.vocab_size=32000", "optim.lr=2e-4",
]  # fmt: skip
WORK = {"tiny": [], "llama_1b": SHAPE_1B}
COMMON = [
    "model=tiny", "lora.r=64", "lora.dropout=0.1", "data.limit=400", "train.max_steps=12", "train.save_every=5",
    "train.tokens_per_step=400", "train.batch_size=16", "evaluation.times=3", "evaluation.generate=0",
    "tracking.wandb=disabled", "verbosity=quiet",
]  # fmt: skip
OPTIMIZERS = ["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit"]
KILLED_AT = 8
END = "end.safetensors"


def child(folder: Path, overrides: list[str], is_killed: bool) -> None:
    """Train, or go on; die in the middle of a step if asked to, else leave the last state of the trainer."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    import torch
    from safetensors.torch import save_file
    from trl import SFTTrainer

    from lorasweep import checkpointing, compose, training_state
    from lorasweep.record import Launch
    from lorasweep.run import train
    from lorasweep.watched_trainer import WatchedTrainer

    torch.use_deterministic_algorithms(True, warn_only=True)
    compose.register()
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))
    run.resume = str(folder) if (folder / "run.yaml").exists() else None
    loss, whole, save = SFTTrainer.compute_loss, WatchedTrainer.train, checkpointing.Checkpointer.save
    facts: dict[str, Any] = {"save_s": []}

    def deadly(self: Any, *arguments: Any, **options: Any) -> Any:
        if is_killed and self.state.global_step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(self, *arguments, **options)

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        result = whole(self, *arguments, **options)
        save_file(training_state.take(self).tensors, folder / END)
        states = [value for item in self.optimizer.state.values() for value in item.values()]
        facts["paged"] = sum(getattr(value, "is_paged", False) for value in states)
        return result

    def timed(self: Any) -> bool:
        start = time.perf_counter()
        done = save(self)
        facts["save_s"].append(time.perf_counter() - start)
        return done

    SFTTrainer.compute_loss, WatchedTrainer.train, checkpointing.Checkpointer.save = deadly, watched, timed
    assert train(run, Launch(folder, [])).state == "complete"
    size = sum(path.stat().st_size for path in (folder / "checkpoints").glob("step-000010/*"))
    (folder / "facts.json").write_text(json.dumps({**facts, "mib": size / 2**20}))


def trained(folder: Path, overrides: list[str], *kills: bool) -> Path:
    """Train in a process per entry of `kills`, all of which but the last are killed."""
    for is_killed in (*kills, False):
        command = [sys.executable, __file__, "--child", str(folder), *(["--kill"] if is_killed else []), *overrides]
        code = subprocess.run(command, check=False).returncode
        assert code == (-signal.SIGKILL if is_killed else 0), code
    return folder


def compared(one: Path, other: Path) -> tuple[int, float, str]:
    """Return how many tensors of two ends differ, the largest difference, and where it is."""
    from safetensors.torch import load_file

    ours, theirs = load_file(one / END), load_file(other / END)
    assert ours.keys() == theirs.keys()
    count, largest, where = 0, 0.0, ""
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype, f"{name} is {value.dtype} and {theirs[name].dtype}"
        difference = (value.double() - theirs[name].double()).abs().max().item()
        count += difference > 0
        if difference > largest:
            largest, where = difference, name
    return count, largest, where


def rows(work: str, optimizers: list[str], folder: Path) -> Iterator[list[str]]:
    """Yield a row per optimizer."""
    for name in optimizers:
        overrides = [*COMMON, *WORK[work], f"optim.name={name}"]
        one, two = (trained(folder / f"{name}_{number}", overrides) for number in (1, 2))
        resumed = trained(folder / f"{name}_resumed", overrides, True)
        facts = [json.loads((place / "facts.json").read_text()) for place in (one, resumed)]
        noise, found = compared(one, two), compared(one, resumed)
        paged = " / ".join(str(item["paged"]) for item in facts)
        save = f"{max(facts[0]['save_s']):.2f} s, {facts[0]['mib']:.0f} MiB"
        yield [name, f"{noise[0]} ({noise[1]:.2g})", f"{found[0]} ({found[1]:.2g})", found[2] or "-", paged, save]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=WORK, default="llama_1b")
    parser.add_argument("--optim", nargs="+", default=OPTIMIZERS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.child:
        return child(options.child, overrides, options.kill)
    heads = ["optimizer", "run twice: tensors that differ", "killed and gone on", "where most", "paged", "checkpoint"]
    print(" | ".join(heads), "|".join("---" for _ in heads), sep="\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options.work, options.optim, Path(folder)):
            print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
