"""What the configs of trials share, and in what each differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorasweep.study.definition import FREE


def differences(configs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that all configs have in common, and of every trial the others, by dotted key."""
    kept = {
        number: {key: value for key, value in config.items() if key.partition(".")[0] not in FREE}
        for number, config in configs.items()
    }
    first, *others = kept.values() or [{}]
    shared = {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    own = {number: {k: v for k, v in config.items() if k not in shared} for number, config in kept.items()}
    return {"shared": shared, "own": own}
