"""A slot's process: trains one trial after the other for its controller, and dies with it.

python -m lorasweep.study.serving FD module:factory PID PROCESSES
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

from lorasweep.processes import group
from lorasweep.record import write_json
from lorasweep.study import siblings
from lorasweep.study.attempt import is_full_disk, print_into, trained, words
from lorasweep.study.channel import Channel, Message
from lorasweep.study.lifetime import die_with_parent, guard
from lorasweep.study.outcomes import State
from lorasweep.study.worker import OUTCOME, Job, Listener, Objective, Outcome


def main() -> None:
    """Serve a controller until it is gone."""
    end, processes = int(sys.argv[1]), int(sys.argv[4])
    die_with_parent(int(sys.argv[3]))
    guard(end)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole job, but the controller's to handle
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if processes > 1:
        joined = siblings.start(processes)
        group.enter(joined)
        if not joined.is_first:
            os.close(end)
            siblings.follow(_objective(), joined)
    _serve(Listener(Channel(socket.socket(fileno=end))))


def _serve(listener: Listener) -> None:
    objective = _objective()
    listener.channel.send({"event": "ready"})
    while True:
        message = listener.jobs.get()
        if message["do"] == "check":
            listener.channel.send({"event": "checked", **_checked(objective, message["runs"])})
            continue
        listener.job = Job.of(message)
        outcome = _outcome(objective, listener.job, listener)
        listener.job = None
        listener.channel.send({"event": "outcome", **outcome, "worn": objective.worn})


def _objective() -> Objective:
    module, _, factory = sys.argv[2].partition(":")
    objective: Objective = getattr(importlib.import_module(module), factory)()
    return objective


def _outcome(objective: Objective, job: Job, reporter: Listener) -> Message:
    """Train a trial with a folder and a log of its own; a full disk is no fault of the trial."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "log.txt", "ab") as log:
            print_into(log.fileno())
        outcome = trained(objective, job, reporter).message()
        siblings.end_if_one_is_lost()
        sys.stdout.flush()
        sys.stderr.flush()
        reporter.end_if_taken()
        write_json(job.folder / OUTCOME, outcome)  # a controller that dies before it hears of it finds it here
    except OSError as error:
        if not is_full_disk(error):
            raise
        return Outcome(State.INTERRUPTED, reason=words(error)).message()
    return outcome


def _checked(objective: Objective, runs: list[dict[str, Any]]) -> Message:
    try:
        return objective.check(runs)
    except Exception:  # a bug: the controller raises it, with this text
        return {"broken": traceback.format_exc()}


if __name__ == "__main__":
    main()
