"""How the processes of a run find each other: through the launcher's store, each gets a connection to the first."""

from __future__ import annotations

import json
import secrets
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

from lorasweep.processes.launched import Launched
from lorasweep.processes.peers import Peers

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

WHERE, SECONDS = "first", 600
"""Under what the first process says where it listens, and how long they wait for each other to check the inputs."""


def meet(launched: Launched) -> tuple[Peers, Store]:
    """Return the connections of this process, and the store for a process group."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    share, patience = launched.share, timedelta(seconds=SECONDS)
    is_host = share.is_first and not launched.has_store
    store = TCPStore(launched.address, launched.port, share.size, is_host, patience, wait_for_workers=False)
    known = PrefixStore(f"lorasweep/{launched.attempt}", store)
    return Peers(share, _listen(launched, known) if share.is_first else {0: _call(launched, known)}), known


def store_of(peers: Peers) -> Store:
    """Return a store for a process group of processes of this machine that are connected already."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    share, patience, here = peers.share, timedelta(seconds=SECONDS), "127.0.0.1"
    own = TCPStore(here, 0, share.size, True, patience, wait_for_workers=False) if share.is_first else None
    port = peers.exchange(own.port if own else 0)[0]
    return own or TCPStore(here, port, share.size, False, patience)


def _listen(launched: Launched, store: Store) -> dict[int, socket.socket]:
    """Return a connection to every other process; who does not know the word is sent away."""
    word = secrets.token_hex(16)
    found: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1" if launched.is_on_one_machine else "", 0)) as server:
        server.settimeout(SECONDS)
        store.set(WHERE, json.dumps([server.getsockname()[1], word]))
        while len(found) < launched.share.size - 1:
            connection, _ = server.accept()
            connection.settimeout(SECONDS)
            given, _, rank = connection.makefile("r").readline().strip().partition(" ")
            if secrets.compare_digest(given, word):
                found[int(rank)] = connection
            else:
                connection.close()
    return found


def _call(launched: Launched, store: Store) -> socket.socket:
    port, word = json.loads(store.get(WHERE))
    address = "127.0.0.1" if launched.is_on_one_machine else launched.address
    connection = socket.create_connection((address, port), SECONDS)
    connection.sendall(f"{word} {launched.share.rank}\n".encode())
    return connection
