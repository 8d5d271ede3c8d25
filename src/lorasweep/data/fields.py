"""The texts of a row: columns as they are, or put together by templates."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from lorasweep.schema import Data


class BadRow(ValueError):
    """A row that cannot be rendered: the option it is about, the value found, what belongs there."""

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(allowed)


def fill(template: str, row: Mapping[str, Any], key: str) -> str:
    """Fill a template such as "{question}"; a null column is empty text beside others, an error alone."""
    names = template_columns(template)
    if names and all(row.get(name) is None for name in names):
        raise BadRow(key, template, f"text in {' or '.join(names)}; it is null")
    try:
        values = {name: row.get(name) for name in (*row, *names)}
        return template.format_map({name: "" if value is None else value for name, value in values.items()})
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise BadRow(key, template, f"a template that can be filled ({error})") from None


def template_columns(template: str) -> list[str]:
    """Return the columns a template names."""
    names = (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)
    return list(dict.fromkeys(name.split(".")[0].split("[")[0] for name in names))


def prompt_and_completion(row: Mapping[str, Any], data: Data) -> tuple[str, str]:
    """Return prompt and completion of a row, by the templates of the section `data` if it has any."""
    if data.prompt and data.completion:
        return fill(data.prompt, row, "data.prompt"), fill(data.completion, row, "data.completion")
    return plain(row, "prompt"), plain(row, "completion")


def plain(row: Mapping[str, Any], column: str) -> str:
    """Return a column that has to be text."""
    value = row.get(column)
    if not isinstance(value, str):
        raise BadRow(f"data.{column}", None, f"text in {column}; it is {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Describe a value that stands where something else belongs."""
    kind = "null" if value is None else type(value).__name__
    return kind if value is None else f"{value!r:.60} ({kind})"
