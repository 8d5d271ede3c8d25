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


def forget_optimizers() -> None:
    """Let go of what bitsandbytes keeps, for the life of the process, of every run with an 8-bit optimizer.

    The trainer registers the embeddings of each with its manager, which holds on to them: a gigabyte for an 8B model.
    """
    import bitsandbytes

    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()


def unfreed_bytes() -> int:
    """Return the memory of all paged optimizer states of this process: bitsandbytes has nothing that frees it."""
    from bitsandbytes.functional import GlobalPageManager

    return sum(tensor.nbytes for tensor in GlobalPageManager.get_instance().paged_tensors)
