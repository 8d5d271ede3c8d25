"""From a row to one text and the parts of it that are learnt."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
"""ShareGPT's speakers under the names chat templates know."""
Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A text, the character spans that are learnt, and whether the tokenizer still has to add its own first token."""

    text: str
    spans: list[Span]
    add_special_tokens: bool


def row_format(data: Data, columns: list[str], has_template: bool) -> str:
    """Return the format of rows with these columns, or raise with the YAML that would map them."""
    if data.format != "auto":
        return data.format
    if "input_ids" in columns:
        return "tokens"
    if data.messages or (not (data.prompt or data.text) and {"messages", "conversations"} & set(columns)):
        return "chat"
    if data.prompt or (not data.text and {"prompt", "completion"} <= set(columns)):
        return "chat" if has_template else "completion"
    if data.text or "text" in columns:
        return "text"
    given = ", ".join(columns)
    hint = f'templates over the columns, such as data.prompt="{{{columns[0]}}}" data.completion="{{{columns[-1]}}}"'
    raise UserError(
        Problem("data.format", "auto", f"{hint}; the rows have the columns {given}, which say nothing by name")
    )


def render(row: Mapping[str, Any], data: Data, kind: str, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Render a row of format `kind` (chat, completion or text)."""
    if kind == "chat":
        return _render_chat(_messages(row, data), tokenizer, learns_responses_only(data, kind))
    if kind == "completion":
        prompt, completion = _prompt_and_completion(row, data)
        text = _with_eos(prompt + completion, tokenizer)
        start = len(prompt) if learns_responses_only(data, kind) else 0
        return Rendered(text, [(start, len(text))], not _starts_with_bos(text, tokenizer))
    text = _with_eos(fill(data.text or "{text}", row, "data.text"), tokenizer)
    spans = response_spans(text, data) if learns_responses_only(data, kind) else [(0, len(text))]
    return Rendered(text, spans, not _starts_with_bos(text, tokenizer))


def learns_responses_only(data: Data, kind: str) -> bool:
    """Tell whether the loss leaves prompts out: as asked, otherwise wherever the format tells answers apart."""
    tells_apart = kind != "text" or bool(data.response_part)
    if data.response_only and not tells_apart:
        allowed = "the text that opens an answer: data.response_only=true cannot find answers in text without it"
        raise UserError(Problem("data.response_part", None, allowed))
    return tells_apart if data.response_only is None else data.response_only


def response_spans(text: str, data: Data) -> list[Span]:
    """Return what follows each `response_part`, up to the next `instruction_part`; the stop token is within."""
    assert data.response_part
    spans, start = [], text.find(data.response_part)
    while start >= 0:
        start += len(data.response_part)
        end = text.find(data.instruction_part, start) if data.instruction_part else -1
        end = len(text) if end < 0 else end
        spans.append((start, end))
        start = text.find(data.response_part, end)
    return spans


def fill(template: str, row: Mapping[str, Any], key: str) -> str:
    """Fill `{column}` templates; a missing column is the user's to mend, null is empty text."""
    try:
        return template.format_map({name: "" if value is None else value for name, value in row.items()})
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        reason = f"there is no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            Problem(key, template, f"columns of the rows, {', '.join(row)}, in braces ({reason})")
        ) from None


def _render_chat(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, response_only: bool) -> Rendered:
    def rendered(count: int, ask: bool) -> str:
        return str(tokenizer.apply_chat_template(messages[:count], tokenize=False, add_generation_prompt=ask))

    text = rendered(len(messages), False)
    spans: list[Span] = []
    for index, message in enumerate(messages if response_only else []):
        if message["role"] == "assistant":
            asked, answered = rendered(index, True), rendered(index + 1, False)
            if not text.startswith(answered):
                allowed = (
                    "a template that renders earlier turns the same way, or data.format=text with data.response_part"
                )
                raise UserError(Problem("model.chat_template", "the tokenizer's", allowed))
            shared = os.path.commonprefix([asked, answered])  # noqa: RUF071 character by character is what is wanted
            spans.append((len(shared), len(answered)))
    return Rendered(text, spans if response_only else [(0, len(text))], False)


def _messages(row: Mapping[str, Any], data: Data) -> list[dict[str, str]]:
    column = data.messages or next((name for name in ("messages", "conversations") if name in row), None)
    if column is None and isinstance(row.get("prompt"), list):
        return [_message(turn) for turn in [*row["prompt"], *row["completion"]]]
    if data.prompt or column is None:
        prompt, completion = _prompt_and_completion(row, data)
        system = [{"role": "system", "content": fill(data.system, row, "data.system")}] if data.system else []
        return [*system, {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    if column not in row:
        raise UserError(Problem("data.messages", column, f"one of the columns {', '.join(row)}"))
    if not isinstance(row[column], list):
        raise UserError(
            Problem("data.messages", column, f"a column of lists of messages; a row has {row[column]!r:.80}")
        )
    return [_message(turn) for turn in row[column]]


def _message(turn: Any) -> dict[str, str]:
    for role, content in (("role", "content"), ("from", "value")):
        if isinstance(turn, Mapping) and turn.get(role) is not None:
            speaker = str(turn[role])
            return {"role": ROLES.get(speaker, speaker), "content": str(turn.get(content) or "")}
    raise UserError(Problem("data.messages", str(turn)[:80], "messages with role and content, or from and value"))


def _prompt_and_completion(row: Mapping[str, Any], data: Data) -> tuple[str, str]:
    prompt = fill(data.prompt or "{prompt}", row, "data.prompt")
    if data.prompt:
        prompt = prompt.strip("\n")  # of a template whose last column is empty
    return prompt, fill(data.completion or "{completion}", row, "data.completion")


def _with_eos(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    eos = str(tokenizer.eos_token)
    return text if text.rstrip().endswith(eos) else text + eos


def _starts_with_bos(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    return bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
