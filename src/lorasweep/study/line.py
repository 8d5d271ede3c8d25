"""The way between a study and a worker on another host: an address, and a token that opens it."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

SECONDS_TO_CONNECT = 10.0
SECONDS_TO_SHOW_TOKEN = 5.0


@dataclass(frozen=True)
class Address:
    """Where a worker calls, and what it says first; the hosts are names of one and the same."""

    hosts: list[str]
    port: int
    token: str

    def write(self, path: Path) -> None:
        """Write it where the user alone can read it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file)

    @classmethod
    def read(cls, path: Path) -> Address:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text()))


def listen(is_local: bool) -> tuple[socket.socket, Address]:
    """Open a port of this host for one worker; `is_local`: for one of this host."""
    listener = socket.create_server(("127.0.0.1" if is_local else "", 0))
    hosts = ["127.0.0.1"] if is_local else _names()
    return listener, Address(hosts, listener.getsockname()[1], secrets.token_urlsafe(32))


def accept(listener: socket.socket, token: str) -> socket.socket | None:
    """Return a connection that began with the token; None if nobody came with it before the listener's time was up."""
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    with suppress(OSError):
        connection.settimeout(SECONDS_TO_SHOW_TOKEN)
        shown, asked = b"", token.encode()
        while len(shown) < len(asked) and (data := connection.recv(len(asked) - len(shown))):
            shown += data
        if hmac.compare_digest(shown, asked):
            return _lasting(connection)
    connection.close()
    return None


def connect(address: Address) -> socket.socket:
    """Call a study; raises OSError if it is not there any more."""
    error: OSError = ConnectionRefusedError(f"no host in {address.hosts}")
    for host in address.hosts:
        try:
            connection = socket.create_connection((host, address.port), SECONDS_TO_CONNECT)
        except OSError as refused:
            error = refused
            continue
        connection.sendall(address.token.encode())
        return _lasting(connection)
    raise error


def _lasting(connection: socket.socket) -> socket.socket:
    """Have a connection wait without end for a host that says nothing, and a minute for one that is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 20),
        (socket.TCP_KEEPINTVL, 10),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, 60_000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection


def _names() -> list[str]:
    """Return the name of this host and its addresses, for hosts that do not know the name."""
    found = [
        item.address for items in psutil.net_if_addrs().values() for item in items if item.family is socket.AF_INET
    ]
    return [socket.gethostname(), *(address for address in found if not address.startswith("127."))]
