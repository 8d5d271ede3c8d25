"""How a run computes: attention, layout, compiled layers; what comes of it is the same up to rounding."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from lorasweep.attention import Layout, choose_layout
from lorasweep.device import Device
from lorasweep.schema import Run

COMPILING = 45.0
"""Seconds that compiling the decoder layer of a Llama-2-7B takes with all its variants (10 to 19 each on an H100)."""
SAVED_PER_PASS, SAVED_PER_VALUE = 2.5e-3, 2.2e-10
"""Seconds that a compiled layer saves: in a forward and backward pass, where launching kernels takes the time, and per
token and hidden unit, where memory does. An H100 with a Llama-2-7B takes 256 ms for 1,500 tokens, not 342, and 533 ms
for 8,192, not 771. Slower GPUs save more."""


@dataclass(frozen=True)
class Work:
    """What a run has to do: forward passes, and tokens in all of them together."""

    passes: int
    tokens: float
    runs: int = 1
    """How many runs with as much to do share what one of them compiles."""


@dataclass(frozen=True)
class Engine:
    """What was chosen for a run, and why its layers are not compiled if they are not."""

    layout: Layout
    compiled: bool
    why_not: str = ""

    def __str__(self) -> str:
        rows = "rows end to end" if self.layout.flat else "padded rows"
        layers = "layers compiled" if self.compiled else f"layers not compiled ({self.why_not})" if self.why_not else ""
        return ", ".join(filter(None, (self.layout.attention, rows, layers)))

    def facts(self) -> dict[str, Any]:
        """Return what a record says of it."""
        return {"attention": self.layout.attention, "padding_free": self.layout.flat, "compiled": self.compiled}


def choose_engine(run: Run, model: PreTrainedModel, device: Device, work: Work) -> Engine:
    """Return how a run computes; it follows from config, data, model and device alone, never from a measurement."""
    layout = choose_layout(run, model, device)
    if run.train.compile != "auto":
        return Engine(layout, run.train.compile)
    why_not = _why_not_compiled(run, model, layout, work)
    return Engine(layout, device.is_gpu and not why_not, why_not if device.is_gpu else "")


def checkpointed_layers(run: Run, device: Device) -> int:
    """Return n where every n-th layer computes its activations again; 0: none does."""
    wanted = run.train.gradient_checkpointing
    return int(device.is_gpu if wanted == "auto" else wanted)


def saved_seconds(model: PreTrainedModel, work: Work) -> float:
    """Return about how much sooner a run ends with compiled layers, what compiling takes left aside."""
    text = model.config.get_text_config()
    each = max(work.passes * SAVED_PER_PASS, work.tokens * text.hidden_size * SAVED_PER_VALUE)
    return float(text.num_hidden_layers * each)


def _why_not_compiled(run: Run, model: PreTrainedModel, layout: Layout, work: Work) -> str:
    if run.deterministic:
        return "deterministic=true"
    if not layout.flat:
        return "rows are padded"
    text = model.config.get_text_config()
    experts = any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    if run.quant.method == "int8" or run.lora.use_dora or experts:
        return "auto leaves int8, DoRA and experts alone"
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "there is no C compiler, which Triton needs"
    saved = work.runs * saved_seconds(model, work)
    return "" if saved > COMPILING else f"it would take about {COMPILING:.0f} s and save {saved:.0f}"
