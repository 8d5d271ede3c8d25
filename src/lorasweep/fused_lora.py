"""A frozen linear layer and its LoRA in one operation forward and one backward, on PEFT's own modules."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import bitsandbytes
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

NESTED_BLOCK = 256
"""Constants that share a constant, with double quantisation; bitsandbytes has no other number."""
BASES = (torch.nn.Linear, bitsandbytes.nn.Linear4bit)


def fuse_layers(model: PeftModel, precision: torch.dtype, dequantised: bool = False) -> int:
    """Have the LoRA layers of a model that compute in `precision` run fused in training; return how many do.

    PEFT adds the update to the layer's output in passes of their own over tensors of (tokens, features); here it is
    accumulated by the matrix product that makes it. Scores and answers come from the plain layers. What is adapted in
    another way (DoRA, int8, embeddings) stays as it is. `dequantised`: 4-bit weights are held in `precision` beside
    themselves, and not made in every forward and every backward.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer) and _fits(module, precision)]
    for layer in layers:
        layer.__class__ = _fused(type(layer))  # type: ignore[arg-type]
        weight, constants, quantisation = _quantised(layer.get_base_layer())
        if dequantised and constants:
            layer.held = _weight(weight, constants, *quantisation, precision)
    return len(layers)


def _fits(layer: Any, precision: torch.dtype) -> bool:
    base, adapters = layer.get_base_layer(), list(layer.lora_A)
    if type(base) not in BASES or len(adapters) != 1 or layer.lora_variant or getattr(layer, "fan_in_fan_out", False):
        return False
    computes_in = getattr(base, "compute_dtype", base.weight.dtype)
    return computes_in == precision and layer.lora_B[adapters[0]].bias is None


@functools.cache
def _fused(layer_class: Any) -> Any:
    class Fused(layer_class):
        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not self.training or self.disable_adapters or self.merged or args or kwargs:
                plain: torch.Tensor = super().forward(x, *args, **kwargs)
                return plain
            return _forward(self, x)

    Fused.__name__, Fused.__qualname__ = layer_class.__name__, layer_class.__qualname__
    return Fused


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Return what PEFT's forward does, rounded once instead of three times."""
    (name,), base = layer.lora_A, layer.get_base_layer()
    dtype = getattr(base, "compute_dtype", base.weight.dtype)
    states, dropout = x.to(dtype), layer.lora_dropout[name]
    dropped = None if isinstance(dropout, torch.nn.Identity) else dropout(states)
    a = layer.lora_A[name].weight.to(dtype)
    b = (layer.lora_B[name].weight * layer.scaling[name]).to(dtype)
    held = getattr(layer, "held", None)
    weight, constants, quantisation = _quantised(base) if held is None else (held, [], UNQUANTISED)
    apply: Any = Adapted.apply
    output: torch.Tensor = apply(states, dropped, a, b, quantisation, weight, *constants)
    if base.bias is not None:
        output = output + base.bias.to(dtype)
    return output.to(x.dtype)


UNQUANTISED: tuple[list[int], int, str] = ([], 0, "")


