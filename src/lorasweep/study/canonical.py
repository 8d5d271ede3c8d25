"""When two configs train the same: what has no effect does not count."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from lorasweep.schema import Run
from lorasweep.study.definition import FREE

WITHOUT_WARMUP = ("constant",)


def config_key(run: Run) -> str:
    """Return a hash that is the same for configs that train the same."""
    return hashlib.sha256(json.dumps(canonical(run), sort_keys=True).encode()).hexdigest()[:20]


def canonical(run: Run) -> dict[str, Any]:
    """Return a config's values with those of no effect as if they had not been given."""
    values = {name: value for name, value in asdict(run).items() if name not in FREE}
    lora, scheduler, quant = values["lora"], values["scheduler"], values["quant"]
    lora["alpha"], lora["scale"] = run.lora.effective_alpha, None
    if scheduler["name"] in WITHOUT_WARMUP:
        scheduler["warmup"] = 0
    if quant["method"] == "none":
        quant["storage_dtype"] = None
    if not values["evaluation"]["generate"]:
        values["evaluation"]["max_new_tokens"] = None
    return values
