"""One run from config to adapter: the only place where the parts meet."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments
from trl import SFTTrainer

from lorasweep import lora, record
from lorasweep.continuation import origin, other_base
from lorasweep.data import Split
from lorasweep.device import Device, PeakMemory
from lorasweep.divergence import Diverged
from lorasweep.evaluation import Evaluator, check_questions
from lorasweep.host import ALONE, Host
from lorasweep.inputs import Inputs, prepare
from lorasweep.judge import Judge, Pruned
from lorasweep.library_logs import keep_log
from lorasweep.memory.fit import WontFit
from lorasweep.memory.outlook import Outlook, look_ahead
from lorasweep.metrics import Metrics
from lorasweep.model import build_model, location
from lorasweep.packing import check_parity
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.schema import Run
from lorasweep.steps import Plan, build_plan
from lorasweep.terminal import ProgressBar, Terminal
from lorasweep.tokens import TokenCounter
from lorasweep.tracking.follower import Follower
from lorasweep.tracking.subject import run_subject
from lorasweep.trainer import build_trainer
from lorasweep.training_metrics import TrainingMetrics

EXIT_CODES = {"complete": 0, "pruned": 0, "failed": 1, "diverged": 3, "out_of_memory": 4, "interrupted": 130}


@dataclass(frozen=True)
class Result:
    """How a run ended, and what summary.json says of it."""

    state: str
    folder: Path
    summary: dict[str, Any]

    @property
    def objective(self) -> float | None:
        """Return the objective; of a pruned run the best so far, of other runs that are not complete none."""
        return self.summary.get("objective")

    @property
    def error(self) -> str | None:
        """Return what ended a run that is neither complete nor pruned."""
        return self.summary.get("error")

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


class Progress(TrainerCallback):
    """Tells the host of every step."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell that a step is done."""
        self.host.progress(state.global_step, state.max_steps)


def train(run: Run, launch: record.Launch, host: Host = ALONE) -> Result:
    """Train one run in `launch.folder` and return how it ended; summary.json there says the same."""
    try:
        inputs = host.inputs(run, lambda: prepare(run))
        plan = build_plan(run.train, inputs.splits["train"].rows, record.data_seed(run))
        outlook = look_ahead(run, inputs.splits, plan, Device.current(run.model.dtype))
        run = outlook.run if isinstance(outlook, Outlook) else run
        rows = inputs.splits.get("eval")
        warning = check_questions(rows.rows, run.evaluation) if rows else None
    except BaseException:
        with suppress(OSError):
            launch.folder.rmdir()  # Hydra has made it; nothing is in it yet
        raise
    record.claim(launch.folder, run)
    ledger = Ledger(launch.folder, Metrics(launch.folder, run.tracking.tensorboard), Terminal(run.verbosity))
    with keep_log(launch.folder / "train.log", run.verbosity), _followed(run, host, ledger), _ending(ledger):
        if warning:
            ledger.terminal.say(warning, style="yellow")
        if isinstance(outlook, str):
            ledger.terminal.say(f"The memory of this model is not predicted: {outlook}", style="yellow")
            outlook = None
        _train(run, launch, host, inputs, plan, outlook, ledger)
    return Result(ledger.summary["state"], launch.folder, ledger.summary)


def _train(
    run: Run,
    launch: record.Launch,
    host: Host,
    inputs: Inputs,
    plan: Plan | None,
    outlook: Outlook | None,
    ledger: Ledger,
) -> None:
    device, terminal, splits = Device.current(run.model.dtype), ledger.terminal, inputs.splits
    facts = inputs.facts() | {"device": device.facts()}
    facts |= {"adapter": origin(run.model.adapter)} if run.model.adapter else {}
    facts |= {"steps": plan.facts()} if plan else {}
    facts |= {"memory": outlook.facts()} if outlook else {}
    record.write_record(launch.folder, run, launch.overrides, facts)
    if outlook:
        ledger.summary |= {"memory/predicted_gib": round(outlook.prediction.allocated_gib, 3)}
        if outlook.wont_fit:
            raise WontFit(outlook.wont_fit)
    trainer, memory = _prepare(run, host, inputs, plan, device, launch.folder)
    terminal.header(run, splits, plan, trainer, device, launch.folder)
    if outlook:
        terminal.say(outlook.words())
    if run.model.adapter and (other := other_base(run.model.adapter, location(run.model))):
        terminal.say(f"model.adapter was trained on another base, {other}", style="bold red")
    ledger.summary |= trainer.engine.facts()
    check_parity(trainer, device)
    counter = TokenCounter(trainer.model)
    trainer.add_callback(Progress(host))
    judge = _judge(run, host, inputs, device, trainer, counter, ledger)
    judge.judge_untuned(lambda evaluator: host.untuned(run, device, lambda: evaluator(trainer.model)))
    try:
        _fit(trainer, splits["train"], judge, counter, ledger, device, memory)
        if outlook:
            seen = outlook.seen(trainer.engine, *counter.largest)
            ledger.summary |= {"memory/predicted_seen_gib": round(seen.allocated_gib, 3)}
    except Pruned:
        judge.discard()
        ledger.summary |= judge.summary()
        raise
    finally:
        with suppress(OSError):
            (launch.folder / "checkpoints").rmdir()  # the trainer makes it even where nothing is saved
    judge.end(trainer.model)
    inputs.tokenizer.save_pretrained(launch.folder / "adapter")
    ledger.summary |= {"state": "complete", **_adapter_facts(trainer.model), **judge.summary()}
    ledger.metrics.write(trainer.state.global_step, _final_metrics(ledger.summary))
    terminal.answers(judge.untuned, judge.kept)
    terminal.summary(ledger.summary, device, launch.folder)


