"""What the largest step of a run takes on a GPU, part by part, put together from its layers, weights and loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from transformers import PretrainedConfig

from lorasweep.attention import Layout, loaded_with
from lorasweep.device import GIB, Device
from lorasweep.memory.batches import Batch, Scored
from lorasweep.memory.tracing import Trace, scoring_bytes, trace
from lorasweep.memory.weights import Base, States, adapter_shapes, base_bytes, optimizer_bytes
from lorasweep.model import empty_model
from lorasweep.schema import Run

TILE = (4096, 32768)
"""Tokens and words of the vocabulary whose logits TRL's fused head has at a time, whatever the vocabulary is."""
STATISTICS = 9
"""Numbers per learnt token that it keeps of them."""
FRAGMENTATION = 0.05
"""Share of what is allocated that lies unused in between. With room to spare torch reserves 1 to 18 % more (an H100,
twelve settings), with none it gathers that up: under a limit of 15 GiB it ran out with 14.7 allocated."""
CONTEXT_GIB = 0.7
"""What CUDA and cuBLAS take beside torch's own memory (0.67 on an H100)."""
FLOAT = 4


@dataclass(frozen=True)
class Moment:
    """A moment of a step at which memory peaks, and what holds it then, in bytes."""

    name: str
    parts: dict[str, int]

    @property
    def total(self) -> int:
        """Return the sum of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Prediction:
    """The peak of a run, allocated by torch, and what comes on top of it."""

    moments: list[Moment]
    paged: int
    """Bytes of optimizer states outside of torch's memory, which CUDA moves to the host when the GPU has none left."""

    @property
    def peak(self) -> Moment:
        """Return the moment that takes most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def allocated_gib(self) -> float:
        """Return what torch allocates at the peak."""
        return self.peak.total / GIB

    @property
    def needed_gib(self) -> float:
        """Return what a GPU must have: what is allocated, what is lost between it, and what CUDA takes."""
        return self.allocated_gib * (1 + FRAGMENTATION) + CONTEXT_GIB


@dataclass(frozen=True)
class Sizes:
    """What of a run's memory is the same whatever its batches are."""

    base: Base
    adapter: int
    states: States


def sizes_of(run: Run, config: PretrainedConfig, device: Device) -> Sizes:
    """Return what base, adapter and optimizer of a run take."""
    model = empty_model(config, run.model.trust_remote_code)
    shapes = adapter_shapes(run.lora, model)
    base = base_bytes(run.quant, model, device.precision)
    return Sizes(base, FLOAT * sum(map(math.prod, shapes)), optimizer_bytes(run.optim.name, shapes))


class Predictor:
    """Predicts the memory of runs that differ in their batches and in how they are computed, but in nothing else."""

    def __init__(self, run: Run, config: PretrainedConfig, device: Device, scored: Scored | None = None) -> None:
        self.run, self.config, self.device = run, config, device
        self.sizes = sizes_of(run, config, device)
        self._aside = list(self._evaluation(scored)) if scored else []

    def __call__(self, run: Run, layout: Layout, batch: Batch, *, compiled: bool, every: int) -> Prediction:
        """Return the memory of a run whose largest pass is `batch`; `every` n-th layer is computed again (0: none)."""
        traced = _traced(self._question(layout, batch))
        found = combine(run, self.config, self.device, batch, self.sizes, traced, compiled=compiled, every=every)
        return replace(found, moments=[*found.moments, *self._aside])

    def _question(self, layout: Layout, batch: Batch) -> _Question:
        dropout = 0.5 if self.run.lora.dropout else 0.0
        lora = replace(self.run.lora, alpha=1.0, scale=None, dropout=dropout)  # of which shapes do not depend
        asked = (self.run.quant, lora, self.device, self.config.to_json_string(), layout, batch)
        return _Question(repr(asked), self.run, self.config, self.device, layout, batch)

    def _evaluation(self, scored: Scored) -> Iterator[Moment]:
        """Yield what is held while rows are scored, and while questions are answered."""
        batch = scored.batch
        layout = Layout(loaded_with(self.run.model.attention), False)
        work = _scored(self._question(layout, batch))
        copies = self.sizes.adapter // 2 if self.device.mixed_precision else 0
        loss, _ = _loss_bytes(self.config, self.device, batch)
        fixed = fixed_parts(self.sizes)
        yield Moment("evaluation", fixed | {"16-bit adapter": copies, "at work": work, "loss": loss})
        if scored.asked:
            tokens = scored.asked * (scored.question + self.run.evaluation.max_new_tokens)
            cache = tokens * _cached(self.config) * self.device.precision.itemsize
            share = work * scored.asked * scored.question // batch.tokens
            yield Moment("answers", fixed | {"16-bit adapter": copies, "at work": share, "keys and values": cache})


