"""What makes a step fast, on a GPU: torch's varlen kernels, compiled layers, the lean loop give what plain ones give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.nn.attention import varlen

from lorasweep import attention
from lorasweep.record import Launch
from lorasweep.resident import Resident
from lorasweep.run import train
from tests.conftest import tiny
from tests.test_numerics import train_losses
from tests.varlen_reference import backward_on_cpu, forward_on_cpu

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
COMMON = ("train.max_steps=6", "data.limit=60", "evaluation.generate=2", "model.shape.kv_heads=2", "train.batch_size=3")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "groups", "dim"), [(4, 4, 64), (8, 2, 128), (4, 1, 16), (2, 2, 256)])
@pytest.mark.parametrize("lengths", [(5, 130, 64, 1), (700,)])
def test_varlen_attention_is_that_of_one_row_after_the_other(
    dtype: torch.dtype, heads: int, groups: int, dim: int, lengths: tuple[int, ...]
) -> None:
    total, scale = sum(lengths), dim**-0.5
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    states = [torch.randn(1, count, total, dim).to(dtype) for count in (heads, groups, groups)]
    up = torch.randn(total, heads, dim).to(dtype)
    flat = [item[0].transpose(0, 1).double() for item in states]
    wanted = forward_on_cpu(*flat, borders, borders, max(lengths), max(lengths), True, scale)[0]
    gradients = backward_on_cpu(up.double(), *flat, None, None, borders, *[None] * 5, scale)
    given = [item.cuda().requires_grad_() for item in states]
    found, _ = attention.varlen_attention(
        torch.nn.Module(), *given, None, scaling=scale, cu_seq_lens_q=borders.cuda(), max_length_q=max(lengths) + 7
    )
    found.backward(up[None].cuda())
    close = {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found[0].cpu().double(), wanted, **close)
    for item, gradient in zip(given, gradients, strict=True):
        torch.testing.assert_close(item.grad[0].transpose(0, 1).cpu().double(), gradient, **close)


def test_auto_takes_varlen_on_this_gpu(launched: Callable[..., Path]) -> None:
    if torch.cuda.get_device_capability(0) >= (8, 0) and {"scale", "window_size"} <= attention.KNOWN.keys():
        assert "varlen, rows end to end" in (launched(tiny(*COMMON)) / "train.log").read_text()
        assert varlen.varlen_attn


KEPT = "train.gradient_checkpointing=false"
VARIANTS = {
    "rows as they come": (KEPT,),
    "packed": (KEPT, "data.packing=true", "data.max_length=128"),
    "steps of constant tokens": (KEPT, "train.tokens_per_step=60"),
    "checkpointed": (),
    "constants of constants": (KEPT, "quant=nf4_double"),
    "not quantised": (KEPT, "quant=none"),
    "float16": (KEPT, "model.dtype=float16"),
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=list(VARIANTS))
def test_a_fast_run_loses_what_a_plain_one_does(options: tuple[str, ...], launched: Callable[..., Path]) -> None:
    common = (*COMMON, *options)
    slow = ("train.lean=false", "train.compile=false", "model.attention=sdpa")
    plain = train_losses(launched(tiny(*common, *slow), "plain"))
    counters.clear()
    fast = launched(tiny(*common, "train.compile=true"), "fast")
    assert train_losses(fast) == pytest.approx(plain, rel=0.02)
    assert train_losses(fast)[-1] < train_losses(fast)[0]
    assert counters["stats"]["unique_graphs"] in (0, 1)  # none where another run of this process has made it
    assert not counters["graph_break"]
    assert "layers compiled" in (fast / "train.log").read_text()


def test_trials_of_a_study_share_what_is_compiled(tmp_path: Path) -> None:
    torch.compiler.reset()
    host, graphs = Resident(), []
    for number, options in enumerate([
        ("lora.r=8", "lora.dropout=0.1"), ("lora.r=8", "lora.alpha=64", "lora.dropout=0.2"),
        ("lora.r=16", "lora.dropout=0.1"), ("lora.r=32", "lora.dropout=0.3"), ("lora.r=4", "lora.dropout=0.1"),
    ]):  # fmt: skip
        counters.clear()
        run = tiny(*COMMON, "train.compile=true", f"train.seed={number}", *options)
        assert train(run, Launch(tmp_path / str(number), []), host).state == "complete"
        graphs.append(counters["stats"]["unique_graphs"])
        assert not counters["graph_break"]
    assert graphs == [1, 0, 1, 0, 0]


def test_compiled_dropout_drops_anew_in_every_step(launched: Callable[..., Path]) -> None:
    trained = launched(tiny(*COMMON, "optim.lr=1e-1"), "trained")
    still = (
        f"model.adapter={trained}", "train.compile=true", "optim.lr=1e-9", "scheduler=constant", "data.limit=4",
        "data.eval_fraction=0", "evaluation.times=0", "train.batch_size=4", "train.max_steps=4",
        "model.shape.kv_heads=2",
    )  # fmt: skip
    losses = {rate: train_losses(launched(tiny(*still, f"lora.dropout={rate}"), str(rate))) for rate in (0.0, 0.5)}
    assert max(losses[0.0]) - min(losses[0.0]) < 0.01
    assert len({round(loss, 2) for loss in losses[0.5]}) > 1


def test_a_gradient_that_is_not_finite_stops_a_fast_run_before_the_update(launched: Callable[..., Path]) -> None:
    wild: tuple[Any, ...] = ("optim.lr=1e38", "optim=sgd", "evaluation.untuned=false", "train.compile=true")
    folder = launched(tiny(*COMMON, *wild), expect="diverged")
    assert "not finite" in (folder / "summary.json").read_text()
    assert not (folder / "adapter").exists()
