"""lorasweep show: one run or one study, finished or not."""

import os
from dataclasses import fields
from pathlib import Path

import pytest

from lorasweep.overview.run import RunOverview
from lorasweep.overview.study import StudyOverview
from lorasweep.record import write_json
from lorasweep.study.folder import OWNER, STUDIES
from lorasweep.study.outcomes import State
from lorasweep.study.reading import SESSION
from tests.looking.conftest import Command
from tests.looking.made import BEFORE, made
from tests.study.test_importance import filled
from tests.study.trials import ended, kept

RUN = Path("outputs/runs/run")
WIDTHS = (80, 120, 160)


def test_a_run_is_shown_with_what_differs_what_it_learnt_and_how_to_go_on(lorasweep: Command):
    made(RUN, [1.0, 1.2, 0.8, 1.0, 1.1, 0.9], lora__r=64, optim__lr=1e-3)
    known = lorasweep("show", "run", "--json").json()
    assert {item["key"]: (item["value"], item["default"]) for item in known["config"]} == {
        "model.name": ("base", None), "lora.r": (64, 16), "optim.lr": (1e-3, 2e-4),
    }  # fmt: skip
    (score,) = known["scores"]
    assert (score["name"], score["untuned"], score["is_better"]) == ("loss", BEFORE, True)
    assert score["interval"]["low"] < score["tuned"] - BEFORE < score["interval"]["high"] < 0
    assert known["data"]["eval"]["kept"] == 6
    assert known["facts"]["memory/peak_gib"] == 1.5
    assert known["curve"]["evaluation"] == [[0, BEFORE], [200, score["tuned"]]]
    assert len(known["curve"]["training"]) == 4
    assert known["adapter"] == str(RUN / "adapter")
    out = lorasweep("show", "run").out
    for words in ("complete", "lora.r", "1.50 GiB at the peak", "100 tokens/s", "python train.py lora.r=8", "−3"):
        assert words in out
    for command in (f"lorasweep evaluate {RUN}", f"lorasweep chat {RUN}", f"lorasweep merge {RUN} merged"):
        assert command in out
    assert f"python train.py --config-dir {RUN} experiment=saved" in out


def test_the_keys_of_the_json_are_the_documented_ones(lorasweep: Command):
    made(RUN)
    assert list(lorasweep("show", "run", "--json").json()) == [field.name for field in fields(RunOverview)]
    kept(STUDIES / "s").close()
    assert list(lorasweep("show", "s", "--json").json()) == [field.name for field in fields(StudyOverview)]


def test_a_failed_run_is_shown_with_its_reason_and_the_end_of_the_traceback(lorasweep: Command):
    facts = {"objective": None, "objective/step": None, "error": "no kernel for this"}
    made(RUN, state="failed", facts=facts)
    lines = [
        "Traceback (most recent call last):",
        *(f"line {number}" for number in range(30)),
        "RuntimeError: no kernel",
    ]
    (RUN / "error.txt").write_text("\n".join(lines))
    known = lorasweep("show", "run", "--json").json()
    assert known["error"] == "no kernel for this"
    assert known["log"][-2:] == ["line 29", "RuntimeError: no kernel"]
    assert "line 0" not in known["log"]
    assert known["adapter"] is None
    assert not any("chat" in command for command in known["commands"].values())
    assert "RuntimeError: no kernel" in lorasweep("show", "run").out


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(lorasweep: Command):
    made(RUN, state=None, steps=3, record={"steps": {"count": 9}})
    known = lorasweep("show", "run", "--json").json()
    assert known["state"] == "unfinished"
    assert known["facts"]["steps"] == 3
    assert known["planned_steps"] == 9
    assert any("it was killed, or runs elsewhere" in words for words in known["warnings"])
    assert "3 of 9, 150 supervised tokens" in lorasweep("show", "run").out


def test_a_run_that_was_killed_before_its_first_step_is_shown(lorasweep: Command):
    made(RUN, state=None)
    for name in ("record.json", "metrics.jsonl", "evaluation.jsonl"):
        (RUN / name).unlink()
    assert lorasweep("show", "run", "--json").json()["scores"] == []
    assert lorasweep("show", "run").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"record": {"data/splits/eval/also_in_train": 2}}, "2 of 6 eval rows are training rows too"),
        ({"scheduler__name": "constant", "scheduler__warmup": 0.1}, "scheduler.warmup=0.1 has no effect"),
        ({"evaluation__generate": 8}, "0 evaluation rows could be asked"),
        ({"facts": {"steps": 9, "last/eval/loss": 1.5}}, "the best evaluation was at step 4 of 9"),
        ({"losses": [5.0] * 6}, "a higher evaluation loss than the untuned one"),
        ({"model__trust_remote_code": True}, "Python code that came with the model ran"),
    ],
)
def test_what_makes_a_run_doubtful_is_said(lorasweep: Command, change: dict[str, object], words: str):
    made(RUN, **change)  # type: ignore[arg-type]
    (warning,) = lorasweep("show", "run", "--json").json()["warnings"]
    assert words in warning
    assert words in lorasweep("show", "run").words


