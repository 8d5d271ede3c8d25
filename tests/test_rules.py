"""What a value may be, and what a wrong one is told."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from lorasweep.rules import Problem, allowed_words, build, check, choice, fits, nearest, number


@dataclass(kw_only=True)
class Inner:
    r: int = number(1, least=1)
    share: float = number(0.5, least=0, below=1)
    kind: str = choice("red", "red", "green")


@dataclass(kw_only=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    steps: int | None = number(None, least=1)
    names: list[str] = field(default_factory=list)
    anything: Any = None
    on: bool = False


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, int, True), (True, int, False), (4.0, int, False), ("4", int, False),
        (1, float, True), (1.5, float, True), (True, float, False), ("1e-3", float, False),
        (True, bool, True), ("yes", bool, False), (1, bool, False), ("x", str, True), (False, str, False), (3, str, False),
        (None, int | None, True), (None, int, False), (["a"], list[str], True), ([1], list[str], False),
        ({"a": 1}, dict[str, Any], True), ([], dict[str, Any], False), (object(), Any, True),
    ],
)  # fmt: skip
def test_types_are_told_apart_strictly(value: Any, kind: Any, expected: bool) -> None:
    assert fits(value, kind) is expected


def test_every_wrong_value_is_found_at_once() -> None:
    found = list(check({"inner": {"r": 0, "share": 1, "kind": "gren", "q": 1}, "steps": 2.5, "on": "no"}, Outer))
    assert [problem.key for problem in found] == ["inner.r", "inner.share", "inner.kind", "inner.q", "steps", "on"]
    assert next(problem for problem in found if problem.key == "inner.kind").nearest == "green"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.0])
def test_numbers_outside_their_bounds_are_refused(value: float) -> None:
    assert [problem.key for problem in check({"inner": {"share": value}}, Outer)] == ["inner.share"]


def test_a_section_given_a_plain_value_is_refused() -> None:
    (problem,) = check({"inner": 3}, Outer)
    assert "section" in problem.allowed


def test_right_values_pass_and_build_with_whole_floats_as_floats() -> None:
    values = {"inner": {"r": 3, "share": 0}, "steps": None, "names": ["a"]}
    assert not list(check(values, Outer))
    built = build(values, Outer, set())
    assert built.inner.r == 3
    assert isinstance(built.inner.share, float)


def test_build_keeps_the_default_where_a_value_is_wrong() -> None:
    assert build({"inner": {"r": -1}}, Outer, {"inner.r"}).inner.r == 1


def test_a_problem_says_key_value_rule_name_and_source() -> None:
    text = str(Problem("lora.rr", 3, "no such key", "r", "command line: lora.rr=3"))
    assert text.splitlines() == [
        "lora.rr = 3",
        "  no such key",
        "  did you mean 'r'?",
        "  from command line: lora.rr=3",
    ]


def test_the_nearest_name_is_found_only_if_there_is_one() -> None:
    assert nearest("paged_adamw_32", ["adamw_torch", "paged_adamw_32bit"]) == "paged_adamw_32bit"
    assert nearest("zzz", ["adamw_torch"]) is None


def test_allowed_words_name_type_and_bounds() -> None:
    rule = Outer.__dataclass_fields__["steps"].metadata["rule"]
    assert allowed_words(int | None, rule) == "a whole number or null, at least 1"
