"""A study as one page that needs no network: what came of its trials, to look at rather than to read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from lorasweep.record import write_text
from lorasweep.report.gathering import gather
from lorasweep.report.page import render
from lorasweep.study.folder import controller_of
from lorasweep.study.store import Store, open_store

PAGE = "report.html"


def report(study: Path, page: Path, storage: str | None = None, reload: float | None = None) -> Path:
    """Open a study and write its page; with `reload` the page loads itself again after so many seconds."""
    store = open_store(study, storage)
    try:
        return write_report(store, study, page, reload)
    finally:
        store.close()


def write_report(store: Store, study: Path, page: Path | None = None, reload: float | None = None) -> Path:
    """Write the page of a study whole or not at all, by default into its folder."""
    page = page or study / PAGE
    write_text(page, render(gather(store, study, page.absolute().parent), reload))
    return page


def watch(study: Path, page: Path, storage: str | None, seconds: float) -> None:
    """Write the page of a study again and again while something runs it, and a last time when nothing does."""
    try:
        while controller_of(study):
            time.sleep(seconds)
            report(study, page, storage, reload=seconds)
    except KeyboardInterrupt:
        pass
    report(study, page, storage)


def report_if_possible(writing: Callable[[], Path]) -> str:
    """Write a page at the end of something that it must not fail; return what to say about it."""
    try:
        return f"to look at: {os.path.relpath(writing())}"
    except Exception as error:
        return f"there is no {PAGE}: {type(error).__name__}: {error}"
