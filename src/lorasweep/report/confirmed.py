"""What repeating the best trials with other seeds has shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorasweep.confirm import read_confirmation
from lorasweep.confirm.comparison import Candidate, Comparison, verdict


def confirmed(study: Path) -> dict[str, Any] | None:
    """Return means, spreads, comparisons and test scores; None of a study that was not confirmed."""
    result = read_confirmation(study)
    if result is None or not result.candidates:
        return None
    compared = {item.other: item for item in result.comparisons}
    return {
        "seeds": result.seeds,
        "verdict": verdict(result),
        "inside_noise": any(item.inside_noise for item in result.comparisons),
        "compared": bool(result.comparisons),
        "candidates": [_candidate(item, compared.get(item.trial)) for item in result.candidates],
        "test": result.test,
    }


def _candidate(item: Candidate, versus: Comparison | None) -> dict[str, Any]:
    return {
        "trial": item.trial,
        "baseline": item.is_baseline,
        "in_study": item.in_study,
        "values": item.values,
        "mean": item.mean,
        "spread": item.spread,
        "over_seeds": versus and versus.over_seeds,
        "over_rows": versus and versus.over_rows,
        "inside_noise": versus and versus.inside_noise,
    }
