"""Writes checkpoints of a run while it goes, and begins a run at one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorasweep import checkpoints, training_state
from lorasweep.checkpoints import Checkpoint
from lorasweep.identity import JUDGED_BY, SEEDS, Difference
from lorasweep.judge import Judge
from lorasweep.processes.group import Group
from lorasweep.record import write_json
from lorasweep.training_state import State

TENSORS = "tensors.safetensors"
VALUES = "state.json"
OTHERS = "other processes"
TRAINER = "trainer_state.json"
"""What transformers' trainer reads of a checkpoint: its step, from which it finds its place in the data."""
BESIDE = ("metrics.jsonl", "evaluation.jsonl")
"""Files of a run folder that grow with its steps; a checkpoint has them as they were."""


@runtime_checkable
class Stateful(Protocol):
    """A part of a run with something to remember from step to step."""

    def state(self) -> dict[str, Any]:
        """Return it as plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take it back."""


def put_files_back(folder: Path, checkpoint: Checkpoint | None, judged_anew: bool = False) -> None:
    """Make the files of a run folder that grow with its steps what they were at a checkpoint, or at the beginning.

    `judged_anew`: without evaluations, and the adapter that was best in them.
    """
    wanted = () if checkpoint is None else BESIDE[:1] if judged_anew else (*BESIDE, "adapter")
    for name in (*BESIDE, "adapter", ".adapter", "summary.json", "error.txt", *(() if checkpoint else ["tensorboard"])):
        _remove(folder / name)
        if checkpoint and name in wanted and (checkpoint.path / name).exists():
            _copy(checkpoint.path / name, folder / name)


def is_judged_anew(changed: Iterable[Difference]) -> bool:
    """Tell whether scores so far cannot be compared with those to come."""
    return any(item.name.startswith(JUDGED_BY) for item in changed)


class Checkpointer(TrainerCallback):
    """Writes checkpoints between steps; on the first step of a resumed run puts trainer and random streams back.

    Random numbers are drawn where an epoch begins (the order of its rows) and in forward passes (dropout). A run that
    is resumed within an epoch therefore draws the order as that epoch did, and goes on with the stream of its step.
    """

    def __init__(
        self,
        trainer: Any,
        folder: Path,
        identity: Mapping[str, Any],
        keep: int | None,
        parts: Sequence[Stateful],
        say: Callable[..., None],
        group: Group | None = None,
    ) -> None:
        self.group = group or Group()
        self.trainer, self.folder, self.identity, self.keep = trainer, folder, identity, keep
        self.parts = {type(part).__name__: part for part in parts}
        self.say = say
        self.begin: State | None = None
        """What is still to be put back."""
        self.has_streams = True
        """Whether its random streams are to be put back; with another seed they are not."""
        self.epoch = State()
        self.ahead: str | None = None

    def begin_at(self, checkpoint: Checkpoint, changed: Collection[Difference] = ()) -> None:
        """Have the run begin at a checkpoint; what is no part of the trainer is put back here and now."""
        values = json.loads((checkpoint.path / VALUES).read_text(encoding="utf-8"))
        self.begin = State(load_file(checkpoint.path / TENSORS), values)
        if not self.group.is_first:
            own = values[OTHERS][self.group.share.rank - 1]
            values |= own["values"]
            self.begin.tensors |= training_state.as_tensors(own["tensors"])
        self.has_streams = not any(item.name in SEEDS for item in changed)
        for name, part in self.parts.items():
            if name != Judge.__name__ or not is_judged_anew(changed):
                part.restore(values["parts"][name])

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Put the trainer back, and random streams, in case no step is left that would."""
        if self.begin:
            training_state.put_back(self.trainer, self.begin)
            if self.has_streams:
                training_state.put_back_random("now", self.begin)

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Put random streams back to where the order of the epoch's rows is drawn, and remember where that was."""
        if self.begin and self.has_streams:
            steps = max(1, math.ceil(len(train_dataloader) / args.gradient_accumulation_steps))
            within = state.global_step % steps != 0
            training_state.put_back_random("epoch" if within else "now", self.begin)
            self.ahead = "now" if within else None
        self.epoch = State()
        training_state.take_random("epoch", self.epoch)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Put random streams back to where the first forward pass finds them; its rows are there already."""
        if self.begin and self.ahead:
            training_state.put_back_random(self.ahead, self.begin)
        self.begin = self.ahead = None

    def save(self) -> bool:
        """Write a checkpoint of the step that is done; return whether that worked, and say so if not."""
        step, state = self.trainer.state.global_step, self._state()
        if not self.group.is_first:
            return True
        beside = [path for name in (*BESIDE, "adapter") if (path := self.folder / name).exists()]
        size = sum(tensor.nbytes for tensor in state.tensors.values()) + sum(map(_size, beside)) + 2**20

        def fill(staging: Path) -> None:
            save_file(state.tensors, staging / TENSORS)
            write_json(staging / VALUES, state.values)
            self._trainer_state().save_to_json(str(staging / TRAINER))
            for path in beside:
                _copy(path, staging / path.name)

        folder = self.folder / checkpoints.FOLDER
        try:
            checkpoints.write(folder, step, self.identity, size, fill)
            checkpoints.rotate(folder, self.keep)
        except (OSError, SafetensorError) as error:
            self.say(f"Step {step} has no checkpoint: {error}", style="bold red")
            return False
        return True

    def _state(self) -> State:
        """Return the state of all processes: they differ in random streams, and in what they have counted."""
        own = State(dict(self.epoch.tensors), dict(self.epoch.values))
        training_state.take_random("now", own)
        own.values["parts"] = {name: part.state() for name, part in self.parts.items()}
        kept = {"values": own.values, "tensors": training_state.as_lists(own.tensors)} if self.group.size > 1 else {}
        _, *others = self.group.exchange({} if self.group.is_first else kept)
        state = training_state.take(self.trainer) if self.group.is_first else State()
        state.tensors |= own.tensors
        state.values |= own.values
        state.values |= {OTHERS: others} if others else {}
        return state

    def _trainer_state(self) -> TrainerState:
        """Return the trainer's own state, without every line it has ever logged."""
        return replace(self.trainer.state, log_history=[])


def _size(path: Path) -> int:
    return sum(item.stat().st_size for item in (path, *path.rglob("*")) if item.is_file())


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
