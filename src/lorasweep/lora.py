"""From the section `lora` to an adapter on a model."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, set_seed

from lorasweep.schema import Lora


def build_adapter(lora: Lora) -> LoraConfig:
    """Return PEFT's settings for the adapter."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
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
    return adapted


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
