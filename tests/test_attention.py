"""Rows laid end to end: torch's varlen attention, here with kernels for the CPU, against sdpa on padded rows."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lorasweep import attention
from lorasweep.attention import Layout, choose_layout, for_padded_rows, why_not_varlen
from lorasweep.device import Device
from lorasweep.model import build_model
from lorasweep.packing import check_parity
from lorasweep.preflight import check_inputs
from lorasweep.rules import UserError
from tests.conftest import problems, tiny
from tests.test_numerics import CPU, parts, train_losses

GPU = Device("cuda", "", 80.0, torch.bfloat16)


RUNS = {
    "rows as they come": ("train.batch_size=3",),
    "packed": ("data.packing=true", "data.max_length=128", "train.batch_size=2"),
    "steps of constant tokens": ("train.tokens_per_step=60", "train.batch_size=3"),
    "packed steps of constant tokens": ("train.tokens_per_step=60", "data.packing=true", "data.max_length=128"),
    "queries in groups": ("model.shape.kv_heads=2", "train.tokens_per_step=60"),
    "checkpointed": ("train.gradient_checkpointing=true",),
}


@pytest.mark.parametrize("options", [
    pytest.param(options, id=name, marks=pytest.mark.slow if name in ("packed", "steps of constant tokens", "checkpointed") else [])
    for name, options in RUNS.items()
])  # fmt: skip
def test_a_run_in_varlen_attention_loses_what_it_loses_in_sdpa(
    options: tuple[str, ...], launched: Callable[..., Path], varlen_on_cpu: None
) -> None:
    common = ("quant=none", "train.max_steps=3", "evaluation.times=1", "evaluation.generate=2", *options)
    flat = launched(tiny(*common), "varlen")
    padded = launched(tiny(*common, "model.attention=sdpa"), "sdpa")
    assert train_losses(flat) == pytest.approx(train_losses(padded), rel=1e-5)
    assert "varlen, rows end to end" in (flat / "train.log").read_text()


def test_scores_and_answers_come_from_sdpa_and_training_goes_on_in_varlen(tmp_path: Path, varlen_on_cpu: None) -> None:
    trainer, _, _ = parts(tiny("quant=none"), tmp_path)
    config = trainer.model.config
    assert config._attn_implementation == "varlen"
    with for_padded_rows(trainer.model):
        assert config._attn_implementation == "sdpa"
    assert config._attn_implementation == "varlen"


def test_padded_rows_are_never_attended_to_in_varlen(tmp_path: Path, varlen_on_cpu: None) -> None:
    trainer, _, _ = parts(tiny("quant=none"), tmp_path)
    ids = torch.ones((2, 5), dtype=torch.long)
    with pytest.raises(AssertionError, match="end to end"):
        trainer.model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("options", [RUNS["packed"], RUNS["rows as they come"], RUNS["steps of constant tokens"]])
def test_the_gate_sees_a_kernel_that_does_not_keep_rows_apart(
    options: tuple[str, ...], tmp_path: Path, varlen_on_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _, _ = parts(tiny("quant=none", *options), tmp_path)
    check_parity(trainer, CPU)
    one_row = torch.tensor([0, 0])
    monkeypatch.setattr(
        "tests.varlen_reference.pairwise", lambda borders: pairwise([0, int(borders[-1] + one_row.sum())])
    )
    with pytest.raises(UserError, match="see each other"):
        check_parity(trainer, CPU)


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    return build_model(tiny().model, None, CPU)


def test_auto_takes_varlen_where_it_can_be_had_and_pads_elsewhere(
    plain: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(*overrides: str, device: Device = GPU) -> Layout:
        return choose_layout(tiny(*overrides), plain, device)

    assert chosen(device=CPU) == Layout("sdpa", False)
    assert chosen("data.packing=true", device=CPU) == Layout("sdpa", True)
    assert chosen("train.padding_free=true", device=CPU) == Layout("sdpa", True)
    for capability, flash, wanted in (((9, 0), True, "varlen"), ((7, 5), True, "sdpa")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda flash=flash: flash)
        assert chosen() == Layout(wanted, wanted == "varlen")
        assert chosen("train.padding_free=false") == Layout("sdpa", False)
        assert chosen("train.padding_free=false", "data.packing=true") == Layout(wanted, True)
        assert chosen("model.attention=eager") == Layout("eager", False)
        assert chosen("deterministic=true") == Layout("sdpa", False)
        assert chosen("deterministic=true", "data.packing=true") == Layout("sdpa", True)
        assert chosen("deterministic=true", "model.attention=varlen") == Layout("varlen", True)
    assert chosen(device=Device("cuda", "", 80.0, torch.float32)) == Layout("sdpa", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(attention, "KNOWN", {})
    assert chosen() == Layout("flash_attention_2", True)
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: False)
    assert chosen() == Layout("sdpa", False)


@pytest.mark.parametrize(("name", "value"), [
    ("sliding_window", 4096), ("attn_logit_softcapping", 50.0), ("kv_lora_rank", 512), ("attention_dropout", 0.1),
    ("layer_types", ["full_attention", "sliding_attention"]), ("head_dim", 12), ("head_dim", 512),
])  # fmt: skip
def test_models_that_attend_otherwise_are_left_to_sdpa(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    run = tiny()
    model = build_model(run.model, None, CPU)
    assert why_not_varlen(model, GPU) is None
    setattr(model.config, name, value)
    assert why_not_varlen(model, GPU)
    assert choose_layout(run, model, GPU) == Layout("sdpa", False)


def test_varlen_is_refused_where_it_cannot_be_had_before_anything_is_loaded() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"model\.attention.*\n.*compute capability 8\.0"):
            check_inputs(tiny("model.attention=varlen"))
    (problem,) = problems("model.attention=varlen", "train.padding_free=false")
    assert problem.key == "train.padding_free"
