"""Train twice, kill and go on, and compare every bit, with deterministic=true and without; and what that costs.

python benchmarks/gpu_resume.py --rows gsm8k.jsonl --out results      a Llama of 1B shape, and SmolLM2-135M
python benchmarks/gpu_resume.py --shape tiny --out results            a 2-layer Llama, on a CPU too
python benchmarks/gpu_resume.py --shape llama2_7b --works random --rows gsm8k.jsonl

Rows with a question and an answer, or anything that data=jsonl takes; without --rows, generated ones. Every training is
a process of its own. A run is killed in the middle of a step and goes on from a checkpoint three steps older. The cost
is measured first, alone; then arms run side by side.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHAPES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "llama2_7b": (4096, 11008, 32, 32, 32, 32000),
    "llama3_1b": (2048, 8192, 16, 32, 8, 128256),
    "tiny": (64, 128, 2, 4, 2, 512),
}
FIELDS = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size")
COMMON = [
    "lora.r=64", "lora.dropout=0.1", "data.limit=200", "evaluation.times=2", "evaluation.generate=2",
    "evaluation.max_new_tokens=8", "evaluation.untuned=false", "evaluation.max_samples=8", "train.max_steps=12",
    "train.save_every=5", "train.batch_size=4", "tracking.wandb=disabled", "verbosity=quiet",
]  # fmt: skip
WORKS = {
    "random": ["model=tiny", "optim.lr=2e-4", "train.tokens_per_step=120"],
    "smollm2": ["model=smollm2_135m", "optim.lr=2e-4", "train.grad_accum=2"],
}
ARMS = [
    ("random", "paged_adamw_32bit", True), ("smollm2", "paged_adamw_8bit", True), ("random", "paged_adamw_8bit", True),
    ("smollm2", "paged_adamw_32bit", True), ("random", "paged_adamw_8bit", False),
    ("smollm2", "paged_adamw_32bit", False),
]  # fmt: skip
"""Work, optimizer, deterministic."""
KILLED_AT = 8
"""In the second forward pass after so many steps, or of the next step that has one."""
WARM, TIMED = 4, 12
"""Steps before the clock, and steps on it."""
PARTS = ["cost", "arms"]
END = "end.safetensors"
LINES = ("train/loss", "train/grad_norm", "eval/loss")


def child(folder: Path, overrides: list[str], is_killed: bool) -> None:
    """Train, or go on; die in the middle of a step if asked to, else leave the last state of the trainer."""
    from lorasweep import compose, determinism

    compose.register()
    run = compose.checked_run(ROOT / "conf", compose.CommandLine.of(overrides))
    determinism.prepare(run.deterministic)
    run.resume = str(folder) if (folder / "run.yaml").exists() else None

    import torch
    from safetensors.torch import save_file

    from lorasweep import checkpointing, training_state
    from lorasweep.host import Host
    from lorasweep.lean_trainer import LeanTrainer
    from lorasweep.record import Launch
    from lorasweep.run import train

    loss, whole, save = LeanTrainer.compute_loss, LeanTrainer.train, checkpointing.Checkpointer.save
    facts: dict[str, Any] = {"save_s": [], "stamps": []}
    passes: Counter[int] = Counter()

    class Watching(Host):
        def progress(self, step: int, total: int) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            facts["stamps"].append(time.perf_counter())

    def deadly(self: Any, *arguments: Any, **options: Any) -> Any:
        passes[step := self.state.global_step] += 1
        if is_killed and step >= KILLED_AT and passes[step] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(self, *arguments, **options)

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        result = whole(self, *arguments, **options)
        state = training_state.take(self)
        training_state.take_random("random", state)
        save_file(state.tensors, folder / END)
        states = [value for item in self.optimizer.state.values() for value in item.values()]
        facts["paged"] = sum(getattr(value, "is_paged", False) for value in states)
        return result

    def timed(self: Any) -> bool:
        start = time.perf_counter()
        done = save(self)
        facts["save_s"].append(round(time.perf_counter() - start, 3))
        return done

    LeanTrainer.compute_loss, LeanTrainer.train = deadly, watched  # type: ignore[method-assign]
    checkpointing.Checkpointer.save = timed  # type: ignore[method-assign]
    result = train(run, Launch(folder, []), Watching())
    assert result.state == "complete", f"ended as {result.state}: {result.error}"
    size = sum(path.stat().st_size for path in (folder / "checkpoints").glob("step-000010/*") if path.is_file())
    peak = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0.0
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    facts |= {"mib": round(size / 2**20, 1), "peak_gib": round(peak, 2), "device": device}
    (folder / "facts.json").write_text(json.dumps(facts))


@dataclass
class Bench:
    """What all arms share: where they write, what is asked for, and until when."""

    folder: Path
    shape: str
    rows: Path | None
    deadline: float
    extra: list[str] = field(default_factory=list)

    def overrides(self, work: str, optimizer: str, deterministic: bool) -> list[str]:
        """Return the command line of a training."""
        given = [*WORKS[work], *COMMON, f"optim.name={optimizer}", f"deterministic={str(deterministic).lower()}"]
        if work == "random":
            given += [f"model.shape.{name}={value}" for name, value in zip(FIELDS, SHAPES[self.shape], strict=True)]
        if self.rows:
            given += ["data=jsonl", f"data.files={self.rows.resolve()}", "data.max_length=512"]
            given += ["train.tokens_per_step=3000"] if work == "random" else []
            if {"question", "answer"} <= json.loads(self.rows.open().readline()).keys():
                given += ['data.prompt="{question}"', 'data.completion="{answer}"']
        return [*given, *self.extra]

    def trained(self, name: str, overrides: list[str], *kills: bool) -> Path:
        """Train in a process per entry of `kills`, all of which are killed, and one more; its folder."""
        folder = self.folder / name
        for is_killed in (*kills, False):
            command = [sys.executable, __file__, "--child", str(folder), *(["--kill"] if is_killed else []), *overrides]
            left = self.deadline - time.monotonic()
            with open(self.folder / f"{name}.log", "ab") as log:
                code = subprocess.run(command, check=False, timeout=left, stdout=log, stderr=log).returncode
            if code != (-signal.SIGKILL if is_killed else 0):
                words = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()[-8:]
                raise RuntimeError(f"exit code {code}: {' / '.join(words)}")
        return folder

    def arm(self, work: str, optimizer: str, deterministic: bool) -> dict[str, Any]:
        """Train twice, kill and go on, and compare."""
        name = f"{work}-{optimizer}-{'deterministic' if deterministic else 'free'}"
        overrides = self.overrides(work, optimizer, deterministic)
        one = self.trained(f"{name}-1", overrides)
        found: dict[str, Any] = {"twice": compared(one, self.trained(f"{name}-2", overrides))}
        found["resumed"] = compared(one, again := self.trained(f"{name}-resumed", overrides, True))
        facts = [json.loads((place / "facts.json").read_text()) for place in (one, again)]
        found["paged"] = [item["paged"] for item in facts]
        return found | {key: facts[0][key] for key in ("save_s", "mib", "peak_gib", "device")}

    def step_ms(self, work: str, deterministic: bool) -> float:
        """Return the median time of a training step in milliseconds."""
        given = [*self.overrides(work, "paged_adamw_32bit", deterministic), f"train.max_steps={WARM + TIMED}"]
        given += ["evaluation.times=0", "evaluation.generate=0", "train.save_every=null"]
        facts = self.trained(f"{work}-cost-{deterministic}", given) / "facts.json"
        stamps: list[float] = json.loads(facts.read_text())["stamps"][WARM - 1 :]
        return statistics.median(after - before for before, after in itertools.pairwise(stamps)) * 1e3

    def cost(self, work: str) -> dict[str, Any]:
        """Return the time of a step with and without deterministic=true, and their ratio."""
        free, strict = (self.step_ms(work, deterministic) for deterministic in (False, True))
        return {"free_ms": round(free, 1), "deterministic_ms": round(strict, 1), "ratio": round(strict / free, 3)}


def compared(one: Path, other: Path) -> dict[str, Any]:
    """Return which tensors of two ends differ, where most and by how much, and the first line of metrics that does."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = load_file(one / END), load_file(other / END)
    found: dict[str, Any] = {"tensors": len(ours.keys() | theirs.keys()), "differ": 0, "largest": 0.0, "where": None}
    found |= {"missing": sorted(ours.keys() ^ theirs.keys()), "dtypes": {}, "adapter": 0, "optimizer": 0}
    for name in sorted(ours.keys() & theirs.keys()):
        before, after = ours[name], theirs[name]
        if before.dtype != after.dtype or before.shape != after.shape:
            found["dtypes"][name] = [f"{item.dtype} {tuple(item.shape)}" for item in (before, after)]
        elif not before.reshape(-1).view(torch.uint8).equal(after.reshape(-1).view(torch.uint8)):
            largest = (before.double() - after.double()).abs().max().item()
            found["differ"] += 1
            found["adapter"] += name.startswith("parameter/")
            found["optimizer"] += name.startswith("optimizer/")
            if largest >= found["largest"]:
                found |= {"largest": largest, "where": name}
    return found | {"first_line": next(differing_lines(one, other), None)}


