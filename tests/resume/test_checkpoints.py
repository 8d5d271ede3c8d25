"""A checkpoint appears whole or not at all, and is gone on from only as it was written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lorasweep import checkpoints
from lorasweep.checkpoints import MANIFEST, Broken, Checkpoint

IDENTITY = {"train.seed": 42, "rows of train": "abc"}


def fill(staging: Path, step: int = 0) -> None:
    (staging / "tensors.safetensors").write_bytes(b"%07d" % step * 100)
    (staging / "state.json").write_text(json.dumps({"step": step}))
    (staging / "adapter").mkdir()
    (staging / "adapter" / "weights").write_bytes(b"weights %d" % step)


def written(folder: Path, *steps: int) -> list[Path]:
    return [
        checkpoints.write(folder, step, IDENTITY, 1000, lambda place, step=step: fill(place, step)) for step in steps
    ]


def accept(checkpoint: Checkpoint) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 12)
    found = checkpoints.read(path)
    assert (found.path, found.step, found.identity) == (tmp_path / "step-000012", 12, IDENTITY)
    assert json.loads((path / MANIFEST).read_text())["files"].keys() == {
        "tensors.safetensors", "state.json", "adapter/weights",
    }  # fmt: skip


CORRUPTIONS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte off": lambda path: path.write_bytes(path.read_bytes().rstrip(b"\n")[:-1]),
    "a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "from another step": lambda path: shutil.copyfile(str(path).replace("step-000009", "step-000006"), path),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "adapter/weights", MANIFEST])
def test_the_newest_that_is_whole_is_gone_on_from_and_others_are_set_aside(
    name: str, corruption: str, tmp_path: Path
) -> None:
    written(tmp_path, 3, 6, 9)
    CORRUPTIONS[corruption](tmp_path / "step-000009" / name)
    found, notes = checkpoints.newest(tmp_path, accept)
    assert found is not None
    assert found.step == 6
    (note,) = notes
    assert "step-000009 cannot be gone on from and is now step-000009.broken" in note
    assert name in note
    assert names(tmp_path) == ["step-000003", "step-000006", "step-000009.broken"]
    assert checkpoints.newest(tmp_path, accept) == (found, []), "said once, not at every start"


def test_every_bit_that_is_flipped_is_noticed_or_means_nothing(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 9)
    before = checkpoints.read(path)
    for name in ("state.json", "adapter/weights", MANIFEST):
        whole = (path / name).read_bytes()
        for position in range(0, 8 * len(whole), 3):
            flipped = bytearray(whole)
            flipped[position // 8] ^= 1 << position % 8
            (path / name).write_bytes(flipped)
            try:
                found = checkpoints.read(path)
            except Broken:
                continue
            assert name == MANIFEST
            assert found.step == before.step
            assert found.identity != before.identity, "which is another run, and refused as such"
        (path / name).write_bytes(whole)


def test_a_file_too_many_is_noticed(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 9)
    (path / "adapter" / "more").touch()
    with pytest.raises(Broken, match="adapter/more does not belong to it"):
        checkpoints.read(path)


def test_a_checkpoint_under_another_name_is_none_of_that_step(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 9)
    with pytest.raises(Broken, match="another step"):
        checkpoints.read(path.rename(tmp_path / "step-000012"))


def test_where_none_is_whole_there_is_none_and_nothing_is_deleted(tmp_path: Path) -> None:
    for path in written(tmp_path, 3, 6):
        (path / MANIFEST).unlink()
    found, notes = checkpoints.newest(tmp_path, accept)
    assert found is None
    assert len(notes) == 2
    assert names(tmp_path) == ["step-000003.broken", "step-000006.broken"]
    written(tmp_path, 3)
    (tmp_path / "step-000003" / MANIFEST).unlink()
    checkpoints.newest(tmp_path, accept)
    assert "step-000003.broken2" in names(tmp_path)
    assert checkpoints.newest(tmp_path / "nowhere", accept) == (None, [])


def test_what_is_not_accepted_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    def refuse_nine(checkpoint: Checkpoint) -> None:
        if checkpoint.step == 9:
            raise Broken("it is of another run")

    written(tmp_path, 6, 9)
    found, notes = checkpoints.newest(tmp_path, refuse_nine)
    assert found is not None
    assert found.step == 6
    assert "it is of another run" in notes[0]


def test_the_oldest_go_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    for age, path in enumerate(written(tmp_path, 99, 100, 101, 1000000)):
        os.utime(path, (10_000 - age, 10_000 - age))
    checkpoints.rotate(tmp_path, None)
    assert len(names(tmp_path)) == 4
    checkpoints.rotate(tmp_path, 2)
    assert names(tmp_path) == ["step-000101", "step-1000000"]
    checkpoints.rotate(tmp_path, 1)
    assert names(tmp_path) == ["step-1000000"]


def test_half_of_a_removed_checkpoint_is_never_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 3, 6)

    def interrupted(path: Path, **_: object) -> None:
        (path / MANIFEST).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.rotate(tmp_path, 1)
    monkeypatch.undo()
    found, notes = checkpoints.newest(tmp_path, accept)
    assert (found and found.step, notes) == (6, [])
    written(tmp_path, 9)
    assert names(tmp_path) == ["step-000006", "step-000009"], "what was left is cleared away"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), OSError(errno.EIO, "broken disk"), KeyboardInterrupt()]
)
def test_whatever_fails_while_one_is_written_nothing_is_left_and_the_last_one_stays(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 3)
    before, failed = names(tmp_path), 0
    real = {name: getattr(os, name) for name in ("fsync", "open", "rename", "mkdir")}
    for number in range(100):
        left = iter(range(number, -1, -1))

        def failing(name: str) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                if next(left, None) == 0:
                    raise error
                return real[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch, suppress(type(error)):
            for name in real:
                patch.setattr(os, name, failing(name))
            checkpoints.write(tmp_path, 6, IDENTITY, 1000, fill)
        if next(left, None) is not None:
            break
        failed += 1
        assert names(tmp_path) in (before, [*before, "step-000006"])
        found, notes = checkpoints.newest(tmp_path, accept)
        assert notes == []
        if found and found.step == 6:  # it was whole already
            shutil.rmtree(found.path)
    assert failed > 10
    assert names(tmp_path) == [*before, "step-000006"]


def test_one_that_does_not_fit_is_not_begun_and_older_ones_make_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 3, 6, 9)

    def usage(path: Path) -> object:
        return shutil._ntuple_diskusage(0, 0, 1000 - 300 * len(names(tmp_path)))  # type: ignore[attr-defined]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(OSError, match="MiB are free") as caught:
        checkpoints.write(tmp_path, 12, IDENTITY, 800, fill)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["step-000009"], "the last one is never given up"
    checkpoints.write(tmp_path, 12, IDENTITY, 600, fill)
    assert names(tmp_path) == ["step-000009", "step-000012"]
    (tmp_path / "step-000012" / "state.json").write_text("")
    with pytest.raises(OSError, match="MiB are free"):
        checkpoints.write(tmp_path, 15, IDENTITY, 800, fill)
    assert names(tmp_path) == ["step-000009", "step-000012"], "the last one that is whole is never given up"


def test_a_process_that_is_killed_while_it_writes_leaves_no_checkpoint(tmp_path: Path) -> None:
    written(tmp_path, 3)
    child = os.fork()
    if not child:

        def die(staging: Path) -> None:
            fill(staging)
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoints.write(tmp_path, 6, IDENTITY, 1000, die)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert names(tmp_path) == [".step-000006", "step-000003"]
    found, notes = checkpoints.newest(tmp_path, accept)
    assert (found and found.step, notes) == (3, [])
    written(tmp_path, 6)
    assert names(tmp_path) == ["step-000003", "step-000006"]
