"""One run from config to adapter: the only place where the parts meet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from lorasweep import checkpoints, determinism, lora, record
from lorasweep.after_step import AfterStep, NothingLeft, Progress
from lorasweep.checkpointing import Checkpointer, Stateful
from lorasweep.continuation import origin, other_base
from lorasweep.device import Device, PeakMemory
from lorasweep.digests import adapter_digest, end_digests, tensor_digest
from lorasweep.ending import FINISHED, Ledger, Result, ending
from lorasweep.evaluation import Evaluator, check_questions
from lorasweep.host import ALONE, Host, Interrupted
from lorasweep.input_files import location
from lorasweep.inputs import Inputs, prepare
from lorasweep.judge import Judge, Pruned
from lorasweep.lean_trainer import LeanTrainer
from lorasweep.library_logs import keep_log
from lorasweep.memory.fit import WontFit
from lorasweep.memory.outlook import Outlook, look_ahead, with_passes
from lorasweep.metrics import Metrics
from lorasweep.model import build_model
from lorasweep.numerics import numerics
from lorasweep.packing import check_parity
from lorasweep.processes.peers import PeerEnded
from lorasweep.quant import build_quantization, keep_gradients_on_cpu
from lorasweep.results import read_json
from lorasweep.resume import Place, held
from lorasweep.schema import Run
from lorasweep.stream_steps import AnyPlan, StreamPosition, choose_plan, position_of
from lorasweep.terminal import ProgressBar, Terminal
from lorasweep.tokens import TokenCounter
from lorasweep.tracking.follower import Follower
from lorasweep.tracking.subject import run_subject
from lorasweep.trainer import build_trainer
from lorasweep.training_metrics import TrainingMetrics


@dataclass(frozen=True)
class Setup:
    """A run that can be trained: what it learns from, on what, and what its record says of that."""

    run: Run
    folder: Path
    host: Host
    inputs: Inputs
    plan: AnyPlan | None
    device: Device
    outlook: Outlook | None
    """What memory it is to take; None: it is not predicted."""
    record: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True)
class Gauges:
    """What measures a run while it trains."""

    judge: Judge
    counter: TokenCounter
    memory: PeakMemory
    metrics: TrainingMetrics
    position: StreamPosition | None
    bar: ProgressBar


def train(run: Run, launch: record.Launch, host: Host = ALONE) -> Result:
    """Train one run in `launch.folder` and return how it ended; summary.json there says the same.

    With `run.resume` the run of that folder goes on; one that has come to its end is returned as it ended.
    """
    before = read_json(launch.folder / "summary.json") if run.resume else {}
    if before.get("state") in FINISHED:
        return Result(before["state"], launch.folder, before)
    with host.listening():
        try:
            setup = _set_up(run, launch, host)
            with held(launch.folder, setup.run, setup.record, host.group) as place:
                return _attempt(setup, place)
        except BaseException as error:
            with suppress(OSError):
                if host.group.is_first:
                    launch.folder.rmdir()  # Hydra has made it; something is in it once the run has begun
            if isinstance(error, PeerEnded):
                print(error, file=sys.stderr)
                return Result(error.end.state, launch.folder, {"error": str(error)})
            if isinstance(error, KeyboardInterrupt):
                return Result("interrupted", launch.folder, {"error": str(error) or "interrupted"})
            raise


def _set_up(run: Run, launch: record.Launch, host: Host) -> Setup:
    inputs = host.inputs(run, lambda: prepare(run))
    plan, size = choose_plan(run, inputs.splits["train"]), host.group.size
    here = Device.current(run.model.dtype)
    outlook = look_ahead(with_passes(run, 1 / size), inputs.splits, plan, here, host.runs)
    unknown = f"The memory of this model is not predicted: {outlook}" if isinstance(outlook, str) else None
    outlook = outlook if isinstance(outlook, Outlook) else None
    run = with_passes(outlook.run, size) if outlook else run
    rows, device = inputs.splits.get("eval"), Device.current(run.model.dtype)
    warning = check_questions(rows.rows, run.evaluation) if rows else None
    facts = inputs.facts() | {"device": device.facts()} | host.group.facts(device)
    facts |= {"adapter": origin(run.model.adapter)} if run.model.adapter else {}
    facts |= {"steps": plan.facts()} if plan else {}
    facts |= {"memory": outlook.facts()} if outlook else {}
    written, warnings = record.build_record(launch, run, facts), [*filter(None, (warning, unknown))]
    return Setup(run, launch.folder, host, inputs, plan, device, outlook, written, warnings)


def _attempt(setup: Setup, place: Place) -> Result:
    """Train in a folder that is held; whatever comes of it, say so there."""
    run, folder, share = setup.run, setup.folder, setup.host.group.share
    step = place.checkpoint.step if place.checkpoint else 0
    metrics = Metrics(folder if share.is_first else None, run.tracking.tensorboard, step)
    ledger = Ledger(folder, metrics, Terminal(run.verbosity if share.is_first else "quiet"), writes=share.is_first)
    with keep_log(folder / "train.log", run.verbosity, share.rank), _followed(setup, ledger), ending(run, ledger):
        for line in (*setup.warnings, *place.notes):
            ledger.terminal.say(line, style="yellow")
        with determinism.strict(run.deterministic):
            _train(setup, place, ledger)
    state = ledger.summary["state"]
    if not ledger.writes:
        return Result(state, folder, ledger.summary)
    if state == "pruned" or (state == "complete" and not run.train.save_every):
        checkpoints.remove_all(folder)  # once summary.json says that none is needed any more
    return Result(state, folder, ledger.summary)


@contextmanager
def _followed(setup: Setup, ledger: Ledger) -> Iterator[None]:
    """Have W&B follow a run of its own to the state that it ends with."""
    follower = Follower(ledger.folder, setup.run.tracking)
    if not (setup.host.is_followed and follower.is_wanted and ledger.writes):
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


def _train(setup: Setup, place: Place, ledger: Ledger) -> None:
    run, device, outlook, terminal = setup.run, setup.device, setup.outlook, ledger.terminal
    if outlook:
        ledger.summary |= {"memory/predicted_gib": round(outlook.prediction.allocated_gib, 3)}
        if outlook.wont_fit:
            raise WontFit(outlook.wont_fit)
    trainer, memory = _prepare(setup)
    terminal.header(run, setup.inputs.splits, setup.plan, trainer, device, setup.folder)
    if outlook:
        terminal.say(outlook.words())
    if run.model.adapter and (other := other_base(run.model.adapter, location(run.model))):
        terminal.say(f"model.adapter was trained on another base, {other}", style="bold red")
    check_parity(trainer, device)
    _begin(setup, trainer)
    gauges = _watch(setup, place, trainer, memory, ledger)
    judge, untuned = gauges.judge, setup.host.untuned
    if place.checkpoint:
        terminal.say(f"going on after step {place.checkpoint.step} of {trainer.args.max_steps}", style="bold")
    else:
        if judge.evaluator and run.evaluation.untuned:
            terminal.say("scoring the untuned model, then training", style="dim")
        judge.judge_untuned(lambda evaluator: untuned(run, device, lambda: evaluator(trainer.model)))
    try:
        _fit(setup, place, trainer, gauges, ledger)
        if outlook:
            seen = outlook.seen(trainer.engine, *gauges.counter.largest)
            ledger.summary |= {"memory/predicted_seen_gib": round(seen.allocated_gib, 3)}
    except Pruned:
        judge.discard()
        ledger.summary |= {**judge.summary(), "digests": _digests(trainer, gauges, setup.folder)}
        raise
    judge.end(trainer.model)
    ledger.summary["digests"] = _digests(trainer, gauges, setup.folder)
    if ledger.writes:
        setup.inputs.tokenizer.save_pretrained(setup.folder / "adapter")
    ledger.summary |= {"state": "complete", **_adapter_facts(trainer.model), **judge.summary()}
    ledger.metrics.write(trainer.state.global_step, _final_metrics(ledger.summary))
    terminal.answers(judge.untuned, judge.kept)
    terminal.summary(ledger.summary, device, setup.folder)


def _prepare(setup: Setup) -> tuple[LeanTrainer, PeakMemory]:
    """Take the base, add the adapter, build the trainer; memory counts from the loaded base on."""
    run, device, inputs = setup.run, setup.device, setup.inputs
    model = setup.host.base(run, device, lambda: _load(run, device))
    memory = PeakMemory(device)
    adapted, train = _adapted(run, model), inputs.splits["train"]
    runs, group = setup.host.runs, setup.host.group
    trainer = build_trainer(run, adapted, inputs.tokenizer, train, setup.plan, device, setup.folder, runs, group)
    return trainer, memory


def _begin(setup: Setup, trainer: LeanTrainer) -> None:
    """Complete the record with what has been loaded, which is the same in all processes."""
    start, group = tensor_digest(lora.trainable(trainer.model)), setup.host.group
    if len(set(group.exchange(start))) > 1:
        raise RuntimeError("the adapter does not begin with the same values in all processes")
    if group.is_first:
        record.complete_record(setup.folder, {"numerics": numerics(trainer), "start": start})


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


def _watch(setup: Setup, place: Place, trainer: LeanTrainer, memory: PeakMemory, ledger: Ledger) -> Gauges:
    """Put in place all that happens besides training; what remembers something gets that back from a checkpoint."""
    run, host, counter = setup.run, setup.host, TokenCounter(trainer.model, setup.host.group)
    judge = _judge(setup, trainer, counter, ledger)
    bar = ProgressBar(ledger.terminal, trainer.args.max_steps)
    train, position = setup.inputs.splits["train"], position_of(trainer, setup.plan)
    metrics = TrainingMetrics(ledger.metrics, counter, train.epoch_tokens, lambda: judge.seconds, bar.show)
    kept = [item for item in trainer.callback_handler.callbacks if isinstance(item, Stateful)]
    parts: list[Stateful] = [ledger.metrics, counter, memory, judge, metrics, *filter(None, [position]), *kept]
    say, keep = ledger.terminal.say, run.train.keep_checkpoints
    checkpointer = Checkpointer(trainer, setup.folder, place.identity, keep, parts, say, host.group)
    after_step = AfterStep(trainer, judge, checkpointer, host, run.train.save_every)
    for callback in (checkpointer, Progress(host), metrics, bar, after_step):
        trainer.add_callback(callback)
    trainer.after_step = after_step
    if place.checkpoint:
        checkpointer.begin_at(place.checkpoint, place.changed)
    return Gauges(judge, counter, memory, metrics, position, bar)


def _judge(setup: Setup, trainer: LeanTrainer, counter: TokenCounter, ledger: Ledger) -> Judge:
    run, host, rows = setup.run, setup.host, setup.inputs.splits.get("eval")

    def stop_if_asked() -> None:
        if host.stopping():
            raise Interrupted("stopped")

    def report(step: int, value: float) -> bool:
        return host.report(step, counter.read()[1], value)

    evaluator = (
        Evaluator(rows.rows, setup.inputs.tokenizer, run.evaluation, setup.device, stop_if_asked, host.group)
        if rows
        else None
    )
    steps, patience = trainer.args.max_steps, run.train.early_stopping
    return Judge(evaluator, run.evaluation, patience, steps, ledger.metrics, ledger.folder, report, ledger.writes)


def _fit(setup: Setup, place: Place, trainer: LeanTrainer, gauges: Gauges, ledger: Ledger) -> None:
    """Train, and enter steps, tokens, time and memory into the summary however that ends."""
    gauges.memory.reset_peak()  # of the evaluation before
    setup.host.training = True
    setup.host.group.seed(setup.run.train.seed)
    try:
        with suppress(NothingLeft):
            trainer.train(resume_from_checkpoint=str(place.checkpoint.path) if place.checkpoint else None)
        setup.device.synchronize()
        gauges.counter.read()
    finally:
        gauges.bar.stop()
        gauges.counter.remove()
        seconds = gauges.metrics.seconds
        tokens, supervised = gauges.counter.known
        ledger.summary |= {
            "steps": trainer.state.global_step,
            "train/seconds": round(seconds, 3),
            "tokens/total": tokens,
            "tokens/supervised": supervised,
            "tokens/per_second": round(tokens / seconds, 1),
            "tokens/supervised_per_second": round(supervised / seconds, 1),
            **gauges.memory.report(),
            **(gauges.position.facts() if gauges.position else {}),
        }


def _digests(trainer: LeanTrainer, gauges: Gauges, folder: Path) -> dict[str, str | None]:
    kept = adapter_digest(folder / "adapter" / lora.WEIGHTS)
    return {"adapter": kept, "order": gauges.counter.order_of_all(), **end_digests(trainer)}


def _adapter_facts(model: torch.nn.Module) -> dict[str, Any]:
    values = lora.trainable(model).values()
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in values})
    return {"adapter/parameters": sum(value.numel() for value in values), "adapter/dtypes": ", ".join(dtypes)}


def _final_metrics(summary: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if name.startswith("memory/") or name == "objective"}
