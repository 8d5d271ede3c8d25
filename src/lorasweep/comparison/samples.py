"""What runs answered to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lorasweep.comparison.sides import Side


@dataclass(frozen=True)
class Sample:
    """A question, what was expected, and what every run answered, with the scores of the answers."""

    prompt: str
    expected: str
    answers: list[str]
    scores: list[dict[str, float]]


def samples(sides: Sequence[Side]) -> list[Sample]:
    """Return the questions that all runs were asked, those first that they answered differently."""
    kept = [_answers(side) for side in sides]
    shared = [key for key in kept[0] if all(key in known for known in kept)]
    found = [
        Sample(*key, [known[key]["generated"] for known in kept], [known[key]["scores"] for known in kept])
        for key in shared
    ]
    return sorted(found, key=lambda sample: len(set(sample.answers)) == 1)


def _answers(side: Side) -> dict[tuple[str, str], dict[str, Any]]:
    answers = (side.judged or {}).get("answers", [])
    return {(answer["prompt"], answer["expected"]): answer for answer in answers}
