"""From the section `lora` to an adapter on a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, set_seed

from lorasweep.record import share_weights
from lorasweep.schema import Lora

WEIGHTS = "adapter_model.safetensors"
CHANGES_BASE = ("olora", "pissa")
"""Inits that take what A and B start as out of the base, so that the adapter fits the changed base only."""


def build_adapter(lora: Lora) -> LoraConfig:
    """Return PEFT's settings for the adapter."""
    alpha = lora.effective_alpha
    return LoraConfig(
        r=lora.r,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias=lora.bias,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init == "default" else lora.init,
        task_type="CAUSAL_LM",
    )


def add_adapter(model: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    """Put a fresh adapter on the model, seeded here so that nothing done before changes how it starts."""
    set_seed(seed)
    adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    if config.init_lora_weights in CHANGES_BASE:
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        adapted.start = {name: value.detach().cpu().clone() for name, value in state.items()}
    return adapted


def load_adapter(
    model: PreTrainedModel, folder: Path, *, trainable: bool = False, dropout: float = 0.0, seed: int = 0
) -> PeftModel:
    """Put a saved adapter on the model, its values in float32; to train it further, with dropout and a seed."""
    config = LoraConfig.from_pretrained(str(folder))
    config.lora_dropout = dropout
    biases = {name: value for name, value in model.named_parameters() if name.endswith("bias")}
    kept = [(value, value.detach().clone()) for value in biases.values() if config.bias != "none"]
    set_seed(seed)
    adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, config=config)
    assert isinstance(adapted, PeftModel)
    adapted.base_biases = kept
    return adapted


def changes_base(lora: Lora, adapter: Path | None = None) -> bool:
    """Return whether tensors of the base itself change under a fresh adapter, or under the one saved in `adapter`."""
    config = LoraConfig.from_pretrained(str(adapter)) if adapter else build_adapter(lora)
    return config.bias != "none" or config.init_lora_weights not in (True, False, "gaussian", "orthogonal")


def starts_as_base(lora: Lora) -> bool:
    """Return whether the model under a fresh adapter is its base bit for bit: B is zero, and no norm is taken."""
    return lora.init in ("default", "gaussian") and not lora.use_dora


@contextmanager
def untuned(model: PeftModel) -> Iterator[None]:
    """Make the model its base for a while: the adapter off, and trained biases, which PEFT leaves, as they were."""
    trained = [(value, value.detach().clone()) for value, _ in model.base_biases]
    with model.disable_adapter(), torch.no_grad():
        try:
            for value, original in model.base_biases:
                value.copy_(original)
            yield
        finally:
            for value, tuned in trained:
                value.copy_(tuned)


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """Add the adapter to the weights of its base and return the base; raises ValueError on weights not finite."""
    merged: PreTrainedModel = model.merge_and_unload(safe_merge=True)
    return merged


def save_adapter(model: Any, folder: Path) -> None:
    """Save the adapter as one for the base as it came, whatever its init took out of it."""
    # Embeddings are never resized here; asked to find out by itself, PEFT would look the base up on the hub.
    model.save_pretrained(folder, save_embedding_layers=False)
    if start := getattr(model, "start", None):
        _fit_to_untouched_base(folder, start)
    share_weights(folder)


def _fit_to_untouched_base(folder: Path, start: dict[str, torch.Tensor]) -> None:
    """Rewrite an adapter as [A; A at the start], [B, -B at the start]: twice the rank, the same model.

    PEFT would take the start out of the base again at every load. That needs the very weights of training (a merge
    into 16 bit has others), other loaders do not know of it, and with the adapter off the base would stay changed.
    """
    state, config = load_file(folder / WEIGHTS), LoraConfig.from_pretrained(str(folder))
    for name, value in state.items():
        if ".lora_A." in name:
            state[name] = torch.cat([value, start[name].to(value.dtype)], 0)
        elif ".lora_B." in name:
            state[name] = torch.cat([value, -start[name].to(value.dtype)], 1)
    config.lora_alpha *= math.sqrt(2) if config.use_rslora else 2
    config.r, config.init_lora_weights = 2 * config.r, True
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def values(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of what training changes, in float32."""
    return {name: parameter.detach().clone().float() for name, parameter in trainable(model).items()}


def put_back(model: torch.nn.Module, saved: dict[str, torch.Tensor]) -> None:
    """Give trainable parameters saved values with their precision.

    TRL casts the adapter of a quantised base to bfloat16, in which a step of a low learning rate is lost to rounding
    (half of lora_A at 2e-5) and Adam's moments cannot decay; adapters belong in float32.
    """
    for name, parameter in trainable(model).items():
        parameter.data = saved[name].to(parameter.device)
