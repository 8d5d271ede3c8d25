"""Every command in the README and the docs is checked as typed, and those that can run here do."""

import re
import shlex
from pathlib import Path

import pytest

from lorasweep.record import claim
from tests.conftest import ROOT, command, composed

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line.strip().removeprefix("python train.py").split("  ")[0].strip())
    for page in PAGES
    for line in page.read_text().splitlines()
    if line.startswith("    python train.py")
]
RUNNABLE = [case for case in COMMANDS if "model=tiny" in case[1]]


def test_the_pages_have_commands() -> None:
    assert len(PAGES) >= 4
    assert len(COMMANDS) >= 10
    assert len(RUNNABLE) >= 5


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_every_command_composes(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT if "docs/" in line else tmp_path)
    Path(tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    line = re.sub(r"outputs/runs/<time>", str(tmp_path), line)
    if "experiment=saved" in line:
        claim(tmp_path, composed())
    assert composed(*shlex.split(line)).model.name


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), RUNNABLE, ids=[line for _, line in RUNNABLE])
def test_every_command_on_the_tiny_model_runs(page: str, line: str, tmp_path: Path) -> None:
    done = command(*shlex.split(line), f"hydra.run.dir={tmp_path}/run", "evaluation.max_new_tokens=4", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
