"""Runs over rows that are read as they come: the same adapter as over rows prepared before, killed and gone on or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from lorasweep import trainer
from lorasweep.data import build_datasets
from lorasweep.device import Device
from lorasweep.memory.outlook import Outlook, look_ahead
from lorasweep.model import build_tokenizer
from lorasweep.record import Launch
from lorasweep.resident import Resident
from lorasweep.results import read_json
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Run
from lorasweep.stream_steps import choose_plan
from lorasweep.watched_trainer import WatchedTrainer
from tests.conftest import composed
from tests.resume.children import Kill, Stopper, differing, killed, left_by, tell_the_end
from tests.streaming.files import numbered, written

Train = Callable[..., Path]
STREAMED = ("data.streaming=true", "data.shuffle_buffer=100")


def run_over(files: Path, *overrides: str) -> Run:
    """A run of the tiny model over files of numbered rows."""
    return composed(
        "model=tiny", "data=jsonl", f"data.files={files}", "data.format=completion", "data.max_length=32",
        "lora.dropout=0.1", "evaluation.generate=0", "evaluation.times=2", "tracking.wandb=disabled", "verbosity=quiet",
        *overrides,
    )  # fmt: skip


def learnt(folder: Path) -> dict[str, object]:
    """Hashes of what a run has learnt and from which batches, and how its evaluations went."""
    summary = read_json(folder / "summary.json")
    scores = [json.loads(line)["row_losses"] for line in (folder / "evaluation.jsonl").read_text().splitlines()]
    return {**summary["digests"], "scores": scores, "tokens": summary["tokens/supervised"]}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, str]:
    """Rows to train on, and the override that names rows to evaluate."""
    evaluation = written(tmp_path / "eval.jsonl", numbered(6, 900))
    return written(tmp_path / "rows.jsonl", numbered(60)), f"data.eval_files={evaluation}"


@pytest.mark.parametrize(
    ("budget", "packing"), [("train.max_tokens=700", "data.packing=false"), ("train.max_steps=14", "data.packing=true")]
)
def test_the_adapter_is_that_of_a_cached_run_if_a_block_holds_all_rows(
    packing: str, budget: str, files: tuple[Path, str], launched: Train
) -> None:
    path, evaluation = files
    common = (evaluation, packing, budget, "train.tokens_per_step=48", "train.batch_size=3")
    cached = launched(run_over(path, *common), "cached")
    streamed = launched(run_over(path, *common, *STREAMED), "streamed")
    assert learnt(streamed) == learnt(cached)
    assert read_json(streamed / "summary.json")["rows"]["passes"] >= 1, "an epoch and more"
    assert read_json(cached / "summary.json")["steps"] == read_json(streamed / "summary.json")["steps"] >= 14


def test_without_shuffling_the_adapter_is_that_of_a_cached_run_over_rows_in_that_order(
    files: tuple[Path, str], launched: Train, tmp_path: Path
) -> None:
    path, evaluation = files
    lines = path.read_text().splitlines(keepends=True)
    ordered = tmp_path / "ordered.jsonl"
    ordered.write_text("".join(lines[index] for index in numpy.random.default_rng((42, 0)).permutation(len(lines))))
    common = (evaluation, "train.max_steps=6", "train.tokens_per_step=40")
    cached = launched(run_over(path, *common), "cached")
    streamed = launched(run_over(ordered, *common, "data.streaming=true", "data.shuffle_buffer=0"), "streamed")
    assert learnt(streamed) == learnt(cached)


def test_steps_of_as_many_rows_are_those_of_a_cached_run_that_takes_rows_in_their_order(
    files: tuple[Path, str], launched: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, evaluation = files
    common = (evaluation, "train.max_steps=7", "train.batch_size=3", "train.grad_accum=2")
    streamed = launched(run_over(path, *common, "data.streaming=true", "data.shuffle_buffer=0"), "streamed")
    arguments = trainer._batch_arguments
    in_order = {"train_sampling_strategy": "sequential"}
    monkeypatch.setattr(trainer, "_batch_arguments", lambda *given: arguments(*given) | in_order)
    cached = launched(run_over(path, *common), "cached")
    assert learnt(streamed) == learnt(cached)


STOPPED = (
    *STREAMED, "data.shuffle_buffer=9", "data.eval_rows=4", "train.tokens_per_step=40", "train.max_steps=9", "train.save_every=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def _ends() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(WatchedTrainer, "train", WatchedTrainer.train)
    tell_the_end()
    yield
    patch.undo()


@pytest.mark.usefixtures("_ends")
@pytest.mark.parametrize(("workers", "steps"), [(0, (1, 5)), pytest.param(1, (1, 4, 5, 8), marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_and_stopped_again_goes_on_as_if_it_had_not_been(
    workers: int, steps: tuple[int, ...], tmp_path: Path, launched: Train
) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(30))
    run = run_over(path, *STOPPED, f"train.loader_workers={workers}")
    whole = launched(run, "whole")
    folder = tmp_path / "stopped"
    for step in steps:
        assert train(run, Launch(folder, []), Stopper(step)).state == "interrupted"
        run.resume = str(folder)
    assert train(run, Launch(folder, [])).state == "complete"
    assert differing(left_by(folder), left_by(whole)) == []
    assert read_json(whole / "summary.json")["rows"]["passes"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"rows.{kind}", numbered(30))
    run = run_over(path, *STOPPED, "train.save_every=1")
    whole = killed(run, tmp_path / "whole")
    kills = (Kill("forward", 5), Kill("optimizer", 3), Kill("flush", 14), Kill("forward", 2))
    again = killed(run_over(path, *STOPPED, "train.save_every=1"), tmp_path / "killed", *kills)
    assert differing(left_by(again), left_by(whole)) == []


def test_a_file_that_is_another_is_not_gone_on_with(tmp_path: Path) -> None:
    path, folder = written(tmp_path / "rows.jsonl", numbered(30)), tmp_path / "run"
    run = run_over(path, *STOPPED)
    assert train(run, Launch(folder, []), Stopper(3)).state == "interrupted"
    written(path, numbered(31))
    run.resume = str(folder)
    with pytest.raises(UserError, match="rows of train"):
        train(run, Launch(folder, []))


def test_trials_in_one_process_learn_from_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    rows = [*numbered(30), {"prompt": "a", "completion": " "}]
    path, host = written(tmp_path / "rows.jsonl", rows), Resident()

    def read(override: str) -> dict[str, Any]:
        result = train(run_over(path, *STOPPED, override), Launch(tmp_path / override, []), host)
        found: dict[str, Any] = result.summary["rows"]
        return found

    one, two, other = read("optim.lr=1e-3"), read("lora.r=4"), read("train.data_seed=7")
    assert one == two
    assert one["order"] != other["order"]
    assert one["dropped"]["empty"] >= 1
    assert one["rows"] == one["kept"] + sum(one["dropped"].values())


def test_a_run_that_is_to_fit_is_looked_at_with_its_longest_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(30))
    run = run_over(path, "data.streaming=true", "data.eval_rows=4", "train.max_steps=3", "train.fit=8GiB")
    splits = build_datasets(run.data, build_tokenizer(run.model), 4096)
    plan = choose_plan(run, splits["train"])
    outlook = look_ahead(run, splits, plan, Device.current(run.model.dtype))
    assert isinstance(outlook, Outlook)
    assert outlook.batch.tokens == outlook.run.train.batch_size * 32
    assert outlook.run.train.batch_size * outlook.run.train.grad_accum == run.train.batch_size
