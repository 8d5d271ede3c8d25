"""Which text of a row is learnt: by hand for the templates of the known model families, by a slow reading for the rest.

A learnt piece stands in ⟦ ⟧; together with what is around them the pieces are the whole row.
"""

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from lorasweep.data.segments import segments
from lorasweep.model import build_tokenizer
from lorasweep.rules import UserError
from lorasweep.schema import Data, Model
from tests.conftest import tokenised
from tests.templates import LLAMA2, MISTRAL, NO_STOP, SMOLLM, byte_level, sentencepiece, shipped

ASK = [{"role": "user", "content": "What is 2 plus 3?"}, {"role": "assistant", "content": "5"}]
TURNS = [*ASK, {"role": "user", "content": "And 1 more?"}, {"role": "assistant", "content": "6"}]
CHATML = "<|im_start|>user\nWhat is 2 plus 3?<|im_end|>\n<|im_start|>assistant\n"


def shown(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenised row as text, learnt pieces in brackets."""
    pieces = segments(row["input_ids"], row["labels"], tokenizer)
    return "".join(f"⟦{text}⟧" if learnt else text for text, learnt in pieces)


def rendered(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, **options: Any) -> str:
    """The one row after rendering, masking and tokenising."""
    (made,) = tokenised([row], Data(**options), tokenizer).rows
    return shown(made, tokenizer)


@pytest.fixture(scope="module")
def tiny() -> PreTrainedTokenizerBase:
    return build_tokenizer(Model(source="random", name="tiny"))


LLAMA3_HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
USER3, ASSISTANT3 = LLAMA3_HEADER.format("user"), LLAMA3_HEADER.format("assistant")
FAMILIES = {
    "Llama 2": (
        lambda: sentencepiece(LLAMA2, "<s>", "</s>"),
        "<s>[INST] What is 2 plus 3? [/INST]⟦ 5 </s>⟧<s>[INST] And 1 more? [/INST]⟦ 6 </s>⟧",
    ),
    "Llama 3": (
        lambda: byte_level(shipped("llama3"), "<|begin_of_text|>", "<|eot_id|>", *LLAMA3_TOKENS),
        f"<|begin_of_text|>{USER3}What is 2 plus 3?<|eot_id|>{ASSISTANT3}⟦5<|eot_id|>⟧"
        f"{USER3}And 1 more?<|eot_id|>{ASSISTANT3}⟦6<|eot_id|>⟧",
    ),
    "Llama 3.2": (
        lambda: byte_level(shipped("llama3_2"), "<|begin_of_text|>", "<|eot_id|>", *LLAMA3_TOKENS),
        f"<|begin_of_text|>{LLAMA3_HEADER.format('system')}Cutting Knowledge Date: December 2023\n"
        f"Today Date: 26 Jul 2024\n\n<|eot_id|>{USER3}What is 2 plus 3?<|eot_id|>{ASSISTANT3}⟦5<|eot_id|>⟧"
        f"{USER3}And 1 more?<|eot_id|>{ASSISTANT3}⟦6<|eot_id|>⟧",
    ),
    "Mistral": (
        lambda: sentencepiece(MISTRAL, "<s>", "</s>"),
        "<s>[INST] What is 2 plus 3? [/INST]⟦5</s>⟧[INST] And 1 more? [/INST]⟦6</s>⟧",
    ),
    "Qwen 2.5": (
        lambda: byte_level(shipped("qwen2_5"), None, "<|im_end|>", "<|im_start|>"),
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        f"{CHATML}⟦5<|im_end|>\n⟧<|im_start|>user\nAnd 1 more?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>\n⟧",
    ),
    # Its own template takes the (empty) thoughts of earlier turns away again; TRL's variant leaves them in.
    "Qwen 3": (
        lambda: byte_level(shipped("qwen3"), None, "<|im_end|>", "<|im_start|>"),
        f"{CHATML}⟦<think>\n\n</think>\n\n5<|im_end|>\n⟧<|im_start|>user\nAnd 1 more?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\n6<|im_end|>\n⟧",
    ),
    "Gemma": (
        lambda: sentencepiece(shipped("gemma"), "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos><start_of_turn>user\nWhat is 2 plus 3?<end_of_turn>\n<start_of_turn>model\n⟦5<end_of_turn>\n⟧"
        "<start_of_turn>user\nAnd 1 more?<end_of_turn>\n<start_of_turn>model\n⟦6<end_of_turn>\n⟧",
    ),
    "Gemma 3": (
        lambda: sentencepiece(shipped("gemma3"), "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos><start_of_turn>user\nWhat is 2 plus 3?<end_of_turn>\n<start_of_turn>model\n⟦5<end_of_turn>\n⟧"
        "<start_of_turn>user\nAnd 1 more?<end_of_turn>\n<start_of_turn>model\n⟦6<end_of_turn>\n⟧",
    ),
    # Its template writes the end-of-text token after the whole conversation only.
    "Phi 3": (
        lambda: sentencepiece(shipped("phi3"), "<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|user|>\nWhat is 2 plus 3?<|end|>\n<|assistant|>\n⟦5<|end|>\n⟧"
        "<|user|>\nAnd 1 more?<|end|>\n<|assistant|>\n⟦6<|end|>\n<|endoftext|>⟧",
    ),
    "Phi 3.5": (
        lambda: sentencepiece(shipped("phi3_5"), "<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|user|>\nWhat is 2 plus 3?<|end|>\n<|assistant|>\n⟦5<|end|>\n⟧"
        "<|user|>\nAnd 1 more?<|end|>\n<|assistant|>\n⟦6<|end|>\n<|endoftext|>⟧",
    ),
    # Its own template ends a turn with nothing; what the model says to end one is the next header.
    "GLM 4.5": (
        lambda: byte_level(shipped("glm4moe"), None, "<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        "[gMASK]<sop><|user|>\nWhat is 2 plus 3?<|assistant|>⟦\n<think></think>\n5<|user|>⟧"
        "\nAnd 1 more?<|assistant|>⟦\n<think></think>\n6<|user|>⟧",
    ),
    "SmolLM": (
        lambda: byte_level(SMOLLM, "<|im_start|>", "<|im_end|>"),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n"
        f"{CHATML}⟦5<|im_end|>\n⟧<|im_start|>user\nAnd 1 more?<|im_end|>\n<|im_start|>assistant\n⟦6<|im_end|>\n⟧",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_of_each_model_family_exactly_the_answers_and_their_stop_tokens_are_learnt(family: str) -> None:
    build, expected = FAMILIES[family]
    assert rendered({"messages": TURNS}, build()) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_of_one_question_the_mask_is_that_of_the_last_turn(family: str) -> None:
    build, expected = FAMILIES[family]
    tokenizer = build()
    answer = expected[expected.rindex("⟦") :].replace("6", "5")
    assert rendered({"messages": ASK}, tokenizer).endswith(answer)
    assert rendered({"messages": ASK}, tokenizer).count("⟦") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_what_the_library_renders(family: str) -> None:
    tokenizer = FAMILIES[family][0]()
    plain = tokenizer.apply_chat_template(ASK, tokenize=False, date_string="26 Jul 2024")
    plain += "<|user|>" if family == "GLM 4.5" else ""
    assert rendered({"messages": ASK}, tokenizer).replace("⟦", "").replace("⟧", "") == plain


def test_marks_in_a_template_hold_and_take_the_stop_token_in() -> None:
    marked = MISTRAL.replace(
        "{{ message['content'] + eos_token }}",
        "{% generation %}{{ message['content'] }}{% endgeneration %}{{ eos_token }}",
    )
    row = rendered({"messages": TURNS}, sentencepiece(marked, "<s>", "</s>"))
    assert row == FAMILIES["Mistral"][1]


def test_an_unmarked_last_turn_is_not_learnt() -> None:
    marked = SMOLLM.replace(
        "{{ '<|im_start|>' + message['role']",
        "{% if message.role == 'assistant' and not loop.last %}{{ '<|im_start|>assistant\\n' }}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ '<|im_start|>' + message['role']",
    ).replace("{% endfor %}", "{% endif %}{% endfor %}", 1)
    row = rendered({"messages": TURNS}, byte_level(marked, None, "<|im_end|>", "<|im_start|>"))
    assert row.count("⟦") == 1
    assert "⟦5<|im_end|>⟧" in row


def test_what_is_learnt_of_a_turn_is_the_same_in_one_turn_and_in_several_with_every_template_that_trl_ships() -> None:
    compared = 0
    for path in sorted((files("trl") / "chat_templates").iterdir(), key=str):
        if not path.name.endswith(".jinja") or re.match("idefics|llava|smolvlm", path.name):
            continue  # templates of conversations about images
        template = path.read_text()
        special = sorted(set(re.findall(r"<\|?[a-zA-Z_｜▁]+\|?>", template)))
        tokenizer = byte_level(template, "<s>", "</s>", *special)
        one, several = (rendered({"messages": turns}, tokenizer) for turns in (ASK, TURNS))
        learnt = [piece.split("⟧")[0] for piece in several.split("⟦")[1:]]
        last = one.split("⟦")[1].split("⟧")[0]
        # Phi 3 ends a whole text once more, gpt-oss its last turn in another way.
        first = learnt[0].replace("<|end|>", "<|return|>") if "gptoss" in path.name else learnt[0]
        assert last.removesuffix("</s>") == first, path.name
        assert last == learnt[1].replace("6", "5"), path.name
        compared += 1
    assert compared > 60


def test_thoughts_that_a_template_leaves_out_are_counted_and_words_that_it_leaves_out_are_refused() -> None:
    tokenizer = byte_level(SMOLLM, None, "<|im_end|>", "<|im_start|>")
    apart = [{"messages": [ASK[0], {**ASK[1], "reasoning_content": "two and three"}]}]
    within = [{"messages": [ASK[0], {**ASK[1], "content": "<think>two and three</think>5"}]}]
    assert tokenised(apart, Data(), tokenizer).counts.thoughtless == 1
    assert tokenised(within, Data(), tokenizer).counts.thoughtless == 0
    assert tokenised([{"messages": ASK}], Data(), tokenizer).counts.thoughtless == 0
    thinking = byte_level(shipped("qwen3"), None, "<|im_end|>", "<|im_start|>")
    assert tokenised(apart, Data(), thinking).counts.thoughtless == 0
    with pytest.raises(UserError, match=r"writes what is said as text; this one leaves out .What is.*row 1"):
        tokenised([{"messages": ASK}], Data(), byte_level(shipped("smolvlm"), None, "</s>"))


def test_declared_tools_and_calls_reach_the_template() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
    turns = [ASK[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    tools = [{"type": "function", "function": {"name": "add", "description": "Adds numbers", "parameters": {}}}]
    for declared in (tools, json.dumps(tools)):
        row = rendered({"messages": turns, "tools": declared}, FAMILIES["Qwen 2.5"][0]())
        assert "Adds numbers" in row.split("⟦")[0]
        assert '"name": "add"' in row.split("⟦")[1]


def test_a_tokenizer_that_adds_a_stop_token_does_not_add_a_second_one() -> None:
    tokenizer = sentencepiece(MISTRAL, "<s>", "</s>")
    both = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=both)
    assert rendered({"text": "What is"}, tokenizer) == "⟦<s> What is</s>⟧"
    row = rendered({"prompt": "What is ", "completion": "5"}, tokenizer, format="completion")
    assert row.endswith("5</s>⟧")
    assert row.count("</s>") == 1


def test_where_a_template_never_stops_the_last_answer_gets_the_stop_token() -> None:
    row = rendered({"messages": TURNS}, byte_level(NO_STOP, None, "</s>"))
    assert row == "user: What is 2 plus 3?\nassistant:⟦ 5\n⟧user: And 1 more?\nassistant:⟦ 6\n</s>⟧", "the space merged"


def test_a_template_that_rewrites_earlier_turns_and_that_nobody_knows_is_refused() -> None:
    forgetful = SMOLLM.replace("message['content'] +", "(message['content'] if loop.last else '…') +")
    with pytest.raises(UserError, match=r"writes earlier turns.*row 1"):
        rendered({"messages": TURNS}, byte_level(forgetful, None, "<|im_end|>", "<|im_start|>"))


def test_todays_date_never_enters_a_row() -> None:
    dated = SMOLLM.replace("named SmolLM", "on ' + strftime_now('%A %d %B %Y, %H:%M') + '")
    row = rendered({"messages": ASK}, byte_level(dated, None, "<|im_end|>"), template_date="2025-03-02")
    assert "on Sunday 02 March 2025, 00:00" in row


def test_template_kwargs_reach_the_template() -> None:
    tokenizer = FAMILIES["Qwen 3"][0]()
    row = rendered({"messages": ASK}, tokenizer, template_kwargs={"enable_thinking": False})
    assert row.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n⟦5<|im_end|>\n⟧")


def test_a_prompt_and_its_completion_are_a_chat_where_there_is_a_template(tiny: PreTrainedTokenizerBase) -> None:
    expected = f"{CHATML}⟦5<|im_end|>\n⟧"
    assert rendered({"prompt": "What is 2 plus 3?", "completion": "5"}, tiny) == expected
    assert rendered({"prompt": ASK[:1], "completion": ASK[1:]}, tiny) == expected
    assert rendered({"messages": ASK}, tiny) == expected
    sharegpt = [{"from": "human", "value": "What is 2 plus 3?"}, {"from": "gpt", "value": "5"}]
    assert rendered({"conversations": sharegpt}, tiny) == expected
    parts = [{"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]} for turn in ASK]
    assert rendered({"messages": parts}, tiny) == expected


def test_system_prompts_come_from_the_conversation_or_from_the_config(tiny: PreTrainedTokenizerBase) -> None:
    told = "<|im_start|>system\nBe brief.<|im_end|>\n"
    own = {"messages": [{"role": "system", "content": "Be brief."}, *ASK]}
    assert rendered(own, tiny, system="Be long.") == f"{told}{CHATML}⟦5<|im_end|>\n⟧"
    assert rendered({"messages": ASK}, tiny, system="Be brief.") == f"{told}{CHATML}⟦5<|im_end|>\n⟧"
    mapped = {"q": "What is 2 plus 3?", "a": "5", "s": "Be brief."}
    assert rendered(mapped, tiny, prompt="{q}", completion="{a}", system="{s}") == f"{told}{CHATML}⟦5<|im_end|>\n⟧"
    null = {"messages": [{"role": "system", "content": None}, *ASK]}
    assert rendered(null, tiny) == f"{CHATML}⟦5<|im_end|>\n⟧"


def test_on_request_prompts_are_learnt_too(tiny: PreTrainedTokenizerBase) -> None:
    assert rendered({"messages": ASK}, tiny, response_only=False) == f"⟦{CHATML}5<|im_end|>\n⟧"


def test_columns_are_mapped_by_templates(tiny: PreTrainedTokenizerBase) -> None:
    mapping = {"prompt": "{instruction}\n\n{input}", "completion": "{output}"}
    both = rendered({"instruction": "Add", "input": "2 3", "output": "5"}, tiny, **mapping)
    alone = rendered({"instruction": "Add 2 and 3", "input": None, "output": "5"}, tiny, **mapping)
    number = rendered({"instruction": "Add", "input": "2 3", "output": 5}, tiny, **mapping)
    assert both == number == "<|im_start|>user\nAdd\n\n2 3<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>\n⟧"
    assert "user\nAdd 2 and 3<|im_end|>" in alone


def test_without_a_chat_template_prompt_and_completion_are_joined_as_they_are(tiny: PreTrainedTokenizerBase) -> None:
    row = {"prompt": "2 plus 3 is ", "completion": "5"}
    assert rendered(row, tiny, format="completion") == "2 plus 3 is⟦ 5<|im_end|>⟧", "the space merged into the answer"


def test_text_is_learnt_whole_and_ends_with_the_stop_token_once(tiny: PreTrainedTokenizerBase) -> None:
    for text in ("river stone", "river stone<|im_end|>"):
        assert rendered({"text": text}, tiny) == "⟦river stone<|im_end|>⟧"
    assert rendered({"text": "river stone<|im_end|>\n"}, tiny) == "⟦river stone<|im_end|>\n⟧"


DOPPLER_ROW = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 July 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nDescribe the Doppler effect."
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦Pitch follows motion.<|eot_id|>⟧"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "⟦Waves bunch up.<|eot_id|>⟧"
)


def test_the_second_tutorials_row_is_learnt_by_its_answers_and_their_stop_tokens() -> None:
    tokenizer = FAMILIES["Llama 3"][0]()
    text = DOPPLER_ROW.replace("⟦", "").replace("⟧", "")
    options = {"instruction_part": USER3, "response_part": ASSISTANT3}
    assert rendered({"text": text}, tokenizer, **options) == DOPPLER_ROW
    (row,) = tokenised([{"text": text}], Data(**options), tokenizer).rows
    assert row["input_ids"].count(tokenizer.bos_token_id) == 1


def test_the_first_tutorials_row_is_learnt_whole_with_one_first_token_per_turn() -> None:
    tokenizer = sentencepiece(LLAMA2, "<s>", "</s>")
    tokenizer.add_bos_token = True
    text = "<s>[INST] What is 2 plus 3? [/INST] 5 </s>"
    (row,) = tokenised([{"text": text}], Data(response_only=False), tokenizer).rows
    assert shown(row, tokenizer) == f"⟦{text}⟧"
    assert row["input_ids"].count(tokenizer.bos_token_id) == 1


def test_answers_cannot_be_found_in_text_without_a_response_part(tiny: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"data\.response_part"):
        rendered({"text": "a b"}, tiny, response_only=True)


def test_tokenised_rows_pass_as_they_are(tiny: PreTrainedTokenizerBase) -> None:
    (row,) = tokenised([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}], Data(), tiny).rows
    assert (row["input_ids"], row["labels"]) == ([5, 6, 7], [-100, 6, 7])
    (row,) = tokenised([{"input_ids": [5, 6, 7]}], Data(), tiny).rows
    assert row["labels"] == [5, 6, 7]


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs", "S"]), min_size=1, max_size=12)


def slow_mask(text: str, spans: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase) -> list[bool]:
    """Mark a token if one of its characters is in an answer, character by character."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    answers = {position for start, end in spans for position in range(start, end)}
    return [any(position in answers for position in range(*offsets)) for offsets in encoded["offset_mapping"]]


PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOKENIZERS = [byte_level(SMOLLM, None, "</s>"), sentencepiece(MISTRAL, "<s>", "</s>")]


@PROPERTY
@given(
    contents=st.lists(WORDS, min_size=1, max_size=6), tokenizer=st.sampled_from(TOKENIZERS), answers_first=st.booleans()
)
def test_the_mask_of_marked_text_is_that_of_a_slow_reading(
    contents: list[str], tokenizer: PreTrainedTokenizerBase, answers_first: bool
) -> None:
    text, spans = "", []
    for index, content in enumerate(contents):
        is_answer = (index % 2 == 0) is answers_first
        text += "### A:" if is_answer else "### Q:"
        text += content
        if is_answer:
            spans.append((len(text) - len(content), len(text)))
    text += "</s>"
    if spans and spans[-1][1] == len(text) - len("</s>"):
        spans[-1] = (spans[-1][0], len(text))
    split = tokenised([{"text": text}], Data(instruction_part="### Q:", response_part="### A:"), tokenizer, empty=True)
    for row in split.rows:
        assert [label != -100 for label in row["labels"]][-len(mask := slow_mask(text, spans, tokenizer)) :] == mask
        assert row["input_ids"] == tokenizer(text, add_special_tokens=True)["input_ids"]
    assert len(split.rows) == any(text[start:end].removesuffix("</s>").strip() for start, end in spans)


@PROPERTY
@given(contents=st.lists(WORDS.filter(str.strip), min_size=2, max_size=6))
def test_the_mask_of_a_chat_is_that_of_a_slow_reading(contents: list[str]) -> None:
    tokenizer = TOKENIZERS[0]
    roles = ("user", "assistant")
    messages = [{"role": roles[index % 2], "content": text} for index, text in enumerate(contents)]
    text, spans = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n", []
    for message in messages:
        text += f"<|im_start|>{message['role']}\n"
        said = f"{message['content']}<|im_end|>\n"
        if message["role"] == "assistant":
            spans.append((len(text), len(text) + len(said)))
        text += said
    if messages[-1]["role"] == "assistant":  # nothing in this tokenizer says that <|im_end|> ends an answer
        spans[-1] = (spans[-1][0], spans[-1][1] + len("</s>"))
        text += "</s>"
    (row,) = tokenised([{"messages": messages}], Data(), tokenizer).rows
    assert row["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [label != -100 for label in row["labels"]] == slow_mask(text, spans, tokenizer)


def test_the_slow_reading_sees_a_shifted_mask_a_lost_stop_token_and_a_second_first_token() -> None:
    tokenizer = TOKENIZERS[1]
    text = "<s>[INST] What is 2 plus 3? [/INST]5</s>"
    right = slow_mask(text, [(text.index("5"), len(text))], tokenizer)
    shifted = slow_mask(text, [(text.index("5") + 1, len(text))], tokenizer)
    unstopped = slow_mask(text, [(text.index("5"), len(text) - len("</s>"))], tokenizer)
    (row,) = tokenised([{"messages": ASK}], Data(), tokenizer).rows
    mask = [label != -100 for label in row["labels"]]
    assert mask == right
    assert mask not in (shifted, unstopped)
    assert row["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert row["input_ids"] != tokenizer("<s>" + text, add_special_tokens=False)["input_ids"]
