"""Packing: several rows in one, best fit first, each attending only to itself, and the proof that it does."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from datasets import Dataset

from lorasweep.device import Device
from lorasweep.evaluation import pad_right, scoring
from lorasweep.rules import Problem, UserError

TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.5}
"""Largest difference in a token's loss between packed and alone; a leak between rows gives differences of several."""


def pack(rows: Dataset, length: int) -> Dataset:
    """Return rows of up to `length` tokens with a column seq_lengths, from which positions restart at every border."""
    from trl import pack_dataset

    packed: Dataset = pack_dataset(rows, length, strategy="bfd")
    return packed


def pack_rows(rows: Sequence[dict[str, list[int]]], length: int) -> list[dict[str, list[int]]]:
    """Return a few rows packed like that: input_ids, labels and seq_lengths of every packed row."""
    packed = []
    for positions in bins([len(row["input_ids"]) for row in rows], length):
        together = [rows[position] for position in positions]
        joined = {name: [value for row in together for value in row[name]] for name in ("input_ids", "labels")}
        packed.append({**joined, "seq_lengths": [len(row["input_ids"]) for row in together]})
    return packed


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return the positions of `lengths` in bins of at most `capacity`: longest first, each where it fits best."""
    assert max(lengths) <= capacity
    filled: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # what is left, and in which bin; ascending
    for position in sorted(range(len(lengths)), key=lambda position: -lengths[position]):
        best = bisect_left(rooms, (lengths[position],))
        if best == len(rooms):
            rooms.append((capacity, len(filled)))
            filled.append([])
        room, number = rooms.pop(best)
        filled[number].append(position)
        insort(rooms, (room - lengths[position], number))
    return filled


def check_parity(trainer: Any, device: Device) -> None:
    """Raise unless rows laid end to end lose the same per token as each does alone; nothing to do for padded rows."""
    rows, collator = trainer.train_dataset, trainer.data_collator
    collate = collator
    if "rows" in rows.column_names:  # an item is a whole optimizer step
        rows, collate = chain.from_iterable(collator.examples(step["rows"]) for step in rows), collator.collate
    row, packed = _several_in_one(rows) if getattr(collate, "padding_free", True) else (None, False)
    if row is None:
        return
    difference = parity(trainer.model, row, collate([row]), trainer.processing_class.pad_token_id, device)
    if difference > TOLERANCE[device.precision]:
        key = "data.packing" if packed else "train.padding_free"
        allowed = f"false: rows see each other with this model or attention (loss differs by {difference:.2g})"
        raise UserError(Problem(key, True, allowed))


def _several_in_one(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any] | None, bool]:
    """Return the first packed row, or the first two rows as one, and which of it that is; None if there is neither."""
    first: dict[str, Any] | None = None
    for row in rows:
        lengths = row.get("seq_lengths", ())
        if len(lengths) > 1:
            return row, True
        if not lengths and first:
            return pack_rows([first, row], len(first["input_ids"]) + len(row["input_ids"]))[0], False
        first = row
    return None, False


def parity(model: Any, row: dict[str, list[int]], batch: dict[str, Any], pad_token_id: int, device: Device) -> float:
    """Return the largest difference in a token's loss between a packed row and its parts alone."""
    batch = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
    with scoring(model, device, flat=True):
        packed = model(**batch, fused_lm_head=True, use_cache=False).log_probs[0]
    start, largest = 0, 0.0
    with scoring(model, device):
        for length in row["seq_lengths"]:
            part = {name: row[name][start : start + length] for name in ("input_ids", "labels")}
            inputs = pad_right([part], pad_token_id, model.device)
            alone = model(**inputs, fused_lm_head=True, use_cache=False).log_probs[0]
            if length > 1:
                largest = max(largest, (packed[start : start + length - 1] - alone).abs().max().item())
            start += length
    return largest
