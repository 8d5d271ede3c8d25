"""ls, show and compare on a study that was trained: what they say is what its files and its config say."""

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorasweep import cli
from lorasweep.results import read_json, read_lines

TRIALS = Path("outputs/studies/real/trials")


@pytest.fixture
def lorasweep(
    real_study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What `lorasweep …` prints."""
    monkeypatch.chdir(real_study)

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        return out

    return command


def test_the_study_and_its_trials_are_listed(lorasweep: Callable[..., str]) -> None:
    (study,) = json.loads(lorasweep("ls", "--json"))
    assert (study["name"], study["state"], study["done"], study["total"]) == ("real", "complete", 4, 4)
    trials = json.loads(lorasweep("ls", "outputs/studies/real", "--sort", "name", "--json"))
    assert [trial["name"] for trial in trials] == ["real:0", "real:1", "real:2", "real:3"]
    assert study["best"] == min(trial["best"] for trial in trials)


@pytest.mark.parametrize(("other", "keys", "groups"), [
    ("real:2", ["lora.r"], {}),
    ("real:1", ["scheduler.name", "scheduler.warmup"], {"scheduler": ["constant", "cosine"]}),
])  # fmt: skip
def test_what_the_study_varied_is_what_differs(
    lorasweep: Callable[..., str], other: str, keys: list[str], groups: dict[str, Any]
) -> None:
    known = json.loads(lorasweep("compare", "real:0", other, "--json"))
    assert [item["key"] for item in known["config"] if item["key"] in keys] == [item["key"] for item in known["config"]]
    assert known["config"][0]["key"] == keys[0]
    assert known["groups"] == groups
    assert known["warnings"] == []


def test_the_difference_is_that_of_the_losses_that_were_kept(lorasweep: Callable[..., str]) -> None:
    known = json.loads(lorasweep("compare", "real:0", "real:3", "--json"))
    losses = [read_json(TRIALS / number / "summary.json")["eval/loss"] for number in ("0", "3")]
    (rows,) = known["rows"]
    assert rows["difference"]["mean"] == pytest.approx(losses[1] - losses[0], rel=1e-9)
    assert next(item for item in known["metrics"] if item["name"] == "eval/loss")["values"] == losses
    first = read_lines(TRIALS / "0" / "evaluation.jsonl")[-1]
    changed = rows["changed"][0]
    at = first["rows"].index(changed["row"] - 1)
    assert changed["first"] == first["row_losses"][at] / first["row_tokens"][at]
    assert [tokens for tokens, _ in known["curves"][0]["evaluation"]][-1] == known["runs"][0]["supervised_tokens"]


def test_the_row_that_differs_most_is_shown_by_the_command_that_is_named(lorasweep: Callable[..., str]) -> None:
    out = lorasweep("compare", "real:0", "real:3")
    line = next(line for line in out.splitlines() if line.startswith("lorasweep preview"))
    changed = json.loads(lorasweep("compare", "real:0", "real:3", "--json"))["rows"][0]["changed"][0]
    (shown,) = json.loads(lorasweep(*shlex.split(line)[1:], "--json"))["examples"]
    assert shown["split"] == "eval"
    assert shown["number"] == changed["row"] - 1
    assert shown["supervised"] == changed["tokens"]


def test_the_study_and_its_best_trial_are_shown(lorasweep: Callable[..., str]) -> None:
    assert "4 of 4: 4 complete" in lorasweep("show", "real")
    known = json.loads(lorasweep("show", "real:best", "--json"))
    summary = read_json(Path(known["folder"]) / "summary.json")
    assert known["scores"][0]["tuned"] == summary["eval/loss"]
    assert known["scores"][0]["untuned"] == summary["untuned/eval/loss"]
    assert {item["key"] for item in known["config"]} >= {"lora.dropout", "train.max_steps", "model.name"}
