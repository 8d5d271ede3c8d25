"""Trials that several processes train together, on GPUs of their own or, here, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lorasweep.data import file_hash
from lorasweep.host import Interrupted
from lorasweep.processes.group import current
from lorasweep.rules import UserError
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.slots import build_slots, count_slots, idle_gpus
from lorasweep.study.worker import Job, Outcome, Reporter
from tests.conftest import ROOT, command, problems
from tests.study.sessions import launch, log_of, processes_of, run, trials_of, until
from tests.study.toy import happen, toy

PATIENCE = 300.0
STUDY = (
    "-m", "study=pairs", "lora.r=4,8", "model=tiny", "data.limit=24", "train.max_steps=3", "train.batch_size=4",
    "lora.dropout=0.1", "optim.lr=1e-2", "evaluation.times=2", "evaluation.generate=0", "tracking.wandb=disabled",
    "hydra.sweeper.slots=1", "hydra.sweeper.gpus_per_trial=2",
)  # fmt: skip


class Together:
    """Waits for its sibling at every step; a trial breaks in the second process, by its number in `faults`."""

    worn = False

    def check(self, runs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"problems": [], "facts": {}}

    def train(self, job: Job, reporter: Reporter) -> Outcome:
        group, study = current(), job.run["study"]
        pids = group.exchange(os.getpid())
        if group.is_first:
            print(f"processes {pids[0]} {pids[1]} on {group.exchange(os.environ.get('CUDA_VISIBLE_DEVICES'))}")
        else:
            group.exchange(os.environ.get("CUDA_VISIBLE_DEVICES"))
        steps = study["long"] or 4
        for step in range(1, steps + 1):
            time.sleep(study["seconds"])
            if group.any(reporter.stopping()):
                raise Interrupted
            reporter.progress(step, steps)
            if step == 2 and not group.is_first:
                happen(study["faults"].get(str(job.number), ""), job.folder)
        return Outcome(State.COMPLETE, [job.run["x"]])


def together(folder: Path, **options: Any) -> Any:
    given = {"slots": 1, "gpus_per_trial": 2, "n_trials": 3, "objective": f"{__name__}:Together", **options}
    return toy(folder, **given)


def pids_of(folder: Path, number: int) -> list[str]:
    return log_of(folder, number).split("processes ")[-1].split()[:2]


@pytest.mark.parametrize(
    ("visible", "settings", "slots", "idle"),
    [
        ("0,1,2,3", {"gpus_per_trial": 2}, ["0,1", "2,3"], []),
        ("4,5,6,7,8", {"gpus_per_trial": 2}, ["4,5", "6,7"], ["8"]),
        ("0,1,2,3", {"gpus_per_trial": 2, "slots": 1}, ["0,1"], ["2", "3"]),
        ("0,1,2", {"gpus_per_trial": 2, "slots": 3}, ["0,1", "2,0", "1,2"], []),
        ("0,1,2", {"gpus_per_trial": 3}, ["0,1,2"], []),
        ("", {"gpus_per_trial": 2}, [None], []),
    ],
)
def test_gpus_are_divided_among_slots(
    visible: str,
    settings: dict[str, int],
    slots: list[str | None],
    idle: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked = Settings(**settings)  # type: ignore[arg-type]
    assert [slot.gpu for slot in build_slots(asked, "toy", tmp_path)] == slots
    assert count_slots(asked) == len(slots)
    assert idle_gpus(asked) == idle


def test_more_gpus_than_there_are_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="at most 2, the visible GPUs"):
        run(together(tmp_path / "study", gpus_per_trial=3))
    assert not (tmp_path / "study").exists()


def test_rows_that_processes_cannot_divide_are_refused() -> None:
    (problem,) = problems(*STUDY, "train.batch_size=3")
    assert problem.key == "train.batch_size"
    assert problem.allowed.startswith("a multiple of 2, the number of processes")


def test_another_number_of_gpus_per_trial_is_another_study(tmp_path: Path) -> None:
    one, two = (toy(tmp_path, gpus_per_trial=count).lasting() for count in (1, 2))
    assert {key for key in one if one[key] != two[key]} == {"hydra.sweeper.gpus_per_trial"}


def test_processes_of_a_slot_stay_for_its_trials_and_see_a_gpu_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    monkeypatch.setenv("TOY", str(tmp_path / "study"))
    reason, text = run(together(tmp_path / "study"))
    assert reason is None
    assert "GPU 9 is left over" in text
    assert len({tuple(pids_of(tmp_path / "study", number)) for number in range(3)}) == 1
    assert "on ['4', '7']" in log_of(tmp_path / "study", 0)
    until(lambda: [p.pid for p in processes_of(tmp_path / "study")] in ([], [os.getpid()]))


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        ("exception", State.FAILED, "process 1 of 2: RuntimeError: something is broken"),
        ("out of memory", State.OUT_OF_MEMORY, "process 1 of 2: MemoryError"),
        ("kill once", State.COMPLETE, ""),
        ("kill", State.FAILED, "killed by SIGKILL 3 times"),
        ("exit", State.FAILED, "exit code 7"),
        ("segfault", State.FAILED, "SIGSEGV"),
        ("hang", State.HUNG, "no sign of life"),
    ],
)
@pytest.mark.slow
def test_what_ends_a_sibling_is_what_ended_the_trial_and_the_next_has_other_processes(
    fault: str, state: State, reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    options = {"hang_timeout": 5.0} if fault == "hang" else {}
    run(together(folder, faults={1: fault}, **options))
    trials = trials_of(folder)
    assert [trial.state for trial in trials] == [State.COMPLETE, state, State.COMPLETE]
    assert reason in (trials[1].reason or "")
    before, after = pids_of(folder, 0), pids_of(folder, 2)
    assert not set(before) & set(after)
    if fault == "exception":
        assert "process 1 of 2: RuntimeError: something is broken" in log_of(folder, 1)
    if fault == "hang":
        assert "in happen" in log_of(folder, 1)


def endless(folder: Path) -> Any:
    """The controller of a study whose first trial, of two processes, does not end by itself."""
    options = {"slots": 1, "gpus_per_trial": 2, "seconds": 0.05, "study": {"long": 100_000}}
    session = launch(folder, {"TOY": str(folder)}, objective=f"{__name__}:Together", **options)
    until(lambda: (folder / "trials/0/log.txt").exists() and "processes" in log_of(folder, 0), PATIENCE)
    assert len(processes_of(folder)) >= 3  # the controller, the worker, its sibling
    return session


@pytest.mark.slow
def test_a_study_that_is_stopped_stops_all_processes_of_its_trials(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    session = endless(folder)
    session.send_signal(signal.SIGTERM)
    output, _ = session.communicate(timeout=PATIENCE)
    assert session.returncode == os.EX_TEMPFAIL, output
    assert [trial.state for trial in trials_of(folder)] == [State.INTERRUPTED]
    until(lambda: not processes_of(folder), PATIENCE)


@pytest.mark.slow
def test_a_study_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    session = endless(folder)
    session.kill()
    session.communicate(timeout=PATIENCE)
    until(lambda: not processes_of(folder), PATIENCE)
    assert not processes_of(folder)


def adapter_of(folder: Path) -> str:
    return file_hash(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.slow
def test_a_trial_that_is_stopped_goes_on_to_the_adapter_it_would_have_had(tmp_path: Path) -> None:
    one = [item for item in STUDY if not item.startswith("lora.r=")]
    overrides = [*one, "train.max_steps=120", "train.save_every=50", "verbosity=quiet", "hydra.sweep.dir=study"]
    overrides = [item for item in overrides if not item.startswith("study=")]
    (tmp_path / "through").mkdir()
    through = command(*overrides, cwd=tmp_path / "through", OMP_NUM_THREADS="1")
    assert through.returncode == 0, through.stderr
    session = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    trial = tmp_path / "study" / "trials" / "0"
    until(
        lambda: (trial / "metrics.jsonl").exists() and "train/loss" in (trial / "metrics.jsonl").read_text(), PATIENCE
    )
    session.send_signal(signal.SIGTERM)
    output, _ = session.communicate(timeout=PATIENCE)
    assert session.returncode == os.EX_TEMPFAIL, output
    assert json.loads((trial / "summary.json").read_text())["state"] == "interrupted"
    again = command(*overrides, cwd=tmp_path, OMP_NUM_THREADS="1")
    assert again.returncode == 0, again.stderr
    assert adapter_of(trial) == adapter_of(tmp_path / "through" / "study" / "trials" / "0")


@pytest.mark.slow
def test_trials_of_two_processes_have_the_adapters_of_torchrun(tmp_path: Path) -> None:
    done = command(*STUDY, "verbosity=quiet", cwd=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = tmp_path / "outputs" / "studies" / "pairs" / "trials"
    for number in ("0", "1"):
        record = json.loads((trials / number / "record.json").read_text())
        assert record["processes"]["count"] == 2
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launcher, str(ROOT / "train.py"), "--config-dir", str(trials / "1"), "experiment=saved", "study=null",
         "hydra.run.dir=again"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert adapter_of(tmp_path / "again") == adapter_of(trials / "1") != adapter_of(trials / "0")
