"""When a run is judged, which adapter it keeps, and when judging ends it early."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorasweep import lora
from lorasweep.divergence import Diverged
from lorasweep.evaluation import Answer, Evaluator, Scores, schedule
from lorasweep.metrics import Metrics
from lorasweep.results import read_lines
from lorasweep.schema import Evaluation


class Pruned(Exception):
    """A run is not worth going on with; carries the step."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"pruned after step {step}")


class Judge:
    """Evaluates at fixed fractions of the run, keeps the best or the last adapter, stops a run that gets no better."""

    def __init__(
        self,
        evaluator: Evaluator | None,
        settings: Evaluation,
        patience: int | None,
        total_steps: int,
        metrics: Metrics,
        folder: Path,
        report: Callable[[int, float], bool] = lambda step, value: True,
        writes: bool = True,
    ) -> None:
        """Judge nothing yet; `writes`: false where another process keeps scores and adapters."""
        self.writes = writes
        self.evaluator, self.settings, self.patience = evaluator, settings, patience
        self.steps = schedule(settings.times, total_steps) if evaluator else set()
        self.metrics, self.folder, self.report = metrics, folder, report
        self.total_steps = total_steps
        self.seconds = 0.0
        self.scores: dict[int, Scores] = {}
        self.best_step: int | None = None
        self.decided: int | None = None
        """The last step after which it is settled whether the run goes on."""

    def judge_untuned(self, score: Callable[[Evaluator], Scores]) -> None:
        """Take in the scores of the model before its first step."""
        if self.evaluator and self.settings.untuned:
            self._judge(score, 0)

    def after_step(self, step: int, model: Any) -> bool:
        """Score the model after the steps that are due, and tell; return whether to go on, raise `Pruned` if told to.

        Where that is interrupted, doing it once more takes it up: what is scored is not scored again.
        """
        if self.is_due(step):
            if step not in self.scores:
                self._judge(lambda evaluator: evaluator(model), step)
            if not self.report(step, self._objective(self.scores[step])) and step < self.total_steps:
                raise Pruned(step)
            if step == self.best_step and self.settings.keep == "best":
                self._save(model)
            self.decided = step
        worse = sum(step > (self.best_step or 0) for step in self.scores)
        return not self.patience or worse < self.patience

    def is_due(self, step: int) -> bool:
        """Tell whether something is left to do after a step."""
        return step in self.steps and step != self.decided

    def state(self) -> dict[str, Any]:
        """Return what evaluation.jsonl does not say."""
        return {"seconds": self.seconds, "decided": self.decided}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the scores of evaluation.jsonl."""
        self.seconds, self.decided = state["seconds"], state["decided"]
        for line in read_lines(self.folder / "evaluation.jsonl"):
            step, answers = line.pop("step"), [Answer(**answer) for answer in line.pop("answers")]
            self._enter(step, Scores(**line, answers=answers))

    def end(self, model: Any) -> None:
        """Save the adapter of the last step if that is the one to keep."""
        if self.settings.keep == "last" or self.best_step is None:
            self._save(model)

    def discard(self) -> None:
        """Remove the adapter kept so far."""
        if self.writes:
            shutil.rmtree(self.folder / "adapter", ignore_errors=True)

    @property
    def kept_step(self) -> int | None:
        """The evaluated step whose adapter is kept; None if nothing was evaluated after training began."""
        tuned = [step for step in self.scores if step > 0]
        return self.best_step if self.settings.keep == "best" or not tuned else max(tuned)

    @property
    def kept(self) -> Scores | None:
        """The scores of the adapter that is kept."""
        return self.scores[self.kept_step] if self.kept_step is not None else None

    @property
    def untuned(self) -> Scores | None:
        """The scores before the first step."""
        return self.scores.get(0)

    def summary(self) -> dict[str, Any]:
        """Return objective and scores: of the kept adapter, of the last step, of the untuned model; what they took."""
        if self.kept is None:
            return {}
        values: dict[str, Any] = {"objective": self._objective(self.kept), "objective/step": self.kept_step}
        values |= self.kept.metrics()
        values |= {f"last/{name}": value for name, value in self.scores[max(self.scores)].metrics().items()}
        if self.untuned:
            values |= {f"untuned/{name}": value for name, value in self.untuned.metrics().items()}
        return values | {"evaluation/seconds": round(self.seconds, 3)}

    def _judge(self, score: Callable[[Evaluator], Scores], step: int) -> None:
        assert self.evaluator
        start = time.perf_counter()
        try:
            scores = score(self.evaluator)
        finally:
            self.seconds += time.perf_counter() - start
        self._enter(step, scores)
        if not math.isfinite(scores.loss):
            raise Diverged("the evaluation loss", step)
        self.metrics.write(step, scores.metrics())
        if not self.writes:
            return
        with open(self.folder / "evaluation.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **asdict(scores)}, ensure_ascii=False) + "\n")

    def _enter(self, step: int, scores: Scores) -> None:
        self.scores[step] = scores
        if step > 0 and (self.best_step is None or self._value(step) < self._value(self.best_step)):
            self.best_step = step

    def _objective(self, scores: Scores) -> float:
        value = scores.loss if self.settings.objective == "loss" else scores.answered.get(self.settings.objective)
        assert value is not None
        return value

    def _value(self, step: int) -> float:
        value = self._objective(self.scores[step])
        return value if self.settings.objective == "loss" else -value

    def _save(self, model: Any) -> None:
        if not self.writes:
            return
        staging, target = self.folder / ".adapter", self.folder / "adapter"
        lora.save_adapter(model, staging)
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
