#!/usr/bin/env python3
"""Slurm's commands over processes of this host, by the name it is called by; a job has a folder below $STUB_SLURM."""

import os
import signal
import subprocess
import sys
from pathlib import Path

PLACE = Path(os.environ["STUB_SLURM"])


def sbatch(script: str) -> None:
    number = 101 + sum(path.is_dir() for path in PLACE.iterdir())
    job = PLACE / str(number)
    job.mkdir()
    (job / "script").write_text(Path(script).read_text())
    refusal = PLACE / "refusal"
    if refusal.exists():
        raise SystemExit(f"sbatch: error: {refusal.read_text()}")
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_PROCID": "0"}
    wait = f"while [ -e {PLACE}/queue ]; do sleep 0.1; done; touch {job}/begun; exec bash {job}/script"
    process = subprocess.Popen(
        ["bash", "-c", wait],
        env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    (job / "pid").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def srun(*arguments: str) -> None:
    output, error = (
        arguments[arguments.index(name) + 1].replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
        for name in ("--output", "--error")
    )
    command = arguments[arguments.index("--error") + 2 :]
    for path, descriptor in ((output, 1), (error, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.execvp(command[0], command)


def squeue(*arguments: str) -> None:
    job = PLACE / arguments[arguments.index("--jobs") + 1]
    if not lives(job):
        raise SystemExit("slurm_load_jobs error: Invalid job id specified")
    print("RUNNING" if (job / "begun").exists() else "PENDING")


def scancel(number: str) -> None:
    with open(PLACE / "cancelled", "a") as file:
        file.write(f"{number}\n")
    if lives(PLACE / number):
        os.killpg(int((PLACE / number / "pid").read_text()), signal.SIGTERM)


def lives(job: Path) -> bool:
    try:
        stat = Path("/proc", (job / "pid").read_text(), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    {"sbatch": sbatch, "srun": srun, "squeue": squeue, "scancel": scancel}[Path(sys.argv[0]).name](*sys.argv[1:])
