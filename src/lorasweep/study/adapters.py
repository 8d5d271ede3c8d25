"""Which adapters of a study stay on disk: those of its best trials."""

from __future__ import annotations

import bisect
import shutil

from lorasweep.study.definition import Definition
from lorasweep.study.folder import trial_folder
from lorasweep.study.trial import Trial


class Adapters:
    """Keeps the adapters of the best trials alone; of several objectives, all."""

    def __init__(self, definition: Definition) -> None:
        self.folder, directions = definition.folder, definition.directions()
        self.most = definition.settings.keep_adapters if len(directions) == 1 else None
        self.maximises = directions[0] == "maximize"
        self.best: list[tuple[float, int]] = []
        """The trials whose adapters are kept, best first, by what is to be minimised and number."""

    def judge(self, trial: Trial) -> None:
        """Keep the adapter of a trial that has ended, or remove it, or another's in its place."""
        if trial.value is None or self.most is None:
            return
        bisect.insort(self.best, (-trial.value if self.maximises else trial.value, trial.number))
        for _, number in self.best[self.most :]:
            for name in ("adapter", "checkpoints"):
                shutil.rmtree(trial_folder(self.folder, number) / name, ignore_errors=True)
        del self.best[self.most :]
