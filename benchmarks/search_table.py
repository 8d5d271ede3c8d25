"""Turns a finished grid study into a table of learning curves, from which searches can be replayed without training.

A study for it, half an hour on an H100:

python train.py -m study=table data.limit=320 data.eval_fraction=0.25 data.max_length=128 train.max_steps=20 \
    train.batch_size=16 train.tokens_per_step=auto train.gradient_checkpointing=false evaluation.times=4 \
    evaluation.generate=0 evaluation.batch_size=80 lora.r=8,16,64 lora.alpha=16,32,128 lora.dropout=0.0,0.1 \
    scheduler=constant,cosine train.max_grad_norm=0.3,1.0 data.packing=false,true optim.lr=2e-4,6e-4,2e-3,6e-3 \
    hydra.sweeper.slots=15 hydra.sweeper.keep_adapters=0
python benchmarks/search_table.py outputs/studies/table benchmarks/search_table.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import optuna


def main() -> None:
    """Write every complete trial: its point, losses by supervised tokens, seconds and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    url = f"sqlite:///{arguments.study.absolute()}/study.db"
    (name,) = optuna.get_all_study_names(url)
    trials = optuna.load_study(study_name=name, storage=url).get_trials(states=[optuna.trial.TrialState.COMPLETE])
    keys = list(trials[0].user_attrs["point"])
    tokens = sorted(trials[0].intermediate_values)
    cells = []
    for trial in trials:
        facts, point = trial.user_attrs["end"]["facts"], trial.user_attrs["point"]
        losses = [round(value, 5) for _, value in sorted(trial.intermediate_values.items())]
        seconds, memory = round(facts["train/seconds"], 2), round(facts["memory/peak_gib"], 3)
        cells.append([[point[key] for key in keys], losses, seconds, memory])
    untuned = trials[0].user_attrs["end"]["facts"].get("untuned/eval/loss")
    table = {"keys": keys, "tokens": tokens, "untuned": untuned, "cells": cells}
    arguments.table.write_text(json.dumps(table).replace("], [[", "],\n[[").replace("[[[", "[\n[[") + "\n")
    print(f"{len(cells)} cells, best {min(cell[1][-1] for cell in cells):.4f}")


if __name__ == "__main__":
    main()
