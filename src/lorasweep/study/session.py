"""One session of a study: its folder and database are taken, what could go wrong is checked, trials are run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lorasweep import determinism
from lorasweep.record import write_json
from lorasweep.redaction import redacted
from lorasweep.rules import Problem, UserError
from lorasweep.study.cluster import build_cluster_slots, check_cluster
from lorasweep.study.controller import SECONDS_TO_DIE, CannotStart, Controller
from lorasweep.study.database import ERRORS, check_file, is_file, local_url, make_file, readable
from lorasweep.study.definition import Definition, check_unchanged
from lorasweep.study.folder import LOCK, OWNERS, FolderLock, controller_of, owner_file
from lorasweep.study.leaderboard import CSV, build_leaderboard, write_leaderboard
from lorasweep.study.proposal import check_sampler
from lorasweep.study.reading import DONE, SESSION
from lorasweep.study.requests import forget_stops
from lorasweep.study.signals import undisturbed
from lorasweep.study.slots import Slot, build_slots, ending, idle_gpus
from lorasweep.study.store import Store
from lorasweep.study.view import View

SECONDS_TO_CHECK = 900.0
"""For checking the configs, which may fetch a model: so long a controller counts as alive before it has begun."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def run_session(
    definition: Definition,
    view: View,
    closing: Callable[[Store], str] | None = None,
    opening: Callable[[Store], None] = lambda store: None,
) -> str | None:
    """Run a study up to its total; return why it ended before, None if it is done.

    `opening` is called before the first trial, once the study and its folder are known to be sound.
    However it ends, `closing` is called with what came of it, and what it returns is shown. Raises UserError before the
    first trial for everything that the user can mend; what was there stays as it was.
    """
    check_sampler(definition.settings)
    if definition.settings.cluster:
        check_cluster(definition.settings.cluster, definition.settings.cluster_options)
    determinism.prepare(definition.compose({}).run.get("deterministic", False))  # workers inherit it
    slots = _slots(definition)
    try:
        with _claimed(definition), _opened(definition) as store, ending(slots):
            _check_definition(definition, store)
            view.begin(len(slots))
            if definition.settings.gpus_per_trial > 1 and (idle := idle_gpus(definition.settings)):
                view.say(f"GPU {', '.join(idle)} is left over: no trial takes it")
            facts = _checked(definition, slots[0])
            _check_facts(definition, store, facts)
            opening(store)
            try:
                return _run(Controller(definition, store, slots, view), closing)
            finally:
                view.end()
    except KeyboardInterrupt:  # before the first trial; later it is the controller's to handle
        return "interrupted"


def _slots(definition: Definition) -> list[Slot]:
    settings, folder = definition.settings, definition.folder / "workers"
    if not settings.cluster:
        return build_slots(settings, definition.objective, folder)
    if settings.gpus_per_trial > 1:
        allowed = "1 with hydra.sweeper.cluster: a job brings one process"
        raise UserError(Problem("hydra.sweeper.gpus_per_trial", settings.gpus_per_trial, allowed))
    assert settings.slots
    return build_cluster_slots(settings.slots, definition.objective, folder, settings.cluster, settings.cluster_options)


@contextmanager
def _opened(definition: Definition) -> Iterator[Store]:
    """Open the database of a study; what is kept of one without trials is no reason to refuse anything."""
    file, trials = definition.folder / "study.db", definition.folder / "trials"
    url = definition.settings.storage or local_url(file)
    with readable(url):
        if not definition.settings.storage:
            check_file(file)
            if not file.exists() or not file.stat().st_size:
                make_file(file)
        store = Store(url, definition.name, definition.directions(), definition.space)
        try:
            if is_file(url):
                _check_folder(definition.folder, store, url)
            store.join(SECONDS_TO_CHECK, is_alone=is_file(url))
            if not store.trials():
                if trials.exists():
                    allowed = f"the study of which {trials} has trials; put a copy of it back, or move them away"
                    raise UserError(Problem("study", redacted(url), allowed))
                store.begin_anew(SECONDS_TO_CHECK)
            if not store.others():
                forget_stops(definition.folder)
            store.keep("folder", str(definition.folder))
            yield store
        finally:
            with suppress(*ERRORS):
                store.leases.leave()
            store.close()


