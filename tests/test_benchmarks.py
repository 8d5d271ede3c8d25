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
