"""The process of a cluster's job: a worker beside it, and what that and its study say to each other passed on.

python -m lorasweep.study.keeper ADDRESS module:factory
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from lorasweep.study.channel import Channel
from lorasweep.study.line import Address, connect
from lorasweep.study.process import LocalProcess

WARNINGS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a cluster sends ahead of the end of a job; Slurm to all of its processes."""
SECONDS_TO_DIE = 5.0


class Keeper:
    """Passes messages on until the worker or the study is gone."""

    def __init__(self, study: Channel, objective: str) -> None:
        self.study = study
        ours, theirs = socket.socketpair()
        for number in WARNINGS:
            signal.signal(number, signal.SIG_IGN)  # which the worker inherits: a warning must not end it
        with theirs:
            self.process = LocalProcess(objective, theirs)
        self.worker = Channel(ours)
        self.woken, self.wake = socket.socketpair()
        self.is_warned = False
        for number in WARNINGS:
            signal.signal(number, self._warn)

    def keep(self) -> None:
        """Serve to the end; without a study there is nobody to train for."""
        code: int | None = None
        try:
            with selectors.DefaultSelector() as selector, suppress(OSError):
                for source in (self.study, self.worker, self.woken):
                    selector.register(source, selectors.EVENT_READ, source)
                while code is None:
                    for key, _ in selector.select():
                        if code is None:
                            code = self._heed(key.data)
        finally:
            self.process.end(0.0)

    def _heed(self, source: object) -> int | None:
        """Act on what has come; return the exit code of a worker that is gone."""
        if source is self.woken:
            self.woken.recv(1)
            self.study.send({"event": "preempted"})
            self.worker.send({"do": "stop"})
            return None
        return self._hear_study() if source is self.study else self._hear_worker()

    def _hear_study(self) -> int | None:
        messages = self.study.receive()
        if messages is None:
            return self.process.end(0.0)
        for message in messages:
            if message["do"] == "end":
                return self._tell_end(0.0)
            if message["do"] == "dump stacks":
                self.process.dump_stacks()
            else:
                with suppress(ConnectionError):  # that it is gone is heard from it
                    self.worker.send(message)
        return None

    def _hear_worker(self) -> int | None:
        messages = self.worker.receive()
        if messages is None:
            return self._tell_end(SECONDS_TO_DIE)
        for message in messages:
            self.study.send(message)
        return None

    def _tell_end(self, patience: float) -> int:
        code = self.process.end(patience)
        self.study.send({"event": "exit", "code": code})
        return code

    def _warn(self, number: int, frame: FrameType | None) -> None:
        if not self.is_warned:
            self.is_warned = True
            self.wake.send(b"\0")


def main() -> None:
    """Call the study and serve it."""
    try:
        study = connect(Address.read(Path(sys.argv[1])))
    except OSError as error:
        raise SystemExit(f"the study cannot be reached: {error}") from None
    Keeper(Channel(study), sys.argv[2]).keep()


if __name__ == "__main__":
    main()
