"""Where models made on this machine are kept between runs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lorasweep.rules import Problem, UserError


def root() -> Path:
    """Return the cache folder: LORASWEEP_CACHE, else lorasweep below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LORASWEEP_CACHE") or Path(base) / "lorasweep")


def folder(name: str, make: Callable[[Path], None]) -> Path:
    """Return cache folder `name`, made by `make` if it is not there; safe when several processes want it at once.

    `make` fills a staging folder that is renamed only when it is whole, so a killed process leaves nothing half done.
    """
    target = root() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            Problem("LORASWEEP_CACHE", str(root()), f"a folder that can be written ({error.strerror})")
        ) from None
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            for abandoned in target.parent.glob(f".{target.name}-*"):  # by a process that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
            try:
                make(staging)
                staging.chmod(0o755)
                staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return target
