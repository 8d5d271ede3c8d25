"""The command merge: the adapter added to its base in 16 bit, and the proof that the sum is what was trained."""

from __future__ import annotations

import copy
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
"""What is compared logit by logit: at most 0.25 GiB for each of two sets, with 128,000 words and 16 bit."""
TRAINING_ROWS = 32
"""Where a run held nothing out, the loss is that of so many rows it was trained on."""
TOLERANCE = 0.1
"""Merged twice an adapter has strength 2, at half its scale 0.5. Rounding takes from it what is smaller than half a
step of a weight: 1.6 % of SmolLM2's in bfloat16 after 12 steps, 0.0 % in float16; most of an adapter hardly trained."""


@dataclass(frozen=True)
class Comparison:
    """The 16-bit base with the adapter beside it, and with the adapter merged into it."""

    largest_difference: float
    """Of a logit, over the first rows."""
    equal_predictions: float
    """Share of positions whose likeliest token is the same."""
    strength: float
    """How much of what the adapter does to the outputs of its layers the merged layers do: 1 but for rounding."""

    @property
    def faithful(self) -> bool:
        """Whether the merged model is the base with the adapter, up to rounding."""
        return abs(self.strength - 1) <= TOLERANCE


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
    into_dequantised: bool
    """Into what the quantised weights stand for, not into the original ones."""


def merge(run: Run, folder: Path, out: Path, dtype: str | None, as_trained: bool = False) -> Merged:
    """Write the merged model to `out`; raises UserError where it would not be the model that was trained.

    The adapter is merged into the original base, or, as trained, into what its quantised weights stand for. Only one
    model is in memory at a time: first the base as it was trained on, then the base in 16 bit.
    """
    check_target(out)
    if as_trained and run.quant.method == "none":
        allowed = "left out: the base was not quantised, and is merged into as it was trained on"
        raise UserError(Problem("--as-trained", True, allowed))
    trained_on, merges_in = Device.current(run.model.dtype), _sixteen_bit(run, dtype)
    tokenizer = build_tokenizer(run.model)
    split, rows = _evaluation_rows(run, tokenizer)
    settings = replace(run.evaluation, generate=0)
    loss_as_trained = Evaluator(rows, tokenizer, settings, trained_on)(saved.load(run, folder, trained_on)).loss
    _free_memory()
    precision = merges_in.facts()["precision"]
    model = saved.load(run, folder, merges_in, quantised=False, dequantised=as_trained)
    merged, comparison = merge_and_compare(model, rows, merges_in)
    if not comparison.faithful:
        raise UserError(Problem("--dtype", precision, _unfaithful(comparison)))
    scores = Evaluator(rows, tokenizer, settings, merges_in)(merged)
    count, method = len(scores.row_losses), run.quant.method
    result = Merged(out, precision, split, count, comparison, loss_as_trained, scores.loss, method, as_trained)
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
    """Merge the adapter into its 16-bit base and compare what both predict for the first rows, and layer by layer."""
    with lora.untuned(model):
        untuned = _layer_outputs(model)
    tuned, beside = _layer_outputs(model), _logits(model, rows, device)
    try:
        merged = lora.merge_adapter(model)
    except ValueError as error:
        raise UserError(Problem("RUN", "adapter", f"an adapter that merges into finite weights ({error})")) from None
    inside = _logits(merged, rows, device)
    differences = [(one - other).float().abs().max() for one, other in zip(inside, beside, strict=True)]
    equal = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(inside, beside, strict=True)])
    strength = _strength(untuned, tuned, _layer_outputs(merged, list(tuned)))
    return merged, Comparison(float(max(differences)), float(equal.float().mean()), strength)


def _layer_outputs(model: Any, names: list[str] | None = None) -> dict[str, torch.Tensor]:
    """Return what each adapted layer makes of a random input, in float32: rounding enters through weights alone."""
    prefix = "base_model.model."
    if names is None:
        names = [name.removeprefix(prefix) for name, module in model.named_modules() if hasattr(module, "lora_A")]
    else:
        prefix = ""
    found = {}
    for name in names:
        layer = copy.deepcopy(model.get_submodule(prefix + name)).float()
        place = layer.weight.device
        chance = torch.Generator().manual_seed(0)
        with torch.no_grad():
            found[name] = layer(torch.randn(1, layer.in_features, generator=chance).to(place))[0].cpu()
    return found


def _strength(untuned: dict[str, Any], tuned: dict[str, Any], merged: dict[str, Any]) -> float:
    """Return the least-squares factor between what the adapter changes and what merging has changed."""
    effect = torch.cat([tuned[name] - untuned[name] for name in tuned])
    change = torch.cat([merged[name] - untuned[name] for name in tuned])
    size = effect.square().sum()
    return float((effect * change).sum() / size) if size else 1.0


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
    if "eval" in splits:
        return "eval", splits["eval"].rows
    rows = splits["train"].rows
    return "train", rows.select(range(min(len(rows), TRAINING_ROWS)))


def _free_memory() -> None:
    """Give back what a model took that no name refers to any more; its layers and hooks refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _unfaithful(comparison: Comparison) -> str:
    return (
        f"one in which the merged layers do what the adapter does; they do {comparison.strength:.2f} times as much,"
        f" and {comparison.equal_predictions:.0%} of the predictions are equal. Nothing was written. Where it is less,"
        " changes smaller than half a step of the weights' precision were rounded away: float16 has steps an eighth as"
        " large"
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
    base = "dequantised" if result.into_dequantised else "original"
    rows = [
        ("merged", f"{result.folder}, {result.dtype}, {size:.2f} GiB"),
        ("against the adapter beside it", f"{comparison.equal_predictions:.1%} of the predictions equal, logits differ"
         f" by at most {comparison.largest_difference:.3g}, strength of the adapter {comparison.strength:.3f}"),
        ("loss as trained", f"{result.loss_as_trained:.4f} (base in {result.quantisation})"),
        ("loss merged", f"{result.loss_merged:.4f} ({result.dtype}, {base} base)"),
        ("rows", f"{result.count} of {result.rows}" + (", which training has seen" if result.rows == "train" else "")),
    ]  # fmt: skip
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console.print(table)
