"""Several controllers work on one study in a shared database as one would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from optuna.trial import FrozenTrial

from lorasweep.study.candidates import Candidates
from lorasweep.study.outcomes import State
from lorasweep.study.requests import Request, make_request
from lorasweep.study.store import Store, open_store
from lorasweep.study.trial import Trial
from tests.conftest import ROOT
from tests.study.conftest import STUDY
from tests.study.kills import finished_attempts, trained
from tests.study.postgres import PASSWORD, Server, server
from tests.study.sessions import Told, launch, refusal, run, until
from tests.study.toy import toy
from tests.test_docs import SCALE, lines_of, typed

PASSWORD_IN_URL = quote(PASSWORD, safe="")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A server in a folder that its user can reach, which those of pytest are not."""
    place = Path(tempfile.mkdtemp(prefix="lorasweep-postgres-", dir="/tmp"))
    try:
        with server(place) as started:
            yield started
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def url(postgres: Server, request: pytest.FixtureRequest) -> str:
    """The address of a database for one test."""
    return postgres.create(f"test_{abs(hash(request.node.name)) % 10**8}_{os.getpid()}")


@pytest.fixture(autouse=True)
def no_session_outlives_its_test(tmp_path: Path) -> Iterator[None]:
    """End what a test that failed has left running."""
    yield
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if str(tmp_path) in " ".join(process.cmdline()):
                process.kill()


def trials_in(folder: Path, url: str) -> list[Trial]:
    """The trials that a database has of a study."""
    store = open_store(folder, url)
    try:
        return store.trials()
    finally:
        store.close()


def frozen_in(folder: Path, url: str) -> list[FrozenTrial]:
    """The trials that a database has of a study, as Optuna has them."""
    store = open_store(folder, url)
    try:
        return store.frozen()
    finally:
        store.close()


def assert_exact(trials: list[Trial], count: int) -> None:
    """All trials are there, complete, once."""
    print(*trials, sep="\n")
    assert [trial.number for trial in trials] == list(range(count))
    assert {trial.state for trial in trials} == {State.COMPLETE}
    assert len({str(trial.point) for trial in trials}) == count
    assert [trial.kind for trial in trials].count("baseline") == 1
    assert trials[0].kind == "baseline"


@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "folder per host"])
def test_two_controllers_share_a_study_whose_total_is_exact(tmp_path: Path, url: str, shared: bool) -> None:
    folders = [tmp_path / "study"] * 2 if shared else [tmp_path / name / "study" for name in ("a", "b")]
    sessions = [launch(folder, n_trials=20, seconds=0.05, storage=url) for folder in folders]
    ends = [(session.communicate(timeout=180)[0], session.returncode) for session in sessions]
    assert [code for _, code in ends] == [0, 0], ends
    trials = trials_in(folders[0], url)
    assert_exact(trials, 20)
    lines = sum((trained(folder) for folder in set(folders)), start=trained(tmp_path))
    assert len(lines) == sum(lines.values()) == 20


@pytest.mark.slow
def test_killed_controllers_trials_are_run_again_by_the_others_under_their_numbers(tmp_path: Path, url: str) -> None:
    folder, count = tmp_path / "study", 48
    options = {"n_trials": count, "slots": 4, "seconds": 0.1, "storage": url, "lease_seconds": 4.0}
    sessions = [launch(folder, keep_adapters=None, **options) for _ in range(3)]
    for at, session in ((8, sessions[0]), (20, sessions[1])):
        until(lambda at=at: len(list(folder.glob("trials/*/outcome.json"))) >= at, 120.0)
        session.kill()
        session.communicate()
    text, _ = sessions[2].communicate(timeout=300)
    assert sessions[2].returncode == 0, text
    assert_exact(trials_in(folder, url), count)
    assert finished_attempts(folder) == []
    assert {path.parent.name for path in folder.glob("trials/*/adapter")} == {str(number) for number in range(count)}


@pytest.mark.slow
def test_a_server_that_is_killed_is_waited_for_while_trials_go_on(tmp_path: Path, postgres: Server, url: str) -> None:
    folder, count = tmp_path / "study", 24
    options = {"n_trials": count, "seconds": 0.2, "storage": url, "lease_seconds": 5.0}
    sessions = [launch(folder, **options) for _ in range(2)]
    until(lambda: len(list(folder.glob("trials/*/outcome.json"))) >= 6, 120.0)
    postgres.kill()
    try:
        before = len(list(folder.glob("trials/*/outcome.json")))
        until(lambda: len(list(folder.glob("trials/*/outcome.json"))) > before)
        time.sleep(12.0)  # longer than a lease
    finally:
        postgres.start()
    ends = [(session.communicate(timeout=300)[0], session.returncode) for session in sessions]
    assert [code for _, code in ends] == [0, 0], ends
    for text, _ in ends:
        assert text.count("the database does not answer") == text.count("the database answers again") == 1
        assert "taken over" not in text
    assert_exact(trials_in(folder, url), count)
    assert len(trained(folder)) == sum(trained(folder).values()) == count


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["shared folder", "folder per host"])
def test_a_controller_that_was_only_slow_overwrites_nothing(tmp_path: Path, url: str, shared: bool) -> None:
    folders = [tmp_path / "study"] * 2 if shared else [tmp_path / name / "study" for name in ("a", "b")]
    options = {"n_trials": 2, "slots": 1, "storage": url, "lease_seconds": 2.0}
    slow = launch(folders[0], seconds=2.0, **options)
    until(lambda: (folders[0] / "trials" / "0" / "log.txt").exists())
    slow.send_signal(signal.SIGSTOP)
    try:
        other = launch(folders[1], seconds=0.2, **options)
        text, _ = other.communicate(timeout=180)
    finally:
        slow.send_signal(signal.SIGCONT)
    assert other.returncode == 0, text
    late, _ = slow.communicate(timeout=180)
    assert slow.returncode == 0, late
    print(text, late)
    assert "trial 0 was taken over by another controller" in late
    assert_exact(trials_in(folders[1], url), 2)
    assert {frozen.user_attrs["start"]["pid"] for frozen in frozen_in(folders[1], url)} == {other.pid}
    assert not shared or sum(trained(folders[0]).values()) == 2


