"""Small tasks whose answers can be checked exactly: the data of the default job, without a download."""

from __future__ import annotations

import random
from collections.abc import Callable

WORDS = [
    "apple", "river", "stone", "cloud", "tiger", "lemon", "chair", "ocean",
    "piano", "green", "happy", "light", "night", "paper", "queen", "robot",
    "sugar", "table", "uncle", "voice", "water", "yellow", "zebra",
]  # fmt: skip


def _sum(chance: random.Random) -> tuple[str, str]:
    first, second = chance.randint(10, 99), chance.randint(10, 99)
    return f"What is {first} plus {second}?", str(first + second)


def _reverse(chance: random.Random) -> tuple[str, str]:
    words = chance.sample(WORDS, 4)
    return f"Reverse the order of these words: {' '.join(words)}", " ".join(reversed(words))


def _sort(chance: random.Random) -> tuple[str, str]:
    words = chance.sample(WORDS, 4)
    return f"Sort these words alphabetically: {' '.join(words)}", " ".join(sorted(words))


def _last(chance: random.Random) -> tuple[str, str]:
    words = chance.sample(WORDS, 4)
    return f"Write only the last of these words: {' '.join(words)}", words[-1]


TASKS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (_sum, _reverse, _sort, _last)


def generate(count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` different rows with a prompt and its completion."""
    chance = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        prompt, completion = chance.choice(TASKS)(chance)
        rows[prompt] = completion
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows.items()]
