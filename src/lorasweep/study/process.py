"""A worker's process: what a slot asks of it wherever it runs, and one on this host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Protocol

import psutil

SECONDS_TO_DUMP_STACKS = 1.0


class Process(Protocol):
    """A worker that has been started, whether it is there yet or not."""

    def dump_stacks(self) -> None:
        """Have the worker write where each of its threads is into its log."""

    def end(self, patience: float) -> int:
        """End the worker and all it has started; return its exit code, negative for a signal.

        `patience`: seconds for a worker that is about to end by itself.
        """


class Place(Protocol):
    """Where the workers of a slot run."""

    def start(self, objective: str, end: socket.socket) -> Process:
        """Start a worker that speaks over its end of the conversation, which stays the caller's to close."""


class LocalProcess:
    """A worker in a process group of its own on this host, which dies with the process that started it."""

    def __init__(
        self,
        objective: str,
        end: socket.socket,
        log: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        processes: int = 1,
    ) -> None:
        self.processes = processes
        arguments = [str(end.fileno()), objective, str(os.getpid()), str(processes)]
        command = [sys.executable, "-m", "lorasweep.study.serving", *arguments]
        with open(log, "ab") if log else nullcontext() as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[end.fileno()],
                process_group=0,
                env=environment,
            )

    def dump_stacks(self) -> None:
        """Send the signal on which the worker does, then to each sibling, and give them the time."""
        for pid in (self.process.pid, *self._siblings()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
            time.sleep(SECONDS_TO_DUMP_STACKS / self.processes)

    def end(self, patience: float) -> int:
        """End the whole group."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def _siblings(self) -> list[int]:
        """Return the processes that train with the worker, the first that it has started in its process group."""
        if self.processes == 1:
            return []
        worker = self.process.pid
        with suppress(psutil.Error, ProcessLookupError):
            children = sorted(psutil.Process(worker).children(), key=lambda child: child.create_time())
            return [child.pid for child in children if os.getpgid(child.pid) == worker][: self.processes - 1]
        return []
