"""The adapted model of a run with one layer of each kind, without contents: what is run to see what layers take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from lorasweep.attention import VARLEN, Layout
from lorasweep.device import Device
from lorasweep.lora import build_adapter
from lorasweep.memory import standins
from lorasweep.memory.weights import adapted_layers, quantised_layers
from lorasweep.model import empty_model
from lorasweep.schema import Quant, Run

ISOLATED = "lorasweep_isolated"
"""The name under which transformers knows the stand-in for attention that keeps rows apart by itself."""


def reduced_model(run: Run, config: PretrainedConfig, device: Device, layout: Layout) -> tuple[PeftModel, list[int]]:
    """Return the model, on no device, and for every layer of the whole one which of its layers is like it."""
    model = empty_model(copy.deepcopy(config), run.model.trust_remote_code)
    quantised, adapted = quantised_layers(model), adapted_layers(run.lora, model)
    now_called, like = _keep_one_of_each_kind(model, set(adapted))
    _quantise(model, run.quant, now_called(quantised), device)
    model.set_attn_implementation(ISOLATED if isolates(layout) else layout.attention)
    lora = build_adapter(run.lora)
    lora.target_modules = set(now_called(adapted))
    lora.init_lora_weights = True  # others look at weights
    found = get_peft_model(model, lora, autocast_adapter_dtype=False)
    assert isinstance(found, PeftModel)
    for name, module in list(found.named_modules()):
        if type(module) is torch.nn.Dropout:
            found.set_submodule(name, standins.Dropout(module.p))
    found.enable_input_require_grads()
    return found.train(), like


def _keep_one_of_each_kind(model: Any, adapted: set[str]) -> tuple[Callable[[Iterable[str]], list[str]], list[int]]:
    """Leave one layer of each kind in a model; return how its modules are called now, and the kind of every layer."""
    layers, text = decoder_layers(model), model.config.get_text_config()
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

    return now_called, [kinds.index(key) for key in keys]


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


def materialise(model: torch.nn.Module, device: Device) -> None:
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


def isolates(layout: Layout) -> bool:
    """Tell whether attention keeps rows that are laid end to end apart by itself."""
    return layout.attention == VARLEN or layout.attention.startswith("flash")


def decoder_layers(model: torch.nn.Module) -> list[Any]:
    """Return the layers of a model that can compute their activations again, in order."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
