"""Rows per second and peak memory from a file of rows to the batches of steps: streaming, and prepared before (cached).

python benchmarks/big_data.py                           20,000 and 2,000,000 conversations, SmolLM2's tokenizer
python benchmarks/big_data.py --rows 2000 4000          few, to see that it works

Every arm is a process of its own with a cache of its own; "cached, again" finds the rows that "cached" has prepared.
Every row is read, prepared, dealt out to steps of 8,192 supervised tokens and collated once; nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.preprocessing import measure, write_rows

ARMS = ("streaming", "cached", "cached, again")
LENGTH, TOKENS, BUFFER = 2048, 8192, 10_000


def go_through(path: Path, streaming: bool, rows: int) -> dict[str, Any]:
    """Go through one epoch of a file's rows as a trainer would; returns seconds, to the first step too."""
    from lorasweep.data import build_datasets
    from lorasweep.model import build_tokenizer
    from lorasweep.processes.share import Share
    from lorasweep.schema import Data, Model, Run, Train
    from lorasweep.stream_steps import choose_plan
    from lorasweep.trainer import step_collator

    data = Data(source="files", files=str(path), streaming=streaming, eval_fraction=0.0, max_length=LENGTH)
    data.shuffle_buffer = BUFFER
    train = Train(batch_size=8, tokens_per_step=TOKENS, max_steps=10**9 if streaming else None)
    run = Run(model=Model(source="embedded", name="smollm2"), data=data, train=train)
    tokenizer = build_tokenizer(run.model)
    start = time.perf_counter()
    split = build_datasets(data, tokenizer, LENGTH)["train"]
    plan = choose_plan(run, split)
    assert plan
    collator = step_collator(run, plan, split.rows, tokenizer, None, flat=True, share=Share())
    learnt, first = 0, 0.0
    for items in _items(plan, streaming):
        batches = collator([{"rows": items}])
        first = first or time.perf_counter() - start
        learnt += sum(int((batch["position_ids"] == 0).sum()) for batch in batches["batches"])
        if learnt >= rows:
            break
    return {"seconds": time.perf_counter() - start, "first": first, "rows": learnt}


def _items(plan: Any, streaming: bool) -> Iterator[list[int]]:
    return ([number] for number in count()) if streaming else iter(plan.steps)


def run_arm(arm: str, path: Path, rows: int) -> dict[str, Any]:
    """Run one arm."""
    from lorasweep import cache

    place = path.parent / f"{path.stem}-{arm.split(',')[0]}"
    place.mkdir(exist_ok=True)
    if not (place / "models").exists():
        (place / "models").symlink_to(cache.root() / "models")
    command = [sys.executable, __file__, "--arm", arm, "--file", str(path), "--rows", str(rows)]
    environment = {**os.environ, "LORASWEEP_CACHE": str(place)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    result["kept_gib"] = sum(found.stat().st_size for found in place.rglob("*") if found.is_file()) / 2**30
    return result


def main() -> None:
    """Print a line for every arm and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 2_000_000])
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(lambda: go_through(options.file, options.arm == "streaming", options.rows[0]))))
        return
    from lorasweep import embedded_model

    embedded_model.folder()
    print("| rows | | rows/s | seconds | to the first step | peak GiB | with mapped files | kept on disk GiB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for rows in options.rows:
            path = Path(folder) / f"{rows}.jsonl"
            write_rows(path, rows)
            for arm in ARMS:
                found = run_arm(arm, path, rows)
                print(
                    f"| {rows:,} | {arm} | {found['rows'] / found['seconds']:,.0f} | {found['seconds']:.1f}"
                    f" | {found['first']:.1f} | {found['private_gib']:.2f} | {found['rss_gib']:.2f}"
                    f" | {found['kept_gib']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
