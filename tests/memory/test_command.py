"""The command `memory`, and the page about it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, Qwen3Config

from lorasweep import cli
from lorasweep.rules import UserError
from tests.conftest import ROOT, command

PAGE = (ROOT / "docs" / "memory.md").read_text()
LINES = re.findall(r"^    lorasweep memory (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def configs(tmp_path: Path) -> dict[str, str]:
    """Folders that hold a config.json alone, in the place of the models of the page."""
    llama = LlamaConfig(max_position_embeddings=4096, vocab_size=32000)
    qwen = Qwen3Config(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=151936,
    )  # fmt: skip
    for name, config in {"llama2_7b_chat": llama, "qwen3_8b": qwen}.items():
        config.save_pretrained(tmp_path / name)
    return {name: str(tmp_path / name) for name in ("llama2_7b_chat", "qwen3_8b")}


def memory(*arguments: str) -> None:
    """`lorasweep memory …` as a user types it."""
    cli.app(["memory", *arguments], standalone_mode=False)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_predicts(
    line: str, configs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (model,) = re.findall(r"model=(\w+)", line)
    memory(*shlex.split(line), f"model.name={configs[model]}")
    shown = capsys.readouterr().out
    if "--json" in line:
        found = json.loads(shown)
        assert found["needed_gib"] > found["predicted_gib"] > 5
        assert sum(found["parts_gib"].values()) == pytest.approx(found["predicted_gib"], abs=0.01)
        return
    assert "base, quantised" in shown
    assert "a GPU needs" in shown
    assert ("It fits: train.fit=" in shown) == ("train.fit" in line)


def test_the_page_has_commands() -> None:
    assert len(LINES) >= 5


def test_a_model_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name"):
        memory(f"model.name={tmp_path}/nothing", "model.source=hub")


def test_what_does_not_fit_is_said(configs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    memory("model=llama2_7b_chat", f"model.name={configs['llama2_7b_chat']}", "train.fit=4GiB", "--length", "512")
    assert "It does not fit: train.fit=4GiB" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("line", re.findall(r"^    python train.py (.*)$", PAGE, re.MULTILINE))
def test_what_is_trained_on_the_page_can_be(line: str, tmp_path: Path) -> None:
    done = command(*shlex.split(line), "tracking.wandb=disabled", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_is_found_without_torch() -> None:
    program = (
        "import sys\nfrom lorasweep import cli\nsys.argv = ['lorasweep', 'memory', 'lora.rr=1']\ntry:\n    cli.main()\n"
    )
    program += "except SystemExit as error:\n    print(error.code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["2", "False"]
