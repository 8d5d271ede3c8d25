"""Run folders made by hand: what a run leaves behind, without the run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorasweep.record import claim, write_json
from lorasweep.rules import build
from lorasweep.schema import Run

TOKENS = (4, 8, 6, 10, 4, 6)
"""Supervised tokens of the evaluation rows."""
BEFORE = 4.0
PER_STEP = 50


def config(**values: Any) -> Run:
    """A config with these values, keys as `lora__r`."""
    nested = asdict(Run())
    nested["model"]["name"] = "base"
    for key, value in values.items():
        *path, last = key.split("__")
        place = nested
        for name in path:
            place = place[name]
        place[last] = value
    run = build(nested, Run, set())
    assert isinstance(run, Run)
    return run


def made(
    folder: Path,
    losses: Sequence[float] = (1.0,) * 6,
    *,
    run: Run | None = None,
    state: str | None = "complete",
    steps: int = 4,
    answers: Sequence[tuple[str, str, str]] = (),
    facts: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
    age: float = 0.0,
    **values: Any,
) -> Path:
    """A run whose evaluation rows have these losses per token at its end; without `state` it has not ended.

    `answers` are questions, what is expected and what was answered. `record` changes what record.json says, by dotted
    key, and `facts` what summary.json says.
    """
    run = run or config(**values)
    claim(folder, run)
    write_json(folder / "record.json", _record(folder, run, record or {}))
    scored = {step: [BEFORE if step == 0 else loss for loss in losses] for step in (0, steps)}
    loss = sum(value * tokens for value, tokens in zip(losses, TOKENS, strict=True)) / sum(TOKENS)
    lines = [{"step": 0, "eval/loss": BEFORE}]
    lines += [
        {"step": step, "train/loss": BEFORE - step * (BEFORE - loss) / steps, "tokens/supervised": step * PER_STEP,
         "tokens/total": step * 80, "tokens/per_second": 100.0}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    lines.append({"step": steps, "eval/loss": loss, **({"eval/exact_match": _right(answers)} if answers else {})})
    _write_lines(folder / "metrics.jsonl", lines)
    _write_lines(folder / "evaluation.jsonl", [_evaluation(step, found, answers) for step, found in scored.items()])
    if state:
        summary = _summary(state, steps, loss) | (facts or {})
        write_json(folder / "summary.json", {key: value for key, value in summary.items() if value is not None})
    if state == "complete":
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")
    then = time.time() - age
    for path in folder.iterdir():
        os.utime(path, (then, then))
    return folder


def _record(folder: Path, run: Run, changes: dict[str, Any]) -> dict[str, Any]:
    counts = {"rows": 60, "kept": 60, "cut": 0, "dropped": {}, "tokens": 900, "supervised_tokens": 300,
              "replaced_template": 0, "thoughtless": 0, "also_in_train": 0, "also_in_eval": 0}  # fmt: skip
    record: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+0000",
        "command": "python train.py lora.r=8",
        "overrides": [],
        "name": folder.name,
        "seeds": {"seed": run.train.seed, "data_seed": run.train.seed, "split_seed": 0},
        "git": {"commit": "abc", "changed": []},
        "packages": {"torch": "2", "transformers": "5"},
        "data": {"files": {}, "commit": None, "splits": {
            "train": {**counts, "sha256": "train"}, "eval": {**counts, "kept": 6, "sha256": "eval"},
        }},
        "model": {"location": "base", "sha256": {}},
        "device": {"kind": "cpu", "name": "a CPU", "threads": 2, "precision": "float32", "memory_gib": 8.0},
    }  # fmt: skip
    for key, value in changes.items():
        *path, last = key.split("/")
        place = record
        for name in path:
            place = place[name]
        place[last] = value
    return record


def _summary(state: str, steps: int, loss: float) -> dict[str, Any]:
    return {
        "steps": steps, "train/seconds": 10.0, "tokens/total": steps * 80, "tokens/supervised": steps * PER_STEP,
        "tokens/per_second": 100.0, "tokens/supervised_per_second": 60.0, "memory/start_gib": 1.0,
        "memory/peak_gib": 1.5, "memory/added_gib": 0.5, "objective": loss, "objective/step": steps,
        "eval/loss": loss, "last/eval/loss": loss, "untuned/eval/loss": BEFORE, "adapter/parameters": 1000,
        "adapter/dtypes": "float32", "state": state, "seconds": 12.0,
    }  # fmt: skip


def _evaluation(step: int, losses: Sequence[float], answers: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "step": step,
        "row_losses": [loss * tokens for loss, tokens in zip(losses, TOKENS, strict=True)],
        "row_tokens": list(TOKENS),
        "answers": [
            {"prompt": question, "expected": expected, "generated": said if step else "?", "row": 10 * index,
             "scores": {"exact_match": float(said == expected and step > 0)}}
            for index, (question, expected, said) in enumerate(answers)
        ],
        "rows": [10 * index for index in range(len(losses))],
    }  # fmt: skip


def _right(answers: Sequence[tuple[str, str, str]]) -> float:
    return sum(expected == said for _, expected, said in answers) / len(answers)


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
