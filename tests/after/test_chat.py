"""chat: answers in the form of training, turns kept apart, remembered and cut."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lorasweep import chat as chats
from lorasweep import saved
from lorasweep.model import build_tokenizer
from lorasweep.schema import Data
from tests.after.conftest import Done
from tests.conftest import tiny


def test_chat_answers_as_the_evaluation_did(run: Path, lorasweep: Callable[..., Done]) -> None:
    lorasweep("evaluate", str(run))
    answers = json.loads((run / "evaluations" / "eval.json").read_text())
    opened = saved.open_run(run)
    chat = chats.open_chat(run, opened, True, None, 4, 0.0)
    typed = re.search(r"user\n(.*?)<\|im_end\|>", answers["tuned"]["answers"][0]["prompt"], re.DOTALL)
    assert typed
    assert chat.ask(typed[1]) == [answers[side]["answers"][0]["generated"] for side in ("untuned", "tuned")]


def test_chat_labels_both_sides_and_keeps_their_turns_apart(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("chat", str(run), "What is 1 plus 2?", "--base", "--max-new-tokens", "3")
    assert done.code == 0
    assert done.out.index("base:") < done.out.index("tuned:")


def test_a_conversation_goes_on_until_the_input_ends(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("chat", str(run), "--max-new-tokens", "3", answers="one\n\n/reset\ntwo\n")
    assert done.code == 0
    assert done.err == ""


def test_a_conversation_is_remembered_cut_and_reset(run: Path) -> None:
    chat = chats.open_chat(run, saved.open_run(run), False, "Be short.", 3, 0.7)
    chat.ask("first")
    chat.ask("second")
    (speaker,) = chat.speakers
    assert [turn["role"] for turn in speaker.turns] == ["user", "assistant"] * 2
    assert chat.style.render(speaker.turns)[0].count("<|im_start|>user") == 2
    chat.ask("word " * 2000)
    chat.ask("word " * 1500)
    assert len(speaker.turns) == 2, "the oldest turns are left out where all do not fit"
    chat.reset()
    assert not speaker.turns


@pytest.mark.parametrize(("data", "typed", "rendered"), [
    (Data(prompt="Q: {question}\n{context}", completion="{a}"), "hi", "<|im_start|>user\nQ: hi<|im_end|>"),
    (Data(prompt="Q: {question}\nA:", completion="{a}", format="completion"), "hi", "Q: hi\nA:"),
    (Data(text="{text}", instruction_part="[I]", response_part="[R]"), "hi", "[I]hi[R]"),
    (Data(format="chat"), "hi {x}", "<|im_start|>user\nhi {x}<|im_end|>"),
])  # fmt: skip
def test_a_question_is_put_where_the_rows_had_theirs(data: Data, typed: str, rendered: str) -> None:
    style = chats.Style(data, build_tokenizer(tiny().model))
    text, _ = style.render([{"role": "user", "content": style.question(typed)}])
    assert text.startswith(rendered)


def test_any_special_token_ends_an_answer(run: Path) -> None:
    chat = chats.open_chat(run, saved.open_run(run), False, None, 3, 0.0)
    assert set(chat.settings.eos_token_id) >= set(chat.style.tokenizer.all_special_ids)
