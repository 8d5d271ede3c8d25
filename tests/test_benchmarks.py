"""Benchmarks that need no training keep working: what they share with the study engine may change."""

from __future__ import annotations

import sys

import pytest

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
