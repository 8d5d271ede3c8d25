"""Help, the composed config, completion and every config error come without the heavy libraries."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "optuna", "wandb", "numpy")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--cfg", "job"], ["-sc", "query=bash"], ["lora.rr=1"], ["optim.lr=nan"], ["--info", "searchpath"]],
    ids=" ".join,
)
def test_what_needs_no_model_imports_no_heavy_library(arguments: list[str], tmp_path: object) -> None:
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['train.py', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=str(tmp_path), timeout=120
    )
    assert done.stderr.rstrip().endswith("HEAVY []"), done.stderr[-800:]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["evaluate", "--help"], ["chat", "nowhere"], ["push", "nowhere", "me/it"]], ids=" ".join
)
def test_help_and_quick_errors_of_the_commands_import_no_heavy_library(arguments: list[str], tmp_path: object) -> None:
    program = (
        "import sys\n"
        "from lorasweep import cli\n"
        f"sys.argv = ['lorasweep', *{arguments!r}]\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=str(tmp_path), timeout=120
    )
    assert done.stderr.rstrip().endswith("HEAVY []"), done.stderr[-800:]


def test_the_schema_imports_nothing_outside_the_standard_library() -> None:
    program = (
        "import sys, lorasweep.schema; print([n for n in ('torch', 'hydra', 'omegaconf', 'yaml') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
