"""Which varied values made the difference."""

from __future__ import annotations

from pathlib import Path

from lorasweep.study.database import local_url
from lorasweep.study.importance import importances
from lorasweep.study.outcomes import State
from lorasweep.study.space import Choice, Interval, Space
from lorasweep.study.store import Store


def filled(tmp_path: Path, direction: str, trials: int = 40) -> Store:
    space = Space((Interval("optim.lr", 1e-4, 1e-2, log=True), Choice("lora.r", (8, 16, 64))))
    store = Store(local_url(tmp_path / "study.db"), "study", [direction], space)
    for index in range(trials):
        rate, rank = 10 ** (-4 + 2 * index / trials), (8, 16, 64)[index % 3]
        number = store.create({"optim.lr": rate, "lora.r": rank}, str(index), "sampled")
        value = 100 * rate + 1e-4 * rank
        store.finish(number, State.COMPLETE, [value if direction == "minimize" else -value], {})
    return store


def test_what_the_objective_follows_is_what_matters(tmp_path: Path):
    for direction in ("minimize", "maximize"):
        (tmp_path / direction).mkdir()
        found = importances(filled(tmp_path / direction, direction))
        assert list(found) == ["optim.lr", "lora.r"]
        assert found["optim.lr"] > 0.7
        assert abs(sum(found.values()) - 1) < 1e-9


def test_with_few_trials_nothing_is_said(tmp_path: Path):
    assert importances(filled(tmp_path, "minimize", 5)) == {}
