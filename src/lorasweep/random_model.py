"""A Llama of any shape with random weights, and its own tokenizer: for tests, dry runs, true speed and memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorasweep import cache, demo_rows
from lorasweep.schema import Shape

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VERSION = 1
"""Part of the cache key: raise it when what is written changes."""


def folder(shape: Shape) -> Path:
    """Return the model folder of that shape in the user cache; the same weights every time."""
    return cache.folder(name(shape), lambda staging: _write(shape, staging))


def name(shape: Shape) -> str:
    """Return the name of that folder in the cache."""
    key = hashlib.sha256(json.dumps([VERSION, asdict(shape)]).encode()).hexdigest()[:12]
    return f"models/random-{key}"


def _write(shape: Shape, target: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = _train_tokenizer()
    config = build_config(shape, tokenizer)
    large = shape.hidden_size * shape.intermediate_size * shape.layers > 2**28
    with torch.random.fork_rng(), torch.device("cuda" if large and torch.cuda.is_available() else "cpu"):
        torch.manual_seed(0)
        previous = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(previous)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def build_config(shape: Shape, tokenizer: Any = None) -> Any:
    """Return the architecture of that shape, without its weights."""
    from transformers import LlamaConfig

    tokenizer = tokenizer or _train_tokenizer()
    return LlamaConfig(
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        vocab_size=max(shape.vocab_size or 0, len(tokenizer)),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )


def _train_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "<|im_start|>", "<|im_end|>", "<pad>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = demo_rows.generate(200, seed=0)
    tokenizer.train_from_iterator((f"{row['prompt']} {row['completion']}" for row in rows), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>"
    )
    fast.chat_template = TEMPLATE
    return fast
