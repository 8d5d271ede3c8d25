"""A study as one page that needs no network: what came of its trials, to look at rather than to read."""

from __future__ import annotations

from pathlib import Path

from lorasweep.record import write_text
from lorasweep.report.gathering import gather
from lorasweep.report.page import render
from lorasweep.study.store import Store, open_store

PAGE = "report.html"


def write_report(store: Store, study: Path, page: Path | None = None, reload: float | None = None) -> Path:
    """Write the page of a study, whole or not at all, by default into its folder; `reload` is in seconds."""
    page = page or study / PAGE
    write_text(page, render(gather(store, study, page.absolute().parent), reload))
    return page


def report(study: Path, page: Path | None = None, storage: str | None = None, reload: float | None = None) -> Path:
    """Open a study and write its page."""
    store = open_store(study, storage)
    try:
        return write_report(store, study, page, reload)
    finally:
        store.close()


def report_if_possible(study: Path, storage: str | None = None) -> str:
    """Write the page of a study that has ended; return what to say: nothing that goes wrong here fails a study."""
    try:
        return f"to look at: {report(study, storage=storage)}"
    except Exception as error:
        return f"{study / PAGE} was not written ({type(error).__name__}: {error}); lorasweep report {study} tries again"
