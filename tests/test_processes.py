"""One run in several processes: the same steps, losses and adapter as in one, and one end for all."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lorasweep.identity import differences, identity
from lorasweep.metrics import read
from lorasweep.processes import launched
from lorasweep.processes.group import Processes, current
from lorasweep.processes.peers import Peers
from lorasweep.processes.share import Share
from lorasweep.reproduce.drift import compared
from lorasweep.reproduce.facts import Weight, facts
from lorasweep.results import read_lines
from tests.conftest import ROOT, TINY, command, tiny
from tests.study.sessions import until

LAUNCHED = {"RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
TWO = {**LAUNCHED, "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
SMALL = (*TINY, "data.limit=24", "quant=nf4", "lora.dropout=0", "evaluation.times=2", "train.batch_size=4")
PLANNED = (*SMALL, "train.tokens_per_step=60", "train.max_steps=4", "evaluation.generate=3", "evaluation.batch_size=2",
           "evaluation.max_new_tokens=4")  # fmt: skip
CLASSIC = (*SMALL, "train.grad_accum=2", "train.epochs=2")
"""Nineteen rows: the last step of an epoch has three, its second pass none."""
PACKED = (*SMALL, "data.packing=true", "data.max_length=64", "train.grad_accum=2", "train.epochs=2")
PATIENCE = 300.0


def started(*overrides: str, cwd: Path) -> subprocess.Popen[str]:
    """`torchrun --nproc-per-node=2 train.py …` in a process of its own."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / "train.py"), *overrides],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes(*overrides: str, cwd: Path) -> list[subprocess.Popen[str]]:
    """Two processes of one run, as a scheduler starts them: none but they themselves watches over them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    common = {**os.environ, **TWO, "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *overrides],
            cwd=cwd,
            env={
                **common,
                "RANK": rank,
                "LOCAL_RANK": rank,
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]


def ended(both: list[subprocess.Popen[str]]) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of processes, all of which end."""
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    return [process.returncode for process in both], outputs


def together(*overrides: str, cwd: Path, folder: str = "together", code: int = 0) -> Path:
    """Train in two processes; the folder, after looking at how both ended."""
    resumes = any(text.startswith("resume=") for text in overrides)
    codes, outputs = ended(processes(*overrides, *([] if resumes else [f"hydra.run.dir={folder}"]), cwd=cwd))
    assert codes == [code, code], "\n".join(outputs)
    return cwd / folder


def learning(folder: Path, steps: int = 2) -> list[int]:
    """Wait until a run has done so many steps; the process ids, the first one first."""
    until(lambda: len(column(folder, "train/loss")) >= steps, PATIENCE)
    return [item["pid"] for item in json.loads((folder / "record.json").read_text())["processes"]["of"]]


def summary_of(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "summary.json").read_text())
    assert isinstance(values, dict)
    return values


