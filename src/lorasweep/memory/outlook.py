"""What a run will take, looked at before anything is loaded, and the run itself made to fit where it is asked to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transformers import PretrainedConfig

from lorasweep.device import GIB, Device
from lorasweep.engine import Engine, Work, checkpointed_layers, choose_engine
from lorasweep.memory.batches import Batch, Scored, any_batch, any_scored, largest_batch, scored_rows
from lorasweep.memory.fit import WontFit, as_on, choose, target
from lorasweep.memory.prediction import Prediction, Predictor
from lorasweep.model import build_config, context_length, empty_model
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Run
from lorasweep.stream_steps import AnyPlan, StreamPlan

if TYPE_CHECKING:
    from lorasweep.data import Split
    from lorasweep.steps import Plan

CERTAIN = 1.1
"""How far a prediction must be above what there is for a run to be refused."""


@dataclass(frozen=True)
class Outlook:
    """A run as it will be trained, and what that is to take."""

    run: Run
    card: Device
    """What it is to fit on."""
    engine: Engine
    batch: Batch
    prediction: Prediction
    predictor: Predictor
    wont_fit: str | None = None
    """Why it cannot be trained there."""

    def seen(self, engine: Engine, rows: int, length: int) -> Prediction:
        """Return what the run takes whose largest pass was of this shape, computed by this engine."""
        learnt = round(rows * length * self.batch.supervised / self.batch.tokens)
        batch = self.batch if (rows, length) == (self.batch.rows, self.batch.length) else Batch(rows, length, learnt)
        every = checkpointed_layers(self.run, self.card)
        return self.predictor(self.run, engine.layout, batch, compiled=engine.compiled, every=every)

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it."""
        peak = self.prediction.peak
        return {
            "card": {"name": self.card.name, "memory_gib": round(self.card.memory_gib, 2)},
            "batch": {"rows": self.batch.rows, "tokens": self.batch.tokens, "supervised": self.batch.supervised},
            "predicted_gib": round(self.prediction.allocated_gib, 3),
            "needed_gib": round(self.prediction.needed_gib, 3),
            "at": peak.name,
            "parts_gib": {name: round(size / GIB, 3) for name, size in peak.parts.items()},
            "engine": str(self.engine),
        }

    def words(self) -> str:
        """Return what a run is to take, and what was chosen for it to fit."""
        batch = f"{self.batch.tokens:,} tokens"
        most = f"{self.prediction.allocated_gib:.2f} GiB of memory predicted, at most {batch} in a pass"
        return f"{self.chosen()}; {most}" if self.run.train.fit else most

    def chosen(self) -> str:
        """Return what was chosen for the run to fit."""
        train = self.run.train
        passes = "as many passes as that takes" if train.tokens_per_step else f"{train.grad_accum} a step"
        precision = str(self.card.precision).removeprefix("torch.")
        rows = f"{train.batch_size} row{'s' * (train.batch_size != 1)} in a pass"
        return f"train.fit={train.fit}: {rows}, {passes}, {self.again}, {precision}"

    @property
    def again(self) -> str:
        """Which layers compute their activations again."""
        every = checkpointed_layers(self.run, self.card)
        names = {0: "no layer", 1: "all layers", 2: "every 2nd layer", 3: "every 3rd layer"}
        return f"{names.get(every, f'every {every}th layer')} computed again"

    def otherwise(self, every: int) -> Prediction:
        """Return what the run would take if every n-th layer were computed again (0: none)."""
        compiled = self.engine.compiled
        return self.predictor(self.run, self.engine.layout, self.batch, compiled=compiled, every=every)


def look_ahead(
    run: Run, splits: Mapping[str, Split], plan: AnyPlan | None, here: Device, runs: int = 1
) -> Outlook | str | None:
    """Return what is ahead of a run over these rows, or why that is not known; None on a CPU, where nothing is to fit.

    A run that is not asked to fit is trained though its model is one that cannot be looked at without its weights.
    `runs`: how many share what one compiles.
    """
    if not here.is_gpu and not run.train.fit:
        return None
    try:
        if isinstance(plan, StreamPlan):
            return _at_stream(run, splits, plan, here, runs)
        return _at_rows(run, splits, plan, here, runs)
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if run.train.fit:
            allowed = f"null: what this model takes cannot be predicted ({reason})"
            raise UserError(Problem("train.fit", run.train.fit, allowed)) from error
        return reason


