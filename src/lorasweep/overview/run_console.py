"""A run in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lorasweep.blocks import BAD, DOUBT, GAP, GOOD, LABEL, commands, grid, heading, title
from lorasweep.curves import Curve, plot
from lorasweep.overview.run import RunOverview, Sample, Score
from lorasweep.study.wording import clock, difference, interval, one_line, shown, unframed, visible

WIDEST_PLOT, PLOT_HEIGHT = 72, 7
MOST_SAMPLES = 5
LONGEST_VALUE = 60


def parts(run: RunOverview, console: Console) -> Iterator[RenderableType]:
    """Yield what is to be printed of a run."""
    yield title(run.name, run.state, run.process)
    if run.error:
        yield Text(run.error, style=BAD)
    if run.log:
        yield Text("\n".join(f"  {visible(line)}" for line in run.log), style="dim")
    yield grid(_facts(run))
    if run.scores:
        yield ""
        yield _scores(run)
    if run.config:
        yield ""
        yield _config(run)
    curve = Curve("", "cyan", run.curve.training, run.curve.evaluation)
    width = min(WIDEST_PLOT, console.width - LABEL)
    if lines := list(plot([curve], console, width, PLOT_HEIGHT, "supervised tokens")):
        yield ""
        yield heading("Loss", f"line: steps; {'o' if console.options.ascii_only else '●'}: evaluation rows")
        yield from lines
    if run.samples:
        yield ""
        yield heading("Answers", f"the first of {len(run.samples)}")
        yield _samples(run.samples, console.width)
    if run.warnings:
        yield ""
        yield from (Text(f"! {words}", style=DOUBT) for words in run.warnings)
    yield ""
    yield commands(run.commands)


def _facts(run: RunOverview) -> Iterator[tuple[str, str]]:
    facts = run.facts
    yield "name", run.label
    if run.folder != run.name:
        yield "folder", run.folder
    if run.created:
        lasted = f", took {clock(run.seconds)}" if run.seconds else ""
        yield "started", f"{run.created[:16].replace('T', ' ')}{lasted}" + (f", on {run.device}" if run.device else "")
    if run.command:
        yield "command", run.command
    how = run.method
    yield "model", ", ".join(filter(None, [how["model"], how["quant"], how["precision"]]))
    yield "adapter", f"r {how['r']}, alpha {how['alpha']:g}" + _adapter_words(run)
    yield "optimizer", f"{how['optimizer']}, lr {how['lr']:g} {how['scheduler']}"
    for name, counts in run.data.items():
        yield name, _rows_words(counts)
    if "steps" in facts:
        yield "steps", _steps_words(run)
    if "memory/peak_gib" in facts:
        start, added = facts["memory/start_gib"], facts["memory/added_gib"]
        words = f"{start:.2f} with the base loaded, {added:.2f} added by training"
        yield "memory", f"{facts['memory/peak_gib']:.2f} GiB at the peak: {words}"
    if "tokens/per_second" in facts:
        took = f", {clock(facts['train/seconds'])} of training" if "train/seconds" in facts else ""
        yield "speed", f"{facts['tokens/per_second']:,.0f} tokens/s{took}"


def _adapter_words(run: RunOverview) -> str:
    size = run.facts.get("adapter/parameters")
    words = f", {size:,} parameters in {run.facts['adapter/dtypes']}" if size else ""
    return f"{words}: {run.adapter}" if run.adapter else words


def _rows_words(counts: Mapping[str, Any]) -> str:
    kept, tokens, learnt = counts["kept"], counts["tokens"], counts["supervised_tokens"]
    words = [f"{kept:,} rows", f"{tokens:,} tokens, {learnt:,} of them learnt ({learnt / max(tokens, 1):.0%})"]
    words += [f"{counts['cut']:,} cut"] if counts["cut"] else []
    words += [f"{count:,} dropped ({reason})" for reason, count in (counts["dropped"] or {}).items()]
    return ", ".join(words)


def _steps_words(run: RunOverview) -> str:
    done, tokens = run.facts["steps"], run.facts.get("tokens/supervised")
    of = f" of {run.planned_steps}" if run.planned_steps and run.planned_steps != done else ""
    words = f"{done}{of}" + (f", {tokens:,} supervised tokens" if tokens else "")
    return words + (f"; the adapter is that of step {run.kept_step}" if run.adapter and run.kept_step else "")


def _scores(run: RunOverview) -> Table:
    what = "tuned" if run.adapter else f"step {run.kept_step}"
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("", min_width=LABEL - GAP, style="dim", no_wrap=True)
    for name in ("untuned", what, "difference", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in run.scores:
        table.add_row(*_score_cells(score, run.objective))
    return table


def _score_cells(score: Score, objective: str) -> Iterator[str | Text]:
    yield f"{score.name.replace('_', ' ')}"
    yield "" if score.untuned is None else f"{score.untuned:.4f}"
    yield Text(f"{score.tuned:.4f}", style="bold" if score.name == objective else "")
    style = {True: GOOD, False: BAD, None: ""}[score.is_better]
    yield "" if score.untuned is None else Text(difference(score.tuned - score.untuned), style=style)
    yield interval(score.interval.low, score.interval.high) if score.interval else ""


def _config(run: RunOverview) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="")
    table.add_column(Text("Differs from the defaults", style="bold"), no_wrap=True)
    table.add_column("", overflow="fold")
    table.add_column("default", style="dim", no_wrap=True)
    for setting in run.config:
        default = "" if setting.default is None else shown(setting.default)
        table.add_row(setting.key, Text(shown(setting.value, LONGEST_VALUE)), default)
    return table


def _samples(samples: Sequence[Sample], room: int) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
    table.add_column("question", no_wrap=True, overflow="ellipsis", max_width=room // 2 - GAP, style="dim")
    for name in ("expected", "untuned", "tuned"):
        table.add_column(name, overflow="ellipsis", no_wrap=True, max_width=room // 6 - GAP)
    questions = unframed([sample.prompt for sample in samples])
    for question, sample in zip(questions, samples[:MOST_SAMPLES], strict=False):
        is_right = next(iter(sample.scores.values()), 0.0) >= 1
        words = (question, sample.expected, sample.untuned or "")
        tuned = Text(one_line(sample.tuned), style=GOOD if is_right else BAD)
        table.add_row(*(Text(one_line(text)) for text in words), tuned)
    return table
