"""What to try next: a pure function of the trials so far, so that a study goes on after a crash as it would have."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from lorasweep.rules import Problem, UserError
from lorasweep.study.settings import Direction, Settings
from lorasweep.study.space import Dimension, Point, Space
from lorasweep.study.store import decoded, distribution

MOST_REPEATS = 30
"""Proposals in a row that were tried before, after which what is left of a countable space is gone through in order."""


def proposals(
    settings: Settings, space: Space, trials: Sequence[FrozenTrial], directions: Sequence[Direction]
) -> Iterator[Point]:
    """Yield points for the next trial, the most wanted first; which of them were tried is for the caller to know.

    Every call seeds the sampler anew, by the study's seed and the number of the next trial: there is no state to lose.
    The sampler is asked on a copy of the study in memory; running trials are in it, and count as bad for now.
    """
    if settings.sampler == "list":
        return
    if settings.sampler != "grid":
        seed = hashlib.blake2b(f"{settings.seed} {len(trials)}".encode(), digest_size=4).digest()
        sampler = _sampler(settings, space, int.from_bytes(seed, "big"))
        mirror = _mirror([trial for trial in trials if trial.state != TrialState.FAIL], sampler, directions)
        for _ in range(MOST_REPEATS):
            yield _sampled(mirror.ask(), space)
    if space.is_countable:
        yield from space.points()


def build_pruner(settings: Settings, budget: int) -> BasePruner | None:
    """Return the pruner over trials of `budget` supervised tokens; None where nothing is pruned."""
    if settings.pruner == "median":
        return MedianPruner(n_startup_trials=4)
    if settings.pruner == "asha":
        first = max(1, math.floor(settings.prune_after * budget))
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=settings.reduction_factor)
    return None


def check_sampler(settings: Settings) -> None:
    """Raise if the sampler does not take its arguments."""
    try:
        _sampler(settings, Space(()), 0)
    except (TypeError, ValueError) as error:
        allowed = f"arguments of Optuna's TPESampler: {error}"
        raise UserError(Problem("hydra.sweeper.sampler_kwargs", settings.sampler_kwargs, allowed)) from None


def _sampler(settings: Settings, space: Space, seed: int) -> BaseSampler:
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # groups: keys that vary under the same conditions are sampled together
        return TPESampler(seed=seed, group=bool(space.only_if), **settings.sampler_kwargs)


def _mirror(past: Sequence[FrozenTrial], sampler: BaseSampler, directions: Sequence[Direction]) -> Study:
    """Return a study in memory with trials as they are: adding them copies each, 0.1 s for a thousand."""
    storage = InMemoryStorage()
    mirror = optuna.create_study(storage=storage, sampler=sampler, directions=list(directions))
    trials = [copy.copy(trial) for trial in past]
    for number, trial in enumerate(trials):
        trial.number = number
    storage._studies[mirror._study_id].trials.extend(trials)
    return mirror


def _sampled(trial: Trial, space: Space) -> Point:
    point = Point()
    for dimension in space:
        if space.varies(dimension.key, point):
            point[dimension.key] = decoded(dimension, _suggested(trial, dimension))
    return point


def _suggested(trial: Trial, dimension: Dimension) -> object:
    key, known = dimension.key, distribution(dimension)
    if isinstance(known, CategoricalDistribution):
        return trial.suggest_categorical(key, known.choices)
    if isinstance(known, IntDistribution):
        return trial.suggest_int(key, known.low, known.high, step=known.step, log=known.log)
    assert isinstance(known, FloatDistribution)
    return trial.suggest_float(key, known.low, known.high, step=known.step, log=known.log)