def test_a_point_that_was_decided_on_before_others_tried_more_is_decided_on_anew(tmp_path: Path, url: str) -> None:
    definition = toy(tmp_path / "study", n_trials=2, storage=url)
    one, other = [Store(url, "study", definition.directions(), definition.space) for _ in range(2)]
    for store in (one, other):
        store.join(3600.0, is_alone=False)
    deciding = [Candidates(definition, store, Told()) for store in (one, other)]
    for candidates in deciding:
        candidates.take_up()
        assert candidates.decide()
    assert deciding[1].begin(0)
    assert deciding[1].decide()
    deciding[0].look()
    assert deciding[0].decide()
    assert deciding[1].begin(1)
    assert deciding[0].begin(0) is None
    assert not deciding[0].decide()
    assert [trial.kind for trial in one.trials()] == ["baseline", "sampled"]
    for store in (one, other):
        store.close()


def test_a_stop_is_for_all_controllers(tmp_path: Path, url: str) -> None:
    folders = [tmp_path / name / "study" for name in ("a", "b")]
    sessions = [launch(folder, n_trials=1000, storage=url, lease_seconds=3.0, seconds=0.05) for folder in folders]
    for folder in folders:
        until(lambda folder=folder: list(folder.glob("trials/*/outcome.json")))
    make_request(folders[0], Request(stop=True))
    ends = [(session.communicate(timeout=120)[0], session.returncode) for session in sessions]
    assert [code for _, code in ends] == [1, 1], ends
    assert all("lorasweep stop" in text for text, _ in ends)
    assert {trial.state for trial in trials_in(folders[0], url)} == {State.COMPLETE}


def test_a_trial_that_is_stopped_is_gone_on_with_by_another_controller(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "study"
    options = {"n_trials": 2, "slots": 1, "storage": url}
    one = launch(folder, seconds=1.0, **options)
    until(lambda: (folder / "trials" / "0" / "log.txt").exists())
    one.send_signal(signal.SIGTERM)
    text, _ = one.communicate(timeout=60)
    assert one.returncode == os.EX_TEMPFAIL, text
    assert [trial.state for trial in trials_in(folder, url)] == [State.INTERRUPTED]
    other = launch(tmp_path / "other" / "study", seconds=0.05, **options)
    text, _ = other.communicate(timeout=60)
    assert other.returncode == 0, text
    assert_exact(trials_in(folder, url), 2)


def test_pruning_goes_by_the_trials_of_all_controllers(tmp_path: Path, url: str) -> None:
    folders = [tmp_path / name / "study" for name in ("a", "b")]
    options = {"pruner": "median", "seconds": 0.02, "slots": 1, "storage": url}
    for folder, count in zip(folders, (6, 16), strict=True):
        session = launch(folder, n_trials=count, **options)
        text, _ = session.communicate(timeout=120)
        assert session.returncode == 0, text
    assert State.PRUNED in {trial.state for trial in trials_in(folders[1], url)[6:]}


def test_what_is_wrong_with_an_address_is_said_without_the_password(
    tmp_path: Path, postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = url.replace(PASSWORD_IN_URL, "another-secret")
    error = str(refusal(toy(tmp_path / "study", storage=wrong)))
    assert "password authentication failed" in error
    assert "another-secret" not in error
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = str(refusal(toy(tmp_path / "study", storage=url)))
    assert "pip install -c constraints.txt -e '.[postgresql]'" in error
    assert PASSWORD_IN_URL not in error
    assert not (tmp_path / "study").exists()


def test_a_password_may_come_from_the_environment(
    tmp_path: Path, postgres: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    bare = url.replace(f":{PASSWORD_IN_URL}", "")
    assert run(toy(tmp_path / "study", n_trials=2, storage=bare))[0] is None
    assert_exact(trials_in(tmp_path / "study", bare), 2)


@pytest.mark.slow
def test_the_commands_about_many_hosts_run_one_after_the_other(tmp_path: Path, url: str) -> None:
    lines = lines_of(SCALE)
    assert len(lines) >= 3
    for line in lines:
        done = typed(line.replace("postgresql+psycopg://sweeper@db.example/studies", url), tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert_exact(trials_in(tmp_path / "outputs" / "studies" / "shared", url), 4)


@pytest.mark.slow
def test_two_hosts_train_real_models_in_one_study_and_write_the_password_nowhere(tmp_path: Path, url: str) -> None:
    overrides = [item for item in STUDY if not item.startswith(("study=", "tracking"))]
    overrides += ["study=real", "tracking.wandb=offline", f"hydra.sweeper.storage={url}", "strategy=grid"]
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    sessions = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *overrides],
            cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for place in places
    ]  # fmt: skip
    texts = [session.communicate(timeout=560)[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], texts
    trials = trials_in(places[0] / "outputs" / "studies" / "real", url)
    assert [trial.state for trial in trials] == [State.COMPLETE] * 4
    secrets = [PASSWORD.encode(), PASSWORD_IN_URL.encode()]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 20
    ids = [json.loads((place / "outputs" / "studies" / "real" / "wandb.json").read_text()) for place in places]
    assert ids[0] == ids[1]
    assert [path for path in files if any(secret in path.read_bytes() for secret in secrets)] == []
    assert not any(secret.decode() in text for secret in secrets for text in texts)
