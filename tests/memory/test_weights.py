"""Base, adapter and optimizer states by arithmetic, against what the libraries allocate."""

import math
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from lorasweep.device import Device
from lorasweep.lora import build_adapter, trainable
from lorasweep.memory.weights import adapter_shapes, base_bytes, optimizer_bytes
from lorasweep.model import build_config, build_model, empty_model
from lorasweep.optim import optimizer_arguments
from lorasweep.quant import build_quantization
from lorasweep.schema import OPTIMIZERS
from tests.conftest import tiny

CPU = Device("cpu", "", 1.0, torch.float32)


def allocated(parameter: Any) -> int:
    """Bytes of a parameter, with the constants that bitsandbytes keeps on it."""
    held = [parameter.data]
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        held += [state.absmax, *([state.state2.absmax] if state.nested else [])]
    if isinstance(parameter, bitsandbytes.nn.Int8Params):
        held.append(parameter.SCB)
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


@pytest.mark.parametrize("quant", ["nf4", "fp4", "nf4_double", "int8", "none"])
def test_a_base_takes_what_it_takes_when_it_is_loaded(quant: str) -> None:
    run = tiny(f"quant={quant}", "model.shape.kv_heads=2", "model.shape.layers=3")
    model = build_model(run.model, build_quantization(run.quant, CPU), CPU)
    found = base_bytes(run.quant, empty_model(build_config(run.model)), CPU.precision)
    assert found.quantised + found.constants + found.rest == sum(map(allocated, model.parameters()))
    assert (found.quantised == 0) == (quant == "none")


@pytest.mark.parametrize(
    "options",
    [
        (), ("lora=attention", "lora.r=64"), ("lora=dora",), ("lora.target_modules=[down_proj,layers.0.mlp.up_proj]",),
        ("lora.target_modules='.*layers\\.1.*(q|v)_proj'",), ("lora.bias=all",), ("lora.bias=lora_only",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_adapter_has_the_tensors_that_peft_gives_it(options: tuple[str, ...]) -> None:
    run = tiny("quant=none", *options)
    with torch.device("meta"):
        model = empty_model(build_config(run.model))
        for layer in model.model.layers:
            layer.mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(run.model.shape.intermediate_size))
        adapted = get_peft_model(model, build_adapter(run.lora))
    wanted = sorted(tuple(value.shape) for value in trainable(adapted).values())
    plain = empty_model(build_config(run.model))
    for layer in plain.model.layers:
        layer.mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(run.model.shape.intermediate_size, device="meta"))
    assert sorted(adapter_shapes(run.lora, plain)) == wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_holds_as_much_as_it_says(name: str, tmp_path: Any) -> None:
    shapes = [(16, 512), (512, 16), (8, 64), (300, 512)]
    model = torch.nn.Module()
    for number, shape in enumerate(shapes):
        model.register_parameter(f"part{number}", torch.nn.Parameter(torch.randn(shape)))
    made = name
    if name.startswith("paged_ademamix"):  # asks CUDA for paged memory where others fall back
        made = name.removeprefix("paged_").removesuffix("_32bit")
    options = {**optimizer_arguments(tiny(f"optim.name={made}").optim), "output_dir": str(tmp_path), "use_cpu": True}
    optimizer = Trainer(model, TrainingArguments(**options, report_to="none")).create_optimizer()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    # Codes of 8-bit states are shared, and counters of steps are small.
    held = sum(value.numel() * value.element_size() for value in states if value.numel() not in (1, 256))
    found = optimizer_bytes(name, shapes)
    assert found.held + found.paged == pytest.approx(held, rel=0.02)
    assert (found.paged > 0) == (name.startswith("paged") and math.prod(shapes[-1]) >= 100_000)
