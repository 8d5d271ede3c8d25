"""Slots that are jobs: brought by submitit, reached over a socket, warned before they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from lorasweep.rules import UserError
from lorasweep.study import remote
from lorasweep.study.channel import Channel
from lorasweep.study.cluster import SlurmJob, check_cluster
from lorasweep.study.line import Address, accept, connect, listen
from lorasweep.study.outcomes import State
from lorasweep.study.remote import RemoteProcess
from lorasweep.study.settings import Settings, conflicts
from tests.study.sessions import finished, processes_of, refusal, run, trials_of, until
from tests.study.stopping import PREEMPTED
from tests.study.test_going_on import TRAINING, results, session
from tests.study.toy import curve, toy

STUB = Path(__file__).with_name("stub_slurm.py")
LOCAL = {"cluster": "local", "cluster_options": {"timeout_min": 30}}
SLURM = {
    "cluster": "slurm",
    "cluster_options": {
        "partition": "gpu", "timeout_min": 30, "gpus_per_node": 1, "mem_gb": 4, "additional_parameters": {"nice": 5}
    },
}  # fmt: skip


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study whose processes can be found."""
    folder = tmp_path / "study"
    monkeypatch.setenv("TOY", str(folder))
    return folder


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the jobs of commands that are called as Slurm's are."""
    programs, place = tmp_path / "bin", tmp_path / "slurm"
    programs.mkdir()
    place.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (programs / name).symlink_to(STUB)
    monkeypatch.setenv("STUB_SLURM", str(place))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return place


def assert_no_process(folder: Path) -> None:
    until(lambda: not [process for process in processes_of(folder) if process.pid != os.getpid()])
    assert not list(folder.glob("workers/*/call-*"))


def assert_right(trials: list, states: dict[int, State]) -> None:
    for trial in trials:
        assert trial.state is states.get(trial.number, State.COMPLETE), trial
        if trial.state is State.COMPLETE:
            assert trial.values == [curve(trial.point.get("x", 0.5), trial.point.get("y", 0.1), 4)]


@pytest.mark.slow
def test_trials_in_jobs_end_as_what_they_are_and_leave_no_process(known: Path) -> None:
    faults = {1: "lose the job once", 2: "exit", 3: "segfault", 4: "preempt once"}
    trials = finished(known, faults=faults, n_trials=6, max_retries=1, **LOCAL)
    assert_right(trials, {2: State.FAILED, 3: State.FAILED})
    assert [trial.deaths for trial in trials] == [0, 1, 0, 0, 0, 0]
    assert "exit code 7" in (trials[2].reason or "")
    assert "SIGSEGV" in (trials[3].reason or "")
    assert (known / "trials" / "4.attempt1" / "log.txt").exists()
    assert_no_process(known)


