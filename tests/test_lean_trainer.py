"""The lean loop takes the steps of TRL's own, bit for bit, and walks no parameters for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer

from lorasweep import metrics
from tests.conftest import tiny
from tests.test_numerics import parts

LAYOUTS = {
    "rows as they come": ("train.batch_size=3", "train.grad_accum=2"),
    "packed": ("data.packing=true", "data.max_length=128"),
    "steps of constant tokens": ("train.tokens_per_step=60", "train.batch_size=2", "optim=paged_adamw_8bit"),
    "unclipped": ("train.max_grad_norm=null", "lora.dropout=0.1", "train.log_every=2"),
    "checkpointed": ("train.gradient_checkpointing=true", "train.max_grad_norm=0.01"),
}


@pytest.mark.parametrize("options", [
    pytest.param(options, id=name, marks=pytest.mark.slow if name in ("packed", "checkpointed") else [])
    for name, options in LAYOUTS.items()
])  # fmt: skip
def test_steps_are_those_of_trl_to_the_bit(options: tuple[str, ...], launched: Callable[..., Path]) -> None:
    common = ("train.max_steps=4", "evaluation.times=2", *options)
    lean, plain = (launched(tiny(*common, f"train.lean={lean}"), str(lean)) for lean in (True, False))
    dropped = ("seconds", "tokens/per_second")
    left, right = (
        [
            {name: value for name, value in entry.items() if name not in dropped and "memory" not in name}
            for entry in entries
        ]
        for entries in (list(metrics.read(lean)), list(metrics.read(plain)))
    )
    assert left == right
    assert all(entry["train/entropy"] > 0 for entry in left if "train/loss" in entry)
    one, other = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (lean, plain))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_step_walks_the_modules_once_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[int] = []
    walk = torch.nn.Module.named_modules

    def counted(self: torch.nn.Module, memo: Any = None, *arguments: Any, **options: Any) -> Any:
        walks[-1] += memo is None and self is trainer.model
        return walk(self, memo, *arguments, **options)

    class Count:
        def __init__(self, trainer: Trainer) -> None:
            self.step = trainer.training_step

        def __call__(self, *arguments: Any, **options: Any) -> Any:
            walks.append(0)
            return self.step(*arguments, **options)

    for lean in (True, False):
        trainer, _, _ = parts(tiny("train.max_steps=4", f"train.lean={lean}"), tmp_path / str(lean))
        walks[:] = [0]
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "training_step", Count(trainer))
            patch.setattr(torch.nn.Module, "named_modules", counted)
            trainer.train()
        assert (max(walks[2:4]) == 0) == lean


@pytest.mark.parametrize("lean", [True, False])
def test_every_layer_is_in_training_mode_though_nothing_was_scored_before(lean: bool, tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny("train.max_steps=1", f"train.lean={lean}"), tmp_path)
    assert not trainer.model.get_base_model().training, "as it was loaded"
    trainer.train()
    assert all(module.training for module in trainer.model.modules())
