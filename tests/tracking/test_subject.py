"""What W&B knows runs, trials and studies by."""

from __future__ import annotations

from pathlib import Path

from lorasweep.study.outcomes import State
from lorasweep.study.store import Trial
from lorasweep.tracking.subject import Subject, run_subject, study_identity


def trial(number: int, kind: str = "sampled", **point: object) -> Trial:
    return Trial(number, State.COMPLETE, point, "key", kind)


def study(place: Path) -> Path:
    (place / "trials").mkdir(parents=True)
    return place


def test_trials_have_the_id_of_their_study_and_their_number(tmp_path: Path) -> None:
    identity = study_identity(study(tmp_path / "first"))
    assert identity.id.startswith("first-")
    assert identity == study_identity(tmp_path / "first"), "as long as its folder is there"
    subject = identity.trial(trial(3, x=1, y="a b"))
    assert (subject.id, subject.group, subject.job_type) == (f"{identity.id}-3", "first", "trial")
    assert subject.name == "3-x=1,y=a-b"
    assert subject.folder == tmp_path / "first" / "trials" / "3"
    assert identity.trial(trial(0, "baseline", x=2)).job_type == "baseline"
    assert identity.summary().id == identity.id
    assert identity.summary().job_type == "study"


def test_a_study_that_was_renamed_keeps_its_id_and_group(tmp_path: Path) -> None:
    before = study_identity(study(tmp_path / "first"))
    (tmp_path / "first").rename(tmp_path / "second")
    after = study_identity(tmp_path / "second")
    assert (after.id, after.group) == (before.id, before.group)


def test_studies_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    ids = {study_identity(study(tmp_path / str(place) / "first")).id for place in range(8)}
    assert len(ids) == 8


def test_a_confirmation_is_in_the_group_of_its_study(tmp_path: Path) -> None:
    study(tmp_path / "first")
    identity = study_identity(study(tmp_path / "first" / "confirm"))
    assert identity.id.startswith("first_confirm-")
    subject = identity.trial(trial(0, "enqueued", trial=2, **{"train.seed": 43}))
    assert (subject.group, subject.job_type, subject.name) == ("first", "confirm", "0-trial=2,train.seed=43")
    assert study_identity(study(tmp_path / "confirm")).group == "confirm", "a study may be called that"


def test_a_subject_is_read_back_from_its_message(tmp_path: Path) -> None:
    subject = study_identity(study(tmp_path / "first")).trial(trial(1, **{"lora.r": 8}))
    assert Subject.of(subject.message()) == subject


def test_a_run_is_known_by_the_name_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "2026-01-01_00-00-00_abcd"
    folder.mkdir()
    subject = run_subject(folder)
    assert (subject.id, subject.job_type, subject.group) == (folder.name, "run", None)