def _at_rows(run: Run, splits: Mapping[str, Split], plan: Plan | None, here: Device, runs: int) -> Outlook:
    train, config = splits["train"], build_config(run.model)
    packed_length = (run.data.max_length or context_length(config)) if run.data.packing else None
    per_row = float(packed_length or train.counts.tokens / train.counts.kept)
    tokens = [len(step) * train.counts.tokens / train.counts.kept for step in plan.steps] if plan else []
    rows = math.ceil(max(tokens) / per_row) if plan else run.train.batch_size * run.train.grad_accum

    def batch_of(run: Run, flat: bool) -> Batch:
        return largest_batch(run, train.rows, plan, flat, packed_length)

    def work_of(run: Run) -> Work:
        from lorasweep.trainer import budget, expected_work

        count = math.ceil(train.counts.tokens / packed_length) if packed_length else train.counts.kept
        steps = len(plan.steps) if plan else budget(run, count, train.counts.supervised_tokens)
        work = expected_work(run, plan, steps, train.counts.tokens / count, packed_length)
        return replace(work, runs=runs)

    scored = scored_rows(run, splits["eval"].rows) if "eval" in splits else None
    return _outlook(run, config, here, rows, per_row, batch_of, work_of, scored)


def _at_stream(run: Run, splits: Mapping[str, Split], plan: StreamPlan, here: Device, runs: int) -> Outlook:
    """Return what is ahead of a run over rows not known yet: as the first are, but for a pass of the longest allowed.

    Passes of that length are what such a run is to fit for where it is asked to; otherwise they only might come.
    """
    train, config, longest = splits["train"], build_config(run.model), plan.reader.stream.encoder.longest
    packed_length = longest if run.data.packing else None
    per_row = float(packed_length or train.counts.tokens / train.counts.kept)
    rows = math.ceil(plan.rows_each * train.counts.tokens / train.counts.kept / per_row)

    def batch_of(run: Run, flat: bool) -> Batch:
        if run.train.fit and longest:
            return any_batch(run, longest)
        return largest_batch(run, train.rows, None, flat, packed_length)

    def work_of(run: Run) -> Work:
        from lorasweep.trainer import expected_work

        work = expected_work(run, plan, plan.count, train.counts.tokens / train.counts.kept, packed_length)
        return replace(work, runs=runs)

    scored = scored_rows(run, splits["eval"].rows) if "eval" in splits else None
    return _outlook(run, config, here, rows, per_row, batch_of, work_of, scored)


def with_passes(run: Run, times: float) -> Run:
    """Return the run with passes of so many times the rows: of one process those of all, or the other way round."""
    return replace(run, train=replace(run.train, batch_size=round(run.train.batch_size * times)))


def look_at_length(run: Run, length: int | None) -> Outlook:
    """Return what is ahead of a run whose rows have at most `length` tokens, and enough of them to compile for.

    None: as many as the model's context. Without a GPU here it is one of 80 GiB that computes bfloat16.
    """
    config, endless = _config(run), Work(10**9, 1e15)
    here = Device.current(run.model.dtype)
    here = here if here.is_gpu else Device.imagined(80.0, (8, 0), run.model.dtype)
    length = length or context_length(config)
    if length is None:
        raise UserError(Problem("data.max_length", None, "a number of tokens: the model's config does not say"))
    tokens = length
    rows = run.train.batch_size * run.train.grad_accum
    if isinstance(run.train.tokens_per_step, int):
        rows = max(1, run.train.tokens_per_step // length)
    scored = any_scored(run, length)
    return _outlook(run, config, here, rows, length, lambda run, _: any_batch(run, tokens), lambda _: endless, scored)


def _config(run: Run) -> PretrainedConfig:
    try:
        return build_config(run.model)
    except (OSError, ValueError, ImportError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(Problem("model.name", run.model.name, f"a model that transformers knows: {reason}")) from None


def _outlook(
    run: Run,
    config: PretrainedConfig,
    here: Device,
    rows: int,
    tokens_per_row: float,
    batch_of: Callable[[Run, bool], Batch],
    work_of: Callable[[Run], Work],
    scored: Scored | None,
) -> Outlook:
    card, model = target(run, here), empty_model(config, run.model.trust_remote_code)
    run = as_on(run, card, here)
    predictor = Predictor(run, config, card, scored)

    def parts(run: Run) -> tuple[Engine, Batch]:
        engine = choose_engine(run, model, card, work_of(run))
        return engine, batch_of(run, engine.layout.flat)

    def predicted(run: Run) -> Prediction:
        engine, batch = parts(run)
        every = checkpointed_layers(run, card)
        return predictor(run, engine.layout, batch, compiled=engine.compiled, every=every)

    wont_fit = None
    if run.train.fit:
        try:
            run, prediction = choose(run, card, rows, tokens_per_row, predicted)
        except WontFit as error:
            wont_fit, prediction = str(error), predicted(run)
    else:
        prediction = predicted(run)
        if prediction.allocated_gib > CERTAIN * card.memory_gib:
            wont_fit = f"needs about {prediction.needed_gib:.1f} GiB; {card.name} has {card.memory_gib:.1f}"
    return Outlook(run, card, *parts(run), prediction, predictor, wont_fit)
