"""What a record says of a run, fact by fact: each with a name for people and what it means if it is another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from lorasweep.identity import PROCESSES, is_free, options
from lorasweep.input_files import OF_TOKENIZER, TEMPLATE_FILE
from lorasweep.local_files import short_names
from lorasweep.means import COMPUTE, known, means, named
from lorasweep.versions import KEY, current


class Weight(StrEnum):
    """What another value of a fact means."""

    INPUT = "input"
    """Another run: what comes of it cannot be compared."""
    MEANS = "means"
    """The same run by other means: bits may differ, results should not."""
    NOTE = "note"
    """Nothing by itself; worth knowing where results differ all the same."""


class Fact(NamedTuple):
    """One thing that is known of a run."""

    value: Any
    weight: Weight


LOADED = (".safetensors", ".bin", ".json", ".py")
"""Files of a model folder that make a model, besides those of its tokenizer."""
SURROUND = (
    "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_PROC_BIND", "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
)  # fmt: skip
"""Environment variables that should change nothing."""
MEANS = (
    "deterministic", "model.attention", "train.gradient_checkpointing", "train.padding_free", "train.compile",
    "train.lean", "train.fit", "train.loader_workers", "train.log_every", "evaluation.batch_size",
)  # fmt: skip
"""Options that change how the same is computed."""
LOCATED = {
    "data.files": "data file ", "data.eval_files": "data file ", "data.test_files": "data file ",
    "data.path": "data file ", "model.name": "model file ", "model.tokenizer": "tokenizer file ",
    "model.chat_template": "chat template", "model.adapter": "adapter that is trained further",
}  # fmt: skip
"""Options that say where something is, and how the names of the facts begin that say what it is."""


def facts(record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Fact]:
    """Return all facts of a record by name, with the config that it has or that run.yaml has."""
    named = {
        **{name: Fact(value, Weight.INPUT) for name, value in _inputs(record)},
        **{name: Fact(value, Weight.MEANS) for name, value in means(record)},
        **{name: Fact(value, Weight.NOTE) for name, value in _notes(record)},
    }
    kept = record.get("config", {})
    values = current({KEY: kept[KEY], **kept["values"]}, Path("record.json")) if kept else config
    chosen = {key: value for key, value in options(values).items() if not is_free(key)}
    weights = {key: Weight.MEANS if key in MEANS else Weight.INPUT for key in chosen}
    return {key: Fact(value, weights[key]) for key, value in chosen.items()} | named


def _inputs(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    data, model, tokenizer = (record.get(name, {}) for name in ("data", "model", "tokenizer"))
    files = data.get("files", {})
    names = short_names(files)
    yield from named("data file", {names[path]: value for path, value in files.items()})
    yield from known(("commit of the data", data.get("commit")), ("commit of the model", model.get("commit")))
    for name, split in data.get("splits", {}).items():
        yield from _rows(name, split)
    of_model = model.get("sha256") or {}
    weights = {name: value for name, value in of_model.items() if not OF_TOKENIZER.search(name)}
    yield from named("model file", {name: value for name, value in weights.items() if name.endswith(LOADED)})
    of_tokenizer = tokenizer.get("sha256") or {name: of_model[name] for name in of_model.keys() - weights.keys()}
    yield from named("tokenizer file", {name: value for name, value in of_tokenizer.items() if name != TEMPLATE_FILE})
    yield from known(
        ("chat template", tokenizer.get("chat_template") or of_tokenizer.get(TEMPLATE_FILE)),
        ("special tokens", tokenizer.get("special")),
        ("adapter that is trained further", record.get("adapter", {}).get("sha256")),
        ("rows of every step", record.get("steps", {}).get("sha256")),
        (PROCESSES, record.get("processes", {}).get("count", 1)),
    )


def _rows(name: str, split: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what the rows of a split are, and in which order, where both are known."""
    if "rows_sha256" in split:
        yield f"rows of {name}", split["rows_sha256"]
        yield f"order of the rows of {name}", split["sha256"]
    else:
        yield f"rows of {name}", split["sha256"]


def _notes(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    git, hardware = record.get("git", {}), record.get("hardware", {})
    gpu = hardware.get("gpu", {})
    yield from known(
        ("git commit", git.get("commit")),
        ("uncommitted changes", git.get("diff")),
        ("constraints.txt", record.get("constraints")),
        ("system", record.get("platform")),
        ("build of python", record.get("environment", {}).get("build")),
        ("locale", record.get("environment", {}).get("locale")),
        ("processor", hardware.get("processor")),
        ("cores", hardware.get("cores")),
        ("GPU", gpu.get("uuid")),
        ("memory of the GPU", gpu.get("memory")),
        ("power limit", gpu.get("power_limit")),
        ("clock limit", gpu.get("clock_limit")),
        ("MIG", gpu.get("mig")),
    )
    packages = record.get("packages", {})
    yield from named("package", {name: value for name, value in packages.items() if not COMPUTE.match(name)})
    set_here = record.get("environment", {}).get("variables")
    if set_here is not None:
        yield from named("variable", {name: set_here.get(name, "not set") for name in SURROUND})
