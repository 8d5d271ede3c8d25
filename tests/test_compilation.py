"""Compiled decoder layers: one code for all layers, rows, ranks, alphas, dropouts and runs, and the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from lorasweep import attention, compilation, lora
from lorasweep.compilation import Dropout, compile_layers
from lorasweep.device import Device
from lorasweep.engine import Work, choose_engine
from lorasweep.model import build_model
from lorasweep.numerics import numerics
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.resident import copy_modules
from tests.conftest import tiny
from tests.test_attention import GPU
from tests.test_numerics import CPU, parts, train_losses


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Compile with another backend: eager and aot_eager trace like the real one, and compute with torch's kernels."""

    def use(name: str) -> None:
        monkeypatch.setattr(compilation, "BACKEND", name)

    torch.compiler.reset()
    compilation._compiled.cache_clear()
    counters.clear()
    use("eager")
    return use


def adapted(base: Any, rank: int, alpha: int, dropout: float) -> Any:
    run = tiny(f"lora.r={rank}", f"lora.alpha={alpha}", f"lora.dropout={dropout}")
    model = lora.add_adapter(copy_modules(base), lora.build_adapter(run.lora), 0)
    attention.use(model, "varlen")
    for name, value in lora.trainable(model).items():
        torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.train()


def step(model: Any, lengths: tuple[int, ...]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a batch of rows of these lengths laid end to end."""
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    ids = torch.arange(sum(lengths))[None] % 300
    model.zero_grad()
    loss = model(
        input_ids=ids, labels=ids, use_cache=False, position_ids=torch.cat([*map(torch.arange, lengths)])[None],
        cu_seq_lens_q=borders, cu_seq_lens_k=borders, max_length_q=max(lengths), max_length_k=max(lengths),
    ).loss  # fmt: skip
    loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in lora.trainable(model).items()}


@pytest.fixture
def base(varlen_on_cpu: None) -> Any:
    run = tiny("model.shape.layers=3", "model.shape.kv_heads=2")
    model = build_model(run.model, build_quantization(run.quant, CPU), CPU)
    keep_gradients_on_cpu(model)
    return model


def codes() -> int:
    assert not counters["graph_break"]
    return int(counters["stats"]["unique_graphs"])


def test_one_code_serves_all_layers_rows_alphas_dropouts_and_runs_and_a_second_all_ranks(
    base: Any, backend: Callable[[str], None]
) -> None:
    found = []
    for rank, alpha, dropout in ((4, 8, 0.1), (4, 16, 0.2), (8, 8, 0.3), (5, 4, 0.1)):
        model = adapted(base, rank, alpha, dropout)
        compile_layers(model)
        for lengths in ((9, 21, 4), (40,)):
            step(model, lengths)
            found.append(codes())
        model.base_model.model.activation_checkpointing_enable()
        model.enable_input_require_grads()
        step(model, (11, 5))
        found.append(codes())
    assert found == [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    "name", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aot_eager", "inductor"))]
)
def test_numbers_are_those_of_plain_layers(name: str, base: Any, backend: Callable[[str], None]) -> None:
    backend(name)
    plain, compiled = (adapted(base, 4, 8, 0.0) for _ in range(2))
    compile_layers(compiled)
    for lengths in ((9, 21, 4), (7, 12), (40,)):
        wanted, found = step(plain, lengths), step(compiled, lengths)
        assert found[0] == pytest.approx(wanted[0], rel=1e-6)
        for key, gradient in wanted[1].items():
            torch.testing.assert_close(found[1][key], gradient, rtol=1e-4, atol=1e-6)
    assert codes() == 1


def test_scores_come_from_the_plain_layers(base: Any, backend: Callable[[str], None]) -> None:
    model = adapted(base, 4, 8, 0.1)
    compile_layers(model)
    step(model.eval(), (9, 21))
    assert codes() == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    ("train.gradient_checkpointing=true",), ("model.attention=sdpa",), ("quant=none", "data.packing=true"),
    ("quant=int8",), ("lora=dora",), ("lora=rslora", "train.tokens_per_step=60"),
])  # fmt: skip
def test_a_compiled_run_loses_what_a_plain_one_does(
    options: tuple[str, ...], launched: Callable[..., Path], backend: Callable[[str], None], varlen_on_cpu: None
) -> None:
    common = ("data.max_length=128", "train.max_steps=4", "evaluation.generate=2", "evaluation.times=2", *options)
    compiled = launched(tiny(*common, "train.compile=true"), "compiled")
    plain = launched(tiny(*common), "plain")
    assert counters["stats"]["unique_graphs"]
    assert train_losses(compiled) == pytest.approx(train_losses(plain), rel=1e-5)
    assert "layers compiled" in (compiled / "train.log").read_text()


def test_a_record_says_how_a_run_computes(tmp_path: Path, varlen_on_cpu: None) -> None:
    for compiled in (True, False):
        found = numerics(parts(tiny("quant=none", f"train.compile={compiled}"), tmp_path)[0])
        assert (found["attention"], found["padding_free"], found["compiled"]) == ("varlen", True, compiled)


def test_dropout_keeps_the_share_and_the_mean_and_nothing_changes_in_scoring() -> None:
    dropout, ones = Dropout(0.3, torch.device("cpu")), torch.ones(200_000)
    kept = dropout(ones)
    assert kept.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout.eval()(ones), ones)


@pytest.mark.parametrize("name", ["aot_eager_decomp_partition", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_dropouts_of_one_tensor_differ_and_gradients_pass_where_values_do(name: str) -> None:
    torch.compiler.reset()
    dropouts = [Dropout(0.5, torch.device("cpu")) for _ in range(2)]
    states = torch.ones(64, 32, requires_grad=True)
    one, other = torch.compile(lambda x: [dropout(x * 2) for dropout in dropouts], backend=name)(states)
    assert not torch.equal(one, other)
    (one * 3).sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad, 3 * one.detach())


def test_auto_compiles_where_it_saves_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "why_not_varlen", lambda model, device: None)
    run = tiny()
    model = build_model(run.model, None, CPU)

    def compiled(
        passes: int, *overrides: str, device: Device = GPU, tokens: float = 1500, runs: int = 1
    ) -> tuple[bool, str]:
        chosen = choose_engine(tiny(*overrides), model, device, Work(passes, passes * tokens, runs))
        return chosen.compiled, chosen.why_not

    assert compiled(9_100) == (True, "")
    assert compiled(8_900) == (False, "it would take about 45 s and save 44")
    assert compiled(890, runs=11) == (True, "")
    assert compiled(890, runs=10) == (False, "it would take about 45 s and save 44")
    assert compiled(10**9, device=CPU) == (False, "")
    assert compiled(10**9, "train.compile=false") == (False, "")
    assert compiled(1, "train.compile=true", device=CPU) == (True, "")
    assert compiled(10**9, "train.padding_free=false") == (False, "rows are padded")
    assert compiled(10**9, "deterministic=true") == (False, "deterministic=true")
    assert compiled(1, "deterministic=true", "train.compile=true") == (True, "")
    alone = "auto leaves int8, DoRA and experts alone"
    assert compiled(10**9, "quant=int8") == compiled(10**9, "lora=dora") == (False, alone)
    model.config.num_hidden_layers, model.config.hidden_size = 32, 4096  # a Llama-2-7B
    assert [compiled(passes)[0] for passes in (500, 600)] == [False, True]
    assert [compiled(passes, tokens=8192)[0] for passes in (150, 200)] == [False, True]
