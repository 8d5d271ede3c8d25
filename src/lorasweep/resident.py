"""What stays in a process from run to run: the quantised base, prepared data, the scores of the untuned model."""

from __future__ import annotations

import copy
import gc
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from transformers import PreTrainedModel

from lorasweep import lora
from lorasweep.data.sources import patterns
from lorasweep.device import Device
from lorasweep.evaluation import Scores
from lorasweep.host import Host
from lorasweep.inputs import Inputs
from lorasweep.local_files import local_files
from lorasweep.model import location
from lorasweep.optim import forget_optimizers, unfreed_bytes
from lorasweep.record import adapter_folder
from lorasweep.schema import Run


class Resident(Host):
    """Surroundings in which one run after the other begins as it would in a process of its own, but sooner.

    A run gets a copy of what it could change and shares what it cannot. Only what the last run needed is kept, so
    that never two bases are held at once. Make it once all libraries are imported: see `__init__`.
    """

    is_followed = False

    def __init__(self) -> None:
        self._inputs: tuple[str, Inputs] | None = None
        self._base: tuple[str, PreTrainedModel] | None = None
        self._untuned: dict[str, Scores] = {}
        gc.collect()
        gc.freeze()  # every collection, one in each training, takes 0.05 s instead of 0.4 s without the libraries

    def inputs(self, run: Run, prepare: Callable[[], Inputs]) -> Inputs:
        """Return the splits of the last run if they are the same, with a tokenizer of this run's own."""
        key = _inputs_key(run)
        if self._inputs is None or self._inputs[0] != key:
            self._inputs = key, prepare()
        kept = self._inputs[1]
        return replace(kept, tokenizer=copy.deepcopy(kept.tokenizer))

    def base(self, run: Run, device: Device, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """Return new modules over the tensors of the last base if it is the same; a run that changes these loads it."""
        key, keeps = _base_key(run, device), not _changes_base(run)
        if self._base and (self._base[0] != key or not keeps):
            self._base = None
        forget_optimizers()
        gc.collect()  # what the last run has left: trainer, model and callbacks refer to each other
        if not keeps:
            return load()
        if self._base is None:
            self._base = key, load()
        return copy_modules(self._base[1])

    def untuned(self, run: Run, device: Device, score: Callable[[], Scores]) -> Scores:
        """Return the scores of the untuned model from the first run with the same base, rows and evaluation."""
        if run.model.adapter or not lora.starts_as_base(run.lora):
            return score()
        settings = {name: value for name, value in asdict(run.evaluation).items() if name not in WHEN_AND_WHAT_FOR}
        key = _key(_inputs_key(run), _base_key(run, device), settings)
        if key not in self._untuned:
            self._untuned[key] = score()
        return self._untuned[key]

    @property
    def worn(self) -> bool:
        """Whether the process had better be replaced: over 1 GiB of paged optimizer states has piled up in it."""
        return unfreed_bytes() > 2**30


WHEN_AND_WHAT_FOR = ("objective", "keep", "times", "untuned")
"""Of the section `evaluation` what does not change scores."""


def copy_modules(model: PreTrainedModel) -> PreTrainedModel:
    """Return a deep copy of a model whose parameters and quantisation constants share the memory of the original's.

    Only that is shared: modules, parameter objects (with requires_grad, and bitsandbytes' state on them), buffers,
    configs and hooks are new, and tied weights stay tied.
    """
    memo: dict[int, Any] = {}
    parameters = list(model.parameters())
    for value in parameters:
        memo |= {id(constant): constant for constant in _constants(value)}
        memo[id(value)] = torch.Tensor._make_subclass(type(value), value.detach(), value.requires_grad)
    for value in parameters:
        vars(memo[id(value)]).update(copy.deepcopy(vars(value), memo))
    return copy.deepcopy(model, memo)


def _constants(holder: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that a quantised weight carries along: scales, codes, offsets."""
    for value in vars(holder).values():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, QuantState):
            yield from _constants(value)


def _changes_base(run: Run) -> bool:
    return lora.changes_base(run.lora, adapter_folder(Path(run.model.adapter)) if run.model.adapter else None)


def _base_key(run: Run, device: Device) -> str:
    model = {name: value for name, value in asdict(run.model).items() if name not in BESIDE_THE_BASE}
    return _key(model, asdict(run.quant), str(device), list(_stamps(location(run.model))))


BESIDE_THE_BASE = ("adapter", "tokenizer", "chat_template")
"""Of the section `model` what the base does not depend on."""


def _inputs_key(run: Run) -> str:
    model, data = asdict(run.model), asdict(run.data)
    named = [*patterns(run.data.files), *patterns(run.data.eval_files), *patterns(run.data.test_files)]
    places = [location(run.model), run.model.tokenizer, run.model.chat_template, run.data.path]
    places += [path for pattern in named for path in local_files(pattern)]
    del model["adapter"], data["packing"], data["num_proc"]  # rows are packed later
    return _key(model, data, [stamp for place in places if place for stamp in _stamps(place)])


def _stamps(place: str) -> Iterator[tuple[str, int, int]]:
    """Yield size and time of a file, or of every file in a folder; nothing for a hub id or a text."""
    inside = sorted(Path(place).rglob("*")) if os.path.isdir(place) else [Path(place)]
    for path in inside if os.path.exists(place) else ():
        facts = path.stat()
        yield str(path), facts.st_size, facts.st_mtime_ns


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)
