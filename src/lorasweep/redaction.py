"""Secrets, kept out of everything that is written down."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

SECRET_NAME = re.compile(r"token|secret|passw|credential|api_?key|private|_(?:key|pass|pwd|pw)$", re.IGNORECASE)
"""Names of environment variables that hold secrets, mostly."""
SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{20,}|\bsk-[\w-]{20,}"
    r"|\bxox[abeprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{35}|(?<=Bearer )[\w.~+/=-]{8,}"
    r"|\bwandb_v1_\w{20,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
"""What the tokens of common services look like."""
USER_INFO = re.compile(
    r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)|(?<=https://)[^/\s:@'\"]{16,}(?=@)|(?<=[?&]password=)[^\s&'\"]+"
)
ASSIGNED = re.compile(
    r"((?:token|secret|credential|_key|\bapikey)['\"]?\s*[=:]\s*['\"]?)(?=[\w+/.-]*\d)([\w+/.-]{16,})", re.I
)
PASSWORD = re.compile(
    r"((?:passwo?r?d|passphrase|[_-]pass|[_-]pwd|secret|api_?key|(?:auth|access|bearer)_?token)['\"]?[ \t]*)"
    r"(?:([=:][ \t]*)(['\"])[^'\"\n]{4,}\3|(:[ \t]+|=)"
    r"(?!\w*(?:pass|secret|token|key)|[\w.]*[([.])[^\s'\",\[({]{6,}(?=\s*$))",
    re.I | re.M,
)
"""A literal that is called a secret, in quotes or, in YAML and INI files, at the end of a line; code that computes one
is none."""
SHORTEST = 8
"""Characters of a value that is looked for; shorter ones are in too many words."""
HIDDEN = "[secret]"


def redacted(text: str) -> str:
    """Return text without secrets: values of the environment that are called so, and what looks like a token."""
    for value in _environment_secrets():
        text = text.replace(value, HIDDEN)
    text = SHAPES.sub(HIDDEN, text)
    text = ASSIGNED.sub(rf"\1{HIDDEN}", USER_INFO.sub(HIDDEN, text))
    return PASSWORD.sub(_without_literal, text)


def _without_literal(found: re.Match[str]) -> str:
    name, assigned, quote, unquoted = found.groups()
    return f"{name}{assigned}{quote}{HIDDEN}{quote}" if quote else f"{name}{unquoted}{HIDDEN}"


def secret_keys(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the dotted keys of plain values under which a secret stands."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from secret_keys(value, f"{path}{name}.")
        elif any(isinstance(item, str) and _holds_secret(item) for item in _items(value)):
            yield f"{path}{name}"


def _holds_secret(text: str) -> bool:
    return bool(SHAPES.search(text) or USER_INFO.search(text) or any(item in text for item in _environment_secrets()))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _environment_secrets() -> list[str]:
    found = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    return sorted((value for value in found if not os.path.exists(value)), key=len, reverse=True)
