"""What reproduce says: in a terminal, or nothing but JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import BAD, DOUBT, GAP, GOOD, heading
from lorasweep.places import short
from lorasweep.reproduce import Check, Reproduction
from lorasweep.reproduce.drift import Comparison, Drift
from lorasweep.reproduce.facts import Weight
from lorasweep.reproduce.steps import Difference
from lorasweep.reproduce.verdict import Verdict

STYLES = {Weight.INPUT: BAD, Weight.MEANS: DOUBT, Weight.NOTE: "dim"}
VERDICTS = {Verdict.EXACT: GOOD, Verdict.EQUIVALENT: GOOD, Verdict.DIFFERENT: BAD, Verdict.INCOMPARABLE: BAD}
EXPECTED = {
    "exact": "exact: nothing that is known is another",
    "equivalent": "equivalent at best: the same run by other means, or on a GPU without deterministic=true",
    "not comparable": "not comparable: it is another run",
}
MOST_NOTES, LONGEST = 6, 44


class Reporter:
    """Says what there is to say while a run is reproduced."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def check(self, known: Check) -> None:
        """Say what differs before the run is loaded."""
        for part in _check(known):
            self.console.print(part)

    def loaded(self, known: Check, facts: Comparison) -> None:
        """Say what else differs once it is."""
        told = {item.name for item in known.facts.drift}
        if more := [item for item in facts.drift if item.name not in told and item.weight is not Weight.NOTE]:
            self.console.print(_table(more))

    def differs(self, found: Sequence[Difference]) -> None:
        """Say at which step the numbers part."""
        self.console.print(Text(f"The first difference is at {found[0]}", style=DOUBT))
        for item in found[1:]:
            self.console.print(Text(f"  {item}", style="dim"))

    def result(self, done: Reproduction) -> None:
        """Say the verdict, and why."""
        for part in _result(done):
            self.console.print(part)


def _check(known: Check) -> Iterator[RenderableType]:
    facts = known.facts
    yield Text.assemble((known.name, "bold"), f"  {known.results.state}, in {short(known.results.folder)}")
    shown = [item for item in facts.drift if item.weight is not Weight.NOTE]
    notes = facts.of(Weight.NOTE)
    if shown or notes:
        yield _table([*shown, *notes[:MOST_NOTES]])
    if len(notes) > MOST_NOTES:
        yield Text(f"and {len(notes) - MOST_NOTES} more that change nothing by themselves: --json", style="dim")
    if facts.unknown:
        yield Text(f"not in this record, which is older: {_named(facts.unknown)}", style=DOUBT)
    if known.taken_over:
        words = " ".join(f"{name}={value}" for name, value in known.taken_over.items())
        yield Text(f"set as recorded: {words}", style="dim")
    style = {"exact": GOOD, "equivalent": DOUBT, "not comparable": BAD}[known.expected]
    yield Text.assemble("expect  ", (EXPECTED[known.expected], style))
    if facts.unchecked:
        yield Text(f"known only once it is loaded: {_named(facts.unchecked)}", style="dim")


def _result(done: Reproduction) -> Iterator[RenderableType]:
    judgement, steps = done.judgement, done.steps
    yield ""
    yield heading("Reproduction", f"{short(done.check.folder)} of {done.check.name}")
    same = [name for name, (was, now) in judgement.digests.items() if was == now]
    yield Text(
        f"compared: {steps.numbers} numbers of {len(steps.compared)} steps"
        + (f"; the same: {', '.join(same)}" if same else "")
    )
    for item in sorted(steps.largest.values(), key=lambda item: -item.size)[:3]:
        yield Text(f"largest difference of {item.name}: {item.size:.3g}, at step {item.step}", style="dim")
    yield Text.assemble(("verdict  ", "bold"), (judgement.verdict.value, VERDICTS.get(judgement.verdict, DOUBT)))
    yield from (Text(f"  {reason}") for reason in judgement.reasons)


def _table(drift: Sequence[Drift]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, GAP, 0, 0))
    for column in range(4):
        table.add_column(no_wrap=column < 2, overflow="fold")
    for item in drift:
        before, now = _pair(item)
        table.add_row(Text(item.weight.value, style=STYLES[item.weight]), item.name, Text(before), Text(f"-> {now}"))
    return table


def _pair(item: Drift) -> tuple[str, str]:
    """Return both values, hashes as far as they tell them apart."""
    return _shown(item.before), _shown(item.now)


def _shown(value: Any) -> str:
    words = "null" if value is None else " ".join(str(value).split())
    if len(words) in (40, 64) and all(letter in "0123456789abcdef" for letter in words):
        return words[:12]
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _named(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
