"""The silent bugs of the stock stack and of the tutorials: each is shown to bite, and not to be in our runs."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import has_avx512bf16
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerState, set_seed

from lorasweep import lora, metrics
from lorasweep.data import build_datasets
from lorasweep.device import Device
from lorasweep.divergence import Diverged, StopOnNonFinite
from lorasweep.evaluation import Evaluator, pad_right
from lorasweep.model import build_config, build_model, build_tokenizer, context_length
from lorasweep.packing import check_parity
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.record import data_seed
from lorasweep.rules import UserError
from lorasweep.schema import Run
from lorasweep.steps import build_plan
from lorasweep.trainer import build_trainer
from tests.conftest import tiny

CPU = Device("cpu", "", 1.0, torch.float32)


def parts(run: Run, folder: Path) -> tuple[Any, Any, Any]:
    """Trainer, tokenizer and splits of a run, as `run` puts them together."""
    tokenizer = build_tokenizer(run.model)
    splits = build_datasets(run.data, tokenizer, context_length(build_config(run.model)))
    model = build_model(run.model, build_quantization(run.quant, CPU), CPU)
    keep_gradients_on_cpu(model)
    adapted = lora.add_adapter(model, lora.build_adapter(run.lora), run.train.seed)
    plan = build_plan(run.train, splits["train"].rows, data_seed(run))
    return build_trainer(run, adapted, tokenizer, splits["train"], plan, CPU, folder), tokenizer, splits


def train_losses(folder: Path) -> list[float]:
    return [entry["train/loss"] for entry in metrics.read(folder) if "train/loss" in entry]


def test_the_adapter_is_trained_in_float32_as_it_was_initialised(tmp_path: Path) -> None:
    run = tiny("quant=nf4")
    trainer, _, _ = parts(run, tmp_path)
    model = build_model(run.model, build_quantization(run.quant, CPU), CPU)
    fresh = lora.values(lora.add_adapter(model, lora.build_adapter(run.lora), run.train.seed))
    for name, value in lora.trainable(trainer.model).items():
        assert value.dtype == torch.float32
        assert torch.equal(value, fresh[name]), "not the values that were drawn: TRL's rounding to bfloat16 went in"


def test_trl_alone_would_have_rounded_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "put_back", lambda model, saved: None)
    trainer, _, _ = parts(tiny("quant=nf4"), tmp_path)
    assert {value.dtype for value in lora.trainable(trainer.model).values()} == {torch.bfloat16}


def test_optimizer_state_and_saved_adapter_are_float32(launched: Callable[..., Path]) -> None:
    folder = launched(tiny("quant=nf4", "train.max_steps=2", "train.save_every=1"))
    assert {value.dtype for value in load_file(folder / "adapter" / "adapter_model.safetensors").values()} == {
        torch.float32
    }
    state = load_file(folder / "checkpoints" / "step-000001" / "tensors.safetensors")
    assert {value.dtype for name, value in state.items() if name.endswith("/exp_avg_sq")} == {torch.float32}


def gradient_norm(model: Any, batch: dict[str, torch.Tensor]) -> float:
    model.zero_grad()
    model(**batch).loss.backward()
    return math.sqrt(sum(float(value.grad.double().square().sum()) for value in lora.trainable(model).values()))


def norms_around_an_evaluation(folder: Path) -> tuple[float, float]:
    trainer, tokenizer, splits = parts(tiny("quant=nf4"), folder)
    model = trainer.model
    for value in lora.trainable(model).values():
        torch.nn.init.constant_(value, 0.05)
    rows = splits["train"].rows.select_columns(["input_ids", "labels"]).to_list()[:2]
    batch = pad_right(rows, tokenizer.pad_token_id, "cpu")
    before = gradient_norm(model, batch)
    model.eval()
    with torch.no_grad():
        model(**batch)
    model.train()
    return before, gradient_norm(model, batch)


def test_gradients_pass_4bit_layers_after_an_evaluation(tmp_path: Path) -> None:
    before, after = norms_around_an_evaluation(tmp_path)
    assert after == before > 0


def test_on_cpus_with_avx512_bf16_bitsandbytes_alone_loses_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_numerics.keep_gradients_on_cpu", lambda model: None)
    before, after = norms_around_an_evaluation(tmp_path)
    assert (after != before) == has_avx512bf16()


@pytest.mark.parametrize("split", [(4, 1), (2, 2), (1, 4)])
def test_the_loss_is_the_mean_over_supervised_tokens_of_the_whole_step(
    split: tuple[int, int], launched: Callable[..., Path]
) -> None:
    batch, accumulation = split
    common = ("model.dtype=float32", "quant=none", "train.max_steps=3", "train.max_grad_norm=null")
    whole = train_losses(launched(tiny(*common, "train.batch_size=4"), "whole"))
    parted = launched(tiny(*common, f"train.batch_size={batch}", f"train.grad_accum={accumulation}"), "parted")
    assert train_losses(parted) == pytest.approx(whole, rel=1e-5)


def test_evaluation_does_not_shift_dropout_or_the_order_of_rows(launched: Callable[..., Path]) -> None:
    common = ("train.max_steps=4", "lora.dropout=0.2")
    never = launched(tiny(*common, "evaluation.times=0", "evaluation.untuned=false"), "never")
    often = launched(tiny(*common, "evaluation.times=4", "evaluation.generate=3", "evaluation.keep=last"), "often")
    assert train_losses(often) == train_losses(never)
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (never, often))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(launched: Callable[..., Path]) -> None:
    folders = [
        launched(tiny("train.max_steps=2", f"train.seed={seed}"), name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = ((folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one == same != other


def test_the_adapter_starts_the_same_whatever_was_drawn_before() -> None:
    run = tiny("quant=none")
    starts = []
    for draws in (0, 7):
        set_seed(draws)
        torch.rand(draws)
        model = build_model(run.model, None, CPU)
        starts.append(lora.values(lora.add_adapter(model, lora.build_adapter(run.lora), 5)))
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


class Poison(TrainerCallback):
    """Puts a value into one gradient of one step, in its backward pass."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value = step, value

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        first = next(item for item in kwargs["model"].parameters() if item.requires_grad)
        if state.global_step + 1 == self.step:
            self.hook = first.register_hook(lambda gradient: torch.full_like(gradient, self.value))
        elif state.global_step == self.step:
            self.hook.remove()


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize(
    ("value", "options"),
    [
        (float("nan"), ()), (float("inf"), ()), (float("nan"), ("train.tokens_per_step=200",)),
        (float("nan"), ("train.max_grad_norm=null",)),
    ],
)  # fmt: skip
def test_a_gradient_that_is_not_finite_stops_before_the_update(
    value: float, options: tuple[str, ...], lean: bool, tmp_path: Path
) -> None:
    trainer, _, _ = parts(tiny("train.max_steps=4", f"train.lean={lean}", *options), tmp_path)
    trainer.add_callback(Poison(2, value))
    with pytest.raises(Diverged) as stopped:
        trainer.train()
    assert stopped.value.step == 2
    assert all(torch.isfinite(parameter).all() for parameter in lora.trainable(trainer.model).values())


