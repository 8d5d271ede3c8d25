"""How answers are scored, by the built-in metrics and by a user's own."""

from decimal import Decimal
from pathlib import Path

import pytest

from lorasweep.answer_metrics import build_metrics, last_number
from lorasweep.rules import UserError
from tests.conftest import composed, problems


def score(name: str, answer: str, expected: str) -> float:
    ((_, metric),) = build_metrics([name]).items()
    return metric(answer, expected, "the prompt")


def test_an_answer_is_exact_up_to_white_space_at_its_ends() -> None:
    assert score("exact_match", " 42\n", "42") == 1
    assert score("exact_match", "42.", "42") == 0


@pytest.mark.parametrize(("text", "number"), [
    ("#### 1,234", 1234), ("The answer is 42.", 42), ("-3.50 dollars", -3.5), ("7 apples, then 9", 9), ("none", None),
    ("10-5", 5), ("from 3 to −7", -7), ("costs .5", 0.5), ("1e3 metres", 1000), ("1,2,3", 3), ("v1.2", 1.2),
])  # fmt: skip
def test_the_last_number_of_a_text_is_read(text: str, number: float | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(str(number)))
    assert last_number("9" * 400) != last_number("8" * 400)


def test_the_last_numbers_of_answer_and_expectation_are_compared() -> None:
    assert score("last_number", "3 times 4 is 12, so 12.0", "… #### 12") == 1
    assert score("last_number", "It is 13", "#### 12") == 0
    assert score("last_number", "no idea", "none either") == 0


def test_rouge_is_the_f_measure_of_shared_words() -> None:
    # by hand: 4 of the answer's 5 words are among the 6 expected ones; in order, the cat sat ... on mat
    answer, expected = "a cat sat on mat", "the cat sat on the mat"
    assert score("rouge1", answer, expected) == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))
    assert score("rougeL", answer, expected) == pytest.approx(2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6))
    assert score("rouge2", answer, expected) == pytest.approx(2 * (2 / 4) * (2 / 5) / (2 / 4 + 2 / 5))


def test_rouge_reads_every_script() -> None:
    assert score("rouge1", "Привет мир", "привет, мир!") == 1
    assert score("rougeL", "今天天气好", "今天天气很好") == pytest.approx(2 * 5 / (5 + 6))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working directory."""
    (tmp_path / "my_scores.py").write_text(
        "def same_length(answer, expected):\n    return len(answer) == len(expected)\n"
        "def in_prompt(answer, expected, prompt):\n    return answer in prompt\n"
        "def words(answer, expected):\n    return 'many'\n"
    )
    monkeypatch.chdir(tmp_path)
    return "my_scores"


def test_a_function_of_the_users_scores_answers_and_gets_the_prompt_if_it_wants(module: str) -> None:
    assert score(f"{module}:same_length", "abc", "xyz") == 1
    assert score(f"{module}:in_prompt", "prompt", "") == 1
    assert list(build_metrics(["exact_match", f"{module}:same_length"])) == ["exact_match", "same_length"]


def test_a_function_that_is_not_there_or_returns_no_number_is_the_users_to_mend(module: str) -> None:
    with pytest.raises(UserError, match="did you mean 'same_length'"):
        build_metrics([f"{module}:same_lenght"])
    with pytest.raises(UserError, match="module that can be imported"):
        build_metrics(["no_such_module:f"])
    with pytest.raises(UserError, match="returns a finite number; it returned 'many'"):
        score(f"{module}:words", "a", "b")


def test_an_objective_is_the_loss_or_one_of_the_metrics() -> None:
    run = composed("evaluation.metrics=[rougeL,my_scores:same_length]", "evaluation.objective=same_length")
    assert run.evaluation.objective == "same_length"
    (problem,) = problems("evaluation.metrics=[rougeL]", "evaluation.objective=rouge")
    assert (problem.key, problem.nearest) == ("evaluation.objective", "rougeL")
    (problem,) = problems("evaluation.metrics=[rouge]")
    assert problem.key == "evaluation.metrics"
    (problem,) = problems("evaluation.metrics=[a:f,b:f]")
    assert "names that differ" in problem.allowed
