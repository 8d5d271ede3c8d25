"""A frozen layer and its LoRA as one operation: the numbers of PEFT's own layers, in training alone."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lorasweep import lora
from lorasweep.fused_lora import fuse_layers
from lorasweep.model import build_model
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.resident import copy_modules
from lorasweep.schema import Lora
from tests.conftest import tiny
from tests.test_numerics import CPU, train_losses

BASES = ("nf4", "nf4_double", "fp4", "none", "int8")


@functools.cache
def base_of(quant: str) -> Any:
    run = tiny("model.shape.kv_heads=2", f"quant={quant}")
    base = build_model(run.model, build_quantization(run.quant, CPU), CPU)
    keep_gradients_on_cpu(base)
    return base


def adapted(quant: str = "nf4", **settings: Any) -> Any:
    model = lora.add_adapter(copy_modules(base_of(quant)), lora.build_adapter(Lora(**settings)), 0)
    for name, value in lora.trainable(model).items():
        torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.train()


def step(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of two rows, the masks of dropout drawn from one seed."""
    ids = torch.arange(60).reshape(2, 30)
    torch.manual_seed(1)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.item(), {name: value.grad for name, value in lora.trainable(model).items()}


@pytest.mark.parametrize("quant", BASES[:4])
@pytest.mark.parametrize("settings", [
    {"dropout": 0.2}, {"bias": "all"}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]},
], ids=str)  # fmt: skip
def test_numbers_are_those_of_peft(quant: str, settings: dict[str, Any]) -> None:
    plain, fused = (adapted(quant, **settings) for _ in range(2))
    assert fuse_layers(fused, torch.float32) == (4 if "target_modules" in settings else 14)
    wanted, found = step(plain), step(fused)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    assert wanted[1].keys() == found[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_weights_held_dequantised_give_the_same_bits() -> None:
    for quant in ("nf4_double", "fp4", "none"):
        made, held = (adapted(quant, dropout=0.2) for _ in range(2))
        assert fuse_layers(made, torch.float32) == fuse_layers(held, torch.float32, dequantised=True)
        wanted, found = step(made), step(held)
        assert found[0] == wanted[0]
        assert all(torch.equal(found[1][name], gradient) for name, gradient in wanted[1].items())
        assert lora.values(held).keys() == lora.values(made).keys()
        assert held.state_dict().keys() == made.state_dict().keys()


def test_scores_and_the_untuned_model_come_from_peft_to_the_bit() -> None:
    plain, fused = (adapted(dropout=0.2) for _ in range(2))
    assert fuse_layers(fused, torch.float32)
    ids = torch.arange(30)[None]

    def logits(model: Any) -> torch.Tensor:
        return model(input_ids=ids).logits

    with plain.disable_adapter(), fused.disable_adapter():
        assert torch.equal(logits(plain), logits(fused))
    assert torch.equal(logits(plain.eval()), logits(fused.eval()))


def test_what_is_adapted_otherwise_stays_with_peft() -> None:
    assert fuse_layers(adapted(use_dora=True), torch.float32) == 0
    assert fuse_layers(adapted("int8"), torch.float32) == 0
    assert fuse_layers(adapted(), torch.bfloat16) == 0, "the base computes in float32"


def test_torch_finds_nothing_wrong_with_the_operators() -> None:
    layer = adapted().base_model.model.model.layers[0].mlp.down_proj
    state = layer.base_layer.weight.quant_state
    weight = (layer.base_layer.weight.detach(), [state.absmax], list(state.shape), state.blocksize, state.quant_type)
    a, b = (torch.randn(shape) for shape in ((5, layer.in_features), (layer.out_features, 5)))
    x, up, inner = torch.randn(2, 3, layer.in_features), torch.randn(2, 3, layer.out_features), torch.randn(6, 5)
    checks = ("test_schema", "test_faketensor")
    for dropped in (None, torch.randn_like(x)):
        torch.library.opcheck(torch.ops.lorasweep.adapted, (x, dropped, a, b, *weight), test_utils=checks)
        given = (up, x, inner, a, b, *weight, dropped is not None)
        torch.library.opcheck(torch.ops.lorasweep.adapted_backward, given, test_utils=checks)


def test_a_fused_run_loses_what_a_plain_one_does(launched: Callable[..., Path]) -> None:
    common = ("train.max_steps=4", "lora.dropout=0.1", "evaluation.generate=2")
    plain, fused = (launched(tiny(*common, f"train.fused={on}"), str(on)) for on in ("false", "true"))
    assert train_losses(fused) == pytest.approx(train_losses(plain), rel=1e-5)
    assert "LoRA fused" in (fused / "train.log").read_text()
    assert "LoRA fused" not in (plain / "train.log").read_text()
