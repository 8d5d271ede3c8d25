"""What a run has come to, as hashes: of equal runs they are equal, to the last bit and dtype."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def adapter_digest(weights: Path) -> str | None:
    """Return a hash of the tensors in a safetensors file, whatever order and header they are kept with."""
    if not weights.is_file():
        return None
    with open(weights, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(size))
        digest = hashlib.sha256()
        for name in sorted(tensors.keys() - {"__metadata__"}):
            facts = tensors[name]
            begin, end = facts["data_offsets"]
            file.seek(8 + size + begin)
            digest.update(f"{name} {facts['dtype']} {facts['shape']}\n".encode() + file.read(end - begin))
    return digest.hexdigest()


def end_digests(trainer: Any) -> dict[str, str]:
    """Return hashes of the trained parameters and of the optimizer as they are, with the dtypes of its state."""
    from lorasweep import training_state

    state = training_state.take(trainer)
    trained = {name: value for name, value in state.tensors.items() if name.startswith("parameter/")}
    kept = {name: value for name, value in state.tensors.items() if name.startswith("optimizer/")}
    return {
        "parameters": tensor_digest(trained),
        "optimizer": tensor_digest(kept, json.dumps(state.values["optimizer"], sort_keys=True)),
        "optimizer_dtypes": ", ".join(sorted({_dtype(value) for value in kept.values()})),
    }


def tensor_digest(tensors: Mapping[str, torch.Tensor], *words: str) -> str:
    """Return a hash of tensors by name: values, shapes, dtypes; and of what else there is to say."""
    digest = hashlib.sha256("\n".join(words).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {_dtype(value)} {list(value.shape)}\n".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: torch.Tensor) -> bytes:
    import torch

    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
