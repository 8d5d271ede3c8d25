"""Keeps libraries quiet on the console; what they say goes to the run's log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHATTY = (
    "httpx", "httpcore", "filelock", "fsspec", "urllib3", "asyncio", "matplotlib",
    "torch.nn.attention.varlen",  # a line for every layer of every step
)  # fmt: skip


def quiet_libraries() -> None:
    """Let libraries log to the root logger alone, without progress bars; call it before they are imported."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # While it is imported, it warns on many CPUs that an optional package for 4-bit inference is missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

    import datasets
    import transformers

    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


@contextmanager
def progress_bars(wanted: bool) -> Iterator[None]:
    """Let datasets show its progress in a terminal for a while, or not at all."""
    import datasets

    if wanted and sys.stderr.isatty():
        datasets.enable_progress_bars()
    else:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.disable_progress_bars()


@contextmanager
def keep_log(path: Path, verbosity: str, rank: int = 0) -> Iterator[None]:
    """Send log records and warnings to the run's log file; with verbosity debug to the console too.

    Of a process that does not write, errors alone go to the console, with its rank.
    """
    root, level = logging.getLogger(), logging.DEBUG if verbosity == "debug" else logging.INFO
    handlers: list[logging.Handler] = [] if rank else [logging.FileHandler(path, encoding="utf-8")]
    if rank or verbosity == "debug":
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setLevel(logging.ERROR if rank else logging.DEBUG)
    which = f"process {rank}: " if rank else ""
    for handler in handlers:
        handler.setFormatter(logging.Formatter(f"{which}%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    quiet_libraries()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
