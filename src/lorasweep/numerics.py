"""How a run computes: the flags of torch, and what model, adapter and trainer really are once they are loaded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch


def numerics(trainer: Any) -> dict[str, Any]:
    """Return what a record says of how a trainer computes, for all that can change a bit."""
    model, arguments = trainer.model, trainer.args
    return {
        **_flags(),
        **trainer.engine.facts(),
        "dtypes": _dtypes(model, is_trained=False),
        "adapter_dtypes": _dtypes(model, is_trained=True),
        "compute_dtypes": _compute_dtypes(model),
        "mixed_precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else None,
        "gradient_checkpointing": bool(getattr(model, "is_gradient_checkpointing", False)),
    }


def _flags() -> dict[str, Any]:
    cuda, attention = torch.backends.cuda, ("flash", "mem_efficient", "math", "cudnn")
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        # allow_tf32 and get_float32_matmul_precision raise where anything has set the newer switches
        "tf32": {"matmul": cuda.matmul.fp32_precision, "cudnn": torch.backends.cudnn.fp32_precision},
        "sdpa": [name for name in attention if getattr(cuda, f"{name}_sdp_enabled")()],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.enabled,
    }


def _dtypes(model: torch.nn.Module, is_trained: bool) -> dict[str, int]:
    """Return how many numbers of each dtype there are; a 4-bit weight counts as the bytes that hold it."""
    found: Counter[str] = Counter()
    for value in model.parameters():
        if value.requires_grad == is_trained:
            found[_name(value.dtype)] += value.numel()
    return dict(sorted(found.items()))


def _compute_dtypes(model: torch.nn.Module) -> list[str]:
    """Return in what quantised layers multiply."""
    found = {getattr(module, "compute_dtype", None) for module in model.modules()}
    return sorted(_name(dtype) for dtype in found - {None})


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
