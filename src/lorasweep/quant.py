"""From the section `quant` to bitsandbytes' settings, and what its CPU layers need to keep their gradients."""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from lorasweep.device import Device
from lorasweep.schema import Quant


def build_quantization(quant: Quant, device: Device) -> BitsAndBytesConfig | None:
    """Return how transformers quantises the base while loading; None: not at all."""
    if quant.method == "none":
        return None
    if quant.method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quant.method,
        bnb_4bit_use_double_quant=quant.double_quant,
        bnb_4bit_compute_dtype=device.dtype(quant.compute_dtype),
        bnb_4bit_quant_storage=getattr(torch, quant.storage_dtype),
    )


def keep_gradients_on_cpu(model: PreTrainedModel) -> None:
    """Keep 4-bit layers off the AVX512-BF16 kernel, which has no backward.

    bitsandbytes 0.50 repacks the weights for it at the first forward without gradients (an evaluation, say); from then
    on no gradient passes the frozen layers, without any error: norm 0.291 instead of 0.627 on a tiny Llama.
    """
    for layer in linear_4bit_layers(model):
        layer.support_avx512bf16_for_cpu = False


def linear_4bit_layers(model: torch.nn.Module) -> list[Any]:
    """Return the 4-bit layers of a model."""
    import bitsandbytes

    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
