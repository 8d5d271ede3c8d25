"""`python train.py resume=RUN`, as typed: checked in about a second, refused with a reason, stopped by signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorasweep import compose
from lorasweep.host import OwnProcess
from lorasweep.record import claim
from tests.conftest import ROOT, TINY, composed, problems, tiny
from tests.resume.children import Stopper, differing, left_by, resumed_after
from tests.study.sessions import until

RUNS = Path("outputs/runs")
LONG = (
    *TINY, "data.limit=24", "evaluation.generate=0", "train.max_steps=30", "lora.dropout=0.1", "evaluation.times=2",
    "verbosity=normal",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own; what a command line does to sys.argv is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    return tmp_path


def begun(name: str = "2026-01-01_00-00-00_abcd", *overrides: str, **summary: Any) -> Path:
    """A run folder as a run leaves it that has ended like this."""
    folder = RUNS / name
    claim(folder, composed("model=tiny", *overrides))
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        compose.check_command_line(ROOT / "conf", arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_the_config_of_the_folder_is_the_one_that_goes_on(here: Path) -> None:
    folder = begun("odd 'name, of=a run", "lora.r=4", "optim=adamw_8bit", "scheduler=cosine_with_min_lr")
    run = compose.check_command_line(ROOT / "conf", [f"resume='{folder!s}'".replace("'name", "\\'name")])
    assert run is not None
    assert (run.lora.r, run.optim.name, run.scheduler.kwargs) == (4, "adamw_8bit", {"min_lr_rate": 0.1})
    assert run.resume == str(folder)
    again = compose.CommandLine.of(sys.argv[1:])
    assert [item.key_or_group for item in again.overrides] == ["experiment", "hydra.run.dir", "resume"]
    assert again.overrides[1].value() == str(folder.resolve())


def test_a_folder_without_a_run_is_refused_with_the_nearest(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun()
    assert compose.check_command_line(ROOT / "conf", [f"resume={folder.name}"]), "its name is enough"
    text = refused(capsys, f"resume={folder}x")
    assert "resume = 'outputs/runs/2026-01-01_00-00-00_abcdx'" in text
    assert f"did you mean '{folder.name}'?" in text


def test_all_that_is_another_is_refused_at_once_with_both_values(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun()
    text = refused(
        capsys,
        f"resume={folder}",
        "optim.lr=1e-3",
        "train.seed=7",
        "train.batch_size=2",
        "scheduler=cosine",
        "lora.r=16",
    )
    assert "optim.lr = 0.001\n  0.01, as the run was begun" in text
    assert "train.seed = 7\n  42, as the run was begun" in text
    assert "train.batch_size = 2\n  8, as the run was begun" in text
    assert "scheduler.name = 'cosine'\n  'linear', as the run was begun" in text
    assert f"python train.py --config-dir {folder} experiment=saved optim.lr=0.001 begins another run like it" in text
    assert "lora.r" not in text, "the same value is no difference"
    assert text.startswith("4 problems")


def test_a_config_that_was_edited_in_the_folder_is_noticed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun()
    saved = folder / "optim" / "saved.yaml"
    saved.write_text(saved.read_text().replace("lr: 0.01", "lr: 0.02"))
    assert "optim.lr = 0.02\n  0.01, as the run was begun" in refused(capsys, f"resume={folder}")


def test_what_changes_nothing_may_be_given_beside_it(here: Path) -> None:
    free = ("tracking.wandb=offline", "verbosity=debug", "train.save_every=5", "train.keep_checkpoints=1", "name=again")
    run = compose.check_command_line(ROOT / "conf", [f"resume={begun()}", *free])
    assert run is not None
    assert (run.verbosity, run.train.save_every, run.name) == ("debug", 5, "again")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiment=smoke"], "experiment = 'smoke'\n  left out"),
        (["hydra.run.dir=elsewhere"], "hydra.run.dir = 'elsewhere'\n  left out"),
        (["--config-dir=."], "left out"),
        (["-m", "lora.r=4,8"], "one run; the command of a study"),
        (["optm.lr=1"], "did you mean 'optim'"),
    ],
)
def test_nothing_else_decides_what_goes_on(
    arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, *arguments, f"resume={begun()}")


def test_several_runs_are_not_gone_on_with_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "one run" in refused(capsys, "-m", f"resume={begun()},{begun('other')}")


def test_a_file_cannot_ask_for_it(here: Path) -> None:
    (here / "more" / "experiment").mkdir(parents=True)
    (here / "more" / "experiment" / "again.yaml").write_text(f"# @package _global_\nresume: {begun()}\n")
    (problem,) = problems(f"--config-dir={here}/more", "experiment=again")
    assert (problem.key, problem.allowed) == ("resume", "only on the command line of train.py, for one run")


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ({"state": "diverged", "error": "the loss"}, "this one diverged, and would again"),
        ({"state": "interrupted"}, None), ({"state": "failed"}, None), ({"state": "out_of_memory"}, None), ({}, None),
    ],
)  # fmt: skip
def test_a_run_goes_on_however_it_ended_unless_it_would_end_so_again(
    summary: dict[str, str], words: str | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = begun(**summary)
    if words:
        assert words in refused(capsys, f"resume={folder}")
    else:
        assert compose.check_command_line(ROOT / "conf", [f"resume={folder}"]) is not None


def test_a_run_that_diverged_goes_on_at_another_rate(here: Path) -> None:
    folder = begun(state="diverged")
    run = compose.check_command_line(ROOT / "conf", [f"resume={folder}", "resume_anyway=true", "optim.lr=1e-3"])
    assert run is not None
    assert (run.optim.lr, run.resume_anyway) == (1e-3, True)


def test_a_complete_run_is_said_to_be_complete(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun(state="complete", objective=1.23456)
    with pytest.raises(SystemExit) as caught:
        compose.check_command_line(ROOT / "conf", [f"resume={folder}"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{folder} is complete, objective 1.2346: nothing is left to train\n"


def test_a_trial_is_gone_on_with_by_its_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = composed("model=tiny")
    run.study = "ranks"
    claim(Path("outputs/studies/ranks/trials/3"), run)
    text = refused(capsys, "resume=outputs/studies/ranks/trials/3")
    assert "this is a trial of ranks, whose command, once more, goes on with it" in text


def test_a_run_that_was_killed_before_it_began_is_begun_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = begun()
    (folder / "run.yaml").write_text("")
    assert "killed before it did" in refused(capsys, f"resume={folder}")


def test_what_is_wrong_takes_about_a_second_and_no_torch(here: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lorasweep import compose\n"
        f"try: compose.check_command_line(Path({str(ROOT / 'conf')!r}), sys.argv[1:])\n"
        "except SystemExit as end: print(end.code)\n"
        "print([name for name in ('torch', 'optuna', 'wandb', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, f"resume={begun()}", "optim.lr=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "2\n[]\n", done.stderr


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python train.py …` in a process group of its own, with what it prints in a file."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with open(place / "printed", "a") as printed:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *arguments],
            cwd=place, env=environment, stdout=printed, stderr=subprocess.STDOUT, text=True, process_group=0,
        )  # fmt: skip


def steps_of(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("train/loss") if path.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "overrides"),
    [
        (signal.SIGTERM, ()), (signal.SIGUSR1, ()), (signal.SIGINT, ()),
        (signal.SIGTERM, ("train.loader_workers=2",)), (signal.SIGINT, ("train.loader_workers=2",)),
    ],
)  # fmt: skip
def test_a_signal_to_the_whole_job_costs_nothing(
    number: signal.Signals, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(tmp_path, *LONG, *overrides, "hydra.run.dir=run")
    until(lambda: steps_of(folder) >= 2 or process.poll() is not None, 300)
    os.killpg(process.pid, number)
    assert process.wait(300) == 75, (tmp_path / "printed").read_text()
    printed = (tmp_path / "printed").read_text()
    assert "finishing this step, then writing a checkpoint; once more to stop at once" in printed
    assert "python train.py resume=run" in printed
    assert "Traceback" not in printed
    stopped = json.loads((folder / "summary.json").read_text())
    assert stopped["state"] == "interrupted"
    process = start(tmp_path, "resume=run")
    assert process.wait(300) == 0, (tmp_path / "printed").read_text()
    assert resumed_after(folder) == [stopped["steps"]]
    assert stopped["steps"] >= 2
    process = start(tmp_path, *LONG, *overrides, "hydra.run.dir=through")
    assert process.wait(300) == 0
    for place in (folder, tmp_path / "through"):
        (place / "end.json").write_text("{}")
    assert differing(left_by(folder), left_by(tmp_path / "through")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_before_anything_is_trained_leaves_what_can_be_begun_again(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = start(tmp_path, *LONG, "hydra.run.dir=run")
    loaded = Path(f"/proc/{process.pid}/maps")
    until(lambda: "libtorch" in loaded.read_text() or process.poll() is not None, 300)
    process.send_signal(number)
    assert process.wait(300) == 75
    printed = (tmp_path / "printed").read_text()
    assert "while nothing was trained" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_signals_to_the_whole_job_end_it_at_once_though_loaders_work_for_it(tmp_path: Path) -> None:
    process = start(tmp_path, *LONG, "train.loader_workers=2", "hydra.run.dir=run")
    until(lambda: steps_of(tmp_path / "run") >= 2 or process.poll() is not None, 300)
    loaders = psutil.Process(process.pid).children()
    assert loaders
    blocked = [re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{item.pid}/status").read_text()) for item in loaders]
    assert all(mask and int(mask[1], 16) & 1 << signal.SIGTERM - 1 for mask in blocked)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(300) == 75
    assert "Traceback" not in (tmp_path / "printed").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["state"] == "interrupted"
    assert not psutil.wait_procs(loaders, 60)[1]


def test_a_signal_lets_a_step_end_and_the_next_one_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    host, before = OwnProcess(), signal.getsignal(signal.SIGTERM)
    for first, second in (
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGINT),
        (signal.SIGINT, signal.SIGUSR1),
    ):
        with host.listening():
            host.training = True
            assert not host.stopping()
            signal.raise_signal(first)
            assert host.stopping()
            assert "finishing this step, then writing a checkpoint" in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt, match=second.name):
                signal.raise_signal(second)
    assert signal.getsignal(signal.SIGTERM) is before


def test_before_the_first_step_there_is_nothing_to_finish() -> None:
    host = OwnProcess()
    with host.listening(), pytest.raises(KeyboardInterrupt, match="SIGUSR1"):
        signal.raise_signal(signal.SIGUSR1)
    assert not host.stopping()


def test_processes_of_a_loader_leave_every_signal_to_their_parent() -> None:
    host = OwnProcess()
    with host.listening():
        host.training = True
        child = os.fork()
        if not child:
            for number in 2 * OwnProcess.SIGNALS:
                signal.raise_signal(number)
            os._exit(0 if not host.stopping() else 2)
        assert os.waitpid(child, 0)[1] == 0


def test_the_command_goes_on(tmp_path: Path) -> None:
    from tests.resume.test_going_on import RUN, go

    folder = tmp_path / "run"
    assert go(tiny(*RUN), folder, Stopper(5)).state == "interrupted"
    shutil.copytree(folder, tmp_path / "other")
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "resume=run", "verbosity=normal"],
        cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on after step 5 of 6" in done.stdout
    assert resumed_after(folder) == [5]
    assert go(tiny(*RUN), tmp_path / "other").state == "complete"
    for place in (folder, tmp_path / "other"):
        (place / "end.json").write_text("{}")
    assert differing(left_by(folder), left_by(tmp_path / "other")) == []