def _check_folder(folder: Path, store: Store, url: str) -> None:
    """Raise if a database that several folders can share has this study for another one."""
    other = store.attributes.get("folder", str(folder))
    if other == str(folder) or (folder / "trials").exists():  # moved, with its trials
        return
    if store.trials() or controller_of(Path(other)):
        allowed = f"{other}, where the trials of {store.name} in {redacted(url)} are; another study needs another name"
        raise UserError(Problem("hydra.sweep.dir", str(folder), allowed))


def _run(controller: Controller, closing: Callable[[Store], str] | None) -> str | None:
    """Run trials; however that ends, what came of them is written down and shown."""
    view, folder, total = controller.view, controller.definition.folder, controller.definition.total()
    try:
        controller.store.keep(SESSION, {"total": total, "ended": None})
        reason = controller.run()
        if reason is None or not controller.store.others():
            controller.store.keep(SESSION, {"total": total, "ended": reason or DONE})
        return reason
    finally:
        with undisturbed():
            board = build_leaderboard(controller.store, folder)
            try:
                write_leaderboard(board)
            except OSError as error:
                view.say(f"{folder / CSV} cannot be written: {error.strerror}")
            view.end(board)
            if closing:
                view.say(closing(controller.store))


@contextmanager
def _claimed(definition: Definition) -> Iterator[None]:
    """Hold a study's folder, with the other controllers of a shared database or alone.

    If it is new and nothing came of it, it is removed again.
    """
    folder, is_new = definition.folder, not definition.folder.exists()
    is_shared = not is_file(definition.settings.storage or local_url(folder))
    lock, owner = FolderLock(folder, is_shared), owner_file(folder, is_shared)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in folder.iterdir()}
        if names and LOCK not in names:
            allowed = f"a new folder or that of a study; this one holds {', '.join(sorted(names)[:3])}"
            raise UserError(Problem("hydra.sweep.dir", str(folder), allowed))
        lock.acquire()
    except BlockingIOError:
        allowed = f"a study that nothing else runs now{_owner(folder)}; lorasweep stop {folder} ends it"
        raise UserError(Problem("study", folder.name, allowed)) from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})
        yield
    except CannotStart:  # its log is in the folder
        raise
    except (UserError, OSError) as error:
        if is_new and not (folder / "trials").exists() and not controller_of(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise _unwritable(folder, error) from None
        raise
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(Problem("hydra.sweep.dir", str(folder), f"a folder that can be written ({error.strerror})"))


def _owner(folder: Path) -> str:
    paths = sorted(folder.glob(OWNERS))
    try:
        owner = json.loads(paths[0].read_text()) if paths else None
    except (OSError, ValueError):
        owner = None
    return f"; process {owner['pid']} on {owner['host']} does" if owner else ""


def _check_definition(definition: Definition, store: Store) -> None:
    now = json.loads(json.dumps(definition.lasting()))
    check_unchanged(definition.name, store.settle("definition", now), now)
    store.keep("search", definition.search())


def _check_facts(definition: Definition, store: Store, facts: Mapping[str, Any]) -> None:
    check_unchanged(definition.name, store.settle("facts", dict(facts)), facts)


def _sample_runs(definition: Definition) -> Iterator[dict[str, Any]]:
    for point in definition.samples():
        try:
            yield definition.compose(point).run
        except UserError:
            if not point:
                raise
            # with other values of the study it may be right; a point of which it is not is refused in its turn


def _checked(definition: Definition, slot: Slot) -> Mapping[str, Any]:
    """Have a worker look at the configs before any is trained; return what it knows of data and model."""
    slot.start()
    assert slot.channel
    runs, is_preempted = list(_sample_runs(definition)), False
    slot.send({"do": "check", "runs": runs})
    for message in slot.channel.messages():
        if message["event"] == "ready":
            slot.ready = True
        elif message["event"] != "checked":  # a job waits, or has been warned that it will end
            is_preempted = is_preempted or message["event"] == "preempted"
        elif "broken" in message:
            slot.end(SECONDS_TO_DIE)
            raise RuntimeError(message["broken"])
        elif message["problems"]:
            slot.end(SECONDS_TO_DIE)
            raise UserError(Problem(**problem) for problem in message["problems"])
        else:
            facts: Mapping[str, Any] = message["facts"]
            if is_preempted:
                slot.end()
            return facts
    code = slot.end(SECONDS_TO_DIE)
    raise CannotStart(code, slot.log)
