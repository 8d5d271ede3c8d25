"""What a person does with an adapter: every command on a real tiny NF4 model, from a working directory elsewhere."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from lorasweep import chat as chats
from lorasweep import cli, lora, push, random_model, saved
from lorasweep.assessment import assess, paired_difference, students_t
from lorasweep.card import Card
from lorasweep.data import build_datasets, file_hash
from lorasweep.device import Device
from lorasweep.evaluation import Evaluator, Scores
from lorasweep.local_files import absolute, local_files
from lorasweep.merge import merge, merge_and_compare
from lorasweep.model import build_tokenizer
from lorasweep.preflight import check_inputs
from lorasweep.record import Launch
from lorasweep.rules import UserError
from lorasweep.run import train
from lorasweep.schema import Data, Run
from tests.conftest import ROOT, TINY, composed, tiny
from tests.test_numerics import CPU

BFLOAT16 = Device("cpu", "", 1.0, torch.bfloat16)
STEPS = ("train.max_steps=4", "data.limit=40", "optim.lr=2e-2", "scheduler=constant")


class Done(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def lorasweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Done]]:
    """`lorasweep …` as a user types it, in a folder that has nothing to do with the run."""

    def command(*arguments: str, cwd: Path = tmp_path, answers: str = "") -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["lorasweep", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    yield command
    logging.captureWarnings(False)


def trained(folder: Path, *overrides: str) -> Path:
    """Train a tiny run into `folder`."""
    assert train(tiny(*STEPS, *overrides), Launch(folder, [])).state == "complete"
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an NF4 base, an evaluation and a test split."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    return trained(folder, "data.test_fraction=0.1", "evaluation.generate=2", "evaluation.max_new_tokens=4")


def summary_of(folder: Path) -> dict[str, Any]:
    return saved.read_json(folder / "summary.json")


def loaded(folder: Path, device: Device = CPU, quantised: bool = True) -> tuple[Run, Any, Any]:
    """Run, evaluation rows and model of a run folder."""
    opened = saved.open_run(folder)
    rows = build_datasets(opened.data, build_tokenizer(opened.model), 512)["eval"].rows
    return opened, rows, saved.load(opened, folder, device, quantised)


def loss(opened: Run, rows: Any, model: Any, device: Device = CPU) -> float:
    return Evaluator(rows, build_tokenizer(opened.model), opened.evaluation, device)(model).loss


# opening a run


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
    record = saved.read_json(folder / "record.json")
    (folder / "record.json").write_text(json.dumps({**record, "model": {"commit": "abc123"}}))
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


# what each command says to bad input

UNTRAINED = {"state": "out_of_memory"}
BAD = [
    (["evaluate", "nowhere"], "a run folder, which holds run.yaml"),
    (["chat", "nowhere"], "did you mean 'outputs/runs/nowhere_else'"),
    (["merge", "nowhere", "out"], "The latest in outputs/runs: nowhere_else"),
    (["push", "nowhere", "me/it"], "a run folder"),
    (["evaluate", "untrained"], "the state of this one is out_of_memory"),
    (["chat", "other_tool", "hi"], "this one holds an adapter or a model"),
    (["evaluate", "RUN", "--split", "tset"], "is not one of 'eval', 'test', 'train'"),
    (["evaluate", "RUN", "--data", "none.jsonl"], "does not exist"),
    (["evaluate", "RUN", "evaluation.generat=3"], "did you mean 'generate'"),
    (["evaluate", "RUN", "lora.r=3"], "the adapter is trained"),
    (["evaluate", "RUN", "model.shape.hidden_size=128"], "one of the same sizes"),
    (["evaluate", "RUN", "--max-samples", "0"], "greater than or equal to 1"),
    (["chat", "RUN", "  "], "a conversation begins"),
    (["chat", "RUN", "word " * 5000], "the model's context"),
    (["chat", "RUN", "hi", "--temperature", "-1"], "greater than or equal to 0"),
    (["merge", "RUN", "untrained"], "this one exists"),
    (["merge", "RUN", "file/out"], "cannot be written"),
    (["merge", "RUN", "out", "--dtype", "int8"], "bfloat16"),
    (["push", "RUN", "a/b/c", "--dry-run"], "owner/name on the hub"),
    (["push", "RUN", "me/it", "--merged", "other_tool", "--dry-run"], "lorasweep merge has written"),
    (["push", "RUN", "me/it", "--to", "there"], "with --dry-run only"),
    (["push", "RUN", "me/it", "--dry-run", "--to", "untrained"], "this one exists"),
    (["push", "RUN", "me/it"], "HF_HUB_OFFLINE"),
    (["lm-eval", "RUN", "--tasks", "x", "--include-path", "nowhere"], "an existing folder with task files"),
    (["lm-eval", "RUN", "--tasks", "arc_easy"], "pip install -c constraints.txt -e '.[lm-eval]'"),
    (["lm-eval", "RUN"], "Missing option '--tasks'"),
    (["evaluat", "RUN"], "No such command"),
]  # fmt: skip


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run without an adapter, a folder of another tool, a file and some runs."""
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "file").write_text("")
    for name in ("untrained", "outputs/runs/nowhere_else"):
        (place / name / "experiment").mkdir(parents=True)
        (place / name / "run.yaml").write_text("{}")
        (place / name / "experiment" / "saved.yaml").write_text("{}")
        (place / name / "summary.json").write_text(json.dumps(UNTRAINED))
    (place / "other_tool").mkdir()
    (place / "other_tool" / "adapter_config.json").write_text("{}")
    return place


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(case[0])[:40] for case in BAD])
def test_bad_input_is_said_without_a_traceback(
    arguments: list[str], words: str, run: Path, elsewhere: Path, lorasweep: Callable[..., Done]
) -> None:
    done = lorasweep(*[str(run) if item == "RUN" else item for item in arguments], cwd=elsewhere)
    assert done.code == 2, done
    assert words in re.sub(r"[\s│]+", " ", done.err)
    assert not (elsewhere / "out").exists()


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