def differing_lines(one: Path, other: Path) -> Iterator[dict[str, Any]]:
    """Yield the losses and gradient norms of a step that are not the same."""
    lines = [
        [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()] for place in (one, other)
    ]
    for before, after in zip(*lines, strict=False):
        pairs = {name: [before.get(name), after.get(name)] for name in LINES}
        if changed := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
            yield {"step": before["step"], **changed}


def attempt(do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what an arm finds, or how it failed: the others go on."""
    start = time.monotonic()
    try:
        return {**do(), "seconds": round(time.monotonic() - start, 1)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:1500]}


def verdict(found: dict[str, Any]) -> str:
    """Return in words whether two ends are the same."""
    if found["dtypes"] or found["missing"]:
        return f"other tensors: {found['dtypes'] or found['missing']}"
    if not found["differ"]:
        return f"same {found['tensors']} tensors" if not found["first_line"] else f"other lines: {found['first_line']}"
    first = f", from step {found['first_line']['step']}" if found["first_line"] else ""
    count = f"{found['differ']} of {found['tensors']} ({found['adapter']} adapter, {found['optimizer']} optimizer)"
    return f"{count}, up to {found['largest']:.2g} in {found['where']}{first}"


def table(results: dict[str, Any]) -> str:
    """Return the results as markdown."""
    heads = ["work", "optimizer", "deterministic", "trained twice", "killed and gone on", "paged states", "checkpoint"]
    lines = [" | ".join(heads), "|".join("---" for _ in heads)]
    for arm in results["arms"]:
        cells = [arm["work"], arm["optimizer"], "yes" if arm["deterministic"] else "no"]
        if "error" in arm:
            cells += [f"failed: {arm['error'][:200]}", "", "", ""]
        else:
            saved = f"{max(arm['save_s']):.2f} s, {arm['mib']:.0f} MiB"
            cells += [verdict(arm["twice"]), verdict(arm["resumed"]), " / ".join(map(str, arm["paged"])), saved]
        lines.append(" | ".join(cells))
    lines += ["", "work | ms a step | deterministic=true | ratio", "---|---|---|---"]
    for work, cost in results["cost"].items():
        failed = f"failed: {cost['error'][:200]}" if "error" in cost else ""
        numbers = [] if failed else [str(cost[name]) for name in ("free_ms", "deterministic_ms", "ratio")]
        lines.append(" | ".join([work, *(numbers or [failed, "", ""])]))
    return "\n".join(lines) + "\n"


def write(results: dict[str, Any], folder: Path | None) -> None:
    """Write what there is so far: a machine may be taken away."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resume.json").write_text(json.dumps(results, indent=1))
        (folder / "resume.md").write_text(table(results))


