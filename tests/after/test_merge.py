"""merge: the merged model is the base with the adapter, and a wrong merge is found."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorasweep import lora, saved
from lorasweep.merge import merge, merge_and_compare
from lorasweep.rules import UserError
from tests.after.conftest import BFLOAT16, Done, loaded, loss, summary_of, trained


@pytest.mark.parametrize(
    "overrides", [(), ("lora=dora",), ("lora=rslora",), ("lora.init=pissa", "quant=none")], ids=str
)
def test_the_merged_model_is_the_base_with_the_adapter(overrides: tuple[str, ...], tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", *overrides)
    opened, rows, beside = loaded(folder, BFLOAT16, quantised=False)
    result = merge(opened, folder, tmp_path / "deep" / "out", None)
    assert result.comparison.strength == pytest.approx(1, abs=0.02)
    assert result.comparison.equal_predictions > 0.98
    assert result.loss_as_trained == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    assert result.loss_merged == pytest.approx(loss(opened, rows, beside, BFLOAT16), rel=2e-3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "out", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")
    assert tokenizer.chat_template
    row = rows[0]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    with torch.no_grad():
        alone = plain(input_ids=ids, labels=labels).loss.item()
    assert alone == pytest.approx(loss(opened, rows.select([0]), beside, BFLOAT16), rel=5e-3)
    files = {path.name: path for path in (tmp_path / "deep" / "out").iterdir()}
    assert {"model.safetensors", "generation_config.json", "merge.json", "tokenizer.json"} <= files.keys()
    assert files["model.safetensors"].stat().st_mode == files["config.json"].stat().st_mode


@pytest.mark.parametrize("quant", ["nf4", "nf4_double", "int8"])
def test_merged_as_trained_the_model_is_the_one_that_was_scored(quant: str, tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", f"quant={quant}")
    opened = saved.open_run(folder)
    result = merge(opened, folder, tmp_path / "out", "float16", as_trained=True)
    scored = summary_of(folder)["eval/loss"]
    assert result.loss_merged == pytest.approx(scored, rel=1e-4)
    if quant != "int8":  # the tiny model loses too little to it
        original = merge(opened, folder, tmp_path / "other", "float16").loss_merged
        assert abs(result.loss_merged - scored) < abs(original - scored) / 2
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not getattr(plain.config, "quantization_config", None)


def test_merging_as_trained_needs_a_quantised_base(tmp_path: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("merge", str(trained(tmp_path / "run", "quant=none")), "out", "--as-trained")
    assert done.code == 2
    assert "the base was not quantised" in done.err


@pytest.mark.parametrize("fault", ["twice", "half", "not at all"])
def test_a_wrong_merge_is_found_and_not_written(
    fault: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = {"twice": 2.0, "half": 0.5, "not at all": 0.0}[fault]

    def wrong(model: Any) -> Any:
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: factor * value for name, value in module.scaling.items()}
        return model.merge_and_unload(safe_merge=True)

    monkeypatch.setattr(lora, "merge_adapter", wrong)
    _, rows, model = loaded(run, BFLOAT16, quantised=False)
    comparison = merge_and_compare(model, rows, BFLOAT16)[1]
    assert comparison.strength == pytest.approx(factor, abs=0.02)
    assert not comparison.faithful
    with pytest.raises(UserError, match="Nothing was written"):
        merge(saved.open_run(run), run, tmp_path / "out", "float16")
    assert not list(tmp_path.iterdir())


def test_an_adapter_with_infinite_weights_is_not_merged(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(folder)], check=True)
    weights = folder / "adapter" / lora.WEIGHTS
    state = load_file(weights)
    save_file({name: torch.full_like(value, float("inf")) for name, value in state.items()}, weights)
    with pytest.raises(UserError, match="finite weights"):
        merge(saved.open_run(folder), folder, tmp_path / "out", None)


def test_without_held_out_rows_a_merge_is_judged_on_training_rows_and_says_so(
    tmp_path: Path, lorasweep: Callable[..., Done]
) -> None:
    folder = trained(tmp_path / "run", "data.eval_fraction=0")
    done = lorasweep("merge", str(folder), "out", "--dtype", "float16")
    assert done.code == 0
    assert "32 of train, which training has seen" in done.out
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["dtype"] == "float16"


def test_an_adapter_that_rounding_takes_away_is_refused_in_bfloat16_and_merged_in_float16(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "optim.lr=2e-5", "train.max_steps=2")
    with pytest.raises(UserError, match="rounded away: float16"):
        merge(saved.open_run(folder), folder, tmp_path / "out", "bfloat16")
    weaker = merge(saved.open_run(folder), folder, tmp_path / "out", "float16").comparison.strength
    assert 0.9 < weaker < 1.1
