"""What a run learns from: tokenizer, tokenised splits, and what identifies them and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorasweep.data import Split, build_datasets, fingerprint
from lorasweep.input_files import model_facts, template_text, tokenizer_facts
from lorasweep.model import build_config, build_tokenizer, context_length
from lorasweep.schema import Run


@dataclass(frozen=True)
class Inputs:
    """Tokenizer and splits; `facts` tells, for the record, what the data and the model are."""

    tokenizer: PreTrainedTokenizerBase
    splits: dict[str, Split]
    facts: Callable[[], dict[str, Any]]
    """Hashes whole files, the first time it is called."""


def prepare(run: Run) -> Inputs:
    """Return the inputs that the sections `model` and `data` describe."""
    tokenizer = build_tokenizer(run.model)
    splits = build_datasets(run.data, tokenizer, context_length(build_config(run.model)))

    @cache
    def facts() -> dict[str, Any]:
        return {
            "data": fingerprint(run.data, splits),
            "model": model_facts(run.model),
            "tokenizer": tokenizer_facts(run.model) | _in_use(tokenizer),
        }

    return Inputs(tokenizer, splits, facts)


def _in_use(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return what a tokenizer is set to, whichever files that came from."""
    template = template_text(tokenizer.chat_template)
    return {
        "special": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "vocabulary": len(tokenizer),
        "chat_template": template and hashlib.sha256(template.encode()).hexdigest(),
    }
