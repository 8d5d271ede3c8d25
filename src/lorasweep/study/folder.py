"""The folder of a study: where its trials are, and how commands beside it find it."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from lorasweep.record import write_text
from lorasweep.rules import Problem, UserError, nearest

STUDIES = Path("outputs/studies")
LOCK = ".lock"
OWNER = "controller.json"
"""Who runs the study; of several controllers each has a file of its own: controller-HOST-PID.json."""
OWNERS = "controller*.json"
HOLDER = "holder"
"""In the folder of a trial: which controller runs it."""


class FolderLock:
    """The lock of a study's folder: held by one controller, or by all those of a shared database together."""

    def __init__(self, folder: Path, is_shared: bool) -> None:
        self.path, self.mode = folder / LOCK, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        self.file: int | None = None

    def acquire(self) -> None:
        """Take it; raises BlockingIOError where another process is in the way."""
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self.file, self.mode | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let go of it."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


def owner_file(study: Path, is_shared: bool) -> Path:
    """Return where a controller says that it runs a study."""
    return study / (f"controller-{socket.gethostname()}-{os.getpid()}.json" if is_shared else OWNER)


def trial_folder(study: Path, number: int) -> Path:
    """Return the folder of a trial."""
    return study / "trials" / str(number)


def set_aside(folder: Path) -> None:
    """Rename what an attempt at a trial that was interrupted has left."""
    if folder.exists():
        places = (folder.with_name(f"{folder.name}.attempt{number}") for number in itertools.count(1))
        folder.rename(next(place for place in places if not place.exists()))


def hold(folder: Path, holder: str) -> None:
    """Make the folder of a trial a controller's own: the worker of another that had it before ends itself."""
    with suppress(OSError):  # a disk that is full; the worker has more to say about that
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / HOLDER, holder)


def is_taken(folder: Path, holder: str) -> bool:
    """Tell whether the folder of a trial is another controller's by now."""
    try:
        return (folder / HOLDER).read_text() not in (holder, "")
    except OSError:
        return False


def find_study(given: str) -> Path:
    """Return the folder of a study, given as a path or as a name below outputs/studies."""
    if found := study_named(given):
        return found
    names = [path.name for path in latest_studies()]
    allowed = f"the folder of a study, or a name below {STUDIES}"
    if names:
        allowed += f". The latest there: {', '.join(names[:4])}"
    raise UserError(Problem("STUDY", given, allowed, nearest(Path(given).name, names)))


def study_named(given: str) -> Path | None:
    """Return the folder of the study that is meant, None if none is."""
    return next(filter(is_study, (Path(given), STUDIES / given)), None)


def is_study(folder: Path) -> bool:
    """Tell whether a folder is that of a study."""
    return (folder / "study.db").is_file() or (folder / "trials").is_dir()


def check_database(folder: Path) -> None:
    """Raise for a study that is kept elsewhere than in its folder."""
    if not (folder / "study.db").is_file():
        allowed = f"the database that the study is in, as hydra.sweeper.storage had it: {folder} has no study.db"
        raise UserError(Problem("--storage", None, allowed))


def latest_studies() -> list[Path]:
    """Return the folders of studies in outputs/studies here, latest first."""
    folders = [path.parent for path in STUDIES.glob("*/study.db")]
    return sorted(folders, key=lambda path: (path / "study.db").stat().st_mtime_ns, reverse=True)


def controller_of(study: Path) -> str | None:
    """Return which process runs a study now, in words; None if none does.

    Of one on another machine it cannot be told whether it still lives.
    """
    owners = [owner for path in sorted(study.glob(OWNERS)) if (owner := _living(path))]
    return f"{len(owners)} controllers ({', '.join(owners)})" if len(owners) > 1 else "".join(owners) or None


def _living(path: Path) -> str | None:
    """Return which other process an owner's file names, in words; None if it has ended."""
    try:
        owner, written = json.loads(path.read_text()), path.stat().st_mtime
    except (OSError, ValueError):
        return None
    words = f"process {owner['pid']} on {owner['host']}"
    if owner["host"] != socket.gethostname():
        return words
    try:
        # a younger process has only got the number of one that was killed
        is_it = psutil.Process(owner["pid"]).create_time() <= written + 1
    except psutil.Error:
        return None
    return words if is_it and owner["pid"] != os.getpid() else None
