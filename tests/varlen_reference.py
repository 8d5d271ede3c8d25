"""Kernels for the CPU of torch's varlen attention, a row at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention import varlen


def rows_of(borders: torch.Tensor, *states: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Every row of tensors (tokens, heads, head_dim) as (heads, tokens, head_dim), grouped heads repeated."""
    for start, end in pairwise(borders.tolist()):
        rows = [state[start:end].transpose(0, 1) for state in states]
        yield [row.repeat_interleave(rows[0].shape[0] // row.shape[0], 0) for row in rows]


def weights(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    ahead = torch.ones(query.shape[1], query.shape[1], dtype=torch.bool).triu(1)
    return (query @ key.mT * scale).masked_fill(ahead, float("-inf")).softmax(-1)


def forward_on_cpu(
    query: Any, key: Any, value: Any, borders: Any, _: Any, longest: int, __: int, causal: bool, scale: Any, *___: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert causal
    assert longest >= borders.diff().max()
    rows = [(weights(q, k, scale) @ v).transpose(0, 1) for q, k, v in rows_of(borders, query, key, value)]
    return torch.cat(rows), query.new_zeros(query.shape[1::-1]), torch.zeros(2, dtype=torch.uint64)


def backward_on_cpu(
    gradient: Any, query: Any, key: Any, value: Any, out: Any, lse: Any, borders: Any, *others: Any
) -> tuple[torch.Tensor, ...]:
    found, scale = [], others[5]
    for q, k, v, up in rows_of(borders, query, key, value, gradient):
        share = weights(q, k, scale)
        inner = up @ v.mT
        inner = share * (inner - (inner * share).sum(-1, keepdim=True)) * scale
        whole = (inner @ k, inner.mT @ q, share.mT @ up)
        grouped = [
            item.unflatten(0, (state.shape[1], -1)).sum(1)
            for item, state in zip(whole, (query, key, value), strict=True)
        ]
        found.append([item.transpose(0, 1) for item in grouped])
    return tuple(torch.cat(items) for items in zip(*found, strict=True))


@contextmanager
def kernels_on_cpu() -> Iterator[None]:
    """Give torch's operators these kernels for a while."""
    kernels = {varlen._varlen_attn: forward_on_cpu, varlen._varlen_attn_backward: backward_on_cpu}
    for operator, kernel in kernels.items():
        operator.register_kernel("cpu")(kernel)
    try:
        yield
    finally:
        for operator in kernels:
            operator._backend_fns.pop("cpu", None)