def test_answers_are_shown_without_the_frame_that_all_questions_share(lorasweep: Command):
    frame = "<|start|>system\nYou help.<|end|>\n<|start|>user\n{}<|end|>\n<|start|>assistant\n"
    answers = [(frame.format(f"What is {n} plus 1?"), str(n + 1), "2") for n in (1, 2)]
    made(RUN, answers=answers)
    out = lorasweep("show", "run").out
    assert "\nWhat is 1 plus 1?  " in out
    assert "system" not in out
    assert lorasweep("show", "run", "--json").json()["samples"][0]["untuned"] == "?"


def study(best: float = 1.25, trials: int = 2) -> Path:
    store = kept(STUDIES / "guanaco")
    facts = {"untuned/eval/loss": 4.0, "eval/loss": 1.5}
    ended(store, {"lora.r": 8}, 1.5, "baseline", facts)
    ended(store, {"lora.r": 16}, best, "sampled", facts)
    ended(store, {"lora.r": 99}, State.OUT_OF_MEMORY, reason="no room")
    for number in range(trials - 2):
        ended(store, {"lora.r": 100 + number}, 2.0 + number)
    store.keep(SESSION, {"total": 9, "ended": "hydra.sweeper.timeout=5 s is over"})
    store.close()
    return STUDIES / "guanaco"


def test_a_study_is_shown_with_counts_standings_and_how_to_go_on(lorasweep: Command):
    study()
    known = lorasweep("show", "guanaco", "--json").json()
    assert known["trials"] == {"complete": 2, "out_of_memory": 1}
    assert (known["done"], known["total"], known["left"], known["state"]) == (3, 9, 6, "unfinished")
    assert known["untuned"] == {"trial": None, "values": [4.0]}
    assert known["baseline"] == {"trial": 0, "values": [1.5]}
    assert known["best"] == {"trial": 1, "values": [1.25]}
    assert [row.get("trial") for row in known["leaderboard"]] == [1, 0, None, 2]
    words = lorasweep("show", "guanaco").words
    for expected in (
        "3 of 9, 6 to come: 2 complete, 1 out of memory", "not done: hydra.sweeper.timeout=5 s is over",
        "−0.25 against the baseline", "−2.5 against the untuned", "trial 2 out of memory: no room",
        "lorasweep compare guanaco:baseline guanaco:best", "lorasweep confirm guanaco", "lorasweep promote guanaco",
    ):  # fmt: skip
        assert expected in words


def test_what_made_the_difference_is_shown_where_there_are_enough_trials(lorasweep: Command):
    (STUDIES / "s").mkdir(parents=True)
    filled(STUDIES / "s", "maximize").close()
    done = lorasweep("show", "s", "--json")
    assert list(done.json()["importances"]) == ["optim.lr", "lora.r"]
    assert done.err == ""
    assert "What made the difference" in lorasweep("show", "s").out


def test_a_study_without_trials_is_shown(lorasweep: Command):
    kept(STUDIES / "empty").close()
    assert "no trials yet" in lorasweep("show", "empty").out


def test_a_running_study_is_shown_with_who_runs_it(lorasweep: Command):
    write_json(study() / OWNER, {"pid": os.getppid(), "host": os.uname().nodename})
    out = lorasweep("show", "guanaco").out
    assert f"running  process {os.getppid()}" in out
    assert "lorasweep stop guanaco" in out


def test_a_score_that_falls_below_the_baseline_is_not_called_better(lorasweep: Command):
    store = kept(STUDIES / "s", directions=["maximize"], **{"evaluation.objective": "exact_match"})
    ended(store, {"a": 1}, 0.25, "baseline")
    ended(store, {"a": 2}, 0.75)
    store.close()
    assert lorasweep("show", "s", "--json").json()["best"]["trial"] == 1
    assert "exact_match 0.75 trial 1 +0.5 against the baseline" in lorasweep("show", "s").words


def test_a_trial_that_its_study_ended_is_shown_as_its_study_has_it(lorasweep: Command):
    store = kept(STUDIES / "s")
    ended(store, {"a": 1}, State.HUNG, reason="gave no sign of life for 5 s")
    store.close()
    folder = made(STUDIES / "s" / "trials" / "0", state=None)
    (folder / "log.txt").write_text("File loop.py, line 7, in wait")
    known = lorasweep("show", "s:0", "--json").json()
    assert (known["state"], known["error"]) == ("hung", "gave no sign of life for 5 s")
    assert known["log"] == ["File loop.py, line 7, in wait"]


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_shown_fits_the_terminal_but_for_commands(lorasweep: Command, width: int):
    made(RUN, answers=[("a long question " * 20, "an answer", "another " * 20)] * 2, record={"name": "x" * 300})
    study(trials=12)
    for what in ("run", "guanaco"):
        lines = [
            line for line in lorasweep("show", what, width=width).out.splitlines() if "python train.py" not in line
        ]
        assert max(map(len, lines)) <= width
