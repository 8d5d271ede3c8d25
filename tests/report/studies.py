"""Studies made by hand, as the engine leaves them: a store, and folders with all that a run writes.

python -m tests.report.studies FOLDER 500      a study of so many trials, to look at
"""

from __future__ import annotations

import json
import math
import random
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import event

from lorasweep.record import claim, write_json
from lorasweep.rules import build
from lorasweep.schema import Run
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.space import Choice, Interval, Point, Space
from lorasweep.study.store import Store
from tests.study.trials import kept

SPACE = Space((
    Choice("lora.r", (8, 16, 32, 64, 128)), Choice("lora.alpha", (8, 16, 32, 64, 128)), Choice("lora.dropout", (0.0, 0.05, 0.1)),
    Choice("scheduler", ("constant", "linear", "cosine"), is_group=True), Choice("data.packing", (False, True)),
    Interval("optim.lr", 5e-5, 2e-3, log=True),
))  # fmt: skip
BASELINE: Point = {
    "lora.r": 16, "lora.alpha": 32, "lora.dropout": 0.0, "scheduler": "linear", "data.packing": False, "optim.lr": 2e-4,
}  # fmt: skip
WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "yew")
BUDGET, TIMES, ROWS, SLOTS, UNTUNED = 240_000, 4, 120, 4, 2.31
BEGIN = datetime(2026, 1, 5, 9)


def unhurried(store: Store) -> None:
    """Let a database not wait for its disk: a study made by hand is made again, not mended."""
    engine = store.storage._backend.engine  # type: ignore[attr-defined]
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    engine.dispose()