@pytest.mark.slow
def test_jobs_of_slurm_are_asked_for_warned_and_cancelled(known: Path, slurm: Path) -> None:
    trials = finished(known, faults={1: "terminate once"}, n_trials=3, max_retries=0, slots=1, **SLURM)
    assert_right(trials, {})
    assert trials[1].deaths == 0
    first, second = (slurm / number / "script" for number in ("101", "102"))
    for line in ("--partition=gpu", "--time=30", "--gpus-per-node=1", "--mem=4GB", "--nice=5", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in first.read_text().splitlines()
    assert second.exists()
    assert not (slurm / "103").exists()
    assert_no_process(known)


@pytest.mark.slow
def test_a_trial_whose_job_is_preempted_goes_on_from_its_checkpoint_in_the_next(tmp_path: Path, slurm: Path) -> None:
    options = "+hydra.sweeper.cluster_options={partition: gpu, timeout_min: 30}"
    jobs = ("lora.r=8,4", "hydra.sweeper.cluster=slurm", options, "hydra.sweeper.max_retries=0")
    assert session(tmp_path / "jobs", "tests.study.stopping:Preempted", *jobs) is None
    assert session(tmp_path / "calm", TRAINING, "lora.r=8,4") is None
    assert results(tmp_path / "jobs") == results(tmp_path / "calm")
    for number, step in PREEMPTED.items():
        record = json.loads((tmp_path / "jobs" / "trials" / str(number) / "record.json").read_text())
        assert [item["step"] for item in record["resumed"]] == [step]
    assert {path.name for path in slurm.iterdir() if path.is_dir()} == {"101", "102", "103"}


@pytest.mark.slow
def test_what_waits_in_the_queue_is_cancelled_with_the_study(known: Path, slurm: Path) -> None:
    queue = slurm / "queue"

    def then(trial: object) -> None:
        queue.touch()

    reason, text = run(toy(known, n_trials=3, fresh_process=True, timeout=5.0, seconds=2.0, slots=2, **SLURM), then)
    assert reason, text
    assert "102" in (slurm / "cancelled").read_text().split()
    assert not (slurm / "102" / "begun").exists()
    assert_no_process(known)
    assert {trial.state for trial in trials_of(known)} == {State.COMPLETE}


def test_a_cluster_that_does_not_take_a_job_is_quoted(tmp_path: Path, slurm: Path) -> None:
    (slurm / "refusal").write_text("Invalid account or account/partition combination specified")
    error = refusal(toy(tmp_path / "study", **SLURM))
    assert error.problems[0].key == "hydra.sweeper.cluster_options"
    assert "Invalid account" in str(error)
    assert not (tmp_path / "study").exists()


def test_slurm_is_asked_for_what_has_become_of_a_job(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (slurm / "7").mkdir()
    (slurm / "7" / "pid").write_text(str(os.getpid()))
    job = SlurmJob("7")
    assert (job.is_waiting(), job.is_gone()) == (True, False)
    (slurm / "7" / "begun").touch()
    assert (job.is_waiting(), job.is_gone()) == (False, False)
    (slurm / "7" / "pid").unlink()
    assert (job.is_waiting(), job.is_gone()) == (False, True)
    monkeypatch.setenv("STUB_SLURM", "")  # a Slurm that answers nothing of use
    monkeypatch.setenv("PATH", "")
    assert (job.is_waiting(), job.is_gone()) == (True, False)


@pytest.mark.parametrize(
    ("options", "key", "nearest"),
    [
        ({"timeout_min": 9, "partitions": "gpu"}, "partitions", "partition"),
        ({"timeout_min": "long"}, "timeout_min", None),
        ({}, "timeout_min", None),
        ({"timeout_min": 9, "setup": ["rm -r ."]}, "setup", None),
        ({"timeout_min": 9, "comment": "a\nrm -r ."}, "comment", None),
        ({"timeout_min": 9, "additional_parameters": {"a\nrm -r .": 1}}, "additional_parameters", None),
    ],
)
def test_options_that_no_job_can_have_are_refused(options: dict, key: str, nearest: str | None) -> None:
    with pytest.raises(UserError) as caught:
        check_cluster("local", options)
    (problem,) = caught.value.problems
    assert problem.key == f"hydra.sweeper.cluster_options.{key}"
    assert nearest in (None, problem.nearest)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"cluster": "local"}, "hydra.sweeper.slots"),
        ({"cluster_options": {"timeout_min": 9}}, "hydra.sweeper.cluster_options"),
    ],
)
def test_jobs_need_a_number_and_options_need_a_cluster(given: dict, key: str) -> None:
    assert [problem.key for problem in conflicts(Settings(**given))] == [key]
    assert not list(conflicts(Settings(slots=2, **{"cluster": "slurm", **given})))


def test_without_slurm_or_submitit_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"sbatch, srun, squeue, scancel"):
        check_cluster("slurm", {"timeout_min": 9})
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(__import__("sys").modules, "submitit", raising=False)
    with pytest.raises(UserError, match=r"\.\[slurm\]"):
        check_cluster("slurm", {"timeout_min": 9})


def test_only_who_shows_the_token_is_spoken_to(tmp_path: Path) -> None:
    listener, address = listen(is_local=True)
    with listener:
        listener.settimeout(60)
        address.write(tmp_path / "call")
        assert (tmp_path / "call").stat().st_mode & 0o077 == 0
        assert Address.read(tmp_path / "call") == address
        for token in ("x" * len(address.token), address.token[1:]):
            with connect(Address(address.hosts, address.port, token)) as stranger:
                stranger.shutdown(socket.SHUT_WR)
                assert accept(listener, address.token) is None
        with connect(address) as friend:
            connection = accept(listener, address.token)
            assert connection
            with connection:
                friend.sendall(b"{}\n")
                assert Channel(connection).receive() == [{}]


class Queued:
    """A job that waits until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def is_waiting(self) -> bool:
        return True

    def is_gone(self) -> bool:
        return False

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_job_that_waits_gives_signs_of_life_and_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SECONDS_BETWEEN_QUESTIONS", 0.1)
    listener, address = listen(is_local=True)
    address.write(tmp_path / "call")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        job = Queued()
        process = RemoteProcess(job, listener, tmp_path / "call", theirs)
        theirs.close()
        assert Channel(ours).receive() == [{"event": "alive"}]
        assert process.end(0.0) not in (0, -signal.SIGKILL)
        assert job.cancelled.is_set()
        assert list(Channel(ours).messages()) in ([], [{"event": "alive"}], [{"event": "alive"}] * 2)
    assert not (tmp_path / "call").exists()