def test_warnings_and_help_of_a_real_process(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", "evaluate", str(run), "--json", "evaluation.generate=0"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] == 8
    assert done.stderr == ""


# evaluate


def test_evaluate_scores_what_training_scored(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("evaluate", str(run))
    written, summary = json.loads((run / "evaluations" / "eval.json").read_text()), summary_of(run)
    assert done.code == 0
    assert written["rows_of_training"] is True
    assert written["tuned"]["eval/loss"] == pytest.approx(summary["eval/loss"], rel=1e-6)
    assert written["untuned"]["eval/loss"] == pytest.approx(summary["untuned/eval/loss"], rel=1e-6)
    assert len(written["tuned"]["row_losses"]) == len(written["untuned"]["row_losses"]) == written["count"]
    assert len(written["tuned"]["answers"]) == 2
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


def test_the_interval_is_that_of_a_paired_t_test_where_rows_are_of_one_length() -> None:
    before, after = Scores([3.0, 2.0, 4.0, 3.0], [1] * 4), Scores([2.0, 1.5, 2.0, 2.5], [1] * 4)
    found = paired_difference(before, after)
    assert found
    assert found.mean == -1.0
    assert found.high - found.mean == pytest.approx(3.182 * 0.7071 / 2, rel=0.01)
    assert paired_difference(Scores([1.0], [1]), Scores([1.0], [1])) is None


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_students_t_is_close_to_the_tables(freedom: int, point: float) -> None:
    assert students_t(freedom) == pytest.approx(point, rel=0.01)


def test_rows_that_weigh_more_move_the_interval_more() -> None:
    found = paired_difference(Scores([10.0, 1.0, 1.0], [10, 1, 1]), Scores([5.0, 1.0, 1.0], [10, 1, 1]))
    assert found
    assert found.mean == pytest.approx(-5 / 12)
    assert found.low < found.mean < found.high


# chat


def test_chat_answers_as_the_evaluation_did(run: Path, lorasweep: Callable[..., Done]) -> None:
    lorasweep("evaluate", str(run))
    answers = json.loads((run / "evaluations" / "eval.json").read_text())
    opened = saved.open_run(run)
    chat = chats.open_chat(run, opened, True, None, 4, 0.0)
    typed = re.search(r"user\n(.*?)<\|im_end\|>", answers["tuned"]["answers"][0]["prompt"], re.DOTALL)
    assert typed
    assert chat.ask(typed[1]) == [answers[side]["answers"][0]["generated"] for side in ("untuned", "tuned")]


def test_chat_labels_both_sides_and_keeps_their_turns_apart(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("chat", str(run), "What is 1 plus 2?", "--base", "--max-new-tokens", "3")
    assert done.code == 0
    assert done.out.index("base:") < done.out.index("tuned:")


def test_a_conversation_goes_on_until_the_input_ends(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("chat", str(run), "--max-new-tokens", "3", answers="one\n\n/reset\ntwo\n")
    assert done.code == 0
    assert done.err == ""


def test_a_conversation_is_remembered_cut_and_reset(run: Path) -> None:
    chat = chats.open_chat(run, saved.open_run(run), False, "Be short.", 3, 0.7)
    chat.ask("first")
    chat.ask("second")
    (speaker,) = chat.speakers
    assert [turn["role"] for turn in speaker.turns] == ["user", "assistant"] * 2
    assert chat.style.render(speaker.turns)[0].count("<|im_start|>user") == 2
    chat.ask("word " * 2000)
    chat.ask("word " * 1500)
    assert len(speaker.turns) == 2, "the oldest turns are left out where all do not fit"
    chat.reset()
    assert not speaker.turns


@pytest.mark.parametrize(("data", "typed", "rendered"), [
    (Data(prompt="Q: {question}\n{context}", completion="{a}"), "hi", "<|im_start|>user\nQ: hi<|im_end|>"),
    (Data(prompt="Q: {question}\nA:", completion="{a}", format="completion"), "hi", "Q: hi\nA:"),
    (Data(text="{text}", instruction_part="[I]", response_part="[R]"), "hi", "[I]hi[R]"),
    (Data(format="chat"), "hi {x}", "<|im_start|>user\nhi {x}<|im_end|>"),
])  # fmt: skip
def test_a_question_is_put_where_the_rows_had_theirs(data: Data, typed: str, rendered: str) -> None:
    style = chats.Style(data, build_tokenizer(tiny().model))
    text, _ = style.render([{"role": "user", "content": style.question(typed)}])
    assert text.startswith(rendered)


def test_any_special_token_ends_an_answer(run: Path) -> None:
    chat = chats.open_chat(run, saved.open_run(run), False, None, 3, 0.0)
    assert set(chat.settings.eos_token_id) >= set(chat.style.tokenizer.all_special_ids)


# merge


@pytest.mark.parametrize(
    "overrides", [(), ("lora=dora",), ("lora=rslora",), ("lora.init=pissa", "quant=none")], ids=str
)
def test_the_merged_model_is_the_base_with_the_adapter(overrides: tuple[str, ...], tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", *overrides)
    opened, rows, beside = loaded(folder, BFLOAT16, quantised=False)
    result = merge(opened, folder, tmp_path / "deep" / "out", None)
    assert result.comparison.strength == pytest.approx(1, abs=0.02)
    assert result.comparison.equal_predictions > 0.98
    assert result.loss_as_trained == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    assert result.loss_merged == pytest.approx(loss(opened, rows, beside, BFLOAT16), rel=2e-3)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "out", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "out")
    assert tokenizer.chat_template
    row = rows[0]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    with torch.no_grad():
        alone = plain(input_ids=ids, labels=labels).loss.item()
    assert alone == pytest.approx(loss(opened, rows.select([0]), beside, BFLOAT16), rel=5e-3)
    files = {path.name: path for path in (tmp_path / "deep" / "out").iterdir()}
    assert {"model.safetensors", "generation_config.json", "merge.json", "tokenizer.json"} <= files.keys()
    assert files["model.safetensors"].stat().st_mode == files["config.json"].stat().st_mode


@pytest.mark.parametrize("fault", ["twice", "half", "not at all"])
def test_a_wrong_merge_is_found_and_not_written(
    fault: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factor = {"twice": 2.0, "half": 0.5, "not at all": 0.0}[fault]

    def wrong(model: Any) -> Any:
        for module in model.modules():
            if isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {name: factor * value for name, value in module.scaling.items()}
        return model.merge_and_unload(safe_merge=True)

    monkeypatch.setattr(lora, "merge_adapter", wrong)
    _, rows, model = loaded(run, BFLOAT16, quantised=False)
    comparison = merge_and_compare(model, rows, BFLOAT16)[1]
    assert comparison.strength == pytest.approx(factor, abs=0.02)
    assert not comparison.faithful
    with pytest.raises(UserError, match="Nothing was written"):
        merge(saved.open_run(run), run, tmp_path / "out", "float16")
    assert not list(tmp_path.iterdir())


def test_an_adapter_with_infinite_weights_is_not_merged(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(folder)], check=True)
    weights = folder / "adapter" / lora.WEIGHTS
    state = load_file(weights)
    save_file({name: torch.full_like(value, float("inf")) for name, value in state.items()}, weights)
    with pytest.raises(UserError, match="finite weights"):
        merge(saved.open_run(folder), folder, tmp_path / "out", None)


def test_without_held_out_rows_a_merge_is_judged_on_training_rows_and_says_so(
    tmp_path: Path, lorasweep: Callable[..., Done]
) -> None:
    folder = trained(tmp_path / "run", "data.eval_fraction=0")
    done = lorasweep("merge", str(folder), "out", "--dtype", "float16")
    assert done.code == 0
    assert "32 of train, which training has seen" in done.out
    assert json.loads((tmp_path / "out" / "merge.json").read_text())["dtype"] == "float16"


# what an adapter's start and biases do to its base


@pytest.mark.parametrize("overrides", [
    ("lora.init=olora",), ("lora.init=pissa",), ("lora.init=pissa", "lora.use_rslora=true"), ("lora.init=orthogonal",),
    ("lora.init=gaussian",), ("lora.init=orthogonal", "lora=dora"),
], ids=str)  # fmt: skip
def test_every_start_is_saved_as_an_adapter_of_the_untouched_base(overrides: tuple[str, ...], tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "quant=none", "lora.r=4", *overrides)
    opened, rows, model = loaded(folder)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with lora.untuned(model):
        assert loss(opened, rows, model) == pytest.approx(loss(opened, rows, saved.load_base(opened, CPU)), rel=1e-7)


def test_saved_as_peft_does_the_base_would_stay_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora, "CHANGES_BASE", ())
    folder = trained(tmp_path / "run", "quant=none", "lora.init=pissa", "lora.r=4")
    opened, rows, model = loaded(folder)
    with lora.untuned(model):
        assert abs(loss(opened, rows, model) - summary_of(folder)["untuned/eval/loss"]) > 1e-4


def test_trained_biases_are_taken_back_where_the_base_is_asked(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(random_model.folder(tiny().model.shape))
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    folder = trained(tmp_path / "run", "model.source=hub", f"model.name={tmp_path}/base", "lora.bias=all")
    opened, rows, model = loaded(folder)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with lora.untuned(model):
        assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["untuned/eval/loss"], rel=1e-6)
    assert loss(opened, rows, model) == pytest.approx(summary_of(folder)["eval/loss"], rel=1e-6)
    with model.disable_adapter():
        assert loss(opened, rows, model) != pytest.approx(summary_of(folder)["untuned/eval/loss"], rel=1e-6)


def test_an_adapter_that_rounding_takes_away_is_refused_in_bfloat16_and_merged_in_float16(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "optim.lr=2e-5", "train.max_steps=2")
    with pytest.raises(UserError, match="rounded away: float16"):
        merge(saved.open_run(folder), folder, tmp_path / "out", "bfloat16")
    weaker = merge(saved.open_run(folder), folder, tmp_path / "out", "float16").comparison.strength
    assert 0.9 < weaker < 1.1


# push


@pytest.fixture(scope="module")
def merged(run: Path) -> Path:
    """The run's merged model."""
    merge(saved.open_run(run), run, run.parent / "merged", None)
    return run.parent / "merged"


def metadata(folder: Path) -> dict[str, Any]:
    values = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert isinstance(values, dict)
    return values


def test_a_dry_run_writes_and_lists_what_would_be_pushed(run: Path, lorasweep: Callable[..., Done]) -> None:
    done = lorasweep("push", str(run), "me/it", "--dry-run", "--to", "upload")
    files = {str(path.relative_to("upload")) for path in Path("upload").rglob("*") if path.is_file()}
    assert done.code == 0
    assert {"README.md", "adapter_model.safetensors", "tokenizer.json", "run.yaml", "summary.json"} <= files
    assert all(name in done.out for name in files)
    found = metadata(Path("upload"))
    assert (found["library_name"], found["pipeline_tag"]) == ("peft", "text-generation")
    assert "base_model" not in found
    assert "not a repository on the hub" in Path("upload/README.md").read_text()
    summary = summary_of(run)
    assert (
        f"| {summary['untuned/eval/loss']:.4f} | {summary['eval/loss']:.4f} |" in Path("upload/README.md").read_text()
    )


@pytest.mark.parametrize("what", ["adapter", "merged"])
def test_the_code_of_the_card_works(what: str, run: Path, merged: Path, tmp_path: Path) -> None:
    target = tmp_path / "upload"
    push.dry_run(saved.open_run(run), run, "me/it", merged if what == "merged" else None, target)
    code = re.search(r"```python\n(.*?)```", (target / "README.md").read_text(), re.DOTALL)
    assert code
    exec(code[1].replace('"me/it"', repr(str(target))), {})


def test_the_pushed_config_trains_the_same_run(run: Path, tmp_path: Path) -> None:
    push.dry_run(saved.open_run(run), run, "me/it", None, tmp_path / "it")
    again = composed(f"--config-dir={tmp_path}/it", "experiment=saved")
    assert again == saved.as_recorded(run)


def test_nothing_that_is_pushed_names_this_machine(
    run: Path, merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = saved.as_recorded(run)
    recorded.data = Data(source="files", files=["/home/me/secret place/rows.jsonl"], eval_files="/home/me/held.jsonl")
    recorded.model.chat_template, recorded.tracking.entity = "/home/me/mine.jinja", "my-team"
    monkeypatch.setattr(saved, "as_recorded", lambda folder: recorded)
    for name, place in (("adapter", None), ("merged", merged)):
        push.dry_run(saved.open_run(run), run, "me/it", place, tmp_path / name)
        for path in (tmp_path / name).rglob("*.*"):
            text = path.read_bytes()
            for word in (b"/home/me", b"secret place", b"my-team", str(tmp_path).encode(), str(run.parent).encode()):
                assert word not in text, path
            assert str(Path.home()).encode() + b"/" not in text, path
        assert yaml.safe_load((tmp_path / name / "run.yaml").read_text())["data"]["files"] == ["rows.jsonl"]


def test_a_card_names_base_and_data_of_the_hub() -> None:
    run = composed("model=llama2_7b_chat", "data=alpaca", "model.revision=abc")
    text = Card(run, {}, {}, "me/it", merged=False).text()
    values = yaml.safe_load(text.split("---\n")[1])
    assert values["base_model"] == "NousResearch/Llama-2-7b-chat-hf"
    assert values["datasets"] == ["yahma/alpaca-cleaned"]
    assert 'from_pretrained("NousResearch/Llama-2-7b-chat-hf", revision="abc"' in text
    assert "nothing was evaluated" in text


def test_only_what_was_merged_from_the_run_is_pushed_as_it(run: Path, merged: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other")
    with pytest.raises(UserError, match="a model merged from this run"):
        push.dry_run(saved.open_run(other), other, "me/it", merged, tmp_path / "upload")
    assert not (tmp_path / "upload").exists()


@pytest.mark.parametrize(("environment", "words"), [
    ({}, "hf auth login"), ({"HF_TOKEN": "hf_nothing", "HF_ENDPOINT": "http://127.0.0.1:9"}, "can be reached"),
])  # fmt: skip
def test_pushing_without_token_or_network_is_said_before_anything_is_sent(
    environment: dict[str, str], words: str, run: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lorasweep.cli", "push", str(run), "me/it"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


# training further


def test_training_further_starts_exactly_where_the_first_run_ended(run: Path, tmp_path: Path) -> None:
    again = ("data.test_fraction=0.1", "evaluation.keep=last", "lora.dropout=0.2")
    folder = trained(tmp_path / "second", f"model.adapter={run}", *again)
    assert summary_of(folder)["untuned/eval/loss"] == summary_of(run)["eval/loss"]
    assert summary_of(folder)["eval/loss"] != summary_of(run)["eval/loss"]
    origin = saved.read_json(folder / "record.json")["adapter"]
    assert origin == {"location": str(run / "adapter"), "sha256": file_hash(run / "adapter" / lora.WEIGHTS)}
    made = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (made["lora_dropout"], made["r"]) == (0.2, 16)
    values = load_file(folder / "adapter" / lora.WEIGHTS).values()
    assert {value.dtype for value in values} == {torch.float32}


def test_the_weights_at_step_0_are_those_of_the_file(run: Path) -> None:
    start = tiny(f"model.adapter={run}/adapter")
    model = saved.load_base(start, CPU)
    adapted = lora.load_adapter(model, run / "adapter", trainable=True, dropout=0.1, seed=3)
    kept = load_file(run / "adapter" / lora.WEIGHTS)
    values = lora.trainable(adapted)
    assert len(values) == len(kept)
    for name, value in kept.items():
        own = values[name.replace(".weight", ".default.weight")]
        assert own.dtype == torch.float32
        assert torch.equal(own, value)


def found(*overrides: str) -> dict[str, str]:
    with pytest.raises(UserError) as caught:
        check_inputs(tiny(*overrides))
    return {problem.key: problem.allowed for problem in caught.value.problems}


def test_every_field_that_differs_from_the_adapter_is_named_with_what_to_type(run: Path) -> None:
    wrong = found(f"model.adapter={run}", "lora=attention", "lora.use_dora=true", "lora.bias=all")
    assert wrong == {
        "lora.r": "16, as the adapter was made: lora.r=16",
        "lora.alpha": "32, as the adapter was made: lora.alpha=32",
        "lora.bias": "none, as the adapter was made: lora.bias=none",
        "lora.use_dora": "false, as the adapter was made: lora.use_dora=false",
        "lora.target_modules": "all-linear, as the adapter was made: 'lora.target_modules=all-linear'",
    }
    check_inputs(tiny(f"model.adapter={run}", r"lora.target_modules='.*_proj'", "lora.dropout=0.3"))


def test_an_adapter_of_another_base_is_refused(run: Path) -> None:
    assert (
        "has size 64, the model's 128" in found(f"model.adapter={run}", "model.shape.hidden_size=128")["model.adapter"]
    )


@pytest.mark.parametrize(("changes", "words"), [
    ({"peft_type": "IA3"}, "this is IA3"),
    ({"modules_to_save": ["lm_head"]}, "without modules_to_save"),
    ({"init_lora_weights": "pissa"}, "changed the base"),
    ("{", "can be read"),
    (None, "can run code when they are read"),
])  # fmt: skip
def test_adapters_that_cannot_be_trained_further_are_refused(
    changes: Any, words: str, run: Path, tmp_path: Path
) -> None:
    made = json.loads((run / "adapter" / "adapter_config.json").read_text())
    text = changes if isinstance(changes, str) else json.dumps({**made, **(changes or {})})
    (tmp_path / "adapter_config.json").write_text(text)
    if changes is not None:
        (tmp_path / lora.WEIGHTS).write_bytes((run / "adapter" / lora.WEIGHTS).read_bytes())
    assert words in found(f"model.adapter={tmp_path}")["model.adapter"]
