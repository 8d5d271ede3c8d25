"""What surrounds a run: where its base and its data come from, and who is told how it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorasweep.device import Device
    from lorasweep.evaluation import Scores
    from lorasweep.inputs import Inputs
    from lorasweep.schema import Run


class Interrupted(KeyboardInterrupt):
    """Raised by a host to stop a run as Ctrl-C would."""


class Host:
    """The surroundings of a run on its own: everything is made for it, and nobody listens.

    A study's worker overrides `progress` and `report`, both of which may raise `Interrupted`.
    """

    is_followed = True
    """Whether a run starts a follower that feeds W&B; for the trials of a study its controller does."""

    def inputs(self, run: Run, prepare: Callable[[], Inputs]) -> Inputs:
        """Return tokenizer and data of a run."""
        return prepare()

    def base(self, run: Run, device: Device, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """Return the base of a run, on which nothing has been set or trained."""
        return load()

    def untuned(self, run: Run, device: Device, score: Callable[[], Scores]) -> Scores:
        """Return the scores of a run's model before its first step."""
        return score()

    def progress(self, step: int, total: int) -> None:
        """Hear of every optimizer step, before it is evaluated."""

    def report(self, step: int, tokens: int, value: float) -> bool:
        """Hear the objective after an evaluation, and the supervised tokens learnt; false: the run is to be pruned.

        What is returned at the last step of a run does not matter: there is nothing left to save.
        """
        return True


ALONE = Host()