def _quantised(base: Any) -> tuple[torch.Tensor, list[torch.Tensor], tuple[list[int], int, str]]:
    """Return a weight, its constants, and shape, block and type of the quantisation; no constants: it has none."""
    weight, state = base.weight.detach(), getattr(base.weight, "quant_state", None)
    if state is None:
        return weight, [], UNQUANTISED
    nested = [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
    return weight, [state.absmax, *nested], (list(state.shape), state.blocksize, state.quant_type)


class Adapted(torch.autograd.Function):
    """x W' + dropped A' B' with W frozen; x takes the place of `dropped` if that is None."""

    @staticmethod
    def forward(ctx: Any, x: Any, dropped: Any, a: Any, b: Any, quantisation: Any, *weight: Any) -> torch.Tensor:
        """Return (…, out) for x of (…, in), A of (r, in) and B of (out, r)."""
        packed, *constants = weight
        output, inner = torch.ops.lorasweep.adapted(x, dropped, a, b, packed, constants, *quantisation)
        ctx.apart, ctx.quantisation = dropped is not None, quantisation
        ctx.save_for_backward(x if dropped is None else dropped, inner, a, b, *weight)
        assert isinstance(output, torch.Tensor)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Return the gradients of x, dropped, A and B."""
        dropped, inner, a, b, packed, *constants = ctx.saved_tensors
        of_x, of_dropped, of_a, of_b = torch.ops.lorasweep.adapted_backward(
            gradient, dropped, inner, a, b, packed, constants, *ctx.quantisation, ctx.apart
        )
        return of_x, of_dropped if ctx.apart else None, of_a, of_b, None, None, *([None] * len(constants))


WEIGHT = "Tensor packed, Tensor[] constants, int[] shape, int block, str kind"
LIBRARY: Any = torch.library.Library("lorasweep", "FRAGMENT")  # type: ignore[no-untyped-call]
LIBRARY.define(f"adapted(Tensor x, Tensor? dropped, Tensor a, Tensor b, {WEIGHT}) -> (Tensor, Tensor)")
LIBRARY.define(
    f"adapted_backward(Tensor gradient, Tensor dropped, Tensor inner, Tensor a, Tensor b, {WEIGHT}, bool apart)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)


def _weight(
    packed: torch.Tensor, constants: Sequence[torch.Tensor], shape: list[int], block: int, kind: str, dtype: torch.dtype
) -> torch.Tensor:
    """Return the weight, (out, in)."""
    if not constants:
        return packed
    absmax = constants[0]
    if len(constants) > 1:
        _, scales, code, offset = constants
        bnb = torch.ops.bitsandbytes
        absmax = bnb.dequantize_blockwise.default(absmax, scales, code, NESTED_BLOCK, torch.float32) + offset
    weight: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(packed, absmax, block, kind, shape, dtype)
    return weight


def _adapted(
    x: Any, dropped: Any, a: Any, b: Any, packed: Any, constants: Any, shape: Any, block: int, kind: str
) -> Any:
    rows = x.flatten(0, -2)
    output = rows @ _weight(packed, constants, shape, block, kind, x.dtype).t()
    inner = (rows if dropped is None else dropped.flatten(0, -2)) @ a.t()
    output.addmm_(inner, b.t())
    return output.view(*x.shape[:-1], -1), inner


def _adapted_backward(
    gradient: Any, dropped: Any, inner: Any, a: Any, b: Any, packed: Any, constants: Any, shape: Any, block: int,
    kind: str, apart: bool,
) -> Any:  # fmt: skip
    up, rows = gradient.flatten(0, -2), dropped.flatten(0, -2)
    of_x = up @ _weight(packed, constants, shape, block, kind, up.dtype)
    of_inner = up @ b
    of_a, of_b = of_inner.t() @ rows, up.t() @ inner
    if apart:
        return of_x.view(dropped.shape), (of_inner @ a).view(dropped.shape), of_a, of_b
    return of_x.addmm_(of_inner, a).view(dropped.shape), of_x.new_empty(0), of_a, of_b


def _adapted_shapes(
    x: Any, dropped: Any, a: Any, b: Any, packed: Any, constants: Any, shape: Any, block: int, kind: str
) -> Any:
    return x.new_empty(*x.shape[:-1], b.shape[0]), x.new_empty(math.prod(x.shape[:-1]), a.shape[0])


def _adapted_backward_shapes(
    gradient: Any, dropped: Any, inner: Any, a: Any, b: Any, packed: Any, constants: Any, shape: Any, block: int,
    kind: str, apart: bool,
) -> Any:  # fmt: skip
    of_dropped = dropped.new_empty(dropped.shape if apart else 0)
    return dropped.new_empty(dropped.shape), of_dropped, a.new_empty(a.shape), b.new_empty(b.shape)


for name, kernel, shapes in (
    ("adapted", _adapted, _adapted_shapes),
    ("adapted_backward", _adapted_backward, _adapted_backward_shapes),
):
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lorasweep::{name}", shapes, lib=LIBRARY)
