"""Forward and backward of all decoder layers as two CUDA graphs: two launches in place of thousands."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers.modeling_outputs import BaseModelOutputWithPast

MOST_TOKENS = 4096
"""In one pass; with more, the GPU has enough to do while the host launches."""
TOKENS, ROWS, LENGTH = 256, 8, 1024
"""Batches are made alike: padded by a row to a multiple of so many tokens, borders to one of so many rows, and their
longest row counts as the next power of two from so many tokens on."""


def capture_layers(model: PeftModel) -> None:
    """Have the decoder of a model replay its work in training, where rows are laid end to end on a GPU.

    The first batch of each size runs as it is, the second is captured, from then on graphs replay. Needs varlen
    attention, and layers that keep their activations.
    """
    decoder = model.get_base_model().get_decoder()
    decoder.__class__ = _captured(type(decoder))  # type: ignore[arg-type]
    decoder.graphs = Graphs([value for value in decoder.parameters() if value.requires_grad])


@functools.cache
def _captured(decoder_class: Any) -> Any:
    class Captured(decoder_class):
        def forward(self, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
            borders, learns = kwargs.get("cu_seq_lens_q"), self.training and torch.is_grad_enabled()
            if not learns or borders is None or input_ids is None or input_ids.shape[1] > MOST_TOKENS:
                return super().forward(input_ids, *args, **kwargs)
            batch = Batch(input_ids, kwargs["position_ids"], borders, int(kwargs["max_length_q"]))
            hidden = self.graphs(functools.partial(super().forward, use_cache=False), batch)
            return BaseModelOutputWithPast(last_hidden_state=hidden[:, : input_ids.shape[1]])

    Captured.__name__, Captured.__qualname__ = decoder_class.__name__, decoder_class.__qualname__
    return Captured


class Batch:
    """Rows end to end, and the size they are padded to."""

    def __init__(self, ids: torch.Tensor, positions: torch.Tensor, borders: torch.Tensor, longest: int) -> None:
        self.ids, self.positions, self.borders = ids, positions, borders
        tokens = _multiple(ids.shape[1], TOKENS)
        self.size = tokens, _multiple(len(borders) + 1, ROWS), max(LENGTH, 1 << (longest - 1).bit_length())

    def fill(self, place: Place) -> None:
        """Copy the rows to where a graph reads them; what is left there of other batches is a row of its own."""
        count = self.ids.shape[1]
        place.ids[:, :count].copy_(self.ids)
        place.positions[:, :count].copy_(self.positions)
        place.borders[: len(self.borders)].copy_(self.borders)
        place.borders[len(self.borders) :].fill_(place.ids.shape[1])


class Place:
    """Where graphs of one size read a batch."""

    def __init__(self, batch: Batch) -> None:
        tokens, borders, self.longest = batch.size
        self.ids = batch.ids.new_zeros(1, tokens)
        self.positions = batch.positions.new_zeros(1, tokens)
        self.borders = batch.borders.new_zeros(borders)

    def inputs(self) -> dict[str, Any]:
        """Return the arguments of the decoder."""
        ends = {"cu_seq_lens_q": self.borders, "cu_seq_lens_k": self.borders}
        lengths = {"max_length_q": self.longest, "max_length_k": self.longest}
        return {"input_ids": self.ids, "position_ids": self.positions, **ends, **lengths}


class Graphs:
    """The graphs of a decoder, by size of batch; they share memory, as one is done before another begins."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.places: dict[tuple[int, ...], Place] = {}
        self.graphs: dict[tuple[int, ...], Graph] = {}
        self.gradients: list[torch.Tensor] = []
        self.pool: Any = None

    def __call__(self, plain: Any, batch: Batch) -> torch.Tensor:
        """Return the last hidden states, (1, padded tokens, hidden)."""
        new = batch.size not in self.places
        if new:
            self.places[batch.size] = Place(batch)
        batch.fill(place := self.places[batch.size])
        with _no_cache():
            if new or not batch.ids.is_cuda:
                hidden: torch.Tensor = plain(**place.inputs()).last_hidden_state
                return hidden
            if batch.size not in self.graphs:
                self.graphs[batch.size] = self._capture(plain, place)
        apply: Any = Replay.apply
        replayed: torch.Tensor = apply(torch.empty(0, device=batch.ids.device, requires_grad=True), self, batch.size)
        return replayed

    def _capture(self, plain: Any, place: Place) -> Graph:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        self.gradients = self.gradients or [torch.zeros_like(value) for value in self.parameters]
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward, pool=self.pool):
            hidden = plain(**place.inputs()).last_hidden_state
        upstream = torch.empty_like(hidden)
        with torch.cuda.graph(backward, pool=self.pool):
            torch._foreach_add_(self.gradients, torch.autograd.grad(hidden, self.parameters, upstream))
        return Graph(forward, backward, hidden.detach(), upstream)

    def attach(self) -> None:
        """Make the tensors that graphs add gradients to the gradients of the parameters, with what these have."""
        for value, gradient in zip(self.parameters, self.gradients, strict=True):
            if value.grad is not gradient:
                gradient.zero_() if value.grad is None else gradient.copy_(value.grad)
                value.grad = gradient


@dataclass(frozen=True)
class Graph:
    """Forward and backward for batches of one size: what they write, and where backward reads."""

    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    hidden: torch.Tensor
    upstream: torch.Tensor


class Replay(torch.autograd.Function):
    """Replays a graph; `switch` is what makes autograd call backward."""

    @staticmethod
    def forward(ctx: Any, switch: torch.Tensor, graphs: Graphs, size: tuple[int, ...]) -> torch.Tensor:
        """Return the last hidden states."""
        graph = graphs.graphs[size]
        ctx.graphs, ctx.graph = graphs, graph
        graph.forward.replay()
        return graph.hidden.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """Add the parameters' gradients to those they have."""
        ctx.graphs.attach()
        ctx.graph.upstream.copy_(gradient)
        ctx.graph.backward.replay()
        return None, None, None


def _no_cache() -> torch.autocast:
    """Return the autocast there is, without its cache, which would outlive what a graph has computed."""
    enabled = torch.is_autocast_enabled("cuda")
    return torch.autocast("cuda", torch.get_autocast_dtype("cuda"), enabled=enabled, cache_enabled=False)


def _multiple(number: int, step: int) -> int:
    return -(-number // step) * step
