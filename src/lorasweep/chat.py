"""The command chat: ask the adapter, and the base beside it, in the form it was trained in."""

from __future__ import annotations

import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer

from lorasweep import lora, saved
from lorasweep.data.chat_template import ChatTemplate
from lorasweep.data.fields import template_columns
from lorasweep.data.rendering import stop_texts
from lorasweep.device import Device
from lorasweep.evaluation import stop_ids
from lorasweep.model import build_tokenizer, context_length
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Data, Run

HELP = "/reset forgets what was said, Ctrl-D ends."
Turn = dict[str, str]


@dataclass(frozen=True)
class Style:
    """How a conversation becomes the text that the model was trained to go on from."""

    data: Data
    tokenizer: PreTrainedTokenizerBase

    @property
    def is_chat(self) -> bool:
        """Whether the tokenizer's chat template renders the turns."""
        own_markers = self.data.instruction_part and self.data.response_part
        return bool(self.tokenizer.chat_template) and self.data.format != "completion" and not own_markers

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template as it rendered the rows of training."""
        return ChatTemplate(self.data, self.tokenizer, stop_texts(self.tokenizer))

    @property
    def remembers(self) -> bool:
        """Whether earlier turns can be shown to the model: it takes markers to tell them apart."""
        return self.is_chat or bool(self.data.instruction_part and self.data.response_part)

    def question(self, text: str) -> str:
        """Put what was typed where the rows of training had their question; other columns are empty."""
        columns = template_columns(self.data.prompt or "")
        if not columns:
            return text
        values = {**dict.fromkeys(columns, ""), columns[0]: text}
        filled = (self.data.prompt or "").format_map(values)
        return filled.strip("\n") if self.is_chat else filled

    def render(self, turns: list[Turn]) -> tuple[str, bool]:
        """Return the text to go on from, and whether the tokenizer still has to add its first token."""
        tokenizer, data = self.tokenizer, self.data
        if self.is_chat:
            return self.template.prompt(turns), False
        if self.remembers:
            opening = {"user": data.instruction_part, "assistant": data.response_part, "system": ""}
            text = "".join(f"{opening[turn['role']]}{turn['content']}" for turn in turns) + (data.response_part or "")
        else:
            text = turns[-1]["content"]
        bos = tokenizer.bos_token
        return text, not (bos and text.startswith(bos))


@dataclass
class Speaker:
    """One side that answers: the adapter or the base, each with what was said to and by it."""

    name: str
    is_base: bool
    turns: list[Turn] = field(default_factory=list)


@dataclass
class Chat:
    """A loaded model that answers."""

    model: Any
    style: Style
    device: Device
    settings: GenerationConfig
    system: str | None
    speakers: list[Speaker]
    console: Console = field(default_factory=lambda: Console(highlight=False))

    def ask(self, text: str) -> list[str]:
        """Print, token by token, and return the answer of every speaker."""
        return [self._answer(speaker, self.style.question(text)) for speaker in self.speakers]

    def reset(self) -> None:
        """Forget what was said."""
        for speaker in self.speakers:
            speaker.turns.clear()

    def _answer(self, speaker: Speaker, question: str) -> str:
        speaker.turns.append({"role": "user", "content": question})
        try:
            inputs = self._fitting(speaker)
        except UserError:
            speaker.turns.pop()
            raise
        if len(self.speakers) > 1:
            self.console.print(Text(f"{speaker.name}:", style="bold"))
        streamer = TextStreamer(self.style.tokenizer, skip_prompt=True, skip_special_tokens=True)
        with lora.untuned(self.model) if speaker.is_base else nullcontext(), torch.no_grad(), self.device.autocast():
            output = self.model.generate(**inputs, generation_config=self.settings, streamer=streamer)
        generated = output[0, inputs["input_ids"].shape[1] :]
        answer = str(self.style.tokenizer.decode(generated, skip_special_tokens=True)).strip()
        speaker.turns.append({"role": "assistant", "content": answer})
        if not self.style.remembers:
            speaker.turns.clear()
        return answer

    def _fitting(self, speaker: Speaker) -> Any:
        """Tokenise what was said, without the oldest turns where all of it is longer than the context."""
        context = context_length(self.model.config)
        while True:
            system = [{"role": "system", "content": self.system}] if self.system else []
            text, add_special_tokens = self.style.render(system + speaker.turns)
            inputs = self.style.tokenizer(text, add_special_tokens=add_special_tokens, return_tensors="pt")
            length = inputs["input_ids"].shape[1] + self.settings.max_new_tokens
            if not context or length <= context:
                return inputs.to(self.model.device)
            if len(speaker.turns) < 3:
                allowed = f"at most {context} tokens, the model's context, with --max-new-tokens; this takes {length}"
                raise UserError(Problem("PROMPT", f"{speaker.turns[-1]['content'][:40]}…", allowed))
            del speaker.turns[:2]
            self.console.print("The oldest question and answer no longer fit and are left out.", style="dim")


def open_chat(folder: Path, run: Run, base: bool, system: str | None, max_new_tokens: int, temperature: float) -> Chat:
    """Load a run's adapter to be asked; with `base`, the base answers too."""
    tokenizer, device = build_tokenizer(run.model), Device.current(run.model.dtype)
    style = Style(run.data, tokenizer)
    if system and not style.is_chat:
        allowed = "left out: this adapter was trained on plain text, in which a system message has no place"
        raise UserError(Problem("--system", system, allowed))
    model = saved.load(run, folder, device)
    speakers = [*([Speaker("base", True)] if base else []), Speaker("tuned", False)]
    settings = generation_settings(model, tokenizer, max_new_tokens, temperature)
    return Chat(model, style, device, settings, system or _constant(run.data.system), speakers)


def generation_settings(
    model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, temperature: float
) -> GenerationConfig:
    """Return how to generate: greedily at temperature 0; any special token ends the answer."""
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted({*stop_ids(model, tokenizer), *tokenizer.all_special_ids}),
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )


def converse(chat: Chat) -> None:
    """Answer line by line until the input ends."""
    interactive = sys.stdin.isatty()
    if interactive:
        memory = "" if chat.style.remembers else " Every question stands alone: the rows of training had no turns."
        chat.console.print(HELP + memory, style="dim")
    with suppress(ImportError):
        import readline  # noqa: F401 gives input() its arrow keys
    while True:
        try:
            text = input("> " if interactive else "").strip()
        except EOFError:
            return
        if text == "/reset":
            chat.reset()
        elif text:
            _ask_or_explain(chat, text)


def _ask_or_explain(chat: Chat, text: str) -> None:
    try:
        chat.ask(text)
    except UserError as error:
        chat.console.print(Text(str(error), style="red"))
    except KeyboardInterrupt:  # ends the answer, not the conversation
        chat.console.print()


def _constant(template: str | None) -> str | None:
    """Return the system message of the rows where it is the same in all of them."""
    return template if template and not template_columns(template) else None
