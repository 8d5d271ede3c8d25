"""Faults in real QLoRA training: every trial ends as what it is, and the others are what they are without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lorasweep import compose
from lorasweep.data import file_hash
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial
from tests.conftest import ROOT
from tests.study.faulty import FAULTS
from tests.study.sessions import run, trials_of

ENDS = {
    "exception": (State.FAILED, "something is broken"),
    "exit": (State.FAILED, "exit code 7"),
    "kill": (State.FAILED, "killed by SIGKILL 3 times"),
    "kill once": (State.COMPLETE, ""),
    "segfault": (State.FAILED, "SIGSEGV"),
    "out of memory": (State.OUT_OF_MEMORY, "CUDA out of memory"),
    "diverged": (State.DIVERGED, "not finite"),
    "hang": (State.HUNG, "no sign of life"),
    "wrong objective": (State.FAILED, "eval/lss"),
}
COUNT = 24
OVERRIDES = (
    "-m", "study=faults", "strategy=random", "space=[qlora,learning_rate]", f"hydra.sweeper.n_trials={COUNT}",
    "hydra.sweeper.hang_timeout=60", "hydra.sweeper.keep_adapters=null", "hydra.sweeper.slots=1", "model=tiny",
    "data.limit=24", "data.max_length=128", "train.max_steps=3", "evaluation.generate=0", "tracking.wandb=disabled",
    "verbosity=quiet",
)  # fmt: skip


def trained(folder: Path, objective: str) -> list[Trial]:
    compose.register()
    _, definition = compose.checked_study(ROOT / "conf", compose.CommandLine.of(OVERRIDES))
    run(replace(definition, folder=folder, objective=objective))
    return trials_of(folder, definition.name)


@pytest.mark.slow
def test_a_study_with_every_fault_gives_the_other_trials_the_same_adapters(tmp_path: Path) -> None:
    faulty = trained(tmp_path / "faulty", "tests.study.faulty:Faulty")
    sound = trained(tmp_path / "sound", "lorasweep.study.training:Training")
    assert [trial.number for trial in faulty] == list(range(COUNT))
    assert {trial.state for trial in sound} == {State.COMPLETE}
    for trial, other in zip(faulty, sound, strict=True):
        state, reason = ENDS.get(FAULTS.get(trial.number, ""), (State.COMPLETE, ""))
        assert (trial.number, trial.state) == (trial.number, state), trial.reason
        assert reason in (trial.reason or "")
        assert trial.point == other.point
        if state is State.COMPLETE:
            weights = Path("trials", str(trial.number), "adapter", "adapter_model.safetensors")
            assert file_hash(tmp_path / "faulty" / weights) == file_hash(tmp_path / "sound" / weights)
            assert trial.values == other.values
