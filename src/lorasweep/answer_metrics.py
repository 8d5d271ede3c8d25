"""How an answer is scored against the expected one: exact match, the last number, ROUGE, or a user's own function."""

from __future__ import annotations

import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable
from decimal import Decimal

from lorasweep.rules import Problem, UserError, nearest
from lorasweep.schema import ANSWER_METRICS

Metric = Callable[[str, str, str], float]
"""From answer, expected answer and prompt to a score; more is better."""
NUMBER = re.compile(r"(?:(?<![\w.])[-−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|(?<![\w.])\.\d+")
WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W_぀-ヿ㐀-鿿]+")
"""A word; every character of Chinese and Japanese, which have no spaces, is one."""


def build_metrics(names: list[str]) -> dict[str, Metric]:
    """Return the metrics by the name they have in logs: of `module:function` the function's."""
    return {metric_name(name): _user_metric(name) if ":" in name else _built_in(name) for name in names}


def metric_name(name: str) -> str:
    """Return the name a metric has in logs."""
    return name.rpartition(":")[2]


def last_number(text: str) -> Decimal | None:
    """Return the last number in a text, thousands separators aside; the dash of 10-5 is no sign."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace("−", "-")) if found else None


def _built_in(name: str) -> Metric:
    assert name in ANSWER_METRICS
    if name == "exact_match":
        return lambda answer, expected, _: float(answer.strip() == expected.strip())
    if name == "last_number":
        return _same_number
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], tokenizer=_Words())  # its own knows a to z and 0 to 9 only
    return lambda answer, expected, _: float(scorer.score(expected, answer)[name].fmeasure)


class _Words:
    """Splits a text for ROUGE."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case."""
        return WORD.findall(text.lower())


def _same_number(answer: str, expected: str, _: str) -> float:
    wanted = last_number(expected)
    return float(wanted is not None and last_number(answer) == wanted)


def _user_metric(name: str) -> Metric:
    """Import `module:function`, from the working directory too; it takes answer, expected and, if it wants, prompt."""
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a user's module does while it is imported
        raise UserError(_unusable(name, f"a module that can be imported ({type(error).__name__}: {error})")) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(_unusable(name, f"a function in {module_name}", nearest(function_name, names)))
    try:
        inspect.signature(function).bind("", "", "")
        arguments = 3
    except TypeError:
        arguments = 2

    def scored(answer: str, expected: str, prompt: str) -> float:
        score = function(*(answer, expected, prompt)[:arguments])
        if not isinstance(score, int | float) or not math.isfinite(score):
            raise UserError(_unusable(name, f"a function that returns a finite number; it returned {score!r:.60}"))
        return float(score)

    return scored


def _unusable(name: str, allowed: str, near: str | None = None) -> Problem:
    return Problem("evaluation.metrics", name, allowed, near)
