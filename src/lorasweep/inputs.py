"""What a run learns from: tokenizer, tokenised splits, and what identifies them and the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorasweep import hub
from lorasweep.data import Split, build_datasets, file_hash, fingerprint
from lorasweep.model import build_config, build_tokenizer, context_length, location
from lorasweep.schema import Model, Run


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
        return {"data": fingerprint(run.data, splits), "model": _model_facts(run.model)}

    return Inputs(tokenizer, splits, facts)


def _model_facts(model: Model) -> dict[str, Any]:
    place = location(model)
    if (commit := hub.commit(place, "model", model.revision)) or not Path(place).is_dir():
        return {"location": place, "commit": commit}
    return {
        "location": place,
        "sha256": {path.name: file_hash(path) for path in sorted(Path(place).iterdir()) if path.is_file()},
    }
