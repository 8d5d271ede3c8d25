"""Which of the runs that have not ended is running: a process of this machine holds its metrics open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil


def writers(folders: Sequence[Path]) -> dict[Path, str]:
    """Return which of some run folders a process writes to, and which one; it is one of the user's, on this machine."""
    wanted = {str((folder / "metrics.jsonl").resolve()): folder for folder in folders}
    found: dict[Path, str] = {}
    for process in psutil.process_iter():
        try:
            opened = process.open_files()
        except psutil.Error:  # another user's, or gone
            continue
        for file in opened:
            # the follower that feeds W&B reads the file, and may outlive the run
            if file.path in wanted and file.mode.startswith(("a", "w")):
                found[wanted[file.path]] = f"process {process.pid}"
    return found
