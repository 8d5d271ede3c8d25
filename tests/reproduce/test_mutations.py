"""One fact is another: reproduce names it, and nothing else."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorasweep import reproduce
from lorasweep.reproduce import written
from lorasweep.reproduce.drift import compared
from lorasweep.reproduce.facts import COMPUTE, facts
from tests.reproduce.conftest import Recorded, edited

Change = Callable[[bytes], bytes]


def one_letter(content: bytes) -> bytes:
    """Another letter in the middle, and not one byte more."""
    at = next(place for place in range(len(content) // 2, len(content)) if content[place : place + 1].isalpha())
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def swapped(content: bytes) -> bytes:
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join([second, first, *rest])


def test_of_an_untouched_run_nothing_is_another(recorded: Recorded) -> None:
    known = reproduce.check(str(recorded.folder), [])
    assert known.facts.drift == []
    assert known.expected == "exact"
    assert known.facts.unknown == []
    assert {"rows of train", "precision", "numerics: attention"} <= set(known.facts.unchecked)


@pytest.mark.parametrize(("file", "change", "name"), [
    ("data/rows.jsonl", one_letter, "data file rows.jsonl"),
    ("data/rows.jsonl", lambda rows: rows + rows.splitlines(keepends=True)[0], "data file rows.jsonl"),
    ("data/rows.jsonl", swapped, "data file rows.jsonl"),
    ("data/held.jsonl", one_letter, "data file held.jsonl"),
    ("base/tokenizer.json", one_letter, "tokenizer file tokenizer.json"),
    ("base/tokenizer_config.json", one_letter, "tokenizer file tokenizer_config.json"),
    ("mine.jinja", one_letter, "chat template"),
    ("base/model.safetensors", one_letter, "model file model.safetensors"),
    ("base/config.json", one_letter, "model file config.json"),
    ("base/generation_config.json", one_letter, "model file generation_config.json"),
])  # fmt: skip
def test_another_file_is_named_though_its_time_is_the_same(
    file: str, change: Change, name: str, recorded: Recorded
) -> None:
    with edited(recorded.data.parent / file, change):
        assert recorded.drift_as_saved() == [name]
    assert recorded.drift_as_saved() == []


OPTIONS = [
    ("optim.lr=1e-3", "optim.lr"), ("optim.name=sgd", "optim.name"), ("scheduler=cosine", "scheduler.name"),
    ("scheduler.warmup=0.1", "scheduler.warmup"), ("lora.r=8", "lora.r"), ("lora.dropout=0.2", "lora.dropout"),
    ("quant.double_quant=true", "quant.double_quant"), ("train.seed=7", "train.seed"),
    ("train.data_seed=7", "train.data_seed"), ("train.batch_size=2", "train.batch_size"),
    ("train.grad_accum=2", "train.grad_accum"), ("train.max_steps=5", "train.max_steps"),
    ("data.max_length=64", "data.max_length"), ("data.packing=true", "data.packing"),
    ("data.split_seed=1", "data.split_seed"), ("evaluation.max_samples=3", "evaluation.max_samples"),
    ("model.dtype=bfloat16", "model.dtype"), ("model.attention=eager", "model.attention"),
    ("train.padding_free=true", "train.padding_free"), ("train.compile=true", "train.compile"),
    ("train.lean=false", "train.lean"), ("deterministic=true", "deterministic"), ("train.loader_workers=1", "train.loader_workers"),
    ("+data.template_kwargs.thinking=true", "data.template_kwargs"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "name"), OPTIONS)
def test_another_option_is_named(override: str, name: str, recorded: Recorded) -> None:
    assert recorded.drift(override) == [name]


def test_an_option_that_changes_nothing_is_not_named(recorded: Recorded) -> None:
    assert recorded.drift("name=again", "tracking.tags=[again]", "train.save_every=2", "data.num_proc=2") == []


MACHINE = [
    ("packages/torch", "2.0.0", "package torch"), ("packages/trl", "1.0.0", "package trl"),
    ("packages/rich", "1.0.0", "package rich"), ("packages/not-here", "1", "package not-here"),
    ("python", "3.11.0", "python"), ("environment/libc", "glibc 2.17", "libc"),
    ("environment/build", "another", "build of python"), ("code", "0" * 64, "code of lorasweep"),
    ("git/commit", "0" * 40, "git commit"), ("git/diff", "0" * 64, "uncommitted changes"),
    ("constraints", "0" * 64, "constraints.txt"), ("hardware/instructions", "x86-64-v3", "instructions of the processor"),
    ("hardware/processor", "another", "processor"), ("platform", "another", "system"),
    ("tokenizer/chat_template", "0" * 64, "chat template"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "name"), MACHINE)
def test_another_machine_or_code_is_named(path: str, value: str, name: str, recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    *parts, last = path.split("/")
    run.rewrite(lambda record: functools.reduce(dict.__getitem__, parts, record).update({last: value}))
    assert run.drift_as_saved() == [name]


def test_another_device_is_named(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    run.rewrite(lambda record: record["hardware"].update(gpu={"name": "a GPU"}))
    run.rewrite(lambda record: record["device"].update(kind="cuda", name="a GPU"))
    assert run.drift_as_saved() == ["device"]


def test_a_package_that_is_new_is_named(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    run.rewrite(lambda record: record["packages"].pop("peft"))
    assert run.drift_as_saved() == ["package peft"]


@pytest.mark.parametrize(("variable", "value", "name"), [
    ("OMP_NUM_THREADS", "3", "threads"), ("ATEN_CPU_CAPABILITY", "avx2", "variable ATEN_CPU_CAPABILITY"),
    ("CUBLAS_WORKSPACE_CONFIG", ":16:8", "variable CUBLAS_WORKSPACE_CONFIG"),
])  # fmt: skip
def test_another_setting_of_the_environment_is_named(
    variable: str, value: str, name: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert recorded.drift_as_saved() == [name]


def test_what_is_set_nowhere_is_taken_over_from_the_record(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run = recorded.copied(tmp_path / "run")
    run.rewrite(lambda record: record["device"].update(threads=7))
    run.rewrite(lambda record: record["environment"]["variables"].update(ATEN_CPU_CAPABILITY="avx2"))
    known = reproduce.check(str(run.folder), [])
    assert known.taken_over == {"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "7"}
    assert known.facts.drift == []


def test_a_config_that_was_edited_in_the_folder_is_named(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    path = run.folder / "run.yaml"
    path.write_text(path.read_text().replace("weight_decay: 0.0", "weight_decay: 0.1"))
    assert run.drift() == ["optim.weight_decay"]


def test_a_run_that_went_on_as_another_one_is_no_single_run(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    went_on = [{"step": 2, "changed": {"optim.lr": [0.01, 0.02], "package torch": ["2.0", "2.1"]}}]
    run.rewrite(lambda record: record.update(resumed=[{"step": 1, "notes": []}, *went_on]))
    assert run.drift_as_saved() == ["optim.lr up to step 2", "package torch up to step 2"]
    assert reproduce.check(str(run.folder), []).expected == "not comparable"


def test_the_same_files_elsewhere_are_no_difference(recorded: Recorded, tmp_path: Path) -> None:
    for folder in (recorded.data, recorded.model):
        shutil.copytree(folder, tmp_path / folder.name)
    moved = [f"data.files={tmp_path}/data/rows.jsonl", f"data.eval_files={tmp_path}/data/held.jsonl"]
    assert recorded.drift(*moved, f"model.name={tmp_path}/base") == []


def test_all_that_is_another_is_named_inputs_first(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    run.rewrite(lambda record: record.update(constraints="0", python="3.0"))
    with edited(recorded.data / "rows.jsonl", one_letter):
        assert run.drift("lora.r=4") == ["lora.r", "data file rows.jsonl", "python", "constraints.txt"]


def test_an_older_record_is_compared_as_far_as_it_goes(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    older = ("config", "constraints", "environment", "hardware", "tokenizer", "numerics", "start", "lineage", "choices")

    def age(record: dict[str, Any]) -> None:
        for name in older:
            del record[name]
        del record["git"]["diff"], record["device"]["cudnn"]

    run.rewrite(age)
    known = reproduce.check(str(run.folder), [])
    assert known.facts.drift == []
    assert known.expected == "exact"
    assert {"libc", "instructions of the processor", "variable MKL_CBWR"} <= set(known.facts.unknown)
    assert run.drift("optim.lr=1e-3") == ["optim.lr"]
    with edited(recorded.model / "tokenizer.json", one_letter):
        assert run.drift() == ["tokenizer file tokenizer.json"]


def test_a_run_without_a_record_is_checked_too(recorded: Recorded, tmp_path: Path) -> None:
    run = recorded.copied(tmp_path / "run")
    (run.folder / "record.json").unlink()
    known = reproduce.check(str(run.folder), ["optim.lr=1e-3"])
    assert [item.name for item in known.facts.drift] == ["optim.lr"]
    assert "package torch" in known.facts.unknown


def test_files_that_make_no_model_and_files_that_were_not_downloaded_are_no_difference(
    recorded: Recorded, tmp_path: Path
) -> None:
    run = recorded.copied(tmp_path / "run")
    (recorded.model / "LICENSE").write_text("all of it")
    try:
        assert run.drift_as_saved() == []
    finally:
        (recorded.model / "LICENSE").unlink()
    run.rewrite(lambda record: record["model"]["sha256"].update({"more.safetensors": "0" * 64}))
    assert run.drift_as_saved() == ["model file more.safetensors"]
    before = facts(run.record(), {})
    here = facts({"model": {"commit": "abc", "sha256": {"config.json": before["model file config.json"].value}}}, {})
    assert [item.name for item in compared(before, here).drift] == []


def test_every_package_that_decides_numbers_counts() -> None:
    for name in ("torch", "bitsandbytes", "nvidia-cublas-cu12", "triton", "jinja2", "numpy"):
        assert COMPUTE.match(name)
    for name in ("rich", "torchmetrics", "wandb", "pytest"):
        assert not COMPUTE.match(name)


def test_the_result_as_json_has_every_fact_by_name(recorded: Recorded) -> None:
    known = reproduce.check(str(recorded.folder), ["optim.lr=1e-3"])
    (item,) = json.loads(written.as_json(written.values_of(known)))["drift"]
    assert item == {"name": "optim.lr", "weight": "input", "before": 0.02, "now": 0.001}
