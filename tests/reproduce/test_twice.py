"""The same run in two fresh processes: the same bits, whatever the folder, the hash seed, the clock and the neighbours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.reproduce.twice import SETTINGS

YEAR = 365 * 86400


def started(place: Path, shift: int, order: int, hash_seed: str) -> subprocess.Popen[str]:
    place.mkdir(parents=True)
    environment = {
        **os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}/src:{ROOT}",
        "LORASWEEP_CACHE": str(place / "cache"), "TZ": "Asia/Tokyo" if order < 0 else "UTC",
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.reproduce.twice", str(place / "runs"), str(shift), str(order)]
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, err[-3000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.slow
def test_every_setting_gives_the_same_bits_in_two_fresh_processes(tmp_path: Path) -> None:
    assert len(SETTINGS) >= 16
    first = started(tmp_path / "one", 0, 1, "1")
    second = started(tmp_path / "another" / "place", 3 * YEAR, -1, "2")
    one, other = printed(first), printed(second)
    created = {name: (one[name].pop("created")[:4], other[name].pop("created")[:4]) for name in one}
    assert all(int(late) - int(early) >= 2 for early, late in created.values())
    assert {name: other[name] for name in one if one[name] != other[name]} == {}
    assert len({values["parameters"] for values in one.values()}) == len(SETTINGS), "settings differ from each other"
    assert any("uint8" in values["optimizer_dtypes"] for values in one.values()), "states are really 8 bit"
