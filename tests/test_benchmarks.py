"""Benchmarks that need no training keep working: what they share with the study engine may change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorasweep.study.settings import Settings
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])


@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_a_search_is_replayed_from_the_table(pruner: str) -> None:
    from search_quality import TABLE, Table, regret_at, replay

    table = Table(TABLE)
    assert len(table.curves) >= 500
    history = list(replay(table, Settings(sampler="random", pruner=pruner, n_trials=1), 6.0))
    spent = [cost for cost, _ in history]
    assert spent == sorted(spent)
    assert spent[-1] >= 6.0
    assert (len(history) == 6) is (pruner == "none"), "with asha, trials that end early leave room for others"
    assert regret_at(history, 6.0) >= 0.0


def test_slots_of_a_study_that_pretends_to_train_are_refilled() -> None:
    from idle_slots import measure

    found = measure(2, 6, 3, 0.2, "random")
    assert found["seconds"] > 0.2
    assert found["idle"] > 0.0, "nothing was refilled"
    assert found["batches"] >= 1.0


def test_kernels_are_put_into_classes_and_gaps_between_them_counted() -> None:
    from kernel_classes import busy, class_of, product_of

    assert busy([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert class_of("triton_poi_fused__to_copy_attention_mul_3") == "compiled"
    assert class_of("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<…>") == "attention"
    assert class_of("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>") == "dequantise"
    assert class_of("nvjet_tst_256x128_64x4_2x1_v_bz_coopA_TNT") == "matrix products"
    assert class_of("void at::native::(anonymous namespace)::fused_adam_kernel") == "optimizer, norms"
    assert product_of([[8192, 16], [16, 4096]], 16, 32000) == "LoRA"
    assert product_of([[8192, 4096], [4096, 11008]], 16, 32000) == "base"
    assert product_of([[8192, 4096], [4096, 32000]], 16, 32000) == "logits"


def test_curves_of_one_seed_are_compared_beside_those_of_two() -> None:
    from gpu_quality import compare

    losses = {("ours", 1): 1.0, ("TRL", 1): 1.1, ("ours", 2): 2.0, ("TRL", 2): 2.3}
    found = [
        {"arm": arm, "seed": seed, "losses": [value] * 4, "eval_loss": value} for (arm, seed), value in losses.items()
    ]
    distances = compare(found, 2)
    assert distances["train loss, ours to TRL, same seed, max"] == pytest.approx(0.3)
    assert distances["eval loss, ours to TRL, same seed, fmean"] == pytest.approx(0.2)
    assert distances["eval loss, TRL to TRL, two seeds, max"] == pytest.approx(1.2)


def _ended(folder: Path, tensors: dict[str, torch.Tensor], losses: list[float]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "end.safetensors")
    lines = [json.dumps({"step": step, "train/loss": loss}) for step, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def test_a_bit_that_differs_after_going_on_is_found_and_named(tmp_path: Path) -> None:
    from gpu_resume import compared, verdict

    tensors = {"parameter/a": torch.ones(4), "optimizer/a/state1": torch.ones(4, dtype=torch.uint8)}
    one = _ended(tmp_path / "one", tensors, [2.0, 1.0])
    assert verdict(compared(one, _ended(tmp_path / "same", tensors, [2.0, 1.0]))) == "same 2 tensors"
    other = tensors | {"parameter/a": torch.tensor([1.0, 1.0, 1.0, 1.0 + 2**-23])}
    found = verdict(compared(one, _ended(tmp_path / "other", other, [2.0, 1.0])))
    assert found == "1 of 2 (1 adapter, 0 optimizer), up to 1.2e-07 in parameter/a"
    found = verdict(compared(one, _ended(tmp_path / "later", other, [2.0, 1.5])))
    assert found.endswith(", from step 2")
    retyped = tensors | {"parameter/a": torch.ones(4, dtype=torch.bfloat16)}
    assert "torch.bfloat16" in verdict(compared(one, _ended(tmp_path / "retyped", retyped, [2.0, 1.0])))


def test_an_arm_that_fails_is_a_line_of_the_table() -> None:
    from gpu_resume import attempt, table

    def fail() -> dict[str, object]:
        raise RuntimeError("exit code 1: out of memory")

    failed = {"work": "random", "optimizer": "adamw_8bit", "deterministic": True, **attempt(fail)}
    assert "failed: RuntimeError: exit code 1: out of memory" in table(
        {"arms": [failed], "cost": {"random": attempt(fail)}}
    )
