"""The command confirm: the best trials of a study with other seeds, and whether the winner is inside the noise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorasweep.record import write_json
from lorasweep.results import read_json, read_results
from lorasweep.rules import Problem, UserError
from lorasweep.saved import as_recorded, open_run
from lorasweep.study.canonical import config_key
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.outcomes import State
from lorasweep.study.session import run_session
from lorasweep.study.settings import Settings
from lorasweep.study.space import Point, Space
from lorasweep.study.store import Store, Trial, open_store
from lorasweep.study.view import Lines, View

if TYPE_CHECKING:
    from lorasweep.assessment import Difference
    from lorasweep.evaluation import Scores
    from lorasweep.study.leaderboard import Leaderboard

FOLDER, RESULT, TEST = "confirm", "confirm.json", "test.json"


@dataclass(frozen=True)
class Candidate:
    """A trial of the study and what its config scored with each seed."""

    trial: int
    is_baseline: bool
    in_study: float
    """Its objective in the study, which chose it: the best of many trials flatters itself."""
    folders: list[Path]
    values: list[float]

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return fmean(self.values)

    @property
    def spread(self) -> float:
        """Return the standard deviation over seeds; NaN for one."""
        return stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Comparison:
    """Winner minus another candidate: over seeds, of the objective; over rows, of the loss, both paired."""

    other: int
    over_seeds: tuple[float, float, float] | None
    """Mean and 95 % interval; None with one seed."""
    over_rows: tuple[float, float, float] | None
    """Mean and 95 % interval, rows averaged over seeds."""

    @property
    def inside_noise(self) -> bool:
        """Whether the difference may be chance."""
        known = [interval for interval in (self.over_seeds, self.over_rows) if interval]
        return not known or any(low <= 0 <= high for _, low, high in known)


@dataclass(frozen=True)
class Confirmation:
    """What the repetition showed."""

    study: str
    objective: str
    seeds: list[int]
    candidates: list[Candidate]
    """Best mean first."""
    comparisons: list[Comparison]
    test: dict[str, Any] | None
    """Scores on the rows that no choice has seen; None where the study held none out."""


class Trials(Lines):
    """A line per event; what came of them all is shown as a comparison."""

    def end(self, board: Leaderboard | None = None) -> None:
        """Print nothing."""


def confirm(study: Path, top: int, seeds: int, slots: int | None, storage: str | None, view: View) -> Confirmation:
    """Train the `top` best trials of a study, and its baseline, again with `seeds` new seeds each, and compare them.

    What was trained before is not trained again. The test split is scored once, for the winner and the baseline.
    """
    store = open_store(study, storage)
    try:
        chosen, maximised = _chosen(store, study, top), store.directions[0] == "maximize"
    finally:
        store.close()
    first = as_recorded(_folder(study, chosen[0].number))
    new_seeds = [first.train.seed + offset for offset in range(1, seeds + 1)]
    definition = _definition(study, chosen, new_seeds, slots, maximised)
    if reason := run_session(definition, view):
        raise UserError(Problem("confirm", study.name, f"the end of every trial; {reason}. The same command goes on"))
    candidates = _candidates(definition, chosen, new_seeds)
    candidates.sort(key=lambda candidate: candidate.mean, reverse=maximised)
    comparisons = [_compared(candidates[0], other) for other in candidates[1:]]
    test = _scored_once(definition.folder, candidates)
    result = Confirmation(study.name, first.evaluation.objective, new_seeds, candidates, comparisons, test)
    write_json(definition.folder / RESULT, json.loads(json.dumps(asdict(result), default=str).replace("NaN", "null")))
    return result


def read_confirmation(study: Path) -> Confirmation | None:
    """Return what `confirm` has written about a study; None if it has not."""
    kept = read_json(study / FOLDER / RESULT)
    if not kept:
        return None
    candidates = [Candidate(**{**item, "folders": list(map(Path, item["folders"]))}) for item in kept["candidates"]]
    return Confirmation(
        **{**kept, "candidates": candidates, "comparisons": [Comparison(**item) for item in kept["comparisons"]]}
    )


def _chosen(store: Store, study: Path, top: int) -> list[Trial]:
    """Return the best trials and the baseline, whose configs are kept."""
    if len(store.directions) > 1:
        raise UserError(Problem("STUDY", study.name, "a study of one objective; lorasweep promote takes any trial"))
    complete = [trial for trial in store.trials() if trial.value is not None]
    complete.sort(key=lambda trial: trial.value or 0.0, reverse=store.directions[0] == "maximize")
    chosen = complete[:top] + [trial for trial in complete[top:] if trial.kind == "baseline"]
    if not chosen:
        raise UserError(Problem("STUDY", study.name, "a study with complete trials; this one has none"))
    return chosen


def _definition(
    study: Path, chosen: Sequence[Trial], seeds: Sequence[int], slots: int | None, maximised: bool
) -> Definition:
    name = f"{study.name}_{FOLDER}"

    def compose(point: Point) -> Composed:
        run = as_recorded(_folder(study, point.get("trial", 0)))
        run.train.seed, run.study, run.name = point.get("train.seed", run.train.seed), name, None
        varied = [f"{key}={value}" for key, value in point.items()]
        return Composed(asdict(run), [f"study={study.name}", *varied], varied, config_key(run))

    settings = Settings(
        sampler="list",
        enqueue=[{"trial": trial.number, "train.seed": seed} for trial in chosen for seed in seeds],
        direction="maximize" if maximised else "minimize",
        slots=slots,
        keep_adapters=None,
    )
    return Definition(name, study.absolute() / FOLDER, settings, Space(()), compose)


def _candidates(definition: Definition, chosen: Sequence[Trial], seeds: Sequence[int]) -> list[Candidate]:
    store = open_store(definition.folder, None)
    try:
        done = {(trial.point["trial"], trial.point["train.seed"]): trial for trial in store.trials()}
    finally:
        store.close()
    found = []
    for trial in chosen:
        runs = [done[trial.number, seed] for seed in seeds]
        if bad := [run for run in runs if run.state is not State.COMPLETE]:
            words = (
                f"complete trials with every seed; {_folder(definition.folder, bad[0].number)} is {bad[0].state.value}"
            )
            raise UserError(Problem("confirm", f"trial {trial.number}", words))
        folders = [_folder(definition.folder, run.number) for run in runs]
        values = [run.value for run in runs if run.value is not None]
        found.append(Candidate(trial.number, trial.kind == "baseline", trial.value or 0.0, folders, values))
    return found


def _compared(winner: Candidate, other: Candidate) -> Comparison:
    from lorasweep.assessment import paired_difference, students_t

    gains = [one - two for one, two in zip(winner.values, other.values, strict=True)]
    over_seeds = None
    if len(gains) > 1:
        half = students_t(len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
        over_seeds = (fmean(gains), fmean(gains) - half, fmean(gains) + half)
    rows = paired_difference(_averaged(other.folders), _averaged(winner.folders))
    return Comparison(other.trial, over_seeds, _interval(rows))


def _averaged(folders: Iterable[Path]) -> Scores:
    """Return the losses of the evaluation rows, averaged over runs."""
    from lorasweep.evaluation import Scores

    kept = [evaluation for folder in folders if (evaluation := read_results(folder).kept)]
    losses = [fmean(row) for row in zip(*(item["row_losses"] for item in kept), strict=True)]
    return Scores(losses, kept[0]["row_tokens"])


def _scored_once(folder: Path, candidates: Sequence[Candidate]) -> dict[str, Any] | None:
    """Score winner, baseline and untuned model on the test rows, unless that was done: a second look is a choice."""
    path = folder / TEST
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text())
        return known
    run = as_recorded(candidates[0].folders[0])
    if not (run.data.test_fraction or run.data.test_files or run.data.test_split):
        return None
    winner, baseline = candidates[0], next((item for item in candidates if item.is_baseline), None)
    scores: dict[str, Any] = {"winner": winner.trial}
    for name, candidate in (("winner", winner), ("baseline", baseline)):
        if candidate is None or (name == "baseline" and candidate is winner):
            continue
        assessed = [_test_metrics(place) for place in candidate.folders]
        scores["untuned/metrics"] = assessed[0][0]
        scores[f"{name}/metrics"] = {key: fmean(item[1][key] for item in assessed) for key in assessed[0][1]}
    write_json(path, scores)
    return scores


def _test_metrics(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    from lorasweep.assessment import assess

    result = assess(folder, open_run(folder), split="test")
    return result.untuned.metrics(), result.tuned.metrics()


def _interval(difference: Difference | None) -> tuple[float, float, float] | None:
    return (difference.mean, difference.low, difference.high) if difference else None


def _folder(study: Path, number: int) -> Path:
    return study / "trials" / str(number)


def show(result: Confirmation) -> None:
    """Print means and spreads, and say whether the winner won."""
    console, judged = Console(highlight=False), result.objective
    table = Table(title=f"{result.study}: {len(result.seeds)} new seeds each", title_justify="left", box=None)
    for heading in (
        "trial",
        f"{judged} mean",
        "spread",
        "in the study",
        "winner ahead by",
        "95 % over seeds",
        "over rows",
    ):
        table.add_column(heading, justify="right")
    compared = {item.other: item for item in result.comparisons}
    for candidate in result.candidates:
        versus = compared.get(candidate.trial)
        over_seeds = versus.over_seeds if versus else None
        name = f"{candidate.trial}{' (baseline)' if candidate.is_baseline else ''}"
        table.add_row(
            name, f"{candidate.mean:.4f}", f"{candidate.spread:.4f}", f"{candidate.in_study:.4f}",
            f"{over_seeds[0]:+.4f}" if over_seeds else "", _range(over_seeds),
            _range(versus.over_rows if versus else None),
        )  # fmt: skip
    console.print(table)
    console.print(Text(verdict(result), style="bold"))
    _show_test(console, result.test)


def verdict(result: Confirmation) -> str:
    """Return in a sentence whether the winner won."""
    winner = result.candidates[0].trial
    close = [str(item.other) for item in result.comparisons if item.inside_noise]
    if not result.comparisons:
        return f"Trial {winner} stands alone: there is nothing to compare it with."
    if close:
        return f"Trial {winner} is ahead, but inside the noise of trial {', '.join(close)}: choose the cheaper one."
    return f"Trial {winner} wins: it is ahead of every other outside the noise."


def _show_test(console: Console, test: dict[str, Any] | None) -> None:
    if test is None:
        console.print("No rows were held out of all choices; data.test_fraction=0.1 in a study does.", style="dim")
        return
    table = Table(title="On the test rows, scored once", title_justify="left", box=None)
    sides = [name for name in ("untuned", "baseline", "winner") if f"{name}/metrics" in test]
    for heading in ("", *sides):
        table.add_column(heading, justify="right" if heading else "left")
    for metric in test["untuned/metrics"]:
        values = (f"{test[f'{side}/metrics'][metric]:.4f}" for side in sides)
        table.add_row(metric.removeprefix("eval/").replace("_", " "), *values)
    console.print(table)


def _range(interval: tuple[float, float, float] | None) -> str:
    return f"{interval[1]:+.4f} to {interval[2]:+.4f}" if interval else ""
