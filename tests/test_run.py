"""What a run leaves behind, when it stops, what it keeps, and that it can be run again from its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lorasweep import metrics
from lorasweep.evaluation import Scores, schedule
from lorasweep.judge import Judge
from lorasweep.model import build_model
from lorasweep.record import Launch
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Evaluation
from lorasweep.tokens import TokenCounter
from lorasweep.trainer import budget
from tests.conftest import ROOT, TINY, command, composed, tiny
from tests.test_numerics import CPU, train_losses


def summary_of(folder: Path) -> dict[str, object]:
    summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary


def test_a_finished_folder_holds_what_reproduces_the_run_and_what_came_of_it(launched: Callable[..., Path]) -> None:
    run = tiny("train.max_steps=2", "evaluation.generate=2", "tracking.tensorboard=true")
    folder = launched(run)
    assert {path.name for path in folder.iterdir()} - {"code.patch"} == {  # there where this checkout has changes
        "adapter", "run.yaml", "record.json", "metrics.jsonl", "evaluation.jsonl", "summary.json", "train.log", "tensorboard",
        "experiment", "model", "quant", "lora", "optim", "scheduler", "data", ".lock",
    }  # fmt: skip
    record, summary = json.loads((folder / "record.json").read_text()), summary_of(folder)
    assert yaml.safe_load((folder / "run.yaml").read_text())["lora"]["r"] == run.lora.r
    assert record["packages"]["torch"] == torch.__version__
    assert {"seed": 42, "data_seed": 42, "split_seed": 0}.items() <= record["seeds"].items()
    assert (record["data"]["splits"]["train"]["kept"], record["data"]["splits"]["eval"]["kept"]) == (19, 5)
    assert len(record["data"]["splits"]["eval"]["sha256"]) == 64
    assert len(record["model"]["sha256"]["model.safetensors"]) == 64
    assert record["device"]["precision"] == "float32"
    assert summary["state"] == "complete"
    assert summary["objective"] == summary["eval/loss"] < summary["untuned/eval/loss"]  # type: ignore[operator]
    assert 0 < summary["tokens/supervised"] <= record["data"]["splits"]["train"]["supervised_tokens"]  # type: ignore[operator]
    assert 0 < summary["memory/start_gib"] <= summary["memory/peak_gib"] < summary["memory/total_gib"]  # type: ignore[operator]
    assert "evaluation loss" in (folder / "train.log").read_text()
    assert list((folder / "tensorboard").iterdir())


def test_metrics_name_loss_rate_gradient_and_tokens_of_every_step(launched: Callable[..., Path]) -> None:
    entries = metrics.read(launched(tiny("train.max_steps=3")))
    steps = [entry for entry in entries if "train/loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3]
    wanted = {"train/loss", "train/lr", "train/grad_norm", "tokens/total", "tokens/supervised", "tokens/per_second"}
    assert all(wanted <= entry.keys() for entry in steps)
    assert all(entry["train/grad_norm"] > 0 for entry in steps)
    assert [entry["step"] for entry in entries if "eval/loss" in entry] == [0, 3]


def test_the_saved_adapter_loads_and_scores_as_the_run_said(launched: Callable[..., Path]) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from lorasweep.data import build_datasets
    from lorasweep.evaluation import Evaluator

    run = tiny("quant=none", "train.max_steps=3")
    folder = launched(run)
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    base = build_model(run.model, None, CPU)
    add_fused_lm_head(base)
    model = PeftModel.from_pretrained(base, folder / "adapter")
    rows = build_datasets(run.data, tokenizer, 512)["eval"].rows
    assert Evaluator(rows, tokenizer, run.evaluation, CPU)(model).loss == pytest.approx(
        summary_of(folder)["eval/loss"], rel=1e-6
    )


def test_a_run_is_run_again_from_its_folder_with_the_same_bytes_or_with_changes(
    launched: Callable[..., Path], tmp_path: Path
) -> None:
    folder = launched(tiny("train.max_steps=2", "lora.r=4", "scheduler=cosine_with_min_lr"))
    again = composed(f"--config-dir={folder}", "experiment=saved")
    first, second = (
        load_file(path / "adapter" / "adapter_model.safetensors") for path in (folder, launched(again, "again"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    changed = composed(f"--config-dir={folder}", "experiment=saved", "lora.r=8", "scheduler=linear")
    assert (changed.lora.r, changed.scheduler.name, changed.scheduler.kwargs) == (8, "linear", {})
    assert changed.train.max_steps == 2


def test_saved_text_that_looks_like_an_interpolation_stays_text(launched: Callable[..., Path]) -> None:
    run = tiny("train.max_steps=1")
    run.name = "${oc.env:HOME}"
    assert composed(f"--config-dir={launched(run)}", "experiment=saved").name == "${oc.env:HOME}"


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["llama2_guanaco", "llama3_responses"])
def test_both_tutorials_run_for_real_on_the_tiny_model(experiment: str, launched: Callable[..., Path]) -> None:
    run = composed(f"experiment={experiment}", *TINY, "data.limit=60")
    folder = launched(run)
    assert summary_of(folder)["steps"] == {"llama2_guanaco": 15, "llama3_responses": 60}[experiment]
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert len(train_losses(folder)) == {"llama2_guanaco": 0, "llama3_responses": 60}[experiment]


def test_checkpoints_are_written_when_asked_and_only_the_newest_are_kept(launched: Callable[..., Path]) -> None:
    folder = launched(tiny("train.max_steps=4", "train.save_every=1", "train.keep_checkpoints=2"))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000002", "step-000003"]


def test_the_best_adapter_is_kept_and_the_last_one_reported_too(launched: Callable[..., Path]) -> None:
    overrides = (
        "optim.lr=3",
        "optim=sgd",
        "scheduler=constant",
        "train.max_steps=8",
        "evaluation.times=8",
        "train.max_grad_norm=null",
    )
    best = launched(tiny(*overrides), "best")
    last = launched(tiny(*overrides, "evaluation.keep=last"), "last")
    losses = {
        entry["step"]: entry["eval/loss"] for entry in metrics.read(best) if "eval/loss" in entry and entry["step"]
    }
    assert summary_of(best)["objective"] == min(losses.values())
    assert summary_of(best)["objective/step"] == min(losses, key=lambda step: losses[step]) != 8
    assert summary_of(best)["last/eval/loss"] == losses[8]
    assert summary_of(last)["objective"] == losses[8]
    one, two = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (best, last))
    assert not all(torch.equal(one[name], two[name]) for name in one)


class Scripted:
    """An evaluator that returns given losses one after the other, and a model that notes when it is saved."""

    def __init__(self, losses: list[float]) -> None:
        self.losses, self.saved = iter(losses), 0

    def __call__(self, model: object) -> Scores:
        return Scores([next(self.losses)], [1])

    def save_pretrained(self, folder: Path, save_embedding_layers: bool) -> None:
        self.saved += 1
        folder.mkdir()


@pytest.mark.parametrize(("losses", "patience", "stopped", "best", "saved"), [
    ([3.0, 2.0, 1.0, 0.5, 0.4, 0.3], 2, 6, 6, 6),
    ([3.0, 2.0, 2.1, 2.2, 1.0, 0.5], 2, 4, 2, 2),
    ([3.0, 2.0, 2.0, 1.9, 1.8, 1.9], 2, 6, 5, 4),
    ([3.0, 4.0, 5.0, 2.0, 5.0, 5.0], None, 6, 4, 2),
])  # fmt: skip
def test_a_run_that_gets_no_better_stops_early(
    losses: list[float], patience: int | None, stopped: int, best: int, saved: int, tmp_path: Path
) -> None:
    script = Scripted(losses)
    judge = Judge(script, Evaluation(times=6), patience, 6, metrics.Metrics(tmp_path), tmp_path)  # type: ignore[arg-type]
    for step in range(1, 7):
        if not judge.after_step(step, script):
            break
    judge.end(script)
    assert (step, judge.kept_step, script.saved) == (stopped, best, saved)
    assert judge.summary()["objective"] == min(losses[:stopped])


@pytest.mark.parametrize(("overrides", "expected"), [
    (("train.epochs=2", "train.batch_size=4"), 50),
    (("train.epochs=2", "train.batch_size=4", "train.grad_accum=3"), 18),
    (("train.epochs=0.5", "train.batch_size=8"), 7),
    (("train.max_steps=7",), 7),
    (("train.epochs=null", "train.max_tokens=500", "train.batch_size=4"), 13),
])  # fmt: skip
def test_the_budget_becomes_steps(overrides: tuple[str, ...], expected: int) -> None:
    assert budget(tiny(*overrides), rows=100, supervised_tokens=1000) == expected


def test_evaluations_fall_on_the_same_fractions_of_every_run() -> None:
    assert schedule(4, 100) == {25, 50, 75, 100}
    assert schedule(3, 10) == {3, 7, 10}
    assert schedule(1, 5) == {5}
    assert schedule(0, 5) == set()


def test_tokens_are_counted_without_padding_and_without_first_tokens() -> None:
    model = torch.nn.Module()
    model.forward = lambda **inputs: None  # type: ignore[method-assign]
    counter = TokenCounter(model)
    batch = {
        "input_ids": torch.ones(2, 3, dtype=torch.long),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "labels": torch.tensor([[5, 5, 5], [-100, 5, -100]]),
    }
    model(**batch)
    model.eval()
    model(**batch)
    assert counter.read() == (5, 3)


def test_answers_with_square_brackets_are_shown_as_they_are(launched: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": f"q{index}", "completion": "[/INST] [red]done"} for index in range(12)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = launched(composed(
        "model=tiny", "tracking.wandb=disabled", "data=jsonl", f"data.files={tmp_path}/rows.jsonl", "train.max_steps=1",
        "evaluation.generate=1", "evaluation.max_new_tokens=4",
    ))  # fmt: skip
    assert "[/INST] [red]done" in (folder / "evaluation.jsonl").read_text()


def test_a_loss_that_is_not_finite_at_an_evaluation_is_divergence(launched: Callable[..., Path]) -> None:
    folder = launched(tiny("optim=sgd", "optim.lr=1e38", "scheduler=constant", "train.max_steps=1"), expect="diverged")
    assert "evaluation loss is not finite" in str(summary_of(folder)["error"])


@pytest.mark.parametrize(("text", "overrides", "words"), [
    ("", (), "the file is empty"),
    ('{"prompt": "a", "comp', (), "line 1: Unterminated string"),
    ('{"prompt": "a", "completion": "b"}', (), "cannot be divided into train and eval"),
    ('{"a": "x", "b": "y"}\n' * 9, (), "which say nothing by name"),
    ('{"messages": "hello"}\n' * 9, (), "a list of messages"),
    ('{"messages": [{"who": "me"}]}\n' * 9, (), "messages with role and content"),
    ('{"input_ids": [1, 2, 99999]}\n' * 9, (), "ids from 0 to 499"),
    ('{"input_ids": [1, 2], "labels": [1]}\n' * 9, (), "as many labels"),
    ('{"text": "a b c"}\n' * 9, ("evaluation.objective=exact_match", "evaluation.generate=2"), "a question and an answer apart"),
])  # fmt: skip
def test_data_that_cannot_be_learnt_from_is_a_users_mistake(
    text: str, overrides: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    path, folder = tmp_path / "rows [1].jsonl", tmp_path / "run"
    path.write_text(text)
    folder.mkdir()
    given = (
        "model=tiny",
        "tracking.wandb=disabled",
        "verbosity=quiet",
        "data=jsonl",
        f"data.files='{path}'",
        *overrides,
    )
    with pytest.raises(UserError, match=words):
        train(composed(*given, "train.max_steps=1"), Launch(folder, []))
    assert not folder.exists()


def test_a_folder_in_use_is_refused(launched: Callable[..., Path]) -> None:
    folder = launched(tiny("train.max_steps=1"))
    with pytest.raises(UserError, match="holds another run"):
        train(tiny("train.max_steps=1"), Launch(folder, []))
    assert summary_of(folder)["state"] == "complete"


def test_a_warmup_that_has_no_effect_is_said_to_have_none(launched: Callable[..., Path]) -> None:
    folder = launched(tiny("scheduler=constant", "scheduler.warmup=0.5", "train.max_steps=2"))
    assert "scheduler.warmup=0.5 has no effect" in (folder / "train.log").read_text()
    assert [entry["train/lr"] for entry in metrics.read(folder) if "train/lr" in entry] == [0.01, 0.01]


def test_warmup_longer_than_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which has 2 steps"):
        train(tiny("train.max_steps=2", "scheduler.warmup=5"), Launch(tmp_path / "run", []))
    assert summary_of(tmp_path / "run")["state"] == "failed"


def test_bugs_leave_a_traceback_in_the_folder_and_go_on_as_exceptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("lorasweep.run.build_model", broken)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        train(tiny("train.max_steps=2"), Launch(tmp_path / "run", []))
    assert "a bug of ours" in (tmp_path / "run" / "error.txt").read_text()
    assert summary_of(tmp_path / "run")["state"] == "failed"


@pytest.mark.parametrize(("error", "state", "code"), [
    (torch.OutOfMemoryError("tried to allocate 20 GiB"), "out_of_memory", 4),
    (KeyboardInterrupt(), "interrupted", 75),
])  # fmt: skip
def test_out_of_memory_and_interruption_are_states_of_their_own(
    error: BaseException, state: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lorasweep.run.build_model", broken)
    result = train(tiny("train.max_steps=2"), Launch(tmp_path / "run", []))
    assert (result.state, result.exit_code) == (state, code)
    said = {"interrupted": "Stopped: interrupted", "out_of_memory": "What helps: train.fit"}[state]
    assert said in (tmp_path / "run" / "train.log").read_text()


def test_the_command_of_the_readme_trains(tmp_path: Path) -> None:
    done = command(
        "lora.r=64",
        "optim=paged_adamw_32bit",
        "model=tiny",
        "data.limit=24",
        "train.max_steps=2",
        "tracking.wandb=disabled",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    assert json.loads((folder / "record.json").read_text())["overrides"][:2] == ["lora.r=64", "optim=paged_adamw_32bit"]
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 64
    assert "Summary" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_several_values_with_m_are_one_run_each(tmp_path: Path) -> None:
    done = command("-m", *TINY, "lora.r=2,4", "data.limit=24", "train.max_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    configs = sorted((tmp_path / "outputs" / "studies").glob("grid_*/trials/*/run.yaml"))
    assert [yaml.safe_load(path.read_text())["lora"]["r"] for path in configs] == [2, 4]


def test_the_tree_of_the_readme_is_the_tree_there_is() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("    ")}
    assert named == {
        "train.py",
        "conf",
        "sweeps",
        "src/lorasweep",
        "src/hydra_plugins",
        "outputs",
        "benchmarks",
        "docs",
        "tests",
    }
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.slow
def test_a_run_on_local_data_opens_no_connection(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "plain = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    if self.family != socket.AF_UNIX:\n"
        "        open('connections', 'a').write(f'{address}\\n')\n"
        "        raise OSError('no network')\n"
        "    return plain(self, address)\n"
        "def resolve(host, *rest, **options):\n"
        "    open('connections', 'a').write(f'{host}\\n')\n"
        "    raise OSError('no network')\n"
        "socket.socket.connect = socket.socket.connect_ex = connect\n"
        "socket.getaddrinfo = resolve\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = command("experiment=smoke", "tracking.wandb=disabled", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "connections").exists(), (tmp_path / "connections").read_text()
    done = command("model=llama2_7b_chat", cwd=tmp_path, **environment)
    assert (tmp_path / "connections").exists(), "the trap does not catch anything"
    assert done.returncode == 2
