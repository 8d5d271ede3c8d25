"""The command lm-eval: EleutherAI's evaluation harness on the model of a run as it was trained."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep import lora, saved
from lorasweep.device import Device
from lorasweep.model import build_tokenizer
from lorasweep.record import slug, write_json
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.schema import Run


def measure(
    run: Run,
    folder: Path,
    tasks: Sequence[str],
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    base: bool = False,
    chat_template: bool = False,
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Run tasks of the harness; returns the file they are written to and the results by model and task."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=str(include_path) if include_path else None)
    _check_tasks(tasks, manager.all_tasks)
    target = saved.results_folder(folder) / f"lm-eval-{slug('-'.join(tasks))}.json"
    tokenizer, device = build_tokenizer(run.model), Device.current(run.model.dtype)
    model = saved.load(run, folder, device)
    settings = {"limit": limit, "num_fewshot": num_fewshot, "apply_chat_template": chat_template}
    results = {}
    for name in (*(["base"] if base else []), "tuned"):
        with lora.untuned(model) if name == "base" else nullcontext(), device.autocast():
            wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=run.evaluation.batch_size)
            try:
                found = simple_evaluate(wrapped, tasks=list(tasks), task_manager=manager, log_samples=False, **settings)
            except OSError as error:  # the tasks' data sets come from the hub
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                allowed = f"tasks whose data is here or can be downloaded ({reason})"
                raise UserError(Problem("--tasks", ", ".join(tasks), allowed)) from error
        results[name] = found["results"]
    versions = {name: found[name] for name in ("versions", "n-shot", "n-samples") if name in found}
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(target, {"created": created, "tasks": list(tasks), **settings, **versions, "results": results})
    return target, results


def _check_tasks(tasks: Sequence[str], known: Sequence[str]) -> None:
    problems = [
        Problem("--tasks", task, "a task of lm-eval, or one defined in --include-path", nearest(task, known))
        for task in tasks
        if task not in known
    ]
    if problems:
        raise UserError(problems)


def show(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Print every metric of every task, one column per model."""
    console, models = Console(highlight=False), list(results)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("task", "metric", *models):
        table.add_column(heading, justify="right" if heading in models else "left")
    for task, metrics in results[models[0]].items():
        for metric, value in metrics.items():
            if isinstance(value, float) and "_stderr" not in metric:
                cells = [_with_error(results[model][task], metric) for model in models]
                table.add_row(Text(task), Text(metric.removesuffix(",none")), *cells)
    console.print(table)
    console.print(Text(str(path)), style="dim")


def _with_error(metrics: dict[str, Any], metric: str) -> str:
    name, _, kind = metric.partition(",")
    error = metrics.get(f"{name}_stderr,{kind}")
    return f"{metrics[metric]:.4f}" + (f" ± {error:.4f}" if isinstance(error, float) else "")
