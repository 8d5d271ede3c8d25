"""The follower as the process sees it that trains, or runs a study: started, told, ended, and never waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from lorasweep.schema import Tracking
from lorasweep.tracking.subject import Subject

LOG = "wandb.log"
SECONDS_TO_FINISH = 20.0
"""How long a run, or a study, waits at its end; not at all if W&B cannot be reached."""
SECONDS_LEFT_ALONE = 4.0
"""How long the follower outlives a run, or a study, that was killed."""


class Follower:
    """A process that turns run folders into W&B runs. Nothing it does or fails to do is raised here."""

    def __init__(self, place: Path, tracking: Tracking) -> None:
        self.place, self.tracking = place, tracking
        self.process: subprocess.Popen[bytes] | None = None
        self._unsent, self._unread, self._lost = b"", b"", False
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        """For what wandb leaves behind: two folders a process that does not end by itself."""

    @property
    def is_wanted(self) -> bool:
        """Whether there is anything to follow."""
        mode = self.tracking.wandb
        return mode != "disabled" and not (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled")

    def follow(self, subject: Subject) -> None:
        """Have a run followed that begins, or of which more is known."""
        if self.is_wanted:
            self._start()
            self._tell({"do": "follow", "subject": subject.message()})

    def end(self, subject: Subject, state: str, reason: str | None = None) -> None:
        """Say how a run ended."""
        self._tell({"do": "end", "id": subject.id, "state": state, "reason": reason})

    def summarise(self, study: Path, storage: str | None) -> None:
        """Have a study as a whole brought up to date."""
        self._tell({"do": "summarise", "study": str(study), "storage": storage})

    def news(self) -> list[str]:
        """Return what the follower has to say to the user since the last call."""
        if not self.process or not self.process.stdout:
            return []
        self._flush()
        with suppress(BlockingIOError):
            while data := os.read(self.process.stdout.fileno(), 1 << 16):
                self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        return [line.decode() for line in lines]

    def finish(self) -> list[str]:
        """Let the follower finish, for a while; return what there is to say to the user."""
        if not self.process:
            return []
        self._tell({"do": "finish"})
        end, said = time.monotonic() + SECONDS_TO_FINISH, []
        with suppress(KeyboardInterrupt):
            while self.process.poll() is None and time.monotonic() < end:
                said += self.news()
                time.sleep(0.02)
        said += self.news()
        is_done, code = self.process.poll() is not None, self._end()
        if code or self._lost:
            place = os.path.relpath(self.place)
            why = f"as {place}/{LOG} says" if is_done else "it was not waited for any longer"
            said.append(f"W&B may lack some of it, {why}; lorasweep wandb sync {place} sends that")
        return said

    def _start(self) -> None:
        if self.process or self._lost:
            return
        command = [sys.executable, "-m", "lorasweep.tracking.following", str(self.place), str(os.getpid())]
        command += [str(SECONDS_LEFT_ALONE), json.dumps(asdict(self.tracking))]
        try:
            with open(self.place / LOG, "ab") as file:
                self._scratch = tempfile.TemporaryDirectory(prefix="lorasweep-", ignore_cleanup_errors=True)
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    env={**os.environ, "TMPDIR": self._scratch.name},
                    start_new_session=True,  # Ctrl-C is not for it
                )
        except OSError:
            self._lost = True
            return
        assert self.process.stdin
        assert self.process.stdout
        for pipe in (self.process.stdin, self.process.stdout):
            os.set_blocking(pipe.fileno(), False)

    def _tell(self, message: dict[str, Any]) -> None:
        if self.process:
            self._unsent += json.dumps(message).encode() + b"\n"
            self._flush()

    def _flush(self) -> None:
        """Send what can be sent without waiting: a follower that is stopped or dead holds nobody up."""
        assert self.process
        assert self.process.stdin
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self.process.stdin.fileno(), self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent, self._lost = b"", True

    def _end(self) -> int:
        """End the follower, if it has not, with W&B's own process; return the exit code."""
        assert self.process
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    process.kill()
            self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(OSError):
                pipe.close()
        self.process = None
        if self._scratch:
            self._scratch.cleanup()
        return code
