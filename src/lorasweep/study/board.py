"""The leaderboard in a terminal: what fits, and what differs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.study.leaderboard import CSV, UNTUNED, Leaderboard, Row
from lorasweep.study.outcomes import State
from lorasweep.study.wording import STYLES, change, clock, short_names, shown, state_words

SHOWN_METRICS = ("eval/", "memory/peak_gib", "tokens/per_second")
PERPLEXITY = "eval/perplexity"  # a function of the loss
NUMBERS = ("rank", "trial", "difference", "seconds")
GAP = 2
MOST_REASONS = 5


def tables(board: Leaderboard, console: Console, most: int | None, says_more: bool = True) -> Iterator[RenderableType]:
    """Yield what is to be printed: what all trials share, the table, what is not in it; and where there is more."""
    if not board.rows:
        yield Text("no trials yet", style="dim")
        return
    rows = _chosen(board.rows, most)
    candidates = _candidates(board)
    may_differ = [name for name in candidates if name in (*board.varied, *board.metrics)]
    constant = {name: values[0] for name in may_differ if (values := _constant(board, name))}
    if constant:
        words = ", ".join(f"{name}={value}" for name, value in constant.items())
        yield Text(f"the same in every trial: {words}", style="dim", overflow="ellipsis")
    wanted = [name for name in candidates if name not in constant and not _is_idle(board, name)]
    columns = _fitting(board, rows, wanted, console.width)
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    names = _headings(board, columns)
    for name in columns:
        right = name in NUMBERS or _is_number(rows, name)
        table.add_column(names[name], justify="right" if right else "left", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(_cell(board, row, name) for name in columns), style="dim" if row["state"] == UNTUNED else "")
    yield table
    if rest := list(_rest(board, rows, [name for name in wanted if name not in columns], says_more)):
        yield ""
        yield from rest


def _candidates(board: Leaderboard) -> list[str]:
    metrics = [name for name in board.metrics if name.startswith(SHOWN_METRICS) and name != PERPLEXITY]
    return ["rank", "trial", "state", *board.objectives, "difference", *board.varied, *metrics, "seconds"]


def _chosen(rows: list[Row], most: int | None) -> list[Row]:
    """Return the first rows, and those that the others are compared with."""
    if most is None or len(rows) <= most:
        return rows
    anchors = [row for row in rows[most:] if row["state"] == UNTUNED or row.get("kind") == "baseline"]
    return [*rows[: most - len(anchors)], *anchors]


def _constant(board: Leaderboard, name: str) -> list[str]:
    """Return the one value that a column has in every trial; nothing if it has several."""
    trials = [row for row in board.rows if row["state"] != UNTUNED]
    values = {shown(row[name], 60) if name in row else None for row in trials}
    return [value for value in values if value is not None] if len(values) == 1 and len(trials) > 1 else []


def _is_idle(board: Leaderboard, name: str) -> bool:
    """Tell whether a column is empty, or says what the objective says."""
    if name in ("rank", "trial", "state"):
        return False
    base = board.baseline["trial"] if board.baseline else None
    having = [row for row in board.rows if name in row and not (name == "difference" and row.get("trial") == base)]
    first = board.objectives[0]
    repeats = name.startswith("eval/") and all(row.get(first) == row[name] for row in having if first in row)
    return not having or (repeats and any(first in row for row in having))


def _fitting(board: Leaderboard, rows: Sequence[Row], wanted: list[str], width: int) -> list[str]:
    """Leave out columns until the table fits: metrics first, from the right, then what varies, the widest first."""
    names = _headings(board, wanted)
    sizes = {name: max(len(part) for part in names[name].split("\n")) for name in wanted}
    for name in wanted:
        sizes[name] = GAP + max(sizes[name], *(len(_cell(board, row, name)) for row in rows))
    kept = list(wanted)
    droppable = [name for name in wanted if name in board.metrics]
    for name in (*reversed(droppable), *sorted(board.varied, key=lambda name: -sizes.get(name, 0))):
        if sum(sizes[item] for item in kept) - GAP <= width:
            break
        if name in kept:
            kept.remove(name)
    return kept


def _headings(board: Leaderboard, columns: Sequence[str]) -> dict[str, str]:
    """Return headings in two lines: sections above names."""
    fixed = {"rank": "", "difference": "vs baseline", "seconds": "time", "objective": board.judged}
    short = short_names(board.varied)
    headings = {}
    for name in columns:
        heading = fixed.get(name, short.get(name, name))
        headings[name] = heading.replace("/", "\n", 1).replace(" ", "\n", 1) if name not in short else heading
    return {name: heading.replace(".", "\n", 1) for name, heading in headings.items()}


def _is_number(rows: Sequence[Row], name: str) -> bool:
    values = [row[name] for row in rows if name in row]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _cell(board: Leaderboard, row: Row, name: str) -> Text:
    value, state = row.get(name), row["state"]
    if name == "state":
        if state == UNTUNED:
            return Text("untuned")
        is_baseline = row.get("kind") == "baseline" and state == State.COMPLETE
        words = ("baseline", "bold") if is_baseline else (state_words(State(state)), STYLES[State(state)])
        return Text.assemble(words, " ●" if row.get("front") else "")
    if name == board.objectives[0] and "reached" in row:
        return Text(shown(row["reached"]), style="dim")
    if name not in row:
        return Text("")
    if name == "seconds":
        return Text(clock(row[name]))
    if name == "difference":
        return _difference(board, row)
    style = "bold green" if name == board.objectives[0] and row.get("rank") == 1 else ""
    return Text(shown(value), style=style)


def _difference(board: Leaderboard, row: Row) -> Text:
    value = row["difference"]
    if row.get("kind") == "baseline":
        return Text("")
    is_better = value > 0 if board.directions[0] == "maximize" else value < 0
    return Text(change(value), style="green" if is_better else "")


def _rest(board: Leaderboard, rows: Sequence[Row], unseen: Sequence[str], says_more: bool) -> Iterator[Text]:
    """Yield what is not in the table, and where it is."""
    numbers = {row.get("trial") for row in rows}
    left = Counter(row["state"] for row in board.rows if row.get("trial") not in numbers)
    yield from _reasons(board.rows)
    notes = ["● on the Pareto front: no trial is better in everything"] if len(board.objectives) > 1 else []
    if left:
        notes.append("not shown: " + ", ".join(f"{count} {state_words(State(state))}" for state, count in left.items()))
    if unseen:
        notes.append(f"no room for {', '.join(unseen)}")
    if board.best and says_more:
        notes.append(f"lorasweep promote {board.folder.name}: trial {board.best['trial']} as an experiment")
    if says_more:
        notes.append(f"all of it: {os.path.relpath(board.folder / CSV)}")
    if notes:
        yield Text("\n".join(notes), style="dim")


def _reasons(rows: Sequence[Row]) -> Iterator[Text]:
    """Yield why trials came to nothing, equal reasons together."""
    together: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if "why" in row and row["state"] != State.INTERRUPTED:
            together.setdefault((row["state"], row["why"].splitlines()[0]), []).append(row["trial"])
    reasons = sorted(together.items(), key=lambda item: -len(item[1]))
    for (state, why), numbers in reasons[:MOST_REASONS]:
        some = ", ".join(map(str, numbers[:MOST_REASONS])) + ", …" * (len(numbers) > MOST_REASONS)
        trials = f"trial{'s' if len(numbers) > 1 else ''} {some} {state_words(State(state))}: "
        yield Text.assemble((trials, STYLES[State(state)]), why, no_wrap=True, overflow="ellipsis")
    if len(reasons) > MOST_REASONS:
        yield Text(f"and {len(reasons) - MOST_REASONS} other reasons", style="dim")
