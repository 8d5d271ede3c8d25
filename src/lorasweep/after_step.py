"""What happens between two optimizer steps: the model is judged, a checkpoint is written, the run is stopped."""

from __future__ import annotations

from typing import Any, NoReturn

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorasweep.checkpointing import Checkpointer
from lorasweep.host import Host, Interrupted
from lorasweep.judge import Judge


class NothingLeft(Exception):
    """A run is resumed whose last step is done."""


class Progress(TrainerCallback):
    """Tells the host of every step."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell that a step is done."""
        self.host.progress(state.global_step, state.max_steps)


class AfterStep(TrainerCallback):
    """Judges, saves and stops, in this order; a run that is to stop is judged when it goes on.

    So a checkpoint is on the disk one step after a signal at the latest, however long an evaluation takes.
    """

    def __init__(
        self, trainer: Any, judge: Judge, checkpointer: Checkpointer, host: Host, save_every: int | None
    ) -> None:
        self.trainer, self.judge, self.checkpointer = trainer, judge, checkpointer
        self.host, self.save_every = host, save_every
        self.done = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Judge the step a run was stopped after, if that was due; raises NothingLeft if it was the last one."""
        if state.global_step:
            self.done = state.global_step
            self.host.progress(state.global_step, state.max_steps)
            if not self._judge(self.done):
                self._stop()
            if self._ends():
                raise NothingLeft

    def __call__(self) -> None:
        """Do what is due after the step that is done."""
        step = self.trainer.state.global_step
        if step == self.done:
            return
        self.done = step
        if self._judge(step) and self._ends():
            return
        stopping = self._is_asked_to_stop()
        if stopping or (self.save_every and step % self.save_every == 0):
            self.checkpointer.save()
        if stopping:
            self._stop()

    def _judge(self, step: int) -> bool:
        """Judge the model if that is due; return whether it was not interrupted."""
        if self.judge.is_due(step) and self._is_asked_to_stop():
            return False
        try:
            goes_on = self.judge.after_step(step, self.trainer.model)
        except Interrupted:
            return False
        if not goes_on:
            self.trainer.control.should_training_stop = True
        return True

    def _is_asked_to_stop(self) -> bool:
        """Tell whether any process is: all stop after the same step."""
        return self.host.group.any(self.host.stopping())

    def _stop(self) -> NoReturn:
        raise Interrupted(f"stopped after step {self.done} of {self.trainer.state.max_steps}")

    def _ends(self) -> bool:
        state, control = self.trainer.state, self.trainer.control
        return bool(state.global_step >= state.max_steps or control.should_training_stop)
