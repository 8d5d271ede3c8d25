"""The command merge: the adapter added to its base in 16 bit, and the proof that the sum is what was trained."""

from __future__ import annotations

import gc
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from lorasweep import lora, saved
from lorasweep.data import build_datasets, file_hash
from lorasweep.device import Device
from lorasweep.evaluation import Evaluator, scoring
from lorasweep.model import build_config, build_tokenizer, context_length
from lorasweep.record import share_weights, write_json
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run

COMPARED_ROWS, COMPARED_TOKENS = 4, 256
"""What is compared logit by logit: with 128,000 words and 16 bit, 0.25 GiB each for two sets of logits."""
MOST_LOST = 0.5
"""Of what the adapter changes. Merged twice or at the wrong scale it is 1 or more; rounding takes a few hundredths."""


@dataclass(frozen=True)
class Comparison:
    """Logits of the 16-bit base with the adapter beside it, and merged into it."""

    largest_difference: float
    equal_predictions: float
    """Share of positions whose likeliest token is the same."""
    lost: float
    """Root mean square of the difference as a share of what the adapter changes."""

    @property
    def faithful(self) -> bool:
        """Whether the merged model is the base with the adapter, up to rounding."""
        return self.lost <= MOST_LOST


@dataclass(frozen=True)
class Merged:
    """What a merge wrote, and what it is worth."""

    folder: Path
    dtype: str
    rows: str
    count: int
    comparison: Comparison
    loss_as_trained: float
    loss_merged: float
    quantisation: str


def merge(run: Run, folder: Path, out: Path, dtype: str | None) -> Merged:
    """Write the merged model to `out`; raises UserError where it would not be the model that was trained.

    Only one model is in memory at a time: first the base as it was trained on, then the base in 16 bit.
    """
    check_target(out)
    trained_on, merges_in = Device.current(run.model.dtype), _sixteen_bit(run, dtype)
    tokenizer = build_tokenizer(run.model)
    split, rows = _evaluation_rows(run, tokenizer)
    evaluated = Evaluator(rows, tokenizer, replace(run.evaluation, generate=0), trained_on)
    as_trained = evaluated(saved.load(run, folder, trained_on)).loss
    _free_memory()
    precision = merges_in.facts()["precision"]
    merged, comparison = merge_and_compare(saved.load(run, folder, merges_in, quantised=False), rows, merges_in)
    if not comparison.faithful:
        raise UserError(Problem("--dtype", precision, _unfaithful(comparison)))
    evaluated.device = merges_in
    loss, count = evaluated(merged).loss, len(evaluated.rows)
    result = Merged(out, precision, split, count, comparison, as_trained, loss, run.quant.method)
    _write(result, merged, tokenizer, run, folder)
    return result


def check_target(out: Path) -> None:
    """Raise UserError unless `out` can be made."""
    if out.exists():
        raise UserError(Problem("OUT", str(out), "a new folder; this one exists"))
    parent = next(place for place in out.absolute().parents if place.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(Problem("OUT", str(out), f"a folder that can be made; {parent} cannot be written"))


def merge_and_compare(model: Any, rows: Any, device: Device) -> tuple[Any, Comparison]:
    """Merge the adapter into its 16-bit base and compare what both predict for the first rows."""
    with lora.untuned(model):
        base = _logits(model, rows, device)
    beside = _logits(model, rows, device)
    effect = [(tuned - untuned).float().square().sum() for tuned, untuned in zip(beside, base, strict=True)]
    del base
    try:
        merged = lora.merge_adapter(model)
    except ValueError as error:
        raise UserError(Problem("RUN", "adapter", f"an adapter that merges into finite weights ({error})")) from None
    inside = _logits(merged, rows, device)
    differences = [(one - other).float() for one, other in zip(inside, beside, strict=True)]
    missed = sum(item.square().sum() for item in differences)
    equal = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(inside, beside, strict=True)])
    lost = float((missed / sum(effect)) ** 0.5) if missed else 0.0
    return merged, Comparison(float(max(item.abs().max() for item in differences)), float(equal.float().mean()), lost)


def _logits(model: Any, rows: Any, device: Device) -> list[torch.Tensor]:
    """Return the logits of each of the first rows, (tokens, vocabulary), on the CPU in the model's precision."""
    found = []
    with scoring(model, device):
        for row in rows.select(range(min(COMPARED_ROWS, len(rows)))):
            ids = torch.tensor([row["input_ids"][:COMPARED_TOKENS]], device=model.device)
            found.append(model(input_ids=ids, use_cache=False).logits[0].to("cpu", device.precision))
    return found


def _sixteen_bit(run: Run, dtype: str | None) -> Device:
    precision = Device.current(run.model.dtype).precision
    own = str(precision).removeprefix("torch.") if precision != torch.float32 else "bfloat16"
    return Device.current(dtype or own)


def _evaluation_rows(run: Run, tokenizer: PreTrainedTokenizerBase) -> tuple[str, Any]:
    splits = build_datasets(run.data, tokenizer, context_length(build_config(run.model)))
    name = "eval" if "eval" in splits else "train"
    return name, splits[name].rows


def _free_memory() -> None:
    """Give back what a model took that no name refers to any more; its layers and hooks refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unfaithful(comparison: Comparison) -> str:
    return (
        f"a precision that keeps what the adapter changes: merged, {comparison.lost:.0%} of it is lost, and"
        f" {comparison.equal_predictions:.0%} of the predictions stay. Nothing was written. float16 rounds less than"
        " bfloat16; an adapter that changes less than rounding does has hardly been trained"
    )


def _write(result: Merged, model: Any, tokenizer: PreTrainedTokenizerBase, run: Run, folder: Path) -> None:
    out = result.folder.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        share_weights(staging)
        values = {name: value for name, value in asdict(result).items() if name != "folder"}
        adapter = {"run": folder.resolve().name, "sha256": file_hash(saved.kept_adapter(folder) / lora.WEIGHTS)}
        base = {"name": Path(run.model.name).name if os.path.exists(run.model.name) else run.model.name,
                "revision": run.model.revision}  # fmt: skip
        write_json(staging / "merge.json", {"base": base, "adapter": adapter, **values})
        staging.rename(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def show(result: Merged) -> None:
    """Print what was written and how it compares with what was trained."""
    console, comparison = Console(highlight=False), result.comparison
    size = sum(path.stat().st_size for path in result.folder.rglob("*") if path.is_file()) / 2**30
    rows = [
        ("merged", f"{result.folder}, {result.dtype}, {size:.2f} GiB"),
        ("against the adapter beside it", f"{comparison.equal_predictions:.1%} of the predictions equal, logits differ"
         f" by at most {comparison.largest_difference:.3g}: {comparison.lost:.1%} of the adapter's effect"),
        ("loss as trained", f"{result.loss_as_trained:.4f} (base in {result.quantisation})"),
        ("loss merged", f"{result.loss_merged:.4f} ({result.dtype})"),
        ("rows", f"{result.count} of {result.rows}" + (", which training has seen" if result.rows == "train" else "")),
    ]  # fmt: skip
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console.print(table)
