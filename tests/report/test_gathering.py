"""What a page is made from, gathered from stores and folders."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lorasweep.record import CHECKOUT, write_json
from lorasweep.report import report
from lorasweep.report.configs import differences
from lorasweep.report.details import LONGEST, MOST_LOSSES, answers, row_losses, thinned
from lorasweep.report.gathering import gather
from lorasweep.report.page import render
from lorasweep.report.timeline import timeline
from lorasweep.report.trials import command_again
from lorasweep.results import RunResults
from lorasweep.study.folder import STUDIES
from lorasweep.study.outcomes import State
from lorasweep.study.store import open_store
from lorasweep.study.trial import Trial
from tests.report.odd import HOSTILE, ODD, confirmed, maximised, running, several_objectives
from tests.report.studies import BASELINE, Maker, large
from tests.study.sessions import run
from tests.study.toy import toy
from tests.study.trials import ended, kept


def gathered(folder: Path, beside: Path | None = None) -> dict[str, Any]:
    store = open_store(folder)
    try:
        return gather(store, folder, beside or folder)
    finally:
        store.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large(tmp_path_factory.mktemp("studies") / "alpaca", 12)


def test_trials_come_in_the_order_of_the_leaderboard_with_what_they_tried_and_what_came_of_it(study: Path) -> None:
    data = gathered(study)
    trials = data["trials"]
    assert [trial["rank"] for trial in trials if "rank" in trial] == list(
        range(1, 1 + sum("rank" in t for t in trials))
    )
    losses = [trial["values"][0] for trial in trials if trial["values"]]
    assert losses == sorted(losses)
    baseline = next(trial for trial in trials if trial["kind"] == "baseline")
    assert baseline["point"] == BASELINE
    assert baseline["metrics"]["memory/peak_gib"] > 0
    assert not any(name.startswith("untuned/") for trial in trials for name in trial["metrics"])
    assert data["untuned"]["objective"] == 2.31
    assert data["importances"][0].keys() <= BASELINE.keys()


def test_commands_call_a_study_what_they_find_it_by(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gathered(study)["called"] == str(study)
    monkeypatch.chdir(tmp_path)
    kept(STUDIES / "guanaco").close()
    data = gathered(STUDIES / "guanaco")
    assert (data["called"], data["name"], data["table"]) == ("guanaco", "guanaco", None)


def test_keys_say_how_they_vary(study: Path) -> None:
    keys = {key["key"]: key for key in gathered(study)["keys"]}
    assert (keys["lora.r"]["options"], keys["lora.r"]["name"], keys["lora.r"]["log"]) == (
        [8, 16, 32, 64, 128],
        "r",
        False,
    )
    assert (keys["optim.lr"]["options"], keys["optim.lr"]["log"]) == (None, True)


def test_links_start_from_where_the_page_is(study: Path, tmp_path: Path) -> None:
    (trial,) = (trial for trial in gathered(study)["trials"] if trial["number"] == 0)
    assert (trial["folder"], trial["log"]) == ("trials/0/", "trials/0/log.txt")
    elsewhere = tmp_path / "a b"
    elsewhere.mkdir()
    (trial,) = (trial for trial in gathered(study, elsewhere)["trials"] if trial["number"] == 0)
    assert (elsewhere / trial["log"]).resolve() == (study / "trials" / "0" / "log.txt").resolve()


def test_a_trial_is_run_again_by_its_folder_relative_to_the_checkout_if_it_is_in_it(
    study: Path, tmp_path: Path
) -> None:
    folder = study / "trials" / "0"
    assert command_again(folder) == f"python train.py --config-dir {folder} experiment=saved"
    assert command_again(tmp_path) is None
    inside = CHECKOUT / "outputs" / "a test of links"
    assert not inside.exists()
    (inside / "experiment").mkdir(parents=True)
    try:
        (inside / "experiment" / "saved.yaml").touch()
        assert command_again(inside) == "python train.py --config-dir 'outputs/a test of links' experiment=saved"
    finally:
        (inside / "experiment" / "saved.yaml").unlink()
        (inside / "experiment").rmdir()
        inside.rmdir()


@pytest.mark.parametrize(
    ("address", "shown"),
    [("https://wandb.ai/me/it/runs/alpaca-0", True), ("javascript:alert(1)", False), (None, False)],
)
def test_a_trial_links_to_wandb_where_that_is_known_to_have_it(
    tmp_path: Path, address: str | None, shown: bool
) -> None:
    folder = large(tmp_path / "s", 1)
    record = folder / "trials" / "0" / "record.json"
    write_json(record, json.loads(record.read_text()) | {"wandb_url": address})
    assert gathered(folder)["trials"][0]["wandb"] == (address if shown else None)


def test_a_learning_curve_begins_with_the_untuned_model_and_ends_where_its_trial_did(tmp_path: Path) -> None:
    store = kept(tmp_path / "s")
    number = store.create({}, "a", "sampled")
    for tokens, value in ((200, 1.5), (100, 2.0), (300, 1.0)):  # 300: of an attempt that was interrupted later
        store.report(number, tokens, value)
    store.finish(number, State.PRUNED, None, {"facts": {"tokens/supervised": 200, "untuned/eval/loss": 3.0}})
    ended(store, {}, 1.0)
    store.close()
    curves = {trial["number"]: trial["curve"] for trial in gathered(tmp_path / "s")["trials"]}
    assert curves == {0: [[0, 3.0], [100, 2.0], [200, 1.5]], 1: []}


def test_what_json_does_not_know_is_null(tmp_path: Path) -> None:
    store = kept(tmp_path / "s")
    ended(
        store, {"optim.lr": math.inf}, State.DIVERGED, "sampled", {"objective": math.inf, "memory/peak_gib": math.nan}
    )
    store.close()
    (trial,) = gathered(tmp_path / "s")["trials"]
    assert (trial["reached"], trial["metrics"]["memory/peak_gib"], trial["point"]["optim.lr"]) == (None, None, None)


def begun(number: int, slot: int | None, start: float, end: float | None, state: State = State.COMPLETE) -> Trial:
    first = datetime(2026, 1, 5)
    ends = None if end is None else first + timedelta(seconds=end)
    return Trial(number, state, {}, "", "sampled", slot=slot, started=first + timedelta(seconds=start), ended=ends)


def test_time_without_trials_is_left_out_of_the_timeline() -> None:
    found = timeline([begun(0, 0, 0, 100), begun(1, 1, 10, 60), begun(2, 0, 5000, 5100)], None)
    assert found
    assert [(bar["trial"], bar["slot"], bar["begin"], bar["end"]) for bar in found["bars"]] == [
        (0, 0, 0, 100), (1, 1, 10, 60), (2, 0, 104, 204),
    ]  # fmt: skip
    assert found["gaps"] == [{"at": 100.0, "width": 4.0, "seconds": 4900.0}]
    assert found["length"] == 204


def test_trials_without_a_slot_or_an_end_are_not_on_the_timeline() -> None:
    first = datetime(2026, 1, 5).timestamp()
    trials = [
        begun(0, 0, 0, 10),
        begun(1, None, 0, 5),
        begun(2, 1, 2, None, State.RUNNING),
        begun(3, 1, 2, None, State.INTERRUPTED),
    ]
    found = timeline(trials, first + 8)
    assert found
    assert [(bar["trial"], bar["end"]) for bar in found["bars"]] == [(0, 10), (2, 8)]
    assert timeline([begun(0, None, 0, 5)], None) is None


def test_configs_are_told_apart_by_what_they_do_not_share() -> None:
    found = differences({
        3: {"name": "3-x", "lora.r": 8, "lora.target_modules": ["q"], "optim.lr": 0.1},
        4: {"name": "4-y", "lora.r": 8, "lora.target_modules": ["q", "v"], "scheduler.kwargs.a": 1, "optim.lr": 0.1},
    })  # fmt: skip
    assert found == {
        "shared": {"lora.r": 8, "optim.lr": 0.1},
        "own": {3: {"lora.target_modules": ["q"]}, 4: {"lora.target_modules": ["q", "v"], "scheduler.kwargs.a": 1}},
    }
    assert differences({}) == {"shared": {}, "own": {}}


class Kept(RunResults):
    """Results whose evaluations are given, not read."""

    def __init__(self, *evaluations: dict[str, Any]) -> None:
        super().__init__(Path("nowhere"), {}, {}, {"objective/step": evaluations[-1]["step"]})
        self.__dict__["evaluations"] = list(evaluations)


def evaluation(step: int, losses: list[float], answer: str | None = None, prompt: str = "q") -> dict[str, Any]:
    given = (
        []
        if answer is None
        else [{"prompt": prompt, "expected": "e", "generated": answer, "scores": {"exact_match": 1.0}, "row": 3}]
    )
    return {
        "step": step,
        "row_losses": losses,
        "row_tokens": [2] * len(losses),
        "rows": list(range(len(losses))),
        "answers": given,
    }


def test_losses_are_those_of_the_kept_adapter_on_the_same_rows() -> None:
    runs = {
        1: Kept(evaluation(0, [9.0, 8.0]), evaluation(5, [1.0, 2.0])),
        2: Kept(evaluation(5, [3.0, 4.0])),
        7: Kept(evaluation(5, [1.0])),
    }
    assert row_losses(runs) == {
        "numbers": [0, 1],
        "tokens": [2, 2],
        "untuned": [9.0, 8.0],
        "losses": {1: [1.0, 2.0], 2: [3.0, 4.0]},
    }
    assert row_losses({}) is None


def test_of_many_rows_fewer_trials_are_shown_and_always_two() -> None:
    long = [1.0] * (MOST_LOSSES // 3)
    found = row_losses({number: Kept(evaluation(5, long)) for number in range(5)})
    assert found
    assert list(found["losses"]) == [0, 1, 2]
    found = row_losses({number: Kept(evaluation(5, long * 4)) for number in range(5)})
    assert found
    assert list(found["losses"]) == [0, 1]


def test_answers_stand_beside_those_of_the_untuned_model_and_long_ones_lose_their_middle() -> None:
    long = "a" * LONGEST + "END"
    found = answers(
        {3: Kept(evaluation(0, [1.0], "before"), evaluation(5, [1.0], long)), 4: Kept(evaluation(5, [1.0]))}
    )
    assert found
    assert found["questions"] == [{"row": 3, "prompt": "q", "inner": "q", "expected": "e"}]
    assert [item["text"] for item in found["untuned"]] == ["before"]
    assert list(found["given"]) == [3]
    text = found["given"][3][0]["text"]
    assert text.endswith("END")
    assert len(text) < LONGEST + 10
    assert answers({4: Kept(evaluation(5, [1.0]))}) is None


def test_a_long_training_curve_is_averaged() -> None:
    points = [(float(step), float(step % 2)) for step in range(1000)]
    short = thinned(points)
    assert len(short) == 100
    assert {loss for _, loss in short} == {0.5}
    assert thinned(points[:3]) == points[:3]


def test_details_are_those_of_the_first_trials_and_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorasweep.report.gathering.MOST_DETAILED", 2)
    maker = Maker(tmp_path / "s")
    maker.trial({**BASELINE, "optim.lr": 1e-3}, "baseline")
    for rate in (2e-4, 3e-4, 4e-4):
        maker.trial({**BASELINE, "optim.lr": rate})
    data = gathered(maker.close())
    shown = {str(trial["number"]) for trial in data["trials"][:2]} | {"0"}
    assert set(data["rows"]["losses"]) == set(data["answers"]["given"]) == set(data["training"]) == shown
    assert len(data["configs"]["own"]) == 4
    assert data["detailed"] == 3


def test_the_noise_is_what_confirm_has_written(tmp_path: Path) -> None:
    found = gathered(confirmed(tmp_path / "s"))["confirmed"]
    assert (found["seeds"], found["inside_noise"]) == ([43, 44, 45], True)
    assert "inside the noise" in found["verdict"]
    first = found["candidates"][0]
    assert first["mean"] == pytest.approx(sum(first["values"]) / 3)
    assert gathered(confirmed(tmp_path / "t", inside_noise=False))["confirmed"]["inside_noise"] is False
    assert found["test"]["winner/metrics"]["eval/loss"] == 1.1


def test_trials_run_as_long_as_something_runs_them(tmp_path: Path) -> None:
    folder = running(tmp_path / "s")
    data = gathered(folder)
    assert str(os.getppid()) in data["running"]
    assert [trial["state"] for trial in data["trials"]].count("running") == 2
    (folder / "controller.json").unlink()
    data = gathered(folder)
    assert data["running"] is None
    assert [trial["state"] for trial in data["trials"]].count("interrupted") == 2


def test_several_objectives_keep_their_names_and_directions(tmp_path: Path) -> None:
    data = gathered(several_objectives(tmp_path / "s"))
    assert [(item["name"], item["maximised"]) for item in data["objectives"]] == [
        ("loss", False), ("memory/peak_gib", False), ("train/seconds", False),
    ]  # fmt: skip
    assert len(data["importances"]) == 3
    assert any(trial["front"] for trial in data["trials"] if trial["values"])
    assert gathered(maximised(tmp_path / "m"))["objectives"] == [
        {"key": "objective", "name": "exact_match", "maximised": True}
    ]


@pytest.mark.parametrize("make", ODD)
def test_every_odd_study_becomes_a_page_that_is_whole_in_itself(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "s")
    page = report(folder, folder / "report.html")
    text = page.read_text()
    head, _, rest = text.partition('<script type="application/json" id="data">')
    data, end, script = rest.partition("</script>")
    assert json.loads(data)["trials"] == gathered(folder)["trials"]
    assert end
    assert script.count("</script>") == 1
    assert "<script" not in head
    for part in (head, script):
        assert not any(word in part for word in ("src=", "@import", "url(http", "fetch(", "<link"))
    assert [path.name for path in folder.iterdir() if path.name.startswith(".report")] == []


def test_no_value_can_end_the_script_that_holds_it() -> None:
    data = {"name": HOSTILE, "value": HOSTILE}
    text = render(data)
    assert text.count("</script>") == 2
    assert HOSTILE not in text
    assert "&lt;/script&gt;" in text.partition("</title>")[0]
    kept_text = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(kept_text) == data


def test_a_study_of_the_engine_shows_where_and_when_its_trials_ran(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    reason, _ = run(toy(folder, n_trials=4, slots=2, faults={2: "kill once"}))
    assert reason is None
    data = gathered(folder)
    bars = {bar["trial"]: bar for bar in data["timeline"]["bars"]}
    assert sorted(bars) == [0, 1, 2, 3]
    assert {bar["slot"] for bar in bars.values()} <= {0, 1}
    assert all(0 <= bar["begin"] <= bar["end"] <= data["timeline"]["length"] for bar in bars.values())
    assert all(len(trial["curve"]) == 4 for trial in data["trials"])
    # of the trial that was run again the second attempt: its first began before trial 1 or 0 ended
    store = open_store(folder)
    trial = store.trial(2)
    assert trial.started
    assert trial.started > store.frozen()[2].datetime_start
    store.close()
