"""Runs that choose how they are trained so that they fit, and those that cannot."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lorasweep import attention
from lorasweep.device import Device
from lorasweep.memory.batches import largest_batch
from lorasweep.memory.fit import Choice, WontFit, as_on, choices, choose, target
from lorasweep.memory.outlook import look_at_length
from lorasweep.memory.prediction import Moment, Prediction
from lorasweep.record import Launch
from lorasweep.results import read_results
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Run
from lorasweep.steps import build_plan
from lorasweep.study.outcomes import State
from lorasweep.study.training import Training
from lorasweep.study.worker import Job, Reporter
from tests.conftest import problems, tiny
from tests.memory.test_tracing import shaped
from tests.resume.children import Stopper
from tests.test_numerics import train_losses

CPU = Device("cpu", "", 8.0, torch.float32)
H100 = Device.imagined(80.0, (9, 0))


def trained(**values: Any) -> Run:
    """A run with these values in its section `train`."""
    run = tiny()
    for name, value in values.items():
        setattr(run.train, name, value)
    return run


def ways(rows: int = 64, **values: Any) -> set[tuple[int, int, int]]:
    return {(way.batch_size, way.grad_accum, way.every) for way in choices(trained(**values), rows)}


@pytest.mark.parametrize("text", ["16", "16GiB@", "0GiB", "GiB", "16GiB@a100", "-1GiB", "16 GiB"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    (problem,) = problems("model=tiny", f"train.fit='{text}'")
    assert problem.key == "train.fit"
    assert "16GiB@sm75" in problem.allowed


def test_a_limit_is_that_of_the_card_it_names() -> None:
    assert target(trained(fit="15GB"), H100).memory_gib == pytest.approx(13.97, abs=0.01)
    t4 = target(trained(fit="15GiB@sm75"), CPU)
    assert (t4.precision, t4.compute_capability, t4.mixed_precision) == (torch.float16, (7, 5), "fp16")
    assert target(trained(fit="96GiB@sm120"), CPU).compute_capability == (12, 0)
    assert target(trained(fit="16GiB@sm86"), CPU).precision is torch.bfloat16
    assert target(trained(fit="200GiB"), H100).memory_gib == 80


def test_a_card_newer_than_the_one_here_is_refused() -> None:
    with pytest.raises(UserError, match="sm75"):
        target(trained(fit="16GiB@sm80"), Device.imagined(15.0, (7, 5)))


def test_on_a_newer_card_a_run_computes_as_on_the_one_it_is_to_fit() -> None:
    run = trained(fit="15GiB@sm75")
    fitted = as_on(run, target(run, H100), H100)
    assert (fitted.model.dtype, fitted.model.attention) == ("float16", "sdpa")
    assert as_on(run, target(run, CPU), CPU) == run
    run = trained(fit="15GiB")
    assert as_on(run, target(run, Device("cuda", "", 80.0, torch.bfloat16)), H100).model.attention == "auto"


def test_every_way_learns_from_the_same_rows() -> None:
    assert {size * accum for size, accum, _ in ways(batch_size=4, grad_accum=3)} == {12}
    assert {size for size, _, _ in ways(batch_size=4, grad_accum=3)} == {1, 2, 3, 4, 6, 12}
    assert {every for _, _, every in ways()} == {0, 1, 2, 3, 4}
    assert {every for _, _, every in ways(gradient_checkpointing=False)} == {0}
    assert {every for _, _, every in ways(gradient_checkpointing=2)} == {2}
    assert {(size, accum) for size, accum, _ in ways(tokens_per_step=60, rows=9)} == {
        (1, 1),
        (2, 1),
        (4, 1),
        (8, 1),
    }


def test_keeping_activations_and_many_tokens_at_a_time_are_faster() -> None:
    kept, some, again = (Choice(4, 1, every).slowness(1000) for every in (0, 2, 1))
    assert kept < some < again
    assert Choice(8, 1, 0).slowness(1000) < kept
    assert Choice(4, 1, 1).slowness(300) < Choice(1, 4, 0).slowness(300), "launching takes longer than computing again"


def test_the_fastest_way_that_fits_is_taken() -> None:
    run = trained(batch_size=8, fit="16GiB")

    def predicted(run: Run) -> Prediction:
        every = int(run.train.gradient_checkpointing)
        kept = 2**30 * run.train.batch_size * (4 if not every else 2 if every > 1 else 1)
        return Prediction([Moment("backward", {"activations": kept})], 0)

    sizes = {}
    for gib in (40.0, 20.0, 10.0, 5.0, 2.0):
        chosen, prediction = choose(run, Device.imagined(gib, (8, 0)), 8, 1024.0, predicted)
        assert prediction.needed_gib <= gib
        assert chosen.train.batch_size * chosen.train.grad_accum == 8
        again, _ = choose(chosen, Device.imagined(gib, (8, 0)), 8, 1024.0, predicted)
        assert again == chosen, "as a run does that is gone on with"
        sizes[gib] = chosen.train.batch_size, chosen.train.gradient_checkpointing
    assert sizes == {40.0: (8, False), 20.0: (8, 4), 10.0: (8, True), 5.0: (4, True), 2.0: (1, True)}
    with pytest.raises(WontFit, match=r"needs 1\.\d GiB at the least"):
        choose(run, Device.imagined(1.0, (8, 0)), 8, 1024.0, predicted)


def test_the_job_of_the_tutorial_fits_a_t4() -> None:
    options = ("lora=attention", "lora.r=64", "lora.dropout=0.1", "optim=paged_adamw_32bit", "train.batch_size=4")
    found = look_at_length(shaped(*options, "data.eval_fraction=0", "train.fit=15GiB@sm75"), 1024)
    assert found.wont_fit is None
    assert found.engine.layout == attention.Layout("sdpa", False)
    assert found.card.precision is torch.float16
    assert found.prediction.needed_gib < 15
    assert "4 rows in a pass, 1 a step, all layers computed again, float16" in found.words()


def test_a_7b_fits_no_gpu_of_three_gib_whatever_is_chosen() -> None:
    found = look_at_length(shaped("data.eval_fraction=0", "train.fit=3GiB"), 256)
    assert found.wont_fit
    assert "at the least" in found.wont_fit


def test_the_largest_pass_is_that_of_the_longest_rows(tmp_path: Path) -> None:
    from lorasweep.inputs import prepare

    rows = [{"input_ids": [5] * length, "labels": [5] * length} for length in (10, 40, 20, 30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = ("data=jsonl", f"data.files={tmp_path}/rows.jsonl", "data.eval_fraction=0", "train.batch_size=2")
    run = tiny(*base)
    found = prepare(run).splits["train"].rows
    padded, flat = (largest_batch(run, found, None, flat, None) for flat in (False, True))
    assert (padded.rows, padded.length, padded.supervised) == (2, 40, 68)
    assert (flat.rows, flat.length, flat.supervised) == (1, 70, 68)
    assert largest_batch(run, found, None, True, 64).tokens == 100
    planned = tiny(*base, "train.tokens_per_step=40", "train.max_steps=4")
    plan = build_plan(planned.train, found, 0)
    assert largest_batch(planned, found, plan, True, None).tokens <= 70


def test_a_run_that_is_to_fit_says_how_it_is_trained_and_learns_the_same(launched: Callable[..., Path]) -> None:
    common = ("train.max_steps=3", "train.grad_accum=2", "train.batch_size=2", "evaluation.times=0")
    plain, fitted = launched(tiny(*common), "plain"), launched(tiny(*common, "train.fit=12GiB@sm75"), "fitted")
    assert train_losses(fitted) == pytest.approx(train_losses(plain), rel=1e-4)
    kept = yaml.safe_load((fitted / "run.yaml").read_text())["train"]
    assert (kept["batch_size"], kept["grad_accum"], kept["gradient_checkpointing"]) == (4, 1, False)
    memory = json.loads((fitted / "record.json").read_text())["memory"]
    assert memory["card"] == {"name": "sm75", "memory_gib": 12.0}
    assert memory["predicted_gib"] < memory["needed_gib"] < 12
    assert "train.fit=12GiB@sm75: 4 rows in a pass, 1 a step, no layer" in (fitted / "train.log").read_text()
    assert "memory/predicted_gib" in json.loads((fitted / "summary.json").read_text())
    assert "memory" not in json.loads((plain / "record.json").read_text())


def test_a_run_that_is_to_fit_goes_on_as_it_was_begun(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = tiny("train.max_steps=3", "train.grad_accum=2", "train.batch_size=2", "train.fit=12GiB@sm75")
    assert train(run, Launch(folder, []), Stopper(2)).state == "interrupted"
    result = train(replace(read_results(folder).run, resume=str(folder)), Launch(folder, []))
    assert (result.state, result.summary["steps"]) == ("complete", 3)
    assert "memory/predicted_seen_gib" in result.summary


class Quiet(Reporter):
    """Hears nothing."""

    def __init__(self) -> None:
        pass

    def progress(self, step: int, total: int) -> None:
        raise AssertionError("it was trained")

    def at_work(self) -> AbstractContextManager[None]:
        return nullcontext()


def test_a_trial_that_cannot_fit_is_infeasible_before_its_base_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import asdict

    def load(*_: Any) -> Any:
        raise AssertionError("the base was loaded")

    monkeypatch.setattr("lorasweep.run.build_model", load)
    job = Job(tmp_path / "0", 0, asdict(tiny("train.fit=0.2GiB")), [], [], ["objective"], {}, {})
    outcome = Training().train(job, Quiet())
    assert outcome.state is State.OUT_OF_MEMORY
    assert outcome.state.is_infeasible
    assert "at the least" in str(outcome.reason)
    assert json.loads((tmp_path / "0" / "summary.json").read_text())["state"] == "out_of_memory"


def test_a_model_that_cannot_be_looked_at_is_trained_all_the_same(
    launched: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unforeseen(*_: Any) -> Any:
        raise IndexError("no layers")

    monkeypatch.setattr("lorasweep.memory.outlook.build_config", unforeseen)
    with pytest.raises(UserError, match=r"train\.fit[\s\S]*cannot be predicted \(no layers\)"):
        launched(tiny("train.fit=16GiB", "train.max_steps=1"), "fitted")
    monkeypatch.setattr("lorasweep.run.look_ahead", lambda *_: "no layers")
    folder = launched(tiny("train.max_steps=1"), "plain")
    assert "The memory of this model is not predicted: no layers" in (folder / "train.log").read_text()
