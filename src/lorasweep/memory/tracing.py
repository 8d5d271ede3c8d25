"""What the layers of a model take in a forward and backward pass, seen by running one of each kind on fake tensors.

Nothing is loaded and nothing computed: tensors have a shape and a type, no contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, PretrainedConfig

from lorasweep.attention import Layout
from lorasweep.device import Device
from lorasweep.memory import standins
from lorasweep.memory.batches import Batch
from lorasweep.memory.ledger import Ledger
from lorasweep.memory.reduced import ISOLATED, decoder_layers, isolates, materialise, reduced_model
from lorasweep.schema import Run


@dataclass
class Layer:
    """Bytes that a decoder layer takes."""

    kept: int = 0
    """From forward to backward, with its result."""
    compiled: int = 0
    """The same of a compiled layer."""
    result: int = 0
    forward: int = 0
    """In its forward for a while, above what it keeps."""
    backward: int = 0
    """In its backward for a while, above what is there when that begins."""
    saved: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Trace:
    """What one pass takes: each decoder layer in turn, and what is kept before and after all of them."""

    layers: list[Layer]
    before: int
    after: int


def trace(run: Run, config: PretrainedConfig, device: Device, layout: Layout, batch: Batch) -> Trace:
    """Run one layer of each kind on fake tensors and return what all layers of the model take."""
    with _as_on_a_gpu():
        model, kinds = reduced_model(run, config, device, layout)
        with FakeTensorMode(allow_non_fake_inputs=True):
            materialise(model, device)
            layers, before, after = _pass(model, _inputs(layout, batch, device), device)
    return Trace([layers[kind] for kind in kinds], before, after)


def scoring_bytes(run: Run, config: PretrainedConfig, device: Device, layout: Layout, batch: Batch) -> int:
    """Return what rows take at most while they are scored, without a gradient, before the loss."""
    ledger = Ledger()
    with _as_on_a_gpu():
        model, _ = reduced_model(run, config, device, layout)
        with FakeTensorMode(allow_non_fake_inputs=True):
            materialise(model.eval(), device)
            inputs = _inputs(layout, batch, device)
            ledger.ignore([*model.parameters(), *model.buffers(), *inputs.values()])
            with standins.accounted(ledger), torch.no_grad(), _autocast(device):
                model.get_base_model().base_model(**inputs, use_cache=False)
    return ledger.peak


def _pass(model: Any, inputs: dict[str, Any], device: Device) -> tuple[list[Layer], int, int]:
    """Return what each layer takes in a forward and backward pass, and what is kept before and after all of them."""
    ledger, modules = Ledger(), decoder_layers(model)
    ledger.ignore([*model.parameters(), *model.buffers(), *inputs.values()])
    layers, working = [Layer() for _ in modules], list[Layer]()
    start, border = 0, list[int]()

    def saving(tensor: torch.Tensor) -> torch.Tensor:
        for layer in working:
            layer.saved.add(ledger.number(tensor))
        return tensor

    def begin(layer: Layer, given: torch.Tensor) -> None:
        nonlocal start
        given.register_hook(lambda _: backward_of(layer))  # type: ignore[no-untyped-call]
        border.append(ledger.now)
        working.append(layer)
        start = ledger.peak = ledger.now

    def end(layer: Layer, given: torch.Tensor, result: torch.Tensor) -> None:
        working.clear()
        layer.kept, layer.forward = ledger.now - start, ledger.peak - ledger.now
        if ledger.number(given) not in layer.saved:
            layer.kept -= standins.bytes_of(given)  # only the caller holds it, and lets go of it now
        layer.result = standins.bytes_of(result)
        layer.compiled = ledger.compiled_bytes(ledger.number(given), layer.saved | {ledger.number(result)})
        if layer is layers[-1]:
            result.register_hook(lambda _: backward_of(None))  # type: ignore[no-untyped-call]

    def backward_of(layer: Layer | None) -> None:
        nonlocal start
        if layer:
            layer.backward = ledger.peak - start
        start = ledger.peak = ledger.now

    for module, layer in zip(modules, layers, strict=True):
        module.register_forward_pre_hook(lambda _, given, layer=layer: begin(layer, given[0]))
        module.register_forward_hook(lambda _, given, result, layer=layer: end(layer, given[0], _first(result)))
    with standins.accounted(ledger):
        with saved_tensors_hooks(saving, lambda tensor: tensor), _autocast(device):
            states = model.get_base_model().base_model(**inputs, use_cache=False).last_hidden_state
        after = ledger.now - border[0] - sum(layer.kept for layer in layers)
        states.backward(torch.empty_like(states))
    return layers, border[0], after


def _first(result: Any) -> torch.Tensor:
    first = result[0] if isinstance(result, tuple) else result
    assert isinstance(first, torch.Tensor)
    return first


def _inputs(layout: Layout, batch: Batch, device: Device) -> dict[str, torch.Tensor]:
    """Return a batch as the collator makes it, with the mask that transformers would make of it."""
    rows, length = (1, batch.tokens) if layout.flat else (batch.rows, batch.length)
    inputs = {"input_ids": torch.zeros((rows, length), dtype=torch.long)}
    inputs["position_ids"] = torch.arange(length)[None].expand(rows, length)
    if not isolates(layout):
        kind = device.precision if layout.attention == "eager" else torch.bool
        inputs["attention_mask"] = torch.empty((rows, 1, length, length), dtype=kind)
    return inputs


def _autocast(device: Device) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=device.precision) if device.mixed_precision else nullcontext()


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Let attention be that of a GPU for a while, and its mixed precision on where that of the CPU is."""
    AttentionInterface.register(ISOLATED, standins.attend)
    places = {"scaled_dot_product_attention": torch.nn.functional, "is_autocast_enabled": torch}
    plain = {name: getattr(place, name) for name, place in places.items()}
    torch.nn.functional.scaled_dot_product_attention = standins.scaled_dot_product_attention
    torch.is_autocast_enabled = lambda *_: plain["is_autocast_enabled"]("cpu")
    try:
        yield
    finally:
        for name, place in places.items():
            setattr(place, name, plain[name])
