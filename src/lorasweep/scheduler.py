"""From the section `scheduler` to the arguments of transformers' trainer."""

from __future__ import annotations

import math
from typing import Any

from lorasweep.schema import Scheduler


def scheduler_arguments(scheduler: Scheduler, total_steps: int) -> dict[str, Any]:
    """Return the trainer's arguments for a schedule over `total_steps` optimizer steps."""
    kwargs, warmup = dict(scheduler.kwargs), 0.0 if scheduler.name == "constant" else scheduler.warmup
    if scheduler.name == "warmup_stable_decay":
        kwargs.setdefault("num_decay_steps", steps(scheduler.decay, total_steps))
    return {
        "lr_scheduler_type": scheduler.name,
        "warmup_steps": steps(warmup, total_steps),
        "lr_scheduler_kwargs": kwargs,
    }


def steps(amount: float, total_steps: int) -> int:
    """Return a share of the run (below 1, rounded up) or a number of steps as whole steps."""
    return math.ceil(amount * total_steps) if amount < 1 else int(amount)
