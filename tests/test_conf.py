"""conf/ and sweeps/: every file composes and builds, and what beats what."""

from pathlib import Path

import pytest
import yaml

from lorasweep import schema
from lorasweep.device import Device
from lorasweep.lora import build_adapter
from lorasweep.optim import optimizer_arguments
from lorasweep.quant import build_quantization
from lorasweep.scheduler import scheduler_arguments
from tests.conftest import ROOT, composed

FILES = {group: sorted((ROOT / "conf" / group).glob("*.yaml")) for group in (*schema.SECTIONS, "experiment")}
EVERY = [(group, path.stem) for group, paths in FILES.items() for path in paths]
STUDIES = [path.stem for path in FILES["experiment"] if "study" in yaml.safe_load(path.read_text())]
NEEDS = {("data", "jsonl"): ("data.files=train.py",), **{("experiment", name): ("-m",) for name in STUDIES}}
CPU = Device("cpu", "", 1.0, __import__("torch").float32)


def test_every_group_has_its_options() -> None:
    assert {group: len(paths) for group, paths in FILES.items()} == {
        "model": 8, "quant": 5, "lora": 4, "optim": 9, "scheduler": 8, "data": 6, "experiment": 4,
    }  # fmt: skip


@pytest.mark.parametrize(("group", "option"), EVERY)
def test_every_file_composes(group: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run = composed(*NEEDS.get((group, option), ()), f"{group}={option}")
    assert isinstance(run, schema.Run)


@pytest.mark.parametrize(("group", "option"), EVERY)
def test_every_file_opens_with_the_command_that_uses_it(group: str, option: str) -> None:
    lines = [
        line for line in (ROOT / "conf" / group / f"{option}.yaml").read_text().splitlines() if "@package" not in line
    ]
    assert lines[0].startswith("# python train.py")
    assert f"{group}={option}" in lines[0] or f"lora.r={option}" in lines[0] or (group, option) == ("lora", "default")


@pytest.mark.parametrize("option", [path.stem for path in FILES["optim"]])
def test_every_optimizer_file_is_named_after_its_optimizer(option: str) -> None:
    assert optimizer_arguments(composed(f"optim={option}").optim)["optim"] == option


@pytest.mark.parametrize("option", [path.stem for path in FILES["scheduler"]])
def test_every_schedule_builds(option: str) -> None:
    import torch
    from transformers import get_scheduler

    arguments = scheduler_arguments(composed(f"scheduler={option}").scheduler, 100)
    assert arguments["lr_scheduler_type"] == option
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    get_scheduler(option, optimizer, arguments["warmup_steps"], 100, arguments["lr_scheduler_kwargs"])


@pytest.mark.parametrize("option", [path.stem for path in FILES["quant"]])
def test_every_quantisation_builds(option: str) -> None:
    built = build_quantization(composed(f"quant={option}").quant, CPU)
    assert (built is None) == (option == "none")
    if option.startswith(("nf4", "fp4")):
        assert built is not None
        assert built.bnb_4bit_quant_type == option[:3]
        assert built.bnb_4bit_use_double_quant == option.endswith("double")


@pytest.mark.parametrize("option", [path.stem for path in FILES["lora"]])
def test_every_adapter_builds(option: str) -> None:
    built = build_adapter(composed(f"lora={option}").lora)
    assert (built.use_dora, built.use_rslora) == (option == "dora", option == "rslora")


OTHER = {"model": "tiny", "quant": "int8", "lora": "dora", "optim": "sgd", "scheduler": "inverse_sqrt", "data": "demo"}


@pytest.mark.parametrize("experiment", [path.stem for path in FILES["experiment"]])
@pytest.mark.parametrize("group", schema.SECTIONS)
def test_a_group_on_the_command_line_wins_over_every_experiment(experiment: str, group: str) -> None:
    alone = getattr(composed(f"{group}={OTHER[group]}"), group)
    needs = NEEDS.get(("experiment", experiment), ())
    chosen = getattr(composed(*needs, f"experiment={experiment}", f"{group}={OTHER[group]}"), group)
    key = {"model": "source", "quant": "method", "lora": "use_dora", "data": "source"}.get(group, "name")
    assert getattr(chosen, key) == getattr(alone, key)


@pytest.mark.parametrize("experiment", [path.stem for path in FILES["experiment"]])
@pytest.mark.parametrize("scheduler", [path.stem for path in FILES["scheduler"]])
def test_every_schedule_goes_with_every_experiment(experiment: str, scheduler: str) -> None:
    needs = NEEDS.get(("experiment", experiment), ())
    assert composed(*needs, f"experiment={experiment}", f"scheduler={scheduler}").scheduler.name == scheduler


def test_a_value_on_the_command_line_wins_over_the_experiment() -> None:
    assert composed("experiment=llama2_guanaco", "lora.r=32").lora.r == 32


def test_the_first_tutorial_is_there_with_its_settings() -> None:
    run = composed("experiment=llama2_guanaco")
    assert (run.lora.r, run.lora.alpha, run.lora.dropout, run.lora.target_modules) == (
        64,
        16,
        0.1,
        ["q_proj", "v_proj"],
    )
    assert (run.quant.method, run.quant.double_quant) == ("nf4", False)
    assert (run.train.batch_size, run.train.grad_accum, run.train.epochs, run.train.max_grad_norm) == (4, 1, 1, 0.3)
    assert (run.optim.name, run.optim.lr, run.optim.weight_decay) == ("paged_adamw_32bit", 2e-4, 0.001)
    assert (run.scheduler.name, run.scheduler.warmup) == ("constant_with_warmup", 0.03)
    assert (run.train.group_by_length, run.data.max_length, run.data.packing) == (True, None, False)
    assert (run.train.save_every, run.train.log_every, run.train.gradient_checkpointing) == (25, 25, True)


def test_the_second_tutorial_is_there_with_its_settings() -> None:
    run = composed("experiment=llama3_responses")
    assert (run.train.batch_size, run.train.grad_accum, run.train.max_steps, run.train.seed) == (2, 4, 60, 42)
    assert (run.optim.name, run.optim.lr, run.optim.weight_decay) == ("adamw_8bit", 2e-4, 0.01)
    assert (run.scheduler.name, run.scheduler.warmup) == ("linear", 5)
    assert (run.data.response_only, run.data.num_proc, run.train.log_every) == (True, 2, 1)


def test_values_files_never_name_code() -> None:
    files = [path for folder in ("conf", "sweeps") for path in (ROOT / folder).rglob("*.yaml")]
    assert len(files) > 40
    assert not [path for path in files if "_target_" in path.read_text()]


def test_names_of_optimizers_and_schedules_are_those_of_transformers() -> None:
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert set(schema.OPTIMIZERS) <= {item.value for item in OptimizerNames}
    assert set(schema.SCHEDULERS) <= {item.value for item in SchedulerType}


def test_the_search_path_of_sweeps_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert composed("-m", "space=rank", "study=ranks").study == "ranks"
