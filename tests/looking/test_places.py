"""What runs and studies are called on a command line."""

from pathlib import Path

import pytest

from lorasweep.places import NamedRun, find, find_run
from lorasweep.rules import UserError
from lorasweep.study.folder import STUDIES
from lorasweep.study.outcomes import State
from lorasweep.study.reading import KeptStudy
from tests.looking.made import made
from tests.study.trials import ended, kept


@pytest.fixture
def study(here: Path) -> Path:
    """A study of a baseline, a better trial, and one that never began."""
    store = kept(STUDIES / "guanaco")
    for number, loss in enumerate((1.5, 1.25)):
        ended(store, {"lora.r": number}, loss, "sampled" if number else "baseline")
        made(STUDIES / "guanaco" / "trials" / str(number), [loss] * 6)
    ended(store, {"lora.r": 7}, State.REFUSED, reason="it contradicts itself\nin two ways")
    store.close()
    return here / STUDIES / "guanaco"


@pytest.mark.parametrize(
    ("given", "name"),
    [("guanaco:1", "guanaco:1"), ("guanaco:best", "guanaco:1"), ("guanaco:baseline", "guanaco:0"),
     ("outputs/studies/guanaco:best", "guanaco:1"), ("outputs/studies/guanaco/trials/0", "guanaco:0")],
)  # fmt: skip
def test_a_trial_is_found_by_its_number_by_what_it_is_and_by_its_folder(study: Path, given: str, name: str):
    found = find_run(given)
    assert found.name == name
    assert found.folder.resolve() == study / "trials" / name[-1]
    assert found.trial
    assert found.trial.number == int(name[-1])


def test_a_run_is_found_by_its_name_and_by_its_folder(here: Path):
    made(Path("outputs/runs/2026"))
    made(Path("elsewhere/mine"))
    assert find_run("2026").folder.resolve() == find_run("outputs/runs/2026").folder.resolve()
    assert find_run("outputs/runs/2026").name == "2026"
    assert find_run("elsewhere/mine").name == "elsewhere/mine"


def test_what_is_shown_can_be_a_study_or_a_run(study: Path):
    assert isinstance(find("guanaco"), KeptStudy)
    assert isinstance(find(str(study)), KeptStudy)
    assert isinstance(find("guanaco:0"), NamedRun)


@pytest.mark.parametrize(
    ("given", "words"),
    [("guanac:1", "did you mean 'guanaco'?"),
     ("guanaco:7", "a trial of guanaco: 0 to 2, best or baseline"),
     ("guanaco:bets", "did you mean 'best'?"),
     ("guanaco:2", "2 has none, it is refused: it contradicts itself"),
     ("guanaco", "a run; this is a study, whose trials are guanaco:0"),
     ("202", "did you mean '2026'?"),
     ("nothing-like-it", "The latest runs: 2026; studies: guanaco"),
     ("outputs", "a run folder, which holds run.yaml")],
)  # fmt: skip
def test_what_is_no_run_is_said_with_the_nearest_and_the_latest(study: Path, given: str, words: str):
    made(Path("outputs/runs/2026"))
    with pytest.raises(UserError) as caught:
        find_run(given)
    assert words in str(caught.value)


def test_a_study_without_baseline_or_complete_trial_says_so(here: Path):
    kept(STUDIES / "empty").close()
    for which in ("best", "baseline"):
        with pytest.raises(UserError, match="this one has none"):
            find_run(f"empty:{which}")
