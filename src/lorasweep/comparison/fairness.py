"""Whether runs can be compared: on the same rows, after as much training, by the same measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lorasweep.comparison.sides import Side
from lorasweep.study.outcomes import State

EQUAL_BUDGETS = 0.01
"""Share by which supervised tokens may differ: to within a row a step, packed or not."""
OF_ROWS = (
    "data.source", "data.path", "data.subset", "data.revision", "data.files", "data.eval_files", "data.split",
    "data.eval_split", "data.eval_fraction", "data.test_fraction", "data.split_seed", "data.limit", "data.format",
    "data.streaming", "data.eval_rows", "data.test_rows",
    "data.messages", "data.prompt", "data.completion", "data.system", "data.text", "data.template_date",
    "data.bad_rows", "data.response_only", "data.instruction_part", "data.response_part", "data.max_length",
    "model.name", "model.tokenizer", "model.chat_template", "evaluation.max_samples",
)  # fmt: skip
"""Options that decide which tokens of which rows are scored."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def other_rows(first: Side, other: Side) -> list[str]:
    """Return why the evaluations of two runs are not of the same rows, fact by fact; empty if they are."""
    if missing := [side.letter for side in (first, other) if side.judged is None]:
        return [f"{' and '.join(missing)} has no evaluation after training began"]
    one, two = first.judged or {}, other.judged or {}
    hashes = [side.splits.get("eval", {}).get("sha256") for side in (first, other)]
    if None in hashes:
        return [f"record.json of {(first, other)[hashes.index(None)].letter} does not say which they are"]
    if hashes[0] == hashes[1] and all(one.get(name) == two.get(name) for name in ("rows", "row_tokens")):
        return []
    reasons = [*_options(first, other, OF_ROWS), *_template_options(first, other), *_sources(first, other)]
    counts = [len(item["row_losses"]) for item in (one, two)]
    if counts[0] != counts[1]:
        reasons.append(f"rows scored {counts[0]} | {counts[1]}")
    return reasons or ["the tokens of the rows, by their hashes in record.json"]


def other_questions(first: Side, other: Side) -> list[str]:
    """Return why two runs were not asked the same questions, fact by fact; empty if they were, or were not asked."""
    one, two = ([answer["prompt"] for answer in (side.judged or {}).get("answers", [])] for side in (first, other))
    if one == two and (not one or first.run.evaluation.max_new_tokens == other.run.evaluation.max_new_tokens):
        return []
    return list(_options(first, other, ("evaluation.generate", "evaluation.max_new_tokens"))) or ["the questions"]


def same_device(sides: Sequence[Side]) -> bool:
    """Tell whether costs of runs can be compared: the same device, of CPUs with as many threads."""
    return not _differ(sides, _device)


def same_budget(sides: Sequence[Side]) -> bool:
    """Tell whether runs have learnt from as many supervised tokens."""
    tokens = [side.supervised_tokens or 0 for side in sides]
    return max(tokens) - min(tokens) <= EQUAL_BUDGETS * max(tokens)


def unlike(first: Side, other: Side) -> Iterator[str]:
    """Yield in a word each what the training of two runs differs in besides their options."""
    sides = (first, other)
    if not same_budget(sides):
        yield "budget"
    if next(_seeds(sides), None):
        yield "seed"
    if _differ(sides, _rows_of_training):
        yield "training rows"


def warnings(sides: Sequence[Side]) -> Iterator[str]:
    """Yield what is unlike between runs that are compared, apart from what was to be compared."""
    for side in sides:
        yield from _ending(side)
    if _differ(sides, lambda side: side.run.evaluation.objective):
        yield f"they are judged by different objectives: {_each(sides, lambda side: side.run.evaluation.objective)}"
    for other in sides[1:]:
        pair = f"{sides[0].letter} and {other.letter}"
        if reasons := other_rows(sides[0], other):
            yield f"{pair} were not evaluated on the same rows: {'; '.join(reasons)}"
        elif reasons := other_questions(sides[0], other):
            yield f"{pair} were not asked the same questions: {'; '.join(reasons)}"
    if not same_budget(sides):
        tokens = _each(sides, lambda side: f"{side.supervised_tokens or 0:,}")
        yield f"they have learnt from different budgets, in supervised tokens: {tokens}"
    if _differ(sides, _rows_of_training):
        yield "they were trained on different rows"
    yield from _seeds(sides)
    yield from _versions(sides)
    if not same_device(sides):
        yield f"memory, time and speed do not compare across devices: {_each(sides, _device)}"


def _ending(side: Side) -> Iterator[str]:
    if side.state == State.PRUNED:
        yield f"{side.letter} was pruned: its scores are those of a part of its training"
    elif side.state != State.COMPLETE:
        at = f"; its scores are those of step {side.judged['step']}" if side.judged else ""
        yield f"{side.letter} is {side.state.replace('_', ' ')}{at}"


def _rows_of_training(side: Side) -> Any:
    return side.splits.get("train", {}).get("sha256")


def _each(sides: Sequence[Side], what: Callable[[Side], str]) -> str:
    return ", ".join(f"{side.letter} {what(side)}" for side in sides)


def _seeds(sides: Sequence[Side]) -> Iterator[str]:
    for name in ("seed", "data_seed"):
        values = [side.results.record.get("seeds", {}).get(name) for side in sides]
        if len(set(values)) > 1:
            yield f"different seeds, {name} {' | '.join(map(str, values))}: part of what differs is luck"
            return  # without one of its own the order of the rows follows the seed


def _versions(sides: Sequence[Side]) -> Iterator[str]:
    """Yield which of the code that trains is not the same."""
    records = [side.results.record for side in sides]
    known = {name: [record.get("packages", {}).get(name) for record in records] for name in PACKAGES}
    known["lorasweep"] = [(record.get("git", {}).get("commit") or "unknown")[:10] for record in records]
    if other := [f"{name} {' | '.join(map(str, found))}" for name, found in known.items() if len(set(found)) > 1]:
        yield f"trained with different versions: {'; '.join(other)}"


def _differ(sides: Sequence[Side], what: Callable[[Side], Any]) -> bool:
    return any(what(side) != what(sides[0]) for side in sides)


def _options(first: Side, other: Side, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        one, two = first.values.get(key), other.values.get(key)
        if one != two:
            yield f"{key} {_word(one)} | {_word(two)}"


def _template_options(first: Side, other: Side) -> Iterator[str]:
    keys = dict.fromkeys([*first.values, *other.values])
    yield from _options(first, other, [key for key in keys if key.startswith("data.template_kwargs.")])


def _sources(first: Side, other: Side) -> Iterator[str]:
    """Yield what has changed under names that have not."""
    known = [side.results.record.get("data", {}) for side in (first, other)]
    if known[0].get("commit") != known[1].get("commit"):
        yield f"commit of the data {_word(known[0].get('commit'))} | {_word(known[1].get('commit'))}"
    files = [item.get("files", {}) for item in known]
    for path in files[0].keys() & files[1].keys():
        if files[0][path] != files[1][path]:
            yield f"the content of {path}"
    models = [side.results.record.get("model", {}).get("sha256", {}) for side in (first, other)]
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        if models[0].get(name) != models[1].get(name):
            yield f"the model's {name}"


def _device(side: Side) -> str:
    name: str = side.results.record.get("device", {}).get("name", "unknown")
    return name


def _word(value: Any) -> str:
    words = "null" if value is None else " ".join(str(value).split())
    return words if len(words) <= 40 else f"{words[:39]}…"
