"""The default job for real: the embedded model, quantised, learns; its answers get right."""

import json
from pathlib import Path

import pytest
import torch

from lorasweep import embedded_model
from tests.conftest import command

pytestmark = pytest.mark.slow


def test_the_default_job_learns_on_this_machine(tmp_path: Path) -> None:
    done = command("tracking.wandb=offline", cwd=tmp_path, timeout=1200)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["eval/loss"] < summary["untuned/eval/loss"] / 2
    assert summary["eval/exact_match"] >= summary["untuned/eval/exact_match"] + 0.1
    assert summary["steps"] == 16
    assert "Answers" in done.stdout
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_the_unpacked_model_answers_as_the_one_in_the_package(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = embedded_model.gguf_file()
    ours, packaged = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **options)
        for place, options in ((embedded_model.folder(), {}), (str(source.parent), {"gguf_file": source.name}))
    )
    tokenizer = AutoTokenizer.from_pretrained(embedded_model.folder())
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        logits = [model(**inputs).logits for model in (ours, packaged)]
        text = tokenizer.decode(ours.generate(**inputs, max_new_tokens=20, do_sample=False)[0])
    assert torch.allclose(*logits, atol=0.5)
    assert torch.equal(*(item.argmax(-1) for item in logits))
    assert "Paris" in text
