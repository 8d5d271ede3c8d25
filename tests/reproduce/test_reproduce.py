"""A run made again: compared while it trains, and judged."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lorasweep import push, reproduce, saved
from lorasweep.lean_trainer import LeanTrainer
from lorasweep.record import Launch
from lorasweep.reproduce import Reproduction, written
from lorasweep.reproduce.console import Reporter
from lorasweep.reproduce.steps import Steps
from lorasweep.reproduce.verdict import Verdict
from lorasweep.results import read_json
from lorasweep.run import train
from tests.after.conftest import Done
from tests.conftest import tiny
from tests.looking.made import made
from tests.reproduce.conftest import Recorded, edited
from tests.resume.children import Stopper
from tests.study.trials import ended, kept


def again(given: Path | str, out: Path, *overrides: str, said: io.StringIO | None = None) -> tuple[Reproduction, str]:
    """Reproduce a run into a folder; what came of it, and what was said, which can be looked at meanwhile."""
    said = said or io.StringIO()
    reporter = Reporter(Console(file=said, width=160, highlight=False))
    known = reproduce.check(str(given), ["verbosity=quiet", *overrides], out)
    reporter.check(known)
    done = reproduce.reproduce(known, list(overrides), reporter)
    written.keep(done)
    reporter.result(done)
    return done, said.getvalue()


def test_a_run_is_reproduced_exactly_from_another_working_directory(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done, said = again(recorded.folder, tmp_path / "again")
    assert done.judgement.verdict is Verdict.EXACT, said
    assert done.judgement.reasons == []
    assert set(done.judgement.digests) == {"adapter", "parameters", "optimizer", "order"}
    assert len(done.steps.compared) == 5, "the untuned model, and four steps"
    assert done.facts.drift == done.facts.unchecked == []
    result = read_json(tmp_path / "again" / "reproduction.json")
    assert (result["verdict"], result["steps"]["first"]) == ("exact", [])
    lineage = read_json(tmp_path / "again" / "record.json")["lineage"]["reproduces"]
    assert lineage["folder"] == str(recorded.folder)


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_planted_difference_is_found_at_its_step(
    step: int, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = LeanTrainer.training_step, iter(range(1, 100))
    said, told = io.StringIO(), []

    def otherwise(self: Any, model: Any, inputs: Any, *more: Any, **options: Any) -> torch.Tensor:
        told.append("The first difference" in said.getvalue())
        loss: torch.Tensor = original(self, model, inputs, *more, **options)
        if next(calls) == step:
            for value in model.parameters():
                if value.grad is not None:
                    value.grad *= 1.001
        return loss

    monkeypatch.setattr(LeanTrainer, "training_step", otherwise)
    done, _ = again(recorded.folder, tmp_path / "again", said=said)
    assert told == [number > step + 1 for number in (1, 2, 3, 4)], "one step later, and before the last one is taken"
    assert done.steps.first[0].step == step
    assert done.steps.first[0].name == "train/grad_norm"
    assert said.getvalue().count(f"The first difference is at step {step}: train/grad_norm") == 1
    assert done.judgement.verdict is Verdict.EQUIVALENT
    assert done.judgement.metric
    assert abs(done.judgement.metric.now - done.judgement.metric.before) < done.judgement.metric.band
    assert "nothing that is recorded" in " ".join(done.judgement.reasons)
    assert {"another adapter", "another optimizer"} <= set(done.judgement.reasons)
    assert "another order" not in done.judgement.reasons


def test_other_rows_are_said_once_they_are_loaded_and_nothing_can_be_compared(
    recorded: Recorded, tmp_path: Path
) -> None:
    with edited(recorded.data / "rows.jsonl", lambda rows: rows.replace(b"What is", b"What was")):
        done, said = again(recorded.folder, tmp_path / "again")
    names = [item.name for item in done.facts.drift]
    assert names == ["data file rows.jsonl", "rows of train"]
    assert done.judgement.verdict is Verdict.INCOMPARABLE
    assert done.judgement.reasons[0] == "another input: data file rows.jsonl, rows of train"
    assert "rows of train" in said


def test_another_file_that_makes_the_same_rows_changes_nothing(recorded: Recorded, tmp_path: Path) -> None:
    with edited(recorded.data / "rows.jsonl", lambda rows: rows + b"\n"):
        done, _ = again(recorded.folder, tmp_path / "again")
    assert [item.name for item in done.facts.drift] == ["data file rows.jsonl"]
    assert done.judgement.verdict is Verdict.EXACT


def test_the_same_by_other_means_is_equivalent(recorded: Recorded, tmp_path: Path) -> None:
    done, _ = again(recorded.folder, tmp_path / "again", "model.attention=eager")
    assert done.judgement.verdict is Verdict.EQUIVALENT, done.judgement
    assert "model.attention" in done.judgement.reasons[1]


def test_another_option_makes_another_run(recorded: Recorded, tmp_path: Path) -> None:
    done, _ = again(recorded.folder, tmp_path / "again", "optim.lr=1e-3", "train.log_every=2")
    assert done.judgement.verdict is Verdict.INCOMPARABLE
    assert done.judgement.reasons[0] == "another input: optim.lr"


def test_what_was_pushed_is_reproduced(recorded: Recorded, tmp_path: Path) -> None:
    place = tmp_path / "pushed"
    push.dry_run(saved.open_run(recorded.folder), recorded.folder, "me/it", None, place)
    here = [f"data.files={recorded.data}/rows.jsonl", f"data.eval_files={recorded.data}/held.jsonl"]
    here += [f"model.name={recorded.model}", f"model.chat_template={recorded.data.parent}/mine.jinja"]
    known = reproduce.check(str(place), here)
    assert known.facts.drift == []
    assert "package torch" not in known.facts.unknown
    done, _ = again(place, tmp_path / "again", *here)
    assert done.judgement.verdict is Verdict.EXACT, done.judgement
    assert len(done.steps.compared) == 5
    for text in (str(tmp_path), str(recorded.folder.parent), "wandb"):
        assert text not in (place / "record.json").read_text().replace('"wandb"', "")


def test_a_run_that_was_interrupted_is_compared_as_far_as_it_went(tmp_path: Path) -> None:
    run = tiny("train.max_steps=4", "optim.lr=2e-2")
    assert train(run, Launch(tmp_path / "run", []), Stopper(2)).state == "interrupted"
    done, _ = again(tmp_path / "run", tmp_path / "again")
    assert done.judgement.verdict is Verdict.EXACT
    assert done.steps.compared == {0, 1, 2}


@pytest.mark.slow
def test_a_run_that_was_gone_on_with_is_reproduced_by_one_that_was_not(tmp_path: Path) -> None:
    run = tiny("train.max_steps=4", "optim.lr=2e-2", "train.grad_accum=2", "lora.dropout=0.1")
    train(run, Launch(tmp_path / "run", []), Stopper(2))
    assert train(replace(run, resume=str(tmp_path / "run")), Launch(tmp_path / "run", [])).state == "complete"
    done, _ = again(tmp_path / "run", tmp_path / "again")
    assert done.judgement.verdict is Verdict.EXACT, done.judgement


@pytest.mark.slow
def test_a_trial_that_was_pruned_is_reproduced_to_where_it_was(tmp_path: Path) -> None:
    class Pruner(Stopper):
        def stopping(self) -> bool:
            return False

        def report(self, step: int, tokens: int, value: float) -> bool:
            return step < 2

    run = tiny("train.max_steps=4", "evaluation.times=2")
    assert train(run, Launch(tmp_path / "run", []), Pruner(0)).state == "pruned"
    done, _ = again(tmp_path / "run", tmp_path / "again")
    assert done.judgement.verdict is Verdict.EXACT, done.judgement
    assert set(done.judgement.digests) == {"parameters", "optimizer", "order"}


def test_a_trial_is_found_by_its_number(recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "outputs" / "studies" / "ranks"
    store = kept(study)
    number = ended(store, {"lora.r": 16}, 1.0)
    store.close()
    shutil.copytree(recorded.folder, study / "trials" / str(number))
    assert reproduce.check(f"ranks:{number}", []).facts.drift == []
    assert reproduce.check("ranks:best", []).name == f"ranks:{number}"


def test_other_hardware_and_a_loss_beyond_the_band_is_another_result(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b", (1.2,) * 6, record={"packages/torch": "3"})
    made(tmp_path / "c", (1.004,) * 6, record={"packages/torch": "3"})
    for name in "abc":
        shutil.rmtree(tmp_path / name / "adapter")
    different, near = (reproduce.compare(str(tmp_path / "a"), str(tmp_path / name)).judgement for name in "bc")
    assert different.verdict is Verdict.DIFFERENT
    assert "beyond 0.01 of each other" in different.reasons[0]
    assert near.verdict is Verdict.EQUIVALENT
    assert near.reasons[1] == "what is another: package torch"


def test_a_run_that_did_not_end_is_not_judged(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b", state="out_of_memory", facts={"error": "too large"})
    judgement = reproduce.compare(str(tmp_path / "a"), str(tmp_path / "b")).judgement
    assert judgement.verdict is Verdict.UNFINISHED
    assert judgement.reasons == ["it is out_of_memory: too large"]


def test_a_run_that_ends_otherwise_is_another_result(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b", state="diverged")
    judgement = reproduce.compare(str(tmp_path / "a"), str(tmp_path / "b")).judgement
    assert judgement.verdict is Verdict.DIFFERENT
    assert judgement.reasons == ["it ended diverged, not complete"]


def test_the_adapter_of_an_older_run_is_compared_by_its_file(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    summary = read_json(run.folder / "summary.json")
    del summary["digests"]
    (run.folder / "summary.json").write_text(json.dumps(summary))
    judgement = reproduce.compare(str(run.folder), str(recorded.folder)).judgement
    assert judgement.verdict is Verdict.EXACT
    assert list(judgement.digests) == ["adapter"]


def test_the_step_is_told_at_once_and_once() -> None:
    steps = Steps.of([{"step": 1, "train/loss": 1.0, "seconds": 3}, {"step": 2, "train/loss": 0.5}])
    assert steps.take([{"step": 1, "train/loss": 1.0, "seconds": 9}]) == []
    (found,) = steps.take([{"step": 2, "train/loss": 0.75}])
    assert str(found) == "step 2: train/loss 0.5 -> 0.75, by 0.25 (5.0e-01 of it)"
    assert steps.take([{"step": 3, "train/loss": 1.0}]) == []


def test_what_is_no_number_is_the_same_as_itself_alone() -> None:
    steps = Steps.of([{"step": 1, "train/loss": float("nan"), "train/grad_norm": 1.0}])
    (found,) = steps.take([{"step": 1, "train/loss": float("nan"), "train/grad_norm": float("inf")}])
    assert json.loads(json.dumps(found.values(), allow_nan=False))["now"] == "inf"


def test_the_command_says_what_it_does(recorded: Recorded, lorasweep: Callable[..., Done], tmp_path: Path) -> None:
    done = lorasweep("reproduce", str(recorded.folder), "--check")
    assert done.code == 0, done.err
    assert "exact: nothing that is known is another" in done.out
    done = lorasweep("reproduce", str(recorded.folder), "--check", "--json", "optim.lr=1e-3")
    assert done.code == 1
    assert json.loads(done.out)["expected"] == "not comparable"
    done = lorasweep("reproduce", str(recorded.folder), "--out", "again", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["verdict"] == "exact"
    assert (tmp_path / "again" / "adapter").is_dir()
    done = lorasweep("reproduce", str(recorded.folder), "--with", "again")
    assert done.code == 0
    assert "verdict  exact" in done.out
    done = lorasweep("reproduce", str(recorded.folder), "--out", "again")
    assert done.code == 2
    assert "this one holds another run" in done.err


@pytest.mark.parametrize(("arguments", "words"), [
    (["nowhere"], "RUN = 'nowhere'"), (["{run}", "optm.lr=1"], "did you mean 'optim'"),
    (["{run}", "experiment=smoke"], "left out"), (["{run}", "hydra.run.dir=x"], "left out"),
    (["{run}", "data.files=gone.jsonl"], "an existing file"), (["{run}", "--with", "{run}", "--check"], "used alone"),
])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_made(
    arguments: list[str], words: str, recorded: Recorded, lorasweep: Callable[..., Done], tmp_path: Path
) -> None:
    done = lorasweep("reproduce", *(item.format(run=recorded.folder) for item in arguments))
    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.iterdir()) == []
