"""The command wandb sync: what has not reached W&B is sent from the run folders, as often as it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorasweep.places import NamedRun
from lorasweep.results import UNFINISHED, read_results
from lorasweep.rules import Problem, UserError
from lorasweep.schema import Tracking
from lorasweep.study.outcomes import State
from lorasweep.study.reading import KeptStudy, read_study
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


def sync(found: NamedRun | KeptStudy, storage: str | None = None) -> Iterator[Sent]:
    """Send a run, or a trial; of a study its trials, then the study as a whole, then its confirmation.

    A trial that runs is left out.
    """
    account = account_of(found.folder)
    if isinstance(found, KeptStudy):
        yield from _sync_study(found, storage, account)
    elif found.study and found.trial:
        yield _sent(study_identity(found.study.folder).trial(found.trial), _ending(found.trial), account)
    else:
        state = read_results(found.folder).state
        ending = Ending(TO_BE_CONTINUED if state == UNFINISHED else state)
        yield _sent(run_subject(found.folder), ending, account)


def _sync_study(study: KeptStudy, storage: str | None, account: Account) -> Iterator[Sent]:
    identity = study_identity(study.folder)
    for trial in study.kept:
        subject = identity.trial(trial)
        if trial.state is not State.RUNNING and subject.folder.is_dir():
            yield _sent(subject, _ending(trial), account)
    yield _summarised(identity, storage, account)
    confirmation = study.folder / CONFIRMATION
    if any(confirmation.glob("trials/*/run.yaml")):
        yield from _sync_study(read_study(confirmation), None, account)


def account_of(folder: Path) -> Account:
    """Return where a run, or the trials of a study, said that they belong."""
    runs = [folder, *(path.parent for path in sorted(folder.glob("trials/*/run.yaml")))]
    known = read_results(next((run for run in runs if (run / "run.yaml").is_file()), folder)).config["tracking"]
    account = connect(Tracking(**{**known, "wandb": "online"}), folder.resolve())
    if not is_logged_in():
        raise UserError(Problem("wandb", None, "an account: wandb login, or WANDB_API_KEY in the environment"))
    return account


def _ending(trial: Trial) -> Ending:
    """Return how a trial ended; one that was stopped or killed is to be run again."""
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
