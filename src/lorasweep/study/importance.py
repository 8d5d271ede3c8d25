"""Which of the values that a study varies made the difference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorasweep.study.store import Store

FEWEST = 8
"""Complete trials below which a ranking would be chance."""


def importances(store: Store, objective: int = 0) -> dict[str, float]:
    """Return the share of every varied key in what sets the best trials apart, largest first; empty with few trials.

    PED-ANOVA (https://arxiv.org/abs/2304.10255), whose target is minimised.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.study import StudyDirection

    complete = [trial for trial in store.frozen() if trial.state is optuna.trial.TrialState.COMPLETE and trial.params]
    if len(complete) < FEWEST:
        return {}
    sign = -1.0 if store.study.directions[objective] == StudyDirection.MAXIMIZE else 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that less counts as better, which is so
        return get_param_importances(
            store.study, evaluator=PedAnovaImportanceEvaluator(), target=lambda trial: sign * trial.values[objective]
        )
