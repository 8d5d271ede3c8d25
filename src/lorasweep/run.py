"""One run from config to adapter: the only place where the parts meet."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from lorasweep import hub, lora, record
from lorasweep.continuation import origin, other_base
from lorasweep.data import Split, build_datasets, file_hash, fingerprint
from lorasweep.device import Device, PeakMemory
from lorasweep.divergence import Diverged, StopOnNonFinite
from lorasweep.evaluation import Evaluator
from lorasweep.judge import Judge
from lorasweep.library_logs import keep_log
from lorasweep.metrics import Metrics
from lorasweep.model import build_config, build_model, build_tokenizer, context_length, location
from lorasweep.optim import optimizer_arguments
from lorasweep.packing import check_parity, pack
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.rules import Problem, UserError
from lorasweep.scheduler import scheduler_arguments
from lorasweep.schema import Run
from lorasweep.terminal import ProgressBar, Terminal
from lorasweep.tokens import TokenCounter
from lorasweep.tracking import Follower
from lorasweep.training_metrics import TrainingMetrics

EXIT_CODES = {"complete": 0, "failed": 1, "diverged": 3, "out_of_memory": 4, "interrupted": 130}


@dataclass(frozen=True)
class Result:
    """How a run ended, and its objective if it is complete."""

    state: str
    folder: Path
    objective: float | None

    @property
    def exit_code(self) -> int:
        """Return the exit code of a process that ran only this."""
        return EXIT_CODES[self.state]


@dataclass
class Ledger:
    """What a run writes while it goes: its folder, its metrics, what it shows, and the summary that ends it."""

    folder: Path
    metrics: Metrics
    terminal: Terminal
    summary: dict[str, Any] = field(default_factory=dict)


def train(run: Run, launch: record.Launch) -> Result:
    """Train one run in `launch.folder` and return how it ended; summary.json there says the same."""
    try:
        tokenizer = build_tokenizer(run.model)
        splits = build_datasets(run.data, tokenizer, context_length(build_config(run.model)))
    except UserError:
        with suppress(OSError):
            launch.folder.rmdir()  # Hydra has made it; nothing is in it yet
        raise
    record.claim(launch.folder, run)
    ledger = Ledger(launch.folder, Metrics(launch.folder, run.tracking.tensorboard), Terminal(run.verbosity))
    follower = Follower(launch.folder, run.tracking)
    with keep_log(launch.folder / "train.log", run.verbosity):
        try:
            with _ending(ledger):
                _train(run, launch, tokenizer, splits, ledger, follower)
        finally:
            if message := follower.finish():
                ledger.terminal.say(message)
    return Result(ledger.summary["state"], launch.folder, ledger.summary.get("objective"))


def _train(
    run: Run,
    launch: record.Launch,
    tokenizer: PreTrainedTokenizerBase,
    splits: dict[str, Split],
    ledger: Ledger,
    follower: Follower,
) -> None:
    device, terminal = Device.current(run.model.dtype), ledger.terminal
    facts = {"data": fingerprint(run.data, splits), "model": _model_facts(run), "device": device.facts()}
    facts |= {"adapter": origin(run.model.adapter)} if run.model.adapter else {}
    record.write_record(launch.folder, run, launch.overrides, facts)
    follower.start()
    trainer, memory = _prepare(run, tokenizer, splits["train"], device, launch.folder)
    terminal.header(run, splits, trainer, device, launch.folder)
    if run.model.adapter and (other := other_base(run.model.adapter, location(run.model))):
        terminal.say(f"model.adapter was trained on another base, {other}", style="bold red")
    if run.data.packing:
        check_parity(trainer, device)
    judge = _judge(run, tokenizer, splits.get("eval"), device, trainer, ledger)
    judge.judge_untuned(trainer.model)
    _fit(trainer, judge, ledger, device, memory)
    judge.end(trainer.model)
    tokenizer.save_pretrained(launch.folder / "adapter")
    with suppress(OSError):
        (launch.folder / "checkpoints").rmdir()  # the trainer makes it even where nothing is saved
    ledger.summary |= {"state": "complete", **_adapter_facts(trainer.model), **judge.summary()}
    ledger.metrics.write(trainer.state.global_step, _final_metrics(ledger.summary))
    terminal.answers(judge.untuned, judge.kept)
    terminal.summary(ledger.summary, device, launch.folder)


def _prepare(
    run: Run, tokenizer: PreTrainedTokenizerBase, train: Split, device: Device, folder: Path
) -> tuple[SFTTrainer, PeakMemory]:
    """Load the base, add the adapter, build the trainer; memory counts from the loaded base on."""
    model = build_model(run.model, build_quantization(run.quant, device), device)
    if not device.is_gpu:
        keep_gradients_on_cpu(model)
    memory = PeakMemory(device)
    adapted = _adapted(run, model)
    return build_trainer(run, adapted, tokenizer, train, device, folder), memory


def _adapted(run: Run, model: PreTrainedModel) -> PeftModel:
    """Put a fresh adapter on the base, or the one that the run starts from."""
    if not run.model.adapter:
        return lora.add_adapter(model, lora.build_adapter(run.lora), run.train.seed)
    place = record.adapter_folder(Path(run.model.adapter))
    assert place
    return lora.load_adapter(model, place, trainable=True, dropout=run.lora.dropout, seed=run.train.seed)


def build_trainer(
    run: Run, model: PeftModel, tokenizer: PreTrainedTokenizerBase, train: Split, device: Device, folder: Path
) -> SFTTrainer:
    """Return TRL's trainer on tokenised rows, with the adapter in the precision it was made in."""
    rows = train.rows.select_columns(["input_ids", "labels"])
    if run.data.packing:
        length = run.data.max_length or context_length(model.config)
        assert length
        rows = pack(rows, length)
    total_steps = budget(run, len(rows), train.counts.supervised_tokens)
    values = lora.values(model)
    arguments = training_arguments(run, total_steps, device, folder)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # a run uses one GPU; left to itself, the trainer would spread it over all visible ones
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[StopOnNonFinite(scales_loss=device.mixed_precision == "fp16")],
    )
    lora.put_back(trainer.model, values)
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(run: Run, total_steps: int, device: Device, folder: Path) -> SFTConfig:
    """Return the trainer's arguments; the names of other libraries stop here."""
    train = run.train
    schedule = scheduler_arguments(run.scheduler, total_steps)
    if schedule["warmup_steps"] + schedule["lr_scheduler_kwargs"].get("num_decay_steps", 0) > total_steps:
        allowed = f"with scheduler.decay no longer than the run, which has {total_steps} steps"
        raise UserError(Problem("scheduler.warmup", run.scheduler.warmup, allowed))
    checkpointing = device.is_gpu if train.gradient_checkpointing == "auto" else train.gradient_checkpointing
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.grad_accum,
        max_steps=total_steps,
        max_grad_norm=train.max_grad_norm or 0.0,
        activation_checkpointing=checkpointing,
        train_sampling_strategy="group_by_length" if train.group_by_length else "random",
        padding_free=train.padding_free,
        packing=run.data.packing,
        eval_packing=False,
        # Rows come tokenised, masked, cut and packed; TRL only collates them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=train.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if train.save_every else "no",
        save_steps=train.save_every or 500,
        save_total_limit=train.keep_checkpoints,
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


