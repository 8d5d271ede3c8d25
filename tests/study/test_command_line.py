"""From a command line with -m to a study: its space, what is refused, and how a point becomes a config."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lorasweep import compose, schema
from lorasweep.compose.spaces import as_overrides, literal
from lorasweep.rules import Problem, UserError
from lorasweep.study.canonical import canonical, config_key
from lorasweep.study.definition import Definition
from lorasweep.study.space import Choice, Interval
from tests.conftest import ROOT, composed

SPACES = sorted((ROOT / "sweeps" / "space").glob("*.yaml"))
STRATEGIES = sorted((ROOT / "sweeps" / "strategy").glob("*.yaml"))


def studied(*overrides: str) -> Definition:
    """The study these overrides describe, checked as the command line is."""
    compose.register()
    flags = [text for text in overrides if text.startswith("--")]
    rest = [text for text in overrides if not text.startswith("--")]
    return compose.checked_study(ROOT / "conf", compose.CommandLine.of(["-m", *flags, "model=tiny", *rest]))[1]


def problems(*overrides: str) -> list[Problem]:
    with pytest.raises(UserError) as caught:
        studied(*overrides)
    return caught.value.problems


READ = {
    "lora.r=8,16": Choice("lora.r", (8, 16)),
    "lora.r=choice(8,16)": Choice("lora.r", (8, 16)),
    "lora.r=range(8,33,8)": Interval("lora.r", 8, 32, 8.0, is_int=True),
    "lora.dropout=interval(0,0.1)": Interval("lora.dropout", 0, 0.1),
    "lora.r=int(interval(8,128))": Interval("lora.r", 8, 128, is_int=True),
    "optim.lr=tag(log,interval(1e-5,1e-3))": Interval("optim.lr", 1e-5, 1e-3, log=True),
    "lora.r=int(tag(log,interval(8,128)))": Interval("lora.r", 8, 128, log=True, is_int=True),
    "train.max_grad_norm=null,0.3": Choice("train.max_grad_norm", (None, 0.3)),
    "lora.target_modules=[q_proj,v_proj],all-linear": Choice(
        "lora.target_modules", (["q_proj", "v_proj"], "all-linear")
    ),
    "scheduler=choice(constant,linear)": Choice("scheduler", ("constant", "linear"), is_group=True),
    "quant.double_quant=true,false": Choice("quant.double_quant", (True, False)),
    "lora.dropout=range(0,0.2,0.1)": Interval("lora.dropout", 0, 0.1, 0.1),
    "lora.init=choice('default','gaussian')": Choice("lora.init", ("default", "gaussian")),
    "scheduler=choice('constant',linear)": Choice("scheduler", ("constant", "linear"), is_group=True),
    "lora.target_modules=['q_proj','v_proj'],'all-linear'": Choice(
        "lora.target_modules", (["q_proj", "v_proj"], "all-linear")
    ),
}


@pytest.mark.parametrize("sweep", READ)
def test_the_sweep_grammar_of_hydra_is_read_on_the_command_line_and_in_a_space(sweep: str, tmp_path: Path) -> None:
    tpe = ("strategy=tpe",)
    assert studied(sweep, *tpe).space.dimensions == (READ[sweep],)
    key, _, text = sweep.partition("=")
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text(f"# @package hydra.sweeper.params\n{key}: {text}\n")
    if "[" not in sweep:
        assert studied(f"--config-dir={tmp_path}", "space=mine", *tpe).space.dimensions == (READ[sweep],)


REFUSED = [
    ("lora.rr=8,16", "lora.rr", "no such key in 'lora'"),
    ("lora.r=8,zero", "lora.r", "a whole number"),
    ("lora.r=int(interval(0,8))", "lora.r", "at least 1"),
    ("lora.r=interval(8,64)", "lora.r", "lora.r=int(interval(8,64))"),
    ("optim.lr=interval(1e-3,1e-5)", "hydra.sweeper.params.optim.lr", "a low end below its high end"),
    ("optim.lr=tag(log,interval(0,1e-3))", "optim.lr", "above 0"),
    ("lora.dropout=tag(log,interval(0,0.1))", "hydra.sweeper.params.lora.dropout", "above 0 for a logarithmic scale"),
    ("lora.r=8,16,8", "hydra.sweeper.params.lora.r", "values that differ; 8 and 8 are one"),
    ("lora.r=8 lora.r=8,16", "lora.r", "on the command line twice"),
    ("scheduler=cosine,linaer", "scheduler", "did you mean 'linear'?"),
    ("scheduler=glob(*)", "scheduler", "names one by one"),
    ("space=rank '+hydra.sweeper.params.lora.r=4'", "hydra.sweeper.params.lora.r", "one entry"),
    ("lora.r=shuffle(8,16,32)", "lora.r", "strategy=random"),
    ("lora.r=shuffle(range(8,65,8))", "lora.r", "strategy=random"),
    ("strategy=tpe optim.lr=tag(lgo,interval(1e-5,1e-3))", "optim.lr", "no other tag"),
    ("strategy=tpe optim.lr=tag(log,base,interval(1e-5,1e-3))", "optim.lr", "no other tag"),
    ("lora.r=tag(log,range(8,65,8))", "lora.r", "tag(log,interval(…))"),
    ("lora.r=tag(log,choice(8,64))", "lora.r", "tag(log,interval(…))"),
    ("strategy=tpee", "strategy", "did you mean 'tpe'?"),
    ("strategy=tpe space=rank hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials", "at least 1"),
    ("strategy=tpe space=rank hydra.sweeper.n_trials=null", "hydra.sweeper.n_trials", "nothing else ends a tpe search"),
    ("strategy=tpe space=rank hydra.sweeper.n_jobs=2", "hydra.sweeper.n_jobs", "no such key in 'hydra.sweeper'"),
    ("space=rank hydra.sweeper.sampler=tpee", "hydra.sweeper.sampler", "did you mean 'tpe'?"),
    ("space=rank hydra.sweeper.pruner=median evaluation.times=1", "evaluation.times", "at least 2"),
    ("strategy=pareto space=rank hydra.sweeper.pruner=asha evaluation.times=3", "hydra.sweeper.pruner", "several objectives"),
    ("strategy=asha space=rank hydra.sweeper.objectives=[eval/exact_match]", "hydra.sweeper.pruner", "evaluation.objective"),
    ("space=rank hydra.sweeper.objectives=[eval/lss]", "hydra.sweeper.objectives", "did you mean 'eval/loss'?"),
    ("space=rank hydra.sweeper.objectives=[eval/rougeL]", "hydra.sweeper.objectives", "numbers of a run's summary"),
    ("space=rank 'hydra.sweeper.enqueue=[3]'", "hydra.sweeper.enqueue", "a list of points"),
    ("space=rank 'hydra.sweeper.enqueue=[{lora.rr: 8}]'", "lora.rr", "did you mean 'r'?"),
    ("space=rank 'hydra.sweeper.enqueue=[{lora.r: 8}, {lora.r: many}]'", "lora.r", "a whole number"),
    ("space=rank 'hydra.sweeper.enqueue=[{scheduler: cosin}]'", "scheduler", "did you mean 'cosine'?"),
    ("space=rank 'hydra.sweeper.enqueue=[{lora: {r: 8}}]'", "lora", "one of attention, default"),
    ("space=rank 'hydra.sweeper.enqueue=[{verbosity: quiet}]'", "verbosity", "can differ between trials"),
    ("space=rank 'hydra.sweeper.enqueue=[{hydra.run.dir: x}]'", "hydra.run.dir", "can differ between trials"),
    ("space=rank 'hydra.sweeper.enqueue=[{data.max_length: 64}]'", "data.max_length", "judged on other rows"),
    ("data.packing=false,true", "train.tokens_per_step", "auto or a number"),
    ("train.batch_size=4,8 train.tokens_per_step=auto", "train.tokens_per_step", "a number or null"),
    ("data=demo,alpaca", "data", "judged on other rows"),
    ("experiment=smoke,llama2_guanaco", "experiment", "one value"),
    ("space=rank,learning_rate strategy=tpe", "space", "one value"),
    ("strategy=tpe,random space=rank", "strategy", "one value"),
    ("study=a,b lora.r=8,16", "study", "one value"),
    ("verbosity=quiet,normal", "verbosity", "one value"),
    ("tracking.project=a,b", "tracking.project", "one value"),
    ("data.max_length=128,256", "data.max_length", "judged on other rows"),
    ("evaluation.objective=loss,exact_match", "evaluation.objective", "by another score"),
    ("lora.alpha=8,16 lora.scale=1,2", "lora.alpha", "with lora.scale it has no effect"),
    ("lora.alpha=8,16 lora.scale=2", "lora.alpha", "with lora.scale it has no effect"),
    ("space=rank hydra.sweeper.seed=1,2", "hydra.sweeper.seed", "what varies is written lora.r=8,16"),
    ("+hydra.sweeper.params.lora.r=choice(8,16)", "hydra.sweeper.params.lora.r", "what varies is written lora.r=8,16"),
    ("space=rank hydra.sweeper._target_=os.system", "hydra.sweeper._target_", "not open to change"),
    ("lora.r=8,16 hydra/sweeper=basic", "hydra/sweeper", "not open to change"),
    ("'hydra.sweeper.only_if={lora.r: 3}' lora.r=8,16", "hydra.sweeper.only_if.lora.r", "with the values they must have"),
    ("'+hydra.sweeper.only_if={lora.r: {optimm: [sgd]}}' lora.r=8,16", "hydra.sweeper.only_if.lora.r", "a key or group"),
    ("'+hydra.sweeper.only_if={lora.r: {optim: [sdg]}}' lora.r=8,16", "optim", "did you mean 'sgd'?"),
    ("'+hydra.sweeper.only_if={lora.r: {lora.use_dora: maybe}}' lora.r=8,16", "lora.use_dora", "true or false"),
    ("'+hydra.sweeper.only_if={lora.rr: {optim: [sgd]}}' lora.r=8,16", "hydra.sweeper.only_if.lora.rr", "mean 'lora.r'?"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "key", "allowed"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_is_wrong_with_a_study_is_said_before_anything_starts(overrides: str, key: str, allowed: str) -> None:
    import shlex

    found = problems(*shlex.split(overrides))
    assert any(problem.key == key and allowed in str(problem) for problem in found), found


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = problems("space=rank", "strategy=tpe", "hydra.sweeper.n_trails=3", "lora.alpha=-1,2", "optim.lrr=3")
    assert {problem.key for problem in found} == {"hydra.sweeper.n_trails", "lora.alpha", "optim.lrr"}


def test_a_key_fixed_on_the_command_line_leaves_the_space() -> None:
    definition = studied("space=qlora", "lora.r=64", "strategy=tpe")
    assert "lora.r" not in [dimension.key for dimension in definition.space]
    assert definition.compose({}).run["lora"]["r"] == 64
    assert definition.taken_out == ("lora.r=64",)


def test_points_to_try_first_are_those_that_were_given() -> None:
    points = [{"lora.r": 64, "scheduler": "cosine"}, {"lora.target_modules": ["q_proj"], "train.max_grad_norm": None}]
    given = (
        "hydra.sweeper.enqueue=[{lora.r:64,scheduler:cosine},{lora.target_modules:[q_proj],train.max_grad_norm:null}]"
    )
    definition = studied("space=rank", given)
    assert definition.settings.enqueue == points
    for point in points:
        definition.compose(point)


def test_the_baseline_leaves_out_what_the_config_leaves_out() -> None:
    definition = studied("strategy=tpe", "scheduler=linear", "scheduler.kwargs.power=1.0,2.0", "lora.r=8,16")
    assert definition.space.baseline() == {"lora.r": 16}
    assert definition.compose(definition.space.baseline()).key == definition.compose({}).key


def test_a_sweep_on_the_command_line_takes_the_place_of_the_one_in_a_space() -> None:
    (dimension,) = studied("space=rank", "lora.r=4,6").space.dimensions
    assert dimension == Choice("lora.r", (4, 6))


def test_spaces_compose_and_a_condition_names_what_varies() -> None:
    space = studied("space=[schedule,learning_rate]", "strategy=tpe").space
    assert [dimension.key for dimension in space] == ["scheduler", "optim.lr", "scheduler.warmup"]
    assert space.varies("scheduler.warmup", {"scheduler": "linear"})
    assert not space.varies("scheduler.warmup", {"scheduler": "constant"})


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_composes_and_opens_with_its_command(path: Path) -> None:
    definition = studied(f"space={path.stem}", "strategy=tpe", "study=x")
    for sample in definition.samples():
        definition.compose(sample)
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# python train.py -m")
    assert path.stem in lines[0]


@pytest.mark.parametrize("path", STRATEGIES, ids=lambda path: path.stem)
def test_every_strategy_composes_and_opens_with_its_command(path: Path) -> None:
    settings = studied("space=rank", f"strategy={path.stem}").settings
    assert settings.baseline is (path.stem != "grid")
    lines = [line for line in path.read_text().splitlines() if "@package" not in line]
    assert lines[0].startswith("# python train.py -m")


def test_a_grid_over_a_range_is_refused() -> None:
    (problem,) = problems("optim.lr=interval(1e-4,1e-3)")
    assert problem.key == "hydra.sweeper.params.optim.lr"
    assert "values that can be gone through" in problem.allowed


POINTS: list[dict[str, Any]] = [
    {"lora.r": 64, "optim.lr": 1e-3, "scheduler": "cosine"},
    {"lora.target_modules": ["q_proj", "v_proj"], "train.max_grad_norm": None},
    {"optim": "sgd", "scheduler": "constant", "quant.double_quant": True},
    {"scheduler": "cosine_with_min_lr", "scheduler.kwargs": {"min_lr_rate": 0.1}},
]


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_point_composes_to_what_hydra_makes_of_the_same_overrides(point: dict[str, Any]) -> None:
    definition = studied("study=x", "space=rank", "train.epochs=2", "experiment=smoke")
    made = definition.compose(point)
    plain = composed("model=tiny", "train.epochs=2", "experiment=smoke", *as_overrides(point))
    assert made.run == {**asdict(plain), "study": "x"}
    assert made.key == config_key(plain)
    assert made.varied == as_overrides(point)


def test_a_point_whose_values_contradict_each_other_is_refused() -> None:
    definition = studied("lora.init=default,orthogonal", "lora.r=7,8", "quant=none")
    definition.compose({"lora.init": "orthogonal", "lora.r": 8})
    with pytest.raises(UserError, match="an even number"):
        definition.compose({"lora.init": "orthogonal", "lora.r": 7})


@pytest.mark.parametrize(
    "point",
    [
        *({"model.shape": {"layers": 3}}, {"lora.target_modules": "a ${nosuch}"}, {"model.revision": "???"}),
        *({"lora": ["default", "dora"]}, {"scheduler": "nosuch"}, {"lora.rr": 8}),
    ],
    ids=str,
)
def test_a_point_that_no_config_takes_is_refused_and_ends_no_study(point: dict[str, Any]) -> None:
    definition = studied("lora.r=7,8")
    with pytest.raises(UserError):
        definition.compose(point)


EQUAL = [
    (("scheduler=constant", "scheduler.warmup=0.1"), ("scheduler=constant",)),
    (("lora.scale=2", "lora.r=8", "lora.alpha=5"), ("lora.alpha=16", "lora.r=8")),
    (("verbosity=quiet", "tracking.project=other", "name=x"), ()),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=str)
def test_configs_that_train_the_same_are_equal(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert config_key(composed("model=tiny", *one)) == config_key(composed("model=tiny", *other))


@pytest.mark.parametrize(
    "change", ["scheduler.warmup=0.1", "lora.alpha=5", "train.seed=1", "data.limit=7", "optim=sgd"]
)
def test_configs_that_train_otherwise_differ(change: str) -> None:
    assert config_key(composed("model=tiny")) != config_key(composed("model=tiny", change))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False, width=32)
        | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )
)  # fmt: skip
def test_values_are_written_so_that_hydra_reads_them_back(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from lorasweep.compose.spaces import _plain

    (override,) = OverridesParser.create().parse_overrides([f"lora.target_modules={literal(value)}"])
    assert _plain(override.value()) == value


def test_without_a_name_a_study_gets_one_and_a_folder_of_its_own() -> None:
    one, other = studied("lora.r=8,16"), studied("lora.r=8,16")
    assert one.name.startswith("grid_")
    assert one.folder == Path.cwd() / "outputs" / "studies" / one.name
    assert one.name != other.name
    assert one.compose({}).run["study"] == one.name
    assert studied("study=mine", "lora.r=8,16").folder.name == "mine"


def test_auto_makes_a_step_as_large_as_its_rows_are_on_average() -> None:
    import numpy
    from datasets import Dataset

    from lorasweep.steps import build_plan

    rows = Dataset.from_dict({"supervised": [10, 20, 30, 20] * 10})
    train = schema.Train(tokens_per_step="auto", batch_size=4, grad_accum=2)
    plan = build_plan(train, rows, 0)
    assert plan is not None
    assert plan.tokens_per_step == pytest.approx(160)
    assert numpy.concatenate(plan.steps).size == 40


def test_a_whole_study_is_one_experiment_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    study = {
        "defaults": [{"override /strategy": "tpe"}, {"override /space": ["rank", "learning_rate"]}],
        "study": "whole",
        "lora": {"alpha": 8},
        "hydra": {"sweeper": {"n_trials": 7}},
    }
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(study, sort_keys=False))
    definition = studied(f"--config-dir={tmp_path}", "experiment=mine")
    assert (definition.name, definition.settings.n_trials, definition.settings.sampler) == ("whole", 7, "tpe")
    assert [dimension.key for dimension in definition.space] == ["lora.r", "optim.lr"]
    assert canonical(composed("model=tiny", "lora.alpha=8"))["lora"] == {
        **definition.compose({}).run["lora"],
        "scale": None,
    }
    compose.register()
    with pytest.raises(UserError, match="only for studies"):
        compose.checked_run(ROOT / "conf", compose.CommandLine.of([f"--config-dir={tmp_path}", "experiment=mine"]))


def test_checking_a_study_imports_neither_torch_nor_optuna(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv=['train.py','-m','space=qlora','strategy=tpe'];"
        "from pathlib import Path; from lorasweep import compose;"
        f"compose.check_command_line(Path({str(ROOT / 'conf')!r}));"
        "print(sorted({'torch','optuna','wandb','transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert done.stdout.strip() == "[]", done.stderr
