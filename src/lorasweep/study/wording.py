"""How keys, values, states and times are written where people read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from lorasweep.study.outcomes import State
from lorasweep.study.space import Choice, Dimension

DIGITS = 4
LONGEST = 18
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
STYLES = {
    State.RUNNING: "cyan",
    State.COMPLETE: "green",
    State.PRUNED: "yellow",
    State.OUT_OF_MEMORY: "magenta",
    State.DIVERGED: "magenta",
    State.FAILED: "bold red",
    State.HUNG: "bold red",
    State.REFUSED: "blue",
    State.INTERRUPTED: "cyan",
}


def shown(value: Any, longest: int = LONGEST) -> str:
    """Return a value in few characters: numbers with four digits, long texts and lists cut."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    if isinstance(value, list):
        words = ",".join(shown(item, longest) for item in value)
        first = words[: longest - 4].rpartition(",")[0] or shown(value[0], longest - 4) if value else ""
        return words if len(words) <= longest else f"{first},+{len(value) - first.count(',') - 1}"
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def change(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.{DIGITS}g}".replace("-", "−", 1) if value < 0 else f"{value:+.{DIGITS}g}"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a heading per dotted key: its last part where that is clear, as lora.r is r and optim.name is not name."""
    keys = list(keys)
    last = {key: key.rpartition(".")[2] for key in keys}
    often = Counter(last.values())
    return {key: key if often[name] > 1 or name in ("name", "method") else name for key, name in last.items()}


def width(dimension: Dimension) -> int:
    """Return how many characters the values of a dimension take at most."""
    if isinstance(dimension, Choice):
        return max((len(shown(option)) for option in dimension.options), default=1)
    if dimension.is_int:
        return len(str(int(dimension.high)))
    return max(len(shown(float(f"{end:.1g}") * 1.2345)) for end in (dimension.low, dimension.high))


def is_numeric(dimension: Dimension) -> bool:
    """Tell whether all values are numbers, which stand to the right of a column."""
    options = dimension.options if isinstance(dimension, Choice) else ()
    return all(isinstance(option, int | float) and not isinstance(option, bool) for option in options)


def clock(seconds: float) -> str:
    """Return a time as 0:42 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def duration(seconds: float) -> str:
    """Return a time as it is estimated: 2.5 seconds, 40 seconds, 12 minutes, 3.5 hours."""
    for size, most, name in ((1, 120, "seconds"), (60, 120, "minutes"), (3600, 48, "hours")):
        if seconds < size * most:
            digits = 1 if name == "hours" or seconds < 10 else 0
            return f"{seconds / size:.{digits}f} {name}"
    return f"{seconds / 86400:.1f} days"


def state_words(state: State) -> str:
    """Return a state as it is read."""
    return state.value.replace("_", " ")


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"


def room(size: float) -> str:
    """Return a number of bytes in its largest unit."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.3g} {unit}" if size < 999.5 * length else f"{size / length:.0f} {unit}"
    return f"{size:.0f} B"


def style_of(state: str) -> str:
    """Return the colour of a state, of trials or of runs."""
    return {item.value: style for item, style in STYLES.items()}.get(state, "yellow")


def difference(value: float) -> str:
    """Return a difference of losses or scores with its sign, and as many decimals as they have."""
    return f"{value:+.{DIGITS}f}".replace("-", "−", 1)


def interval(low: float, high: float) -> str:
    """Return an interval of such a difference."""
    return f"{difference(low)} to {difference(high)}"


def one_line(text: str) -> str:
    """Return a text without line breaks and other control characters."""
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """Return a text with pictures of the control characters that a terminal would obey."""
    return text.translate(CONTROLS)


def unframed(texts: Sequence[str]) -> list[str]:
    """Return texts in a line each, without the lines and tags that all begin and end with: a chat template's."""
    begin = end = 0
    if len(set(texts)) > 1:
        shared = texts[0][: _shared(texts)]
        begin = 1 + max(shared.rfind(mark) for mark in "\n>]")
        shared = texts[0][len(texts[0]) - _shared([text[begin:][::-1] for text in texts]) :]
        frame = re.search(r"[\n<\[]", shared)
        end = len(shared) - frame.start() if frame else 0
    return [one_line(text[begin : len(text) - end]) for text in texts]


def _shared(texts: Sequence[str]) -> int:
    """Return how many characters texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False)))
