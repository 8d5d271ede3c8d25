"""What is wrong between config, model and tokenizer, found before any weights are loaded or a folder is made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from lorasweep import hub
from lorasweep.library_logs import quiet_libraries
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.scheduler import scheduler_arguments
from lorasweep.schema import Lora, Run, Scheduler


def check_inputs(run: Run) -> None:
    """Raise every problem of the run's model, tokenizer, target modules, schedule and data set at once."""
    problems = list(_hub_problems(run))
    quiet_libraries()
    problems += _scheduler_problems(run.scheduler)
    problems += _metric_problems(run.evaluation.metrics)
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


def _metric_problems(names: list[str]) -> list[Problem]:
    from lorasweep.answer_metrics import build_metrics

    try:
        build_metrics([name for name in names if ":" in name])
    except UserError as error:
        return error.problems
    return []


def _scheduler_problems(scheduler: Scheduler) -> Iterator[Problem]:
    if not scheduler.kwargs:
        return
    import torch
    from transformers import get_scheduler
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    function = TYPE_TO_SCHEDULER_FUNCTION[scheduler.name]
    ours = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    known = set() if scheduler.name.startswith("constant") else set(inspect.signature(function).parameters) - ours
    unknown = sorted(scheduler.kwargs.keys() - known)
    for name in unknown:
        allowed = f"an argument of {scheduler.name}: {', '.join(sorted(known)) or 'it has none'}"
        yield Problem(f"scheduler.kwargs.{name}", scheduler.kwargs[name], allowed, nearest(name, known))
    if unknown:
        return
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    kwargs = scheduler_arguments(scheduler, 100)["lr_scheduler_kwargs"]
    try:
        schedule = get_scheduler(scheduler.name, optimizer, 10, 100, kwargs)
        for step in range(100):
            schedule.lr_lambdas[0](step)
    except (TypeError, ValueError, ArithmeticError) as error:
        yield Problem(
            "scheduler.kwargs", scheduler.kwargs, f"arguments that {scheduler.name} takes: {_first_line(error)}"
        )


def _model_problems(run: Run) -> Iterator[Problem]:
    from lorasweep.model import build_config, build_tokenizer, context_length, empty_model

    try:
        config, tokenizer = build_config(run.model), build_tokenizer(run.model)
        model = empty_model(config, run.model.trust_remote_code)
        if tokenizer.chat_template:
            tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except TemplateError as error:
        yield Problem(
            "model.chat_template", run.model.chat_template, f"a Jinja template that renders: {_first_line(error)}"
        )
        return
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        yield Problem("model.name", run.model.name, f"a model that transformers can load: {_first_line(error)}")
        return
    yield from _attention_problems(run, model)
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
    if run.model.adapter:
        from lorasweep.continuation import adapter_problems

        yield from adapter_problems(run, model)


def _attention_problems(run: Run, model: Any) -> Iterator[Problem]:
    from lorasweep.attention import VARLEN, why_not_varlen
    from lorasweep.device import Device

    wanted = run.model.attention
    if wanted.startswith("flash") and find_spec("flash_attn") is None:
        yield Problem("model.attention", wanted, "sdpa or eager: the package flash-attn is not installed")
    if wanted == VARLEN and (why := why_not_varlen(model, Device.current(run.model.dtype))):
        yield Problem("model.attention", wanted, f"auto, sdpa or eager: {why}")


def target_problems(lora: Lora, model: Any) -> Iterator[Problem]:
    """Yield the target modules that match no linear layer of the model, or more than linear layers, each by name."""
    import torch

    modules = {name: isinstance(module, torch.nn.Linear) for name, module in model.named_modules()}
    leaves = sorted({name.rsplit(".", 1)[-1] for name, linear in modules.items() if linear})
    targets = lora.target_modules
    if targets == "all-linear":
        return
    for target in [targets] if isinstance(targets, str) else targets:
        try:
            found = matching_modules(target, isinstance(targets, str), modules)
        except re.error as error:
            yield Problem("lora.target_modules", target, f"a regular expression over whole module names: {error}")
            continue
        allowed = f"names of linear layers of this model: {', '.join(leaves)}"
        if isinstance(targets, str):
            allowed = f"a regular expression that matches whole module names, which end in {', '.join(leaves)}"
        if not any(modules[name] for name in found):
            yield Problem("lora.target_modules", target, allowed, nearest(target, leaves))
        elif other := [name for name in found if not modules[name]]:
            yield Problem("lora.target_modules", target, f"{allowed}; it also matches {other[0] or 'the model itself'}")
        elif model.get_output_embeddings() in [model.get_submodule(name) for name in found]:
            yield Problem(
                "lora.target_modules", target, "layers before the output head: its fused loss leaves no adapter room"
            )


def linear_layers(model: Any) -> dict[str, tuple[int, int]]:
    """Return the linear layers of a model by name, each with its out and in features."""
    import torch

    named = model.named_modules()
    return {name: (m.out_features, m.in_features) for name, m in named if isinstance(m, torch.nn.Linear)}


def matching_modules(target: str, is_pattern: bool, modules: Iterable[str]) -> list[str]:
    """Return the modules PEFT would adapt: by pattern over the whole name, else by whole name or last parts."""
    if is_pattern:
        return [name for name in modules if re.fullmatch(target, name)]
    return [name for name in modules if name == target or name.endswith(f".{target}")]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
