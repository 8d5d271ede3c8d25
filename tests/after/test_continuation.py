"""Training further: from exactly the saved weights, or with every difference named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorasweep import lora, results, saved
from lorasweep.data import file_hash
from lorasweep.preflight import check_inputs
from lorasweep.rules import UserError
from tests.after.conftest import summary_of, trained
from tests.conftest import tiny
from tests.test_numerics import CPU


def test_training_further_starts_exactly_where_the_first_run_ended(run: Path, tmp_path: Path) -> None:
    again = ("data.test_fraction=0.1", "evaluation.keep=last", "lora.dropout=0.2")
    folder = trained(tmp_path / "second", f"model.adapter={run}", *again)
    assert summary_of(folder)["untuned/eval/loss"] == summary_of(run)["eval/loss"]
    assert summary_of(folder)["eval/loss"] != summary_of(run)["eval/loss"]
    origin = results.read_json(folder / "record.json")["adapter"]
    assert origin == {"location": str(run / "adapter"), "sha256": file_hash(run / "adapter" / lora.WEIGHTS)}
    made = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (made["lora_dropout"], made["r"]) == (0.2, 16)
    values = load_file(folder / "adapter" / lora.WEIGHTS).values()
    assert {value.dtype for value in values} == {torch.float32}


def test_the_weights_at_step_0_are_those_of_the_file(run: Path) -> None:
    start = tiny(f"model.adapter={run}/adapter")
    model = saved.load_base(start, CPU)
    adapted = lora.load_adapter(model, run / "adapter", trainable=True, dropout=0.1, seed=3)
    kept = load_file(run / "adapter" / lora.WEIGHTS)
    values = lora.trainable(adapted)
    assert len(values) == len(kept)
    for name, value in kept.items():
        own = values[name.replace(".weight", ".default.weight")]
        assert own.dtype == torch.float32
        assert torch.equal(own, value)


def found(*overrides: str) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        check_inputs(tiny(*overrides))
    return {problem.key: problem.allowed for problem in caught.value.problems}


def test_every_field_that_differs_from_the_adapter_is_named_with_what_to_type(run: Path) -> None:
    wrong = found(f"model.adapter={run}", "lora=attention", "lora.use_dora=true", "lora.bias=all")
    assert wrong == {
        "lora.r": "16, as the adapter was made: lora.r=16",
        "lora.alpha": "32, as the adapter was made: lora.alpha=32",
        "lora.bias": "none, as the adapter was made: lora.bias=none",
        "lora.use_dora": "false, as the adapter was made: lora.use_dora=false",
        "lora.target_modules": "all-linear, as the adapter was made: 'lora.target_modules=all-linear'",
    }
    check_inputs(tiny(f"model.adapter={run}", r"lora.target_modules='.*_proj'", "lora.dropout=0.3"))


def test_an_adapter_of_another_base_is_refused(run: Path) -> None:
    assert (
        "has size 64, the model's 128" in found(f"model.adapter={run}", "model.shape.hidden_size=128")["model.adapter"]
    )


@pytest.mark.parametrize(("changes", "words"), [
    ({"peft_type": "IA3"}, "this is IA3"),
    ({"modules_to_save": ["lm_head"]}, "without modules_to_save"),
    ({"init_lora_weights": "pissa"}, "changed the base"),
    ("{", "can be read"),
    (None, "can run code when they are read"),
])  # fmt: skip
def test_adapters_that_cannot_be_trained_further_are_refused(
    changes: Any, words: str, run: Path, tmp_path: Path
) -> None:
    made = json.loads((run / "adapter" / "adapter_config.json").read_text())
    text = changes if isinstance(changes, str) else json.dumps({**made, **(changes or {})})
    (tmp_path / "adapter_config.json").write_text(text)
    if changes is not None:
        (tmp_path / lora.WEIGHTS).write_bytes((run / "adapter" / lora.WEIGHTS).read_bytes())
    assert words in found(f"model.adapter={tmp_path}")["model.adapter"]
