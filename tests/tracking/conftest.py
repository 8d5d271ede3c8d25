"""Fixtures: a W&B server and an account there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tracking.server import WandbServer, wandb_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server, and an account there."""
    with wandb_server() as served:
        monkeypatch.setenv("WANDB_BASE_URL", served.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield served
