"""A page as one HTML file: template, style, scripts and data put together."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from jinja2.utils import htmlsafe_json_dumps

SCRIPTS = (
    "study", "format", "columns", "scale", "filter", "choice", "elements", "axes", "marks", "pointing", "figure",
    "headline", "certainty", "table", "history", "curves", "parallel", "brush", "importance", "slices", "tradeoff",
    "slots", "comparison", "rows", "answers", "ends", "follow", "main",
)  # fmt: skip
"""In the order in which they are put together."""


def render(data: Mapping[str, Any], reload: float | None = None) -> str:
    """Return the page; with `reload` it loads itself again after so many seconds."""
    folder = files("lorasweep.report")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (folder / "page.html.j2").read_text(encoding="utf-8")
    )
    scripts = [(folder / "script" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return template.render(
        name=data["name"],
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script="\n".join(scripts),
        # no < of a value can end the script element
        data=htmlsafe_json_dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False),
        reload=reload,
    )
