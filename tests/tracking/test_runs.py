"""W&B gets a run from its folder, and no W&B, however broken, changes one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from lorasweep.data import file_hash
from lorasweep.results import flat
from lorasweep.schema import Tracking
from lorasweep.tracking import follower
from lorasweep.tracking.follower import Follower
from lorasweep.tracking.subject import run_subject
from tests.conftest import tiny
from tests.study.sessions import until
from tests.tracking.offline import only, written
from tests.tracking.server import WandbServer
from tests.tracking.test_online import BROKEN, heal, spoil, sync

SECONDS_TO_VANISH = 5.0


def weights(folder: Path) -> str:
    return file_hash(folder / "adapter" / "adapter_model.safetensors")


def test_an_offline_run_has_name_config_history_summary_and_exit_code(
    launched: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    run = tiny("train.max_steps=3", "tracking.wandb=offline", "name=mine", "tracking.tags=[first]")
    folder = launched(run)
    kept = only(folder)
    assert (kept.id, kept.name, kept.project, kept.job_type, kept.group) == ("run", "mine", "lorasweep", "run", None)
    assert kept.config["lora.r"] == run.lora.r
    assert kept.config["train.max_steps"] == 3
    assert kept.config["lora.target_modules"] == "all-linear"
    assert kept.tags == ["first", "complete"]
    assert kept.exit_code == 0
    assert kept.steps == [0, 1, 2, 3]
    summary = json.loads((folder / "summary.json").read_text())
    assert kept.history[3]["objective"] == kept.summary["objective"] == summary["objective"]
    assert {"eval/loss", "train/loss", "train/lr", "tokens/supervised", "memory/peak_gib"} <= set(kept.history[3])
    assert (folder / "wandb.log").read_text() == ""
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_that_diverges_is_finished_with_its_state_and_why(launched: Callable[..., Path]) -> None:
    run = tiny("optim.lr=1e38", "optim=sgd", "train.max_steps=6", "evaluation.untuned=false", "tracking.wandb=offline")
    folder = launched(run, expect="diverged")
    kept = only(folder)
    assert (kept.tags, kept.exit_code, kept.summary["state"]) == (["diverged"], 1, "diverged")
    assert "not finite" in kept.summary["error"]


def test_config_keys_are_flat() -> None:
    assert flat({"lora": {"r": 8, "x": {"y": [1]}}, "name": None}) == {"lora.r": 8, "lora.x.y": [1], "name": None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*BROKEN, "slow"])
def test_a_broken_server_changes_no_byte_of_a_run_and_misses_nothing_for_good(
    kind: str,
    launched: Callable[..., Path],
    server: WandbServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = launched(tiny("train.max_steps=3"), "plain")
    monkeypatch.setattr(follower, "SECONDS_TO_FINISH", 2.0)
    spoil(server, kind, monkeypatch)
    folder = launched(tiny("train.max_steps=3", "tracking.wandb=online"), kind)
    assert weights(folder) == weights(plain)
    assert (folder / "wandb.log").exists(), "no follower was started"
    heal(server, monkeypatch)
    assert sync(folder)[0].startswith(f"{kind}: complete, ")
    run = server.runs[kind]
    assert (run.exit_code, run.tags, [row["_step"] for row in run.history]) == (0, ["complete"], [0, 1, 2, 3])


def owner(folder: Path, seconds_left_alone: float, wandb: str = "offline") -> subprocess.Popen[str]:
    """A process with a follower, which waits."""
    program = (
        "import sys, time; from pathlib import Path; from lorasweep.schema import Tracking;"
        f"from lorasweep.tracking import follower; follower.SECONDS_LEFT_ALONE = {seconds_left_alone};"
        "from lorasweep.tracking.follower import Follower; from lorasweep.tracking.subject import run_subject;"
        f"folder = Path({str(folder)!r}); follower = Follower(folder, Tracking(wandb={wandb!r}));"
        "follower.follow(run_subject(folder)); print(follower.process.pid, flush=True); time.sleep(600)"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, process_group=0)


def begun(folder: Path) -> Path:
    """A run folder of which the first step and a part of the second are written."""
    folder.mkdir()
    (folder / "run.yaml").write_text("study: null\nlora: {r: 8}\n")
    (folder / "record.json").write_text(json.dumps({"name": "begun", "created": "2026-01-01T10:00:00+0000"}))
    lines = [{"step": 1, "seconds": 1.0, "train/loss": 2.5}, {"step": 2, "seconds": 2.0, "train/loss": 2.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 2, "eval')
    return folder


def follower_of(process: subprocess.Popen[str]) -> psutil.Process:
    assert process.stdout
    return psutil.Process(int(process.stdout.readline()))


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_run_is_finished_as_interrupted(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    process = owner(folder, seconds_left_alone=60.0)
    following = follower_of(process)
    process.kill()
    process.wait()
    until(lambda: not lives(following))
    kept = only(folder)
    assert (kept.tags, kept.exit_code, kept.steps) == (["interrupted"], 1, [1])


def test_a_follower_that_gets_nowhere_does_not_outlive_a_killed_run_for_long(
    tmp_path: Path, server: WandbServer
) -> None:
    server.delay = 3600.0
    process = owner(begun(tmp_path / "run"), seconds_left_alone=0.5, wandb="online")
    following = follower_of(process)
    children = until(lambda: following.children(recursive=True))
    process.kill()
    process.wait()
    assert until(lambda: not any(map(lives, [following, *children])), SECONDS_TO_VANISH)


def test_ctrl_c_in_the_terminal_does_not_reach_the_follower(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    process = owner(folder, seconds_left_alone=60.0)
    following = follower_of(process)
    until(lambda: list(folder.glob("wandb/offline-run-*")))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0
    until(lambda: not lives(following))
    assert only(folder).exit_code == 1, "it was finished, not cut off"


def test_a_follower_that_is_stopped_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SECONDS_TO_FINISH", 0.5)
    folder = begun(tmp_path / "run")
    following, subject = Follower(folder, Tracking(wandb="offline")), run_subject(folder)
    following.follow(subject)
    assert following.process
    process = psutil.Process(following.process.pid)
    process.suspend()
    for _ in range(5000):  # more than a pipe holds
        following.end(subject, "complete")
    assert "it was not waited for any longer; lorasweep wandb sync" in following.finish()[-1]
    until(lambda: not lives(process), SECONDS_TO_VANISH)


def test_a_follower_that_was_killed_is_said(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    following, subject = Follower(folder, Tracking(wandb="offline")), run_subject(folder)
    following.follow(subject)
    assert following.process
    following.process.kill()
    following.process.wait()
    following.end(subject, "complete")
    assert "W&B may lack some of it" in following.finish()[-1]


def test_a_follower_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    folder = begun(tmp_path / "run")
    following, subject = Follower(folder, Tracking(wandb="offline")), run_subject(folder)
    following.follow(subject)
    until(lambda: any(scratch.glob("*/*")), 120)
    following.end(subject, "complete")
    assert following.finish() == []
    assert not list(scratch.iterdir())


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    following = Follower(tmp_path / "nowhere", Tracking(wandb="offline"))
    (tmp_path / "run").mkdir()
    following.follow(run_subject(tmp_path / "run"))
    following.end(run_subject(tmp_path / "run"), "complete")
    assert following.finish() == []


def test_nothing_is_followed_where_w_and_b_is_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Follower(tmp_path, Tracking(wandb="disabled")).is_wanted
    assert Follower(tmp_path, Tracking()).is_wanted
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert not Follower(tmp_path, Tracking()).is_wanted
    assert Follower(tmp_path, Tracking(wandb="offline")).is_wanted


def test_two_runs_of_one_id_in_one_second_are_two_files(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    following, subject = Follower(folder, Tracking(wandb="offline")), run_subject(folder)
    for state in ("interrupted", "complete"):
        following.follow(subject)
        following.end(subject, state)
    assert following.finish() == []
    (opened,) = written(folder).values()
    assert [(run.tags, run.steps) for run in opened] == [(["interrupted"], [1]), (["complete"], [1, 2])]


def test_a_run_of_w_and_b_agent_has_the_id_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "x7y")
    assert run_subject(tmp_path).id == "x7y"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert run_subject(tmp_path).id == "x7y", "later too"
