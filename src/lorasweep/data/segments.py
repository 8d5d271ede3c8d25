"""Tokenised rows as text again: what is learnt and what is not, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from lorasweep.data.encoding import IGNORED

UNFINISHED = "\ufffd"
"""Stands for a character of which some bytes are missing."""


def segments(ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """Return the text of a row in pieces, each with whether it is learnt; together they are the row."""
    runs = [(learnt, len(list(run))) for learnt, run in groupby(labels, lambda label: label != IGNORED)]
    pieces, position, before = [], 0, ""
    for learnt, length in runs:
        position += length
        # Of a run alone, many tokenizers would drop the space it begins with.
        whole = tokenizer.decode(ids[:position], clean_up_tokenization_spaces=False)
        if whole.startswith(before) and not before.endswith(UNFINISHED):
            pieces.append((whole[len(before) :], learnt))
        else:
            pieces.append((tokenizer.decode(ids[position - length : position]), learnt))
        before = whole
    return pieces
