"""Runs that start at the same moment: none writes over another."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import hydra.core.utils
import pytest
import yaml
from omegaconf import OmegaConf

from lorasweep import compose
from lorasweep.record import claim
from lorasweep.rules import UserError
from lorasweep.schema import Lora, Run
from tests.conftest import ROOT, TINY
from tests.resume.children import PROCESSES

COUNT = 16


def _claim(folder: Path, number: int, barrier: Any, won: Any) -> None:
    run = replace(Run(), lora=Lora(r=number + 1))
    barrier.wait()
    try:
        claim(folder, run)
    except UserError:
        return
    won.put(number)


def test_of_sixteen_runs_with_one_folder_one_gets_it_and_the_others_touch_nothing(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("fork")
    for attempt in range(2):
        folder, barrier, won = tmp_path / str(attempt), processes.Barrier(COUNT), processes.SimpleQueue()
        starting = [processes.Process(target=_claim, args=(folder, number, barrier, won)) for number in range(COUNT)]
        for process in starting:
            process.start()
        for process in starting:
            process.join(120)
        assert [process.exitcode for process in starting] == [0] * COUNT
        number = won.get()
        assert won.empty()
        assert yaml.safe_load((folder / "run.yaml").read_text())["lora"]["r"] == number + 1
        assert yaml.safe_load((folder / "lora" / "saved.yaml").read_text())["r"] == number + 1


class OneMoment(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> OneMoment:
        """The first moment of the year."""
        return cls(2026, 1, 1, tzinfo=tz)


def _command(number: int, place: Path, barrier: Any) -> None:
    """`python train.py`, typed at a moment that is the same for all."""
    os.chdir(place)
    hydra.core.utils.datetime = OneMoment  # type: ignore[attr-defined]
    sys.argv = [
        "train.py",
        *TINY,
        "name=same",
        "data.limit=24",
        "train.max_steps=1",
        "evaluation.times=0",
        f"lora.r={number + 1}",
    ]
    barrier.wait()
    runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


@pytest.mark.slow
def test_sixteen_commands_of_one_second_and_one_name_train_sixteen_runs(tmp_path: Path) -> None:
    barrier = PROCESSES.Barrier(COUNT)
    starting = [PROCESSES.Process(target=_command, args=(number, tmp_path, barrier)) for number in range(COUNT)]
    for process in starting:
        process.start()
    for process in starting:
        process.join(600)
    assert [process.exitcode for process in starting] == [0] * COUNT
    folders = list((tmp_path / "outputs" / "runs").iterdir())
    assert all(folder.name.startswith("2026-01-01_00-00-00_") for folder in folders)
    ranks = []
    for folder in folders:
        rank = yaml.safe_load((folder / "run.yaml").read_text())["lora"]["r"]
        assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == rank
        assert json.loads((folder / "summary.json").read_text())["state"] == "complete"
        ranks.append(rank)
    assert sorted(ranks) == list(range(1, COUNT + 1))


def test_runs_of_one_second_get_folders_of_their_own() -> None:
    template = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())["hydra"]["run"]["dir"]
    compose.register()
    OmegaConf.register_new_resolver("now", lambda form: "the_same_second", replace=True)
    try:
        folders = {OmegaConf.create({"dir": template}).dir for _ in range(COUNT)}
    finally:
        OmegaConf.clear_resolver("now")
    assert len(folders) == COUNT
    assert all(folder.startswith("outputs/runs/the_same_second_") for folder in folders)
