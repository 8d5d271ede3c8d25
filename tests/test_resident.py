"""A run after others in one process leaves the same bytes as one alone, and nothing behind."""

import gc
import json
import weakref
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lorasweep import lora, metrics, resident
from lorasweep.host import ALONE, Host, Interrupted
from lorasweep.record import Launch
from lorasweep.resident import Resident, copy_modules
from lorasweep.run import Result, train
from lorasweep.schema import Lora, Run
from tests.conftest import TINY, command, tiny
from tests.test_run import summary_of
from tests.tracking.offline import only

STEPS = ("train.max_steps=3", "lora.dropout=0.1", "evaluation.times=2")
OTHERS = (
    ("lora.r=3", "lora.dropout=0.4", "data.packing=true", "optim=adamw_8bit", "scheduler=cosine"),
    ("lora=dora", "train.gradient_checkpointing=true", "optim=lion_8bit", "evaluation.generate=2", "optim.lr=1"),
    ("lora.init=gaussian", "train.seed=7", "train.padding_free=true", "train.batch_size=2", "optim=sgd"),
    ("lora.target_modules=[q_proj]", "train.tokens_per_step=200", "data.max_length=64", "model.chat_template=null"),
)
VARYING = {"seconds", "tokens/per_second"}


def started(run: Run, folder: Path, host: Host = ALONE) -> Result:
    return train(run, Launch(folder, []), host)


@cache
def composed_once(*overrides: str) -> Run:
    return tiny(*overrides)


def after_others(run: Run, folder: Path, host: Host, others: tuple[tuple[str, ...], ...] = OTHERS) -> Path:
    for number, overrides in enumerate(others):
        other = replace(composed_once("train.max_steps=2", "quant=none", *overrides), quant=run.quant)
        assert started(other, folder / f"other {number}", host).state == "complete"
    assert started(run, folder / "warm", host).state == "complete"
    return folder / "warm"


