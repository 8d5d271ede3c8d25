"""From a row to one text and the parts of it that are learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorasweep.data.chat_template import ChatTemplate, Span, UnfitTemplate
from lorasweep.data.conversation import CHAT_COLUMNS, called_tools, conversation, declared_tools, thoughts_and_words
from lorasweep.data.fields import BadRow, fill, plain, prompt_and_completion, template_columns
from lorasweep.rules import Problem, UserError, nearest
from lorasweep.schema import Data

SPEAKERS = ("system", "developer", "user", "assistant")


@dataclass(frozen=True)
class Rendered:
    """A text, the character spans that are learnt, and whether the tokenizer still has to add its own first token."""

    text: str
    spans: list[Span]
    add_special_tokens: bool
    replaced_template: bool = False
    thoughtless: bool = False
    """Whether the template leaves out what the assistant thought before an answer."""


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
            return self._chat(conversation(row, self.data), declared_tools(row))
        if self.kind == "completion":
            prompt, completion = prompt_and_completion(row, self.data)
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
        for name in called_tools(messages):
            if name not in text:
                allowed = f"a template that writes tool calls, such as that of {name}"
                raise BadRow("model.chat_template", "the tokenizer's", allowed)
        if spans and messages[-1]["role"] == "assistant" and not text.rstrip().endswith(self.stops):
            # Nothing in this template ends an answer, and a model that never learns to stop is of no use.
            spans = [*spans[:-1], (spans[-1][0], len(text) + len(self.eos))]
            text += self.eos
        return Rendered(text, spans, False, replaced, _leaves_out(messages, text))

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
        if data.response_part in text[start:end]:
            allowed = "the text that opens a question: data.response_part stands twice in a row without one between"
            raise BadRow("data.instruction_part", data.instruction_part, allowed)
        spans.append((start, end))
        start = text.find(data.response_part, end)
    return spans


def _leaves_out(messages: list[dict[str, Any]], text: str) -> bool:
    """Tell whether thoughts of the assistant are not in the text; BadRow if something that is said is not."""
    everything, thoughtless = "".join(text.split()), False
    for message in messages:
        thoughts, words = thoughts_and_words(message)
        thoughtless = thoughtless or "".join(thoughts.split()) not in everything
        # what tools answer is often written in another form
        if message["role"] in SPEAKERS and "".join(words.split()) not in everything:
            allowed = f"a template that writes what is said as text; this one leaves out {words!r:.60}"
            raise BadRow("model.chat_template", "the tokenizer's", allowed)
    return thoughtless


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


def _text(row: Mapping[str, Any], data: Data) -> str:
    return fill(data.text, row, "data.text") if data.text else plain(row, "text")
