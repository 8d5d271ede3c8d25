"""What people call a run or a study on a command line, and the folder that it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lorasweep.rules import Problem, UserError, nearest
from lorasweep.study.folder import STUDIES, find_study, latest_studies, study_named, trial_folder
from lorasweep.study.reading import KeptStudy, read_study
from lorasweep.study.trial import Trial

RUNS = Path("outputs/runs")
TRIALS = "trials"
MOST_NAMED = 4


@dataclass(frozen=True)
class NamedRun:
    """A run folder; of a trial with its study."""

    name: str
    """As short as it is clear: the name of its folder, or STUDY:NUMBER."""
    folder: Path
    study: KeptStudy | None = None
    trial: Trial | None = None


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run."""
    return (folder / "run.yaml").is_file()


def latest_runs() -> list[str]:
    """Return the names of the folders in outputs/runs here, latest first."""
    return sorted((path.parent.name for path in RUNS.glob("*/run.yaml")), reverse=True)


def run_name(folder: Path) -> str:
    """Return what the commands take for a run folder: its name, where they look for it, else its path."""
    return _called(folder, RUNS)


def study_name(folder: Path) -> str:
    """Return what the commands take for the folder of a study."""
    return _called(folder, STUDIES)


def short(path: Path) -> str:
    """Return a path as it is typed here."""
    relative = os.path.relpath(path)
    return str(path.absolute()) if relative.startswith("..") else relative


def _called(folder: Path, usual: Path) -> str:
    place, inside = folder.resolve(), usual.resolve()
    return str(place.relative_to(inside)) if inside in place.parents else short(folder)


def find(given: str, storage: str | None = None) -> NamedRun | KeptStudy:
    """Return the run or the study that is meant: a folder, a name in outputs/runs or outputs/studies, STUDY:TRIAL."""
    if (place := study_named(given)) and not is_run(Path(given)):
        return read_study(place, storage)
    return find_run(given, storage, "RUN or STUDY")


def find_run(given: str, storage: str | None = None, wanted: str = "RUN") -> NamedRun:
    """Return the run that is meant: a folder, a name in outputs/runs, STUDY:NUMBER, STUDY:best, STUDY:baseline."""
    for place in (Path(given), RUNS / given):
        if is_run(place):
            return _of_folder(place, storage)
    name, colon, which = given.rpartition(":")
    if colon and name:
        return _trial_run(read_study(find_study(name), storage), which)
    if study := study_named(given):
        allowed = f"a run; this is a study, whose trials are {study.name}:0, {study.name}:best, {study.name}:baseline"
        raise UserError(Problem(wanted, given, allowed))
    raise _unknown(given, wanted)


def _of_folder(folder: Path, storage: str | None) -> NamedRun:
    place = folder.resolve()
    study = place.parent.parent
    if place.parent.name != TRIALS or not place.name.isdecimal() or not (storage or (study / "study.db").is_file()):
        return NamedRun(run_name(folder), folder)
    kept = read_study(study, storage)
    trial = next((trial for trial in kept.trials() if trial.number == int(place.name)), None)
    return NamedRun(f"{study_name(study)}:{place.name}", folder, kept if trial else None, trial)


def _trial_run(study: KeptStudy, which: str) -> NamedRun:
    name = study_name(study.folder)
    if which in ("best", "baseline"):
        trial = study.best if which == "best" else study.baseline
        if trial is None:
            words = "a complete trial" if which == "best" else "a baseline (hydra.sweeper.baseline)"
            raise UserError(Problem("RUN", f"{name}:{which}", f"a trial of a study with {words}; this one has none"))
    else:
        trial = next((trial for trial in study.trials() if str(trial.number) == which), None)
        if trial is None:
            allowed = f"a trial of {name}: {_numbers(study)}, best or baseline"
            raise UserError(Problem("RUN", f"{name}:{which}", allowed, nearest(which, ("best", "baseline"))))
    folder = trial_folder(study.folder, trial.number)
    if not is_run(folder):
        why = f": {trial.reason.splitlines()[0]}" if trial.reason else ""
        allowed = f"a trial with a run folder; {trial.number} has none, it is {trial.state.value}{why}"
        raise UserError(Problem("RUN", f"{name}:{which}", allowed))
    return NamedRun(f"{name}:{trial.number}", folder, study, trial)


def _numbers(study: KeptStudy) -> str:
    numbers = [trial.number for trial in study.trials()]
    return f"0 to {numbers[-1]}" if len(numbers) > 1 else "0" if numbers else "it has none yet"


def _unknown(given: str, wanted: str) -> UserError:
    """Return what is wrong with a name that is none, with the latest there are."""
    runs, studies = latest_runs(), [path.name for path in latest_studies()]
    allowed = "a run folder, which holds run.yaml, or STUDY:NUMBER, STUDY:best, STUDY:baseline"
    if wanted != "RUN":
        allowed = f"the folder of a study or its name; or {allowed}"
    named = {"runs": runs, "studies": studies}
    latest = [f"{kind}: {', '.join(names[:MOST_NAMED])}" for kind, names in named.items() if names]
    allowed += f". The latest {'; '.join(latest)}" if latest else ". There is none here yet: python train.py makes one"
    close = nearest(Path(given).name, [*runs, *studies])
    return UserError(Problem(wanted, given, allowed, close))
