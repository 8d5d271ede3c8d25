"""evaluate: the scores of training again, other rows, and how sure the difference is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.after.conftest import Done, summary_of


def test_evaluate_scores_what_training_scored(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("evaluate", str(run))
    written, summary = json.loads((run / "evaluations" / "eval.json").read_text()), summary_of(run)
    assert done.code == 0
    assert written["rows_of_training"] is True
    assert written["tuned"]["eval/loss"] == pytest.approx(summary["eval/loss"], rel=1e-6)
    assert written["untuned"]["eval/loss"] == pytest.approx(summary["untuned/eval/loss"], rel=1e-6)
    assert len(written["tuned"]["row_losses"]) == len(written["untuned"]["row_losses"]) == written["count"]
    assert len(written["tuned"]["answers"]) == 2
    assert [answer["row"] for answer in written["tuned"]["answers"]] == written["tuned"]["rows"][:2]
    assert f"{summary['eval/loss']:.4f}" in done.out
    assert f"{summary['untuned/eval/loss']:.4f}" in done.out


def test_evaluate_takes_splits_files_and_counts(run: Path, tmp_path: Path, lorasweep: Callable[..., Done]) -> None:
    rows = [{"prompt": f"What is {index} plus 1?", "completion": str(index + 1)} for index in range(7)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "4 rows of test" in lorasweep("evaluate", str(run), "--split", "test").out
    assert "3 rows of train" in lorasweep("evaluate", str(run), "--split", "train", "--max-samples", "3").out
    printed = json.loads(lorasweep("evaluate", str(run), "--data", "mine.jsonl", "--json").out)
    assert (printed["count"], printed["rows"]) == (7, "mine.jsonl")
    assert json.loads((run / "evaluations" / "mine.json").read_text()) == printed


def test_rows_that_are_not_those_of_the_run_are_said_to_be_others(run: Path, lorasweep: Callable[..., Done]) -> None:
    assert "training may have seen them" in lorasweep("evaluate", str(run), "data.split_seed=7").out


def test_a_split_the_run_lacks_is_explained(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("evaluate", str(run), "--split", "test", "data.test_fraction=0")
    assert done.code == 2
    assert "--data FILE" in done.err


def test_a_run_folder_that_cannot_be_written_is_said_to_be_one(
    run: Path, tmp_path: Path, lorasweep: Callable[..., Done]
) -> None:
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("evaluations"))
    (tmp_path / "copy" / "evaluations").write_text("in the way")
    done = lorasweep("evaluate", "copy")
    assert done.code == 2
    assert "a run folder that can be written" in done.err


def test_a_damaged_adapter_is_said_to_be_one(run: Path, tmp_path: Path, lorasweep: Callable[..., Done]) -> None:
    shutil.copytree(run, tmp_path / "copy")
    weights = tmp_path / "copy" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = lorasweep("chat", "copy", "hi")
    assert done.code == 2
    assert "a run whose adapter can be read" in done.err
