"""The command evaluate: the untuned base and the adapter on the same rows, and how sure the difference is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from lorasweep import lora, results, saved
from lorasweep.data import build_datasets, fingerprint
from lorasweep.device import Device
from lorasweep.evaluation import Evaluator, Scores
from lorasweep.local_files import absolute
from lorasweep.model import build_config, build_tokenizer, context_length
from lorasweep.paired import Difference, paired_difference
from lorasweep.record import slug, write_json
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data, Run

SPLITS = ("eval", "test", "train")


@dataclass(frozen=True)
class Assessment:
    """What was scored, where it is written, and both scores."""

    run: str
    rows: str
    count: int
    rows_of_training: bool | None
    """Whether the rows are, token by token, those the run recorded under this name; None for rows of a file."""
    path: Path
    untuned: Scores
    tuned: Scores

    @property
    def difference(self) -> Difference | None:
        """Return the paired difference in loss; None for a single row."""
        return paired_difference(self.untuned, self.tuned)

    def values(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "run": self.run,
            "rows": self.rows,
            "count": self.count,
            "rows_of_training": self.rows_of_training,
            "difference": asdict(self.difference) if self.difference else None,
            "untuned": {**self.untuned.metrics(), **asdict(self.untuned)},
            "tuned": {**self.tuned.metrics(), **asdict(self.tuned)},
        }


def assess(
    folder: Path, run: Run, split: str = "eval", data: Path | None = None, max_samples: int | None = None
) -> Assessment:
    """Score the rows of a split, or of a file, with and without the adapter; writes RUN/evaluations/<rows>.json."""
    run = run if data is None else replace(run, data=only_file(run.data, data))
    target = saved.results_folder(folder) / f"{_name(split, data)}.json"
    tokenizer = build_tokenizer(run.model)
    rows, own = rows_of(run, folder, tokenizer, "train" if data else split)
    settings = replace(run.evaluation, max_samples=max_samples)
    device = Device.current(run.model.dtype)
    evaluator = Evaluator(rows, tokenizer, settings, device)
    model = saved.load(run, folder, device)
    with lora.untuned(model):
        untuned = evaluator(model)
    tuned = evaluator(model)
    place = str(data) if data else split
    known = None if data else own
    result = Assessment(folder.resolve().name, place, len(tuned.row_losses), known, target, untuned, tuned)
    write_json(target, result.values())
    return result


def rows_of(run: Run, folder: Path, tokenizer: PreTrainedTokenizerBase, split: str) -> tuple[Dataset, bool]:
    """Return the tokenised rows of a split, and whether they are those that the run recorded under this name."""
    splits = build_datasets(run.data, tokenizer, context_length(build_config(run.model)))
    if split not in splits:
        allowed = (
            f"a split the run has: {', '.join(splits)}. Rows that training has not seen come with --data FILE;"
            f" a new run holds some out with data.{split}_fraction=0.1"
        )
        raise UserError(Problem("--split", split, allowed))
    recorded = results.read_json(folder / "record.json").get("data", {}).get("splits", {}).get(split, {})
    found = fingerprint(run.data, {split: splits[split]})["splits"][split]
    return splits[split].rows, recorded.get("sha256") == found["sha256"]


def only_file(data: Data, file: Path) -> Data:
    """Return the section `data` for all rows of one file, rendered as the run's own."""
    elsewhere = (
        "path", "subset", "revision", "eval_split", "test_split", "eval_files", "test_files", "eval_rows", "test_rows",
        "limit",
    )  # fmt: skip
    whole: dict[str, Any] = {**dict.fromkeys(elsewhere), "eval_fraction": 0.0, "test_fraction": 0.0, "streaming": False}
    return replace(data, source="files", files=[absolute(str(file))], **whole)


def show(result: Assessment, as_json: bool) -> None:
    """Print the scores as a table, or as JSON alone."""
    if as_json:
        print(json.dumps(result.values(), indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False)
    table = Table(title=f"{result.run}: {result.count} rows of {result.rows}", title_justify="left", box=None)
    for heading in ("", "untuned", "tuned", "difference", "95 % interval"):
        table.add_column(heading, justify="left" if not heading else "right")
    before, after = result.untuned.metrics(), result.tuned.metrics()
    for name, value in after.items():
        change = result.difference if name == "eval/loss" else None
        interval = f"{change.low:+.4f} to {change.high:+.4f}" if change else ""
        words = name.removeprefix("eval/").replace("_", " ")
        table.add_row(words, f"{before[name]:.4f}", f"{value:.4f}", f"{value - before[name]:+.4f}", interval)
    console.print(table)
    if result.rows_of_training is False:
        console.print(Text(f"These are not the rows the run recorded as {result.rows}: data or overrides differ, and"
                           " training may have seen them.", style="bold red"))  # fmt: skip
    elif result.rows == "train":
        console.print("Training has seen these rows.", style="dim")
    console.print(Text(f"Row by row: {result.path}"), style="dim")


def _name(split: str, data: Path | None) -> str:
    if data is None:
        return split
    stem = slug(data.stem) or "rows"
    return f"{stem}-file" if stem in SPLITS else stem
