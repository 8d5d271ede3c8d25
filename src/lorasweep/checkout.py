"""The code that runs: commit and uncommitted changes of the checkout, and hashes of what runs pass through."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorasweep.redaction import redacted

FOLDER = Path(__file__).parents[2]
SOURCE = (".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".txt", ".sh", ".jinja", ".j2", ".md")
"""Untracked files of these kinds are part of the changes, up to a size; of others the name is enough."""
LARGEST_SOURCE, LARGEST_PATCH = 2**20, 8 * 2**20


@dataclass(frozen=True)
class Checkout:
    """A checkout as it was when this process began: what it has imported does not change any more."""

    commit: str
    changed: tuple[str, ...]
    """Files that differ from the commit, untracked ones among them."""
    patch: str
    """What `git apply` makes of the commit what runs, secrets left out; empty without changes."""
    diff: str
    """The hash of the changes as they are; or that there are none, or that git did not tell."""

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {"commit": self.commit, "changed": list(self.changed), "diff": self.diff}


class GitFailed(Exception):
    """Git is missing, took too long or refused."""


@cache
def checkout(folder: Path = FOLDER) -> Checkout | None:
    """Return the state of a checkout; None outside of one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
    except GitFailed:
        return None
    try:
        changed = [line[3:] for line in _git(folder, "status", "--porcelain", "-uall").splitlines()]
        patch = _diff(folder) if changed else ""
    except (GitFailed, OSError) as error:
        return Checkout(commit, (), "", f"unknown: {error}")
    digest = hashlib.sha256(patch.encode(errors="surrogateescape")).hexdigest() if patch else "none"
    kept = patch if len(patch) <= LARGEST_PATCH else f"# {len(patch):,} characters, which are too many to keep\n"
    return Checkout(commit, tuple(sorted(changed)), redacted(kept), digest)


@cache
def code_hash() -> str:
    """Return a hash of the code that a run passes through; what is around runs has folders of its own."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    within = (path for folder in ("data", "memory") for path in (package / folder).rglob("*.py"))
    for path in sorted([*package.glob("*.py"), *within]):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def constraints_hash() -> str | None:
    """Return a hash of the file that pins every package; None where there is none."""
    path = FOLDER / "constraints.txt"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _diff(folder: Path) -> str:
    """Return the difference to the commit, with untracked source, by an index of its own: the user's is left alone."""
    with tempfile.TemporaryDirectory() as place:
        index = Path(place) / "index"
        shutil.copyfile(folder / _git(folder, "rev-parse", "--git-path", "index").strip(), index)
        untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
        if source := [name for name in untracked if _is_source(folder / name)]:
            _git(folder, "add", "--intent-to-add", "--", *source, index=index)
        return _git(folder, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", index=index)


def _is_source(path: Path) -> bool:
    return path.suffix in SOURCE and path.is_file() and path.stat().st_size <= LARGEST_SOURCE


def _git(folder: Path, *arguments: str, index: Path | None = None) -> str:
    environment = {**os.environ, **({"GIT_INDEX_FILE": str(index)} if index else {})}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GitFailed(f"git {arguments[0]}: {type(error).__name__}") from None
    if done.returncode:
        raise GitFailed(f"git {arguments[0]}: exit code {done.returncode}")
    return done.stdout.decode(errors="surrogateescape")