@dataclass(frozen=True)
class _Question:
    """What is traced; equal texts have equal answers, from trial to trial of a process."""

    text: str
    run: Run = field(compare=False)
    config: PretrainedConfig = field(compare=False)
    device: Device = field(compare=False)
    layout: Layout = field(compare=False)
    batch: Batch = field(compare=False)


@lru_cache(64)
def _traced(question: _Question) -> Trace:
    return trace(question.run, question.config, question.device, question.layout, question.batch)


@lru_cache(64)
def _scored(question: _Question) -> int:
    return scoring_bytes(question.run, question.config, question.device, question.layout, question.batch)


def fixed_parts(sizes: Sizes) -> dict[str, int]:
    """Return what is there at every moment of training."""
    return {
        "base, quantised": sizes.base.quantised,
        "base, constants of quantisation": sizes.base.constants,
        "base, not quantised": sizes.base.rest,
        "adapter": sizes.adapter,
        "optimizer": sizes.states.held,
    }


def _cached(config: PretrainedConfig) -> int:
    """Return the numbers that answering keeps of a token: keys and values of all layers."""
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * head_dim)


def combine(
    run: Run, config: PretrainedConfig, device: Device, batch: Batch, sizes: Sizes, traced: Trace, *,
    compiled: bool, every: int,
) -> Prediction:  # fmt: skip
    """Return the memory of a run from its parts."""
    fixed = fixed_parts(sizes)
    accumulates = run.train.grad_accum > 1 or bool(run.train.tokens_per_step)
    passes = _Passes(traced, sizes, compiled, every, accumulates, device.mixed_precision is not None)
    loss = _loss_bytes(config, device, batch)
    moments = [Moment(name, fixed | parts) for name, parts in (*passes.around_loss(*loss), *passes.of_layers())]
    moments.append(Moment("optimizer step", fixed | {"gradients": sizes.adapter, "at work": sizes.states.step}))
    return Prediction(moments, sizes.states.paged)


@dataclass(frozen=True)
class _Passes:
    """Forward and backward pass."""

    traced: Trace
    sizes: Sizes
    compiled: bool
    every: int
    accumulates: bool
    mixed: bool

    def _kept(self, number: int) -> int:
        """Return what a layer keeps until its backward."""
        layer = self.traced.layers[number]
        if self._again(number):
            return layer.result
        return layer.compiled if self.compiled else layer.kept

    def _again(self, number: int) -> bool:
        return self.every > 0 and number % self.every == 0

    def around_loss(self, forward: int, backward: int) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield what is held while the loss is computed, and its gradient."""
        kept = self.traced.before + self.traced.after + sum(map(self._kept, range(len(self.traced.layers))))
        gradients = self.sizes.adapter if self.accumulates else 0
        # Mixed precision holds the 16-bit copies of all adapters until the forward pass ends; what is computed again
        # does not need them after that.
        copies = self.sizes.adapter // 2 if self.mixed and self.every == 1 else 0
        yield "loss", {"gradients": gradients, "activations": kept, "16-bit adapter": copies, "loss": forward}
        yield "gradient of the loss", {"gradients": gradients, "activations": kept, "loss": backward}

    def of_layers(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield what is held in the backward pass of every layer, the last one first."""
        layers, per_layer = self.traced.layers, self.sizes.adapter // len(self.traced.layers)
        for number in reversed(range(len(layers))):
            layer = layers[number]
            kept = self.traced.before + sum(self._kept(before) for before in range(number + 1))
            again = (layer.compiled if self.compiled else layer.kept) - layer.result if self._again(number) else 0
            done = self.sizes.adapter if self.accumulates else per_layer * (len(layers) - 1 - number)
            at_work = layer.backward + layer.result
            if self._again(number):
                at_work = max(at_work, layer.forward)
            work = {"activations": kept, "one layer again": again, "at work": at_work}
            yield f"backward of layer {number}", {"gradients": done, **work}


def _loss_bytes(config: PretrainedConfig, device: Device, batch: Batch) -> tuple[int, int]:
    """Return what the loss takes and then its gradient: TRL's fused head looks at learnt tokens alone, tile by tile."""
    width, size = config.get_text_config().hidden_size, device.precision.itemsize
    learnt = batch.supervised if device.is_gpu else batch.tokens
    tile = min(learnt, TILE[0]) * TILE[1] * size
    gathered = learnt * (width * size + STATISTICS * FLOAT)
    return gathered + tile, gathered + tile + learnt * width * (FLOAT + size)
