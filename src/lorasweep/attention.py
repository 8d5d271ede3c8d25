"""From `model.attention` and `train.padding_free` to how rows are laid out and attend, without any package to build."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch.nn.attention import varlen
from transformers import AttentionInterface, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from lorasweep.device import Device
from lorasweep.schema import Run

VARLEN = "varlen"
"""The name under which transformers knows torch's attention over rows laid end to end."""
KNOWN = inspect.signature(varlen.varlen_attn).parameters
"""It differs: scale and window_size since torch 2.11; since 2.13 grouped queries are to be asked for."""
GROUPED: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in KNOWN else {}


@dataclass(frozen=True)
class Layout:
    """How the rows of a batch are laid out in training, and how they attend."""

    attention: str
    """A name transformers knows."""
    flat: bool
    """Laid end to end, not padded to the longest."""


def choose_layout(run: Run, model: PreTrainedModel, device: Device) -> Layout:
    """Return the layout a run trains in; auto takes rows end to end where each can attend to itself alone for free.

    Under sdpa a batch laid end to end takes a mask of its length squared, which is why it is padded there. Nobody
    promises that other kernels give the same bits twice.
    """
    attention, padding_free, packing = run.model.attention, run.train.padding_free, run.data.packing
    if attention == "auto":
        attention = _best(model, device) if (packing or padding_free) and not run.deterministic else "sdpa"
    isolates = attention == VARLEN or attention.startswith("flash")
    return Layout(attention, packing or (isolates if padding_free == "auto" else padding_free))


def loaded_with(attention: str) -> str:
    """Return the attention a model is loaded with, in which it is scored and answers: these rows are padded."""
    return "sdpa" if attention in ("auto", VARLEN) else attention


def use(model: PeftModel, attention: str) -> None:
    """Make a model attend like that from now on."""
    AttentionInterface.register(VARLEN, varlen_attention)
    model.get_base_model().set_attn_implementation(attention)


@contextmanager
def for_padded_rows(model: Any) -> Iterator[None]:
    """Let a model attend to padded rows and to a cache for a while, which is not what varlen is for."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    attention = base.config._attn_implementation
    if attention != VARLEN:
        yield
        return
    base.set_attn_implementation(loaded_with(attention))
    try:
        yield
    finally:
        base.set_attn_implementation(attention)


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: Any = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within every row of a batch laid end to end; tensors are (1, heads, tokens, head_dim).

    Transformers makes no mask for an attention it has no mask function for, so nothing but `cu_seq_lens_q` keeps rows
    apart. `max_length_q` is a number, or a tensor of that length (see `compilation`).
    """
    assert not any(others.get(name) is not None for name in ("sliding_window", "softcap", "s_aux"))
    assert cu_seq_lens_q is not None, "rows are not laid end to end"
    assert attention_mask is None
    assert not dropout
    longest = max_length_q.shape[0] if isinstance(max_length_q, torch.Tensor) else max_length_q
    query, key, value = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    output = varlen.varlen_attn(
        query.to(value.dtype), key.to(value.dtype), value, cu_seq_lens_q, cu_seq_lens_q, longest, longest,
        scale=scaling, window_size=(-1, 0), **GROUPED,
    )  # fmt: skip
    assert isinstance(output, torch.Tensor)
    return output[None], None


def why_not_varlen(model: PreTrainedModel, device: Device) -> str | None:
    """Return what keeps a model on a device from torch's varlen attention; None: nothing."""
    text = model.config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    others = ("sliding_window", "attn_logit_softcapping", "attention_dropout", "kv_lora_rank")
    if not _on_ampere(device):
        return "it needs a GPU of compute capability 8.0 or newer, and 16 bit"
    if not {"scale", "window_size"} <= KNOWN.keys():
        return "it needs torch 2.11 or newer"
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    other = kinds != {"full_attention"} or any(getattr(text, name, None) for name in others)
    if other or not model._can_set_attn_implementation():
        return "this model's attention is of another kind (windows, soft caps, latent keys, code of its own)"
    return f"heads must be of a multiple of 8 up to 256, not {head_dim}" if head_dim % 8 or head_dim > 256 else None


def _best(model: PreTrainedModel, device: Device) -> str:
    if why_not_varlen(model, device) is None:
        return VARLEN
    return "flash_attention_2" if _on_ampere(device) and is_flash_attn_2_available() else "sdpa"


def _on_ampere(device: Device) -> bool:
    return device.mixed_precision is not None and device.compute_capability >= (8, 0)
