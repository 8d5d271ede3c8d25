"""Whether the trials of a space can be compared: what may not vary, and what is worth knowing when it does."""

from __future__ import annotations

from collections.abc import Iterator

from lorasweep.rules import Problem
from lorasweep.schema import Run
from lorasweep.study.definition import FREE
from lorasweep.study.space import Space

FREE_DATA = ("data.packing", "data.num_proc", "data.response_only")
FREE_EVALUATION = ("evaluation.batch_size", "evaluation.keep")
COMPOSED = ("experiment", "space", "strategy")
"""Groups that select and override, whatever that may be; spaces come as a list: space=[rank,learning_rate]."""
OTHER_TEXT = ("model.tokenizer", "model.chat_template")
WORTH_KNOWING = (
    (("train.epochs", "train.max_steps", "train.max_tokens"), "longer trials learn from more data"),
    (("model", "model.name", "model.source"), "losses of models with different tokenizers cannot be compared"),
    (("train.seed", "train.data_seed"), "the best trial is the luckiest; lorasweep confirm measures the spread"),
)
ASK_FOR_ANOTHER_RATE = ("lora.r", "lora.alpha", "lora.scale", "scheduler", "scheduler.name", "optim", "optim.name")
RATE = (
    "the best rank, scale, schedule or optimizer at one learning rate need not be the best at its own"
    " (space=[…,learning_rate] adds it)"
)


def problems(space: Space, run: Run, pruner: str) -> Iterator[Problem]:
    """Yield the keys that may not vary: trials with other values of them would not be judged by the same measure."""
    varied = [dimension.key for dimension in space]
    tokens = run.train.tokens_per_step
    for dimension in space:
        key, value = dimension.key, dimension.words()
        is_data = (key == "data" or key.startswith("data.")) and key not in FREE_DATA
        is_measure = key.startswith("evaluation.") and key not in FREE_EVALUATION
        if key.partition(".")[0] in (*FREE, *COMPOSED):
            yield Problem(key, value, "one value: it is no part of what trials are compared in")
        if is_data or is_measure or key in OTHER_TEXT:
            yield Problem(key, value, "one value: with another, trials are judged on other rows or by another score")
        if key == "data.packing" and not tokens and "train.tokens_per_step" not in varied:
            allowed = (
                "auto or a number: otherwise a step learns more from packed rows, and packing is not all that differs"
            )
            yield Problem("train.tokens_per_step", None, allowed)
        if key in ("train.batch_size", "train.grad_accum") and tokens == "auto":
            yield Problem("train.tokens_per_step", tokens, f"a number or null: {key} varies, and auto follows it")
    if pruner != "none" and run.evaluation.times < 2:
        allowed = f"at least 2: hydra.sweeper.pruner={pruner} ends trials at evaluations before their last"
        yield Problem("evaluation.times", run.evaluation.times, allowed)
    if "lora.alpha" in varied and ("lora.scale" in varied or run.lora.scale is not None):
        yield Problem("lora.alpha", "varies", "one value, or lora.scale=null: with lora.scale it has no effect")


def notes(space: Space, run: Run) -> Iterator[str]:
    """Yield what to know when reading the results."""
    varied = {dimension.key for dimension in space}
    for keys, words in WORTH_KNOWING:
        if found := varied.intersection(keys):
            yield f"{', '.join(sorted(found))} varies: {words}"
    if {"lora.r", "lora.alpha"} <= varied:
        yield "lora.r and lora.alpha both vary: the strength is alpha / r, so lora.scale searches more directly"
    if varied.intersection(ASK_FOR_ANOTHER_RATE) and "optim.lr" not in varied:
        yield f"optim.lr does not vary: {RATE}"
