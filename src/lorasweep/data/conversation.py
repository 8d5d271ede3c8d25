"""The turns of a row, in the one form that chat templates take, whatever form they came in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lorasweep.data.fields import BadRow, fill, prompt_and_completion, shown
from lorasweep.schema import Data

ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "function_call": "assistant", "observation": "tool",
    **{role: role for role in ("system", "developer", "user", "assistant", "tool", "function", "ipython")},
}  # fmt: skip
"""The names of speakers, ShareGPT's among them, under those that chat templates know."""
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
CHAT_COLUMNS = ("messages", "conversations")


def conversation(row: Mapping[str, Any], data: Data) -> list[dict[str, Any]]:
    """Return the messages of a row: role, content and what else they bring."""
    column: str = data.messages or next((name for name in CHAT_COLUMNS if name in row and not data.prompt), "")
    if column:
        if not isinstance(row.get(column), list) or not row[column]:
            raise BadRow("data.messages", column, f"a list of messages; it is {shown(row.get(column))}")
        turns = [_message(turn, column) for turn in row[column]]
    elif not data.prompt and isinstance(row.get("prompt"), list):
        if not isinstance(row.get("completion"), list):
            raise BadRow("data.completion", None, f"messages, as in prompt; it is {shown(row.get('completion'))}")
        turns = [_message(turn, name) for name in ("prompt", "completion") for turn in row[name]]
    else:
        prompt, completion = prompt_and_completion(row, data)
        if data.prompt:
            prompt = prompt.strip("\n")  # of a template whose last column is empty
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    turns = [turn for turn in turns if turn["role"] != "system" or turn["content"]]
    if not turns:
        raise BadRow("data.messages", column or None, "at least one message with something in it")
    if data.system and turns and turns[0]["role"] != "system":
        return [{"role": "system", "content": fill(data.system, row, "data.system")}, *turns]
    return turns


def declared_tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Return the tools a row declares, for the template; they may be JSON text, which a table keeps as it is."""
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise BadRow("data.messages", "tools", f"JSON in the column tools; it is {shown(tools)}") from None
    return tools or None


def called_tools(messages: list[dict[str, Any]]) -> list[str]:
    """Return the names of the tools that are called."""
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    return [str((call.get("function") or call).get("name", "")) for call in calls if isinstance(call, Mapping)]


def thoughts_and_words(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the assistant thought before its answer, in a key of its own or in <think>, and what is said."""
    thought, _, said = (
        message["content"].rpartition("</think>") if message["role"] == "assistant" else ("", "", message["content"])
    )
    apart = next((message[key] for key in THOUGHTS if isinstance(message.get(key), str)), "")
    return (apart or thought.replace("<think>", "")).strip(), said.strip()


def _message(turn: Any, column: str) -> dict[str, Any]:
    for role, content in (("role", "content"), ("from", "value")):
        if isinstance(turn, Mapping) and isinstance(turn.get(role), str):
            speaker = ROLES.get(str(turn[role]).lower(), "")
            if not speaker:
                raise BadRow("data.messages", column, f"turns of {', '.join(ROLES)}; one is of {turn[role]!r:.60}")
            # A table gives every message every key: one that is null was not there.
            rest = {key: value for key, value in turn.items() if key not in (role, content) and value is not None}
            return {"role": speaker, "content": _content(turn.get(content), speaker, rest, column), **rest}
    raise BadRow("data.messages", column, f"messages with role and content, or from and value; one is {shown(turn)}")


def _content(content: Any, speaker: str, rest: Mapping[str, Any], column: str) -> str:
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text") or "") for part in content)
    if content is None and (speaker == "system" or rest.get("tool_calls")):
        return ""
    if not isinstance(content, str):
        raise BadRow("data.messages", column, f"text in every message; what {speaker} says is {shown(content)}")
    return content
