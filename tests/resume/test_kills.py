"""Wherever a run is killed, going on with it gives what it would have given: every byte, every line, every dtype."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorasweep.checkpointing import TENSORS
from tests.conftest import tiny
from tests.resume.children import Kill, child, differing, killed, left_by, resumed_after, saved_before

COMMON = ("train.save_every=1", "evaluation.times=3", "lora.dropout=0.1", "quant=nf4")
PLAN = (*COMMON, "train.max_steps=6", "train.tokens_per_step=60", "train.batch_size=4")
CLASSIC = (*COMMON, "train.max_steps=6", "train.batch_size=2", "train.grad_accum=3")
"""Nineteen rows: four steps are an epoch, the last of them of a single row."""
IN_8_BIT = ("lora.r=64",)
"""Matrices of 4,096 elements, from where on 8-bit optimizers really hold 8 bits."""


def through(folder: Path, *overrides: str) -> dict[str, object]:
    """What the run leaves that nobody kills."""
    assert child(tiny(*overrides), folder / "through") == 0
    return left_by(folder / "through")


@pytest.mark.parametrize(
    ("overrides", "kill"),
    [(PLAN, Kill("forward", 8)), (CLASSIC, Kill("forward", 11)), (CLASSIC, Kill("flush", 12))],
    ids=["plan", "classic", "while saving"],
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(overrides: tuple[str, ...], kill: Kill, tmp_path: Path) -> None:
    folder = killed(tiny(*overrides), tmp_path / "killed", kill)
    assert differing(left_by(folder), through(tmp_path, *overrides)) == []


SETTINGS = {
    "fused": (*PLAN, "optim=adamw_torch_fused"),
    "adamw_8bit": (*PLAN, *IN_8_BIT, "optim=adamw_8bit"),
    "paged_adamw_32bit": (*PLAN, *IN_8_BIT, "optim=paged_adamw_32bit"),
    "paged_adamw_8bit": (*CLASSIC, *IN_8_BIT, "optim=paged_adamw_8bit"),
    "lion_8bit": (*PLAN, *IN_8_BIT, "optim=lion_8bit"),
    "paged_lion_32bit": (*PLAN, "optim=paged_lion_32bit"),
    "ademamix_8bit": (*PLAN, *IN_8_BIT, "optim.name=ademamix_8bit"),
    "rmsprop": (*PLAN, "optim.name=rmsprop"),
    "adagrad": (*PLAN, "optim.name=adagrad"),
    "adafactor": (*PLAN, "optim=adafactor"),
    "sgd": (*PLAN, "optim=sgd"),
    "packing": (*PLAN, "data.packing=true", "data.max_length=128"),
    "packing, classic": (*CLASSIC, "data.packing=true", "data.max_length=64", "train.grad_accum=1"),
    "padding free": (*CLASSIC, "train.padding_free=true"),
    "loaders": (*PLAN, "train.loader_workers=2"),
    "loaders, classic": (*CLASSIC, "train.loader_workers=2"),
    "by length": (*CLASSIC, "train.group_by_length=true"),
    "by length, loaders": (*CLASSIC, "train.group_by_length=true", "train.loader_workers=2"),
    "seldom logged": (*CLASSIC, "train.log_every=4", "scheduler=cosine", "scheduler.warmup=2"),
    "seldom saved": (*CLASSIC, "train.save_every=2", "evaluation.keep=last"),
    "stable then decay": (*PLAN, "scheduler=warmup_stable_decay", "optim.weight_decay=0.1"),
    "answers": (*PLAN, "evaluation.generate=3", "evaluation.max_new_tokens=4"),
    "dora": (*PLAN, "lora=dora"),
    "biases": (*PLAN, "lora.bias=all"),
    "pissa": (*PLAN, "quant=none", "lora.init=pissa"),
    "int8": (*PLAN, "quant=int8"),
    "checkpointing of activations": (*PLAN, "train.gradient_checkpointing=true"),
    "early stopping": (*PLAN, "train.max_steps=12", "evaluation.times=12", "train.early_stopping=2", "optim.lr=0.5"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_however_it_trains(name: str, tmp_path: Path) -> None:
    overrides = SETTINGS[name]
    folder = killed(tiny(*overrides), tmp_path / "killed", Kill("forward", 4), Kill("optimizer", 3))
    assert resumed_after(folder)[-1] >= 2
    assert differing(left_by(folder), through(tmp_path, *overrides)) == []


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [PLAN, CLASSIC], ids=["plan", "classic"])
def test_killed_in_every_forward_pass(overrides: tuple[str, ...], tmp_path: Path) -> None:
    resumed = killed_everywhere("forward", overrides, tmp_path)
    assert sorted(set(resumed)) == [0, 1, 2, 3, 4, 5]
    assert resumed == sorted(resumed)
    assert len(resumed) >= 12


def killed_everywhere(site: str, overrides: tuple[str, ...], place: Path) -> list[int]:
    """Kill a run after the first call at a site, another after the second, and so on; the steps they go on after."""
    run, whole, resumed = tiny(*overrides), through(place, *overrides), []
    while True:
        kill, folder = Kill(site, len(resumed) + 1), place / str(len(resumed))
        if child(run, folder, kill) == 0:
            return resumed
        saved = saved_before(kill, run, folder)
        assert child(run, folder) == 0
        assert resumed_after(folder) == [saved], kill
        assert differing(left_by(folder), whole) == [], kill
        resumed.append(saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("site", "steps", "after", "least"),
    [("optimizer", 6, [0, 1, 2, 3, 4, 5], 6), ("evaluation", 6, [0, 1, 3, 5], 4), ("flush", 3, [0, 1, 2], 24)],
    ids=["update", "evaluation", "saving"],
)
def test_killed_at_every_other_place(site: str, steps: int, after: list[int], least: int, tmp_path: Path) -> None:
    resumed = killed_everywhere(site, (*PLAN, f"train.max_steps={steps}"), tmp_path)
    assert sorted(set(resumed)) == after
    assert resumed == sorted(resumed)
    assert len(resumed) >= least


@pytest.mark.slow
def test_five_kills_in_one_run(tmp_path: Path) -> None:
    overrides = (*CLASSIC, "train.max_steps=10")
    kills = [Kill("forward", 4), Kill("flush", 11), Kill("evaluation", 1), Kill("optimizer", 2), Kill("forward", 6)]
    folder = killed(tiny(*overrides), tmp_path / "killed", *kills)
    assert differing(left_by(folder), through(tmp_path, *overrides)) == []
    assert resumed_after(folder) == [1, 2, 2, 3, 5], "steps have 3, 3, 3 and 1 passes; the third is evaluated"


def test_states_of_8_bits_are_8_bits_in_a_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    overrides = (*PLAN, *IN_8_BIT, "optim=adamw_8bit")
    assert child(tiny(*overrides), tmp_path / "run", Kill("forward", 5)) != 0
    (checkpoint,) = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[-1:]
    tensors = load_file(checkpoint / TENSORS)
    kinds = {str(value.dtype) for name, value in tensors.items() if name.endswith("/state1")}
    assert "torch.uint8" in kinds
    assert {str(value.dtype) for name, value in tensors.items() if name.startswith("parameter/")} == {"torch.float32"}
