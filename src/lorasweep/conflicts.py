"""What is wrong between options that are each right."""

from __future__ import annotations

from collections.abc import Iterator

from lorasweep.rules import Problem, nearest
from lorasweep.schema import Data, Run, Scheduler, Train
from lorasweep.streaming_conflicts import streaming_conflicts


def conflicts(run: Run) -> Iterator[Problem]:
    """Yield what is wrong between fields that are each right."""
    yield from _budget_conflicts(run.train)
    yield from _model_conflicts(run)
    yield from _data_conflicts(run.data)
    yield from streaming_conflicts(run)
    yield from _evaluation_conflicts(run)
    yield from _scheduler_conflicts(run.scheduler)


def _evaluation_conflicts(run: Run) -> Iterator[Problem]:
    data, objective = run.data, run.evaluation.objective
    names = [name.rpartition(":")[2] for name in run.evaluation.metrics]
    if objective not in ("loss", *names):
        allowed = f"one of {', '.join(('loss', *names))} (evaluation.metrics adds more)"
        yield Problem("evaluation.objective", objective, allowed, nearest(objective, ("loss", *names)))
    if len(set(names)) < len(names):
        yield Problem("evaluation.metrics", run.evaluation.metrics, "names that differ, of functions too")
    wanted = objective != "loss" or run.train.early_stopping
    if wanted and not data.has_evaluation:
        yield Problem("data.eval_fraction", 0, "above 0: the objective and early stopping need evaluation rows")
    if objective != "loss" and not run.evaluation.generate:
        yield Problem("evaluation.generate", 0, f"at least 1: evaluation.objective={objective} needs answers")
    if run.train.early_stopping and run.evaluation.times < 2:
        yield Problem("evaluation.times", run.evaluation.times, "at least 2: train.early_stopping compares evaluations")


def _scheduler_conflicts(scheduler: Scheduler) -> Iterator[Problem]:
    if scheduler.name == "cosine_with_min_lr" and not {"min_lr", "min_lr_rate"} & set(scheduler.kwargs):
        yield Problem("scheduler.kwargs", scheduler.kwargs, "min_lr or min_lr_rate: cosine_with_min_lr needs one")


def _budget_conflicts(train: Train) -> Iterator[Problem]:
    if train.epochs is None and train.max_steps is None and train.max_tokens is None:
        yield Problem(
            "train.epochs", None, "a number: without train.max_steps or train.max_tokens nothing ends the run"
        )
    if train.max_steps and train.max_tokens:
        yield Problem(
            "train.max_tokens", train.max_tokens, "null: train.max_steps is given, and only one of them can be"
        )
    tokens = train.tokens_per_step
    if isinstance(tokens, int) and train.max_tokens and train.max_tokens < tokens:
        yield Problem(
            "train.max_tokens", train.max_tokens, "at least train.tokens_per_step, which one step learns from"
        )
    if isinstance(tokens, int) and train.grad_accum != 1:
        allowed = "1: forward passes per step follow from train.tokens_per_step and train.batch_size"
        yield Problem("train.grad_accum", train.grad_accum, allowed)
    if tokens and train.group_by_length:
        yield Problem("train.group_by_length", True, "false: train.tokens_per_step sorts the rows of a step by itself")


def _model_conflicts(run: Run) -> Iterator[Problem]:
    if run.model.attention == "varlen" and run.train.padding_free is False and not run.data.packing:
        yield Problem("train.padding_free", False, "auto: model.attention=varlen attends to rows laid end to end")
    if run.lora.init in ("olora", "pissa", "orthogonal") and run.quant.method != "none":
        yield Problem("lora.init", run.lora.init, "another init, or quant=none: it starts from unquantised weights")
    if run.lora.use_dora and run.quant.method == "int8":
        yield Problem("lora.use_dora", True, "false, or a 4-bit or unquantised base: DoRA fails on int8 layers")
    if run.lora.use_dora and run.lora.init in ("olora", "pissa"):
        yield Problem("lora.init", run.lora.init, "default, gaussian or orthogonal together with lora.use_dora")
    if run.lora.init == "orthogonal" and run.lora.r % 2:
        yield Problem("lora.r", run.lora.r, "an even number: lora.init=orthogonal halves it")
    if run.model.adapter and run.lora.init != "default":
        yield Problem("lora.init", run.lora.init, "default: model.adapter says how the adapter starts")
    if run.quant.double_quant and run.quant.method not in ("nf4", "fp4"):
        yield Problem("quant.double_quant", True, f"false: {run.quant.method} has no constants to quantise")
    shape = run.model.shape
    if run.model.source == "random" and (shape.hidden_size % shape.heads or shape.heads % shape.kv_heads):
        yield Problem("model.shape.heads", shape.heads, "a divisor of hidden_size, and a multiple of kv_heads")


def _data_conflicts(data: Data) -> Iterator[Problem]:
    if data.source == "hub" and not data.path:
        yield Problem("data.path", data.path, "the hub id of a data set (or data=jsonl data.files=rows.jsonl)")
    for name in ("path", "subset", "eval_split", "test_split", "files", "eval_files", "test_files"):
        source = "files" if name.endswith("files") else "hub"
        if getattr(data, name) is not None and data.source != source:
            yield Problem(
                f"data.{name}", getattr(data, name), f"null: it belongs to data.source={source}, not {data.source}"
            )
    if data.source == "files" and not data.files:
        yield Problem("data.files", data.files, "the files to train on: data.files=rows.jsonl")
    if data.eval_fraction + data.test_fraction >= 1:
        yield Problem(
            "data.test_fraction", data.test_fraction, "less: eval and test fractions leave no row to train on"
        )
    if (data.prompt is None) != (data.completion is None):
        missing = "completion" if data.completion is None else "prompt"
        yield Problem(f"data.{missing}", None, "a template: data.prompt and data.completion come together")
    if data.instruction_part and not data.response_part:
        yield Problem("data.response_part", None, "the text that opens an answer: data.instruction_part is given")
