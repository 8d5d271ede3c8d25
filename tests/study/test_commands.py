"""lorasweep add, stop and promote as a user types them."""

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lorasweep import cli
from lorasweep.record import claim, write_json
from lorasweep.study.folder import OWNER, STUDIES, controller_of, find_study
from lorasweep.study.outcomes import State
from lorasweep.study.requests import take_requests
from lorasweep.study.session import run_session
from lorasweep.study.view import Lines
from tests.conftest import composed
from tests.study.toy import toy
from tests.study.trials import ended, kept

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study called guanaco below outputs/studies of the working directory, which nothing runs."""
    monkeypatch.chdir(tmp_path)
    store = kept(STUDIES / "guanaco")
    ended(store, {"lora.r": 8}, 1.0, "baseline")
    ended(store, {"lora.r": 9}, State.PRUNED)
    store.close()
    return tmp_path / STUDIES / "guanaco"


@pytest.fixture
def lorasweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`lorasweep …`: its exit code and all that it prints."""

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return command


def owned(study: Path, pid: int, host: str = socket.gethostname()) -> None:
    write_json(study / OWNER, {"pid": pid, "host": host})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["add", "guanac", "lora.r=48"], "did you mean 'guanaco'?"),
     (["stop", "nowhere"], "the folder of a study, or a name below outputs/studies. The latest there: guanaco"),
     (["promote", "guanaco", "--trial", "1"], "a complete trial; this one is pruned, the best are 0"),
     (["promote", "guanaco", "--trial", "7"], "the best are 0"),
     (["add", "guanaco"], "Missing argument"),
     (["add", "guanaco", "lora.rr=48"], "did you mean 'r'?"),
     (["add", "guanaco", "lora.r=0"], "at least 1"),
     (["add", "guanaco", "lora.r=8,16"], "one value"),
     (["add", "guanaco", "scheduler=cosin"], "did you mean 'cosine'?"),
     (["add", "guanaco", "hydra.run.dir=x"], "that can differ between trials"),
     (["add", "guanaco", "tracking.project=x"], "that can differ between trials"),
     (["add", "guanaco", "~lora.r"], "that can differ between trials"),
     (["add", "guanaco", "lora.r=48", "optim.lr=fast"], "a finite number")],
)  # fmt: skip
def test_mistakes_are_said_in_words_and_nothing_is_left_for_the_study(
    study: Path, lorasweep: Command, arguments: list[str], words: str
) -> None:
    code, printed = lorasweep(*arguments)
    assert code == 2
    assert words in printed
    assert "Traceback" not in printed
    assert not (study / "requests").exists()


def test_added_values_wait_for_the_study_or_go_to_what_runs_it(study: Path, lorasweep: Command) -> None:
    code, printed = lorasweep("add", "guanaco", "lora.r=48", "lora.target_modules=[q_proj]", "scheduler=cosine")
    assert (code, "when the study next runs" in printed) == (0, True)
    (request,) = take_requests(study)
    assert request.point == {"lora.r": 48, "lora.target_modules": ["q_proj"], "scheduler": "cosine"}
    owned(study, os.getppid())
    assert "is taken up now, by process" in lorasweep("add", str(study), "lora.r=48")[1]


def test_values_with_which_trials_could_not_be_compared_are_refused(study: Path, lorasweep: Command) -> None:
    claim(study / "trials" / "0", composed("model=tiny"))
    assert lorasweep("add", "guanaco", "lora.r=48")[0] == 0
    code, printed = lorasweep("add", "guanaco", "data.max_length=64")
    assert (code, "judged on other rows" in printed) == (2, True)


def test_a_group_of_a_folder_of_ones_own_can_be_added(study: Path, lorasweep: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "lora").mkdir(parents=True)
    (tmp_path / "mine" / "lora" / "wide.yaml").write_text("r: 99\n")
    assert lorasweep("add", "guanaco", "lora=wide")[0] == 2
    assert lorasweep("add", "guanaco", "lora=wide", "--config-dir", "mine")[0] == 0


def test_a_study_that_nothing_runs_is_not_stopped_the_next_time(study: Path, lorasweep: Command) -> None:
    assert "nothing runs it now" in lorasweep("stop", "guanaco")[1]
    assert not (study / "requests").exists()


def test_a_running_study_is_asked_to_stop(study: Path, lorasweep: Command) -> None:
    owned(study, os.getppid())
    assert "starts no more trials" in lorasweep("stop", "guanaco")[1]
    (request,) = take_requests(study)
    assert request.stop


def test_a_controller_counts_as_long_as_its_process_lives(study: Path) -> None:
    assert controller_of(study) is None
    owned(study, os.getppid())
    assert str(os.getppid()) in str(controller_of(study))
    os.utime(study / OWNER, (1, 1))  # written before the process of that number began
    assert controller_of(study) is None
    owned(study, 2**22 + 1)
    assert controller_of(study) is None
    owned(study, 1, "elsewhere")
    assert controller_of(study) == "process 1 on elsewhere"
    (study / OWNER).write_text("{")
    assert controller_of(study) is None


def test_a_study_is_found_by_its_folder_and_by_its_name(study: Path) -> None:
    assert find_study("guanaco").resolve() == find_study(str(study)).resolve() == study


def test_a_point_left_for_a_study_is_tried_when_it_next_runs(tmp_path: Path) -> None:
    definition = toy(tmp_path / "s", n_trials=1, slots=1)
    view = Lines(Console(quiet=True))
    run_session(definition, view)
    (tmp_path / "s" / "requests").mkdir(exist_ok=True)
    (tmp_path / "s" / "requests" / "1.json").write_text(json.dumps({"stop": False, "point": {"x": 0.25}}))
    run_session(definition, view)
    assert "0.25" in (tmp_path / "s" / "leaderboard.csv").read_text()
