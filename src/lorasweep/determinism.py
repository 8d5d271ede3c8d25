"""What makes a GPU give the same bits twice: variables that libraries read when they are loaded, and torch's switch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lorasweep.rules import Problem, UserError

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    "TORCHINDUCTOR_DETERMINISTIC": "1",
}
"""That streams of cuBLAS do not share a workspace (docs.nvidia.com/cuda/cublas, results reproducibility), without which
torch refuses to be strict; that flash-attn's backward adds up in order; that torch.compile does not time kernels."""
NO_KERNEL = "does not have a deterministic implementation"


def prepare(is_wanted: bool) -> None:
    """Set the variables; to be called before torch is imported."""
    if is_wanted:
        os.environ |= ENVIRONMENT


@contextmanager
def strict(is_wanted: bool) -> Iterator[None]:
    """Have torch take only kernels that repeat themselves, attention's too; raises UserError where one has none.

    Strict because with warnings alone torch keeps attention whose backward adds up in any order (pytorch#182551).
    """
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(is_wanted or before)
    try:
        yield
    except RuntimeError as error:
        if not (is_wanted and NO_KERNEL in str(error)):
            raise
        allowed = f"false, or settings whose kernels repeat themselves: {str(error).split(',')[0]}"
        raise UserError(Problem("deterministic", True, allowed)) from error
    finally:
        torch.use_deterministic_algorithms(before)
