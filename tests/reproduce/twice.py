"""Train every setting in this process and print what came of each: python -m tests.reproduce.twice FOLDER SHIFT ORDER

SHIFT: seconds by which the clock is wrong. ORDER: 1, or -1 for the settings from the last to the first.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.conftest import tiny

SETTINGS = {
    f"{base} {words}": (f"quant={'none' if base == 'LoRA' else 'nf4'}", *overrides.split())
    for base in ("LoRA", "QLoRA")
    for words, overrides in {
        "adamw_torch": "optim=adamw_torch",
        "fused, packed, dropout": "optim.name=adamw_torch_fused data.packing=true data.max_length=128 lora.dropout=0.1",
        "8 bit, accumulated": "optim.name=adamw_8bit lora.r=64 train.grad_accum=2 train.batch_size=2",
        "paged 32 bit, dropout, loader processes": "optim.name=paged_adamw_32bit lora.dropout=0.1 train.loader_workers=2",
        "paged 8 bit, packed, accumulated, loader process":
            "optim.name=paged_adamw_8bit lora.r=64 data.packing=true data.max_length=128 train.grad_accum=2"
            " train.batch_size=1 train.loader_workers=1",
        "lion 8 bit, by tokens, dropout": "optim.name=lion_8bit lora.r=64 train.tokens_per_step=40 lora.dropout=0.2",
        "adafactor, by length, accumulated": "optim.name=adafactor train.group_by_length=true train.grad_accum=3"
            " train.batch_size=2 lora.dropout=0.1",
        "ademamix 8 bit, padding-free, DoRA": "optim.name=ademamix_8bit lora.r=64 train.padding_free=true"
            " lora.use_dora=true",
        "sgd, packed by tokens": "optim.name=sgd data.packing=true data.max_length=128 train.tokens_per_step=60"
            " train.loader_workers=1",
    }.items()
}  # fmt: skip


def main() -> None:
    folder, shift, order = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    real, written = time.time, time.strftime
    time.time = lambda: real() + shift
    time.strftime = lambda words, at=None: written(words, at or time.localtime(time.time()))
    from lorasweep.record import Launch
    from lorasweep.results import read_json
    from lorasweep.run import train

    for number, (name, overrides) in list(enumerate(SETTINGS.items()))[::order]:
        run = tiny("train.max_steps=4", "evaluation.times=2", "evaluation.batch_size=4", *overrides)
        result = train(run, Launch(folder / str(number), []))
        assert result.state == "complete", (name, result.summary)
    found = {}
    for number, name in enumerate(SETTINGS):
        record, summary = (read_json(folder / str(number) / file) for file in ("record.json", "summary.json"))
        losses = [json.loads(line) for line in (folder / str(number) / "metrics.jsonl").read_text().splitlines()]
        times = ("seconds", "tokens/per_second")
        found[name] = {
            **summary["digests"],
            "start": record["start"],
            "created": record["created"],
            "rows": {split: facts["sha256"] for split, facts in record["data"]["splits"].items()},
            "numbers": [
                {key: value for key, value in line.items() if key not in times and not key.startswith("memory/")}
                for line in losses
            ],
        }
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