def left_by(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for times, memory and what names the folder."""
    lines = [
        {name: value for name, value in entry.items() if name not in VARYING and not name.startswith("memory/")}
        for entry in metrics.read(folder)
    ]
    record = json.loads((folder / "record.json").read_text())
    files = {
        path.name: path.read_bytes() for path in (folder / "adapter").iterdir() if path.name != "adapter_config.json"
    }
    evaluation = (folder / "evaluation.jsonl").read_text()
    return {**files, "evaluation": evaluation, "metrics": lines, "data": record["data"], "model": record["model"]}


@pytest.mark.parametrize("quant", ["nf4", "nf4_double", "fp4", "int8", "none"])
def test_a_run_after_others_leaves_the_bytes_of_one_alone(
    quant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, loads, host = tiny(*STEPS, f"quant={quant}"), [], Resident()
    others = tuple(each for each in OTHERS if quant != "int8" or "lora=dora" not in each)
    alone = left_by(started(run, tmp_path / "alone").folder)
    real = resident.copy_modules
    monkeypatch.setattr(resident, "copy_modules", lambda model: loads.append(id(model)) or real(model))
    assert left_by(after_others(run, tmp_path, host, others)) == alone
    assert len(loads) == len(others) + 1
    assert len(set(loads)) == 1, "the base was loaded again"


@pytest.mark.slow
def test_a_run_after_others_leaves_the_bytes_of_a_process_of_its_own(tmp_path: Path) -> None:
    options = ("data.limit=24", "evaluation.generate=0", *STEPS)
    done = command(*TINY, *options, f"hydra.run.dir={tmp_path}/process", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    warm = after_others(tiny(*STEPS), tmp_path, Resident())
    assert left_by(warm) == left_by(tmp_path / "process")


def test_the_comparison_finds_modules_that_are_handed_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny(*STEPS, "lora.target_modules=[q_proj]")
    alone = left_by(started(run, tmp_path / "alone").folder)
    monkeypatch.setattr(resident, "copy_modules", lambda model: model)
    assert left_by(after_others(run, tmp_path, Resident(), OTHERS[:1])) != alone


def test_the_comparison_finds_a_base_that_was_changed(tmp_path: Path) -> None:
    class Changed(Resident):
        def base(self, *arguments: Any) -> Any:
            model = super().base(*arguments)
            with torch.no_grad():
                model.model.norm.weight[0] += 1e-3
            return model

    run = tiny(*STEPS)
    alone = left_by(started(run, tmp_path / "alone").folder)
    assert left_by(after_others(run, tmp_path, Changed(), OTHERS[:1])) != alone


def test_adapters_that_change_the_base_spoil_no_later_run(tmp_path: Path) -> None:
    run, host = tiny(*STEPS, "quant=none"), Resident()
    pissa = tiny(*STEPS, "quant=none", "lora.init=pissa")
    alone = [left_by(started(each, tmp_path / f"alone {each.lora.init}").folder) for each in (run, pissa)]
    inits = (("lora.init=pissa",), ("lora.init=olora",), ("lora.init=orthogonal",))
    assert left_by(after_others(run, tmp_path, host, inits)) == alone[0]
    assert left_by(started(pissa, tmp_path / "pissa", host).folder) == alone[1]
    assert lora.changes_base(Lora(bias="all"))
    assert lora.changes_base(Lora(bias="lora_only"))
    assert not lora.changes_base(Lora(use_dora=True))


def test_a_copy_shares_weights_and_nothing_else() -> None:
    config = LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=32)
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    copied = copy_modules(model)
    assert copied.lm_head.weight is copied.model.embed_tokens.weight
    for one, other in zip(model.parameters(), copied.parameters(), strict=True):
        assert one is not other
        assert one.data_ptr() == other.data_ptr()
    assert not {id(module) for module in model.modules()} & {id(module) for module in copied.modules()}
    assert not {value.data_ptr() for value in model.buffers()} & {value.data_ptr() for value in copied.buffers()}
    assert copied.config is not model.config
    assert copied.generation_config is not model.generation_config


def test_the_untuned_model_is_scored_once_and_only_where_the_adapter_starts_as_nothing(tmp_path: Path) -> None:
    asked: list[bool] = []

    class Counting(Resident):
        def untuned(self, run: Any, device: Any, score: Any) -> Any:
            asked.append(False)

            def scored() -> Any:
                asked[-1] = True
                return score()

            return super().untuned(run, device, scored)

    host = Counting()
    for number, overrides in enumerate([
        (), ("lora.r=2", "evaluation.times=3"), ("lora=dora",), ("lora.init=orthogonal", "quant=none"),
        ("quant=none",), ("evaluation.max_samples=2", "quant=none", "lora.init=gaussian"),
    ]):  # fmt: skip
        assert started(tiny("train.max_steps=1", *overrides), tmp_path / str(number), host).state == "complete"
    assert asked == [True, False, True, True, True, True]


def test_data_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path, host = tmp_path / "rows.jsonl", Resident()
    path.touch()
    run = tiny("data=jsonl", f"data.files={path}", "train.max_steps=1", "data.limit=null")
    counts = []
    for number in (12, 0, 30):
        if number:
            path.write_text(
                "\n".join(json.dumps({"prompt": f"q{row}", "completion": f"a{row}"}) for row in range(number))
            )
        folder = started(run, tmp_path / f"run {len(counts)}", host).folder
        counts.append(json.loads((folder / "record.json").read_text())["data"]["splits"]["train"]["rows"])
    assert counts == [11, 11, 27]


class Listening(Resident):
    """Hears everything, and does at a step what it is told to do."""

    def __init__(self, prune_at: int = 0, stop: BaseException | None = None) -> None:
        super().__init__()
        self.heard: list[tuple[int, int, float]] = []
        self.steps: list[tuple[int, int]] = []
        self.prune_at, self.stop = prune_at, stop

    def progress(self, step: int, total: int) -> None:
        self.steps.append((step, total))
        if step == 2 and self.stop:
            stop, self.stop = self.stop, None
            raise stop

    def report(self, step: int, tokens: int, value: float) -> bool:
        self.heard.append((step, tokens, value))
        return step != self.prune_at


def test_a_host_hears_every_step_and_every_objective_with_the_tokens_learnt(tmp_path: Path) -> None:
    host = Listening()
    result = started(tiny("train.max_steps=4", "evaluation.times=2"), tmp_path / "run", host)
    assert host.steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    entries = metrics.read(result.folder)
    learnt = {entry["step"]: entry["tokens/supervised"] for entry in entries if "tokens/supervised" in entry}
    losses = {entry["step"]: entry["eval/loss"] for entry in entries if "eval/loss" in entry}
    assert host.heard == [(step, learnt[step], losses[step]) for step in (2, 4)]
    assert result.summary == {name: value for name, value in summary_of(result.folder).items() if name != "seconds"}


def test_runs_of_one_plan_report_the_same_tokens(tmp_path: Path) -> None:
    heard = []
    for number, overrides in enumerate([
        ("train.batch_size=2",), ("data.packing=true", "data.max_length=128"),
        ("train.padding_free=true", "train.log_every=3", "evaluation.untuned=false"),
    ]):  # fmt: skip
        host = Listening()
        run = tiny("train.tokens_per_step=120", "train.max_steps=4", "evaluation.times=4", *overrides)
        started(run, tmp_path / str(number), host)
        heard.append([(step, tokens) for step, tokens, _ in host.heard])
    assert len(heard[0]) == 4
    assert heard == [heard[0]] * 3


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_pruned_run_ends_with_what_is_known_and_without_an_adapter(keep: str, tmp_path: Path) -> None:
    run, host = tiny("train.max_steps=4", "evaluation.times=4", f"evaluation.keep={keep}"), Listening(prune_at=3)
    alone = left_by(started(run, tmp_path / "alone").folder)
    result = started(run, tmp_path / "pruned", host)
    summary = summary_of(result.folder)
    assert (result.state, result.exit_code, result.error) == ("pruned", 0, None)
    assert [step for step, _, _ in host.heard] == [1, 2, 3]
    assert summary["state"] == "pruned"
    assert summary["steps"] == 3
    assert summary["tokens/supervised"] == host.heard[-1][1]
    assert summary["objective"] == result.objective == summary["eval/loss"]
    assert summary["objective"] in [value for _, _, value in host.heard]
    assert 0 < summary["memory/start_gib"] <= summary["memory/peak_gib"]  # type: ignore[operator]
    assert "pruned after step 3" in (result.folder / "train.log").read_text()
    assert not {"adapter", ".adapter", "checkpoints", "error.txt"} & {path.name for path in result.folder.iterdir()}
    host.prune_at = 4
    assert left_by(started(run, tmp_path / "next", host).folder) == alone, "at its last step a run is complete"


def test_a_pruned_run_is_finished_in_w_and_b_as_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listening, "is_followed", True)
    run = tiny("train.max_steps=3", "evaluation.times=3", "tracking.wandb=offline")
    kept = only(started(run, tmp_path / "run", Listening(prune_at=1)).folder)
    assert kept.tags == ["pruned"]
    assert kept.exit_code == 0


def test_a_resident_host_starts_no_follower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorasweep.tracking.follower.Follower.follow", lambda *_: pytest.fail("followed"))
    run = tiny("train.max_steps=1", "tracking.wandb=offline")
    assert started(run, tmp_path / "run", Resident()).state == "complete"


@pytest.mark.parametrize(("stop", "state"), [
    (Interrupted(), "interrupted"),
    (torch.OutOfMemoryError("tried to allocate 20 GiB"), "out_of_memory"),
    (RuntimeError("a bug"), "failed"),
])  # fmt: skip
def test_a_run_that_ends_early_leaves_nothing_to_the_next(stop: BaseException, state: str, tmp_path: Path) -> None:
    run, host = tiny(*STEPS), Listening(stop=stop)
    alone = left_by(started(run, tmp_path / "alone").folder)
    if state == "failed":
        with pytest.raises(RuntimeError, match="a bug"):
            started(run, tmp_path / "stopped", host)
    else:
        result = started(run, tmp_path / "stopped", host)
        assert (result.state, result.error) == (state, str(stop) or "Interrupted")
    summary = summary_of(tmp_path / "stopped")
    assert (summary["state"], summary["steps"]) == (state, 2)
    assert left_by(started(run, tmp_path / "next", host).folder) == alone


def test_runs_leave_no_model_and_no_tensor_behind(tmp_path: Path) -> None:
    class Watched(Listening):
        models: tuple[weakref.ref[Any], ...] = ()

        def base(self, *arguments: Any) -> Any:
            model = super().base(*arguments)
            self.models = (*self.models, weakref.ref(model))
            return model

    host, tensors = Watched(), []
    for number in range(9):
        pruned = number % 2 == 1
        steps = ("train.max_steps=4", "evaluation.times=2") if pruned else ("train.max_steps=2",)
        run = composed_once(*steps, *(("optim=adamw_8bit",), ("lora=dora",), ("optim=paged_adamw_32bit",))[number % 3])
        host.stop = torch.OutOfMemoryError("tried to allocate 20 GiB") if number == 4 else None
        expected = "out_of_memory" if host.stop else "pruned" if pruned else "complete"
        host.prune_at = 2 if pruned else 0
        assert started(run, tmp_path / str(number), host).state == expected
        resident.forget_optimizers()
        gc.collect()
        assert not any(model() for model in host.models), "a model outlives its run"
        tensors.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
    assert tensors[-1] == tensors[2], "tensors outlive their runs"
