"""What a preview says about rows: counts, stop tokens, first tokens, lengths, packing, and rows with their masks."""

import json
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy
import pytest
from rich.console import Console

from lorasweep import cli
from lorasweep.preview import Preview, preview
from lorasweep.preview.console import LEARNT, MASKED, fact_words, show
from lorasweep.preview.page import render
from lorasweep.rules import UserError
from tests.conftest import composed

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {number} plus 1?"}, {"role": "assistant", "content": str(number + 1)}]}
    for number in range(30)
]  # fmt: skip


def previewed(path: Path, data: list[dict[str, Any]], *overrides: str, **options: Any) -> Preview:
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    return preview(composed("model=tiny", "data=jsonl", f"data.files={path}/rows.jsonl", *overrides), **options)


def printed(shown: Preview, **options: Any) -> str:
    console = Console(file=StringIO(), width=100, **options)
    show(shown, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_counts_lengths_and_shares_are_those_of_the_rows(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "word " * 9}, {"role": "assistant", "content": "word " * 60}]
    shown = previewed(tmp_path, [*ROWS, {"messages": long}], "data.eval_fraction=0", "data.max_length=64", rows=31)
    (train,) = shown.splits
    assert (train.counts.rows, train.counts.kept, train.counts.cut) == (31, 31, 1)
    lengths = sorted(example.tokens for example in shown.examples)
    assert (train.shortest, train.longest) == (lengths[0], lengths[-1]) == (lengths[0], 64)
    assert train.median == int(numpy.median(lengths))
    assert sum(count for _, _, count in train.histogram) == 31
    for first, last, count in train.histogram:
        assert count == sum(first <= length <= last for length in lengths)
    assert train.counts.supervised_tokens == sum(example.supervised for example in shown.examples)
    assert train.stopping == 30, "the row that was cut lost its stop token"
    assert dict(fact_words(train))["stop token"].startswith("! 1 of 31 rows do not learn to stop")


def test_a_special_token_at_a_cut_is_no_stop_token(tmp_path: Path) -> None:
    rows = [{"input_ids": [40, 41, 42, 3]}, {"input_ids": [40, 41, 42, 43, 2, 44]}, {"input_ids": [1, 40, 41]}]
    (train,) = previewed(tmp_path, rows, "data.eval_fraction=0", "data.max_length=5").splits
    assert (train.stopping, train.stop_tokens) == (1, ["<|im_end|>"])


def test_a_row_is_shown_with_what_is_learnt_apart(tmp_path: Path) -> None:
    shown = previewed(tmp_path, ROWS, row=4)
    (example,) = shown.examples
    assert example.pieces == [
        ("<|im_start|>user\nWhat is 4 plus 1?<|im_end|>\n<|im_start|>assistant\n", False),
        ("5<|im_end|>\n", True),
    ]
    text = printed(shown, force_terminal=True, color_system="standard")
    console = Console(force_terminal=True, color_system="standard", file=StringIO())
    for words, style in (("5<|im_end|>", LEARNT), ("What is 4 plus 1?<|im_end|>", MASKED)):
        console.print(words, style=style, end="", highlight=False)
        code = console.file.getvalue().split(words)[0].rsplit("\x1b[", 1)[1]  # type: ignore[attr-defined]
        line = next(line for line in text.splitlines() if words in line)
        assert line.startswith(f"\x1b[{code}")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    shown = previewed(tmp_path, [{"text": "red \x1b[31mink"}], "data.eval_fraction=0")
    assert "␛[31mink" in printed(shown)
    assert "\x1b" not in printed(shown)


def test_rows_in_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    shown = previewed(tmp_path, [{"text": "[INST] a [/INST] [bold]b[/bold] <b>"}], "data.eval_fraction=0")
    assert "[INST] a [/INST] [bold]b[/bold] <b>" in printed(shown)
    assert "[INST] a [/INST] [bold]b[/bold] &lt;b&gt;" in render(shown, "x")


def test_doubled_first_tokens_and_rows_shared_with_train_are_flagged(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(json.dumps({"input_ids": [1, 1, 40, 41]}) + "\n")
    rows = [{"input_ids": [1, 1, 40, 41]}, {"input_ids": [1, 50, 51]}]
    shown = previewed(tmp_path, rows, f"data.eval_files={tmp_path}/eval.jsonl")
    assert dict(fact_words(shown.splits[0]))["BOS"] == "! 1 rows begin with two"
    assert dict(fact_words(shown.splits[1]))["in train"].startswith("! 1 of these rows")


def test_packing_and_steps_are_told(tmp_path: Path) -> None:
    shown = previewed(tmp_path, ROWS, "data.eval_fraction=0", "data.max_length=128", "train.tokens_per_step=40")
    assert shown.packing
    assert shown.steps
    tokens = shown.splits[0].counts.tokens
    assert shown.packing.fill == pytest.approx(tokens / (128 * shown.packing.packed_rows))
    assert tokens / 128 <= shown.packing.packed_rows < 30
    longest = max(example.supervised for example in previewed(tmp_path, ROWS, rows=30).examples)
    assert 40 - longest <= shown.steps.least <= shown.steps.most <= 40 + longest
    assert "train.tokens_per_step" in printed(shown)


def test_the_page_stands_alone_and_shows_every_row_asked_for(tmp_path: Path) -> None:
    page = render(previewed(tmp_path, ROWS, rows=7), "lorasweep preview data=jsonl")
    assert page.count("<article>") == 7
    assert "<mark>1&lt;|im_end|&gt;" in page.replace("\n", "")
    assert "src=" not in page
    assert "http" not in page


def test_a_split_or_row_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--split = 'test'\n  a split that there is: train, eval \(data\.test_fraction"
    ):
        previewed(tmp_path, ROWS, split="test")
    with pytest.raises(UserError, match=r"--row = 31\n  one of the 27 kept rows of train, which are numbered 1 to"):
        previewed(tmp_path, ROWS, row=30)


def test_the_command_prints_json_writes_pages_and_explains_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lorasweep(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lorasweep", "preview", "model=tiny", "data=demo", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    code, out, _ = lorasweep("--json", "--rows", "0", "train.tokens_per_step=60")
    assert code == 0
    assert json.loads(out)["steps"]["count"] == 12
    assert lorasweep("--html", "page.html") == (0, "written to page.html\n", "")
    assert "lorasweep preview model=tiny data=demo" in (tmp_path / "page.html").read_text()
    for arguments, words in (
        (["data.max_lenght=3"], "did you mean 'max_length'?"),
        (["--html", "no/page.html"], "--html = 'no/page.html'"),
        (["train.tokens_per_step=2"], "at least 8, the supervised tokens of the longest row"),
    ):
        code, _, err = lorasweep(*arguments)
        assert (code, "Traceback" in err) == (2, False)
        assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
