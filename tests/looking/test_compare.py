"""lorasweep compare: what differs, which is better, how sure that is, and what makes it unfair."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lorasweep.comparison import Comparison
from lorasweep.paired import RowScores, paired_difference
from lorasweep.study.folder import STUDIES
from lorasweep.study.outcomes import State
from tests.looking.conftest import Command
from tests.looking.made import TOKENS, made
from tests.study.trials import kept

RUNS = Path("outputs/runs")
FIRST = (1.0, 1.2, 0.8, 1.0, 1.1, 0.9)
BETTER = (0.88, 1.0, 0.7, 0.93, 0.95, 0.85)
OTHER_EVALUATION = {"data/splits/eval/sha256": "other"}
Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def compared(lorasweep: Command) -> Compare:
    """What `compare a b --json` says of two runs made as asked, the second with losses of its own."""

    def compare(first: dict[str, Any] | None = None, **second: Any) -> dict[str, Any]:
        made(RUNS / "a", FIRST, **(first or {}))
        made(RUNS / "b", second.pop("losses", BETTER), **second)
        found: dict[str, Any] = lorasweep("compare", "a", "b", "--json").json()
        return found

    return compare


def metric(known: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in known["metrics"] if item["name"] == name)


@pytest.mark.parametrize(
    ("option", "value"),
    [("lora__r", 64), ("optim__lr", 1e-3), ("train__max_grad_norm", None), ("data__packing", True),
     ("scheduler__kwargs", {"num_cycles": 2}), ("lora__target_modules", ["q_proj"]), ("quant__method", "fp4")],
)  # fmt: skip
def test_one_option_that_was_changed_is_the_one_that_is_named(compared: Compare, option: str, value: Any):
    (found,) = compared(**{option: value})["config"]
    key = option.replace("__", ".") + (".num_cycles" if isinstance(value, dict) else "")
    assert found["key"] == key
    assert found["values"][1] == (2 if isinstance(value, dict) else value)
    assert found["has_effect"]


def test_with_a_scale_the_rank_alone_differs(compared: Compare):
    (found,) = compared({"lora__scale": 2.0}, lora__scale=2.0, lora__r=64)["config"]
    assert found["key"] == "lora.r"


@pytest.mark.parametrize(
    "both",
    [{"scheduler__name": "constant", "scheduler__warmup": 0.1},
     {"lora__scale": 2.0, "lora__alpha": 7.0},
     {"evaluation__max_new_tokens": 7}],
)  # fmt: skip
def test_what_differs_without_effect_is_said_to(compared: Compare, lorasweep: Command, both: dict[str, Any]):
    *shared, (last, value) = both.items()
    (found,) = compared(dict(shared), **{**dict(shared), last: value})["config"]
    assert not found["has_effect"]
    out = lorasweep("compare", "a", "b").out
    assert "nothing that changes what is trained" in out
    assert f"without effect: {last.replace('__', '.')}" in out


def test_a_value_that_has_an_effect_in_one_of_the_runs_counts(compared: Compare):
    found = compared({"scheduler__name": "constant", "scheduler__warmup": 0.1}, scheduler__name="cosine")["config"]
    assert {item["key"]: item["has_effect"] for item in found} == {"scheduler.name": True, "scheduler.warmup": True}


def test_the_name_and_where_a_run_is_tracked_are_no_difference(compared: Compare):
    assert compared(name="other", tracking__project="mine", verbosity="quiet")["config"] == []


def test_the_better_number_is_marked_by_what_it_is(compared: Compare, lorasweep: Command):
    facts = {"memory/peak_gib": 2.0, "tokens/per_second": 150.0, "train/seconds": 9.0, "adapter/parameters": 9}
    known = compared(facts=facts)
    best = {item["name"]: item["best"] for item in known["metrics"]}
    assert best["eval/loss"] == ["B"]
    assert best["memory/peak_gib"] == ["A"]
    assert best["tokens/per_second"] == best["train/seconds"] == ["B"]
    assert best["adapter/parameters"] == best["tokens/supervised"] == best["untuned/eval/loss"] == []
    line = next(line for line in lorasweep("compare", "a", "b").out.splitlines() if line.startswith("peak memory"))
    assert line.split() == ["peak", "memory,", "GiB", "1.50", "◂", "2.00"]


def test_rows_are_compared_in_pairs_with_an_interval(compared: Compare, lorasweep: Command):
    (rows,) = compared()["rows"]
    before, after = (
        RowScores([loss * tokens for loss, tokens in zip(losses, TOKENS, strict=True)], TOKENS)
        for losses in (FIRST, BETTER)
    )
    expected = paired_difference(before, after)
    assert expected
    assert rows["difference"] == pytest.approx({"mean": expected.mean, "low": expected.low, "high": expected.high})
    assert (rows["count"], rows["better"], rows["worse"], rows["not_comparable"]) == (6, 6, 0, [])
    assert [row["row"] for row in rows["changed"]] == [11, 41, 1, 21, 31], "largest change per token first, from 1"
    out = lorasweep("compare", "a", "b").out
    assert "B is better" in out
    assert "lorasweep preview --config-dir outputs/runs/a experiment=saved --split eval --row 11" in out


def test_a_difference_inside_the_noise_is_not_called_better(compared: Compare, lorasweep: Command):
    compared(losses=(1.1, 1.0, 0.9, 0.95, 1.2, 0.8))
    out = lorasweep("compare", "a", "b").out
    assert "inside the noise" in out
    assert "is better" not in out


def test_equal_runs_are_said_to_be_the_same(compared: Compare, lorasweep: Command):
    assert compared(losses=FIRST)["warnings"] == []
    assert "the same on each of 6 rows" in lorasweep("compare", "a", "b").out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data__max_length": 128}, "data.max_length null | 128"),
        ({"data__split_seed": 7}, "data.split_seed 0 | 7"),
        ({"data__template_kwargs": {"thinking": True}}, "data.template_kwargs.thinking null | True"),
        ({"record": {"data/commit": "cafe"}}, "commit of the data null | cafe"),
        ({"record": {"data/files": {"rows.jsonl": "2"}}}, "the content of rows.jsonl"),
        ({"record": {"model/sha256": {"tokenizer.json": "2"}}}, "the model's tokenizer.json"),
        ({}, "the tokens of the rows, by their hashes"),
    ],
)
def test_other_evaluation_rows_are_not_compared_and_it_is_said_what_differs(
    compared: Compare, lorasweep: Command, change: dict[str, Any], reason: str
):
    change.setdefault("record", {}).update(OTHER_EVALUATION)
    first = {"record": {"data/files": {"rows.jsonl": "1"}, "model/sha256": {"tokenizer.json": "1"}}}
    same = {"data/files": {"rows.jsonl": "1"}, "model/sha256": {"tokenizer.json": "1"}}
    known = compared(first, **{**change, "record": same | change["record"]})
    (rows,) = known["rows"]
    assert rows["difference"] is None
    assert rows["changed"] == []
    assert [found for found in rows["not_comparable"] if reason in found] == rows["not_comparable"]
    assert any("not evaluated on the same rows" in words and reason in words for words in known["warnings"])
    assert metric(known, "eval/loss")["best"] == []
    words = lorasweep("compare", "a", "b").words
    assert "not comparable, other rows were scored" in words
    assert "is better" not in words


def test_packing_and_what_else_is_only_about_training_leaves_the_rows_comparable(compared: Compare):
    assert compared(data__packing=True, train__batch_size=2)["rows"][0]["difference"]


def test_fewer_of_the_same_rows_are_other_rows(compared: Compare, lorasweep: Command):
    compared(evaluation__max_samples=5)
    path = RUNS / "b" / "evaluation.jsonl"
    path.write_text(path.read_text().replace('"rows": [0, ', '"rows": ['))
    (rows,) = lorasweep("compare", "a", "b", "--json").json()["rows"]
    assert rows["not_comparable"] == ["evaluation.max_samples 200 | 5"]


@pytest.mark.parametrize(
    ("change", "words", "unlike"),
    [
        ({"facts": {"tokens/supervised": 400}}, "different budgets, in supervised tokens: A 200, B 400", ["budget"]),
        ({"record": {"seeds/seed": 7, "seeds/data_seed": 7}}, "different seeds, seed 42 | 7", ["seed"]),
        ({"record": {"seeds/data_seed": 7}}, "different seeds, data_seed 42 | 7", ["seed"]),
        ({"record": {"data/splits/train/sha256": "x"}}, "they were trained on different rows", ["training rows"]),
        ({"evaluation__objective": "exact_match"}, "different objectives: A loss, B exact_match", []),
        ({"record": {"device/name": "a GPU"}}, "memory, time and speed do not compare across devices", []),
        ({"record": {"packages/torch": "3"}}, "different versions: torch 2 | 3", []),
        ({"record": {"git/commit": "def"}}, "different versions: lorasweep abc | def", []),
        ({"state": "pruned"}, "B was pruned: its scores are those of a part of its training", []),
        ({"state": None}, "B is unfinished; its scores are those of step 4", []),
    ],
)
def test_unlike_runs_are_compared_with_a_warning(
    compared: Compare, lorasweep: Command, change: dict[str, Any], words: str, unlike: list[str]
):
    known = compared(**change)
    assert [found for found in known["warnings"] if words in found] == known["warnings"]
    assert known["rows"][0]["unlike"] == unlike
    printed = lorasweep("compare", "a", "b").words
    assert words in printed
    assert not unlike or f"(unlike in {unlike[0]})" in printed


def test_costs_of_other_devices_and_other_budgets_are_not_marked(compared: Compare):
    known = compared(facts={"train/seconds": 5.0, "tokens/per_second": 50.0, "tokens/supervised": 400})
    assert metric(known, "train/seconds")["best"] == []
    assert metric(known, "tokens/per_second")["best"] == ["A"]


def test_precisions_of_one_device_compare(compared: Compare):
    known = compared(facts={"memory/peak_gib": 0.5}, record={"device/precision": "bfloat16"})
    assert metric(known, "memory/peak_gib")["best"] == ["B"]
    assert known["warnings"] == []


def test_costs_of_other_devices_are_not_marked(compared: Compare):
    known = compared(facts={"memory/peak_gib": 0.5}, record={"device/name": "a GPU"})
    assert metric(known, "memory/peak_gib")["best"] == []


def test_answers_stand_side_by_side_those_that_differ_first(compared: Compare, lorasweep: Command):
    asked = [("What is 1 plus 1?", "2"), ("What is 3 plus 4?", "7")]
    said = ["2", "8"], ["2", "7"]
    first, second = ([(*one, answer) for one, answer in zip(asked, answers, strict=True)] for answers in said)
    known = compared({"answers": first}, answers=second)
    assert [sample["answers"] for sample in known["samples"]] == [["8", "7"], ["2", "2"]]
    assert metric(known, "eval/exact_match")["best"] == ["B"]
    assert known["rows"][0]["changed"][0]["text"] == "What is 3 plus 4? → 7"
    for width in (80, 140):
        out = lorasweep("compare", "a", "b", width=width).out
        assert "to 2 questions, of which 1 were answered differently" in out
        assert "What is 3 plus 4?" in out


def test_what_models_say_does_not_reach_the_terminal_as_a_command(compared: Compare, lorasweep: Command):
    compared({"answers": [("a", "1", "\x1b[2Jgone")]}, answers=[("a", "1", "\x1b]0;title\x07")])
    for arguments in (["compare", "a", "b"], ["show", "b"]):
        printed = lorasweep(*arguments).out
        assert "\x1b" not in printed
        assert "␛" in printed


def test_scores_of_other_questions_are_not_compared(compared: Compare):
    known = compared({"answers": [("a", "1", "1")]}, answers=[("a", "1", "2"), ("b", "1", "2")], evaluation__generate=2)
    assert metric(known, "eval/exact_match")["best"] == []
    assert metric(known, "eval/loss")["best"] == ["B"]
    assert any("were not asked the same questions: evaluation.generate 0 | 2" in words for words in known["warnings"])


def test_trials_are_compared_by_what_they_are_in_their_study(lorasweep: Command):
    store = kept(STUDIES / "s")
    for number, (losses, scheduler) in enumerate(((FIRST, "linear"), (BETTER, "cosine"))):
        store.create({"lora.r": 8 * (number + 1)}, str(number), "sampled" if number else "baseline")
        store.note(number, choices={"model": "tiny", "scheduler": f"{scheduler}_mine"})
        store.finish(number, State.COMPLETE, [sum(losses) / 6], {})
        made(STUDIES / "s" / "trials" / str(number), losses, lora__r=8 * (number + 1), scheduler__name=scheduler)
    store.close()
    known = lorasweep("compare", "s:baseline", "s:best", "--json").json()
    assert [(run["name"], run["is_baseline"], run["study"]) for run in known["runs"]] == [
        ("s:0", True, "s"), ("s:1", False, "s"),
    ]  # fmt: skip
    assert known["groups"] == {"scheduler": ["linear_mine", "cosine_mine"]}
    assert [item["key"] for item in known["config"]] == ["lora.r", "scheduler.name"]
    out = lorasweep("compare", "s:baseline", "s:best").out
    assert "scheduler (file)" in out
    assert "lorasweep confirm s measures that" in out


def test_several_runs_are_compared_with_the_first(lorasweep: Command):
    for name, shift in (("a", 0.0), ("b", -0.1), ("c", 0.1)):
        made(RUNS / name, [loss + shift * (index + 1) for index, loss in enumerate(FIRST)])
    known = lorasweep("compare", "a", "b", "c", "--json").json()
    assert [(rows["first"], rows["other"]) for rows in known["rows"]] == [("A", "B"), ("A", "C")]
    assert metric(known, "eval/loss")["best"] == ["B"]
    out = lorasweep("compare", "a", "b", "c").out
    assert "B is better" in out
    assert "C is worse" in out


def test_curves_share_their_axes(compared: Compare, lorasweep: Command):
    known = compared()
    assert [curve["evaluation"][0] for curve in known["curves"]] == [[0, 4.0], [0, 4.0]]
    assert known["curves"][0]["training"][-1][0] == 200
    out = lorasweep("compare", "a", "b").out
    assert "200 supervised tokens" in out
    assert "small letters: steps" in out, "without colours the curves are letters"


def test_a_run_that_has_not_been_evaluated_is_compared_as_far_as_it_goes(compared: Compare, lorasweep: Command):
    compared(state=None)
    for name in ("evaluation.jsonl", "metrics.jsonl", "record.json"):
        (RUNS / "b" / name).unlink()
    known = lorasweep("compare", "a", "b", "--json").json()
    assert known["rows"][0]["not_comparable"] == ["B has no evaluation after training began"]
    assert lorasweep("compare", "a", "b").code == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [(["a"], "2 to 26 runs"), (["a", "a"], "a and a are the same one"), (["a", "outputs/runs/a"], "are the same one"),
     (["a", "bb"], "did you mean 'b'?")],
)  # fmt: skip
def test_mistakes_are_said_in_words(lorasweep: Command, given: list[str], words: str):
    made(RUNS / "a")
    made(RUNS / "b")
    done = lorasweep("compare", *given)
    assert done.code == 2
    assert words in done.words
    assert not done.out


def test_the_keys_of_the_json_are_the_documented_ones(compared: Compare):
    assert list(compared()) == [field.name for field in fields(Comparison)]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_a_comparison_fits_the_terminal_but_for_commands(lorasweep: Command, width: int):
    for name in ("a", "b", "c"):
        made(RUNS / name, record={"name": "x" * 300}, lora__target_modules=["q_proj", "k_proj", "v_proj", name],
             answers=[("a long question " * 20, "an answer", f"{name} " * 40)])  # fmt: skip
    done = lorasweep("compare", "a", "b", "c", width=width)
    lines = [line for line in done.out.splitlines() if "lorasweep preview" not in line]
    assert max(map(len, lines)) <= width
