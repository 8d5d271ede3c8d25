"""Decoder layers compiled by torch: one code for all layers of a model, and for all runs of a process."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers.modeling_layers import GradientCheckpointingLayer

BACKEND = "inductor"
MOST_VARIANTS = 64
"""Torch gives up compiling a function, and says nothing, after so many variants of it (8 unless told otherwise)."""


def compile_layers(model: PeftModel) -> None:
    """Have every decoder layer of a model run compiled in training; scores and answers come from the plain layers.

    Rows of any length, any rank, alpha and dropout run in the same code: what differs from batch to batch or from trial
    to trial is a tensor or a dynamic dimension there, and no number that is compiled in. A second rank makes one more
    variant, in which the rank is dynamic.
    """
    _prepare(model)
    for module in list(model.modules()):
        if isinstance(module, GradientCheckpointingLayer):
            module.__class__ = _compiled(type(module))  # type: ignore[arg-type]
        elif isinstance(module, LoraLayer):
            _numbers_to_tensors(module)


class Dropout(torch.nn.Module):
    """Dropout whose rate is a tensor."""

    rate: torch.Tensor

    def __init__(self, rate: float, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("rate", torch.tensor(rate, device=device), persistent=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Zero a share of `rate` and scale the rest up; states of any shape."""
        if not self.training:
            return states
        keep = torch.rand_like(states, dtype=torch.float32) >= self.rate
        return states * keep / (1 - self.rate)


@functools.cache
def _compiled(layer_class: Any) -> Any:
    """Return a class of the same layer that is compiled in training.

    Transformers wraps the forward of every such class into checkpointing, of a subclass only that of the subclass. What
    is compiled is the plain forward inside it, which a checkpoint calls a second time.
    """
    plain: Any = inspect.unwrap(layer_class.forward)
    compiled: Any = torch.compile(plain, backend=BACKEND)

    class Compiled(layer_class):
        def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not self.training:
                return plain(self, hidden_states, *args, **kwargs)
            if not hidden_states.requires_grad:  # the first layer would be a variant of its own
                hidden_states = hidden_states.detach().requires_grad_()
            return compiled(self, _dynamic(hidden_states, 1), *args, **_arguments(kwargs, hidden_states.device))

    Compiled.__name__, Compiled.__qualname__ = layer_class.__name__, layer_class.__qualname__
    return Compiled


def _arguments(given: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Return the arguments of a layer with what changes from batch to batch marked so."""
    for states in (*(given.get("position_embeddings") or ()), given.get("position_ids")):
        if states is not None:
            _dynamic(states, 1)
    if (borders := given.get("cu_seq_lens_q")) is not None:
        _dynamic(borders, 0)
    if (mask := given.get("attention_mask")) is not None and mask.dim() == 4:  # sdpa's: (rows, 1, tokens, tokens)
        _dynamic(_dynamic(mask, 2), 3)
    longest = given.get("max_length_q")
    return {**given, "max_length_q": _length(longest, device), "max_length_k": None} if longest else given


def _dynamic(tensor: torch.Tensor, dimension: int) -> torch.Tensor:
    torch._dynamo.maybe_mark_dynamic(tensor, dimension)
    return tensor


@functools.lru_cache(1024)
def _length(number: int, device: torch.device) -> torch.Tensor:
    """Return an empty tensor of that length: numbers are compiled in, lengths of tensors are dynamic if marked so."""
    return _dynamic(torch.empty((number, 0), device=device), 0)


def _numbers_to_tensors(layer: LoraLayer) -> None:
    for name in layer.scaling:
        if name in layer.lora_A:
            device = layer.lora_A[name].weight.device
            layer.scaling[name] = torch.tensor(layer.scaling[name], device=device)
            if isinstance(dropout := layer.lora_dropout[name], torch.nn.Dropout):
                layer.lora_dropout[name] = Dropout(dropout.p, device)


def _prepare(model: PeftModel) -> None:
    """Set torch up, and forget what was compiled for models of another shape, lest every dimension become dynamic."""
    config: Any = torch._dynamo.config
    config.recompile_limit = MOST_VARIANTS
    config.force_parameter_static_shapes = False
    config.force_nn_module_property_static_shapes = False
    text = model.config.get_text_config()
    shape = [type(model.get_base_model()), *(getattr(text, name, None) for name in SHAPE)]
    if _last != shape:
        torch.compiler.reset()
    _last[:] = shape


SHAPE = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "dtype")
_last: list[Any] = []
