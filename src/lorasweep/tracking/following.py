"""The follower's own process: a thread for every W&B run that is open, until its owner has finished or is gone.

python -m lorasweep.tracking.following PLACE PID SECONDS TRACKING
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import wandb

from lorasweep.results import read_json
from lorasweep.schema import Tracking
from lorasweep.tracking.account import Account, connect
from lorasweep.tracking.feeding import TO_BE_CONTINUED, Ending, feed
from lorasweep.tracking.study_run import summarise
from lorasweep.tracking.subject import Subject, study_identity

NICENESS = 10
Message = dict[str, Any]


class Following:
    """What is being fed, and what went wrong."""

    def __init__(self, place: Path, tracking: Tracking) -> None:
        self.place, self.tracking = place, tracking
        self.runs: dict[str, Fed] = {}
        self.threads: list[threading.Thread] = []
        self.failed = False
        self.unreachable = False
        """Whether W&B could not be reached the last time."""
        self._account: Account | None = None
        self._named = False
        self._lock = threading.Lock()

    def hear(self, message: Message) -> None:
        """Do what the owner says."""
        if message["do"] == "follow":
            self._follow(Subject.of(message["subject"]))
        elif message["do"] == "end" and (known := self.runs.get(message["id"])):
            known.end(Ending(message["state"], message["reason"]))
        elif message["do"] == "summarise":
            arguments = (Path(message["study"]), message["storage"])
            self._begin(threading.Thread(target=self._summarise, args=arguments, daemon=True))

    def end(self) -> None:
        """Wait for everything; what has not ended goes by what its folder says."""
        for run in self.runs.values():
            if run.ending is None:
                run.end(run.as_left())
        for thread in self.threads:
            thread.join()

    def account(self) -> Account:
        """Return where runs go, decided by whoever asks first."""
        with self._lock:
            if self._account is None:
                self._account = connect(self.tracking, self.place)
                if self.tracking.wandb == "auto" and not self._account.online:
                    place = os.path.relpath(self.place)
                    say(f"W&B: not logged in, so offline; lorasweep wandb sync {place} sends it later")
            return self._account

    def opened(self, run: Any, subject: Subject) -> None:
        """Tell the user, once, where to look."""
        self.unreachable = False
        with self._lock:
            named, self._named = self._named, True
        if self.account().online and not named:
            say(f"W&B: {f'{run.project_url}/groups/{subject.group}' if subject.group else run.url}")

    def report(self, id: str, error: Exception) -> None:
        """Write down what W&B did not take, the first time for the user too; errors of ours with their traceback."""
        if not self.failed:
            say(f"W&B: {str(error).splitlines()[0][:200]}; training goes on without it")
        self.failed = True
        self.unreachable = isinstance(error, wandb.errors.CommError)
        print(f"{id}: {error}", file=sys.stderr, flush=True)
        if not isinstance(error, wandb.Error | TimeoutError):
            traceback.print_exception(error)

    def _follow(self, subject: Subject) -> None:
        try:
            run = Fed(self, subject, self.runs.get(subject.id))
        except OSError as error:  # the folder is gone
            self.report(subject.id, error)
            return
        self.runs[subject.id] = run
        self._begin(run)

    def _begin(self, thread: threading.Thread) -> None:
        self.threads = [known for known in self.threads if known.is_alive()] + [thread]
        thread.start()

    def _summarise(self, study: Path, storage: str | None) -> None:
        identity = study_identity(study)
        try:
            if self.unreachable:
                raise wandb.errors.CommError("W&B could not be reached before, so it is not tried again")
            summarise(identity, storage, self.account())
        except Exception as error:  # whatever W&B raises, the other runs are not to suffer
            self.report(identity.id, error)


class Fed(threading.Thread):
    """A W&B run that is being fed."""

    def __init__(self, following: Following, subject: Subject, before: Fed | None) -> None:
        super().__init__(daemon=True)
        self.following, self.subject, self.before = following, subject, before
        # the folder of an attempt that was interrupted is renamed for the next one
        self.held = os.open(subject.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.folder = Path(f"/proc/self/fd/{self.held}")
        self.ending: Ending | None = None
        self._ended = threading.Event()

    def end(self, ending: Ending) -> None:
        """Say how the run ended; the first word counts."""
        self.ending = self.ending or ending
        self._ended.set()

    def as_left(self) -> Ending:
        """Return how a run has ended of which its owner had no time to tell."""
        return Ending(read_json(self.folder / "summary.json").get("state", TO_BE_CONTINUED))

    def run(self) -> None:
        """Feed it to its end."""
        if self.before:
            self.before.join()
            self.before = None
        try:
            account = self.following.account()
            feed(self.subject, self.folder, account, self._wait, lambda run: self.following.opened(run, self.subject))
        except Exception as error:  # whatever W&B raises, the other runs are not to suffer
            self.following.report(self.subject.id, error)
        finally:
            os.close(self.held)

    def _wait(self, seconds: float) -> Ending | None:
        self._ended.wait(seconds)
        return self.ending


def say(text: str) -> None:
    """Tell the owner something for the user."""
    with suppress(OSError):
        print(text, flush=True)


def messages(owner: int) -> Iterator[Message]:
    """Yield what the owner says until it is gone; what it has forked may hold its end of the pipe open."""
    try:
        ends, patience = [os.pidfd_open(owner)], None
    except ProcessLookupError:
        ends, patience = [], 0.0
    heard = b""
    while True:
        ready, _, _ = select.select([sys.stdin, *ends], [], [], patience)
        data = os.read(sys.stdin.fileno(), 1 << 16) if sys.stdin in ready else b""
        if not data:
            return
        *lines, heard = (heard + data).split(b"\n")
        yield from map(json.loads, lines)


def give_up() -> None:
    """End at once, with W&B's own process."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.kill()
    os._exit(1)


def main() -> None:
    """Serve an owner until it has finished or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole job, but for the owner to handle
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    place, owner, seconds_left_alone, tracking = sys.argv[1:]
    following = Following(Path(place), Tracking(**json.loads(tracking)))
    finished = False
    for message in messages(int(owner)):
        finished = message["do"] == "finish"
        if finished:
            break
        following.hear(message)
    if not finished:
        alone = threading.Timer(float(seconds_left_alone), give_up)
        alone.daemon = True
        alone.start()
    following.end()
    wandb.teardown()
    os._exit(following.failed)  # what libraries do at exit takes a second


if __name__ == "__main__":
    main()
