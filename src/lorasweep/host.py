"""What surrounds a run: where its base and its data come from, who is told how it goes, and who can stop it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from lorasweep.processes.group import Group, current

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lorasweep.device import Device
    from lorasweep.evaluation import Scores
    from lorasweep.inputs import Inputs
    from lorasweep.schema import Run


class Interrupted(KeyboardInterrupt):
    """Raised where a run can be stopped so that it is gone on with from there."""


class Host:
    """The surroundings of a run on its own: everything is made for it, nobody listens, and nobody stops it.

    A study's worker overrides `progress`, `report` and `stopping`; the first two may raise `Interrupted`.
    """

    group = Group()
    """The processes that train the run together."""
    is_followed = True
    """Whether a run starts a follower that feeds W&B; for the trials of a study its controller does."""
    runs = 1
    """How many runs follow each other here: what one of them compiles serves all."""
    training = False
    """Whether the run takes optimizer steps, the one of which is to be finished when it is stopped."""

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

    def stopping(self) -> bool:
        """Tell whether the run is to stop; asked between steps, and between the batches of an evaluation."""
        return False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear whatever can ask a run to stop, from its first preparations to its end."""
        yield


class OwnProcess(Host):
    """The surroundings of a run with a process of its own: the first signal stops it after its step, the next at once.

    Ctrl-C, SIGTERM, and SIGUSR1, which Slurm sends ahead of the end of a job where it is asked to.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    _asked = False

    def __init__(self, group: Group | None = None) -> None:
        self.group = group or current()

    def stopping(self) -> bool:
        """Tell whether a signal has come."""
        return self._asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals."""
        process = os.getpid()
        self.training = self._asked = False

        def heed(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:  # a loader's: the step that is being finished may need it
                return
            if self._asked or not self.training:
                raise KeyboardInterrupt(signal.Signals(number).name)
            self._asked = True
            if self.group.is_first:
                os.write(2, b"\nfinishing this step, then writing a checkpoint; once more to stop at once\n")

        before = {number: signal.signal(number, heed) for number in self.SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let every signal that stops a run stop the process where nothing is trained, too, with the same exit code."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in OwnProcess.SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        os.write(2, f"stopped by {interrupt} while nothing was trained; the same command begins again\n".encode())
        raise SystemExit(os.EX_TEMPFAIL) from None


ALONE = Host()
