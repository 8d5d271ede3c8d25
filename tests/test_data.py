"""What a row becomes: text, learnt part, tokens, labels; how rows are split, cut, dropped and counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from lorasweep import demo_rows, random_model
from lorasweep.data import IGNORED, build_datasets, fingerprint, load_splits, tokenise
from lorasweep.model import build_tokenizer
from lorasweep.rules import UserError
from lorasweep.schema import Data, Model, Shape

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(Model(source="random", name="tiny"))


@pytest.fixture
def llama3() -> PreTrainedTokenizerBase:
    """A tokenizer with Llama 3's special tokens and template."""
    made = random_model._train_tokenizer()
    made.add_special_tokens({
        "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
        "additional_special_tokens": ["<|start_header_id|>", "<|end_header_id|>"],
    })  # fmt: skip
    made.chat_template = LLAMA3
    assert isinstance(made, PreTrainedTokenizerBase)
    return made


def learnt(rows: list[dict[str, Any]], data: Data, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of the supervised tokens of every row."""
    split = tokenise(Dataset.from_list(rows), data, tokenizer, data.max_length)
    return [tokenizer.decode([token for token in row["labels"] if token != IGNORED]) for row in split.rows]


def whole(rows: list[dict[str, Any]], data: Data, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [
        tokenizer.decode(row["input_ids"])
        for row in tokenise(Dataset.from_list(rows), data, tokenizer, data.max_length).rows
    ]


ASK = [{"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "5"}]


def test_of_a_prompt_and_its_completion_the_answer_and_the_stop_token_are_learnt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert learnt([{"prompt": "What is 2 plus 3?", "completion": "5"}], Data(), tokenizer) == ["5<|im_end|>\n"]


def test_of_a_chat_every_assistant_turn_is_learnt_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [*ASK, {"role": "user", "content": "And 1 more?"}, {"role": "assistant", "content": "6"}]
    assert learnt([{"messages": turns}], Data(), tokenizer) == ["5<|im_end|>\n6<|im_end|>\n"]


def test_sharegpt_turns_are_chat_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"conversations": [{"from": "human", "value": "What is 2 plus 3?"}, {"from": "gpt", "value": "5"}]}]
    assert learnt(rows, Data(), tokenizer) == ["5<|im_end|>\n"]
    assert whole(rows, Data(), tokenizer) == whole([{"messages": ASK}], Data(), tokenizer)


def test_prompts_and_completions_of_messages_are_chats(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"prompt": ASK[:1], "completion": ASK[1:]}]
    assert whole(rows, Data(), tokenizer) == whole([{"messages": ASK}], Data(), tokenizer)
    assert learnt(rows, Data(), tokenizer) == ["5<|im_end|>\n"]


def test_messages_without_content_are_empty_turns(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [
        {"messages": [{"role": "system", "content": ""}, *ASK]},
        {"messages": [{"role": "system", "content": None}, *ASK]},
    ]
    assert learnt(rows, Data(), tokenizer) == ["5<|im_end|>\n"] * 2


def test_on_request_prompts_are_learnt_too(tokenizer: PreTrainedTokenizerBase) -> None:
    data = Data(response_only=False)
    assert learnt([{"messages": ASK}], data, tokenizer) == whole([{"messages": ASK}], data, tokenizer)


def test_columns_are_mapped_by_templates(tokenizer: PreTrainedTokenizerBase) -> None:
    data = Data(prompt="{instruction}\n\n{input}", completion="{output}")
    rows = [
        {"instruction": "Add", "input": "2 3", "output": "5"},
        {"instruction": "Add 2 and 3", "input": "", "output": "5"},
    ]
    first, second = whole(rows, data, tokenizer)
    assert "user\nAdd\n\n2 3<|im_end|>" in first
    assert "user\nAdd 2 and 3<|im_end|>" in second


def test_without_a_chat_template_prompt_and_completion_are_joined_as_they_are(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [{"prompt": "2 plus 3 is ", "completion": "5"}]
    assert whole(rows, Data(format="completion"), tokenizer) == ["2 plus 3 is 5<|im_end|>"]
    assert learnt(rows, Data(format="completion"), tokenizer) == [" 5<|im_end|>"], "the space merged into the answer"


def test_text_is_learnt_whole_and_ends_with_the_stop_token_once(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"text": "river stone"}, {"text": "river stone<|im_end|>"}, {"text": "river stone<|im_end|>\n"}]
    assert [text.rstrip() for text in learnt(rows, Data(), tokenizer)] == ["river stone<|im_end|>"] * 3


def test_prerendered_text_gets_no_second_first_token(llama3: PreTrainedTokenizerBase) -> None:
    text = llama3.apply_chat_template(ASK, tokenize=False)
    (row,) = tokenise(Dataset.from_list([{"text": text}]), Data(), llama3, None).rows
    assert row["input_ids"].count(llama3.bos_token_id) == 1


DOPPLER = {
    "instruction_part": "<|start_header_id|>user<|end_header_id|>\n\n",
    "response_part": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}


def test_the_second_tutorials_parts_leave_exactly_answers_and_stop_tokens(llama3: PreTrainedTokenizerBase) -> None:
    turns = [
        {"role": "user", "content": "Describe the Doppler effect."}, {"role": "assistant", "content": "Pitch follows motion."},
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Waves bunch up."},
    ]  # fmt: skip
    text = llama3.apply_chat_template(turns, tokenize=False)
    assert learnt([{"text": text}], Data(**DOPPLER), llama3) == [
        "Pitch follows motion.<|eot_id|>Waves bunch up.<|eot_id|>"
    ]
    assert learnt([{"messages": turns}], Data(), llama3) == learnt([{"text": text}], Data(**DOPPLER), llama3)


def test_answers_cannot_be_found_in_text_without_a_response_part(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"data\.response_part"):
        tokenise(Dataset.from_list([{"text": "a b"}]), Data(response_only=True), tokenizer, None)


def test_a_response_part_that_never_matches_is_named() -> None:
    made = build_tokenizer(Model(source="random", name="tiny"))
    data = Data(source="demo", limit=8, text="{prompt}", prompt=None, response_part="### Answer:", format="text")
    with pytest.raises(UserError, match="is this text in the rows"):
        build_datasets(data, made, None)


def test_long_rows_are_cut_and_rows_with_nothing_left_are_dropped_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    rows = [{"prompt": "short", "completion": "yes"}, {"prompt": "word " * 60, "completion": "never reached"}]
    split = tokenise(Dataset.from_list(rows), Data(), tokenizer, 40)
    assert (split.counts.rows, split.counts.kept, split.counts.cut, split.counts.dropped) == (2, 1, 1, 1)
    assert split.counts.tokens == len(split.rows[0]["input_ids"])
    assert split.counts.supervised_tokens == sum(label != IGNORED for label in split.rows[0]["labels"])


def test_tokenised_rows_pass_as_they_are(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}]
    (row,) = tokenise(Dataset.from_list(rows), Data(), tokenizer, None).rows
    assert (row["input_ids"], row["labels"]) == ([5, 6, 7], [IGNORED, 6, 7])


def test_unknown_columns_are_listed_with_the_yaml_that_would_map_them(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r'data\.prompt="\{question\}".*question, answer'):
        tokenise(Dataset.from_list([{"question": "a", "answer": "b"}]), Data(), tokenizer, None)


def test_a_template_with_a_missing_column_lists_the_columns(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="there is no quest"):
        tokenise(
            Dataset.from_list([{"question": "a", "answer": "b"}]),
            Data(prompt="{quest}", completion="{answer}"),
            tokenizer,
            None,
        )


def test_held_out_rows_are_the_same_every_time_and_in_no_other_split() -> None:
    data = Data(source="demo", limit=50, eval_fraction=0.2, test_fraction=0.1)
    once, again = load_splits(data), load_splits(data)
    texts = {name: [row["prompt"] for row in rows] for name, rows in once.items()}
    assert {name: len(rows) for name, rows in texts.items()} == {"train": 35, "eval": 10, "test": 5}
    assert len(set().union(*map(set, texts.values()))) == 50
    assert texts == {name: [row["prompt"] for row in rows] for name, rows in again.items()}
    other = load_splits(Data(source="demo", limit=50, eval_fraction=0.2, test_fraction=0.1, split_seed=1))
    assert [row["prompt"] for row in other["eval"]] != texts["eval"]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_local_files_of_every_kind_are_read(kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows, path = Dataset.from_list(demo_rows.generate(12, 0)), tmp_path / f"rows.{kind}"
    writers = {"csv": rows.to_csv, "parquet": rows.to_parquet, "jsonl": rows.to_json}
    path.write_text(json.dumps(rows.to_list())) if kind == "json" else writers[kind](path)
    splits = build_datasets(Data(source="files", files=str(path), eval_fraction=0.25), tokenizer, None)
    assert (splits["train"].counts.kept, splits["eval"].counts.kept) == (9, 3)


def test_a_file_changed_behind_its_modification_time_is_read_again(tmp_path: Path) -> None:
    import os

    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "one"}\n')
    times = (path.stat().st_atime, path.stat().st_mtime)
    data = Data(source="files", files=str(path), eval_fraction=0)
    assert load_splits(data)["train"]["text"][:] == ["one"]
    path.write_text('{"text": "two"}\n')
    os.utime(path, times)
    assert load_splits(data)["train"]["text"][:] == ["two"]


def test_the_fingerprint_follows_the_content(tokenizer: PreTrainedTokenizerBase) -> None:
    digests = [
        fingerprint(data, build_datasets(data, tokenizer, None))["splits"]["train"]["sha256"]
        for data in (
            Data(source="demo", limit=20),
            Data(source="demo", limit=20),
            Data(source="demo", limit=20, response_only=False),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_generated_rows_are_right_different_and_the_same_for_a_seed() -> None:
    rows = demo_rows.generate(300, seed=3)
    assert rows == demo_rows.generate(300, seed=3) != demo_rows.generate(300, seed=4)
    assert len({row["prompt"] for row in rows}) == 300
    for row in rows:
        words = row["prompt"].split(": ")[-1].split()
        expected = {
            "What": lambda: str(int(words[2]) + int(words[4].rstrip("?"))),
            "Reverse": lambda: " ".join(words[::-1]),
            "Sort": lambda: " ".join(sorted(words)),
            "Write": lambda: words[-1],
        }[row["prompt"].split()[0]]
        assert row["completion"] == expected()


TURNS = st.lists(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TURNS)
def test_every_mask_is_exactly_the_answers_by_a_slow_reading(contents: list[str]) -> None:
    made = build_tokenizer(Model(source="random", name="tiny", shape=Shape()))
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate([*contents, "end"])
    ]
    expected = "".join(f"{item['content']}<|im_end|>\n" for item in messages if item["role"] == "assistant")
    split = tokenise(Dataset.from_list([{"messages": messages}]), Data(), made, None)
    texts = [made.decode([token for token in row["labels"] if token != IGNORED]) for row in split.rows]
    assert texts == ([expected] if expected else [])
