"""What a run folder says of its run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorasweep import record
from lorasweep.results import UNFINISHED, flat, last_lines, read_results
from lorasweep.rules import UserError
from lorasweep.schema import Run


def test_a_run_that_goes_on_is_read_up_to_the_last_whole_line(tmp_path: Path):
    record.claim(tmp_path / "run", Run(name="odd ${name}"))
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "tra')
    results = read_results(tmp_path / "run")
    assert results.state == UNFINISHED
    assert results.metrics == [{"step": 1, "train/loss": 2.0}]
    assert results.evaluations == []
    assert results.kept is None
    assert results.values["lora.r"] == Run().lora.r
    assert results.values["name"] == "odd ${name}"


def test_the_kept_evaluation_is_that_of_the_step_that_the_summary_names(tmp_path: Path):
    record.claim(tmp_path / "run", Run())
    lines = [json.dumps({"step": step, "row_losses": [float(step)]}) + "\n" for step in (0, 5, 10)]
    (tmp_path / "run" / "evaluation.jsonl").write_text("".join(lines))
    record.write_json(tmp_path / "run" / "summary.json", {"state": "complete", "objective/step": 5})
    results = read_results(tmp_path / "run")
    assert (results.state, results.name) == ("complete", "run")
    assert results.kept == {"step": 5, "row_losses": [5.0]}
    assert results.untuned == {"step": 0, "row_losses": [0.0]}


def test_answers_may_hold_any_character_that_ends_a_line(tmp_path: Path):
    record.claim(tmp_path / "run", Run())
    odd = "one\u2028two\x85three\x0b"
    (tmp_path / "run" / "evaluation.jsonl").write_text(
        json.dumps({"step": 0, "answers": [odd]}, ensure_ascii=False) + "\n"
    )
    assert read_results(tmp_path / "run").evaluations == [{"step": 0, "answers": [odd]}]


def test_the_end_of_a_long_file_is_read_alone(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1000)) + '{"step": 10')
    assert [line["step"] for line in last_lines(path, most=60)] == [997, 998, 999]
    assert last_lines(path)[0] == {"step": 0}
    assert last_lines(tmp_path / "nothing") == []


def test_a_folder_without_a_run_is_the_users_to_mend(tmp_path: Path):
    with pytest.raises(UserError, match=r"run\.yaml"):
        read_results(tmp_path)
    (tmp_path / "run.yaml").touch()
    with pytest.raises(UserError, match=r"run\.yaml"):
        read_results(tmp_path)


def test_nested_values_get_dotted_keys():
    assert flat({"a": {"b": {"c": 1}, "d": None}, "e": [1]}) == {"a.b.c": 1, "a.d": None, "e": [1]}
