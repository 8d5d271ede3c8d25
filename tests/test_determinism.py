"""deterministic=true: set before torch is loaded, strict while a run trains, undone after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lorasweep import determinism
from lorasweep.data import file_hash
from lorasweep.doubts import config_doubts
from lorasweep.host import Host
from lorasweep.record import Launch
from lorasweep.rules import UserError
from lorasweep.run import train
from tests.conftest import ROOT, problems, tiny

RUN = ("train.max_steps=3", "evaluation.times=1", "lora.dropout=0.1", "deterministic=true")
COMMAND = f"""
import json, os, runpy, sys, types
preflight = types.ModuleType("lorasweep.preflight")
def check_inputs(run):
    print(json.dumps([os.environ.get("CUBLAS_WORKSPACE_CONFIG"), "torch" in sys.modules]))
    raise SystemExit
preflight.check_inputs = check_inputs
sys.modules["lorasweep.preflight"] = preflight
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
"""


class Looking(Host):
    """Sees whether torch is strict."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def progress(self, step: int, total: int) -> None:
        self.seen.append(torch.are_deterministic_algorithms_enabled())


class Careless(Host):
    """Does something in every step that torch cannot do twice alike."""

    def progress(self, step: int, total: int) -> None:
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(("given", "wanted"), [((), None), (("deterministic=true",), ":4096:8")])
def test_the_command_sets_variables_before_anything_reads_them(given: tuple[str, ...], wanted: str | None) -> None:
    command = [sys.executable, "-c", COMMAND, "model=tiny", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == [wanted, False], done.stderr


def test_torch_is_strict_while_a_run_trains_and_a_cpu_gives_what_it_gives_anyhow(tmp_path: Path) -> None:
    host, free = Looking(), Looking()
    assert train(tiny(*RUN), Launch(tmp_path / "strict", []), host).state == "complete"
    assert not torch.are_deterministic_algorithms_enabled()
    assert train(tiny(*RUN, "deterministic=false"), Launch(tmp_path / "free", []), free).state == "complete"
    assert (host.seen, free.seen) == ([True] * 3, [False] * 3)
    adapters = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("strict", "free")]
    assert file_hash(adapters[0]) == file_hash(adapters[1])


def test_what_has_no_kernel_that_repeats_itself_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"deterministic = True\n  false, or settings .*: put_ does not have") as caught:
        train(tiny(*RUN), Launch(tmp_path / "run", []), Careless())
    assert caught.value.problems[0].key == "deterministic"
    assert not torch.are_deterministic_algorithms_enabled()
    assert train(tiny(*RUN, "deterministic=false"), Launch(tmp_path / "free", []), Careless()).state == "complete"


def test_what_is_not_promised_is_said() -> None:
    given = ("train.compile=true", "model.attention=varlen")
    assert [line.partition(":")[0] for line in config_doubts(tiny(*given, "deterministic=true"))] == [*given]
    assert not [*config_doubts(tiny(*given))]
    assert not [*config_doubts(tiny("train.compile=auto", "deterministic=true"))]


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="something else"), determinism.strict(True):
        raise RuntimeError("something else")


def test_a_study_is_deterministic_or_it_is_not() -> None:
    (problem,) = problems("-m", "model=tiny", "deterministic=true,false")
    assert (problem.key, problem.allowed) == ("deterministic", "one value: it is for whole processes, and costs time")