def test_without_the_guard_the_adapter_would_be_spoilt(tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny("train.max_steps=4", "train.lean=false"), tmp_path)
    trainer.remove_callback(StopOnNonFinite)
    trainer.add_callback(Poison(2, float("nan")))
    trainer.train()
    assert not all(torch.isfinite(parameter).all() for parameter in lora.trainable(trainer.model).values())


def test_a_run_that_diverges_says_so_and_keeps_its_folder(launched: Callable[..., Path]) -> None:
    folder = launched(
        tiny("optim.lr=1e38", "optim=sgd", "train.max_steps=6", "evaluation.untuned=false"), expect="diverged"
    )
    assert "not finite" in (folder / "summary.json").read_text()
    assert not (folder / "adapter").exists()


def test_a_loss_scaler_that_leaves_out_every_step_is_divergence() -> None:
    optimizer = type("Optimizer", (), {"step_was_skipped": True})()
    guard = StopOnNonFinite(scales_loss=True)
    for step in range(1, 4):
        guard.on_step_end(None, TrainerState(global_step=step), None, optimizer=optimizer)
    with pytest.raises(Diverged):
        guard.on_train_end(None, TrainerState(global_step=3), None)
    guard.skipped = StopOnNonFinite.MOST_SKIPPED - 1
    with pytest.raises(Diverged):
        guard.on_step_end(None, TrainerState(global_step=40), None, optimizer=optimizer)
    optimizer.step_was_skipped = False
    guard.on_step_end(None, TrainerState(global_step=41), None, optimizer=optimizer)
    guard.on_train_end(None, TrainerState(global_step=41), None)
    assert guard.skipped == 0


def test_skipped_steps_of_a_loss_scaler_are_no_divergence() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([float("inf"), 0.0])
    model = torch.nn.Module()
    model.weight = parameter
    state = type("State", (), {"global_step": 0})()
    StopOnNonFinite(scales_loss=True).on_pre_optimizer_step(None, state, None, model=model)
    with pytest.raises(Diverged):
        StopOnNonFinite(scales_loss=False).on_pre_optimizer_step(None, state, None, model=model)


def test_a_loss_that_is_not_finite_is_never_filtered_away(tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny(), tmp_path)
    assert trainer.args.logging_nan_inf_filter is False
    with pytest.raises(Diverged):
        StopOnNonFinite(scales_loss=True).on_log(
            None, type("S", (), {"global_step": 3})(), None, logs={"loss": float("nan")}
        )


