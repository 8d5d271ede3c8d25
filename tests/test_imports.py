"""Help, the composed config, completion and every config error come without the heavy libraries."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.looking.made import made
from tests.study.trials import ended, kept

HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "optuna", "wandb", "numpy")


def assert_nothing_heavy(program: str, folder: object, heavy: tuple[str, ...] = HEAVY) -> None:
    """Run a program that ends in the body of a `try`, and look at what it has imported by its exit."""
    program += (
        f"except SystemExit:\n    pass\nprint('HEAVY', sorted(set({heavy!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=str(folder), timeout=120)
    assert done.stderr.rstrip().endswith("HEAVY []"), done.stderr[-800:]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["-sc", "query=bash"],
        ["lora.rr=1"],
        ["optim.lr=nan"],
        ["data.streaming=true"],
        ["--info", "searchpath"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_imports_no_heavy_library(arguments: list[str], tmp_path: object) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
    )
    assert_nothing_heavy(program, tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["evaluate", "--help"],
        ["chat", "nowhere"],
        ["push", "nowhere", "me/it"],
        ["wandb", "--help"],
        ["wandb", "sync", "nowhere"],
        ["wandb", "report", "nowhere"],
        ["wandb", "sweep", "nowhere"],
    ],
    ids=" ".join,
)
def test_help_and_quick_errors_of_the_commands_import_no_heavy_library(arguments: list[str], tmp_path: object) -> None:
    program = f"import sys\nfrom lorasweep import cli\nsys.argv = ['lorasweep', *{arguments!r}]\ntry:\n    cli.main()\n"
    assert_nothing_heavy(program, tmp_path)


@pytest.mark.parametrize("arguments", [["ls"], ["show", "a"], ["show", "s"], ["compare", "a", "b"]], ids=" ".join)
def test_what_is_only_looked_at_imports_no_heavy_library(arguments: list[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        made(tmp_path / "outputs" / "runs" / name)
    store = kept(tmp_path / "outputs" / "studies" / "s")
    ended(store, {"lora.r": 8}, 1.0, "baseline")
    store.close()
    program = f"import sys\nfrom lorasweep import cli\nsys.argv = ['lorasweep', *{arguments!r}]\ntry:\n    cli.main()\n"
    assert_nothing_heavy(program, tmp_path, (*HEAVY, "hydra"))


def test_what_is_another_is_said_without_a_heavy_library(tmp_path: Path) -> None:
    made(tmp_path / "outputs" / "runs" / "a")
    arguments = ["lorasweep", "reproduce", "a", "--check"]
    program = f"import sys\nfrom lorasweep import cli\nsys.argv = {arguments!r}\ntry:\n    cli.main()\n"
    assert_nothing_heavy(program, tmp_path)


def test_the_schema_imports_nothing_outside_the_standard_library() -> None:
    program = (
        "import sys, lorasweep.schema; print([n for n in ('torch', 'hydra', 'omegaconf', 'yaml') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
