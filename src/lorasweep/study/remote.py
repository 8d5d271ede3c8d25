"""A worker on another host, as its slot sees it: a job that waits, then a connection, then an exit code."""

from __future__ import annotations

import selectors
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lorasweep.study.channel import Channel
from lorasweep.study.line import Address, accept
from lorasweep.study.process import SECONDS_TO_DUMP_STACKS

SECONDS_BETWEEN_CALLS = 0.5
SECONDS_BETWEEN_QUESTIONS = 10.0
SECONDS_TO_END = 10.0
NEVER_CAME = 1


class Job(Protocol):
    """A job of a cluster that is to bring a worker."""

    def is_waiting(self) -> bool:
        """Tell whether the cluster has yet to begin it, which may take days and is no fault of anybody."""

    def is_gone(self) -> bool:
        """Tell whether it has ended."""

    def cancel(self) -> None:
        """End it at once, begun or not."""


class RemoteProcess:
    """A worker that a job brings: passes on what it and its slot say to each other."""

    def __init__(self, job: Job, listener: socket.socket, call: Path, end: socket.socket) -> None:
        self.job, self.listener, self.call = job, listener, call
        self.token = Address.read(call).token
        self.slot = Channel(end.dup())
        self.worker: Channel | None = None
        self.code: int | None = None
        self.speaking = threading.Lock()
        self.unwanted, self.gone = threading.Event(), threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def dump_stacks(self) -> None:
        """Ask the job for it, and give it the time and some for the way."""
        self._tell({"do": "dump stacks"})
        time.sleep(2 * SECONDS_TO_DUMP_STACKS)

    def end(self, patience: float) -> int:
        """End the worker and its job; one that was not heard to end was killed, as far as anybody can tell."""
        self.gone.wait(patience)
        self.unwanted.set()
        self._tell({"do": "end"})
        self.gone.wait(SECONDS_TO_END)
        if self.code is None:
            self.job.cancel()
        if self.worker:
            with suppress(OSError):
                self.worker.end.shutdown(socket.SHUT_RDWR)
        self.call.unlink(missing_ok=True)
        return self.code if self.code is not None else -signal.SIGKILL if self.worker else NEVER_CAME

    def _tell(self, message: dict[str, str]) -> None:
        with self.speaking, suppress(OSError):
            if self.worker:
                self.worker.send(message)

    def _serve(self) -> None:
        try:
            with self.listener:
                connection = self._awaited()
            if connection:
                self.worker = Channel(connection)
                with connection, suppress(OSError):
                    self._pass_on(self.worker)
        finally:
            self.gone.set()
            self.slot.close()  # by which the slot hears of it

    def _awaited(self) -> socket.socket | None:
        """Wait for the worker as long as its job can bring it."""
        self.listener.settimeout(SECONDS_BETWEEN_CALLS)
        asked = time.monotonic()
        while not self.unwanted.is_set():
            if connection := accept(self.listener, self.token):
                return connection
            if time.monotonic() - asked > SECONDS_BETWEEN_QUESTIONS:
                if self.job.is_waiting():
                    with suppress(OSError):
                        self.slot.send({"event": "alive"})
                elif self.job.is_gone():
                    return None
                asked = time.monotonic()
        return None

    def _pass_on(self, worker: Channel) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (worker, self.slot):
                selector.register(source, selectors.EVENT_READ, source)
            while True:
                for key, _ in selector.select():
                    messages = key.data.receive()
                    if messages is None:
                        return
                    for message in messages:
                        if key.data is self.slot:
                            with self.speaking:
                                worker.send(message)
                        elif message["event"] == "exit":
                            self.code = message["code"]
                            return
                        else:
                            self.slot.send(message)
