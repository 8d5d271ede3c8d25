"""A trial that was stopped or killed goes on from its checkpoint, under its number, to the result it would have had."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from lorasweep import compose, metrics
from lorasweep.data import file_hash
from lorasweep.record import Launch
from lorasweep.results import read_results
from lorasweep.run import train
from lorasweep.study.database import local_url
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial
from tests.conftest import ROOT
from tests.resume.children import PROCESSES
from tests.study.sessions import run, trials_of, until
from tests.study.stopping import TOPPLED

STUDY = (
    "-m", "study=going", "lora.r=8,16,4", "model=tiny", "data.limit=24", "train.max_steps=4", "evaluation.times=4",
    "evaluation.generate=0", "lora.dropout=0.1", "tracking.wandb=disabled", "verbosity=quiet", "hydra.sweeper.slots=1",
    "hydra.sweeper.keep_adapters=null",
)  # fmt: skip
TRAINING = "lorasweep.study.training:Training"


def session(folder: Path, objective: str, *overrides: str, then: Any = lambda trial: None) -> str | None:
    compose.register()
    _, definition = compose.checked_study(ROOT / "conf", compose.CommandLine.of([*STUDY, *overrides]))
    return run(replace(definition, folder=folder, objective=objective), then)[0]


def results(folder: Path) -> list[dict[str, Any]]:
    """What has come of every trial, but for times and memory."""
    study = optuna.load_study(study_name="going", storage=local_url(folder / "study.db"))
    trials = trials_of(folder, "going")
    return [
        {"state": trial.state, "values": trial.values, "point": trial.point, "reports": frozen.intermediate_values}
        | left_in(folder_of(folder, trial))
        for trial, frozen in zip(trials, study.trials, strict=True)
    ]


def left_in(place: Path) -> dict[str, Any]:
    """What a run or trial has learnt and measured."""
    adapter = place / "adapter" / "adapter_model.safetensors"
    digests = json.loads((place / "summary.json").read_text())["digests"]
    assert {"adapter", "order", "parameters", "optimizer", "optimizer_dtypes"} == digests.keys()
    return {
        "adapter": file_hash(adapter) if adapter.exists() else None,
        "digests": digests,
        "evaluations": (place / "evaluation.jsonl").read_text(),
        "losses": [entry["train/loss"] for entry in metrics.read(place) if "train/loss" in entry],
    }


def folder_of(study: Path, trial: Trial) -> Path:
    return study / "trials" / str(trial.number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killer", "overrides", "resumed"),
    [
        ("Killed", (), {1: 2, 2: 1}),
        ("Killed", ("hydra.sweeper.pruner=asha", "hydra.sweeper.prune_after=0.7"), {1: 2, 2: 1}),
        ("KilledInPass", ("train.batch_size=2", "train.grad_accum=3"), {1: 1, 2: 2}),
    ],
    ids=["between steps", "between steps, pruned", "within a step"],
)
def test_trials_whose_worker_is_killed_end_as_if_it_had_not_been(
    killer: str, overrides: tuple[str, ...], resumed: dict[int, int], tmp_path: Path
) -> None:
    given = (*overrides, "train.save_every=1")
    assert session(tmp_path / "killed", f"tests.study.stopping:{killer}", *given) is None
    assert session(tmp_path / "calm", TRAINING, *given) is None
    assert results(tmp_path / "killed") == results(tmp_path / "calm")
    assert not list((tmp_path / "killed" / "trials").glob("*.attempt*"))
    for number, step in resumed.items():
        folder = tmp_path / "killed" / "trials" / str(number)
        assert [item["step"] for item in json.loads((folder / "record.json").read_text())["resumed"]] == [step]
        assert f"going on after step {step} of 4" in (folder / "train.log").read_text()
    states = {trial.state for trial in trials_of(tmp_path / "calm", "going")}
    assert states == ({State.COMPLETE, State.PRUNED} if "hydra.sweeper.pruner=asha" in overrides else {State.COMPLETE})


@pytest.mark.slow
def test_a_study_that_is_killed_whole_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    arguments = (tmp_path / "killed", "tests.study.stopping:Toppled", "train.save_every=1")
    for place in (*TOPPLED, None):
        process = PROCESSES.Process(target=session, args=arguments)
        process.start()
        process.join(600)
        assert process.exitcode == (-signal.SIGKILL if place else 0), place
    assert session(tmp_path / "calm", TRAINING, "train.save_every=1") is None
    assert results(tmp_path / "killed") == results(tmp_path / "calm")
    for number, steps in ((0, [3]), (1, [1, 2])):
        record = json.loads((tmp_path / "killed" / "trials" / str(number) / "record.json").read_text())
        assert [item["step"] for item in record["resumed"]] == steps


def test_a_study_that_is_told_to_stop_goes_on_from_the_step_it_stopped_after(tmp_path: Path) -> None:
    folder, steps = tmp_path / "stopped", ("train.max_steps=60", "lora.r=4,8")

    def interrupt(trial: Trial) -> None:
        if trial.number == 1:
            until(lambda: any("train/loss" in entry for entry in metrics.read(folder_of(folder, trial))), 120)
            os.kill(os.getpid(), signal.SIGTERM)

    assert session(folder, TRAINING, *steps, then=interrupt) == "interrupted"
    stopped = trials_of(folder, "going")[1]
    assert stopped.state is State.INTERRUPTED
    assert "stopped after step" in (stopped.reason or "")
    (checkpoint,) = (folder_of(folder, stopped) / "checkpoints").iterdir()
    assert session(folder, TRAINING, *steps) is None
    (again,) = json.loads((folder_of(folder, stopped) / "record.json").read_text())["resumed"]
    assert checkpoint.name == f"step-{again['step']:06d}"
    assert not checkpoint.exists(), "needed no more"
    assert not list((folder / "trials").glob("*.attempt*"))
    alone = train(read_results(folder_of(folder, stopped)).run, Launch(tmp_path / "alone", []))
    assert left_in(folder_of(folder, stopped)) == left_in(alone.folder)
