"""The command wandb sync: what has not reached W&B is sent from the run folders, as often as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorasweep.results import UNFINISHED, read_results
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Tracking
from lorasweep.study.folder import controller_of
from lorasweep.study.outcomes import State
from lorasweep.study.store import open_store
from lorasweep.study.trial import Trial
from lorasweep.tracking.account import Account, connect, is_logged_in
from lorasweep.tracking.feeding import TO_BE_CONTINUED, Ending, feed
from lorasweep.tracking.study_run import summarise
from lorasweep.tracking.subject import CONFIRMATION, StudyIdentity, Subject, run_subject, study_identity


@dataclass(frozen=True)
class Sent:
    """What came of one W&B run."""

    id: str
    words: str
    failed: bool = False


def sync_run(folder: Path) -> Iterator[Sent]:
    """Send a run that stands alone."""
    state = read_results(folder).state
    ending = Ending(TO_BE_CONTINUED if state == UNFINISHED else state)
    yield _sent(run_subject(folder), ending, account_of(folder))


def sync_study(folder: Path, storage: str | None = None) -> Iterator[Sent]:
    """Send the trials of a study, then the study as a whole, then its confirmation. A trial that runs is left out."""
    account, study = account_of(folder), study_identity(folder)
    for trial in _ended(folder, storage):
        yield _sent(study.trial(trial), _ending(trial), account)
    yield _summarised(study, storage, account)
    if any((folder / CONFIRMATION).glob("trials/*/run.yaml")):
        yield from sync_study(folder / CONFIRMATION)


def account_of(folder: Path) -> Account:
    """Return where a run, or the trials of a study, said that they belong."""
    runs = [folder, *(path.parent for path in sorted(folder.glob("trials/*/run.yaml")))]
    known = read_results(next((run for run in runs if (run / "run.yaml").is_file()), folder)).config["tracking"]
    account = connect(Tracking(**{**known, "wandb": "online"}), folder)
    if not is_logged_in():
        raise UserError(Problem("wandb", None, "an account: wandb login, or WANDB_API_KEY in the environment"))
    return account


def _ended(folder: Path, storage: str | None) -> Sequence[Trial]:
    """Return the trials that W&B should know the end of."""
    running = controller_of(folder) is not None
    store = open_store(folder, storage)
    try:
        trials = [trial for trial in store.trials() if (folder / "trials" / str(trial.number)).is_dir()]
        return [trial for trial in trials if not (running and trial.state is State.RUNNING)]
    finally:
        store.close()


def _ending(trial: Trial) -> Ending:
    """Return how a trial ended; one that ran when its study was killed is to be run again."""
    return Ending(trial.state.value if trial.state.is_finished else TO_BE_CONTINUED, trial.reason)


def _sent(subject: Subject, ending: Ending, account: Account) -> Sent:
    try:
        rows = feed(subject, subject.folder, account, lambda seconds: ending)
    except Exception as error:  # whatever W&B raises, the other runs are not to suffer
        return _failed(subject.id, error)
    return Sent(subject.id, f"{ending.state}, {f'{rows} rows sent' if rows else 'no rows were missing'}")


def _summarised(study: StudyIdentity, storage: str | None, account: Account) -> Sent:
    try:
        run = summarise(study, storage, account)
    except Exception as error:  # as above
        return _failed(study.id, error)
    return Sent(study.id, f"the study as a whole, {run.project_url}/groups/{study.group}")


def _failed(id: str, error: Exception) -> Sent:
    return Sent(id, f"{type(error).__name__}: {error}".splitlines()[0], failed=True)
