"""A trained run, the commands as a user types them, and what both are compared with."""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from lorasweep import cli, results, saved
from lorasweep.data import build_datasets
from lorasweep.device import Device
from lorasweep.evaluation import Evaluator
from lorasweep.model import build_tokenizer
from lorasweep.record import Launch
from lorasweep.run import train
from lorasweep.schema import Run
from tests.conftest import tiny
from tests.test_numerics import CPU

BFLOAT16 = Device("cpu", "", 1.0, torch.bfloat16)
STEPS = ("train.max_steps=4", "data.limit=40", "optim.lr=2e-2", "scheduler=constant")


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def lorasweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """`lorasweep …` as a user types it, in a folder that has nothing to do with the run."""

    def command(*arguments: str, cwd: Path = tmp_path, answers: str = "") -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    yield command
    logging.captureWarnings(False)


def trained(folder: Path, *overrides: str) -> Path:
    """Train a tiny run into `folder`."""
    assert train(tiny(*STEPS, *overrides), Launch(folder, [])).state == "complete"
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an NF4 base, an evaluation and a test split."""
    folder = tmp_path_factory.mktemp("after") / "one"
    return trained(folder, "data.test_fraction=0.1", "evaluation.generate=2", "evaluation.max_new_tokens=4")


def summary_of(folder: Path) -> dict[str, Any]:
    return results.read_json(folder / "summary.json")


def loaded(folder: Path, device: Device = CPU, quantised: bool = True) -> tuple[Run, Any, Any]:
    """Run, evaluation rows and model of a run folder."""
    opened = saved.open_run(folder)
    rows = build_datasets(opened.data, build_tokenizer(opened.model), 512)["eval"].rows
    return opened, rows, saved.load(opened, folder, device, quantised)


def loss(opened: Run, rows: Any, model: Any, device: Device = CPU) -> float:
    return Evaluator(rows, build_tokenizer(opened.model), opened.evaluation, device)(model).loss
