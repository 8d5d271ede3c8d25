"""With supervised tokens per step held constant, batch size, packing and padding change nothing but speed."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from lorasweep import lora, metrics
from lorasweep.data import IGNORED
from lorasweep.evaluation import schedule
from lorasweep.packing import bins, check_parity
from lorasweep.record import Launch
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Train
from lorasweep.steps import Plan, plan_steps
from tests.conftest import tiny
from tests.test_numerics import CPU, parts, train_losses
from tests.test_run import summary_of

SUPERVISED = st.lists(st.integers(1, 60), min_size=1, max_size=80)
BUDGETS = st.one_of(
    st.fixed_dictionaries({"epochs": st.floats(0.05, 4)}),
    st.fixed_dictionaries({"max_steps": st.integers(1, 30)}),
    st.fixed_dictionaries({"max_tokens": st.integers(1, 3000)}),
)


def planned(supervised: list[int], tokens_per_step: int, seed: int = 0, **budget: Any) -> Plan:
    return plan_steps(Train(tokens_per_step=tokens_per_step, **budget), numpy.array(supervised), seed)


def sizes(plan: Plan, supervised: list[int]) -> list[int]:
    return [sum(supervised[row] for row in rows) for rows in plan.steps]


@given(SUPERVISED, st.integers(0, 200), BUDGETS, st.integers(0, 5))
def test_every_step_is_within_one_row_of_its_size_and_the_error_never_adds_up(
    supervised: list[int], more: int, budget: dict[str, Any], seed: int
) -> None:
    longest = max(supervised)
    plan = planned(supervised, longest + more, seed, **budget)
    so_far = 0
    for number, size in enumerate(sizes(plan, supervised), start=1):
        assert size > 0
        assert abs(size - plan.tokens_per_step) <= longest
        so_far += size
        assert abs(so_far - number * plan.tokens_per_step) <= longest / 2


@given(SUPERVISED, st.integers(0, 200), st.integers(1, 4), st.integers(0, 5))
def test_every_row_is_learnt_exactly_once_in_every_epoch(
    supervised: list[int], more: int, epochs: int, seed: int
) -> None:
    plan = planned(supervised, max(supervised) + more, seed, epochs=epochs)
    order = numpy.concatenate(plan.steps).reshape(epochs, len(supervised))
    assert (numpy.sort(order, axis=1) == numpy.arange(len(supervised))).all()
    assert sum(sizes(plan, supervised)) == epochs * sum(supervised)


@given(SUPERVISED, st.integers(0, 200), BUDGETS)
def test_the_steps_are_those_that_dealing_rows_one_by_one_gives(
    supervised: list[int], more: int, budget: dict[str, Any]
) -> None:
    plan = planned(supervised, max(supervised) + more, 3, **budget)
    size = Fraction(round(plan.tokens_per_step * len(plan.steps)), len(plan.steps))
    dealt: list[list[int]] = [[] for _ in plan.steps]
    before, epoch = 0, 0
    while before < size * len(dealt):
        for row in numpy.random.default_rng((3, epoch)).permutation(len(supervised)).tolist():
            middle, before = before + Fraction(supervised[row], 2), before + supervised[row]
            if middle < size * len(dealt):
                dealt[int(middle / size)].append(row)
        epoch += 1
    assert [rows.tolist() for rows in plan.steps] == dealt


def test_the_budget_is_in_tokens() -> None:
    rows = [10] * 100
    assert (len(planned(rows, 300).steps), planned(rows, 300).tokens_per_step) == (3, 1000 / 3)
    assert (len(planned(rows, 300, epochs=2.5).steps), planned(rows, 300, epochs=2.5).tokens_per_step) == (8, 312.5)
    assert (len(planned(rows, 300, max_tokens=901).steps), planned(rows, 300, max_tokens=901).tokens_per_step) == (
        4,
        300,
    )
    assert (len(planned(rows, 300, max_steps=7).steps), planned(rows, 300, max_steps=7).tokens_per_step) == (7, 300)
    assert sum(sizes(planned(rows, 300, epochs=2.5), rows)) == 2500
    assert len(planned(rows, 5000).steps) == 1
    assert len(planned(rows, 10, epochs=1e-6).steps[0]) == 1


def test_the_seed_decides_the_order_and_every_epoch_has_its_own() -> None:
    rows = list(range(1, 101))
    one, same, other = (planned(rows, 200, seed, epochs=2) for seed in (1, 1, 2))
    assert one.facts() == same.facts()
    assert one.facts()["sha256"] != other.facts()["sha256"]
    first, second = numpy.concatenate(one.steps).reshape(2, 100)
    assert first.tolist() != second.tolist() != sorted(second.tolist())


def test_other_steps_of_the_same_order_have_another_digest() -> None:
    first, second = (
        Plan([numpy.array([1, 2]), numpy.array([3])], 1.0),
        Plan([numpy.array([1]), numpy.array([2, 3])], 1.0),
    )
    assert first.facts()["sha256"] != second.facts()["sha256"]


def test_a_million_rows_are_dealt_out_in_seconds() -> None:
    supervised = numpy.random.default_rng(0).integers(1, 400, 1_000_000)
    plan = plan_steps(Train(tokens_per_step=4000), supervised, 0)
    assert sum(map(len, plan.steps)) == 1_000_000


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 100))
def test_rows_are_packed_longest_first_each_where_it_fits_best(lengths: list[int], capacity: int) -> None:
    slow: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda position: (-lengths[position], position)):
        rooms = [capacity - sum(lengths[other] for other in bin) for bin in slow]
        fitting = [number for number, room in enumerate(rooms) if room >= lengths[position]]
        if fitting:
            slow[min(fitting, key=lambda number: rooms[number])].append(position)
        else:
            slow.append([position])
    packed = bins(lengths, capacity)
    assert packed == slow
    assert sorted(position for bin in packed for position in bin) == list(range(len(lengths)))
    assert all(sum(lengths[position] for position in bin) <= capacity for bin in packed)


LAYOUTS = {
    "padded": ("train.batch_size=4",),
    "alone": ("train.batch_size=1",),
    "packed": ("data.packing=true", "train.batch_size=2"),
    "padding_free": ("train.padding_free=true", "train.batch_size=3"),
}
COMMON = ("quant=none", "data.max_length=128", "train.tokens_per_step=30", "train.epochs=2", "scheduler=cosine")


def test_the_rows_of_a_step_do_not_depend_on_how_they_are_laid_out(tmp_path: Path) -> None:
    learnt, shapes = [], []
    for name, layout in LAYOUTS.items():
        trainer, _, splits = parts(tiny(*COMMON, *layout), tmp_path / name)
        steps = list(trainer.get_train_dataloader())
        assert len(steps) == trainer.args.max_steps > 4
        learnt.append([rows_in(step) for step in steps])
        shapes.append([batch["input_ids"].shape for step in steps for batch in step["batches"]])
        counts = splits["train"].rows.with_format("numpy")["supervised"][:]
        assert [sum(step["supervised"]) for step in steps] == [
            counts[step["rows"]].sum() for step in trainer.train_dataset
        ]
    assert all(rows == learnt[0] for rows in learnt)
    assert len({str(shape) for shape in shapes}) == len(LAYOUTS)


def rows_in(step: dict[str, list[Any]]) -> list[list[int]]:
    """Every row of a step without its padding, and which of its tokens are learnt."""
    found = []
    for batch in step["batches"]:
        for number, ids in enumerate(batch["input_ids"]):
            if "attention_mask" in batch:
                ends = [0, int(batch["attention_mask"][number].sum())]
            else:
                ends = [*(batch["position_ids"][0] == 0).nonzero().flatten().tolist(), len(ids)]
            for start, end in pairwise(ends):
                labels = batch["labels"][number, start + 1 : end]
                assert torch.equal(labels[labels != IGNORED], ids[start + 1 : end][labels != IGNORED])
                found.append([*ids[start:end].tolist(), *(labels != IGNORED).tolist()])
    return sorted(found)


def test_every_layout_trains_the_same_adapter_on_the_same_schedule(launched: Callable[..., Path]) -> None:
    common = (*COMMON, "evaluation.times=2", "train.max_grad_norm=0.05")
    folders = [launched(tiny(*common, *layout), name) for name, layout in LAYOUTS.items()]
    reference, *others = (list(metrics.read(folder)) for folder in folders)
    adapters = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in folders]
    same = ("step", "train/lr", "train/epoch", "tokens/supervised", "tokens/total")
    close = ("train/loss", "train/grad_norm", "train/token_accuracy", "train/entropy", "eval/loss")
    for entries, adapter in zip(others, adapters[1:], strict=True):
        for name in (*same, *close):
            wanted = [entry.get(name) for entry in reference]
            assert [entry.get(name) for entry in entries] == (
                wanted if name in same else [value and pytest.approx(value, abs=1e-5) for value in wanted]
            ), name
        for name, value in adapter.items():
            torch.testing.assert_close(value, adapters[0][name], atol=1e-4, rtol=0)  # AdamW enlarges 1e-7 to 1e-5
    assert len({json.loads((folder / "record.json").read_text())["steps"]["sha256"] for folder in folders}) == 1
    trained = [entry for entry in reference if "train/loss" in entry]
    assert trained[-1]["train/epoch"] == 2
    assert all(entry["train/grad_norm"] > 0.05 for entry in trained)
    assert [entry["step"] for entry in reference if "eval/loss" in entry] == [0, *sorted(schedule(2, len(trained)))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradient_of_a_step_are_those_of_its_rows_one_by_one(layout: str, tmp_path: Path) -> None:
    trainer, _, splits = parts(tiny(*COMMON, *LAYOUTS[layout]), tmp_path)
    model = trainer.model
    parameters = lora.trainable(model)
    for value in parameters.values():
        torch.nn.init.normal_(value, std=0.05)
    (item, *_) = trainer.train_dataset
    loss, count = torch.tensor(0.0), 0
    for row in splits["train"].rows.select(item["rows"]):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logits = model(input_ids=ids).logits[0, :-1]
        loss = loss + torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum")
        count += int((labels[1:] != IGNORED).sum())
    (loss / count).backward()
    wanted = {name: value.grad.clone() for name, value in parameters.items()}
    model.zero_grad()
    found = trainer.training_step(model, trainer.data_collator([item]))
    assert found.item() == pytest.approx(loss.item() / count, rel=1e-5)
    for name, value in parameters.items():
        torch.testing.assert_close(value.grad, wanted[name], atol=1e-6, rtol=1e-4)


def test_a_mean_over_forward_passes_would_be_another_loss(tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny(*COMMON, *LAYOUTS["padded"]), tmp_path)
    step = trainer.data_collator([trainer.train_dataset[0]])
    passes = [
        {"batches": [batch], "supervised": [n], "total": n, "passes": 1}
        for batch, n in zip(step["batches"], step["supervised"], strict=True)
    ]
    mean = torch.stack([trainer.training_step(trainer.model, one) for one in passes]).mean().item()
    assert len(set(step["supervised"])) > 1
    assert trainer.training_step(trainer.model, step).item() != pytest.approx(mean, rel=1e-4)


def test_the_same_run_gives_the_same_bytes_and_another_seed_of_the_data_does_not(launched: Callable[..., Path]) -> None:
    common = (*COMMON, "data.packing=true", "train.max_steps=3", "lora.dropout=0.1")
    folders = [launched(tiny(*common, f"train.data_seed={seed}"), f"{n}") for n, seed in enumerate((1, 1, 2))]
    one, same, other = ((folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert one == same != other


def test_record_and_log_say_how_large_the_steps_are(launched: Callable[..., Path]) -> None:
    folder = launched(tiny(*COMMON, "data.packing=true"))
    facts, tokens = json.loads((folder / "record.json").read_text())["steps"], summary_of(folder)["tokens/supervised"]
    assert facts["count"] == summary_of(folder)["steps"]
    assert facts["count"] * facts["tokens_per_step"] == pytest.approx(tokens)
    assert len(facts["sha256"]) == 64
    assert f"tokens/step: {facts['tokens_per_step']:,.0f} supervised (asked 30)" in (folder / "train.log").read_text()


def test_a_step_that_the_longest_row_would_overflow_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="supervised tokens of the longest row") as caught:
        train(tiny("train.tokens_per_step=2"), Launch(tmp_path / "run", []))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("train.tokens_per_step", 2)
    assert not (tmp_path / "run").exists()
    at_least = int(problem.allowed.split()[2].rstrip(","))
    train(tiny(f"train.tokens_per_step={at_least}", "train.max_steps=2"), Launch(tmp_path / "run", []))


def test_the_gate_sees_packed_rows_whose_positions_do_not_restart(tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny(*COMMON, "data.packing=true"), tmp_path)
    check_parity(trainer, CPU)
    collator = trainer.data_collator

    def leaky(rows: list[dict[str, Any]]) -> Any:
        return collator.collate([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows])

    trainer.data_collator = replace(collator, collate=leaky)
    with pytest.raises(UserError, match="see each other"):
        check_parity(trainer, CPU)


def test_steps_are_made_in_processes_of_their_own_too(launched: Callable[..., Path], tmp_path: Path) -> None:
    trainer, _, _ = parts(tiny(*COMMON), tmp_path / "parts")
    item = trainer.train_dataset[0]
    copy = pickle.loads(pickle.dumps(trainer.data_collator))
    assert rows_in(copy([item])) == rows_in(trainer.data_collator([item]))
    here, there = (launched(tiny(*COMMON, f"train.loader_workers={count}"), f"workers{count}") for count in (0, 1))
    assert train_losses(here) == train_losses(there)
