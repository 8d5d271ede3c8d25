"""One run in all the processes that were started for it: they begin together, and where one ends, all do.

With one exit code: that of the first process, which writes and speaks; another one tells it how it ended. torchrun is
too late for that, and none would notice by itself: a sum over processes waits for whoever is missing.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lorasweep.host import OwnProcess
from lorasweep.preflight import check_inputs
from lorasweep.processes import group
from lorasweep.processes.group import Processes
from lorasweep.processes.launched import Launched, forget, launched
from lorasweep.processes.meeting import meet
from lorasweep.processes.peers import GONE, End, PeerEnded
from lorasweep.record import Launch
from lorasweep.rules import UserError, build
from lorasweep.schema import Run

if TYPE_CHECKING:
    from lorasweep.ending import Result


def run_together(run: Run, lead: Callable[[], object]) -> None:
    """Call `lead` in the first process, which gives run and folder to the others; return only where there is one.

    Raises UserError, before any of them waits for another, for what is wrong with the inputs of the run.
    """
    check_inputs(run)
    import lorasweep.run  # noqa: F401  takes seconds, and from the call on Hydra makes a folder

    given = launched()
    forget()
    if given is None:
        lead()
        return
    joined = _join(given)
    group.enter(joined)
    _leave(joined, _lead(lead) if joined.is_first else _follow(joined))


def train_together(run: Run, launch: Launch) -> Result:
    """Train, with the other processes if there are any, which are given run and folder; the first one calls this."""
    from lorasweep.run import train  # all libraries, which what is wrong with the inputs need not wait for

    joined = group.current()
    joined.firsts({"run": asdict(run), "launch": {**asdict(launch), "folder": str(launch.folder)}})
    return train(run, launch, OwnProcess(joined))


def _taken(values: dict[str, dict[str, object]]) -> tuple[Run, Launch]:
    run, launch = build(values["run"], Run, set()), values["launch"]
    return run, Launch(**{**launch, "folder": Path(str(launch["folder"]))})  # type: ignore[arg-type]


def _join(given: Launched) -> Processes:
    peers, store = meet(given)
    joined = Processes(peers)
    joined.connect(store)
    return joined


def _lead(lead: Callable[[], object]) -> End:
    code: object = 0
    try:
        lead()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:  # where nothing is trained
        code = os.EX_TEMPFAIL
    except BaseException:
        traceback.print_exc()
        code = 1
    number = code if isinstance(code, int) else int(code is not None)
    return End("failed" if number else "complete", number, "the run has ended")


def _follow(joined: Processes) -> End:
    from lorasweep.run import train

    try:
        run, launch = _taken(joined.firsts({}))
        result = train(run, launch, OwnProcess(joined))
        return End(result.state, result.exit_code, result.error or result.state)
    except PeerEnded as error:
        return error.end
    except UserError as error:
        return End("failed", 2, str(error))
    except KeyboardInterrupt as error:
        return End("interrupted", os.EX_TEMPFAIL, str(error) or "interrupted")
    except BaseException as error:
        trace = traceback.format_exc()
        name = f"process {joined.share.rank} of {joined.size}"
        print("".join(f"{name}: {line}\n" for line in trace.splitlines()), end="", file=sys.stderr)
        return End("failed", 1, f"{type(error).__name__}: {error}", trace)


def _leave(joined: Processes, end: End) -> None:
    """End this process, the first one before all others; never by the way through torch, which waits for the others."""
    peers, code = joined.peers, end.code
    if joined.is_first or (end.code and not peers.ended):
        peers.tell(end)
    if not joined.is_first:
        why = peers.until_ended()
        code = why.end.code
        if why.end.error == GONE:
            print(f"process {joined.share.rank} of {joined.size} ends: {why}", file=sys.stderr)
    peers.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
