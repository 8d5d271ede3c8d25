"""What only a GPU can show: mixed precision with float32 adapters, loss scaling, paged optimizers, reserved memory."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import tiny
from tests.test_numerics import train_losses

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
STEPS = ("train.max_steps=6", "data.limit=60", "evaluation.generate=4", "evaluation.max_new_tokens=8")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("quant", ["nf4", "nf4_double", "fp4", "int8", "none"])
def test_every_quantisation_learns_in_every_precision(dtype: str, quant: str, launched: Callable[..., Path]) -> None:
    folder = launched(tiny(*STEPS, f"model.dtype={dtype}", f"quant={quant}", "lora.dropout=0.1"))
    losses = train_losses(folder)
    assert losses[-1] < losses[0]
    assert {value.dtype for value in load_file(folder / "adapter" / "adapter_model.safetensors").values()} == {
        torch.float32
    }
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 < summary["memory/peak_gib"] < summary["memory/total_gib"]
    assert summary["eval/loss"] < summary["untuned/eval/loss"]


@pytest.mark.parametrize(
    "optim", ["paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit", "adamw_torch_fused", "lion_8bit"]
)
def test_every_optimizer_learns(optim: str, launched: Callable[..., Path]) -> None:
    losses = train_losses(launched(tiny(*STEPS, f"optim={optim}", "optim.lr=1e-2")))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "option", ["data.packing=true data.max_length=128", "train.padding_free=true", "train.gradient_checkpointing=false"]
)
def test_batches_laid_out_otherwise_give_losses_alike(option: str, launched: Callable[..., Path]) -> None:
    common = (*STEPS, "model.dtype=float32", "quant=none", "train.max_steps=2")
    plain = train_losses(launched(tiny(*common), "plain"))
    other = train_losses(launched(tiny(*common, *option.split()), "other"))
    if "packing" in option:
        assert other[-1] < plain[0] * 1.05
    else:
        assert other == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_steps_of_constant_tokens_are_alike_packed_and_padded(dtype: str, launched: Callable[..., Path]) -> None:
    common = (*STEPS, f"model.dtype={dtype}", "data.max_length=128", "train.tokens_per_step=60")
    padded = train_losses(launched(tiny(*common, "train.batch_size=3"), "padded"))
    packed = train_losses(launched(tiny(*common, "data.packing=true"), "packed"))
    assert packed == pytest.approx(padded, rel=1e-4 if dtype == "float32" else 0.02)


def test_a_run_in_bfloat16_ends_where_one_in_float32_does(launched: Callable[..., Path]) -> None:
    ends = [
        train_losses(launched(tiny(*STEPS, f"model.dtype={dtype}"), dtype))[-1] for dtype in ("bfloat16", "float32")
    ]
    assert ends[0] == pytest.approx(ends[1], rel=0.02)
