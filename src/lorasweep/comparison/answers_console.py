"""Answers of runs to the same questions in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import BAD, GAP, GOOD, grid, heading
from lorasweep.comparison import Comparison
from lorasweep.comparison.samples import Sample
from lorasweep.comparison.tables import letters
from lorasweep.study.wording import one_line, unframed

MOST = 4
BESIDE = 50
"""Columns per run from which on answers stand side by side."""


def answers(known: Comparison, console: Console) -> Iterator[RenderableType]:
    """Yield some of the questions with what every run answered."""
    differing = sum(len(set(sample.answers)) > 1 for sample in known.samples)
    yield heading("Answers", f"to {len(known.samples)} questions, of which {differing} were answered differently")
    questions = unframed([sample.prompt for sample in known.samples])
    chosen = list(zip(questions, known.samples[:MOST], strict=False))
    named = letters(known)
    if console.width >= BESIDE * len(named):
        yield _beside(chosen, list(named.values()), console.width // 2)
        return
    for index, (question, sample) in enumerate(chosen):
        if index:
            yield ""
        asked = [("question", Text(question, style="dim")), ("expected", Text(one_line(sample.expected)))]
        yield grid([*asked, *zip(named.values(), _coloured(sample), strict=True)])


def _beside(chosen: Sequence[tuple[str, Sample]], named: Sequence[Text], room: int) -> Table:
    """Return a line per question; half of the room for it, the other half for the answers."""
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("question", no_wrap=True, overflow="ellipsis", max_width=room - GAP, style="dim")
    headings: list[str | Text] = ["expected", *named]
    for name in headings:
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=room // (1 + len(named)) - GAP)
    for question, sample in chosen:
        table.add_row(Text(question), Text(one_line(sample.expected)), *_coloured(sample))
    return table


def _coloured(sample: Sample) -> list[Text]:
    """Return the answers, right ones green."""
    return [
        Text(one_line(answer), style=GOOD if next(iter(scores.values()), 0.0) >= 1 else BAD)
        if answer.strip()
        else Text("nothing", style="dim italic")
        for answer, scores in zip(sample.answers, sample.scores, strict=True)
    ]
