"""Training an existing adapter further: whether it fits the model and the section `lora`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorasweep.file_hashes import file_hash
from lorasweep.preflight import linear_layers, matching_modules
from lorasweep.record import adapter_folder
from lorasweep.rules import Problem
from lorasweep.schema import Lora, Run

WEIGHTS = "adapter_model.safetensors"
FIELDS = {"r": "r", "alpha": "lora_alpha", "bias": "bias", "use_rslora": "use_rslora", "use_dora": "use_dora"}
"""Fields of the section `lora` under PEFT's names."""
UNKNOWN_HERE = (
    "modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "target_parameters", "lora_bias",
    "trainable_token_indices", "alora_invocation_tokens", "use_qalora", "use_bdlora",
)  # fmt: skip
CHANGED_BASES = ("corda", "loftq", "lora_ga", "olora", "pissa")


def adapter_problems(run: Run, model: Any) -> Iterator[Problem]:
    """Yield what keeps `run.model.adapter` from being trained further on this (empty) model as this run says."""
    place = adapter_folder(Path(run.model.adapter or ""))
    if place is None:
        return
    try:
        made = json.loads((place / "adapter_config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        yield Problem("model.adapter", run.model.adapter, f"an adapter_config.json that can be read ({error})")
        return
    refusals = list(_refusals(made, place))
    yield from (Problem("model.adapter", run.model.adapter, allowed) for allowed in refusals)
    if refusals:
        return
    yield from _differences(run.lora, made, model)
    if misfit := _misfit(place / WEIGHTS, model):
        yield Problem("model.adapter", run.model.adapter, f"an adapter of this base: {misfit}")


def origin(adapter: str) -> dict[str, str]:
    """Return what a record says of the adapter that a run starts from."""
    place = adapter_folder(Path(adapter))
    assert place
    return {"location": str(place.resolve()), "sha256": file_hash(place / WEIGHTS)}


def other_base(adapter: str, location: str) -> str | None:
    """Return the base that the adapter names if it is not the one at `location`."""
    place = adapter_folder(Path(adapter))
    named = json.loads((place / "adapter_config.json").read_text()).get("base_model_name_or_path") if place else None
    return named if named and named != location else None


def _refusals(made: dict[str, Any], place: Path) -> Iterator[str]:
    if made.get("peft_type") != "LORA":
        yield f"a LoRA adapter; this is {made.get('peft_type')}"
    if not (place / WEIGHTS).is_file():
        yield f"a folder with {WEIGHTS}: other formats can run code when they are read"
    if unknown := [name for name in UNKNOWN_HERE if made.get(name)]:
        yield f"an adapter without {', '.join(unknown)}, which the section lora has no words for"
    if made.get("init_lora_weights") in CHANGED_BASES:
        yield f"an adapter of the base as it came; init_lora_weights={made['init_lora_weights']} changed the base"


def _differences(lora: Lora, made: dict[str, Any], model: Any) -> Iterator[Problem]:
    for ours, theirs in FIELDS.items():
        value, wanted = lora.effective_alpha if ours == "alpha" else getattr(lora, ours), made.get(theirs)
        if value != wanted:
            typed = str(wanted).lower()
            yield Problem(f"lora.{ours}", value, f"{typed}, as the adapter was made: lora.{ours}={typed}")
    given = made.get("target_modules") or []
    targets = given if isinstance(given, str) else sorted(given)
    if (wanted := adapted_layers(targets, model)) != adapted_layers(lora.target_modules, model):
        typed = _shortest(wanted, model) or f"'{targets}'"
        allowed = f"{typed}, as the adapter was made: 'lora.target_modules={typed}'"
        yield Problem("lora.target_modules", lora.target_modules, allowed)


def adapted_layers(targets: Any, model: Any) -> set[str]:
    """Return the names of the linear layers that PEFT adapts for these target modules."""
    linear = linear_layers(model)
    if targets == "all-linear":
        head = model.get_output_embeddings()
        return {name for name in linear if model.get_submodule(name) is not head}
    patterns = [targets] if isinstance(targets, str) else targets
    return {name for item in patterns for name in matching_modules(item, isinstance(targets, str), linear)}


def _shortest(layers: set[str], model: Any) -> str | None:
    leaves = sorted({name.rsplit(".", 1)[-1] for name in layers})
    choices: list[Any] = ["all-linear", leaves]
    found = next((choice for choice in choices if adapted_layers(choice, model) == layers), None)
    return f"[{','.join(found)}]" if isinstance(found, list) else found


def _misfit(weights: Path, model: Any) -> str | None:
    """Return the first layer that the weights do not fit, reading shapes alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        return f"{weights.name} cannot be read ({error})"
    linear = linear_layers(model)
    for name, shape in shapes.items():
        module, found, part = name.removeprefix("base_model.model.").rpartition(".lora_")
        if not found or part[:1] not in "AB":
            continue
        if module not in linear:
            return f"it adapts {module}, which this model has not"
        size, side = (shape[-1], linear[module][1]) if part.startswith("A") else (shape[0], linear[module][0])
        if size != side:
            return f"its {module} has size {size}, the model's {side}"
    return None
