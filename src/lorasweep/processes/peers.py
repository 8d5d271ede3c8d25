"""How the processes of a run speak: lines of JSON between the first and each other one, over connections kept open.

A connection that closes is an end, whatever ended the process. No one waits for whom it can see has ended.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from lorasweep.processes.share import Share
from lorasweep.study.channel import Channel

GONE = "it is gone without a word: killed, or its machine is"
KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds, seconds and tries after which a machine that is gone without a word counts as such."""


@dataclass(frozen=True)
class End:
    """How a process ended: what summary.json is to say, the exit code, and a traceback for error.txt."""

    state: str
    code: int
    error: str
    trace: str = ""


class PeerEnded(Exception):
    """Another process of this run has ended, and so must this one."""

    def __init__(self, rank: int, size: int, end: End) -> None:
        self.rank, self.end = rank, end
        super().__init__(f"process {rank} of {size}: {end.error}")


class Peers:
    """The connections of a process: of the first one to all others, of each other one to the first."""

    def __init__(self, share: Share, connections: dict[int, socket.socket]) -> None:
        self.share = share
        self.channels = {rank: Channel(kept_alive(connection)) for rank, connection in connections.items()}
        self.arrived: dict[int, deque[Any]] = {rank: deque() for rank in connections}
        self.ended: PeerEnded | None = None

    def exchange(self, value: Any) -> list[Any]:
        """Return the values of all processes by rank, once each has given its own; raises PeerEnded."""
        if not self.share.is_first:
            self._send(0, {"value": value})
            values: list[Any] = self._next(0)
            return values
        values = [value, *(self._next(rank) for rank in sorted(self.channels))]
        for rank in self.channels:
            self._send(rank, {"value": values})
        return values

    def check(self) -> None:
        """Raise PeerEnded if another process has ended; wait for nothing."""
        self._hear(0.0)
        if self.ended:
            raise self.ended

    def tell(self, end: End) -> None:
        """Tell the others that this process ends."""
        for channel in self.channels.values():
            try:
                channel.send({"end": asdict(end)})
            except OSError:
                continue

    def until_ended(self) -> PeerEnded:
        """Wait until another process has ended; return how."""
        while not self.ended:
            self._hear(None)
        return self.ended

    def close(self) -> None:
        """Close the connections, which tells the others that this process has ended."""
        for channel in self.channels.values():
            channel.close()

    def _send(self, rank: int, message: dict[str, Any]) -> None:
        try:
            self.channels[rank].send(message)
        except OSError:
            self._hear(0.0)  # it may have said why
            self._lose(rank)
            assert self.ended
            raise self.ended from None

    def _next(self, rank: int) -> Any:
        while not self.arrived[rank]:
            if self.ended:
                raise self.ended
            self._hear(None)
        return self.arrived[rank].popleft()

    def _hear(self, seconds: float | None) -> None:
        """Take in what has arrived, waiting so long for something."""
        if self.ended:
            return
        readable, _, _ = select.select(list(self.channels.values()), [], [], seconds)
        for rank, channel in self.channels.items():
            if channel in readable:
                self._take(rank)

    def _take(self, rank: int) -> None:
        try:
            messages = self.channels[rank].receive()
        except OSError:  # a machine that is gone
            messages = None
        if messages is None:
            self._lose(rank)
        for message in messages or ():
            if "end" in message:
                self.ended = self.ended or PeerEnded(rank, self.share.size, End(**message["end"]))
            else:
                self.arrived[rank].append(message["value"])

    def _lose(self, rank: int) -> None:
        lost = End("failed", 1, GONE)
        self.ended = self.ended or PeerEnded(rank, self.share.size, lost)


def kept_alive(connection: socket.socket) -> socket.socket:
    """Have a connection notice that the machine at its other end is gone, and send what it is given at once."""
    connection.settimeout(None)
    if connection.family == socket.AF_UNIX:  # of one machine
        return connection
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # Linux
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection
