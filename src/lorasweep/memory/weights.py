"""What does not depend on the batch, by arithmetic: the base, the adapter and what the optimizer keeps of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.quantizers.base import get_keys_to_not_convert

from lorasweep.preflight import linear_layers, matching_modules
from lorasweep.schema import Lora, Quant

BLOCK, NESTED_BLOCK = 64, 256
"""Weights, and constants of theirs, that share a constant in 4 bit (bitsandbytes on CUDA)."""
FLOAT = 4
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Base:
    """Bytes of the frozen model."""

    quantised: int
    constants: int
    rest: int
    """What is not quantised: embeddings, output head, norms; everything without quantisation."""


def base_bytes(quant: Quant, model: PreTrainedModel, precision: torch.dtype) -> Base:
    """Return what the base takes, loaded as `quant` says with all else in `precision`; the model may be empty."""
    total = sum(parameter.numel() for parameter in model.parameters())  # tied ones once
    shapes = [] if quant.method == "none" else [linear_layers(model)[name] for name in quantised_layers(model)]
    weights = sum(math.prod(shape) for shape in shapes)
    rest = (total - weights) * precision.itemsize
    if quant.method == "int8":
        return Base(weights, sum(rows for rows, _ in shapes) * FLOAT, rest)
    blocks = [math.ceil(math.prod(shape) / BLOCK) for shape in shapes]
    nested = sum(count + math.ceil(count / NESTED_BLOCK) * FLOAT for count in blocks)
    return Base(weights // 2, nested if quant.double_quant else sum(blocks) * FLOAT, rest)


def quantised_layers(model: PreTrainedModel) -> list[str]:
    """Return the linear layers that transformers quantises: all but the output head and what is tied."""
    kept = get_keys_to_not_convert(model)
    return [name for name in linear_layers(model) if not any(name == key or name.startswith(f"{key}.") for key in kept)]


def adapted_layers(lora: Lora, model: PreTrainedModel) -> dict[str, Shape]:
    """Return the layers that PEFT adapts, by name, each with its out and in features."""
    layers = linear_layers(model)
    targets = lora.target_modules
    if targets == "all-linear":
        head = model.get_output_embeddings()
        return {name: shape for name, shape in layers.items() if model.get_submodule(name) is not head}
    patterns = [targets] if isinstance(targets, str) else targets
    found = {name for target in patterns for name in matching_modules(target, isinstance(targets, str), layers)}
    return {name: shape for name, shape in layers.items() if name in found}


def adapter_shapes(lora: Lora, model: PreTrainedModel) -> list[Shape]:
    """Return the shapes of all tensors that are trained."""
    shapes: list[Shape] = []
    adapted = adapted_layers(lora, model)
    for rows, columns in adapted.values():
        shapes += [(lora.r, columns), (rows, lora.r), *([(rows,)] if lora.use_dora else [])]
    for name, parameter in model.named_parameters():
        layer, _, leaf = name.rpartition(".")
        if leaf == "bias" and (lora.bias == "all" or (lora.bias == "lora_only" and layer in adapted)):
            shapes.append(tuple(parameter.shape))
    return shapes


@dataclass(frozen=True)
class States:
    """Bytes that an optimizer takes."""

    held: int
    paged: int
    """In memory that CUDA moves to the host when the GPU has none left."""
    step: int
    """For the time of a step."""


NUMBERS = {"adamw": 2, "lion": 1, "ademamix": 3, "rmsprop": 1, "adagrad": 1, "sgd": 0}
"""Numbers kept per parameter."""
SMALLEST_8BIT, SMALLEST_PAGED = 4096, 100_000
"""Elements below which bitsandbytes keeps 32 bit, and does not page."""
STATE_BLOCK = 256
"""8-bit states that share a constant."""


def optimizer_bytes(name: str, shapes: Iterable[Shape]) -> States:
    """Return what the optimizer of that name takes for float32 tensors of these shapes."""
    shapes = list(shapes)
    elements = sum(map(math.prod, shapes))
    if name == "adafactor":  # rows and columns of two dimensions instead of their product; a step works on one tensor
        factored = sum(sum(shape) if len(shape) > 1 else math.prod(shape) for shape in shapes)
        return States(factored * FLOAT, 0, 2 * FLOAT * max(map(math.prod, shapes)))
    count = next(number for key, number in NUMBERS.items() if key in name)
    held = paged = 0
    for size in map(math.prod, shapes):
        small = "8bit" not in name or size < SMALLEST_8BIT
        state = count * size * (FLOAT if small else 1)
        held += 0 if small else count * math.ceil(size / STATE_BLOCK) * FLOAT
        if name.startswith("paged") and size >= SMALLEST_PAGED:
            paged += state
        else:
            held += state
    # Torch's own optimizers work on all tensors at once and make the root of the second moment of each.
    at_once = name in ("adamw_torch", "rmsprop", "adagrad")
    return States(held, paged, elements * FLOAT if at_once else 0)
