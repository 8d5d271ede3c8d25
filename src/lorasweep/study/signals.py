"""The signals that ask a study to end: Ctrl-C, and that of a job's time being over."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Have these signals do something else than end the process."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)


def undisturbed() -> AbstractContextManager[None]:
    """Let no further Ctrl-C get between the end of a study and its results."""
    return handled(signal.SIG_IGN)
