"""From the section `model` to a tokenizer and a quantised base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorasweep import random_model
from lorasweep.attention import loaded_with
from lorasweep.device import Device
from lorasweep.input_files import location
from lorasweep.schema import Model


def build_config(model: Model) -> PretrainedConfig:
    """Return the architecture, without its weights."""
    if model.source == "random":
        config: PretrainedConfig = random_model.build_config(model.shape)
        return config
    return AutoConfig.from_pretrained(location(model), **_repository(model))


def build_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Return the tokenizer, padding with a token that exists (embeddings are never resized)."""
    other = model.tokenizer is not None
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        model.tokenizer if other else location(model), **({} if other else _repository(model))
    )
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = _padding_token(tokenizer)
    if model.chat_template:
        path = Path(model.chat_template)
        from_file = model.chat_template.endswith((".jinja", ".j2"))
        tokenizer.chat_template = path.read_text() if from_file else model.chat_template
    return tokenizer


def build_model(model: Model, quantization: BitsAndBytesConfig | None, device: Device) -> PreTrainedModel:
    """Load the base onto the device, quantised while it loads."""
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        location(model),
        dtype=device.precision,
        quantization_config=quantization,
        attn_implementation=loaded_with(model.attention),
        device_map={"": 0 if device.is_gpu else "cpu"},
        **_repository(model),
    )
    return loaded


def empty_model(config: PretrainedConfig, trust_remote_code: bool = False) -> PreTrainedModel:
    """Return the architecture on the meta device: every module, no memory."""
    with torch.device("meta"):
        empty: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return empty


def context_length(config: PretrainedConfig) -> int | None:
    """Return how many tokens the model was made for, None if it does not say."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def _repository(model: Model) -> dict[str, Any]:
    return {"revision": model.revision or "main", "trust_remote_code": model.trust_remote_code}


def _padding_token(tokenizer: PreTrainedTokenizerBase) -> str:
    """Choose an existing token to pad with, other than eos where there is one; labels of padding never count anyway."""
    special = [token for token in tokenizer.get_added_vocab() if "pad" in token.lower()]
    for token in (*special, tokenizer.unk_token):
        if token and token != tokenizer.eos_token:
            return str(token)
    return str(tokenizer.eos_token)
