"""Slots on a cluster: each worker is brought by a job that submitit submits."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorasweep.rules import Problem, UserError, nearest
from lorasweep.study.line import listen
from lorasweep.study.process import Process
from lorasweep.study.remote import Job, RemoteProcess
from lorasweep.study.slots import Slot

OPTIONS = "hydra.sweeper.cluster_options"
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
NOT_FOR_SLOTS = {
    *("setup", "teardown", "srun_args"),  # lines for a shell do not belong into a config; jobs have our environment
    *("nodes", "tasks_per_node", "ntasks_per_node", "use_srun", "array_parallelism", "num_gpus", "stderr_to_stdout"),
}
"""What submitit knows and a job of one worker has no use for."""
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SUSPENDED", "UNKNOWN"}
RUNNING = {"RUNNING", "COMPLETING", "STAGE_OUT", "RESIZING", "SIGNALING", "STOPPED"}


@dataclass
class SlurmJob:
    """A job of Slurm's."""

    number: str

    def is_waiting(self) -> bool:
        """Tell whether Slurm has yet to begin it; while Slurm does not answer, it may."""
        return self._state() in WAITING

    def is_gone(self) -> bool:
        """Tell whether Slurm knows it no more, or as one that has ended."""
        return self._state() not in WAITING | RUNNING

    def cancel(self) -> None:
        """End it; a job that Slurm has forgotten is no error."""
        _asked("scancel", self.number)

    def _state(self) -> str:
        done = _asked("squeue", "--noheader", "--jobs", self.number, "--format", "%T")
        if done is None or (done.returncode and "Invalid job id" not in done.stderr):
            return "UNKNOWN"
        return done.stdout.strip()


class LocalJob:
    """A process that submitit keeps as it would a job."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def is_waiting(self) -> bool:
        """Tell that nothing waits here."""
        return False

    def is_gone(self) -> bool:
        """Tell whether it has ended."""
        return bool(self.job.done())

    def cancel(self) -> None:
        """End it."""
        self.job.cancel()


@dataclass
class Cluster:
    """A place where workers are brought by jobs."""

    kind: str
    options: Mapping[str, Any]
    folder: Path
    """Where jobs have their files, on a disk that all hosts share."""

    def start(self, objective: str, end: socket.socket) -> Process:
        """Submit a job that will call; raises UserError if the cluster does not take it."""
        listener, address = listen(is_local=self.kind == "local")
        call = self.folder / f"call-{secrets.token_hex(4)}.json"
        try:
            address.write(call)
            job = self._submitted([sys.executable, "-m", "lorasweep.study.keeper", str(call), objective])
        except BaseException:
            listener.close()
            call.unlink(missing_ok=True)
            raise
        return RemoteProcess(job, listener, call, end)

    def _submitted(self, command: list[str]) -> Job:
        """Submit a job that becomes the command: signals for it are the command's, and there is no result to read."""
        import submitit

        executor = submitit.AutoExecutor(folder=self.folder, cluster=self.kind)
        try:
            executor.update_parameters(**_named(self.options))
            job = executor.submit(os.execv, command[0], command)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, ValueError) as error:
            words = " ".join(str(error).split())
            raise UserError(Problem(OPTIONS, dict(self.options), f"what the cluster takes: {words}")) from None
        return LocalJob(job) if self.kind == "local" else SlurmJob(str(job.job_id))


def build_cluster_slots(
    count: int, objective: str, folder: Path, cluster: str, options: Mapping[str, Any]
) -> list[Slot]:
    """Return the slots of a study, each with jobs of its own."""
    logs = [folder / f"slot-{index}" for index in range(count)]
    return [Slot(index, log, objective, place=Cluster(cluster, options, log)) for index, log in enumerate(logs)]


def check_cluster(cluster: str, options: Mapping[str, Any]) -> None:
    """Raise if jobs cannot be submitted from here, or not with these options."""
    if not find_spec("submitit"):
        allowed = "null, or submitit, which is not installed: pip install -c constraints.txt -e '.[slurm]'"
        raise UserError(Problem("hydra.sweeper.cluster", cluster, allowed))
    missing = [command for command in COMMANDS if not shutil.which(command)]
    if cluster == "slurm" and missing:
        allowed = f"null here, or a host from which jobs are submitted; not on PATH: {', '.join(missing)}"
        raise UserError(Problem("hydra.sweeper.cluster", cluster, allowed))
    kinds, names = _kinds(), _names()
    problems = []
    for name, value in options.items():
        key, kind = f"{OPTIONS}.{name}", kinds.get(name)
        if name not in names:
            problems.append(Problem(key, value, f"one of {', '.join(sorted(names))}", nearest(name, names)))
        elif kind and (isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind)):
            problems.append(Problem(key, value, f"{'text' if kind is str else 'a number'}"))
        elif "\n" in str(value) or "\\n" in repr(value):
            problems.append(Problem(key, value, "one line"))
    if "timeout_min" not in options and "time" not in options:
        problems.append(Problem(f"{OPTIONS}.timeout_min", None, "minutes after which a job ends and the next goes on"))
    if problems:
        raise UserError(problems)


def _kinds() -> dict[str, type]:
    import submitit

    kinds: dict[str, type] = submitit.AutoExecutor._typed_parameters()
    return kinds


def _names() -> set[str]:
    import submitit

    names: set[str] = submitit.SlurmExecutor._valid_parameters() | _kinds().keys()
    return names - NOT_FOR_SLOTS


def _named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as submitit takes them: those of Slurm alone have its name before theirs."""
    kinds = _kinds()
    return {name if name in kinds else f"slurm_{name}": value for name, value in options.items()}


def _asked(*command: str) -> subprocess.CompletedProcess[str] | None:
    """Return what a command of Slurm's said; None if nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
