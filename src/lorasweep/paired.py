"""How sure the difference of two losses is, where both were measured on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol


class Scored(Protocol):
    """Rows with their losses, summed over supervised tokens, and the number of these tokens."""

    @property
    def row_losses(self) -> Sequence[float]:
        """The summed loss of every row."""

    @property
    def row_tokens(self) -> Sequence[int]:
        """The supervised tokens of every row."""


class RowScores(NamedTuple):
    """Losses and tokens of rows, as evaluation.jsonl has them."""

    row_losses: Sequence[float]
    row_tokens: Sequence[int]

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> RowScores:
        """Take them from a line of evaluation.jsonl."""
        return cls(evaluation["row_losses"], evaluation["row_tokens"])


@dataclass(frozen=True)
class Difference:
    """One loss per supervised token minus another over the same rows, with a 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def inside_noise(self) -> bool:
        """Whether it may be chance."""
        return self.low <= 0 <= self.high


def paired_difference(before: Scored, after: Scored) -> Difference | None:
    """Return the difference after - before, its interval from the spread of the differences row by row.

    None for a single row. The loss is a ratio (summed loss over supervised tokens), so the interval is that of a ratio
    estimator (Cochran, Sampling Techniques, 6.4) with Student's t.
    """
    tokens, count = after.row_tokens, len(after.row_tokens)
    if count < 2:
        return None
    gains = [new - old for old, new in zip(before.row_losses, after.row_losses, strict=True)]
    mean = math.fsum(gains) / sum(tokens)
    residuals = math.fsum((gain - mean * length) ** 2 for gain, length in zip(gains, tokens, strict=True))
    half = students_t(count - 1) * math.sqrt(residuals * count / (count - 1)) / sum(tokens)
    return Difference(mean, mean - half, mean + half)


def students_t(freedom: int) -> float:
    """Return the 97.5 % point of Student's t: exact for 1 and 2 degrees, else to 1 % (Abramowitz & Stegun 26.7.5)."""
    if freedom < 3:
        return (12.706, 4.303)[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
