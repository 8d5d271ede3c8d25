"""A running study in a terminal: how far it is, the best so far, what runs now and what ended last."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import live
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.study.definition import Definition
from lorasweep.study.leaderboard import Leaderboard, show
from lorasweep.study.outcomes import State
from lorasweep.study.trial import Trial
from lorasweep.study.view import ending, header
from lorasweep.study.wording import STYLES, clock, is_numeric, short_names, shown, state_words, width

SECONDS_BETWEEN_DRAWINGS = 0.125
MOST_FINISHED = 8
LEAST_FINISHED = 2
LINES_AROUND = 10
"""What is drawn besides trials, and a free line for what is typed."""
GAP = 2
NUMBER = 6
"""Least width of an objective."""
BAR = 10
HINT = "Ctrl-C: finish the running trials and end; twice: stop them now. The same command goes on"


@dataclass
class Running:
    """A trial that runs and how far it is."""

    trial: Trial
    started: float
    step: int = 0
    total: int = 0
    value: float | None = None

    @property
    def share(self) -> float:
        """Return how much of it is done."""
        return self.step / self.total if self.total else 0.0


class Live:
    """Draws the study anew a few times a second, at the foot of the terminal; what is said scrolls by above it."""

    def __init__(self, console: Console, definition: Definition) -> None:
        self.console, self.definition = console, definition
        self.maximises = definition.directions()[0] == "maximize"
        self.objectives = [name.rpartition("/")[2] for name in definition.objective_names()]
        self.total = definition.total()
        self.slots, self.began, self.drawn = 1, time.monotonic(), 0.0
        self.running: dict[int, Running] = {}
        self.finished: dict[int, Trial] = {}
        """By number, those that ended last at the end; with trials that wait to be run again."""
        self.last: dict[int, float | None] = {}
        """What a trial of this session reported last."""
        self.live: live.Live | None = None
        keys = [dimension.key for dimension in definition.space]
        self.names = short_names(keys)
        self.numbers = {dimension.key for dimension in definition.space if is_numeric(dimension)}
        self.widths = {item.key: max(width(item), len(self.names[item.key])) for item in definition.space}

    def begin(self, slots: int) -> None:
        """Print what is searched, and begin to draw."""
        self.slots, self.began = slots, time.monotonic()
        self.console.print(header(self.definition, slots))
        # no thread of its own: tick() draws
        self.live = live.Live(
            self.draw(), console=self.console, auto_refresh=False, transient=True, vertical_overflow="crop"
        )
        self.live.start(refresh=True)

    def started(self, trial: Trial, slot: int) -> None:
        """Show a trial among those that run."""
        self.finished.pop(trial.number, None)
        self.running[trial.number] = Running(trial, time.monotonic())

    def step(self, number: int, step: int, total: int) -> None:
        """Move a trial's bar."""
        if running := self.running.get(number):
            running.step, running.total = step, total

    def reported(self, number: int, value: float) -> None:
        """Show a trial's last value."""
        if running := self.running.get(number):
            running.value = value

    def ended(self, trial: Trial) -> None:
        """Show what came of a trial; what is wrong with it stays on the screen."""
        ran_now = self.running.pop(trial.number, None)
        self.finished.pop(trial.number, None)
        self.finished[trial.number] = trial
        self.last[trial.number] = ran_now.value if ran_now else None
        if ran_now and (trial.state.is_failure or (trial.state is State.INTERRUPTED and trial.reason != "stopped")):
            what, _, why = ending(trial).partition(": ")
            self.console.print(Text.assemble((what, STYLES[trial.state]), f": {why}"), soft_wrap=True)

    def seen(self, trial: Trial) -> None:
        """Show what came of a trial elsewhere, if anything did yet."""
        self.running.pop(trial.number, None)
        if trial.state.is_finished:
            self.ended(trial)

    def say(self, text: str) -> None:
        """Print a line above what is drawn."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        """Draw, unless that has just been done."""
        now = time.monotonic()
        if self.live and now - self.drawn >= SECONDS_BETWEEN_DRAWINGS:
            self.drawn = now
            self.live.update(self.draw(), refresh=True)

    def end(self, board: Leaderboard | None = None) -> None:
        """Take away what was drawn and print the best trials."""
        if self.live:
            self.live.stop()
            self.live = None
        if board:
            self.console.print()
            show(board, self.console)

    def draw(self) -> RenderableType:
        """Return the study as it is now."""
        hint = Text(HINT if self.console.width > len(HINT) else HINT.partition(".")[0], style="dim", no_wrap=True)
        return Group("", self._progress(), self._counts(), *self._best(), "", self._trials(), "", hint)

    def _progress(self) -> RenderableType:
        done = self._done()
        times = clock(time.monotonic() - self.began)
        if (left := self.seconds_left()) is not None:
            times += f", about {clock(left)} left"
        numbers = f"{done}/{self.total}" if self.total else f"{done}"
        label, tail = f"{shown(self.definition.name, 30)}  ", f"  {numbers} trials  {times}"
        share = (done + sum(running.share for running in self.running.values())) / self.total if self.total else 0.0
        room = max(BAR, self.console.width - len(label) - len(tail) - 1)
        drawn = Text.assemble((label, "bold"), self._bar(share, room), f"  {numbers} trials", (f"  {times}", "dim"))
        drawn.no_wrap = True
        return drawn

    def _counts(self) -> Text:
        counts = Counter(trial.state for trial in self.finished.values())
        parts = [(f"{len(self.running)} running", STYLES[State.RUNNING])] if self.running else []
        parts += [(f"{counts[state]} {state_words(state)}", STYLES[state]) for state in State if counts[state]]
        words = Text("  ").join(Text(text, style=style) for text, style in parts)
        return words if parts else Text("checking the configs, loading the model", style="dim")

    def _best(self) -> Iterator[Text]:
        """Yield the best value so far, against the baseline, and what it was reached with."""
        best = self._best_trial()
        if best is None:
            return
        assert best.value is not None
        reached = zip(self.objectives, best.values or [], strict=False)
        first, *others = (f"{name} {shown(value)}" for name, value in reached)
        line = Text.assemble(("best  ", "dim"), (first, "bold green"), *(f", {text}" for text in others))
        line.append(f"  trial {best.number}")
        base = next((trial.value for trial in self.finished.values() if trial.kind == "baseline"), None)
        if best.kind == "baseline":
            line.append(", the config as it stands", style="dim")
        elif base is not None and (better := best.value - base if self.maximises else base - best.value) > 0:
            share = f" ({better / abs(base):.1%})" if base else ""
            line.append(f", {shown(better)}{share} better than the baseline", style="green")
        values = [f"{name} {shown(best.point[key])}" for key, name in self.names.items() if key in best.point]
        for text in (line, Text("      " + ", ".join(values), style="dim")):
            text.no_wrap, text.overflow = True, "ellipsis"
            yield text

    def _best_trial(self) -> Trial | None:
        complete = [trial for trial in self.finished.values() if trial.value is not None]
        better = max if self.maximises else min
        return better(complete, key=lambda trial: trial.value or 0.0) if complete else None

    def _trials(self) -> Table:
        """Return trials that run, and below them those that ended last, as many as there is room for."""
        room = max(2, self.console.height - LINES_AROUND)
        ended = list(reversed(self.finished.values()))
        most = room - min(LEAST_FINISHED, len(ended), room // 4)
        running = sorted(self.running.values(), key=lambda item: item.trial.number)
        hidden = len(running) - most + 1 if len(running) > most else 0
        running = running[: len(running) - hidden]
        ended = ended[: min(MOST_FINISHED, room - len(running) - bool(hidden))]
        state, objectives, keys = self._columns()
        shows = bool(running or ended)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim", show_header=shows)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("", min_width=state, no_wrap=True)
        for name in self.objectives[:objectives]:
            table.add_column(name, justify="right", min_width=NUMBER, no_wrap=True)
        for key in keys:
            justify: JustifyMethod = "right" if key in self.numbers else "left"
            table.add_column(self.names[key], min_width=self.widths[key], no_wrap=True, justify=justify)
        table.add_column("time", justify="right", min_width=5, no_wrap=True)
        for item in running:
            shape = [self._how_far(item, state), *_numbers([item.value], objectives, "dim")]
            self._add(table, item.trial, shape, keys, time.monotonic() - item.started)
        if hidden:
            table.add_row("", Text(f"{hidden} more run", style="dim"))
        best = self._best_trial()
        for trial in ended:
            seconds = trial.facts.get("seconds_in_slot")
            words = Text(state_words(trial.state), style=STYLES[trial.state])
            words.append(" baseline" if trial.kind == "baseline" else "", style="dim")
            last = trial.value is None  # then what it reported last is shown
            values = [self.last.get(trial.number)] if last else trial.values or []
            style = "bold green" if trial is best else "dim" if last else ""
            self._add(table, trial, [words, *_numbers(values, objectives, style)], keys, seconds)
        return table

    def _add(self, table: Table, trial: Trial, shape: list[Text], keys: list[str], seconds: float | None) -> None:
        values = (shown(trial.point[key]) if key in trial.point else "" for key in keys)
        table.add_row(str(trial.number), *shape, *values, "" if seconds is None else clock(seconds))

    def _columns(self) -> tuple[int, int, list[str]]:
        """Return how wide a trial's state may be, and how many objectives and which values there is room for."""
        state = len("complete baseline")
        room = self.console.width - (5 + state + 5) - 2 * GAP
        objectives, chosen = 0, set()
        for name in self.objectives:  # the first in any case
            if objectives and room < max(NUMBER, len(name)) + GAP:
                break
            room -= max(NUMBER, len(name)) + GAP
            objectives += 1
        for key in sorted(self.names, key=lambda key: self.widths[key]):  # the narrow ones: as many as fit
            if room < self.widths[key] + GAP:
                break
            room -= self.widths[key] + GAP
            chosen.add(key)
        return state + min(room, 12), objectives, [key for key in self.names if key in chosen]

    def _how_far(self, item: Running, room: int) -> Text:
        if not item.total:
            return Text("starting", style="dim")
        steps = f"{item.step:>{len(str(item.total))}}/{item.total}"
        return self._bar(item.share, room - len(steps) - 1).append(f" {steps}")

    def _bar(self, share: float, room: int) -> Text:
        full, rest = ("=", "-") if self.console.options.ascii_only else ("━", "━")
        done = round(min(max(share, 0.0), 1.0) * room)
        rest = rest if self.console.color_system else " "  # one sign in two colours, where there are any
        return Text.assemble((full * done, "cyan"), (rest * (room - done), "grey30"))

    def _done(self) -> int:
        return sum(trial.state.is_finished and trial.kind != "added" for trial in self.finished.values())

    def seconds_left(self) -> float | None:
        """Return an estimate from how long trials took, early ends among them; None before there is one to go by."""
        took = [trial.facts.get("seconds_in_slot") for trial in self.finished.values()]
        known: list[float] = [seconds for seconds in took if seconds]
        if not known or self.total is None:
            return None
        mean, now = sum(known) / len(known), time.monotonic()
        rest = [max(mean - (now - running.started), 0.0) for running in self.running.values()]
        waiting = max(self.total - self._done() - len(self.running), 0)
        shared = (sum(rest) + waiting * mean) / min(self.slots, max(waiting + len(rest), 1))
        return max([shared, *rest])


def _numbers(values: Sequence[float | None], count: int, style: str) -> list[Text]:
    """Return so many cells for the values there are, the first in a style."""
    first, *others = ["" if value is None else shown(value) for value in values]
    return [Text(first, style), *map(Text, others), *[Text()] * (count - len(values))][:count]
