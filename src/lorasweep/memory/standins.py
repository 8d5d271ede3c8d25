"""Stand-ins that take the memory of what runs on a GPU only: quantised layers, attention, dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes
import torch
from torch import Tensor

from lorasweep.memory.ledger import Ledger

_ledgers: list[Ledger] = []


@contextmanager
def accounted(ledger: Ledger) -> Iterator[None]:
    """Keep account of what runs within, stand-ins included."""
    _ledgers.append(ledger)
    try:
        with ledger:
            yield
    finally:
        _ledgers.remove(ledger)


class Dequantised(torch.autograd.Function):
    """The product with a 4-bit weight: bitsandbytes makes the whole weight in 16 bit for it, forward and backward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, out_features: int) -> Tensor:
        """Multiply states (…, in) with a weight (out, in)."""
        ctx.shape = out_features, states.shape[-1]
        return states @ states.new_empty(ctx.shape).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient of the states; the weight has none."""
        return gradients[0] @ gradients[0].new_empty(ctx.shape), None


class Int8(torch.autograd.Function):
    """The product with an 8-bit weight: it keeps its input, and works on it in int8 and int32 (LLM.int8)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, out_features: int) -> Tensor:
        """Multiply states (…, in) with a weight (out, in)."""
        ctx.shape = out_features, states.shape[-1]
        ctx.save_for_backward(states)
        codes = states.to(torch.float16).to(torch.int8)
        sums = codes.new_empty((*states.shape[:-1], out_features), dtype=torch.int32)
        return sums.to(torch.float16).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient of the states; the weight has none."""
        return gradients[0] @ gradients[0].new_empty(ctx.shape), None


class Linear4bit(bitsandbytes.nn.Linear4bit):
    """A 4-bit layer without contents, for PEFT to wrap as it does the real one."""

    def __init__(self, layer: torch.nn.Linear, compute_dtype: torch.dtype) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.compute_dtype = compute_dtype
        weight: Any = torch.nn.Parameter(torch.empty(0, dtype=torch.uint8), requires_grad=False)
        weight.compress_statistics, weight.quant_type = False, "nf4"
        self.weight = weight

    def forward(self, states: Tensor) -> Tensor:
        """Multiply."""
        return _applied(Dequantised, states.to(self.compute_dtype), self.out_features).to(states.dtype)


class Linear8bit(bitsandbytes.nn.Linear8bitLt):
    """An 8-bit layer without contents, for PEFT to wrap as it does the real one."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.int8), requires_grad=False)
        self.state, self.index = bitsandbytes.MatmulLtState(), None
        self.state.has_fp16_weights = False

    def forward(self, states: Tensor) -> Tensor:
        """Multiply."""
        return _applied(Int8, states, self.out_features)


class Attend(torch.autograd.Function):
    """Attention by a kernel that keeps its operands, its result and a number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend; tensors (rows, heads, tokens, head_dim), of which the result lies in memory token by token.

        A mask of booleans becomes one of numbers, in every layer anew, and is kept.
        """
        for ledger in _ledgers:
            ledger.need(query, key, value)
        bias = None if mask is None else mask.new_empty(mask.shape, dtype=query.dtype)
        result = query.new_empty(query.transpose(1, 2).shape).transpose(1, 2)
        ctx.save_for_backward(query, key, value, bias, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return gradients; that of the query is summed up in 32 bit."""
        query, key, value, _, _, _ = ctx.saved_tensors
        total = query.new_empty(query.shape, dtype=torch.float32)
        keys = [state.new_empty(query.shape) for state in (key, value)]  # per query head, before groups are summed up
        del total
        return query.new_empty(query.shape), *(each.new_empty(key.shape) for each in keys), None


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    """Attend as a kernel does that keeps rows apart by itself."""
    return _applied(Attend, query.to(value.dtype), key.to(value.dtype), value, None).transpose(1, 2), None


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """Attend as torch's kernels do that take a mask; tensors (rows, heads, tokens, head_dim)."""
    return _applied(Attend, query, key, value, attn_mask)


class Drop(torch.autograd.Function):
    """Dropout, which keeps a byte per element."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        """Drop."""
        mask = states.new_empty(states.shape, dtype=torch.bool)
        ctx.save_for_backward(mask)
        return states * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return what is left of the gradient."""
        return gradients[0] * ctx.saved_tensors[0]


class Dropout(torch.nn.Dropout):
    """Dropout as a GPU does it."""

    def forward(self, states: Tensor) -> Tensor:
        """Drop in training."""
        return _applied(Drop, states) if self.training and self.p else states


def _applied(function: Any, *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


def bytes_of(tensor: Tensor) -> int:
    """Return what a tensor takes."""
    return math.prod(tensor.shape) * tensor.element_size()
