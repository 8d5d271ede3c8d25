"""From a run to the trainer that trains it: what a step learns from, how many steps there are, and how they go."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig

from lorasweep import lora, record
from lorasweep.attention import use
from lorasweep.compilation import compile_layers
from lorasweep.data import Split
from lorasweep.device import Device
from lorasweep.divergence import StopOnNonFinite
from lorasweep.engine import Work, checkpointed_layers, choose_engine
from lorasweep.lean_trainer import LeanTrainer
from lorasweep.model import context_length
from lorasweep.optim import optimizer_arguments
from lorasweep.packing import pack
from lorasweep.processes.group import Group
from lorasweep.processes.share import Share
from lorasweep.rules import Problem, UserError
from lorasweep.scheduler import scheduler_arguments
from lorasweep.schema import Run
from lorasweep.steps import Plan, StepCollator, StepTrainer, build_collate, plan_batches
from lorasweep.stream_steps import AnyPlan, StreamCollator, StreamPlan


def build_trainer(
    run: Run,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Split,
    plan: AnyPlan | None,
    device: Device,
    folder: Path,
    runs: int = 1,
    group: Group | None = None,
) -> LeanTrainer:
    """Return TRL's trainer on tokenised rows, with the adapter in the precision it was made in.

    `runs`: how many share what one compiles. Several processes divide every step among them, and so have a plan even
    where the batch size decides what is in one.
    """
    assert (plan is None) == (run.train.tokens_per_step is None and not run.data.streaming)
    group = group or Group()
    rows = train.rows.select_columns(["input_ids", "labels"])
    packed_length = (run.data.max_length or context_length(model.config)) if run.data.packing else None
    assert packed_length or not run.data.packing
    if packed_length and not plan:
        rows = pack(rows, packed_length)
    total_steps = plan.count if plan else budget(run, len(rows), train.counts.supervised_tokens)
    work = expected_work(run, plan, total_steps, train.counts.tokens / len(rows), packed_length)
    engine = choose_engine(run, model.get_base_model(), device, replace(work, runs=runs))
    use(model, engine.layout.attention)
    trainer_class, collator = LeanTrainer, None
    if plan is None and group.size > 1:
        plan, packed_length = _plan_of_batches(run, len(rows), train.counts.supervised_tokens, total_steps), None
    if plan:
        trainer_class = StepTrainer
        collator = step_collator(run, plan, rows, tokenizer, packed_length, engine.layout.flat, group.share)
        rows = plan.dataset()
    values, scales_loss = lora.values(model), device.mixed_precision == "fp16"
    trainer = trainer_class(
        model=model,
        args=training_arguments(run, total_steps, device, folder, engine.layout.flat, bool(plan)),
        data_collator=collator,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[StopOnNonFinite(scales_loss, looks=run.train.lean)],
    )
    trainer.lean, trainer.scales_loss = run.train.lean, scales_loss
    lora.put_back(trainer.model, values)
    trainer.remove_callback(PrinterCallback)
    if engine.compiled:
        compile_layers(trainer.model)
    trainer.engine = engine
    if isinstance(trainer, StepTrainer):
        trainer.group = group
    return trainer


def _plan_of_batches(run: Run, rows: int, supervised_tokens: int, steps: int) -> Plan:
    """Return the steps that so many (packed) rows make in the order in which one process would draw them."""
    planned = plan_batches(rows, run.train.batch_size * run.train.grad_accum, steps, record.data_seed(run))
    return Plan(planned, supervised_tokens / rows * len(planned[0]))


def step_collator(
    run: Run,
    plan: AnyPlan,
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    packed_length: int | None,
    flat: bool,
    share: Share,
) -> StepCollator:
    """Return what makes the forward passes of a step out of an item of the plan's data."""
    collate, size = build_collate(tokenizer, packed_length, flat), run.train.batch_size
    if isinstance(plan, StreamPlan):
        return StreamCollator(plan.reader, collate, size, packed_length, longest_first=plan.reader.by_tokens)
    return StepCollator(rows.__getitems__, collate, size, packed_length, share=share)


def expected_work(run: Run, plan: AnyPlan | None, steps: int, tokens_per_row: float, packed_length: int | None) -> Work:
    """Return the forward passes of a run and their tokens; of steps that are packed as they come, about."""
    batch_size = run.train.batch_size
    if plan is None:
        passes = steps * run.train.grad_accum
        return Work(passes, passes * batch_size * tokens_per_row)
    tokens = [rows * tokens_per_row for rows in plan.rows_per_step]
    each = batch_size * (packed_length or tokens_per_row)
    return Work(sum(math.ceil(count / each) for count in tokens), sum(tokens))


def training_arguments(
    run: Run, total_steps: int, device: Device, folder: Path, flat: bool, is_planned: bool
) -> SFTConfig:
    """Return the trainer's arguments; the names of other libraries stop here."""
    train = run.train
    schedule = scheduler_arguments(run.scheduler, total_steps)
    if schedule["warmup_steps"] + schedule["lr_scheduler_kwargs"].get("num_decay_steps", 0) > total_steps:
        allowed = f"with scheduler.decay no longer than the run, which has {total_steps} steps"
        raise UserError(Problem("scheduler.warmup", run.scheduler.warmup, allowed))
    every = checkpointed_layers(run, device)
    arguments = SFTConfig(
        output_dir=str(folder),
        **_batch_arguments(run, flat, is_planned),
        max_steps=total_steps,
        max_grad_norm=train.max_grad_norm or 0.0,
        activation_checkpointing=every > 0,
        activation_checkpointing_kwargs={"every_n_layers": every} if every > 1 else None,
        eval_packing=False,
        # Rows come tokenised, masked, cut and packed; TRL only collates them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",  # it would write pickles, straight into place
        seed=train.seed,
        data_seed=record.data_seed(run),
        dataloader_num_workers=train.loader_workers,
        bf16=device.mixed_precision == "bf16",
        fp16=device.mixed_precision == "fp16",
        use_cpu=not device.is_gpu,
        report_to="none",
        disable_tqdm=True,
        **optimizer_arguments(run.optim),
        **schedule,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # a run uses one GPU; left to itself, the trainer would spread it over all visible ones
    return arguments


def _batch_arguments(run: Run, flat: bool, is_planned: bool) -> dict[str, Any]:
    train = run.train
    if is_planned:  # an item of the data is a step, which its collator divides into batches
        return {
            "per_device_train_batch_size": 1,
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
        }
    return {
        "per_device_train_batch_size": train.batch_size,
        "gradient_accumulation_steps": train.grad_accum,
        "train_sampling_strategy": "group_by_length" if train.group_by_length else "random",
        "padding_free": flat,
        "packing": run.data.packing,
    }


def budget(run: Run, rows: int, supervised_tokens: int) -> int:
    """Return the optimizer steps of a run over `rows` (packed) rows with that many supervised tokens an epoch."""
    train = run.train
    steps_per_epoch = math.ceil(math.ceil(rows / train.batch_size) / train.grad_accum)
    if train.max_steps:
        return train.max_steps
    if train.max_tokens:
        return math.ceil(train.max_tokens / (supervised_tokens / steps_per_epoch))
    assert train.epochs is not None
    return math.ceil(train.epochs * steps_per_epoch)
