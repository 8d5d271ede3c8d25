"""Rows per second and peak memory of preparing rows, against the plain SFTTrainer preparing the same ones.

python benchmarks/preprocessing.py                      200,000 conversations, SmolLM2's tokenizer and template
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
ARMS = {"plain": [], "ours": ["--processes", "1"], "ours, 2 processes": ["--processes", "2"], "ours, again (kept)": []}


def write_rows(path: Path, count: int) -> None:
    """Write conversations of two or four turns, of log-normal length (a median of about 100 words)."""
    from lorasweep.demo_rows import WORDS

    chance = random.Random(0)

    def text(median: float) -> str:
        return " ".join(chance.choices(WORDS, k=max(1, min(600, round(chance.lognormvariate(0, 0.6) * median)))))

    with open(path, "w") as file:
        for number in range(count):
            turns = []
            for _ in range(chance.choice((1, 1, 2))):
                turns += [
                    {"role": "user", "content": f"{number} {text(25)}?"},
                    {"role": "assistant", "content": text(55)},
                ]
            file.write(json.dumps({"messages": turns}) + "\n")


def run_ours(path: Path, processes: int) -> dict[str, Any]:
    """Prepare rows as a run does: load, render, mask, tokenise, cut, split, count, hash."""
    from lorasweep.data import build_datasets, fingerprint
    from lorasweep.model import build_tokenizer
    from lorasweep.schema import Data, Model

    tokenizer = build_tokenizer(Model(source="embedded", name="smollm2"))
    data = Data(source="files", files=str(path), num_proc=processes, eval_fraction=0.01)
    start = time.perf_counter()
    splits = build_datasets(data, tokenizer, 2048)
    fingerprint(data, splits)
    counts = splits["train"].counts
    return {"seconds": time.perf_counter() - start, "kept": counts.kept, "learnt": counts.supervised_tokens}


def run_plain(path: Path) -> dict[str, Any]:
    """Prepare rows as TRL documents it for loss on the assistant's turns: SFTTrainer with assistant_only_loss."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from lorasweep import embedded_model, random_model
    from lorasweep.schema import Shape

    tokenizer = AutoTokenizer.from_pretrained(embedded_model.folder())
    marked = "{% generation %}{{ message['content'] + '<|im_end|>' + '\\n' }}{% endgeneration %}"
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['role'] == 'assistant' %}"
        + marked
        + "{% else %}{{ message['content'] + '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}"
    )
    model = AutoModelForCausalLM.from_pretrained(random_model.folder(Shape()))
    start = time.perf_counter()
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=os.environ["LORASWEEP_CACHE"])
    args = SFTConfig(
        output_dir=str(path.parent / "out"), max_length=2048, assistant_only_loss=True, use_cpu=True, bf16=False
    )
    trainer = SFTTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    return {"seconds": time.perf_counter() - start, "kept": len(trainer.train_dataset)}


def measure(work: Any) -> dict[str, Any]:
    """Run `work` watching the memory of this process and its children: peak of the sum of what each holds alone."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        process = psutil.Process()
        while not done.wait(0.2):
            held = 0
            for one in (process, *process.children(recursive=True)):
                try:
                    held += one.memory_full_info().uss
                except psutil.Error:
                    continue
            peak = max(peak, held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = work()
    finally:
        done.set()
        thread.join()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**result, "private_gib": peak / 2**30, "rss_gib": rss}


def main() -> None:
    """Measure every arm in a process of its own, with a cache of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        path = options.file
        work = (lambda: run_plain(path)) if options.arm == "plain" else (lambda: run_ours(path, options.processes))
        print(json.dumps(measure(work)))
        return
    from lorasweep import embedded_model

    embedded_model.folder()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, options.rows)
        print(f"{options.rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB", flush=True)
        print("| | rows/s | seconds | ratio | peak GiB | with mapped files |\n|---|---|---|---|---|---|")
        base = None
        for arm, extra in ARMS.items():
            result = run_arm(arm, extra, path)
            seconds = result["seconds"]
            base = base or seconds
            print(
                f"| {arm} | {options.rows / seconds:,.0f} | {seconds:.1f} | {base / seconds:.2f}"
                f" | {result['private_gib']:.2f} | {result['rss_gib']:.2f} |",
                flush=True,
            )


def run_arm(arm: str, extra: list[str], path: Path) -> dict[str, Any]:
    """Run one arm; only the kept one finds what an arm before it left."""
    from lorasweep import cache

    place = path.parent / ("cache-2" if arm == "ours, again (kept)" else f"cache-{len(extra) and extra[1]}")
    place.mkdir(exist_ok=True)
    if not (place / "models").exists():
        (place / "models").symlink_to(cache.root() / "models")
    command = [sys.executable, __file__, "--arm", arm, "--file", str(path), *extra]
    environment = {**os.environ, "LORASWEEP_CACHE": str(place)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