def measured(bench: Bench, works: list[str], parts: list[str], at_once: int, out: Path | None) -> dict[str, Any]:
    """Measure the cost alone, then do all arms side by side."""
    results: dict[str, Any] = {"shape": bench.shape, "rows": str(bench.rows), "arms": [], "cost": {}}
    for work in works if "cost" in parts else []:
        results["cost"][work] = attempt(partial(bench.cost, work))
        write(results, out)
    arms = [arm for arm in ARMS if arm[0] in works and "arms" in parts]
    with ThreadPoolExecutor(at_once) as pool:
        doing = [pool.submit(attempt, partial(bench.arm, *arm)) for arm in arms]
        for (work, optimizer, deterministic), future in zip(arms, doing, strict=True):
            named = {"work": work, "optimizer": optimizer, "deterministic": deterministic}
            results["arms"].append(named | future.result())
            write(results, out)
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama3_1b", help="of the random base")
    parser.add_argument("--works", nargs="+", choices=WORKS, help="both, but with --shape tiny only random")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=Path, help="a .jsonl file to train on")
    parser.add_argument("--out", type=Path, help="folder for resume.json and resume.md")
    parser.add_argument("--minutes", type=float, default=5.0, help="whatever is not done by then counts as failed")
    parser.add_argument("--at-once", type=int, default=2, help="six on one H100: no training ended within 300 s")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.child:
        return child(options.child, overrides, options.kill)
    works = options.works or (["random"] if options.shape == "tiny" else list(WORKS))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.shape, options.rows, time.monotonic() + 60 * options.minutes, overrides)
        print(table(measured(bench, works, options.parts, options.at_once, options.out)))


if __name__ == "__main__":
    main()
