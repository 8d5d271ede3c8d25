"""The signals that ask a study to end: Ctrl-C, and those of a job that is about to be ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Have these signals do something else than end the process."""
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def undisturbed() -> AbstractContextManager[None]:
    """Let no further Ctrl-C get between the end of a study and its results."""
    return handled(signal.SIG_IGN)
