"""A study's search as a W&B sweep: whatever an agent is given, it trains what the study would."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorasweep import compose
from lorasweep.rules import UserError
from lorasweep.study.definition import FREE, Definition, Search, flat
from lorasweep.study.space import Choice, Interval
from lorasweep.tracking.sweep_file import SweepFile, fixed_overrides, parameter, sweep_file
from tests.conftest import ROOT, composed
from tests.study.trials import kept


def defined(*overrides: str) -> Definition:
    """The study of a command line."""
    compose.register()
    return compose.checked_study(ROOT / "conf", compose.CommandLine.of(["--multirun", *overrides]))[1]


def swept(folder: Path, *overrides: str) -> tuple[dict[str, Any], SweepFile, Definition]:
    """The sweep of a study with this command line, and both."""
    definition = defined(*overrides)
    store = kept(folder / "first", definition, directions=definition.directions())
    store.keep("search", json.loads(json.dumps(definition.search())))
    store.close()
    file = sweep_file(folder / "first", None, "first.yaml")
    return yaml.safe_load(file.text), file, definition


def corners(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """What agents may be given: of each parameter first the lowest, then the highest."""
    values = [given.get("values") or [given["min"], given["max"]] for given in sweep["parameters"].values()]
    return [{key: ends[index] for key, ends in zip(sweep["parameters"], values, strict=True)} for index in (0, -1)]


def command_of(sweep: dict[str, Any], arguments: dict[str, Any]) -> list[str]:
    """The command line that W&B's agent makes of it, as wandb.sdk.launch.sweeps.utils does."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    made = create_sweep_command_args({"args": {key: {"value": value} for key, value in arguments.items()}})
    assert sweep["command"][:3] == ["${env}", "python", "train.py"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
    return [*sweep["command"][3:-1], *made["args_no_hyphens"]]


def trained(run: dict[str, Any]) -> dict[str, Any]:
    return flat({name: value for name, value in run.items() if name not in FREE})


STUDIES = [
    ["study=first", "model=tiny", "strategy=tpe", "space=[qlora,learning_rate]", "data.limit=60"],
    ["study=first", "strategy=asha", "space=[optimizer,schedule]", "train.max_steps=9", "tracking.project=mine"],
    [
        "study=first",
        "strategy=random",
        "lora.r=range(8,65,8)",
        "scheduler.warmup=range(0.05,0.2,0.05)",
        "lora.alpha=int(tag(log,interval(8,128)))",
        "lora.dropout=interval(0.0,0.1)",
        "lora.target_modules=all-linear,[q_proj,v_proj]",
        "train.max_grad_norm=null,1.0",
    ],
    [
        "study=first",
        "lora.r=8,16",
        "data.packing=true,false",
        "scheduler=cosine,cosine_with_min_lr",
        "train.tokens_per_step=auto",
    ],
    ["study=first", "experiment=demo_study"],
    ["study=first", "model=tiny", "lora=attention", "scheduler=cosine_with_min_lr", "optim.lr=1e-3,1e-4", "quant=fp4"],
]


SOME = [*STUDIES[:1], STUDIES[2], *(pytest.param(item, marks=pytest.mark.slow) for item in (STUDIES[1], *STUDIES[3:]))]


@pytest.mark.parametrize("overrides", SOME, ids=lambda overrides: " ".join(overrides[1:]))
def test_an_agent_trains_what_the_study_would(overrides: list[str], tmp_path: Path) -> None:
    sweep, _, definition = swept(tmp_path, *overrides)
    space = {dimension.key: dimension for dimension in definition.space}
    for arguments in corners(sweep):
        run = composed(*command_of(sweep, arguments))
        read = {key: item.value() for key, item in _parsed(arguments).items()}
        assert all(space[key].holds(value) for key, value in read.items()), arguments
        assert trained(asdict(run)) == trained(definition.compose(read).run)


def _parsed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as Hydra reads them."""
    line = compose.CommandLine.of([f"{key}={value}" for key, value in arguments.items()])
    return {item.key_or_group: item for item in line.overrides}


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (Interval("a", 1e-5, 1e-3, log=True), {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}),
        (Interval("a", 0, 1), {"distribution": "uniform", "min": 0.0, "max": 1.0}),
        (Interval("a", 8, 64, is_int=True), {"distribution": "int_uniform", "min": 8, "max": 64}),
        (Interval("a", 8, 64, 8.0, is_int=True), {"distribution": "q_uniform", "min": 8, "max": 64, "q": 8}),
        (Interval("a", 0.1, 0.35, 0.1), {"distribution": "q_uniform", "min": 0.1, "max": 0.3, "q": 0.1}),
        (Interval("a", 1, 9, 4.0, is_int=True), {"values": [1, 5, 9]}),
        (
            Interval("a", 8, 128, log=True, is_int=True),
            {"distribution": "q_log_uniform_values", "min": 8, "max": 128, "q": 1},
        ),
        (Choice("a", (1, 2.5, True, None, "x", "null", [1, "y"])), {"values": [1, 2.5, True, "null", "x", "'null'", "[1,y]"]}),
    ],
)  # fmt: skip
def test_every_dimension_has_its_distribution(dimension: Choice | Interval, expected: dict[str, Any]) -> None:
    assert parameter(dimension, "bayes") == expected


def test_a_grid_has_values_alone() -> None:
    assert parameter(Interval("a", 8, 24, 8.0, is_int=True), "grid") == {"values": [8, 16, 24]}


def test_method_metric_goal_and_cap_are_those_of_the_study(tmp_path: Path) -> None:
    sweep, _, _ = swept(tmp_path, *STUDIES[0], "evaluation.objective=exact_match", "evaluation.generate=4")
    assert (sweep["name"], sweep["project"], sweep["method"], sweep["run_cap"]) == ("first", "lorasweep", "bayes", 30)
    assert sweep["metric"] == {"name": "objective", "goal": "maximize"}
    assert "early_terminate" not in sweep


def test_asha_becomes_hyperband_over_what_every_evaluation_logs(tmp_path: Path) -> None:
    sweep, _, _ = swept(tmp_path, *STUDIES[1])
    assert sweep["metric"] == {"name": "eval/loss", "goal": "minimize"}
    assert sweep["early_terminate"] == {"type": "hyperband", "min_iter": 2, "eta": 3}  # untuned, and a quarter of four


def test_what_w_and_b_cannot_do_is_said_in_the_file(tmp_path: Path) -> None:
    _, file, _ = swept(tmp_path, *STUDIES[1])
    assert "scheduler.warmup varies here always; in the study only if scheduler is linear or cosine" in file.notes
    assert all(f"# {note}\n" in file.text for note in file.notes)
    assert file.text.startswith("# wandb sweep first.yaml")


def test_fixed_overrides_leave_out_what_varies(tmp_path: Path) -> None:
    definition = defined("study=x", "model=tiny", "scheduler=linear,cosine", "scheduler.warmup=0.1", "lora.r=8,16")
    fixed = fixed_overrides(Search.of(definition.search()))
    assert "scheduler.warmup=0.1" in fixed
    assert not [text for text in fixed if text.startswith(("scheduler=", "lora.r=", "study=", "name=", "tracking."))]


def test_a_study_without_a_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a study that searches a space"):
        swept(tmp_path, "study=first", "strategy=grid")
