"""From a row to one text and the parts of it that are learnt."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorasweep.data.chat_template import ChatTemplate, Span, UnfitTemplate
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.schema import Data

ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "function_call": "assistant", "observation": "tool",
    **{role: role for role in ("system", "developer", "user", "assistant", "tool", "function", "ipython")},
}  # fmt: skip
"""The names of speakers, ShareGPT's among them, under those that chat templates know."""
CHAT_COLUMNS = ("messages", "conversations")


class BadRow(ValueError):
    """A row that cannot be rendered: the option it is about, the value found, what belongs there."""

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        super().__init__(allowed)


@dataclass(frozen=True)
class Rendered:
    """A text, the character spans that are learnt, and whether the tokenizer still has to add its own first token."""

    text: str
    spans: list[Span]
    add_special_tokens: bool
    replaced_template: bool = False


def row_format(data: Data, columns: list[str], has_template: bool) -> str:
    """Return the format of rows with these columns, or raise with the YAML that would map them."""
    kind = data.format if data.format != "auto" else _recognised(data, columns, has_template)
    if kind is None:
        given = ", ".join(columns)
        hint = f'templates over the columns, such as data.prompt="{{{columns[0]}}}" data.completion="{{{columns[-1]}}}"'
        raise UserError(
            Problem("data.format", "auto", f"{hint}; the rows have the columns {given}, which say nothing by name")
        )
    if kind == "chat" and not has_template:
        allowed = "a Jinja template: the tokenizer has none, data.format=chat needs one (or data.format=completion)"
        raise UserError(Problem("model.chat_template", None, allowed))
    if data.system and kind != "chat":
        allowed = f"null: rows of the format {kind} have no turns, and no place for a system prompt"
        raise UserError(Problem("data.system", data.system, allowed))
    _check_columns(data, kind, columns)
    return kind


def learns_responses_only(data: Data, kind: str) -> bool:
    """Tell whether the loss leaves prompts out: as asked, otherwise wherever the format tells answers apart."""
    tells_apart = kind != "text" or bool(data.response_part)
    if data.response_only and not tells_apart:
        allowed = "the text that opens an answer: data.response_only=true cannot find answers in text without it"
        raise UserError(Problem("data.response_part", None, allowed))
    return tells_apart if data.response_only is None else data.response_only


