"""lorasweep report as a user types it, and the page that a study leaves at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lorasweep import cli
from lorasweep.report import PAGE, report_if_possible, watch, write_report
from lorasweep.study.folder import OWNER, STUDIES
from lorasweep.study.session import run_session
from tests.report.odd import running
from tests.study.sessions import Told, launch, until
from tests.study.toy import toy
from tests.study.trials import ended, kept

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study called guanaco below outputs/studies of the working directory."""
    monkeypatch.chdir(tmp_path)
    store = kept(STUDIES / "guanaco")
    ended(store, {"lora.r": 8}, 1.0, "baseline")
    store.close()
    return tmp_path / STUDIES / "guanaco"


@pytest.fixture
def lorasweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lorasweep", "report", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return command


def test_a_page_is_written_into_the_folder_of_the_study_or_where_it_is_wanted(study: Path, lorasweep: Command) -> None:
    assert lorasweep("guanaco") == (0, f"{STUDIES}/guanaco/{PAGE}")
    assert "guanaco" in (study / PAGE).read_text()
    assert lorasweep("guanaco", "--out", "mine.html") == (0, "mine.html")
    assert Path("mine.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["guanac"], "did you mean 'guanaco'?"),
     (["guanaco", "--out", "nowhere/mine.html"], "a file that can be written (No such file or directory)"),
     (["guanaco", "--out", "outputs"], "is a directory"),
     (["guanaco", "--watch", "--every", "0"], "or equal to 1"),
     (["guanaco", "--storage", "sqlite:///missing/study.db"], "a study whose database can be read")],
)  # fmt: skip
def test_mistakes_are_said_in_words(study: Path, lorasweep: Command, arguments: list[str], words: str) -> None:
    code, printed = lorasweep(*arguments)
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
    assert not (study / PAGE).exists()


def test_a_study_that_nothing_runs_is_not_watched(study: Path, lorasweep: Command) -> None:
    code, printed = lorasweep("guanaco", "--watch")
    assert (code, "nothing runs the study now" in printed) == (0, True)
    assert "data-reload" not in (study / PAGE).read_text().partition("<style>")[0]


def test_a_study_is_watched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    session = launch(folder, n_trials=6, seconds=0.3)
    until(lambda: (folder / OWNER).exists() and (folder / "trials" / "1").exists())
    pages: list[str] = []

    def sleep(seconds: float) -> None:
        pages.append((folder / PAGE).read_text() if pages else "")
        until(lambda: session.poll() is not None or len(list(folder.glob("trials/*"))) > len(pages))

    monkeypatch.setattr("lorasweep.report.time", SimpleNamespace(sleep=sleep))
    watch(folder, folder / PAGE, None, 7.0)
    assert session.wait() == 0
    assert len(pages) > 1
    assert all('<html lang="en" data-reload="7.0">' in page for page in pages[1:])
    last = (folder / PAGE).read_text()
    assert '<html lang="en">' in last
    assert last.count('"state":"complete"') == 6


def test_whoever_stops_watching_has_a_page_that_does_not_load_itself_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lorasweep.report.time", SimpleNamespace(sleep=interrupt))
    folder = running(tmp_path / "s")
    watch(folder, folder / PAGE, None, 7.0)
    assert '<html lang="en">' in (folder / PAGE).read_text()


def test_a_session_says_where_its_page_is(tmp_path: Path) -> None:
    folder, view = tmp_path / "s", Told()
    closing = lambda store: report_if_possible(lambda: write_report(store, folder))  # noqa: E731
    assert run_session(toy(folder, n_trials=2), view, closing) is None
    assert "to look at: " in view.text.getvalue()
    assert (folder / PAGE).read_text().count('"state":"complete"') == 2


def test_no_study_fails_by_its_page(tmp_path: Path) -> None:
    folder, view = tmp_path / "s", Told()
    (tmp_path / "in the way").touch()
    closing = lambda store: report_if_possible(lambda: write_report(store, folder, tmp_path / "in the way" / PAGE))  # noqa: E731
    assert run_session(toy(folder, n_trials=2), view, closing) is None
    assert "there is no report.html: NotADirectoryError" in view.text.getvalue()
    assert (folder / "leaderboard.csv").exists()
