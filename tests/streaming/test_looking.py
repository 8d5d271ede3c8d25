"""What is shown of rows that are read as they come, before training and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from lorasweep import cli
from lorasweep.assessment import rows_of
from lorasweep.data import held_out
from lorasweep.model import build_tokenizer
from lorasweep.preview import Preview, preview
from lorasweep.preview.console import show
from lorasweep.preview.page import render
from lorasweep.saved import open_run
from tests.streaming.files import numbered, written
from tests.streaming.test_runs import STOPPED, run_over


def printed(shown: Preview) -> str:
    console = Console(file=StringIO(), width=100)
    show(shown, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_preview_looks_at_the_first_rows_only_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "FIRST_ROWS", 20)
    path = written(tmp_path / "rows.jsonl", numbered(60))
    path.write_text(path.read_text() + "no row\n")
    shown = preview(run_over(path, *STOPPED), rows=3)
    train, evaluation = shown.splits
    assert (train.counts.rows, train.first) == (20, True)
    assert (evaluation.counts.rows, evaluation.first) == (4, False)
    assert [example.number for example in shown.examples] == [4, 10, 17]
    assert shown.steps
    assert shown.steps.count == 9
    assert 40 - 32 <= shown.steps.least <= shown.steps.most <= 40 + 32
    assert "train, its first rows" in printed(shown)
    assert "train, its first rows" in render(shown, "")


def test_a_run_is_shown_with_the_rows_it_has_read_and_evaluated_on_its_own(
    tmp_path: Path, launched: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(30))
    folder = launched(run_over(path, *STOPPED))
    read = json.loads((folder / "summary.json").read_text())["rows"]
    monkeypatch.setattr("sys.argv", ["lorasweep", "show", str(folder), "--json"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    shown = json.loads(capsys.readouterr().out)
    assert shown["data"]["train"]["kept"] == read["kept"] > 26
    assert shown["data"]["eval"]["kept"] == 4
    run = open_run(folder)
    rows, own = rows_of(run, folder, build_tokenizer(run.model), "eval")
    assert (rows["row"][:], own) == ([0, 1, 2, 3], True)
