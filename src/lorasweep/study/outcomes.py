"""How a trial can end."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What has become of a trial."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    FAILED = "failed"
    HUNG = "hung"
    REFUSED = "refused"
    """Never started: its values contradict each other."""
    INTERRUPTED = "interrupted"
    """Stopped or killed with the controller still wanting it: it is taken up again under its number."""

    @property
    def is_finished(self) -> bool:
        """Tell whether the trial is done for good and counts towards the total."""
        return self not in (State.RUNNING, State.INTERRUPTED)

    @property
    def is_failure(self) -> bool:
        """Tell whether something is wrong that no choice of hyperparameters explains."""
        return self in (State.FAILED, State.HUNG)

    @property
    def is_infeasible(self) -> bool:
        """Tell whether the point itself cannot be trained, so that a sampler should avoid its neighbourhood."""
        return self in (State.OUT_OF_MEMORY, State.DIVERGED, State.REFUSED)
