"""A trial made into an experiment file: groups chosen by name, and what differs from them as values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lorasweep import compose
from lorasweep.record import CHECKOUT, literal, write_text
from lorasweep.rules import Problem, UserError
from lorasweep.saved import as_recorded
from lorasweep.schema import SECTIONS
from lorasweep.study.definition import FREE, Definition
from lorasweep.study.folder import trial_folder
from lorasweep.study.leaderboard import Leaderboard, Row, build_leaderboard
from lorasweep.study.store import Store, open_store
from lorasweep.study.wording import shown

CONF = CHECKOUT / "conf"
BEST = "best.yaml"
NAMES = {"quant": "method", "optim": "name", "scheduler": "name"}
"""The option of a section that its files are called after."""
HEADER = """\
# @package _global_
# python train.py experiment={name}
# {what}
"""


@dataclass(frozen=True)
class Promoted:
    """An experiment file and what is worth knowing about it."""

    name: str
    text: str
    trial: int
    inlined: dict[str, str]
    """Sections whose file could not be chosen, with why: all of their values are in the experiment."""


def promote(
    study: Path, number: int | None = None, name: str | None = None, storage: str | None = None, force: bool = False
) -> tuple[Promoted, Path]:
    """Write conf/experiment/NAME.yaml of a trial, by default of the best."""
    name = name or f"{study.resolve().name}_best"
    path = CONF / "experiment" / f"{name}.yaml"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(Problem("--name", name, "letters, digits and . _ - (it names a file)"))
    if path.exists() and not force:
        raise UserError(Problem("--name", name, f"a new name, or --force: {os.path.relpath(path)} exists"))
    store = open_store(study, storage)
    try:
        promoted = describe(store, study, name, number)
    finally:
        store.close()
    path.parent.mkdir(exist_ok=True)
    write_text(path, promoted.text)
    return promoted, path


def show(promoted: Promoted, path: Path) -> None:
    """Say what was written and how it is used."""
    print(f"{os.path.relpath(path)}: trial {promoted.trial}")
    for section, why in promoted.inlined.items():
        print(f"  all values of {section} are in it, for {why}")
    print(f"python train.py experiment={promoted.name}")


def write_best(definition: Definition) -> None:
    """Write best.yaml of a study's best trial, once it has a complete one whose config is kept."""
    study = definition.folder
    if not any(study.glob("trials/*/run.yaml")):
        return
    store = open_store(study, definition.settings.storage)
    try:
        best = build_leaderboard(store, study).best
        if best and (trial_folder(study, best["trial"]) / "run.yaml").is_file():
            write_text(study / BEST, describe(store, study, f"{study.name}_best").text)
    except OSError as error:
        print(f"{study / BEST} cannot be written: {error.strerror}")
    finally:
        store.close()


def describe(store: Store, study: Path, name: str, number: int | None = None) -> Promoted:
    """Return the experiment file of a trial; None: of the best."""
    board = build_leaderboard(store, study)
    row = _row(board, number)
    trial, record = store.trial(row["trial"]), trial_folder(study, row["trial"])
    if not (record / "run.yaml").is_file():
        raise UserError(Problem("--trial", row["trial"], f"a trial whose config is kept: {record} has no run.yaml"))
    wanted = {key: value for key, value in asdict(as_recorded(record)).items() if key not in FREE}
    choices, values, inlined = as_experiment(wanted, trial.choices)
    text = HEADER.format(name=name, what=_what(board, row, study.resolve().name))
    for section, why in inlined.items():
        text += f"# {section}: all values are here, for {why}; {section}=… on the command line does not replace them\n"
    if choices:
        lines = (f"  - override /{section}: {option}\n" for section, option in choices.items())
        text += "".join(("defaults:\n", *lines)) + "\n" * bool(values)
    text += yaml.safe_dump(literal(values), sort_keys=False, allow_unicode=True) if values else ""
    return Promoted(name, text, trial.number, inlined)


def _row(board: Leaderboard, number: int | None) -> Row:
    """Return a complete trial's row, or raise with those there are."""
    complete = [str(row["trial"]) for row in board.rows if "rank" in row]
    row = board.best if number is None else next((row for row in board.rows if row.get("trial") == number), None)
    some = f"the best are {', '.join(complete[:4])}" if complete else "it has none yet"
    if row is None:
        raise UserError(Problem("--trial", number, f"a complete trial of the study; {some}"))
    if "rank" not in row:
        words = f"a complete trial; this one is {row['state'].replace('_', ' ')}, {some}"
        raise UserError(Problem("--trial", number, words))
    return row


def _what(board: Leaderboard, row: Row, study: str) -> str:
    """Return in a line where an experiment comes from and how good it was."""
    names = [board.judged if name == "objective" else name for name in board.objectives]
    values = ", ".join(f"{name} {shown(row[key])}" for key, name in zip(board.objectives, names, strict=True))
    where = f"trial {row['trial']} of the study {study}"
    if row.get("front"):
        where += f", one of {sum(bool(item.get('front')) for item in board.rows)} on the Pareto front"
    base = board.baseline
    against = ""
    if base and base is not row and (value := base.get(board.objectives[0])) is not None:
        against = f" (the baseline: {shown(value)})"
    return f"{values}{against}: {where}"


def as_experiment(
    wanted: Mapping[str, Any], noted: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, Any], dict[str, str]]:
    """Return files to choose, values that differ from what they compose to, and sections for which no file would do."""
    files = {section: {path.stem for path in (CONF / section).glob("*.yaml")} for section in SECTIONS}
    choices = {section: noted[section] for section in SECTIONS if noted.get(section) in files[section]}
    composed = _composed(choices)
    for section, key in NAMES.items():
        # of a trial that varied optim.name the file is chosen, or optim=… would not win over the name
        name = wanted[section][key]
        if (section not in choices or composed[section][key] != name) and name in files[section]:
            choices[section] = name
    inlined = {section: _missing(section, noted.get(section)) for section in SECTIONS if section not in choices}
    if any(noted.get(section) != option for section, option in choices.items()):
        composed = _composed(choices)
    if more := [section for section in choices if _has_more(composed[section], wanted[section])]:
        inlined |= {
            section: f"conf/{section}/{choices.pop(section)}.yaml has more than the trial had" for section in more
        }
        composed = _composed(choices)
    values = dict(_differences(wanted, composed))
    return choices, values | {section: wanted[section] for section in inlined}, inlined


def _composed(choices: Mapping[str, str]) -> dict[str, Any]:
    return compose.composed_values(CONF, [f"{section}={option}" for section, option in choices.items()])


def _missing(section: str, option: str | None) -> str:
    return f"there is no conf/{section}/{option}.yaml" if option else "it is not known which file they came from"


def _has_more(composed: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether a value is there that the trial did not have: an experiment can add and change, but not remove."""
    return any(
        key not in wanted or (isinstance(value, dict) and _has_more(value, wanted[key] or {}))
        for key, value in composed.items()
    )


def _differences(wanted: Mapping[str, Any], composed: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a trial had otherwise, nested."""
    for key, value in wanted.items():
        other = composed.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            if inner := dict(_differences(value, other)):
                yield key, inner
        elif value != other:
            yield key, value