class Maker:
    """Fills a study with trials whose losses follow a formula."""

    def __init__(self, folder: Path, seed: int = 0, **facts: Any) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.store: Store = kept(folder, self._definition(), **facts)
        self.store.keep("search", json.loads(json.dumps(self._definition().search())))
        unhurried(self.store)
        self.free = [BEGIN] * SLOTS
        self.ended: dict[int, datetime] = {}
        self.tokens = [self.chance.randint(4, 40) for _ in range(ROWS)]

    def _definition(self) -> Definition:
        run = {
            "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
            "quant": {"method": "nf4"},
            "data": {"source": "hub", "path": "tatsu-lab/alpaca"},
        }
        settings = Settings(sampler="tpe", pruner="asha", n_trials=1)
        return Definition(
            self.folder.name, self.folder, settings, SPACE, lambda point: Composed(run, [], [], str(point))
        )

    def point(self) -> Point:
        """A point of the space."""
        drawn: Point = {}
        for item in SPACE:
            if isinstance(item, Choice):
                drawn[item.key] = self.chance.choice(item.options)
            else:
                low, high = math.log(item.low), math.log(item.high)
                drawn[item.key] = item.rounded(math.exp(self.chance.uniform(low, high)))
        return drawn

    def loss(self, point: Point, share: float) -> float:
        """What a point scores after a share of the budget."""
        rate = math.log10(point["optim.lr"]) + 3.5 + 0.15 * math.log2(point["lora.r"] / 16)
        flat = {"constant": 0.02, "linear": 0.005, "cosine": 0.0}[point["scheduler"]]
        end = 1.04 + 0.16 * rate**2 + flat + 0.15 * point["lora.dropout"] - 0.006 * math.log2(point["lora.r"])
        return float(end + (UNTUNED - end) * math.exp(-5.5 * share) + self.chance.gauss(0, 0.004))

    def outcome(self, point: Point, reports: Mapping[int, float], number: int) -> tuple[State, str | None]:
        """How a trial ends: as its values and a little chance have it."""
        if point["lora.r"] == 128 and not point["data.packing"] and self.chance.random() < 0.6:
            return State.OUT_OF_MEMORY, "CUDA out of memory. Tried to allocate 1.02 GiB."
        if point["optim.lr"] > 1.7e-3 and self.chance.random() < 0.7:
            return State.DIVERGED, f"the loss is nan at step {11 + number % 7}"
        if number % 97 == 50:
            return (
                State.FAILED,
                "RuntimeError: CUDA error: an illegal memory access was encountered\nTraceback (most recent call last):\n  …",
            )
        pruned = number > 5 and next(iter(reports.values())) > 1.42
        return (State.PRUNED, None) if pruned else (State.COMPLETE, None)

    def trial(self, point: Point | None = None, kind: str = "sampled", folders: bool = True) -> int:
        """One trial, with its folder."""
        point = self.point() if point is None else point
        number = self.store.create(point, f"{point} {len(self.store.frozen())}", kind)
        reports = {BUDGET * part // TIMES: self.loss(point, part / TIMES) for part in range(1, TIMES + 1)}
        state, reason = (State.COMPLETE, None) if kind == "baseline" else self.outcome(point, reports, number)
        seen = list(reports.items())[: {State.COMPLETE: TIMES, State.PRUNED: 1}.get(state, 0)]
        for tokens, value in seen:
            self.store.report(number, tokens, value)
        speed = 5200 * (1.5 if point["data.packing"] else 1.0) * self.chance.uniform(0.97, 1.03)
        seconds = 20 + (seen[-1][0] if seen else BUDGET // 20) / speed * 3
        facts = self.facts(point, seen, seconds, speed)
        slot = min(range(SLOTS), key=lambda place: self.free[place])
        self.store.note(
            number,
            start={"choices": {"scheduler": point["scheduler"]}, "slot": slot, "begun": self.free[slot].isoformat()},
        )
        values = (
            [facts[name] for name in self.store.attributes["definition"]["hydra.sweeper.objectives"]]
            if state is State.COMPLETE
            else None
        )
        self.store.finish(number, state, values, {"facts": facts, "reason": reason})
        self.free[slot] += timedelta(seconds=seconds + 1)
        self.ended[number] = self.free[slot]
        if folders:
            self.write(number, point, state, facts, seen, reason)
        return number

    def facts(self, point: Point, seen: Sequence[tuple[int, float]], seconds: float, speed: float) -> dict[str, Any]:
        """What a summary says."""
        memory = 6.1 + 0.011 * point["lora.r"] + (1.3 if point["data.packing"] else 0.0) + self.chance.uniform(0, 0.05)
        facts: dict[str, Any] = {
            "steps": 200, "train/seconds": round(seconds - 18, 3), "tokens/total": (seen[-1][0] if seen else 12_000) * 3,
            "tokens/supervised": seen[-1][0] if seen else 12_000, "tokens/per_second": round(speed, 1),
            "memory/peak_gib": round(memory, 3), "seconds_in_slot": round(seconds, 3),
            "untuned/eval/loss": UNTUNED, "untuned/eval/perplexity": math.exp(UNTUNED), "untuned/eval/exact_match": 0.1,
        }  # fmt: skip
        if seen:
            best = min(value for _, value in seen)
            match = round(max(0.0, min(1.0, 1.9 - 1.25 * best)) * 20) / 20
            facts |= {
                "objective": best,
                "eval/loss": best,
                "eval/perplexity": math.exp(best),
                "eval/exact_match": match,
                "objective/step": 200,
            }
        return facts

    def write(
        self,
        number: int,
        point: Point,
        state: State,
        facts: dict[str, Any],
        seen: Sequence[tuple[int, float]],
        reason: str | None,
    ) -> None:
        """The folder of a trial, as a run leaves it."""
        folder = self.folder / "trials" / str(number)
        run = build({}, Run, set())
        for key, value in point.items():
            section, _, name = key.partition(".")
            if name:
                setattr(getattr(run, section), name, value)
            else:
                run.scheduler.name = value
        claim(folder, run)
        (folder / "log.txt").write_text(f"trial {number}\n")
        write_json(
            folder / "record.json",
            {
                "name": f"{number}-trial",
                "wandb_id": f"{self.folder.name}-{number}",
                "git": {"commit": "0" * 40, "changed": []},
            },
        )
        write_json(folder / "summary.json", {**facts, "state": state.value, "error": reason})
        if not seen:
            return
        with open(folder / "metrics.jsonl", "w") as file:
            for step in range(1, 201):
                tokens = seen[-1][0] * step // 200
                loss = (
                    facts["objective"]
                    + (UNTUNED - facts["objective"]) * math.exp(-6 * step / 200)
                    + self.chance.gauss(0, 0.03)
                )
                file.write(
                    json.dumps({"step": step, "seconds": step, "train/loss": loss, "tokens/supervised": tokens}) + "\n"
                )
        with open(folder / "evaluation.jsonl", "w") as file:
            for step, loss in ((0, UNTUNED), (200, facts["objective"])):
                file.write(json.dumps(self.evaluation(step, loss)) + "\n")

    def evaluation(self, step: int, loss: float) -> dict[str, Any]:
        """A line of evaluation.jsonl."""
        answers = []
        for row in range(8):
            wanted, *others = (WORDS[(row + place) % len(WORDS)] for place in range(4))
            right = step and self.chance.random() < 1.9 - loss
            answers.append({
                "prompt": f"<|user|>\nWhich of these is the first: {wanted}, {', '.join(others)}?\n<|assistant|>\n", "expected": wanted,
                "generated": wanted if right else others[0], "scores": {"exact_match": float(bool(right))}, "row": 7 * row,
            })  # fmt: skip
        losses = [count * max(0.05, loss + self.chance.gauss(0, 0.25)) for count in self.tokens]
        return {
            "step": step,
            "row_losses": losses,
            "row_tokens": self.tokens,
            "answers": answers,
            "rows": [7 * row for row in range(ROWS)],
        }

    def close(self) -> Path:
        """Let go of the store, in which trials end when they would have; the folder of the study."""
        self.store.close()
        with closing(sqlite3.connect(self.folder / "study.db")) as connection:
            times = [(str(moment), number) for number, moment in self.ended.items()]
            connection.executemany("UPDATE trials SET datetime_complete = ? WHERE number = ?", times)
            connection.commit()
        return self.folder


def large(folder: Path, count: int, seed: int = 0) -> Path:
    """A study of so many trials, the baseline first."""
    maker = Maker(folder, seed)
    maker.trial(BASELINE, "baseline")
    for _ in range(count - 1):
        maker.trial()
    return maker.close()


if __name__ == "__main__":
    large(Path(sys.argv[1]), int(sys.argv[2]))
