"""Curves in a terminal: several over one pair of axes, in braille dots, or in letters where there are no colours."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.text import Text

from lorasweep.study.wording import shown

Point = tuple[float, float]
DOTS_WIDE, DOTS_HIGH = 2, 4
BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Of a braille character from U+2800 on, by row and column of the dot."""
SMOOTH = 2
"""Characters over which a line is averaged: single steps are noise."""
MARK = "●"
SHARED = "*"
"""Stands where letters of two curves meet."""


@dataclass(frozen=True)
class Curve:
    """A line and single points beside it."""

    name: str
    """A letter, where there is more than one curve."""
    style: str
    line: Sequence[Point]
    marks: Sequence[Point] = ()

    @property
    def points(self) -> list[Point]:
        """Return all of it."""
        return [*self.line, *self.marks]


@dataclass(frozen=True)
class Plane:
    """What lies where: so many characters, over these ranges."""

    width: int
    height: int
    lowest: Point
    highest: Point
    dots: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)
    """Of every character (row, column) the bits that each curve has set."""
    marks: dict[tuple[int, int], int] = field(default_factory=dict)
    """Which curve has a mark there."""

    def draw(self, number: int, curve: Curve) -> None:
        """Draw a curve: its points joined by lines, and its marks."""
        places = [self._place(point) for point in curve.line]
        for start, end in zip(places, places[1:] or places, strict=False):
            for column, row in _between(start, end):
                self._set(number, column, row)
        for point in curve.marks:
            column, row = self._place(point)
            self.marks[row // DOTS_HIGH, column // DOTS_WIDE] = number

    def _place(self, point: Point) -> tuple[int, int]:
        """Return column and row of the dot that a point falls on, counted from the top left."""
        (left, low), (right, high) = self.lowest, self.highest
        across = (point[0] - left) / (right - left or 1.0)
        down = (high - min(point[1], high)) / (high - low or 1.0)
        return round(across * (self.width * DOTS_WIDE - 1)), round(down * (self.height * DOTS_HIGH - 1))

    def _set(self, number: int, column: int, row: int) -> None:
        bits = self.dots.setdefault((row // DOTS_HIGH, column // DOTS_WIDE), {})
        bits[number] = bits.get(number, 0) | BITS[row % DOTS_HIGH][column % DOTS_WIDE]


def plot(curves: Sequence[Curve], console: Console, width: int, height: int, across: str) -> Iterator[Text]:
    """Yield the lines of a plot: `width` characters without the numbers beside it, `across` what its axis shows."""
    last = max((x for curve in curves for x, _ in curve.points), default=0.0)
    if last <= 0:
        return
    curves = [replace(curve, line=_smooth(curve.line, last, max(width // SMOOTH, 1))) for curve in curves]
    points = [point for curve in curves for point in curve.points]
    lowest, highest = (0.0, min(y for _, y in points)), (last, max(y for _, y in points))
    plane = Plane(width, height, lowest, highest)
    for number, curve in enumerate(curves):
        plane.draw(number, curve)
    top, bottom = shown(highest[1]), shown(lowest[1])
    margin = max(len(top), len(bottom))
    in_colour = console.color_system is not None and not console.options.ascii_only
    for row in range(height):
        beside = top if row == 0 else bottom if row == height - 1 else ""
        line = Text.assemble((f"{beside:>{margin}} ", "dim"), ("|" if console.options.ascii_only else "│", "dim"))
        for column in range(width):
            line.append_text(_character(plane, curves, row, column, in_colour, console.options.ascii_only))
        line.rstrip()
        yield line
    words = f"{last:,.0f} {across}"
    yield Text(f"{'':{margin}} 0{words:>{width}}", style="dim")


def _character(plane: Plane, curves: Sequence[Curve], row: int, column: int, in_colour: bool, ascii_only: bool) -> Text:
    marked, dots = plane.marks.get((row, column)), plane.dots.get((row, column), {})
    in_letters = ascii_only or (len(curves) > 1 and not in_colour)
    if marked is not None:
        curve = curves[marked]
        return Text(curve.name.upper()[:1] or "o" if in_letters else MARK, style=curve.style)
    if not dots:
        return Text(" ")
    if in_letters:
        return Text(SHARED if len(dots) > 1 else curves[next(iter(dots))].name.lower()[:1] or ".")
    most = max(dots, key=lambda number: dots[number].bit_count())
    bits = 0
    for value in dots.values():
        bits |= value
    return Text(chr(0x2800 + bits), style=curves[most].style)


def _smooth(line: Sequence[Point], last: float, most: int) -> list[Point]:
    """Return the means of the points that fall on the same of so many stretches of equal length."""
    stretches: dict[int, list[Point]] = {}
    for point in line:
        stretches.setdefault(min(int(point[0] / last * most), most - 1), []).append(point)
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group))
        for _, group in sorted(stretches.items())
    ]


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the dots of a straight line."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(count + 1):
        yield (
            round(start[0] + (end[0] - start[0]) * step / count),
            round(start[1] + (end[1] - start[1]) * step / count),
        )
