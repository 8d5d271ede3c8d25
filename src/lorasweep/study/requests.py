"""What other terminals ask of a study: files in its folder, taken in by its controller.

A point is tried now or when the study next runs; a stop is for the session that runs now.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lorasweep.record import write_json
from lorasweep.study.space import Point

INBOX = "requests"
STOP = "stop-"


@dataclass(frozen=True)
class Request:
    """A point to try, or that no more trials are started."""

    stop: bool = False
    point: Point = field(default_factory=dict)


def make_request(study: Path, request: Request) -> None:
    """Leave a request for the controller of a study."""
    inbox = study / INBOX
    inbox.mkdir(exist_ok=True)
    write_json(inbox / f"{STOP if request.stop else ''}{uuid.uuid4().hex}.json", asdict(request))


def forget_stops(study: Path) -> None:
    """Remove what was asked of a session that has ended."""
    for path in (study / INBOX).glob(f"{STOP}*.json"):
        path.unlink(missing_ok=True)


def take_requests(study: Path, stops_alone: bool = False) -> Iterator[Request | Path]:
    """Yield every request, and remove it when it is dealt with; of a file that is none its path, set aside.

    Controllers that share a folder may both take one: a point is tried once all the same.
    """
    inbox, names = study / INBOX, f"{STOP}*.json" if stops_alone else "*.json"
    for path in sorted(inbox.glob(names), key=_made) if inbox.is_dir() else []:
        try:
            request = Request(**json.loads(path.read_text()))
            dict(request.point)
        except FileNotFoundError:
            continue
        except (ValueError, TypeError):
            yield path.rename(path.with_suffix(".broken"))
            continue
        yield request
        path.unlink(missing_ok=True)


def _made(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
