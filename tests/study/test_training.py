"""Studies of real runs: a trial is a run like any other, whatever worker it was trained in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from lorasweep.data import file_hash
from lorasweep.results import read_results
from lorasweep.study import objectives
from tests.conftest import command
from tests.study.conftest import STUDY


def weights(folder: Path) -> str:
    return file_hash(folder / "adapter" / "adapter_model.safetensors")


def losses(folder: Path) -> list[Any]:
    lines = (folder / "evaluation.jsonl").read_text().splitlines()
    return [json.loads(line)["row_losses"] for line in lines]


def trials_in(place: Path, study: str = "real") -> list[Path]:
    return sorted((place / "outputs" / "studies" / study / "trials").iterdir())


def test_a_grid_study_trains_every_combination_once_in_folders_of_its_own(real_study: Path) -> None:
    trials = trials_in(real_study)
    assert [path.name for path in trials] == ["0", "1", "2", "3"]
    configs = [yaml.safe_load((path / "run.yaml").read_text()) for path in trials]
    points = [(config["lora"]["r"], config["scheduler"]["name"]) for config in configs]
    assert points == [(4, "constant"), (4, "cosine"), (8, "constant"), (8, "cosine")]
    assert {config["study"] for config in configs} == {"real"}
    assert [config["name"] for config in configs][1] == "1-lora.r=4,scheduler=cosine"
    for path in trials:
        assert json.loads((path / "summary.json").read_text())["state"] == "complete"
        assert "step 3/3" in (path / "log.txt").read_text()
    assert len({weights(path) for path in trials}) == 4


def test_a_trial_records_where_its_values_come_from(real_study: Path) -> None:
    records = [json.loads((path / "record.json").read_text()) for path in trials_in(real_study)]
    lineage = [record["lineage"] for record in records]
    assert [item["trial"] for item in lineage] == [0, 1, 2, 3]
    assert lineage[1]["parameters"] == {"lora.r": 4, "scheduler": "cosine"}
    assert {(item["study"], item["sampler"], item["sampler_seed"], item["deaths"]) for item in lineage} == {
        ("real", "grid", 0, 0)
    }
    assert len({item["study_sha256"] for item in lineage}) == 1
    assert {item["runs_of_worker"] for item in lineage} == {4}
    assert [record["choices"]["scheduler"] for record in records] == ["constant", "cosine"] * 2


def test_the_study_opens_in_optuna_with_its_parameters_and_values(real_study: Path) -> None:
    url = f"sqlite:///{real_study}/outputs/studies/real/study.db"
    study = optuna.load_study(study_name="real", storage=url)
    assert [trial.params for trial in study.trials][1] == {"lora.r": 4, "scheduler": "cosine"}
    objectives = [json.loads((path / "summary.json").read_text())["objective"] for path in trials_in(real_study)]
    assert [trial.value for trial in study.trials] == objectives
    assert [len(trial.intermediate_values) for trial in study.trials] == [2, 2, 2, 2]
    assert len({tuple(trial.intermediate_values) for trial in study.trials}) == 1, "reports after the same tokens"


def test_what_can_be_optimised_is_what_a_summary_has(real_study: Path) -> None:
    (folder, *_) = trials_in(real_study)
    summary = json.loads((folder / "summary.json").read_text())
    measured = {name for name, value in summary.items() if isinstance(value, int | float)} - {"seconds"}
    assert {*objectives.numbers(read_results(folder).run)} - {*objectives.ON_GPU} == measured


@pytest.mark.slow
def test_a_trial_is_the_same_in_a_warm_worker_and_in_a_process_of_its_own(real_study: Path, tmp_path: Path) -> None:
    done = command(*STUDY, "hydra.sweeper.fresh_process=true", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for warm, fresh in zip(trials_in(real_study), trials_in(tmp_path), strict=True):
        assert weights(warm) == weights(fresh)
        assert losses(warm) == losses(fresh)


@pytest.mark.slow
def test_quality_is_weighed_against_memory_and_time(tmp_path: Path) -> None:
    done = command(
        "-m", "study=cheap", "strategy=pareto", "lora.r=4,8,16", "hydra.sweeper.n_trials=3", "model=tiny", "data.limit=24",
        "train.max_steps=2", "evaluation.generate=0", "tracking.wandb=disabled", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    study = optuna.load_study(study_name="cheap", storage=f"sqlite:///{tmp_path}/outputs/studies/cheap/study.db")
    for trial, folder in zip(study.trials, trials_in(tmp_path, "cheap"), strict=True):
        summary = json.loads((folder / "summary.json").read_text())
        assert trial.values == [summary[name] for name in ("objective", "memory/peak_gib", "train/seconds")]
    assert study.best_trials
    board = (tmp_path / "outputs" / "studies" / "cheap" / "leaderboard.csv").read_text().splitlines()
    assert {"front", "objective", "memory/peak_gib", "train/seconds"} <= set(board[0].split(","))


@pytest.mark.slow
def test_a_trial_is_the_same_as_the_run_of_its_saved_config(real_study: Path, tmp_path: Path) -> None:
    trial = trials_in(real_study)[3]
    done = command("--config-dir", str(trial), "experiment=saved", f"hydra.run.dir={tmp_path}/alone", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "alone") == weights(trial)
    assert losses(tmp_path / "alone") == losses(trial)


@pytest.mark.slow
def test_a_trial_is_reproduced_exactly_in_a_process_of_its_own(
    real_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("HOME", str(tmp_path))
    study = real_study / "outputs" / "studies" / "real"
    arguments = ["reproduce", f"{study}:3", "--out", "again", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["verdict"], result["steps"]["missing"]) == ("exact", [])
    assert [(item["name"], item["weight"]) for item in result["drift"]] == [("variable PYTHONHASHSEED", "note")]
    assert weights(tmp_path / "again") == weights(trials_in(real_study)[3])


def test_the_same_command_goes_on_and_trains_nothing_again(real_study: Path) -> None:
    before = [(path / "summary.json").stat().st_mtime_ns for path in trials_in(real_study)]
    done = command(*STUDY, cwd=real_study)
    assert done.returncode == 0, done.stderr
    assert [(path / "summary.json").stat().st_mtime_ns for path in trials_in(real_study)] == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("train.max_steps=4", "train.max_steps = 4"),
        ("lora.r=4,8,16", "space.lora.r = [4, 8, 16]"),
        ("data.limit=30", "data.limit = 30"),
    ],
)
def test_a_changed_study_is_refused_with_the_difference(real_study: Path, change: str, key: str) -> None:
    arguments = [text for text in STUDY if text.partition("=")[0] != change.partition("=")[0]]
    done = command(*arguments, change, cwd=real_study)
    assert done.returncode == 2
    assert key in done.stderr
    assert "study=real_2" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_only_the_model_can_tell_is_said_before_the_first_trial(tmp_path: Path) -> None:
    done = command(*STUDY, "lora.target_modules=all-linear,[q_prjo]", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "did you mean 'q_proj'?" in done.stderr
    assert not (tmp_path / "outputs" / "studies" / "real").exists()
