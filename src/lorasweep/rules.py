"""What a config value may be: rules declared beside dataclass fields, and the check of plain values against them."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import string
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config: dotted key, the value given, what is allowed, where it came from."""

    key: str
    value: Any
    allowed: str
    nearest: str | None = None
    source: str | None = None

    def __str__(self) -> str:
        lines = [self.key if self.value is MISSING else f"{self.key} = {self.value!r}", f"  {self.allowed}"]
        if self.nearest:
            lines.append(f"  did you mean {self.nearest!r}?")
        if self.source:
            lines.append(f"  from {self.source}")
        return "\n".join(lines)


MISSING: Any = dataclasses.MISSING


class UserError(ValueError):
    """Something the user can mend; shown without a traceback, exit code 2."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[UserError], tuple[list[Problem]]]:
        """Carry the problems, not the text, between processes."""
        return UserError, (self.problems,)


@contextmanager
def user_errors() -> Iterator[None]:
    """Print a user's mistakes as blocks and exit with 2, without a traceback."""
    try:
        yield
    except UserError as error:
        count = len(error.problems)
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of the processes of torchrun one finds what all find
            print(f"{count} problem{'s' if count > 1 else ''}:\n\n{error}", file=sys.stderr)
        raise SystemExit(2) from None


@dataclass(frozen=True)
class Rule:
    """What is allowed, in words, and the test of it."""

    allowed: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def choice(default: Any, *names: str) -> Any:
    """Declare a field that takes one of a few names."""
    rule = Rule("one of " + ", ".join(names), lambda value: value in names, names)
    return field(default=default, metadata={"rule": rule})


def number(
    default: Any = MISSING,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a finite number field within bounds; `above` and `below` do not belong to the range."""
    words = [
        f"{sign} {bound:g}"
        for sign, bound in (("at least", least), ("above", above), ("at most", most), ("below", below))
        if bound is not None
    ]

    def holds(value: float) -> bool:
        return (
            math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )

    return field(default=default, metadata={"rule": Rule(" and ".join(words) or "finite", holds)})


def satisfying(default: Any, allowed: str, holds: Callable[[Any], bool]) -> Any:
    """Declare a field with a rule of its own; `holds` is not called for None where the field may be null."""
    if callable(default):
        return field(default_factory=default, metadata={"rule": Rule(allowed, holds)})
    return field(default=default, metadata={"rule": Rule(allowed, holds)})


def text_or_names(value: Any) -> bool:
    """Tell whether a value is a text or a list of texts, none of them empty."""
    return (isinstance(value, str) and bool(value.strip())) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, str) and item for item in value)
    )


def is_switch(value: Any) -> bool:
    """Tell whether a value is auto, true or false."""
    return value == "auto" or isinstance(value, bool)


def is_memory(value: str) -> bool:
    """Tell whether a text is an amount of memory, such as 16GiB, or that of another GPU: 16GiB@sm75."""
    return bool(re.fullmatch(r"\d+(\.\d+)?(GiB|GB)(@sm\d{2,3})?", value)) and float(re.split("G", value)[0]) > 0


def is_template(value: str) -> bool:
    """Tell whether a text is a template over columns, each named in braces."""
    try:
        return all(name is None or re.match(r"[^\W\d]", name) for _, name, _, _ in string.Formatter().parse(value))
    except ValueError:
        return False


def is_date(value: str) -> bool:
    """Tell whether a text is a day, such as 2024-07-26."""
    try:
        return bool(date.fromisoformat(value))
    except ValueError:
        return False


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name closest to a misspelt one."""
    return next(iter(difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)), None)


def check(values: Mapping[str, Any], section: type, path: str = "") -> Iterator[Problem]:
    """Yield every unknown key, wrong type and broken rule in `values`, a plain tree meant for dataclass `section`."""
    hints = get_type_hints(section)
    fields = {item.name: item for item in dataclasses.fields(section)}
    for name, value in values.items():
        key = f"{path}{name}"
        if name not in fields:
            where = f"in {path[:-1]!r}" if path else "at the top level"
            yield Problem(key, value, f"no such key {where}; known: {', '.join(fields)}", nearest(name, fields))
            continue
        kind, rule = hints[name], fields[name].metadata.get("rule")
        if dataclasses.is_dataclass(kind):
            if isinstance(value, Mapping):
                yield from check(value, kind, f"{key}.")  # type: ignore[arg-type]
            else:
                yield Problem(key, value, f"a section with {', '.join(f.name for f in dataclasses.fields(kind))}")
        elif not fits(value, kind):
            yield Problem(key, value, allowed_words(kind, rule))
        elif value is not None and rule is not None and not rule.holds(value):
            yield Problem(key, value, allowed_words(kind, rule), nearest(value, rule.names))


def build(values: Mapping[str, Any], section: type, skip: set[str], path: str = "") -> Any:
    """Build dataclass `section` from plain values, leaving the default in place of every dotted key in `skip`."""
    hints = get_type_hints(section)
    known: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        kind, key = hints[item.name], path + item.name
        value = values.get(item.name, MISSING)
        if dataclasses.is_dataclass(kind):
            known[item.name] = build(value if isinstance(value, Mapping) else {}, kind, skip, f"{key}.")  # type: ignore[arg-type]
        elif value is not MISSING and key not in skip:
            known[item.name] = float(value) if float in members(kind) and isinstance(value, int | float) else value
    return section(**known)


def members(kind: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def fits(value: Any, kind: Any) -> bool:
    """Tell whether a plain YAML value belongs to a type: True is no number, 4.5 no int, a whole number is a float."""
    if kind is Any:
        return True
    if get_origin(kind) in (Union, types.UnionType):
        return any(fits(value, member) for member in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


WORDS = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null"}


def allowed_words(kind: Any, rule: Rule | None) -> str:
    """Say what a field takes: `a whole number, finite and at least 1`."""
    words = [WORDS.get(member) or str(member) for member in members(kind) if member is not Any]
    if rule is not None and rule.names:
        words = [word for word in words if word != "text"]
        return " or ".join([rule.allowed, *words])
    return ", ".join(filter(None, [" or ".join(words), rule.allowed if rule else ""]))
