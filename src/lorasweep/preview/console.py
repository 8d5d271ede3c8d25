"""A preview in the terminal: facts, then rows with what is learnt in green."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.preview import Example, Preview, SplitFacts
from lorasweep.study.wording import visible

LEARNT, MASKED, WRONG = "bold green", "dim", "bold red"
BAR_WIDTH = 30


def show(preview: Preview, console: Console) -> None:
    """Print a preview."""
    for facts in preview.splits:
        console.print(_facts_table(facts))
        console.print()
    if packing := preview.packing:
        console.print(
            f"With data.packing=true {packing.rows:,} training rows fit into {packing.packed_rows:,} of"
            f" {packing.length:,} tokens, {packing.fill:.0%} full."
        )
    if steps := preview.steps:
        sizes = f"{steps.least:,} to {steps.most:,}"
        console.print(f"With train.tokens_per_step {steps.count:,} optimizer steps learn {sizes} tokens each.")
    console.print(Text.assemble("\nRows: ", ("learnt", LEARNT), ", ", ("not learnt", MASKED)))
    for example in preview.examples:
        console.print(_heading(example))
        console.print(_coloured(example))


def _facts_table(facts: SplitFacts) -> Table:
    table = Table(title=facts.title, title_justify="left", title_style="bold", show_header=False, box=None)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in fact_words(facts):
        table.add_row(name, Text(words, style=WRONG if words.startswith("!") else ""))
    most = max(count for _, _, count in facts.histogram)
    for first, last, count in facts.histogram:
        bar = "━" * max(round(BAR_WIDTH * count / most), bool(count))
        table.add_row(f"{first}-{last}" if last > first else str(first), Text.assemble((bar, "cyan"), f" {count:,}"))
    return table


def fact_words(facts: SplitFacts) -> list[tuple[str, str]]:
    """Return what there is to say about a split, line by line; what is wrong begins with an exclamation mark."""
    counts = facts.counts
    dropped = [f"{count:,} dropped ({reason})" for reason, count in counts.dropped.items()]
    cut = [f"{counts.cut:,} cut at max_length"] if counts.cut else []
    share = counts.supervised_tokens / counts.tokens
    lines = [
        ("rows", ", ".join([f"{counts.kept:,} of {counts.rows:,}", *cut, *dropped])),
        ("tokens", f"{counts.tokens:,}, of which {counts.supervised_tokens:,} are learnt ({share:.1%})"),
        ("stop token", _stop_words(facts)),
        ("BOS", _bos_words(facts)),
        ("length", f"{facts.shortest:,} to {facts.longest:,} tokens, median {facts.median:,}"),
    ]
    if counts.replaced_template:
        lines.append(("template", f"{counts.replaced_template:,} rows in TRL's training variant of the chat template"))
    if counts.thoughtless:
        lines.append(("thoughts", f"! the chat template leaves them out of {counts.thoughtless:,} rows"))
    if counts.also_in_train:
        lines.append(("in train", f"! {counts.also_in_train:,} of these rows are training rows too"))
    if counts.also_in_eval:
        lines.append(("in eval", f"! {counts.also_in_eval:,} of these rows are evaluation rows too"))
    return lines


def _stop_words(facts: SplitFacts) -> str:
    tokens, kept = " ".join(facts.stop_tokens), facts.counts.kept
    if facts.stopping == kept:
        return f"yes, {tokens} is learnt at the end of every row"
    others = f" ({tokens} in the others)" if tokens else ""
    return f"! {kept - facts.stopping:,} of {kept:,} rows do not learn to stop{others}"


def _bos_words(facts: SplitFacts) -> str:
    if facts.bos_doubled:
        return f"! {facts.bos_doubled:,} rows begin with two"
    each = str(facts.bos_least) if facts.bos_least == facts.bos_most else f"{facts.bos_least} to {facts.bos_most}"
    return f"{each} per row"


def _heading(example: Example) -> Text:
    lost = f", {example.cut:,} more cut off" if example.cut else ""
    words = f"{example.tokens:,} tokens, {example.supervised:,} learnt{lost}"
    return Text(f"\n{example.split} row {example.number + 1}: {words}", style="bold")


def _coloured(example: Example) -> Text:
    text = Text()
    for piece, learnt in example.pieces:
        text.append(visible(piece), style=LEARNT if learnt else MASKED)
    text.rstrip()
    if example.cut:
        text.append(f" … {example.cut:,} tokens cut off", style=WRONG)
    return text
