"""A preview as one HTML file that needs no network."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment

from lorasweep.preview import Preview
from lorasweep.preview.console import fact_words


def render(preview: Preview, command: str) -> str:
    """Return the page; `command` is what made it."""
    source = (files("lorasweep.preview") / "page.html.j2").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(preview=preview, command=command, fact_words=fact_words)
