"""A study and W&B's server: what arrives, and what is made good later when it did not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial
from lorasweep.tracking.subject import study_identity
from tests.conftest import ROOT
from tests.study.sessions import processes_of, trials_of, until
from tests.tracking.recording import session
from tests.tracking.server import WandbServer

SECONDS_TO_VANISH = 5.0


def sync(place: Path, *, code: int = 0) -> list[str]:
    """The lines of `lorasweep wandb sync`."""
    command = [sys.executable, "-m", "lorasweep.cli", "wandb", "sync", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.splitlines() or done.stderr.splitlines()


def assert_arrived(server: WandbServer, folder: Path) -> None:
    """Check that the server has a study as its folder has it."""
    study = study_identity(folder)
    for trial in trials_of(folder):
        run = server.runs[study.trial(trial).id]
        assert (run.group, run.project, run.exit_code) == (study.group, "toys", 0)
        assert run.tags == ["toy", trial.state.value]
        assert run.config["x"]["value"] == trial.point["x"]
        entries = [json.loads(line) for line in (folder / f"trials/{trial.number}/metrics.jsonl").open()]
        assert [row["_step"] for row in run.history] == list(dict.fromkeys(entry["step"] for entry in entries))
        losses = [(entry["step"], entry["eval/loss"]) for entry in entries if "eval/loss" in entry]
        assert run.metric("eval/loss") == losses
        assert run.summary["objective"] == pytest.approx(trial.value)
    whole = server.runs[study.id]
    assert (whole.job_type, whole.exit_code, whole.summary["trials"]) == ("study", 0, len(trials_of(folder)))


def test_a_study_arrives_and_goes_on_under_the_same_ids(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    text = session(folder, wandb="auto", n_trials=2)
    assert text.count("W&B") == 1
    assert f"W&B: {server.url}/someone/toys/groups/first" in text
    assert_arrived(server, folder)
    ids = set(server.runs)
    session(folder, wandb="auto", n_trials=3)
    assert_arrived(server, folder)
    assert ids < set(server.runs)
    assert len(server.runs) == 4
    whole = server.runs[study_identity(folder).id]
    assert len(whole.history) == 2, "each session shows the study as it then was"


@pytest.mark.slow
def test_a_study_of_the_same_name_is_another_one(server: WandbServer, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        session(tmp_path / place / "first", wandb="online", n_trials=1)
    assert len(server.runs) == 4
    assert {run.group for run in server.runs.values()} == {"first"}


def test_without_an_account_it_is_offline_and_said_once(tmp_path: Path) -> None:
    text = session(tmp_path / "first", wandb="auto", n_trials=3)
    assert text.count("W&B: not logged in, so offline; lorasweep wandb sync") == 1
    assert len(list(tmp_path.glob("first/wandb/offline-run-*"))) == 4


@pytest.mark.slow
def test_a_study_whose_controller_was_killed_goes_on(server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    environment = {**os.environ, "TOY": str(folder), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}

    def start(**options: Any) -> subprocess.Popen[bytes]:
        given = json.dumps({"wandb": "online", "n_trials": 2, "slots": 1, **options})
        return subprocess.Popen([sys.executable, "-m", "tests.tracking.recording", str(folder), given], env=environment)

    first = start(faults={1: "hang"})
    identity = until(lambda: (folder / "wandb.json").exists() and study_identity(folder))
    until(lambda: f"{identity.id}-1" in server.runs)
    until(lambda: len((folder / "trials/1/metrics.jsonl").read_text().splitlines()) == 4)
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: not processes_of(folder), SECONDS_TO_VANISH)
    killed = server.runs[f"{identity.id}-1"]
    assert (killed.exit_code, killed.tags) == (1, ["toy", "interrupted"])
    assert [row["_step"] for row in killed.history] == [0, 1]
    assert start().wait(120) == 0
    assert_arrived(server, folder)
    assert [row["_step"] for row in killed.history] == [0, 1, 2, 3, 4]


def spoil(server: WandbServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make something wrong with the server."""
    if kind == "down":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    elif kind.isdigit():
        server.refuses = int(kind)
    elif kind == "silent":
        server.delay = 3600.0
    elif kind == "slow":
        server.delay = 1.0
    elif kind == "dies":
        server.dies_after = 5
    else:
        server.hangs_at_finish = True


def heal(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything right."""
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    server.refuses, server.delay, server.dies_after, server.hangs_at_finish = None, 0.0, None, False


BROKEN = ("403", "500", "down", "silent", "dies", "hangs")


@pytest.mark.slow
@pytest.mark.parametrize("kind", BROKEN)
def test_what_a_broken_server_missed_is_sent_later_and_once(
    kind: str, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorasweep.tracking.follower.SECONDS_TO_FINISH", 6.0)
    folder = tmp_path / "first"
    monkeypatch.setenv("TOY", str(folder))
    spoil(server, kind, monkeypatch)
    text = session(folder, wandb="online", n_trials=3)
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 3
    assert f"lorasweep wandb sync {os.path.relpath(folder)} sends that" in text
    until(lambda: [process.pid for process in processes_of(folder)] == [], SECONDS_TO_VANISH)
    heal(server, monkeypatch)
    lines = sync(folder)
    assert len(lines) == 4
    assert_arrived(server, folder)
    assert all("no rows were missing" in line for line in sync(folder)[:-1])
    assert_arrived(server, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb-core", "lorasweep.tracking.following"])
def test_a_crash_of_w_and_b_or_of_the_follower_is_made_good(name: str, server: WandbServer, tmp_path: Path) -> None:
    folder = tmp_path / "first"

    def is_it(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return any(name in word for word in process.cmdline())
        return False

    def crash(trial: Trial) -> None:
        if trial.number == 2:
            (process,) = until(lambda: [item for item in psutil.Process().children(recursive=True) if is_it(item)])
            process.kill()

    text = session(folder, crash, wandb="online", n_trials=4, slots=1, study={"seconds": 0.5})
    assert [trial.state for trial in trials_of(folder)] == [State.COMPLETE] * 4
    assert f"lorasweep wandb sync {os.path.relpath(folder)} sends that" in text
    sync(folder)
    assert_arrived(server, folder)


@pytest.mark.slow
def test_sync_says_what_it_could_not_send_and_takes_a_trial_alone(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    session(folder, wandb="offline", n_trials=1)
    server.refuses = 403
    lines = sync(folder, code=1)
    assert len(lines) == 2
    assert all(": not sent, CommError: " in line and "403" in line for line in lines)
    server.refuses = None
    assert sync(folder / "trials" / "0") == [f"{study_identity(folder).id}-0: complete, 5 rows sent"]
    assert len(server.runs) == 1
    monkeypatch.setenv("WANDB_API_KEY", "")
    assert "wandb login" in "\n".join(sync(folder, code=2))
