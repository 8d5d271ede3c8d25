"""What other terminals ask of a study: files in its folder, taken in by its controller, now or when it next runs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lorasweep.record import write_json
from lorasweep.study.space import Point

INBOX = "requests"


@dataclass(frozen=True)
class Request:
    """A point to try, or that no more trials are started."""

    stop: bool = False
    point: Point = field(default_factory=dict)


def make_request(study: Path, request: Request) -> None:
    """Leave a request for the controller of a study."""
    inbox = study / INBOX
    inbox.mkdir(exist_ok=True)
    write_json(inbox / f"{uuid.uuid4().hex}.json", asdict(request))


def take_requests(study: Path) -> Iterator[Request]:
    """Yield every request and remove it."""
    inbox = study / INBOX
    paths = sorted(inbox.glob("*.json"), key=lambda path: path.stat().st_mtime_ns) if inbox.is_dir() else []
    for path in paths:
        yield Request(**json.loads(path.read_text()))
        path.unlink()
