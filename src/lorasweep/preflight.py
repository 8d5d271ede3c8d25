"""What is wrong between config, model and tokenizer, found before any weights are loaded or a folder is made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorasweep import hub
from lorasweep.library_logs import quiet_libraries
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.schema import Lora, Run, Scheduler


def check_inputs(run: Run) -> None:
    """Raise every problem of the run's model, tokenizer, target modules, schedule and data set at once."""
    problems = list(_hub_problems(run))
    quiet_libraries()
    if run.scheduler.kwargs:
        problems += _scheduler_problems(run.scheduler)
    if not any(problem.key.startswith("model.") for problem in problems):
        problems += _model_problems(run)
    if problems:
        raise UserError(problems)


def _hub_problems(run: Run) -> Iterator[Problem]:
    wanted = [
        ("model.name", run.model.name if run.model.source == "hub" else None, "model", run.model.revision),
        ("model.tokenizer", run.model.tokenizer, "model", None),
        ("data.path", run.data.path if run.data.source == "hub" else None, "dataset", run.data.revision),
    ]
    for key, name, kind, revision in wanted:
        if name is not None and not Path(name).exists() and (problem := hub.problem(key, name, kind, revision)):
            yield problem


def _scheduler_problems(scheduler: Scheduler) -> Iterator[Problem]:
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function = TYPE_TO_SCHEDULER_FUNCTION[scheduler.name]
    ours = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    known = set() if scheduler.name.startswith("constant") else set(inspect.signature(function).parameters) - ours
    for name in scheduler.kwargs.keys() - known:
        allowed = f"an argument of {scheduler.name}: {', '.join(sorted(known)) or 'it has none'}"
        yield Problem(f"scheduler.kwargs.{name}", scheduler.kwargs[name], allowed, nearest(name, known))


def _model_problems(run: Run) -> Iterator[Problem]:
    from lorasweep.model import build_config, build_tokenizer, context_length, empty_model

    try:
        config, tokenizer = build_config(run.model), build_tokenizer(run.model)
        model = empty_model(config)
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        yield Problem("model.name", run.model.name, f"a model that transformers can load: {_first_line(error)}")
        return
    context = context_length(config)
    if run.data.max_length and context and run.data.max_length > context:
        yield Problem("data.max_length", run.data.max_length, f"at most {context}, the context of {run.model.name}")
    if tokenizer.eos_token is None:
        yield Problem(
            "model.tokenizer", run.model.tokenizer, "a tokenizer with an eos token: a model must learn to stop"
        )
    if run.data.packing and not (run.data.max_length or context):
        yield Problem("data.max_length", None, "a number of tokens: data.packing needs one for this model")
    yield from target_problems(run.lora, model)


def target_problems(lora: Lora, model: Any) -> Iterator[Problem]:
    """Yield the target modules that match no linear layer of the model, each by name."""
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    leaves = sorted({name.rsplit(".", 1)[-1] for name in names})
    targets = lora.target_modules
    if targets == "all-linear":
        return
    if isinstance(targets, str):
        if not any(re.fullmatch(targets, name) for name in names):
            yield Problem(
                "lora.target_modules",
                targets,
                f"a pattern that matches whole module names, which end in {', '.join(leaves)}",
            )
        return
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            allowed = f"names of linear layers of this model: {', '.join(leaves)}"
            yield Problem("lora.target_modules", target, allowed, nearest(target, leaves))
    if output := {"lm_head", "embed_out"} & set(targets):
        yield Problem(
            "lora.target_modules",
            output.pop(),
            "layers before the output head: its fused loss would not train an adapter there",
        )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
