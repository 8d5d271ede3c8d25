"""Lines of JSON between a controller and its workers, over a socket of their own: whatever a library prints is safe."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


class Channel:
    """One end of the conversation."""

    def __init__(self, end: socket.socket) -> None:
        self.end, self._rest = end, b""

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self.end.fileno()

    def send(self, message: Message) -> None:
        """Send a message; ConnectionError if the other end is gone."""
        self.end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Return what has arrived, waiting for something; None at the end of the conversation."""
        try:
            data = self.end.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def messages(self) -> Iterator[Message]:
        """Yield messages until the other end is gone."""
        while (arrived := self.receive()) is not None:
            yield from arrived

    def close(self) -> None:
        """End the conversation."""
        self.end.close()
