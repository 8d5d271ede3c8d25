"""Spaces: what is in them, how many, under which conditions, and that Optuna keeps every value as it is."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lorasweep.study.proposal import proposals
from lorasweep.study.settings import Settings
from lorasweep.study.space import Choice, Dimension, Interval, Space
from lorasweep.study.store import Store, decoded, distribution, encoded

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-4, 4), st.sampled_from([0.3, 1.0, 1e-5]), st.text(max_size=3)
)
VALUES = st.one_of(SCALARS, st.lists(st.sampled_from(["q_proj", "v_proj", 1]), max_size=2))


@st.composite
def choices(draw: st.DrawFn, key: str) -> Choice:
    """Choices that nothing is wrong with."""
    found = Choice(key, tuple(draw(st.lists(VALUES, min_size=1, max_size=4))))
    assume(found.problem() is None)
    return found


@st.composite
def intervals(draw: st.DrawFn, key: str) -> Interval:
    """Whole numbers, or steps of any size from any start."""
    if draw(st.booleans()):
        low = draw(st.integers(-1000, 1000))
        step = draw(st.none() | st.integers(1, 7))
        return Interval(key, low, low + draw(st.integers(0, 20)), step, is_int=True)
    low = draw(st.integers(-100_000, 100_000)) / draw(st.sampled_from([1, 8, 100, 1000, 100_000]))
    step = draw(st.sampled_from([0.001, 0.1, 0.25, 1.0, 3.0]))
    return Interval(key, low, low + step * draw(st.integers(0, 20)), step)


def dimensions(key: str) -> st.SearchStrategy[Dimension]:
    return st.one_of(choices(key), intervals(key))


@given(st.tuples(*map(dimensions, "abc")), st.booleans())
@settings(max_examples=60, deadline=None)
def test_points_are_distinct_and_as_many_as_the_space_says(found: tuple[Dimension, ...], conditional: bool) -> None:
    values = found[0].values()
    assert values is not None
    asked = {"b": {"a": (values[0],)}, "c": {"b": (None, 1)}} if conditional else {}
    space = Space(found, asked, {"a": None, "b": None, "c": None})
    points = list(space.points())
    assert len({repr(point) for point in points}) == len(points) == space.size()
    for point in points[:100]:
        assert ("b" in point) is (not conditional or point["a"] in (values[0],))
        assert ("c" in point) is (not conditional or point.get("b") in (None, 1))
        assert all(dimension.holds(point[dimension.key]) for dimension in space if dimension.key in point)


@given(dimensions("a"))
@settings(max_examples=100, deadline=None)
def test_optuna_keeps_every_value_and_gives_it_back(dimension: Dimension) -> None:
    known, values = distribution(dimension), dimension.values()
    assert values is not None
    for value in values:
        kept = known.to_external_repr(known.to_internal_repr(encoded(dimension, value)))
        again = decoded(dimension, kept)
        assert known._contains(known.to_internal_repr(encoded(dimension, value)))
        assert type(again) is type(value)
        assert again == value
    study = optuna.create_study()
    for _ in range(3):
        trial = study.ask({"a": known})
        assert dimension.holds(decoded(dimension, trial.params["a"]))


@given(st.floats(1e-6, 1e6), st.floats(1e-9, 1e6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sampled_numbers_are_short_and_inside(low: float, width: float, log: bool) -> None:
    interval = Interval("a", low, low + width, log=log)
    assume(interval.low < interval.high)
    ends = [interval.low, interval.high, (interval.low + interval.high) / 2]
    assert all(interval.holds(interval.rounded(value)) for value in ends)
    parts = [interval.low + (interval.high - interval.low) * part / 50 for part in range(51)]
    assume(width > low * 1e-9)
    assert len(set(map(interval.rounded, parts))) > 40  # so short that they are all the same would be too short


@pytest.mark.parametrize(
    ("dimension", "words"),
    [
        (Interval("a", 2, 1), "2 is above 1"),
        (Interval("a", 0.0, 1.0, log=True), "begins at 0"),
        (Interval("a", 0.1, 1.0, 0.1, log=True), "not both"),
        (Choice("a", (8, 16, 8)), "8 and 8"),
        (Choice("a", (8, 8.0)), "8 and 8.0"),
        (Choice("a", (False, True, 0, 1)), "False and 0"),
        (Choice("a", (["q"], "['q']")), "one to the search"),
        (Choice("a", ()), "one value"),
    ],
)
def test_what_cannot_be_searched_is_refused(dimension: Dimension, words: str) -> None:
    (problem,) = Space((dimension,), fixed={"a": 1}).problems()
    assert problem.key == "hydra.sweeper.params.a"
    assert words in problem.allowed


@pytest.mark.parametrize("options", [(None, 0.3), (True, False), (None, "none", "null"), ("all-linear", ["q", "v"])])
def test_values_of_several_types_are_searched(options: tuple[Any, ...]) -> None:
    space = Space((Choice("a", options),), fixed={"a": options[0]})
    assert not list(space.problems())
    store = Store("sqlite://", "study", ["minimize"], space)
    seen = []
    for _ in range(100):
        chosen = Settings(sampler="random", n_trials=1)
        point = next(proposals(chosen, space, store.frozen(), ["minimize"]))
        number = store.create(point, str(point), "sampled")
        assert store.trial(number).point == point
        seen.append(point["a"])
        if len(seen) >= 20 and len({repr(value) for value in seen}) == len(options):
            break
    assert all(any(value is option or value == option for option in options) for value in seen)
    assert {repr(value) for value in seen} == {repr(option) for option in options}


def test_a_great_space_is_counted_without_going_through_it() -> None:
    keys = "abcdef"
    found = [Interval(key, 0, 10**9, is_int=True) for key in keys]
    space = Space((*found, Choice("g", (1, 2))), {"a": {"g": (1,)}}, dict.fromkeys("abcdefg", 0))
    assert space.size() == (10**9 + 1) ** 6 + (10**9 + 1) ** 5
    assert found[0].holds(123_456_789)
    assert not found[0].holds(-1)
    assert next(space.points())["g"] == 1


def test_a_key_is_decided_after_those_it_depends_on() -> None:
    parts = [Choice("a", (1, 2)), Choice("b", (1, 2)), Choice("c", (1, 2))]
    for order in itertools.permutations(parts):
        space = Space(order, {"a": {"b": (1,)}, "b": {"c": (1,)}}, {"a": 1, "b": 2, "c": 2})
        assert [dimension.key for dimension in space] == ["c", "b", "a"]
        assert sorted(map(len, space.points())) == [1, 2, 3, 3]


def test_an_odd_condition_is_refused() -> None:
    space = Space((Choice("a", (1, 2)),), {"a": {"nosuch": (1,)}}, {"a": 1})
    assert [problem.key for problem in space.problems()] == ["hydra.sweeper.only_if.a"]
