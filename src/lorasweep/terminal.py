"""What a run shows: who it is, a progress bar, a summary, answers before and after."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorasweep.data import Split
from lorasweep.device import Device
from lorasweep.doubts import config_doubts, split_doubts
from lorasweep.evaluation import Scores
from lorasweep.processes.group import current
from lorasweep.schema import Run
from lorasweep.stream_steps import AnyPlan

log = logging.getLogger("lorasweep")


class Terminal:
    """Prints to the console, unless quiet, and keeps every line in the run's log too."""

    def __init__(self, verbosity: str) -> None:
        self.console = Console(quiet=verbosity == "quiet", highlight=False)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(text, style=style, markup=False)
        log.info(text)

    def header(
        self,
        run: Run,
        splits: Mapping[str, Split],
        plan: AnyPlan | None,
        trainer: Any,
        device: Device,
        folder: Path,
    ) -> None:
        """Say what is about to be trained, on what, where."""
        trainable, total = trainer.model.get_nb_trainable_parameters()
        quant, optim, scheduler = run.quant, run.optim, run.scheduler
        others = f", for each of {size} processes" if (size := current().size) > 1 else ""
        rows = [
            (
                "model",
                f"{run.model.name}, {quant.method}{' double' * quant.double_quant}, {device.facts()['precision']}",
            ),
            ("adapter", f"r {run.lora.r}, alpha {run.lora.effective_alpha:g}, {trainable:,} of {total:,} parameters"),
            ("optimizer", f"{optim.name}, lr {optim.lr:g} {scheduler.name}, {trainer.args.max_steps} steps"),
            ("device", f"{device.name}, {device.memory_gib:.0f} GiB{', deterministic' * run.deterministic}{others}"),
            ("engine", str(trainer.engine)),
            *((name, _counted(split)) for name, split in splits.items()),
            ("folder", os.path.relpath(folder)),
        ]
        if plan and (given := run.train.tokens_per_step):
            asked = given if given == "auto" else f"{given:,}"
            rows.insert(
                3,
                (
                    "tokens/step",
                    f"{plan.tokens_per_step:,.0f} supervised (asked {asked})",
                ),
            )
        for line in config_doubts(run):
            self.say(line)
        if run.model.trust_remote_code:
            self.say("model.trust_remote_code: running Python code that came with the model", style="bold red")
        self._table("", rows)
        for name, split in splits.items():
            for line in split_doubts(name, asdict(split.counts)):
                self.say(line, style="yellow")

    def summary(self, summary: Mapping[str, Any], device: Device, folder: Path) -> None:
        """Show what came of the run."""
        added = "activations, gradients, optimizer and adapter together"
        memory = "GPU memory reserved" if device.is_gpu else "resident memory"
        rows = [
            (memory, f"{summary['memory/start_gib']:.2f} GiB with the base loaded, {summary['memory/peak_gib']:.2f} GiB"
                     f" at the peak ({summary['memory/peak_share']:.1%} of {device.memory_gib:.0f} GiB)"),
            ("training added", f"{summary['memory/added_gib']:.2f} GiB ({summary['memory/added_share']:.1%}): {added}"),
            *self._predicted(summary),
            ("time", f"{summary['train/seconds']:.1f} s for {summary['steps']} steps"),
            ("speed", f"{summary['tokens/per_second']:,.0f} tokens/s,"
                      f" {summary['tokens/supervised_per_second']:,.0f} supervised"),
            ("adapter", f"{os.path.relpath(folder)}/adapter, {summary['adapter/dtypes']}"),
        ]  # fmt: skip
        for name in [name for name in summary if name.startswith("eval/") and name != "eval/perplexity"]:
            before = f"{summary[f'untuned/{name}']:.3f} -> " if f"untuned/{name}" in summary else ""
            words = {"loss": "evaluation loss"}.get(name[5:], name[5:].replace("_", " "))
            rows.insert(0, (words, f"{before}{summary[name]:.3f}"))
        self.console.print()
        self._table("Summary", rows)

    def _predicted(self, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if "memory/allocated_gib" in summary and (seen := summary.get("memory/predicted_seen_gib")):
            allocated = summary["memory/allocated_gib"]
            yield (
                "memory allocated",
                f"{allocated:.2f} GiB at the peak, {seen:.2f} predicted ({seen / allocated - 1:+.1%})",
            )

    def answers(self, before: Scores | None, after: Scores | None, most: int = 8) -> None:
        """Show answers of the untuned and of the tuned model side by side."""
        if not after or not after.answers:
            return
        self.console.print()
        table = Table(title="Answers", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for heading in ("expected", "before", "after"):
            table.add_column(heading, max_width=36, overflow="ellipsis", no_wrap=True)
        for index, answer in enumerate(after.answers[:most]):
            untuned = before.answers[index].generated if before else ""
            style = "green" if next(iter(answer.scores.values()), 0) >= 1 else "red"
            table.add_row(
                Text(_line(answer.expected)), Text(_line(untuned)), Text(_line(answer.generated), style=style)
            )
        self.console.print(table)

    def _table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        table = Table(
            title=title or None,
            title_justify="left",
            title_style="bold",
            show_header=False,
            box=None,
            padding=(0, 2, 0, 0),
        )
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(name, Text(value))
            log.info("%s: %s", name, value)
        self.console.print(table)


class ProgressBar(TrainerCallback):
    """A bar with loss, tokens per second and the time left; plain lines where the output is no terminal."""

    def __init__(self, terminal: Terminal, total_steps: int) -> None:
        self.terminal, self.total, self.next_line = terminal, total_steps, 0
        self.live = terminal.console.is_terminal and not terminal.console.quiet
        self.progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=terminal.console, transient=True,
        )  # fmt: skip
        self.task = self.progress.add_task("training", total=total_steps, numbers="")

    def show(self, step: int, numbers: Mapping[str, float]) -> None:
        """Show the latest numbers."""
        words = f"loss {numbers['train/loss']:.3f}  {numbers['tokens/per_second']:,.0f} tokens/s"
        self.progress.update(self.task, completed=step, numbers=words)
        if not self.live and (step >= self.next_line or step == self.total):
            self.terminal.say(f"step {step}/{self.total}  {words}")
            self.next_line = step + max(1, self.total // 10)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar, of a run that is resumed where it was."""
        self.progress.update(self.task, completed=state.global_step)
        if self.live:
            self.progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=state.global_step)

    def stop(self) -> None:
        """Take the bar away."""
        if self.live:
            self.progress.stop()


def _counted(split: Split) -> str:
    counts, start = split.counts, "read as they come, the first: " if split.stream else ""
    words = [f"{start}{counts.kept} rows", f"{counts.supervised_tokens:,} of {counts.tokens:,} tokens supervised"]
    words += [f"{counts.cut} cut"] if counts.cut else []
    words += [f"{count} dropped ({reason})" for reason, count in counts.dropped.items()]
    words += [f"{counts.replaced_template} in TRL's variant of the chat template"] if counts.replaced_template else []
    words += [f"{counts.also_in_train} also in train"] if counts.also_in_train else []
    return ", ".join(words)


def _line(text: str) -> str:
    return " ".join(text.split())
