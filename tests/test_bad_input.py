"""Wrong input is found before anything is loaded or written, all of it at once, each with its key, value and place."""

from pathlib import Path

import pytest

from lorasweep.preflight import check_inputs
from lorasweep.rules import UserError
from tests.conftest import ROOT, TINY, command, composed, problems

WRONG = [
    ("lora.rr=3", "lora.rr", "did you mean 'r'?"),
    ("lorra.r=3", "lorra", "did you mean 'lora'?"),
    ("optimizer=lion_8bit", "optimizer", "did you mean 'optim'?"),
    ("optim=paged_adamw_32", "optim", "did you mean 'paged_adamw_32bit'?"),
    ("model=llama2", "model", "did you mean 'llama2_7b_chat'?"),
    ("experiment=smok", "experiment", "did you mean 'smoke'?"),
    ("optim=null", "optim", "one of"),
    ("optim.name=adamw_tork", "optim.name", "did you mean 'adamw_torch'?"),
    ("scheduler.name=cosin", "scheduler.name", "did you mean 'cosine'?"),
    ("lora.r=0", "lora.r", "at least 1"),
    ("lora.r=-4", "lora.r", "at least 1"),
    ("lora.r=4.5", "lora.r", "a whole number"),
    ("lora.r=true", "lora.r", "a whole number"),
    ("lora.r='8'", "lora.r", "a whole number"),
    ("lora.alpha=0", "lora.alpha", "above 0"),
    ("lora.alpha=nan", "lora.alpha", "a finite number"),
    ("lora.alpha=-8", "lora.alpha", "above 0"),
    ("lora.dropout=1.0", "lora.dropout", "below 1"),
    ("lora.dropout=-0.1", "lora.dropout", "at least 0"),
    ("lora.use_dora='yes'", "lora.use_dora", "true or false"),
    ("lora.target_modules=[]", "lora.target_modules", "a list of module names"),
    ("lora=5", "lora", "one of"),
    ("lora.init=pissa", "lora.init", "quant=none"),
    ("optim.lr=nan", "optim.lr", "above 0"),
    ("optim.lr=-1e-4", "optim.lr", "above 0"),
    ("optim.lr=1e400", "optim.lr", "a finite number"),
    ("optim.lr='2e-4'", "optim.lr", "a finite number"),
    ("optim.eps=0", "optim.eps", "above 0"),
    ("train.epochs=null", "train.epochs", "nothing ends the run"),
    ("train.epochs=0", "train.epochs", "above 0"),
    ("train.max_steps=0", "train.max_steps", "at least 1"),
    ("train.max_tokens=-5", "train.max_tokens", "at least 1"),
    ("train.batch_size=0", "train.batch_size", "at least 1"),
    ("train.grad_accum=0", "train.grad_accum", "at least 1"),
    ("train.tokens_per_step=0", "train.tokens_per_step", "at least 1"),
    ("train.tokens_per_step=4000 train.grad_accum=2", "train.grad_accum", "follow from train.tokens_per_step"),
    ("train.tokens_per_step=4000 train.max_tokens=100", "train.max_tokens", "at least train.tokens_per_step"),
    ("train.tokens_per_step=4000 train.group_by_length=true", "train.group_by_length", "sorts the rows of a step"),
    ("train.max_grad_norm=-1", "train.max_grad_norm", "above 0"),
    (
        "train.gradient_checkpointing=maybe",
        "train.gradient_checkpointing",
        "auto, true, false or a whole number of at least 2",
    ),
    ("train.early_stopping=2", "evaluation.times", "at least 2"),
    ("scheduler.warmup=-0.1", "scheduler.warmup", "0 to below 1"),
    ("scheduler.warmup=1.5", "scheduler.warmup", "a whole number of steps"),
    ("scheduler.kwargs=3", "scheduler.kwargs", "dict"),
    ("quant.double_quant=1", "quant.double_quant", "true or false"),
    ("data.max_length=0", "data.max_length", "at least 2"),
    ("data.max_length=-5", "data.max_length", "at least 2"),
    ("data.eval_fraction=1", "data.eval_fraction", "below 1"),
    ("data.prompt='{a}'", "data.completion", "come together"),
    ("data.path=owner/name", "data.path", "belongs to data.source=hub"),
    (f"data.eval_files={ROOT}/train.py", "data.eval_files", "belongs to data.source=files"),
    ("data.eval_split=test", "data.eval_split", "belongs to data.source=hub"),
    ("data.prompt='{'", "data.prompt", "columns in braces"),
    ("data.text='{1}'", "data.text", "columns in braces"),
    ("data.template_date=today", "data.template_date", "a date such as 2024-07-26"),
    ("lora.init=orthogonal quant=none lora.r=3", "lora.r", "an even number"),
    ("evaluation.objective=exact_match data.eval_fraction=0", "data.eval_fraction", "need evaluation rows"),
    (
        "evaluation.objective=accuracy",
        "evaluation.objective",
        "one of loss, exact_match (evaluation.metrics adds more)",
    ),
    ("tracking.wandb=no", "tracking.wandb", "one of auto"),
    ("model.chat_template=nothing.jinja", "model.chat_template", "an existing file"),
    ("hydra.callbacks.x._target_=os.system", "hydra.callbacks.x._target_", "not open to change"),
    ("+hydra.job_logging.handlers.x.class=os.system", "hydra.job_logging.handlers.x.class", "not open to change"),
    ("hydra/launcher=joblib", "hydra/launcher", "not open to change"),
    ("hydra.job.env_set.LD_PRELOAD=x.so", "hydra.job.env_set.LD_PRELOAD", "not open to change"),
    ("+model._target_=os.system", "model._target_", "never names code"),
    ("+scheduler.kwargs._target_=os.system", "scheduler.kwargs._target_", "never names code"),
    ("space=rank", "space", "only for studies"),
    ("study=mine", "study", "only for studies"),
    ("strategy=grid", "strategy", "only for studies"),
    ("lora.r=8,16", "lora.r", "python train.py -m"),
    ("lora.r=choice(8,16)", "lora.r", "python train.py -m"),
    ("lora.r", "lora.r", "key=value"),
    ("foo=[", "foo=[", "key=value"),
    ("name=${oc.env:WANDB_API_KEY}", "config", "looks like a secret"),
    ("name=${nothing}", "config", "nothing"),
    ("--config-name=other", "--config-name", "not supported"),
    ("--config-path=other", "--config-path", "not supported"),
    ("--experimental-rerun=x.pickle", "--experimental-rerun", "not supported"),
    ("--config-dir=nowhere", "--config-dir", "an existing folder"),
    ("hydra.run.dir=/dev/null/run", "hydra.run.dir", "/dev/null is a file"),
]