def _judge(
    run: Run,
    tokenizer: PreTrainedTokenizerBase,
    rows: Split | None,
    device: Device,
    trainer: SFTTrainer,
    ledger: Ledger,
) -> Judge:
    evaluator = Evaluator(rows.rows, tokenizer, run.evaluation, device) if rows else None
    steps, patience = trainer.args.max_steps, run.train.early_stopping
    judge = Judge(evaluator, run.evaluation, patience, steps, ledger.metrics, ledger.folder)
    trainer.add_callback(judge)
    return judge


def _fit(trainer: SFTTrainer, judge: Judge, ledger: Ledger, device: Device, memory: PeakMemory) -> None:
    counter = TokenCounter(trainer.model)
    bar = ProgressBar(ledger.terminal, trainer.args.max_steps)
    trainer.add_callback(TrainingMetrics(ledger.metrics, counter, lambda: judge.seconds, bar.show))
    trainer.add_callback(bar)
    memory.reset_peak()  # of the evaluation before
    start, aside = time.perf_counter(), judge.seconds
    try:
        trainer.train()
        device.synchronize()
    finally:
        bar.stop()
        counter.remove()
    seconds = time.perf_counter() - start - (judge.seconds - aside)
    tokens, supervised = counter.read()
    ledger.summary |= {
        "steps": trainer.state.global_step,
        "train/seconds": round(seconds, 3),
        "tokens/total": tokens,
        "tokens/supervised": supervised,
        "tokens/per_second": round(tokens / seconds, 1),
        "tokens/supervised_per_second": round(supervised / seconds, 1),
        **memory.report(),
    }


def _model_facts(run: Run) -> dict[str, Any]:
    place = location(run.model)
    if (commit := hub.commit(place, "model", run.model.revision)) or not Path(place).is_dir():
        return {"location": place, "commit": commit}
    return {
        "location": place,
        "sha256": {path.name: file_hash(path) for path in sorted(Path(place).iterdir()) if path.is_file()},
    }


def _adapter_facts(model: torch.nn.Module) -> dict[str, Any]:
    values = lora.trainable(model).values()
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in values})
    return {"adapter/parameters": sum(value.numel() for value in values), "adapter/dtypes": ", ".join(dtypes)}


def _final_metrics(summary: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if name.startswith("memory/") or name == "objective"}


@contextmanager
def _ending(ledger: Ledger) -> Iterator[None]:
    """Write summary.json however the run ends. Only the user's mistakes and bugs go on as exceptions."""
    start = time.time()
    try:
        yield
    except BaseException as error:
        ledger.summary |= {"state": _state_of(error), "error": str(error) or type(error).__name__}
        if ledger.summary["state"] == "failed":
            (ledger.folder / "error.txt").write_text(traceback.format_exc())
            raise
        ledger.terminal.say(_explained(error), style="bold red")
    finally:
        ledger.metrics.close()
        record.write_json(ledger.folder / "summary.json", {**ledger.summary, "seconds": round(time.time() - start, 3)})


def _state_of(error: BaseException) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, torch.OutOfMemoryError):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _explained(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        knobs = (
            "train.batch_size (with train.grad_accum to make up for it), data.max_length, train.gradient_checkpointing"
        )
        return f"Out of memory. What helps: {knobs}.\n{str(error).splitlines()[0]}"
    return f"Stopped: {str(error) or 'interrupted'}"