def alone(*overrides: str, cwd: Path) -> Path:
    """Train the same in one process."""
    done = command(*overrides, "hydra.run.dir=alone", cwd=cwd, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return cwd / "alone"


def column(folder: Path, name: str) -> list[float]:
    return [line[name] for line in read(folder) if name in line]


def fails(answer: str, expected: str) -> float:
    """A metric of the user's with a bug that only the second process meets."""
    if current().share.rank == 1:
        raise ArithmeticError("a bug of the second process")
    return 0.0


def runs_out(answer: str, expected: str) -> float:
    """The GPU of the second process is smaller."""
    if current().share.rank == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return 0.0


def assert_equal(one: Path, other: Path) -> None:
    """Every step and every score are the same within float32's rounding."""
    for name in ("train/loss", "train/grad_norm", "train/lr", "tokens/total", "tokens/supervised"):
        assert column(other, name) == pytest.approx(column(one, name), rel=2e-4), name
    evaluations = [read_lines(folder / "evaluation.jsonl") for folder in (one, other)]
    assert [line["step"] for line in evaluations[0]] == [line["step"] for line in evaluations[1]]
    for before, after in zip(*evaluations, strict=True):
        assert after["row_losses"] == pytest.approx(before["row_losses"], rel=2e-4)
        assert [after[key] for key in ("row_tokens", "rows", "answers")] == [
            before[key] for key in ("row_tokens", "rows", "answers")
        ]
    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, value in adapters[0].items():
        torch.testing.assert_close(adapters[1][name], value, rtol=1e-2, atol=2e-4)


def test_what_processes_divide_goes_to_one_of_them_each_and_comes_to_about_the_same() -> None:
    costs = [7, 1, 5, 5, 3, 2, 8, 1, 1]
    shares = Share(0, 3).all_even(costs)
    assert sorted(position for share in shares for position in share) == list(range(9))
    assert {sum(costs[position] for position in share) for share in shares} == {11}
    assert Share(2, 3).all_even([4]) == [[0], [], []]
    assert [list(Share(rank, 2).alternate("abcde")) for rank in (0, 1)] == [["a", "c", "e"], ["b", "d"]]


@pytest.mark.parametrize(
    ("overrides", "key", "allowed"),
    [
        (("train.batch_size=3",), "train.batch_size", "a multiple of 2"),
        (("train.group_by_length=true",), "train.group_by_length", "false with several processes"),
    ],
    ids=["rows that cannot be divided", "an order that each would draw for itself"],
)
def test_what_cannot_be_divided_is_refused(overrides: tuple[str, ...], key: str, allowed: str) -> None:
    (problem,) = launched.problems(tiny("train.batch_size=4", *overrides), False, TWO)
    assert problem.key == key
    assert allowed in problem.allowed
    assert not list(launched.problems(tiny("train.batch_size=4", *overrides), False, {}))


def test_a_launcher_that_says_too_little_or_shards_the_model_is_refused() -> None:
    environment = {**TWO, "MASTER_PORT": "", "ACCELERATE_USE_FSDP": "true"}
    assert [item.key for item in launched.problems(tiny(), False, environment)] == [
        "MASTER_PORT",
        "ACCELERATE_USE_FSDP",
    ]


def test_more_processes_than_gpus_are_refused() -> None:
    (problem,) = launched.problems(tiny(), False, {**TWO, "CUDA_VISIBLE_DEVICES": "3"})
    assert (problem.key, problem.value) == ("--nproc-per-node", 2)


def test_a_study_is_refused_with_the_reason_and_only_once_a_machine(tmp_path: Path) -> None:
    done = [command("-m", "lora.r=8,16", *TINY, cwd=tmp_path, **{**TWO, "LOCAL_RANK": rank}) for rank in "01"]
    assert [item.returncode for item in done] == [2, 2]
    assert "a study starts its own workers" in done[0].stderr
    assert not done[1].stderr
    assert not list(tmp_path.iterdir())


def test_each_process_has_random_numbers_of_its_own_which_follow_from_the_seed() -> None:
    def drawn(rank: int, seed: int) -> float:
        torch.manual_seed(5)
        Processes(Peers(Share(rank, 3), {}), "gloo").seed(seed)
        return torch.rand(()).item()

    assert drawn(0, 42) == drawn(0, 43)  # as a process alone goes on
    assert len({drawn(rank, 42) for rank in range(3)}) == 3
    assert drawn(1, 42) == drawn(1, 42) != drawn(1, 43)


def test_another_number_of_processes_is_another_input() -> None:
    device = {"kind": "cpu", "precision": "float32"}
    two, one = {"device": device, "processes": {"count": 2}}, {"device": device}
    (drift,) = compared(facts(two, {}), facts(one, {})).of(Weight.INPUT)
    assert (drift.name, drift.before, drift.now) == ("number of processes", 2, 1)
    (difference,) = differences(identity({}, two), identity({}, one))
    assert difference.is_of_state


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [PLANNED, CLASSIC, PACKED], ids=["tokens per step", "rows per step", "packed"])
def test_two_processes_learn_what_one_learns(overrides: tuple[str, ...], tmp_path: Path) -> None:
    one, other = alone(*overrides, cwd=tmp_path), together(*overrides, cwd=tmp_path)
    assert_equal(one, other)
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    record = json.loads((other / "record.json").read_text())
    assert record["processes"]["count"] == 2
    assert record["processes"]["backend"] == "gloo"
    assert len({item["pid"] for item in record["processes"]["of"]}) == 2
    assert (one / "run.yaml").read_text() == (other / "run.yaml").read_text()


