"""What cannot be where rows are read as they come is said at the command line."""

from __future__ import annotations

import pytest

from tests.conftest import composed, problems

ENOUGH = ("train.max_tokens=1000", "train.tokens_per_step=100", "data.eval_rows=4")


def streamed(*overrides: str) -> tuple[str, ...]:
    return ("model=tiny", "data=jsonl", "data.files=docs/rows.jsonl", "data.streaming=true", *overrides)


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import ROOT

    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "budget",
    [
        ENOUGH,
        ("train.max_steps=5", "data.eval_rows=4"),
        ("train.max_steps=5", "data.eval_fraction=0"),
        ("train.max_steps=5", "data.eval_files=docs/rows.jsonl", "data.test_rows=3"),
        (
            "train.max_steps=5",
            "train.tokens_per_step=64",
            "data.max_length=64",
            "data.packing=true",
            "data.eval_rows=1",
        ),
    ],
    ids=" ".join,
)
def test_a_budget_and_rows_to_evaluate_are_enough(budget: tuple[str, ...]) -> None:
    assert composed(*streamed(*budget)).data.streaming


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (("data.eval_rows=4",), "train.max_tokens", "a number of supervised tokens, or train.max_steps"),
        (("data.eval_rows=4", "train.epochs=3"), "train.max_tokens", "epochs end nothing"),
        (("train.max_steps=5",), "data.eval_fraction", "0, or data.eval_rows=200 for the first 200 rows"),
        ((*ENOUGH, "data.test_fraction=0.1"), "data.test_fraction", "data.test_rows=200"),
        (("train.max_tokens=900", "data.eval_rows=4"), "train.tokens_per_step", "train.max_tokens needs it"),
        (("train.max_steps=5", "data.eval_rows=4", "data.packing=true"), "train.tokens_per_step", "data.packing needs"),
        ((*ENOUGH, "train.tokens_per_step=auto"), "train.tokens_per_step", "nor their mean"),
        ((*ENOUGH, "data.max_length=200"), "train.tokens_per_step", "at least data.max_length=200"),
        (("train.max_steps=5", "data.eval_rows=4", "train.group_by_length=true"), "train.group_by_length", "false"),
        ((*ENOUGH, "data.num_proc=4"), "data.num_proc", "null"),
        ((*ENOUGH, "train.loader_workers=2"), "train.loader_workers", "0 or 1"),
        ((*ENOUGH, "data.eval_files=docs/rows.jsonl"), "data.eval_rows", "null: all rows of data.eval_files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_takes_all_rows_to_know_is_refused(overrides: tuple[str, ...], key: str, words: str) -> None:
    (problem,) = problems(*streamed(*overrides))
    assert problem.key == key
    assert words in problem.allowed


def test_rows_of_the_generator_are_not_streamed() -> None:
    found = problems("model=tiny", "data=demo", "data.streaming=true", "train.max_steps=5", "data.eval_rows=4")
    assert [problem.key for problem in found] == ["data.streaming"]


def test_a_split_of_the_hub_is_taken_up_to_a_number_of_rows() -> None:
    hub = ("model=tiny", "data=alpaca", "data.streaming=true", "train.max_steps=5", "data.eval_split=test")
    (problem,) = problems(*hub)
    assert (problem.key, problem.value) == ("data.eval_rows", None)
    assert composed(*hub, "data.eval_rows=50").data.eval_rows == 50


def test_a_number_of_rows_is_for_streaming() -> None:
    (problem,) = problems("model=tiny", "data=demo", "data.eval_rows=4")
    assert problem.key == "data.eval_rows"
    assert "data.streaming=true" in problem.allowed
