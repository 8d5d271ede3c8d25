"""What an adapter's start and biases do to its base: the saved adapter fits the base as it came."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from lorasweep import lora, random_model, saved
from tests.after.conftest import loaded, loss, summary_of, trained
from tests.conftest import tiny
from tests.test_numerics import CPU


@pytest.mark.parametrize("overrides", [
    ("lora.init=olora",), ("lora.init=pissa",), ("lora.init=pissa", "lora.use_rslora=true"), ("lora.init=orthogonal",),
    ("lora.init=gaussian",), ("lora.init=orthogonal", "lora=dora"),
], ids=str)  # fmt: skip
def test_every_start_is_saved_as_an_adapter_of_the_untouched_base(overrides: tuple[str, ...], tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "quant=none", "lora.r=4", *overrides)
    opened, rows, model = loaded(folder)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with lora.untuned(model):
        assert loss(opened, rows, model) == pytest.approx(loss(opened, rows, saved.load_base(opened, CPU)), rel=1e-7)


def test_saved_as_peft_does_the_base_would_stay_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "CHANGES_BASE", ())
    folder = trained(tmp_path / "run", "quant=none", "lora.init=pissa", "lora.r=4")
    opened, rows, model = loaded(folder)
    with lora.untuned(model):
        assert abs(loss(opened, rows, model) - summary_of(folder)["untuned/eval/loss"]) > 1e-4


def test_trained_biases_are_taken_back_where_the_base_is_asked(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(random_model.folder(tiny().model.shape))
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    folder = trained(tmp_path / "run", "model.source=hub", f"model.name={tmp_path}/base", "lora.bias=all")
    opened, rows, model = loaded(folder)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with lora.untuned(model):
        assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["untuned/eval/loss"], rel=1e-6)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with model.disable_adapter():
        assert loss(opened, rows, model) != pytest.approx(summary_of(folder)["untuned/eval/loss"], rel=1e-6)
