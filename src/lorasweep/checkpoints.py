"""Checkpoints on disk: a folder per step that appears whole or not at all, and is trusted only as it was written."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from lorasweep.record import write_json

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 1
NAME = re.compile(r"step-\d+")


class Broken(ValueError):
    """Why a checkpoint cannot be gone on from."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every file is what was written."""

    path: Path
    step: int
    identity: dict[str, Any]
    """What the run was whose checkpoint this is."""


def write(folder: Path, step: int, identity: Mapping[str, Any], size: int, fill: Callable[[Path], None]) -> Path:
    """Write the checkpoint of a step, of about `size` bytes; OSError leaves nothing behind.

    Files and folders are on the disk before the one rename that makes it a checkpoint.
    """
    folder.mkdir(exist_ok=True)
    _make_room(folder, size)
    staging, target = folder / f".step-{step:06d}", folder / f"step-{step:06d}"
    try:
        staging.mkdir()
        fill(staging)
        files = {name: _facts(path) for name, path in _files(staging).items()}
        write_json(staging / MANIFEST, {"format": FORMAT, "step": step, "files": files, "identity": identity})
        for path in (*staging.rglob("*"), staging):
            _flush(path)
        staging.rename(target)
        _flush(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def read(path: Path) -> Checkpoint:
    """Return a checkpoint if every byte of it is what was written; raises Broken."""
    manifest = _manifest(path)
    if manifest.get("format") != FORMAT or path.name != f"step-{manifest.get('step'):06d}":
        raise Broken(f"{MANIFEST} is of another step or format")
    found = {name: file for name, file in _files(path).items() if name != MANIFEST}
    for name in sorted(found.keys() ^ manifest["files"].keys()):
        raise Broken(f"{name} is missing" if name not in found else f"{name} does not belong to it")
    for name, facts in manifest["files"].items():
        size, wanted = found[name].stat().st_size, facts.get("bytes") if isinstance(facts, dict) else None
        if size != wanted:
            raise Broken(f"{name} has {size} bytes, not {wanted}")
    for name, facts in manifest["files"].items():
        if _facts(found[name]) != facts:
            raise Broken(f"{name} is not what was written: another sha256")
    return Checkpoint(path, manifest["step"], manifest["identity"])


def adopt(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Have a checkpoint be one of this run, whatever it was of."""
    if checkpoint.identity != identity:
        write_json(checkpoint.path / MANIFEST, {**_manifest(checkpoint.path), "identity": identity})


def newest(folder: Path, accept: Callable[[Checkpoint], None]) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint that is whole and that `accept` does not raise Broken for.

    Those that are not are set aside, and why is returned too.
    """
    notes: list[str] = []
    for path in reversed(_steps(folder)):
        try:
            checkpoint = read(path)
            accept(checkpoint)
            return checkpoint, notes
        except Broken as error:
            notes.append(f"{path.name} cannot be gone on from and is now {set_aside(path).name}: {error}")
    return None, notes


def set_aside(path: Path) -> Path:
    """Rename a checkpoint so that it is not one any more; return its new place."""
    places = (path.with_name(f"{path.name}.broken{number}") for number in itertools.chain([""], itertools.count(2)))
    place = next(place for place in places if not place.exists())
    return path.rename(place)


def rotate(folder: Path, keep: int | None) -> None:
    """Remove all but the newest; None keeps all."""
    for path in _steps(folder)[:-keep] if keep else ():
        _remove(path)


def remove_all(run_folder: Path) -> None:
    """Remove the checkpoints of a run folder."""
    shutil.rmtree(run_folder / FOLDER, ignore_errors=True)


def has_checkpoint(run_folder: Path) -> bool:
    """Tell whether a run folder has anything that looks like a checkpoint."""
    return latest_step(run_folder / FOLDER) is not None


def latest_step(folder: Path) -> int | None:
    """Return the step of the newest folder that looks like a checkpoint, without reading it."""
    return next((_step(path) for path in reversed(_steps(folder))), None)


def _make_room(folder: Path, size: int) -> None:
    """Remove what a killed process has left, and old checkpoints if need be, but never the newest that is whole."""
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    *older, last = _steps(folder) or [folder]
    if size > shutil.disk_usage(folder).free and older and _is_whole(last):
        while older and size > shutil.disk_usage(folder).free:
            _remove(older.pop(0))
    if size > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"it takes {size / 2**20:,.0f} MiB, and {free / 2**20:,.0f} MiB are free")


def _is_whole(path: Path) -> bool:
    try:
        return bool(read(path))
    except Broken:
        return False


def _steps(folder: Path) -> list[Path]:
    """Return the folders of checkpoints by step, the oldest first, whatever their times say."""
    return sorted((path for path in folder.glob("step-*") if NAME.fullmatch(path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _remove(path: Path) -> None:
    """Remove a checkpoint so that half of one is never taken for one."""
    shutil.rmtree(path.rename(path.with_name(f".{path.name}")), ignore_errors=True)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Broken(f"{MANIFEST} is missing") from None
    except (OSError, ValueError):
        raise Broken(f"{MANIFEST} cannot be read") from None
    parts = {"format": int, "step": int, "files": dict, "identity": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(name), kind) for name, kind in parts.items()):
        raise Broken(f"{MANIFEST} is not what was written")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}


def _facts(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
