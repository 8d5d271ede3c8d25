"""What the command `memory` prints: the peak of a run, part by part, and what it would be otherwise."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.device import GIB
from lorasweep.memory.outlook import Outlook
from lorasweep.memory.prediction import CONTEXT_GIB

PARTS = {
    "at work": "for a while, in one layer or the optimizer",
    "one layer again": "activations of the layer whose turn it is",
}


def show(outlook: Outlook, as_json: bool) -> None:
    """Print what is ahead of a run."""
    if as_json:
        print(json.dumps(outlook.facts(), indent=1))
        return
    console = Console(highlight=False)
    run, prediction, peak = outlook.run, outlook.prediction, outlook.prediction.peak
    batch, device = outlook.batch, outlook.card
    precision = str(device.precision).removeprefix("torch.")
    for line in (
        f"{run.model.name}, {run.quant.method}, {precision}, r {run.lora.r}, {run.optim.name}",
        f"{batch.rows} x {batch.length:,} tokens in a pass; {outlook.engine}; {outlook.again}",
    ):
        console.print(Text(line))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, size in peak.parts.items():
        if size:
            table.add_row(Text(PARTS.get(name, name)), f"{size / GIB:.2f}")
    table.add_row(Text(f"peak, {peak.name}", style="bold"), Text(f"{peak.total / GIB:.2f} GiB", style="bold"))
    table.add_row("fragments, about", f"{prediction.needed_gib - prediction.allocated_gib - CONTEXT_GIB:.2f}")
    table.add_row("CUDA itself, about", f"{CONTEXT_GIB:.2f}")
    table.add_row(Text("a GPU needs", style="bold"), Text(f"{prediction.needed_gib:.2f} GiB", style="bold"))
    console.print(table)
    if prediction.paged:
        console.print(
            Text(f"and {prediction.paged / GIB:.2f} GiB that CUDA pages to the host when it must", style="dim")
        )
    others = {"none": 0, "every 4th": 4, "every 2nd": 2, "all": 1}
    words = [f"{name} {outlook.otherwise(every).needed_gib:.1f}" for name, every in others.items()]
    console.print(Text(f"by layers computed again: {', '.join(words)} GiB", style="dim"))
    if outlook.wont_fit:
        console.print(Text(f"It does not fit: {outlook.wont_fit}", style="bold red"))
    elif run.train.fit:
        console.print(Text(f"It fits: {outlook.chosen()}", style="bold green"))
