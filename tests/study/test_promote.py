"""A trial becomes an experiment that composes to it, and lets groups on the command line win."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from lorasweep import compose, promote
from lorasweep.compose.checked import initialised
from lorasweep.compose.study import start
from lorasweep.rules import UserError
from lorasweep.saved import as_recorded
from lorasweep.study.definition import FREE, flat
from lorasweep.study.outcomes import State
from lorasweep.study.settings import Settings
from lorasweep.study.store import Store
from tests.conftest import ROOT
from tests.study.trials import defined, ended, kept, trained

NAME = "s_best"
QLORA = ("model=tiny", "strategy=tpe", "space=[qlora,learning_rate]")


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Any]:
    """Trains points of a study, by hand; the experiment of its best, and its values."""
    compose.register()
    folder = tmp_path / "s"

    def run(
        *overrides: str, point: dict[str, Any], config_dir: Path | None = None
    ) -> tuple[promote.Promoted, dict[str, Any]]:
        with initialised(ROOT / "conf", config_dir):
            definition = defined(folder, *overrides)
            definition.compose(definition.space.baseline())
            store = kept(folder, definition)
            trained(store, definition, definition.space.baseline(), 2.0, "baseline")
            number = trained(store, definition, point, 1.5)
        made = promote.describe(store, folder, NAME)
        assert made.trial == number
        recorded = asdict(as_recorded(folder / "trials" / str(number)))
        store.close()
        (tmp_path / "mine" / "experiment").mkdir(parents=True)
        (tmp_path / "mine" / "experiment" / f"{NAME}.yaml").write_text(made.text)
        return made, values(recorded)

    return run


def values(run: dict[str, Any]) -> dict[str, Any]:
    return flat({name: value for name, value in run.items() if name not in FREE})


def composed(place: Path, *overrides: str) -> dict[str, Any]:
    line = compose.CommandLine.of([f"--config-dir={place / 'mine'}", f"experiment={NAME}", *overrides])
    return values(asdict(compose.checked_run(ROOT / "conf", line)))


POINTS = [
    ((*QLORA,), {"optim.lr": 5e-05, "lora.r": 64, "lora.alpha": 8, "lora.dropout": 0.05, "scheduler": "cosine",
                 "train.max_grad_norm": 0.3, "data.packing": True}),
    (("model=tiny", "optim.name=sgd,adamw_8bit"), {"optim.name": "adamw_8bit"}),
    (("experiment=llama2_guanaco", "lora.target_modules=[q_proj],all-linear"), {"lora.target_modules": ["q_proj"]}),
    (("model=tiny", "quant=nf4,nf4_double", "scheduler=cosine_with_min_lr,linear"),
     {"quant": "nf4_double", "scheduler": "linear"}),
    (("experiment=llama3_responses", "lora=default,dora", r"data.system='a ${data.split} \${x}'"), {"lora": "dora"}),
    (("model=tiny", "scheduler=cosine_with_min_lr", "scheduler.name=linear,cosine_with_min_lr", "scheduler.kwargs={}"),
     {"scheduler.name": "linear"}),
    (("model=tiny", "data=jsonl", "data.files=README.md", "lora.r=8,9"), {"lora.r": 9}),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "point"), POINTS)
def test_the_experiment_composes_to_the_values_of_the_trial(
    study: Callable[..., Any],
    tmp_path: Path,
    overrides: tuple[str, ...],
    point: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    made, wanted = study(*overrides, point=point)
    assert composed(tmp_path) == wanted
    lines = made.text.splitlines()
    assert lines[:2] == ["# @package _global_", f"# python train.py experiment={NAME}"]
    assert lines[2] == "# loss 1.5 (the baseline: 2): trial 1 of the study s"


def test_a_group_on_the_command_line_wins_over_the_experiment(study: Callable[..., Any], tmp_path: Path) -> None:
    point = {"optim.name": "adamw_8bit", "scheduler": "cosine"}
    made, _ = study("model=tiny", "optim.name=sgd,adamw_8bit", "scheduler=cosine,linear", point=point)
    assert "  - override /optim: adamw_8bit\n" in made.text
    assert not made.inlined
    chosen = ("model=smollm2_135m", "quant=fp4", "lora=dora", "optim=sgd", "scheduler=constant")
    found = composed(tmp_path, *chosen)
    wanted = {"model.source": "embedded", "quant.method": "fp4", "lora.use_dora": True,
              "optim.name": "sgd", "scheduler.name": "constant"}  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted


def test_a_group_of_a_folder_that_is_not_in_conf_is_written_out_and_that_is_said(
    study: Callable[..., Any], tmp_path: Path
) -> None:
    place = tmp_path / "theirs"
    (place / "lora").mkdir(parents=True)
    (place / "lora" / "wide.yaml").write_text("r: 99\nalpha: 7\ntarget_modules: [q_proj]\n")
    made, wanted = study("model=tiny", "lora=wide", "optim.lr=1e-3,2e-3", point={"optim.lr": 2e-3}, config_dir=place)
    (place / "lora" / "wide.yaml").unlink()
    assert composed(tmp_path) == wanted
    assert made.inlined == {"lora": "there is no conf/lora/wide.yaml"}
    assert "# lora: all values are here, for there is no conf/lora/wide.yaml" in made.text
    assert wanted["lora.r"] == 99


def test_without_a_note_of_its_groups_a_trial_is_still_promoted_with_its_values(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Store.note
    monkeypatch.setattr(
        Store,
        "note",
        lambda self, number, **facts: note(self, number, **{k: v for k, v in facts.items() if k != "choices"}),
    )
    made, wanted = study("model=tiny", "optim=sgd,adamw_8bit", point={"optim": "adamw_8bit"})
    assert composed(tmp_path) == wanted
    assert "override /optim: adamw_8bit" in made.text
    assert "model" in made.inlined


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study below outputs/studies of the working directory: a trial that failed, two without a config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(promote, "CONF", tmp_path / "conf")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    place = tmp_path / "outputs" / "studies" / "first"
    store = kept(place)
    ended(store, {"x": 1}, State.FAILED)
    ended(store, {"x": 2}, 2.0)
    ended(store, {"x": 3}, 1.0)
    store.close()
    return place


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"number": 0}, "this one is failed, the best are 2, 1"), ({"number": 9}, "the best are 2, 1"),
     ({}, "has no run.yaml"), ({"name": "a/b"}, "it names a file"), ({"name": "taken"}, "or --force")],
)  # fmt: skip
def test_what_cannot_be_promoted_is_said_and_nothing_written(
    folder: Path, arguments: dict[str, Any], words: str
) -> None:
    taken = promote.CONF / "experiment" / "taken.yaml"
    taken.write_text("mine")
    with pytest.raises(UserError, match=words):
        promote.promote(folder, **arguments)
    assert [path.name for path in taken.parent.iterdir()] == ["taken.yaml"]
    assert taken.read_text() == "mine"


def test_a_study_without_complete_trials_has_nothing_to_promote(tmp_path: Path) -> None:
    ended(kept(tmp_path / "s"), {"x": 1}, State.DIVERGED)
    with pytest.raises(UserError, match="it has none yet"):
        promote.promote(tmp_path / "s")


def test_the_best_is_written_beside_the_study_as_what_promote_writes(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = study("model=tiny", "lora.r=8,9", point={"lora.r": 9})
    with initialised(ROOT / "conf", None):
        promote.write_best(defined(tmp_path / "s", "model=tiny", "lora.r=8,9"))
    assert (tmp_path / "s" / "best.yaml").read_text() == made.text


def test_a_best_that_cannot_be_written_ends_nothing(
    study: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study("model=tiny", "lora.r=8,9", point={"lora.r": 9})
    (tmp_path / "s" / "best.yaml").mkdir()
    with initialised(ROOT / "conf", None):
        promote.write_best(defined(tmp_path / "s", "model=tiny", "lora.r=8,9"))
    assert "best.yaml cannot be written: Is a directory" in capsys.readouterr().out


def test_what_has_ended_a_study_is_what_is_said(
    study: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["model=tiny", "lora.r=8,9", f"hydra.sweep.dir={tmp_path / 's'}"]
    study(*overrides[:2], point={"lora.r": 9})
    database = tmp_path / "s" / "study.db"
    (tmp_path / "s" / ".lock").touch()
    database.write_bytes(database.read_bytes()[:20_000])
    with initialised(ROOT / "conf", None):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [overrides[0], overrides[2]], RunMode.MULTIRUN)
        with pytest.raises(SystemExit):
            start(Settings(), loader, master, overrides)
    assert "put a copy of it back" in capsys.readouterr().err


def test_an_experiment_is_replaced_only_if_that_is_asked_for(
    study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study("model=tiny", "lora.r=8,9", point={"lora.r": 9})
    taken = tmp_path / "conf" / "experiment" / f"{NAME}.yaml"
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.setattr(promote, "CONF", tmp_path / "conf")
    assert promote.promote(tmp_path / "s")[1] == taken
    with pytest.raises(UserError, match="exists"):
        promote.promote(tmp_path / "s")
    promote.promote(tmp_path / "s", number=0, force=True)
    assert "trial 0 of the study s" in taken.read_text()