@dataclass
class Renderer:
    """Renders rows of one format: chat, completion or text."""

    data: Data
    kind: str
    tokenizer: PreTrainedTokenizerBase
    responses_only: bool = field(init=False)
    stops: tuple[str, ...] = field(init=False)
    """Tokens that may end an answer: every special one."""

    def __post_init__(self) -> None:
        self.responses_only = learns_responses_only(self.data, self.kind)
        self.eos, self.bos = str(self.tokenizer.eos_token), self.tokenizer.bos_token
        self.stops = stop_texts(self.tokenizer)
        self.template = ChatTemplate(self.data, self.tokenizer, self.stops) if self.kind == "chat" else None

    def __call__(self, row: Mapping[str, Any]) -> Rendered:
        """Render a row; BadRow if it cannot be."""
        if self.template:
            return self._chat(_messages(row, self.data), _tools(row))
        if self.kind == "completion":
            prompt, completion = _prompt_and_completion(row, self.data)
            text = self._ended(prompt + completion)
            start = len(prompt) if self.responses_only else 0
            return self._rendered(text, [(start, len(text))])
        text = self._ended(_text(row, self.data))
        return self._rendered(text, response_spans(text, self.data) if self.responses_only else [(0, len(text))])

    def is_blank(self, text: str) -> bool:
        """Tell whether nothing but stop tokens and white space is in a text."""
        text = text.strip()
        while stop := next((stop for stop in self.stops if text.endswith(stop)), None):
            text = text.removesuffix(stop).rstrip()
        return not text

    def _chat(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> Rendered:
        assert self.template
        try:
            text, spans, replaced = self.template.render(messages, self.responses_only, tools)
        except UnfitTemplate as error:
            raise BadRow("model.chat_template", "the tokenizer's", str(error)) from None
        for name in _called(messages):
            if name not in text:
                allowed = f"a template that writes tool calls, such as that of {name}"
                raise BadRow("model.chat_template", "the tokenizer's", allowed)
        if spans and messages[-1]["role"] == "assistant" and not text.rstrip().endswith(self.stops):
            # Nothing in this template ends an answer, and a model that never learns to stop is of no use.
            spans = [*spans[:-1], (spans[-1][0], len(text) + len(self.eos))]
            text += self.eos
        return Rendered(text, spans, False, replaced)

    def _rendered(self, text: str, spans: list[Span]) -> Rendered:
        bos = bool(self.bos) and text.startswith(str(self.bos))
        return Rendered(text, spans, not bos)

    def _ended(self, text: str) -> str:
        return text if text.rstrip().endswith(self.eos) else text + self.eos


def stop_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return every special token of a tokenizer."""
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tuple({*special, *tokenizer.all_special_tokens})


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
    """Fill a template such as "{question}"; a null column is empty text beside others, an error alone."""
    names = template_columns(template)
    if names and all(row.get(name) is None for name in names):
        raise BadRow(key, template, f"text in {' or '.join(names)}; it is null")
    try:
        return template.format_map({name: "" if value is None else value for name, value in row.items()})
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise BadRow(key, template, f"a template that can be filled ({error})") from None


def template_columns(template: str) -> list[str]:
    """Return the columns a template names."""
    names = (name for _, name, _, _ in string.Formatter().parse(template) if name is not None)
    return list(dict.fromkeys(name.split(".")[0].split("[")[0] for name in names))


def _recognised(data: Data, columns: list[str], has_template: bool) -> str | None:
    if "input_ids" in columns:
        return "tokens"
    if data.messages or (not (data.prompt or data.text) and set(CHAT_COLUMNS) & set(columns)):
        return "chat"
    if data.prompt or (not data.text and {"prompt", "completion"} <= set(columns)):
        return "chat" if has_template else "completion"
    return "text" if data.text or "text" in columns else None


def _check_columns(data: Data, kind: str, columns: list[str]) -> None:
    """Raise for every template over columns, and every column the format needs, that the rows do not have."""
    templates = {"prompt": data.prompt, "completion": data.completion, "system": data.system, "text": data.text}
    wanted: list[tuple[str, str | None, list[str]]] = [
        (f"data.{key}", text, template_columns(text)) for key, text in templates.items() if text
    ]
    if data.messages:
        wanted.append(("data.messages", data.messages, [data.messages]))
    elif (
        not data.prompt and kind in ("chat", "completion") and not (kind == "chat" and set(CHAT_COLUMNS) & set(columns))
    ):
        wanted.append(("data.prompt", None, ["prompt", "completion"]))
    if kind == "text" and not data.text:
        wanted.append(("data.text", None, ["text"]))
    if kind == "tokens":
        wanted = [("data.format", "tokens", ["input_ids"])]
    problems = [
        Problem(key, value, f"columns of the rows: {', '.join(columns)}; there is no {name}", nearest(name, columns))
        for key, value, names in wanted
        for name in names
        if name not in columns
    ]
    if problems:
        raise UserError(problems)


def _messages(row: Mapping[str, Any], data: Data) -> list[dict[str, Any]]:
    column: str = data.messages or next((name for name in CHAT_COLUMNS if name in row and not data.prompt), "")
    if column:
        if not isinstance(row.get(column), list) or not row[column]:
            raise BadRow("data.messages", column, f"a list of messages; it is {_shown(row.get(column))}")
        turns = [_message(turn, column) for turn in row[column]]
    elif not data.prompt and isinstance(row.get("prompt"), list):
        if not isinstance(row.get("completion"), list):
            raise BadRow("data.completion", None, f"messages, as in prompt; it is {_shown(row.get('completion'))}")
        turns = [_message(turn, name) for name in ("prompt", "completion") for turn in row[name]]
    else:
        prompt, completion = _prompt_and_completion(row, data)
        if data.prompt:
            prompt = prompt.strip("\n")  # of a template whose last column is empty
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    turns = [turn for turn in turns if turn["role"] != "system" or turn["content"]]
    if not turns:
        raise BadRow("data.messages", column or None, "at least one message with something in it")
    if data.system and turns and turns[0]["role"] != "system":
        return [{"role": "system", "content": fill(data.system, row, "data.system")}, *turns]
    return turns


def _tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools a row declares, for the template; they may be JSON text, which a table keeps as it is."""
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise BadRow("data.messages", "tools", f"JSON in the column tools; it is {_shown(tools)}") from None
    return tools or None


def _called(messages: list[dict[str, Any]]) -> list[str]:
    """Return the names of the tools that are called."""
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    return [str((call.get("function") or call).get("name", "")) for call in calls if isinstance(call, Mapping)]


def _message(turn: Any, column: str) -> dict[str, Any]:
    for role, content in (("role", "content"), ("from", "value")):
        if isinstance(turn, Mapping) and isinstance(turn.get(role), str):
            speaker = ROLES.get(str(turn[role]).lower(), "")
            if not speaker:
                raise BadRow("data.messages", column, f"turns of {', '.join(ROLES)}; one is of {turn[role]!r:.60}")
            # A table gives every message every key: one that is null was not there.
            rest = {key: value for key, value in turn.items() if key not in (role, content) and value is not None}
            return {"role": speaker, "content": _content(turn.get(content), speaker, rest, column), **rest}
    raise BadRow("data.messages", column, f"messages with role and content, or from and value; one is {_shown(turn)}")


def _content(content: Any, speaker: str, rest: Mapping[str, Any], column: str) -> str:
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text") or "") for part in content)
    if content is None and (speaker == "system" or rest.get("tool_calls")):
        return ""
    if not isinstance(content, str):
        raise BadRow("data.messages", column, f"text in every message; what {speaker} says is {_shown(content)}")
    return content


def _prompt_and_completion(row: Mapping[str, Any], data: Data) -> tuple[str, str]:
    if data.prompt and data.completion:
        return fill(data.prompt, row, "data.prompt"), fill(data.completion, row, "data.completion")
    return _plain(row, "prompt"), _plain(row, "completion")


def _text(row: Mapping[str, Any], data: Data) -> str:
    return fill(data.text, row, "data.text") if data.text else _plain(row, "text")


def _plain(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise BadRow(f"data.{column}", None, f"text in {column}; it is {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    kind = "null" if value is None else type(value).__name__
    return kind if value is None else f"{value!r:.60} ({kind})"
