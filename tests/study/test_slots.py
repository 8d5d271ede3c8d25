"""Where trials run: which GPUs, how many at once, in which processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.slots import build_slots, visible_gpus
from tests.study.sessions import finished, log_of, process_of


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("0,1", ["0", "1"]),
        (" 3 , 1 ", ["3", "1"]),
        ("GPU-5f,MIG-7a", ["GPU-5f", "MIG-7a"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_the_gpus_of_a_study_are_those_that_cuda_sees(given: str, gpus: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": given}) == gpus


def test_slots_share_gpus_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [slot.gpu for slot in build_slots(Settings(), "toy", tmp_path)] == ["4", "7"]
    assert Counter(slot.gpu for slot in build_slots(Settings(slots=6), "toy", tmp_path)) == {"4": 3, "7": 3}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [slot.gpu for slot in build_slots(Settings(), "toy", tmp_path)] == [None]
    assert [slot.gpu for slot in build_slots(Settings(slots=3), "toy", tmp_path)] == [None] * 3


def test_trials_see_the_gpu_of_their_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    finished(tmp_path / "study", faults={0: "wait for 1"}, n_trials=2, slots=None)
    seen = [log_of(tmp_path / "study", number).split(" on ")[1].strip() for number in range(2)]
    assert seen == ["4", "7"]


def test_a_worker_is_kept_for_trials_that_end_well(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    trials = finished(folder, n_trials=12, slots=1, pruner="median", faults={2: "exception"})
    assert {trial.state for trial in trials[3:]} == {State.COMPLETE, State.PRUNED}
    before, after = ({process_of(folder, number) for number in part} for part in (range(3), range(3, 12)))
    assert len(before) == len(after) == 1
    assert before != after


def test_a_process_of_its_own_for_every_trial(tmp_path: Path) -> None:
    finished(tmp_path / "study", n_trials=4, fresh_process=True)
    assert len({process_of(tmp_path / "study", number) for number in range(4)}) == 4
