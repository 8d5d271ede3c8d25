"""A study in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from lorasweep.blocks import BAD, DOUBT, GOOD, commands, grid, heading, title
from lorasweep.overview.study import Standing, StudyOverview
from lorasweep.study.board import tables
from lorasweep.study.wording import change, shown, style_of

BAR = 24
MOST_TRIALS = 15


def parts(study: StudyOverview, console: Console) -> Iterator[RenderableType]:
    """Yield what is to be printed of a study."""
    yield title(study.name, study.state, study.process)
    if study.ended:
        yield Text(f"not done: {study.ended}. The same command goes on with it", style=DOUBT)
    yield grid(_facts(study))
    yield ""
    yield from tables(study.leaderboard, console, MOST_TRIALS, says_more=False)
    if study.importances:
        yield ""
        yield heading("What made the difference")
        yield grid([(key, _bar(share)) for key, share in study.importances.items()])
    yield ""
    yield commands(study.commands)


def _facts(study: StudyOverview) -> list[tuple[str, str | Text]]:
    counts = Text(", ").join(
        Text(f"{count} {state.replace('_', ' ')}", style=style_of(state)) for state, count in study.trials.items()
    )
    left = f", {study.left} to come" if study.left else ""
    total = f"{study.done} of {study.total}" if study.total else str(study.done)
    rows: list[tuple[str, str | Text]] = [
        ("folder", study.folder),
        ("trials", Text.assemble(f"{total}{left}: ", counts) if study.trials else Text("none yet")),
        ("search", ", ".join(_search_words(study))),
    ]
    longest = max(map(len, study.space), default=0)
    for index, (key, space) in enumerate(study.space.items()):
        words = ", ".join(map(shown, space)) if isinstance(space, list) else space
        rows.append(("" if index else "space", f"{key:<{longest}}  {words}"))
    return [*rows, *_standings(study)]


def _search_words(study: StudyOverview) -> Iterator[str]:
    if sampler := study.search["sampler"]:
        yield sampler
    if (pruner := study.search["pruner"]) and pruner != "none":
        yield f"{pruner} ends trials early"
    for way, name in zip(study.directions, study.objectives, strict=True):
        yield f"{way} {name}"


def _standings(study: StudyOverview) -> Iterator[tuple[str, Text]]:
    """Yield the untuned model, the config as it stands and the best trial, each against the one before."""
    name = study.objectives[0]
    named = (("untuned", study.untuned), ("baseline", study.baseline), ("best", study.best))
    before: tuple[str, Standing] | None = None
    for what, standing in named:
        if standing is None or (what == "best" and standing == study.baseline):
            continue
        words = Text(f"{name} {shown(standing.values[0])}", style="bold" if what == "best" else "")
        words.append(f"  trial {standing.trial}" if standing.trial is not None else "", style="dim")
        if before:
            gain = standing.values[0] - before[1].values[0]
            is_better = gain < 0 if study.directions[0] == "minimize" else gain > 0
            style = GOOD if is_better else BAD if gain else "dim"
            words.append(f"  {change(gain)} against the {before[0]}", style=style)
        before = what, standing
        yield what, words


def _bar(share: float) -> Text:
    return Text.assemble(("━" * round(share * BAR), "cyan"), f" {share:.0%}")
