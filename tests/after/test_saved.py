"""A run folder opened again, from any working directory."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from lorasweep import random_model, results, saved
from lorasweep.assessment import assess
from lorasweep.local_files import absolute, local_files
from lorasweep.preflight import check_inputs
from lorasweep.record import Launch, write_json
from lorasweep.rules import UserError
from lorasweep.run import train
from tests.after.conftest import STEPS, summary_of
from tests.conftest import ROOT, TINY, composed, tiny


def test_the_console_script_is_the_command_line() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["lorasweep"].split(":")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_a_run_opens_as_it_was_trained_and_with_overrides(run: Path) -> None:
    assert saved.open_run(run) == saved.as_recorded(run)
    assert saved.open_run(run, ["evaluation.generate=50"]).evaluation.generate == 50
    assert saved.open_run(run, needs_data=False).data.test_fraction == 0.1


def test_the_base_is_taken_at_the_commit_that_was_recorded(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(run), str(folder)], check=True)
    record = results.read_json(folder / "record.json")
    write_json(folder / "record.json", {**record, "model": {"commit": "abc123"}})
    assert saved.open_run(folder).model.revision == "abc123"


@pytest.mark.parametrize(
    "override", ["lora.r=8", "optim=sgd", "train.max_steps=3", "experiment=smoke", "model.adapter=."]
)
def test_an_override_that_comes_too_late_is_refused(override: str, run: Path) -> None:
    with pytest.raises(UserError, match="the adapter is trained"):
        saved.open_run(run, [override])


def test_paths_of_a_run_are_saved_so_that_its_folder_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "a place", tmp_path / "elsewhere"
    for folder in (home, home / "parts", elsewhere):
        folder.mkdir()
    rows = "".join(json.dumps({"prompt": f"q{index}", "completion": "yes"}) + "\n" for index in range(12))
    for name in ("parts/1.jsonl", "parts/2.jsonl", "held.jsonl"):
        (home / name).write_text(rows)
    (home / "mine.jinja").write_text(random_model.TEMPLATE)
    os.symlink(random_model.folder(tiny().model.shape), home / "base")
    monkeypatch.chdir(home)
    given = composed(
        *TINY, "data=jsonl", "data.files=[parts/*.jsonl]", "data.eval_files=held.jsonl", "model=llama2_7b_chat",
        "model.name=base", "model.tokenizer=base", "model.chat_template=mine.jinja", *STEPS,
        "data.limit=null",
    )  # fmt: skip
    assert train(given, Launch(home / "run", [])).state == "complete"
    monkeypatch.chdir(elsewhere)
    opened = saved.open_run(home / "run")
    assert opened.model.name == str(home / "base")
    assert opened.model.tokenizer == str(home / "base")
    assert opened.model.chat_template == str(home / "mine.jinja")
    assert opened.data.eval_files == str(home / "held.jsonl")
    check_inputs(opened)
    result = assess(home / "run", opened)
    assert result.rows_of_training
    assert result.tuned.loss == pytest.approx(summary_of(home / "run")["eval/loss"], rel=1e-6)


def test_a_hub_id_is_no_path(run: Path) -> None:
    assert saved.as_recorded(run).model.name == "tiny"


def test_a_pattern_is_found_from_a_folder_whose_name_looks_like_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a [1]"
    home.mkdir()
    (home / "1.jsonl").write_text("")
    monkeypatch.chdir(home)
    pattern, name = absolute("*.jsonl"), absolute("1.jsonl")
    monkeypatch.chdir(tmp_path)
    assert local_files(pattern) == local_files(name) == [str(home / "1.jsonl")]
