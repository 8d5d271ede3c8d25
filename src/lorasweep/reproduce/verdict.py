"""Whether a run was reproduced: exactly, equivalently, not, or whether that cannot be said, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lorasweep.digests import adapter_digest
from lorasweep.places import short
from lorasweep.reproduce.drift import Comparison
from lorasweep.reproduce.facts import Weight
from lorasweep.reproduce.steps import Steps
from lorasweep.results import RunResults

LOSS_BAND = 0.01
"""Share of a loss by which equivalent runs may differ (docs/reproduce.md has the measurements)."""
SCORE_BAND = 0.02
"""Of a score of answers, which is a share of them; at least one answer."""
MATTER = ("adapter", "parameters", "optimizer", "order")
"""Digests that are the same in exact reproductions."""


SETTLED = ("complete", "pruned", "diverged")
"""Ends that are a run's own; what else ended one says nothing about it, and its steps up to there are compared."""


class Verdict(StrEnum):
    """What came of a reproduction."""

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    INCOMPARABLE = "not comparable"
    UNFINISHED = "unfinished"

    @property
    def exit_code(self) -> int:
        """Return 0 for a run that was reproduced."""
        return 0 if self in (Verdict.EXACT, Verdict.EQUIVALENT) else 1


@dataclass(frozen=True)
class Metric:
    """The number that stands for a run, and how far from it an equivalent one may be."""

    name: str
    before: float
    now: float
    band: float

    @property
    def is_within(self) -> bool:
        """Whether it is."""
        return abs(self.now - self.before) <= self.band

    def __str__(self) -> str:
        side = "within" if self.is_within else "beyond"
        return f"{self.name} {self.before:.6g} -> {self.now:.6g}, {side} {self.band:.2g} of each other"


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it is founded on."""

    verdict: Verdict
    reasons: list[str]
    metric: Metric | None
    digests: dict[str, tuple[str, str]]
    """What both runs have, recorded and now."""


def judge(before: RunResults, now: RunResults, facts: Comparison, steps: Steps) -> Judgement:
    """Judge a run that has ended by the run that it reproduces."""
    known, digests, metric = _digests(before), _digests(now), _metric(before, now)
    known = known if before.state in SETTLED else {}  # an adapter kept on the way
    pairs = {name: (known[name], digests[name]) for name in known if name in digests}
    reasons = _differences(before, now, steps, pairs)

    def judged(verdict: Verdict, *words: str) -> Judgement:
        return Judgement(verdict, list(words), metric, pairs)

    if now.state not in SETTLED and (now.state != before.state or steps.missing()):
        return judged(Verdict.UNFINISHED, *_way_on(before, now))
    if not steps.numbers and not pairs:
        return judged(Verdict.INCOMPARABLE, "the record has neither numbers of steps nor an adapter to compare with")
    if not reasons:
        return judged(Verdict.EXACT, *([] if before.state in SETTLED else [_as_far(before, steps)]))
    if inputs := [item.name for item in facts.of(Weight.INPUT)]:
        return judged(Verdict.INCOMPARABLE, f"another input: {', '.join(inputs)}", *reasons)
    if metric is None or _ends_otherwise(before, now):
        return judged(Verdict.DIFFERENT, *reasons)
    means = [item.name for item in facts.of(Weight.MEANS)] or ["nothing that is recorded, so that kernels are left"]
    verdict = Verdict.EQUIVALENT if metric.is_within else Verdict.DIFFERENT
    return judged(verdict, str(metric), f"what is another: {', '.join(means)}", *reasons)


def _differences(
    before: RunResults, now: RunResults, steps: Steps, digests: Mapping[str, tuple[str, str]]
) -> list[str]:
    """Return what has not come out as it was."""
    found = [f"it ended {now.state}, not {before.state}"] if _ends_otherwise(before, now) else []
    found += [f"first at {steps.first[0]}"] if steps.first else []
    if missing := steps.missing():
        found.append(f"{len(missing)} steps did not come about, the first of them {missing[0]}")
    return found + [f"another {name}" for name, (was, is_now) in digests.items() if was != is_now]


def _as_far(before: RunResults, steps: Steps) -> str:
    return f"as far as it went, {len(steps.compared - {0})} steps: it is {before.state or 'without an end'}"


def _ends_otherwise(before: RunResults, now: RunResults) -> bool:
    return before.state in SETTLED and before.state != now.state


def _way_on(before: RunResults, now: RunResults) -> Iterator[str]:
    """Yield why a reproduction has no end, and how it comes to one."""
    yield f"it is {now.state}: {now.summary.get('error', 'it has no summary.json')}"
    if now.state == "interrupted":
        place, recorded = short(now.folder), short(before.folder)
        yield f"python train.py resume={place} goes on, lorasweep reproduce {recorded} --with {place} then compares"


def _digests(results: RunResults) -> dict[str, str]:
    """Return the digests of a run; that of the adapter is known of older ones too."""
    known: Mapping[str, Any] = results.summary.get("digests", {})
    found = {name: value for name in MATTER if (value := known.get(name))}
    if "adapter" not in found and (adapter := adapter_digest(_weights(results.folder))):
        found["adapter"] = adapter
    return found


def _weights(folder: Path) -> Path:
    """Return the weights in a run folder, or in one that was pushed."""
    inside = folder / "adapter" / "adapter_model.safetensors"
    return inside if inside.is_file() else folder / inside.name


def _metric(before: RunResults, now: RunResults) -> Metric | None:
    """Return the objective, where one has none the loss of the last step that both have."""
    evaluation = before.config.get("evaluation", {})
    objective = evaluation.get("objective", "loss")
    was, came = (results.summary.get("objective") for results in (before, now))
    if was is None or came is None:
        losses, again = _losses(before), _losses(now)
        both = losses.keys() & again.keys()
        return _of_loss("loss of a step", losses[max(both)], again[max(both)]) if both else None
    if objective == "loss":
        return _of_loss(objective, was, came)
    answers = len((now.kept or {}).get("answers", [])) or 1
    return Metric(objective, was, came, max(SCORE_BAND, 1 / answers))


def _of_loss(name: str, before: float, now: float) -> Metric:
    return Metric(name, before, now, abs(before) * LOSS_BAND)


def _losses(results: RunResults) -> dict[int, float]:
    return {line["step"]: line["train/loss"] for line in results.metrics if "train/loss" in line}