ENDLESS = (*PLANNED, "train.max_steps=100000", "evaluation.times=1", "evaluation.untuned=false")
STOPPED = (*SMALL, "train.tokens_per_step=60", "train.max_steps=40", "lora.dropout=0.1", "train.save_every=3")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_other(rank: int, tmp_path: Path) -> None:
    both = processes(*ENDLESS, "hydra.run.dir=run", cwd=tmp_path)
    pids = learning(tmp_path / "run")
    assert pids == [process.pid for process in both]
    both[rank].send_signal(signal.SIGKILL)
    codes, outputs = ended(both)
    assert codes == ([-9, 1] if rank == 0 else [1, -9])
    if rank:
        assert summary_of(tmp_path / "run")["state"] == "failed"
        assert "process 1 of 2: it is gone without a word" in summary_of(tmp_path / "run")["error"]
        assert "Process 1 of 2: it is gone" in outputs[0]
    else:
        assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "state", "code"),
    [("fails", "failed", 1), ("runs_out", "out_of_memory", 4)],
    ids=["bug", "out of memory"],
)
def test_what_ends_one_process_is_what_ended_the_run(metric: str, state: str, code: int, tmp_path: Path) -> None:
    own = ("evaluation.objective=loss", f"evaluation.metrics=[tests.test_processes:{metric}]")
    both = processes(*PLANNED, *own, "hydra.run.dir=run", cwd=tmp_path)
    codes, outputs = ended(both)
    assert codes == [code, code], "\n".join(outputs)
    summary = summary_of(tmp_path / "run")
    assert summary["state"] == state
    assert summary["error"].startswith("process 1 of 2: ")
    if metric == "fails":
        assert "a bug of the second process" in (tmp_path / "run" / "error.txt").read_text()
        assert "process 1 of 2: ArithmeticError" in outputs[1]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step_and_the_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    through = together(*STOPPED, cwd=tmp_path, folder="through")
    both = processes(*STOPPED, "hydra.run.dir=run", cwd=tmp_path)
    learning(tmp_path / "run", 4)
    both[1].send_signal(signal.SIGUSR1)
    codes, outputs = ended(both)
    assert codes == [os.EX_TEMPFAIL] * 2, "\n".join(outputs)
    assert summary_of(tmp_path / "run")["state"] == "interrupted"
    refused = command("resume=run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "number of processes = 1\n  2, as the run was begun" in refused.stderr
    together("resume=run", cwd=tmp_path)
    for name in ("train/loss", "train/grad_norm", "tokens/total", "eval/loss"):
        assert column(tmp_path / "run", name) == column(through, name)
    summaries = [summary_of(folder) for folder in (through, tmp_path / "run")]
    assert summaries[0]["digests"] == summaries[1]["digests"]


@pytest.mark.slow
def test_torchrun_is_stopped_with_a_checkpoint_and_goes_on(tmp_path: Path) -> None:
    overrides = (*STOPPED, "train.max_steps=100000", "hydra.run.dir=run")
    process = started(*overrides, cwd=tmp_path)
    learning(tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    summary = summary_of(tmp_path / "run")
    assert summary["state"] == "interrupted", output
    assert (tmp_path / "run" / "checkpoints" / f"step-{summary['steps']:06d}").is_dir()
    again = started("resume=run", cwd=tmp_path)
    learning(tmp_path / "run", summary["steps"] + 1)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=PATIENCE)
    assert summary_of(tmp_path / "run")["steps"] > summary["steps"]
