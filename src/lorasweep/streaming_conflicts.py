"""What cannot be where rows are read as they come: nothing that takes all of them to know."""

from __future__ import annotations

from collections.abc import Iterator

from lorasweep.rules import Problem
from lorasweep.schema import Data, Run, Train

UNKNOWN = "with data.streaming=true nobody knows how many rows there are"


def streaming_conflicts(run: Run) -> Iterator[Problem]:
    """Yield what is wrong between data.streaming and other options."""
    if not run.data.streaming:
        yield from _without(run.data)
        return
    if run.data.source == "demo":
        yield Problem("data.streaming", True, "false: the generator of data.source=demo has all its rows at once")
    yield from _of_budget(run.train)
    yield from _of_steps(run)
    for name in ("eval", "test"):
        yield from _of_split(run.data, name)
    if run.data.num_proc:
        allowed = "null: with data.streaming=true one process prepares rows (train.loader_workers=1 beside training)"
        yield Problem("data.num_proc", run.data.num_proc, allowed)
    if run.train.loader_workers > 1:
        yield Problem("train.loader_workers", run.train.loader_workers, "0 or 1: data.streaming=true has one order")


def _without(data: Data) -> Iterator[Problem]:
    for name in ("eval", "test"):
        if (value := getattr(data, f"{name}_rows")) is not None:
            allowed = f"null, or data.streaming=true; otherwise data.{name}_fraction says how many rows"
            yield Problem(f"data.{name}_rows", value, allowed)


def _of_budget(train: Train) -> Iterator[Problem]:
    if not (train.max_tokens or train.max_steps):
        allowed = f"a number of supervised tokens, or train.max_steps: {UNKNOWN}, so that epochs end nothing"
        yield Problem("train.max_tokens", None, allowed)
    if train.group_by_length:
        allowed = "false: data.streaming=true has no rows to choose from (train.tokens_per_step sorts those of a step)"
        yield Problem("train.group_by_length", True, allowed)


def _of_steps(run: Run) -> Iterator[Problem]:
    train, longest = run.train, run.data.max_length
    tokens = train.tokens_per_step
    if tokens == "auto":
        yield Problem("train.tokens_per_step", tokens, f"a number of supervised tokens: {UNKNOWN}, nor their mean")
    elif tokens is None and (train.max_tokens or run.data.packing):
        asking = "train.max_tokens" if train.max_tokens else "data.packing"
        allowed = f"a number of supervised tokens: {asking} needs it, for {UNKNOWN}, nor their mean"
        yield Problem("train.tokens_per_step", None, allowed)
    elif tokens and longest and tokens < longest:
        allowed = f"at least data.max_length={longest}: with data.streaming=true a row as long may come at any time"
        yield Problem("train.tokens_per_step", tokens, allowed)


def _of_split(data: Data, name: str) -> Iterator[Problem]:
    fraction, rows = getattr(data, f"{name}_fraction"), getattr(data, f"{name}_rows")
    files, split = getattr(data, f"{name}_files"), getattr(data, f"{name}_split")
    if fraction and not (rows or files or split):
        files_too = f", or data.{name}_files" if data.source == "files" else ""
        allowed = f"0, or data.{name}_rows=200 for the first 200 rows{files_too}: {UNKNOWN} to take a share of"
        yield Problem(f"data.{name}_fraction", fraction, allowed)
    if split and not rows:
        yield Problem(f"data.{name}_rows", None, f"a number, how many rows of data.{name}_split to take: {UNKNOWN}")
    if files and rows:
        yield Problem(f"data.{name}_rows", rows, f"null: all rows of data.{name}_files are taken")
