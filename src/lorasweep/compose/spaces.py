"""Hydra's sweep grammar read as a space."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
    Sweep,
    Transformer,
)
from hydra.errors import HydraException

from lorasweep.rules import Problem, UserError
from lorasweep.study.space import Choice, Dimension, Interval, Point

LOG = "log"
GRAMMAR = "a sweep as Hydra writes it, such as 8,16,64 or choice(a,b), range(8,65,8), tag(log,interval(1e-5,1e-3))"


def read_params(params: Mapping[str, Any], groups: Iterable[str]) -> tuple[list[Dimension], list[Problem]]:
    """Return the dimensions of `hydra.sweeper.params`, and what cannot be read."""
    dimensions, problems = [], []
    for key, value in _flat(params):
        try:
            dimensions.append(_read(key, value, key in groups))
        except UserError as error:
            problems += error.problems
    return dimensions, problems


def read_sweep(override: Override, is_group: bool) -> Dimension:
    """Return a swept override of the command line as a dimension; UserError if it cannot be one."""
    key, value = override.key_or_group, override.value()
    if isinstance(value, Sweep) and (value.tags - {LOG} or (value.tags and not isinstance(value, IntervalSweep))):
        raise UserError(Problem(key, override.get_value_string(), "tag(log,interval(…)): there is no other tag"))
    if isinstance(value, ChoiceSweep | RangeSweep) and value.shuffle:
        allowed = "values in an order that is the same when the study goes on; strategy=random tries them in any"
        raise UserError(Problem(key, override.get_value_string(), allowed))
    if isinstance(value, ChoiceSweep):
        options = override.sweep_iterator(transformer=Transformer.identity)
        return Choice(key, tuple(_plain(option) for option in options), is_group)
    if isinstance(value, RangeSweep):
        return _read_range(override, value)
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        return Interval(key, value.start, value.end, log=LOG in value.tags, is_int=whole)
    if isinstance(value, Glob):
        raise UserError(Problem(key, override.get_value_string(), "names one by one: choice(a,b,c), no pattern"))
    return Choice(key, (_plain(value),), is_group)


def _read_range(override: Override, value: RangeSweep) -> Dimension:
    """Read a range, whose stop is not in it; Hydra's own lets it in where 0.1 + 0.1 falls short of 0.2."""
    start, stop, step = (0 if item is None else item for item in (value.start, value.stop, value.step))
    count = math.ceil((stop - start) / step - 1e-9) if step else 0
    if count < 1:
        raise UserError(Problem(override.key_or_group, override.get_value_string(), "a range with something in it"))
    low, high = sorted((start, start + (count - 1) * step))
    whole = isinstance(start, int) and isinstance(step, int)
    return Interval(override.key_or_group, low, high, abs(float(step)), is_int=whole)


def as_overrides(point: Point) -> list[str]:
    """Return a point as overrides that Hydra reads back as the same values."""
    return [f"{key}={literal(value)}" for key, value in point.items()]


def literal(value: Any) -> str:
    """Return a value in Hydra's grammar; text that would be read as something else in quotes."""
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{literal(item)}' for key, item in value.items())}}}"
    if not isinstance(value, str):
        return str(Transformer.str(value)).lower() if isinstance(value, bool) else str(Transformer.str(value))
    try:
        (plain,) = OverridesParser.create().parse_overrides([f"key={value}"])
        if value and plain.value() == value and not isinstance(plain.value(), QuotedString):
            return value
    except HydraException:
        pass
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def _read(key: str, value: Any, is_group: bool) -> Dimension:
    """Read one entry: text in Hydra's grammar, a YAML list of values, or one value."""
    if isinstance(value, list):
        return Choice(key, tuple(value), is_group)
    if not isinstance(value, str):
        return Choice(key, (value,), is_group)
    try:
        (override,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        return read_sweep(override, is_group)
    except (HydraException, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        problem = Problem(f"hydra.sweeper.params.{key}", value, f"{GRAMMAR} ({str(error).splitlines()[0]})")
        raise UserError(problem) from None


def _plain(value: Any) -> Any:
    """Return a parsed value without the parser's own classes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _flat(params: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