def _prepare(
    run: Run, host: Host, inputs: Inputs, plan: Plan | None, device: Device, folder: Path
) -> tuple[SFTTrainer, PeakMemory]:
    """Take the base, add the adapter, build the trainer; memory counts from the loaded base on."""
    model = host.base(run, device, lambda: _load(run, device))
    memory = PeakMemory(device)
    train = inputs.splits["train"]
    return build_trainer(run, _adapted(run, model), inputs.tokenizer, train, plan, device, folder), memory


def _load(run: Run, device: Device) -> PreTrainedModel:
    model = build_model(run.model, build_quantization(run.quant, device), device)
    if not device.is_gpu:
        keep_gradients_on_cpu(model)
    return model


def _adapted(run: Run, model: PreTrainedModel) -> PeftModel:
    """Put a fresh adapter on the base, or the one that the run starts from."""
    if not run.model.adapter:
        return lora.add_adapter(model, lora.build_adapter(run.lora), run.train.seed)
    place = record.adapter_folder(Path(run.model.adapter))
    assert place
    return lora.load_adapter(model, place, trainable=True, dropout=run.lora.dropout, seed=run.train.seed)


def _judge(
    run: Run,
    host: Host,
    inputs: Inputs,
    device: Device,
    trainer: SFTTrainer,
    counter: TokenCounter,
    ledger: Ledger,
) -> Judge:
    rows = inputs.splits.get("eval")
    evaluator = Evaluator(rows.rows, inputs.tokenizer, run.evaluation, device) if rows else None
    steps, patience = trainer.args.max_steps, run.train.early_stopping

    def report(step: int, value: float) -> bool:
        return host.report(step, counter.read()[1], value)

    judge = Judge(evaluator, run.evaluation, patience, steps, ledger.metrics, ledger.folder, report)
    trainer.add_callback(judge)
    return judge


def _fit(
    trainer: SFTTrainer,
    train: Split,
    judge: Judge,
    counter: TokenCounter,
    ledger: Ledger,
    device: Device,
    memory: PeakMemory,
) -> None:
    """Train, and enter steps, tokens, time and memory into the summary however that ends."""
    bar = ProgressBar(ledger.terminal, trainer.args.max_steps)
    epoch = train.counts.supervised_tokens
    trainer.add_callback(TrainingMetrics(ledger.metrics, counter, epoch, lambda: judge.seconds, bar.show))
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


def _adapter_facts(model: torch.nn.Module) -> dict[str, Any]:
    values = lora.trainable(model).values()
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in values})
    return {"adapter/parameters": sum(value.numel() for value in values), "adapter/dtypes": ", ".join(dtypes)}


def _final_metrics(summary: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if name.startswith("memory/") or name == "objective"}


@contextmanager
def _followed(run: Run, host: Host, ledger: Ledger) -> Iterator[None]:
    """Have W&B follow a run of its own to the state that it ends with."""
    follower = Follower(ledger.folder, run.tracking)
    if not (host.is_followed and follower.is_wanted):
        yield
        return
    subject = run_subject(ledger.folder)
    follower.follow(subject)
    try:
        yield
    finally:
        follower.end(subject, ledger.summary["state"], ledger.summary.get("error"))
        for line in follower.finish():
            ledger.terminal.say(line)


@contextmanager
def _ending(ledger: Ledger) -> Iterator[None]:
    """Write summary.json however the run ends. Only the user's mistakes and bugs go on as exceptions."""
    start = time.time()
    try:
        yield
    except BaseException as error:
        ledger.summary |= {"state": _state_of(error)}
        if not isinstance(error, Pruned):
            ledger.summary |= {"error": str(error) or type(error).__name__}
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
    if isinstance(error, Pruned):
        return "pruned"
    if isinstance(error, torch.OutOfMemoryError | WontFit):
        return "out_of_memory"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _explained(error: BaseException) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        knobs = (
            "train.fit=16GiB (or what there is: chooses how to train so that it fits), data.max_length,"
            " train.gradient_checkpointing, train.batch_size (train.grad_accum makes up for it)"
        )
        return f"Out of memory. What helps: {knobs}.\n{str(error).splitlines()[0]}"
    if isinstance(error, WontFit):
        return f"Not loaded: {error}."
    return f"Stopped: {str(error) or 'interrupted'}"
