"""A tokenizer's chat template: the text of a conversation, and which of it the assistant said."""

from __future__ import annotations

import os
import re
from datetime import date
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from lorasweep.schema import Data

Span = tuple[int, int]
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
CODES = "aAbBdjmyYuwHIMSp"


class UnfitTemplate(ValueError):
    """A template that cannot render a conversation, or from which the assistant's turns cannot be told."""


class ChatTemplate:
    """Renders conversations with a tokenizer's own template and finds the assistant's turns in them.

    Where the template marks what the assistant generates, the marks hold. Otherwise a turn begins where the template
    asks for an answer (`add_generation_prompt`) and ends where the conversation up to it ends. Templates that write
    earlier turns differently (Qwen 3 drops their thoughts) or end them with nothing (GLM 4.5) allow neither: TRL's
    training variant takes their place.
    """

    def __init__(self, data: Data, tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...]) -> None:
        self.tokenizer, self.stops = tokenizer, stops
        self.source = fixed_date(tokenizer.get_chat_template(), data.template_date)
        self.variables = {**tokenizer.special_tokens_map, **data.template_kwargs}
        self.is_marked = bool(MARKS.search(self.source))
        self.date = data.template_date
        self.tools: list[Any] | None = None

    def render(
        self, messages: list[dict[str, Any]], responses_only: bool, tools: list[Any] | None = None
    ) -> tuple[str, list[Span], bool]:
        """Return text, learnt spans and whether another template than the tokenizer's had to be used."""
        self.tools = tools
        try:
            if not responses_only:
                text = self._text(messages)
                return text, [(0, len(text))], False
            if self.is_marked:
                return *self._marked(messages, self.source), False
            text = self._text(messages)
            spans = self._asked_and_answered(messages, text)
            stopping = spans is not None and all(self._stops(text[start:end]) for start, end in spans)
            if not stopping and self.training_source:
                return *self._marked(messages, self.training_source), True
            if spans is None:
                raise UnfitTemplate(
                    "a template that writes earlier turns as it wrote them when they were the last, or that marks what"
                    " is generated ({% generation %}); or data.format=text with data.response_part"
                )
            return text, spans, False
        except (TemplateError, TypeError) as error:
            raise UnfitTemplate(f"a template that renders this conversation: {error}") from None

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """Return the text that asks for the next answer."""
        return self._text(messages, ask=True)

    def _text(self, messages: list[dict[str, Any]], ask: bool = False, source: str | None = None) -> str:
        texts, _ = render_jinja_template(
            [messages],
            tools=self.tools,
            chat_template=source or self.source,
            add_generation_prompt=ask,
            **self.variables,
        )
        return str(texts[0])

    def _asked_and_answered(self, messages: list[dict[str, Any]], text: str) -> list[Span] | None:
        """Return the assistant's turns; None where the template writes earlier turns differently."""
        spans: list[Span] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            last = index + 1 == len(messages)
            answered = text if last else self._text(messages[: index + 1])
            if not text.startswith(answered):
                answered = answered.rstrip().removesuffix(str(self.tokenizer.eos_token))  # ends whole texts (Phi 3)
            if not text.startswith(answered):
                return None
            asked = self._text(messages[:index], ask=True)
            start = len(asked)
            if not answered.startswith(asked):
                start = len(os.path.commonprefix([asked, answered]))  # noqa: RUF071 character by character is meant
                if start <= len(self._text(messages[:index]).rstrip()):
                    return None
            spans.append((start, len(answered)))
        return spans

    def _marked(self, messages: list[dict[str, Any]], source: str) -> tuple[str, list[Span]]:
        texts, marks = render_jinja_template(
            [messages], tools=self.tools, chat_template=source, return_assistant_tokens_mask=True, **self.variables
        )
        text = str(texts[0])
        spans: list[Span] = []
        for start, end in marks[0]:
            if spans and start <= spans[-1][1]:
                start = spans.pop()[0]  # one turn in several marks
            spans.append((start, self._with_stop(text, end)))
        turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        if len(turns) != len(spans):
            return text, spans
        asked = [self._text(messages[:index], ask=True, source=source) for index in turns]
        # What stands in the prompt already is not generated, whatever the marks say.
        shared = [len(os.path.commonprefix([text, prompt])) for prompt in asked]  # noqa: RUF071
        return text, [
            (known if start < known < end else start, end) for known, (start, end) in zip(shared, spans, strict=True)
        ]

    def _with_stop(self, text: str, end: int) -> int:
        """Take a stop token that stands just outside the marks in: a model must learn to stop."""
        if self._stops(text[:end]):
            return end
        return end + next((len(stop) for stop in self.stops if text.startswith(stop, end)), 0)

    def _stops(self, text: str) -> bool:
        return text.rstrip().endswith(self.stops)

    @cached_property
    def training_source(self) -> str | None:
        """TRL's variant of this template, with marks and a stop token in every turn, if it has one."""
        from trl.chat_template_utils import get_training_chat_template

        try:
            variant = get_training_chat_template(self.tokenizer)
        except ValueError:
            return None
        return fixed_date(variant, self.date) if variant else None


def fixed_date(source: str, day: str) -> str:
    """Return a template in which the current date (strftime_now) is always `day`, so that rows stay what they are."""
    if "strftime_now" not in source:
        return source
    moment = date.fromisoformat(day)
    text = "format" + "".join(f"|replace('%{code}', '{moment.strftime('%' + code)}')" for code in CODES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ {text} }}}}{{%- endmacro -%}}{source}"
