"""Scores: per supervised token, the same whatever the batches; answers the same alone and in a batch."""

from pathlib import Path

import pytest
import torch

from lorasweep import lora
from lorasweep.evaluation import Answer, Evaluator, Scores
from lorasweep.schema import Evaluation
from tests.conftest import tiny
from tests.test_numerics import CPU, parts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    trainer, tokenizer, splits = parts(
        tiny("quant=none", "data.limit=40", "lora.dropout=0.3"), tmp_path_factory.mktemp("run")
    )
    for value in lora.trainable(trainer.model).values():
        torch.nn.init.normal_(value, std=0.1)
    return trainer.model, tokenizer, splits["eval"].rows


def test_the_loss_is_that_of_the_plain_model_row_by_row(made: tuple) -> None:
    model, tokenizer, rows = made
    scores = Evaluator(rows, tokenizer, Evaluation(batch_size=3), CPU)(model)
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row, loss, tokens in zip(rows, scores.row_losses, scores.row_tokens, strict=True):
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].double()
            plain = torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100, reduction="sum").item()
            assert loss == pytest.approx(plain, rel=1e-5)
            assert tokens == int((labels[0, 1:] != -100).sum())
            total, count = total + plain, count + tokens
    model.train()
    assert scores.loss == pytest.approx(total / count, rel=1e-6)


def test_the_loss_does_not_depend_on_the_batch_size(made: tuple) -> None:
    model, tokenizer, rows = made
    losses = [Evaluator(rows, tokenizer, Evaluation(batch_size=size), CPU)(model).loss for size in (1, 2, 8)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_the_loss_weighs_tokens_not_rows() -> None:
    assert Scores([10.0, 1.0], [10, 1]).loss == 1.0
    assert Scores([30.0, 1.0], [10, 1]).loss == pytest.approx(31 / 11)


def test_answers_are_the_same_alone_and_in_a_left_padded_batch(made: tuple) -> None:
    model, tokenizer, rows = made
    alone, together = (
        Evaluator(rows, tokenizer, Evaluation(batch_size=size, generate=5, max_new_tokens=6), CPU)(model).answers
        for size in (1, 5)
    )
    assert len(alone) == 5
    assert alone == together
    assert all(answer.expected and answer.expected in " ".join(rows["answer"]) for answer in alone)


def test_the_score_of_an_evaluation_is_the_mean_over_its_answers() -> None:
    answers = [Answer("q", "1", "1", {"exact_match": 1.0}), Answer("q", "1", "2", {"exact_match": 0.0})]
    assert Scores([1.0], [1], answers).metrics()["eval/exact_match"] == 0.5
    assert "eval/exact_match" not in Scores([1.0], [1]).metrics()


def test_scoring_leaves_mode_and_random_streams_alone(made: tuple) -> None:
    model, tokenizer, rows = made
    model.train()
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    Evaluator(rows, tokenizer, Evaluation(generate=2, max_new_tokens=3), CPU)(model)
    assert torch.equal(torch.rand(3), undisturbed)
    assert model.training


def test_only_so_many_rows_are_scored(made: tuple, tmp_path: Path) -> None:
    model, tokenizer, rows = made
    assert len(Evaluator(rows, tokenizer, Evaluation(max_samples=3), CPU)(model).row_losses) == 3
