"""From the section `optim` to the arguments of transformers' trainer."""

from __future__ import annotations

from typing import Any

from lorasweep.schema import Optim


def optimizer_arguments(optim: Optim) -> dict[str, Any]:
    """Return the trainer's arguments for the optimizer."""
    return {
        "optim": optim.name,
        "learning_rate": optim.lr,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.beta1,
        "adam_beta2": optim.beta2,
        "adam_epsilon": optim.eps,
    }
