"""Hashes of files' contents, each computed once as long as the file is not touched."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from lorasweep import cache

WORTH_KEEPING = 8 * 2**20
"""Bytes from which a hash takes longer than looking it up."""
SECONDS_TO_SETTLE = 2.0
"""A file changed within one tick of the clock has the time of before; older ones have had theirs for good."""


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's content.

    That of a large file is kept beside the time of its last change of any kind (ctime, which no program can set back),
    so that a 15 GB base is read once and not by every run; size and mtime alone would serve what was there before.
    """
    facts = os.stat(path)
    if facts.st_size < WORTH_KEEPING:
        return _computed(path)
    note = cache.root() / "hashes" / f"{facts.st_dev:x}-{facts.st_ino:x}"
    stamp = f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    with suppress(OSError, ValueError):
        known, _, digest = note.read_text().rpartition(" ")
        if known == stamp and len(digest) == 64:
            return digest
    digest = _computed(path)
    if time.time() - facts.st_ctime > SECONDS_TO_SETTLE:
        with suppress(OSError):  # it only saves time
            note.parent.mkdir(parents=True, exist_ok=True)
            staging = note.with_name(f".{note.name}-{os.getpid()}")
            staging.write_text(f"{stamp} {digest}")
            staging.replace(note)
    return digest


def _computed(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
