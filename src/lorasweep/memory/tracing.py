"""What the layers of a model take in a forward and backward pass, seen by running one of each kind on fake tensors.

Nothing is loaded and nothing computed: tensors have a shape and a type, no contents.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from lorasweep.attention import VARLEN, Layout, loaded_with
from lorasweep.device import Device
from lorasweep.lora import build_adapter
from lorasweep.memory import standins
from lorasweep.memory.ledger import Ledger
from lorasweep.memory.weights import adapted_layers, quantised_layers
from lorasweep.model import empty_model
from lorasweep.schema import Quant, Run

ISOLATED = "lorasweep_isolated"
"""The name under which transformers knows the stand-in for attention that keeps rows apart by itself."""


@dataclass(frozen=True)
class Batch:
    """The largest forward pass of a run: rows of so many tokens each, laid end to end or padded to the longest."""

    rows: int
    length: int
    supervised: int
    """Tokens that are learnt."""

    @property
    def tokens(self) -> int:
        """Return all tokens, padding included."""
        return self.rows * self.length


@dataclass(frozen=True)
class Scored:
    """The largest batch of an evaluation, and how many questions of so many tokens are answered at a time."""

    batch: Batch
    asked: int
    question: int


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
        model, kinds = _reduced(run, config, device, layout)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _materialise(model, device)
            layers, before, after = _pass(model, _inputs(layout, batch, device), device)
    return Trace([layers[kind] for kind in kinds], before, after)


def scoring_bytes(run: Run, config: PretrainedConfig, device: Device, batch: Batch) -> int:
    """Return what padded rows take at most while they are scored, without a gradient, before the loss."""
    layout, ledger = Layout(loaded_with(run.model.attention), False), Ledger()
    with _as_on_a_gpu():
        model, _ = _reduced(run, config, device, layout)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _materialise(model.eval(), device)
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


def decoder_layers(model: torch.nn.Module) -> list[Any]:
    """Return the layers of a model that can compute their activations again, in order."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _first(result: Any) -> torch.Tensor:
    first = result[0] if isinstance(result, tuple) else result
    assert isinstance(first, torch.Tensor)
    return first


def _reduced(run: Run, config: PretrainedConfig, device: Device, layout: Layout) -> tuple[Any, list[int]]:
    """Return the adapted model with one layer of each kind, empty, and which of them each of its layers is like."""
    model = empty_model(copy.deepcopy(config), run.model.trust_remote_code)
    layers, text = decoder_layers(model), model.config.get_text_config()
    quantised, adapted = set(quantised_layers(model)), adapted_layers(run.lora, model)
    stacks = [name for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    (stack,) = (name for name in stacks if layers[0] in model.get_submodule(name).children())
    types = getattr(text, "layer_types", None) or ["full_attention"] * len(layers)
    keys = []
    for number, (layer, kind) in enumerate(zip(layers, types, strict=True)):
        shapes = tuple((name, tuple(value.shape)) for name, value in layer.named_parameters())
        names = tuple(name for name, _ in layer.named_modules() if f"{stack}.{number}.{name}" in adapted)
        keys.append((kind, shapes, names))
    kinds = list(dict.fromkeys(keys))
    chosen = [keys.index(kind) for kind in kinds]
    model.set_submodule(stack, torch.nn.ModuleList([layers[number] for number in chosen]))
    text.num_hidden_layers = len(chosen)
    if getattr(text, "layer_types", None):
        text.layer_types = [types[number] for number in chosen]
    moved = {f"{stack}.{number}.": f"{stack}.{place}." for place, number in enumerate(chosen)}

    def now_called(names: Iterable[str]) -> list[str]:
        inside = [(old, new, name) for name in names for old, new in moved.items() if name.startswith(old)]
        return [new + name.removeprefix(old) for old, new, name in inside]

    _quantise(model, run.quant, now_called(quantised), device)
    model.set_attn_implementation(ISOLATED if _isolates(layout) else layout.attention)
    lora = build_adapter(run.lora)
    lora.target_modules = set(now_called(adapted))
    lora.init_lora_weights = True
    adapted_model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    for name, module in list(adapted_model.named_modules()):
        if type(module) is torch.nn.Dropout:
            adapted_model.set_submodule(name, standins.Dropout(module.p))
    adapted_model.enable_input_require_grads()
    return adapted_model.train(), [kinds.index(key) for key in keys]


def _quantise(model: Any, quant: Quant, names: Iterable[str], device: Device) -> None:
    """Put stand-ins in the place of the layers that are quantised."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    if quant.method == "none":
        return
    for name in names:
        layer = model.get_submodule(name)
        eight = quant.method == "int8"
        with torch.device("meta"):
            stand_in = (
                standins.Linear8bit(layer) if eight else standins.Linear4bit(layer, device.dtype(quant.compute_dtype))
            )
        model.set_submodule(name, stand_in)
    model.is_loaded_in_8bit, model.is_loaded_in_4bit = quant.method == "int8", quant.method != "int8"


def _materialise(model: torch.nn.Module, device: Device) -> None:
    """Put tensors on a device in the place of those on none, each in the precision that it is trained in."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for name, value in place.items():
                if value is not None:
                    if id(value) not in made:
                        made[id(value)] = _made(value, device)
                    place[name] = made[id(value)]


def _made(value: torch.Tensor, device: Device) -> torch.Tensor:
    frozen = device.precision if value.is_floating_point() else value.dtype
    made = torch.empty(value.shape, dtype=torch.float32 if value.requires_grad else frozen, device="cpu")
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(made, requires_grad=value.requires_grad)
    return made


def _isolates(layout: Layout) -> bool:
    return layout.attention == VARLEN or layout.attention.startswith("flash")


def _inputs(layout: Layout, batch: Batch, device: Device) -> dict[str, torch.Tensor]:
    """Return a batch as the collator makes it, with the mask that transformers would make of it."""
    rows, length = (1, batch.tokens) if layout.flat else (batch.rows, batch.length)
    inputs = {"input_ids": torch.zeros((rows, length), dtype=torch.long)}
    inputs["position_ids"] = torch.arange(length)[None].expand(rows, length)
    if not _isolates(layout):
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
