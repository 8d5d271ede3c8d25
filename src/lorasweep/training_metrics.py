"""Turns what transformers' trainer logs into our metric names, with tokens and tokens per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorasweep.metrics import Metrics
from lorasweep.tokens import TokenCounter

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/lr",
    "mean_token_accuracy": "train/token_accuracy",
    "entropy": "train/entropy",
}


class TrainingMetrics(TrainerCallback):
    """Writes a line of metrics per logged step; `epoch_tokens` are the supervised tokens of the data, if known.

    `aside` tells the seconds spent so far on other things; `seconds` are those spent on training.
    """

    def __init__(
        self,
        metrics: Metrics,
        counter: TokenCounter,
        epoch_tokens: int | None,
        aside: Callable[[], float],
        show: Callable[[int, dict[str, float]], None],
    ) -> None:
        self.metrics, self.counter, self.epoch_tokens = metrics, counter, epoch_tokens
        self.aside, self.show = aside, show
        self.last = (0.0, 0)
        self.began, self.earlier = self._now(), 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self.began = self._now()
        self.last = (self.began, self.counter.read()[0])

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far, before a run was resumed too."""
        return self.earlier + self._now() - self.began

    def state(self) -> dict[str, Any]:
        """Return the seconds of training so far."""
        return {"seconds": self.seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Count from there."""
        self.earlier = state["seconds"]

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write one line; the trainer's closing log has no loss and is left out."""
        if not logs or "loss" not in logs:
            return
        values = {ours: float(logs[theirs]) for theirs, ours in NAMES.items() if theirs in logs}
        total, supervised = self.counter.read()
        now = self._now()
        values |= {
            **({"train/epoch": supervised / self.epoch_tokens} if self.epoch_tokens else {}),
            "tokens/total": total,
            "tokens/supervised": supervised,
            "tokens/per_second": (total - self.last[1]) / max(now - self.last[0], 1e-9),
        }
        self.last = (now, total)
        self.metrics.write(state.global_step, values)
        self.show(state.global_step, values)

    def _now(self) -> float:
        return time.perf_counter() - self.aside()
