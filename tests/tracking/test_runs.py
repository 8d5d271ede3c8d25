"""W&B gets every run from its folder, and no W&B, however broken, changes a run."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lorasweep import metrics
from lorasweep.results import flat
from lorasweep.tracking import Follower
from tests.conftest import tiny
from tests.test_numerics import train_losses


def inspected(folder: Path, *options: str) -> list[dict[str, Any]]:
    """The offline files of a run folder, read back by W&B's own reader."""
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return (
        [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if not options
        else [json.loads(done.stdout)]
    )


def test_an_offline_run_has_name_group_config_history_summary_and_exit_code(launched: Callable[..., Path]) -> None:
    run = tiny("train.max_steps=3", "tracking.wandb=offline", "name=mine", "tracking.tags=[first]")
    folder = launched(run)
    (summary,) = inspected(folder, "--summary")
    records = {record["type"]: record for record in inspected(folder)}
    started = records["run"]["run"]
    assert (started["run_id"], started["display_name"], started["project"]) == (folder.name, "mine", "lorasweep")
    assert started["job_type"] == "run"
    assert summary["config"]["lora.r"] == run.lora.r
    assert summary["config"]["train.max_steps"] == 3
    assert summary["summary"]["objective"] == json.loads((folder / "summary.json").read_text())["objective"]
    assert summary["summary"]["state"] == "complete"
    assert set(summary["tags"]) == {"first", "complete"}
    assert records["exit"]["exit"].get("exit_code", 0) == 0
    history = [record for record in inspected(folder) if record["type"] == "history"]
    assert len(history) == 4  # the untuned scores, and three steps
    assert (folder / "wandb.log").read_text() == ""


def test_a_run_that_diverges_is_finished_with_its_state(launched: Callable[..., Path]) -> None:
    run = tiny("optim.lr=1e38", "optim=sgd", "train.max_steps=6", "evaluation.untuned=false", "tracking.wandb=offline")
    folder = launched(run, expect="diverged")
    (summary,) = inspected(folder, "--summary")
    assert summary["summary"]["state"] == "diverged"
    assert next(record for record in inspected(folder) if record["type"] == "exit")["exit"]["exit_code"] == 1


def test_config_keys_are_flat() -> None:
    assert flat({"lora": {"r": 8, "x": {"y": [1]}}, "name": None}) == {"lora.r": 8, "lora.x.y": [1], "name": None}


@contextmanager
def server_that_accepts_and_never_answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in held:
            connection.close()


@pytest.mark.parametrize("kind", ["down", "silent"])
def test_a_server_that_is_down_or_silent_changes_nothing(
    kind: str, launched: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorasweep.tracking.SECONDS_TO_FINISH", 2.0)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with server_that_accepts_and_never_answers() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url if kind == "silent" else "http://127.0.0.1:9")
        folder = launched(tiny("train.max_steps=3", "tracking.wandb=online"), kind)
    assert (folder / "wandb.log").exists(), "no follower was started"
    plain = launched(tiny("train.max_steps=3"), "plain")
    assert train_losses(folder) == train_losses(plain)
    assert json.loads((folder / "summary.json").read_text())["state"] == "complete"


def test_a_follower_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorasweep.tracking.SECONDS_TO_FINISH", 0.2)
    follower = Follower(tmp_path, tiny().tracking)
    follower.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert "in the background" in str(follower.finish())
    finally:
        follower.process.kill()
        follower.process.wait()


def test_metrics_cut_short_by_a_crash_are_read_up_to_the_last_whole_line(tmp_path: Path) -> None:
    written = metrics.Metrics(tmp_path)
    written.write(1, {"train/loss": 2.0})
    written.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "train/lo')
    assert [entry["step"] for entry in metrics.read(tmp_path)] == [1]


def test_a_killed_run_is_finished_as_interrupted_by_its_follower(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "study: null\ntracking: {wandb: offline, project: p, entity: null, tags: [], tensorboard: false}\n"
    )
    (tmp_path / "record.json").write_text(json.dumps({"name": "killed", "wandb_id": "killed"}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.5}\n')
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    command = [sys.executable, "-m", "lorasweep.tracking", str(tmp_path), "--parent", str(parent.pid)]
    follower = subprocess.Popen(command)
    deadline = time.time() + 60
    while not list(tmp_path.glob("wandb/offline-run-*")) and time.time() < deadline:
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    assert follower.wait(60) == 0
    assert "interrupted" in json.dumps(inspected(tmp_path))