@pytest.mark.parametrize(("override", "key", "words"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_input_is_named_with_its_key_and_what_is_allowed(override: str, key: str, words: str) -> None:
    (problem,) = problems(*override.split(" "))
    assert problem.key == key
    assert words in str(problem)


@pytest.mark.parametrize(("override", "key"), [
    ("data=jsonl", "data.files"),
    ("data.source=hub", "data.path"),
    ("data.source=files", "data.files"),
])  # fmt: skip
def test_a_data_set_must_be_named(override: str, key: str) -> None:
    assert key in [problem.key for problem in problems(override)]


def test_swept_values_are_checked_one_by_one() -> None:
    found = problems(
        "-m", "strategy=tpe", "lora.r=8,0,4.5", "optim=adamw_torch,adamww", "lora.dropout=interval(0,1)", "lorra.r=1,2"
    )
    assert [(problem.key, problem.value) for problem in found] == [
        ("lora.r", 0), ("lora.r", 4.5), ("optim", "adamww"), ("lora.dropout", 1), ("lorra", {"r": 1}), ("lorra", {"r": 2}),
    ]  # fmt: skip


def test_a_problem_in_a_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("name: sgd\nmomentum: 0.9\nlr: -1\n")
    found = problems(f"--config-dir={tmp_path}", "optim=mine")
    assert {problem.key for problem in found} == {"optim.momentum", "optim.lr"}
    assert all(str(problem.source).endswith("optim/mine.yaml") for problem in found)


@pytest.mark.parametrize(("text", "key"), [
    ("# @package _global_\nhydra:\n  callbacks:\n    x:\n      _target_: os.system\n", "hydra.callbacks.x._target_"),
    ("# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      x:\n        class: os.system\n", "hydra.job_logging.handlers.x.class"),
    ("# @package _global_\nhydra:\n  sweeper:\n    _target_: os.system\n", "hydra.sweeper._target_"),
    ("# @package _global_\nlora:\n  _target_: os.system\n", "lora._target_"),
])  # fmt: skip
def test_a_file_that_names_code_is_refused(tmp_path: Path, text: str, key: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text(text)
    found = problems(f"--config-dir={tmp_path}", "experiment=evil")
    assert key in [problem.key for problem in found]


def test_a_broken_file_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("a: [1\nb: }")
    (problem,) = problems(f"--config-dir={tmp_path}", "experiment=broken")
    assert "broken.yaml" in str(problem)


def test_a_hydra_folder_is_refused_because_its_config_would_be_ignored(tmp_path: Path) -> None:
    folder = tmp_path / ".hydra"
    folder.mkdir()
    (folder / "config.yaml").write_text("lora: {r: 99}")
    (problem,) = problems(f"--config-dir={folder}")
    assert "would be ignored" in problem.allowed


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("{}")
    (problem,) = problems(f"hydra.run.dir={tmp_path}")
    assert "holds another run" in problem.allowed


INPUTS = [
    (("lora.target_modules=[q_proj,v_prj]",), "lora.target_modules", "did you mean 'v_proj'?"),
    (("lora.target_modules=[nothing]",), "lora.target_modules", "down_proj, gate_proj"),
    (("lora.target_modules='.*attn'",), "lora.target_modules", "a regular expression that matches"),
    (("lora.target_modules=[q_proj,lm_head]",), "lora.target_modules", "before the output head"),
    (("lora.target_modules='*proj'",), "lora.target_modules", "nothing to repeat"),
    (("lora.target_modules='.*'",), "lora.target_modules", "it also matches"),
    (("lora.target_modules='.*(q_proj|lm_head)'",), "lora.target_modules", "before the output head"),
    (("model.attention=flash_attention_2",), "model.attention", "flash-attn is not installed"),
    (("model.chat_template='{{ messages'",), "model.chat_template", "a Jinja template that renders"),
    (("scheduler=cosine", "+scheduler.kwargs.num_cycles=abc"), "scheduler.kwargs", "arguments that cosine takes"),
    (("data.max_length=8192",), "data.max_length", "at most 4096"),
    (("scheduler=cosine", "+scheduler.kwargs.cycles=2"), "scheduler.kwargs.cycles", "did you mean 'num_cycles'?"),
    (("scheduler=constant", "+scheduler.kwargs.num_cycles=2"), "scheduler.kwargs.num_cycles", "it has none"),
    (("model.tokenizer=no/such-tokenizer",), "model.tokenizer", "HF_HUB_OFFLINE"),
]


@pytest.mark.parametrize(("overrides", "key", "words"), INPUTS, ids=[" ".join(case[0]) for case in INPUTS])
def test_what_does_not_fit_the_model_is_found_before_its_weights_are_loaded(
    overrides: tuple[str, ...], key: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        check_inputs(composed(*TINY, *overrides))
    (problem,) = caught.value.problems
    assert problem.key == key
    assert words in str(problem)


def test_a_model_that_is_neither_here_nor_reachable_is_named() -> None:
    with pytest.raises(UserError) as caught:
        check_inputs(composed("model=llama2_7b_chat", "data=alpaca"))
    assert [problem.key for problem in caught.value.problems] == ["model.name", "data.path"]


def test_several_mistakes_are_reported_together_without_a_traceback_and_nothing_is_written(tmp_path: Path) -> None:
    done = command("lora.rr=3", "optim=adamww", "optim.lr=nan", "data=jsonl", "data.files=no.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "4 problems" in done.stderr
    for words in ("did you mean 'r'", "adamw_torch", "optim.lr = nan", "no.jsonl", "from command line: lora.rr=3"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_wrong_target_module_leaves_nothing_behind(tmp_path: Path) -> None:
    done = command(*TINY, "lora.target_modules=[q_proj,v_prj]", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'v_proj'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
