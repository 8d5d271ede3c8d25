"""The command confirm: the best trials of a study with other seeds, and whether the winner is inside the noise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from lorasweep.confirm.comparison import Candidate, Comparison, Confirmation, compare
from lorasweep.places import short
from lorasweep.record import write_json
from lorasweep.results import read_json
from lorasweep.rules import Problem, UserError
from lorasweep.saved import as_recorded, open_run
from lorasweep.study.canonical import config_key
from lorasweep.study.definition import Composed, Definition
from lorasweep.study.folder import trial_folder
from lorasweep.study.outcomes import State
from lorasweep.study.session import run_session
from lorasweep.study.settings import Direction, Settings
from lorasweep.study.space import Point, Space
from lorasweep.study.store import Store, open_store
from lorasweep.study.trial import Trial
from lorasweep.study.view import View
from lorasweep.tracking.view import followed

FOLDER, RESULT, TEST = "confirm", "confirm.json", "test.json"
LOSS = ("loss", "eval/loss")
"""Names of the objective whose differences are known row by row."""


def confirm(study: Path, top: int, seeds: int, slots: int | None, storage: str | None, view: View) -> Confirmation:
    """Train the `top` best trials of a study, and its baseline, again with `seeds` new seeds each, and compare them.

    What was trained before is not trained again. The test split is scored once, for the winner and the baseline.
    """
    store = open_store(study, storage)
    try:
        chosen, directions = _chosen(store, study, top), store.directions
        settled = store.attributes.get("definition", {})
    finally:
        store.close()
    first = as_recorded(trial_folder(study, chosen[0].number))
    new_seeds = [first.train.seed + offset for offset in range(1, seeds + 1)]
    definition = _definition(study, chosen, new_seeds, slots, settled, directions)
    with followed(definition, view) as followed_view:
        reason = run_session(definition, followed_view)
    if reason:
        raise UserError(Problem("confirm", study.name, f"the end of every trial; {reason}. The same command goes on"))
    judged = definition.objective_names()[0]
    candidates, left_out = _candidates(definition.folder, chosen, new_seeds)
    candidates.sort(key=lambda candidate: candidate.mean, reverse=directions[0] == "maximize")
    comparisons = [compare(candidates[0], other, by_loss=judged in LOSS) for other in candidates[1:]]
    test = _scored_once(definition.folder, candidates)
    result = Confirmation(study.name, judged, new_seeds, candidates, comparisons, test, left_out)
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
    """Return the best trials and the baseline, whose configs are kept; of one config with several seeds the best."""
    if len(store.directions) > 1:
        raise UserError(Problem("STUDY", study.name, "a study of one objective; lorasweep promote takes any trial"))
    ended = [trial for trial in store.trials() if trial.value is not None]
    complete = [trial for trial in ended if (trial_folder(study, trial.number) / "run.yaml").is_file()]
    complete.sort(key=lambda trial: trial.value or 0.0, reverse=store.directions[0] == "maximize")
    chosen: dict[str, Trial] = {}
    for trial in complete:
        if len(chosen) < top or trial.kind == "baseline":
            key = _key_without_seed(study, trial)
            chosen[key] = trial if trial.kind == "baseline" else chosen.get(key, trial)
    if not chosen:
        allowed = "a study with complete trials, whose configs are in its folder; this one has none"
        raise UserError(Problem("STUDY", study.name, allowed))
    return list(chosen.values())


def _key_without_seed(study: Path, trial: Trial) -> str:
    """Return what is the same for trials that differ in nothing but their seed: with new ones they are one."""
    run = as_recorded(trial_folder(study, trial.number))
    run.train.seed = 0
    return config_key(run)


def _definition(
    study: Path,
    chosen: Sequence[Trial],
    seeds: Sequence[int],
    slots: int | None,
    settled: Mapping[str, Any],
    directions: list[Direction],
) -> Definition:
    name = f"{study.name}_{FOLDER}"

    kept = min(int(path.parent.name) for path in study.glob("trials/*/run.yaml") if path.parent.name.isdecimal())

    def compose(point: Point) -> Composed:
        run = as_recorded(trial_folder(study, point.get("trial", kept)))
        run.train.seed, run.study, run.name = point.get("train.seed", run.train.seed), name, None
        varied = [f"{key}={value}" for key, value in point.items()]
        return Composed(asdict(run), [f"study={study.name}", *varied], varied, config_key(run))

    settings = Settings(
        sampler="list",
        enqueue=[{"trial": trial.number, "train.seed": seed} for trial in chosen for seed in seeds],
        objectives=settled.get("hydra.sweeper.objectives", ["objective"]),
        direction=directions,
        slots=slots,
        gpus_per_trial=settled.get("hydra.sweeper.gpus_per_trial", 1),
        keep_adapters=None,
        max_failures=None,
    )
    return Definition(name, study.absolute() / FOLDER, settings, Space(()), compose)


def _candidates(confirmation: Path, chosen: Sequence[Trial], seeds: Sequence[int]) -> tuple[list[Candidate], list[str]]:
    """Return the trials that were trained with every seed, and of the others why they were not."""
    store = open_store(confirmation, None)
    try:
        done = {(trial.point["trial"], trial.point["train.seed"]): trial for trial in store.trials()}
    finally:
        store.close()
    found, left_out = [], []
    for trial in chosen:
        runs = [done[trial.number, seed] for seed in seeds]
        folders = [trial_folder(confirmation, run.number) for run in runs]
        failed = [
            f"seed {seed} is {run.state}, in {short(folder)}"
            for seed, run, folder in zip(seeds, runs, folders, strict=True)
            if run.state is not State.COMPLETE
        ]
        if failed:
            left_out.append(f"trial {trial.number} is left out: {'; '.join(failed)}")
            continue
        values = [run.value for run in runs if run.value is not None]
        found.append(Candidate(trial.number, trial.kind == "baseline", trial.value or 0.0, folders, values))
    if not found:
        raise UserError(
            Problem("confirm", confirmation.parent.name, f"a trial that trains with every seed; {left_out[0]}")
        )
    return found, left_out


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
