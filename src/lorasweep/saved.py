"""A run folder opened again: the config it was trained with, and its model with the adapter it kept."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lorasweep import compose
from lorasweep.places import RUNS, latest_runs
from lorasweep.record import CHECKOUT, adapter_folder
from lorasweep.results import read_json
from lorasweep.rules import Problem, UserError, build, nearest
from lorasweep.schema import Run
from lorasweep.versions import current

if TYPE_CHECKING:
    from lorasweep.device import Device

TRAINED = ("lora", "optim", "scheduler", "train", "tracking", "experiment", "name", "hydra")
"""Sections that say how an adapter is made, and nothing about one that is."""
WITHOUT_DATA = ("data.source=demo", *(f"data.{name}=null" for name in (
    "path", "subset", "revision", "eval_split", "test_split", "files", "eval_files", "test_files",
    "eval_rows", "test_rows",
)), "data.streaming=false")  # fmt: skip
"""Leaves out where rows come from and keeps how they are rendered."""


def open_run(folder: Path, overrides: Sequence[str] = (), needs_data: bool = True) -> Run:
    """Return the run of a folder as it was trained, but for `overrides`; checked as the command line is.

    The base is taken at the commit that was recorded. Raises UserError for a folder that holds no run or no adapter,
    and, unless the data is not needed, for data that is gone.
    """
    _check_folder(folder)
    arguments = [f"--config-dir={folder.resolve()}", "experiment=saved"]
    # Nothing is trained: where a run would go, and the adapter this one began with, do not matter.
    arguments += ["model.adapter=null", f"hydra.run.dir='{Path(tempfile.gettempdir()) / 'lorasweep-no-run'}'"]
    if commit := read_json(folder / "record.json").get("model", {}).get("commit"):
        arguments.append(f"model.revision={commit}")
    compose.register()
    line = compose.CommandLine.of([*arguments, *(() if needs_data else WITHOUT_DATA), *overrides])
    line.problems += _without_effect(compose.CommandLine.of(overrides))
    return compose.checked_run(CHECKOUT / "conf", line)


def _without_effect(line: compose.CommandLine) -> Iterator[Problem]:
    """Yield the overrides that come too late: an adapter that is trained does not change with them."""
    for override in line.overrides:
        section = re.split(r"[./]", override.key_or_group)[0]
        if section in TRAINED or override.key_or_group == "model.adapter":
            allowed = "left out: the adapter is trained; to train another, python train.py --config-dir RUN …"
            yield Problem(override.key_or_group, override.value(), allowed)


def as_recorded(folder: Path) -> Run:
    """Return the run exactly as run.yaml has it, whatever has become of the files it names."""
    text = (folder / "run.yaml").read_text(encoding="utf-8").replace("\\${", "${")
    run = build(current(yaml.safe_load(text), folder / "run.yaml"), Run, set())
    assert isinstance(run, Run)
    return run


def load_base(run: Run, device: Device, quantised: bool = True, dequantised: bool = False) -> Any:
    """Load the base as the run trained on it, or in 16 bit; its head is fused as evaluation needs it.

    Dequantised: in 16 bit too, but with the values that the quantised weights stand for.
    """
    from trl.trainer.utils import add_fused_lm_head

    from lorasweep.model import build_model
    from lorasweep.quant import build_quantization, keep_gradients_on_cpu

    quantization = build_quantization(run.quant, device) if quantised or dequantised else None
    base = build_model(run.model, quantization, device)
    if dequantised:
        base = base.dequantize(dtype=device.precision)
    if not device.is_gpu:
        keep_gradients_on_cpu(base)  # the kernel it avoids rounds otherwise, too
    add_fused_lm_head(base)
    return base.eval()


def load(run: Run, folder: Path, device: Device, quantised: bool = True, dequantised: bool = False) -> Any:
    """Load the base with the adapter of a run folder, for inference."""
    from safetensors import SafetensorError

    from lorasweep.lora import load_adapter

    place = kept_adapter(folder)
    try:
        return load_adapter(load_base(run, device, quantised, dequantised), place).eval()
    except SafetensorError as error:
        raise UserError(Problem("RUN", str(folder), f"a run whose adapter can be read ({error})")) from None
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        allowed = f"the base that the adapter in {folder} was trained on, or one of the same sizes"
        raise UserError(Problem("model.name", run.model.name, allowed)) from None


def kept_adapter(folder: Path) -> Path:
    """Return the adapter of a run folder that `open_run` has let through."""
    place = adapter_folder(folder)
    assert place
    return place


def results_folder(folder: Path) -> Path:
    """Return RUN/evaluations, made if need be; raises UserError where it cannot be written."""
    place = folder / "evaluations"
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(Problem("RUN", str(folder), f"a run folder that can be written ({error.strerror})")) from None
    if not os.access(place, os.W_OK):
        raise UserError(Problem("RUN", str(folder), "a run folder that can be written"))
    return place


def _check_folder(folder: Path) -> None:
    if not (folder / "run.yaml").is_file() or not (folder / "experiment" / "saved.yaml").is_file():
        names = latest_runs()
        allowed = "a run folder, which holds run.yaml"
        if adapter_folder(folder) or (folder / "config.json").is_file():
            allowed += "; this one holds an adapter or a model"
        if names:
            allowed += f". The latest in {RUNS}: {', '.join(names[:4])}"
        close = nearest(folder.name, names)
        raise UserError(Problem("RUN", str(folder), allowed, str(RUNS / close) if close else None))
    if not (folder / "adapter" / "adapter_config.json").is_file():
        state = read_json(folder / "summary.json").get("state", "unfinished: it has no summary.json")
        raise UserError(Problem("RUN", str(folder), f"a run with an adapter; the state of this one is {state}"))