def test_packed_rows_give_every_token_the_loss_it_has_alone(tmp_path: Path) -> None:
    trainer, tokenizer, splits = parts(tiny("data.packing=true", "data.max_length=128", "quant=none"), tmp_path)
    packed = trainer.train_dataset
    assert len(packed) < len(splits["train"].rows)
    assert "seq_lengths" in packed.column_names
    model, alone = trainer.model.eval(), {}
    with torch.no_grad():
        for row in splits["train"].rows:
            batch = pad_right([row], tokenizer.pad_token_id, "cpu")
            alone[tuple(row["input_ids"])] = model(**batch, fused_lm_head=True).log_probs[0]
        for row in packed:
            batch = trainer.data_collator([row])
            assert "attention_mask" not in batch
            log_probs = model(**batch, fused_lm_head=True, use_cache=False).log_probs[0]
            start = 0
            for length in row["seq_lengths"]:
                ids = tuple(row["input_ids"][start : start + length])
                assert torch.allclose(log_probs[start : start + length - 1], alone[ids], atol=1e-5)
                start += length


def test_a_model_that_leaks_between_packed_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tiny("data.packing=true", "data.max_length=128", "quant=none")
    trainer, _, _ = parts(run, tmp_path)
    check_parity(trainer, CPU)
    collate = trainer.data_collator

    def leaky(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        return {"input_ids": batch["input_ids"], "labels": batch["labels"]}

    trainer.data_collator = leaky
    with pytest.raises(UserError, match="see each other"):
        check_parity(trainer, CPU)


def test_a_packed_run_passes_the_gate_without_shifting_anything(
    launched: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny("data.packing=true", "data.max_length=128", "lora.dropout=0.2", "train.max_steps=2")
    gated = train_losses(launched(run, "gated"))
    monkeypatch.setattr("lorasweep.run.check_parity", lambda trainer, device: None)
    assert train_losses(launched(run, "ungated")) == gated


def test_evaluation_rows_are_never_packed(tmp_path: Path) -> None:
    trainer, tokenizer, splits = parts(tiny("data.packing=true", "data.max_length=128"), tmp_path)
    assert trainer.args.eval_packing is False
    scores = Evaluator(splits["eval"].rows, tokenizer, tiny().evaluation, CPU)(trainer.model)
    assert len(scores.row_losses) == len(splits["eval"].rows)


def test_padding_is_an_existing_token_other_than_eos_and_embeddings_keep_their_size(tmp_path: Path) -> None:
    trainer, tokenizer, _ = parts(tiny(), tmp_path)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (
        tokenizer.pad_token_id
        < trainer.model.get_input_embeddings().weight.shape[0]
        == build_config(tiny().model).vocab_size
    )


def test_the_stop_token_is_learnt_in_every_row(tmp_path: Path) -> None:
    _, tokenizer, splits = parts(tiny(), tmp_path)
    for row in splits["train"].rows:
        assert tokenizer.eos_token_id in [label for label in row["labels"] if label >= 0]


def test_paged_and_8bit_optimizers_run_on_a_cpu(launched: Callable[..., Path]) -> None:
    for optim in ("paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit", "lion_8bit"):
        losses = train_losses(launched(tiny(f"optim={optim}", "optim.lr=1e-2", "train.max_steps=4"), optim))
        assert losses[-1] < losses[0]


def test_checkpointing_changes_nothing_but_memory(launched: Callable[..., Path], tmp_path: Path) -> None:
    common = ("train.max_steps=3", "lora.dropout=0.1")
    for wanted in (False, True):
        trainer, _, _ = parts(tiny(f"train.gradient_checkpointing={wanted}"), tmp_path / str(wanted))
        assert trainer.args.activation_checkpointing is wanted
    kept = launched(tiny(*common, "train.gradient_checkpointing=false"), "kept")
    again = launched(tiny(*common, "train.gradient_checkpointing=true"), "again")
    assert train_losses(again) == train_losses(kept)


def test_padding_free_batches_give_the_same_losses(launched: Callable[..., Path], tmp_path: Path) -> None:
    common = ("train.max_steps=3", "quant=none")
    trainer, _, _ = parts(tiny(*common, "train.padding_free=true"), tmp_path / "parts")
    assert "attention_mask" not in trainer.data_collator(list(trainer.train_dataset.select(range(2))))
    padded = launched(tiny(*common), "padded")
    flat = launched(tiny(*common, "train.padding_free=true"), "flat")
    assert train_losses(flat) == pytest.approx(train_losses(padded), rel=1e-5)


@pytest.mark.parametrize(("quant", "adapter"), [
    *((quant, "default") for quant in ("nf4", "nf4_double", "fp4", "int8", "none")),
    ("nf4", "dora"), ("none", "dora"), ("nf4", "rslora"), ("int8", "rslora"),
])  # fmt: skip
def test_every_quantisation_learns_with_every_adapter(quant: str, adapter: str, launched: Callable[..., Path]) -> None:
    losses = train_losses(
        launched(tiny(f"quant={quant}", f"lora={adapter}", "train.max_steps=6", "evaluation.times=0"))
    )
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("init", ["gaussian", "olora", "orthogonal", "pissa"])
def test_every_start_of_the_adapter_trains(init: str, launched: Callable[..., Path]) -> None:
    quant = "nf4" if init == "gaussian" else "none"
    folder = launched(tiny(f"lora.init={init}", f"quant={quant}", "lora.r=4", "train.max_steps=6"))
    assert train_losses(folder)[-1] < train_losses(folder)[0]
