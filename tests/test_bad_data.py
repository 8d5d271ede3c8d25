"""Data that cannot be used: what is said names the option, the file, the line, column or byte, or the row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lorasweep.data import build_datasets
from lorasweep.model import build_tokenizer
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data, Model
from tests.conftest import ROOT, TINY, command, tokenised

CAFE = '{"text": "café"}\n'


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(Model(source="random", name="tiny"))


@pytest.fixture
def said(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[Problem]]:
    """What is said about a file with this content."""

    def ask(name: str, content: bytes | str, **options: Any) -> list[Problem]:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        data = Data(source="files", files=str(tmp_path / name), **{"eval_fraction": 0.0, **options})
        with pytest.raises(UserError) as caught:
            build_datasets(data, tokenizer, 64)
        return caught.value.problems

    return ask


FILES = [
    ("empty.jsonl", "", "at least one row; the file is empty"),
    ("blank.jsonl", "\n\n  \n", "at least one row; the file is empty"),
    ("empty.json", "", "at least one row; the file is empty"),
    ("none.json", "[]", "a list of at least one row"),
    ("empty.csv", "", "at least one row; the file is empty"),
    ("header.csv", "text,other\n", "at least one row below the line of column names"),
    ("empty.parquet", "", "at least one row; the file is empty"),
    ("cut.jsonl", '{"text": "a"}\n{"text": "b"}\n{"text": "c', "line 3: Unterminated string starting at at column 10"),
    ("comma.jsonl", '{"text": "a",}\n', "line 1: "),
    ("list.jsonl", '{"text": "a"}\n"b"\n', 'line 2 is str: "b"'),
    ("twice.jsonl", '{"text": "a", "text": "b"}\n', "line 1: the key 'text' twice in one row"),
    ("cut.json", '[{"text": "a"},\n {"text": "b"', "line 2, column 14"),
    ("latin.jsonl", CAFE.encode("latin-1"), "text in UTF-8; byte 13 is not. If it is WINDOWS-1252: iconv"),
    ("later.jsonl", CAFE.encode() * 90000 + b'{"text": "\xff"}\n', "text in UTF-8; byte 1620010 is not"),
    ("wide.jsonl", CAFE.encode("utf-16"), "byte 0 is not. If it is UTF-16: iconv -f UTF-16 -t UTF-8 wide.jsonl"),
    ("wide.csv", "question;answer\na;b\n", "commas between the columns; this file has ';'"),
    ("latin.csv", "text\ncafé\n".encode("latin-1"), "text in UTF-8; byte 8 is not"),
]


@pytest.mark.parametrize(("name", "content", "expected"), FILES, ids=[name for name, _, _ in FILES])
def test_an_unreadable_file_is_named_with_the_place_of_its_fault(
    name: str, content: bytes | str, expected: str, said: Callable[..., list[Problem]]
) -> None:
    (problem,) = said(name, content)
    assert problem.key == "data.files"
    assert problem.value.endswith(name)
    assert expected in problem.allowed


def test_a_file_of_another_kind_under_a_known_ending_is_named(said: Callable[..., list[Problem]]) -> None:
    (problem,) = said("rows.parquet", "PAR1 and more")
    assert "magic bytes" in problem.allowed
    (problem,) = said("rows.csv", "text,b\na,b\na,b,c,d\n")
    assert "Expected 2 fields in line 3, saw 4" in problem.allowed


ROWS = [
    ([{"text": "a"}, {"text": None}], {}, "text in text; it is null (PLACE line 2"),
    ([{"text": "a"}, {"text": 7}], {}, "text in text; it is 7 (int) (PLACE line 2"),
    ([{"text": "a"}, {"other": "b"}], {}, "text in text; it is null (PLACE line 2"),
    ([{"prompt": "a", "completion": 1.5}], {}, "text in completion; it is 1.5 (float) (PLACE line 1"),
    ([{"q": "a", "a": None}], {"prompt": "{q}", "completion": "{a}"}, "text in a; it is null (PLACE line 1"),
    ([{"messages": "hello"}], {}, "a list of messages; it is 'hello' (str)"),
    ([{"messages": [{"role": "system", "content": ""}]}], {}, "at least one message with something in it"),
    ([{"messages": [{"from": "Doctor", "value": "a"}]}], {}, "one is of 'Doctor'"),
    ([{"messages": [{"role": "user", "content": "a"}], "tools": "[{"}], {}, "JSON in the column tools"),
    ([{"messages": []}], {}, "a list of messages; it is [] (list)"),
    ([{"messages": [{"role": "user", "content": None}]}], {}, "text in every message; what user says is null"),
    ([{"messages": [{"role": "user", "content": 3}]}], {}, "text in every message; what user says is 3 (int)"),
    ([{"messages": [{"speaker": "user", "text": "a"}]}], {}, "messages with role and content, or from and value"),
    ([{"input_ids": [1, 2, 100_000]}], {}, "ids from 0 to 499, the tokenizer's; input_ids has 100000"),
    ([{"input_ids": [1, -2]}], {}, "ids from 0 to 499, the tokenizer's; input_ids has -2"),
    ([{"input_ids": [1, 2], "labels": [1]}], {}, "as many labels as input_ids; there are 1 and 2"),
    ([{"input_ids": [1, 2], "labels": [1, 999]}], {}, "labels has 999"),
    (
        [{"text": "Q: a A: b Q: c A: d"}],
        {"response_part": "A:"},
        "the text that opens a question: data.response_part stands twice in a row without one between",
    ),
    ([{"input_ids": ["a"]}], {}, "lists of whole numbers; input_ids is ['a']"),
]


@pytest.mark.parametrize(("rows", "options", "expected"), ROWS, ids=[expected[:60] for _, _, expected in ROWS])
def test_a_row_that_cannot_be_used_is_named_with_what_belongs_there(
    rows: list[dict[str, Any]],
    options: dict[str, Any],
    expected: str,
    said: Callable[..., list[Problem]],
    tmp_path: Path,
) -> None:
    (problem,) = said("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows), **options)
    assert expected.replace("PLACE", str(tmp_path / "rows.jsonl")) in problem.allowed


def test_every_kind_of_fault_is_told_once_with_how_many_there_are(said: Callable[..., list[Problem]]) -> None:
    rows = [{"text": None}, {"text": "fine"}, {"text": None}, {"text": 3}]
    problems = said("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [problem.key for problem in problems] == ["data.text", "data.text"]
    assert "line 1 and 1 more" in problems[0].allowed
    assert "line 4" in problems[1].allowed


def test_of_several_files_the_one_with_the_bad_row_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}\n')
    (tmp_path / "b.jsonl").write_text('\n{"text": "c"}\n{"text": null}\n')
    data = Data(source="files", files=str(tmp_path / "*.jsonl"), eval_fraction=0)
    with pytest.raises(UserError, match=r"b\.jsonl line 3"):
        build_datasets(data, tokenizer, None)


def test_bad_rows_can_be_left_out_and_are_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"text": "river"}, {"text": None}, {"text": "stone"}]
    split = tokenised(rows, Data(bad_rows="drop"), tokenizer)
    assert (split.counts.kept, split.counts.dropped) == (2, {"bad": 1})
    assert split.rows["row"][:] == [0, 2]


NOTHING = [
    ({"text": " "}, {}, "data", "of 3 none is left (3 empty)"),
    ({"prompt": "a", "completion": ""}, {}, "data", "of 3 none is left (3 empty)"),
    ({"text": "### Q: a ### A: b"}, {"response_part": "### Answer:"}, "data.response_part", "3 no answer"),
    ({"prompt": "word " * 40, "completion": "b"}, {"max_length": 16}, "data.max_length", "3 cut off"),
    ({"input_ids": [4, 5], "labels": [-100, -100]}, {}, "data", "3 no answer"),
]


@pytest.mark.parametrize(("row", "options", "key", "expected"), NOTHING, ids=[str(key) for _, _, key, _ in NOTHING])
def test_rows_in_which_nothing_is_learnt_are_refused_and_one_is_shown(
    row: dict[str, Any], options: dict[str, Any], key: str, expected: str, said: Callable[..., list[Problem]]
) -> None:
    (problem,) = said("rows.jsonl", (json.dumps(row) + "\n") * 3, **options)
    assert problem.key == key
    assert expected in problem.allowed
    assert "The first one:" in problem.allowed


def test_turns_that_a_template_refuses_are_told_with_its_words(said: Callable[..., list[Problem]]) -> None:
    made = build_tokenizer(Model(source="random", name="tiny"))
    made.chat_template = "{% for m in messages %}{{ raise_exception('roles must alternate') }}{% endfor %}"
    with pytest.raises(UserError, match=r"renders this conversation: roles must alternate \(row 1"):
        tokenised([{"messages": [{"role": "user", "content": "a"}]}], Data(), made)


def test_without_a_chat_template_messages_are_refused() -> None:
    made = build_tokenizer(Model(source="random", name="tiny"))
    made.chat_template = None
    with pytest.raises(UserError, match=r"model\.chat_template.*\n.*data\.format=completion"):
        tokenised([{"messages": [{"role": "user", "content": "a"}]}], Data(), made)


def test_a_system_prompt_for_rows_without_turns_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="no place for a system prompt"):
        tokenised([{"prompt": "a", "completion": "b"}], Data(system="Hello", format="completion"), tokenizer)


def test_a_template_that_leaves_tool_calls_out_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"type": "function", "function": {"name": "lookup", "arguments": {}}}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(UserError, match="a template that writes tool calls, such as that of lookup"):
        tokenised([{"messages": turns}], Data(), tokenizer)


def test_a_missing_split_file_and_too_few_rows_are_said(said: Callable[..., list[Problem]]) -> None:
    (problem,) = said("rows.jsonl", '{"text": "a"}\n', eval_fraction=0.5)
    assert "1 cannot be divided into train and eval" in problem.allowed


@pytest.mark.slow
def test_the_command_says_it_without_a_traceback_and_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b\n')
    options = [option for option in TINY if option != "data=demo"]
    done = command(*options, "data=jsonl", "data.files=rows.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "rows.jsonl" in done.stderr
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/runs/*"))
    assert ROOT.exists()
