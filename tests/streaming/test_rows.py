"""Rows that are read as they come: which, in which order, from where on, and what ends it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lorasweep import schema
from lorasweep.data import build_datasets, fingerprint
from lorasweep.data.streaming import Start
from lorasweep.model import build_tokenizer
from lorasweep.rules import UserError
from lorasweep.schema import Data, Model, Train
from lorasweep.step_reader import Place, StepReader
from lorasweep.steps import plan_steps
from lorasweep.stream_steps import choose_plan
from tests.streaming.files import KINDS, numbered, written


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(Model(source="random", name="tiny"))


def streamed(given: Path | list[str], **options: object) -> Data:
    files = [str(given)] if isinstance(given, Path) else given
    values = {"source": "files", "streaming": True, "shuffle_buffer": 0, "eval_fraction": 0.0, "format": "completion"}
    return Data(files=files, **{**values, **options})  # type: ignore[arg-type]


def reader(
    data: Data, tokenizer: PreTrainedTokenizerBase, size: int = 4, seed: int = 0, tokens: bool = False
) -> StepReader:
    stream = build_datasets(data, tokenizer, 64)["train"].stream
    assert stream
    return StepReader(stream, size, tokens, data.shuffle_buffer > 0, seed)


def answers(reader: StepReader, tokenizer: PreTrainedTokenizerBase, steps: int) -> list[list[str]]:
    """The last word of every row, by step."""
    found = [reader([number]) for number in range(reader.start.step, reader.start.step + steps)]
    return [
        [tokenizer.decode(row["input_ids"], skip_special_tokens=True).split()[-1] for row in rows] for rows in found
    ]


def flat(steps: list[list[str]]) -> list[int]:
    return [int(word) for step in steps for word in step]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_of_file_come_in_their_order_and_again(
    kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = written(tmp_path / f"rows.{kind}", numbered(30))
    assert flat(answers(reader(streamed(path), tokenizer), tokenizer, 15)) == [*range(30), *range(30)]


@pytest.mark.parametrize("buffer", [0, 4, 9, 11, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_from_the_place_after_any_step_the_rest_of_the_steps_is_the_same(
    kind: str, buffer: int, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    paths = [
        written(tmp_path / f"{part}.{kind}", numbered(count, 100 * part)) for part, count in enumerate((23, 3, 16))
    ]
    data = streamed([str(path) for path in paths], shuffle_buffer=buffer, limit=40, eval_rows=5)
    whole = reader(data, tokenizer)
    steps, places = [], [whole.place]
    for number in range(24):
        steps.append(whole([number]))
        places.append(whole.place)
    for number in range(0, 24, 1 if kind == "parquet" else 5):
        again = reader(data, tokenizer)
        again.start = Place.of(places[number].text())
        assert [again([later]) for later in range(number, 24)] == steps[number:]
        assert plain(again.place) == plain(places[24])


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_of_places_each_from_the_one_before_gives_the_same_steps(
    kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    paths = [written(tmp_path / f"{part}.{kind}", numbered(20, 100 * part)) for part in range(2)]
    data = streamed([str(path) for path in paths], shuffle_buffer=9)
    whole, place = reader(data, tokenizer), Place()
    for number in range(24):
        again = reader(data, tokenizer)
        again.start = place
        assert again([number]) == whole([number])
        assert plain(again.place) == plain(whole.place)
        place = Place.of(again.place.text())


def plain(place: Place) -> Place:
    """A place without the state of datasets, which has several for one place."""
    return replace(place, block=replace(place.block, state=None))


def test_a_step_that_is_not_the_next_is_found_all_the_same(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    one = reader(streamed(written(tmp_path / "rows.jsonl", numbered(30)), shuffle_buffer=8), tokenizer)
    steps = [one([number]) for number in range(9)]
    assert one([3]) == steps[3]
    assert one([4]) == steps[4]
    assert one([8]) == steps[8]
    assert one([0]) == steps[0]


def test_rows_are_shuffled_within_blocks_by_seed_and_otherwise_in_every_pass(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(20))
    data = streamed(path, shuffle_buffer=10)
    order = flat(answers(reader(data, tokenizer), tokenizer, 10))
    blocks = [order[start : start + 10] for start in range(0, 40, 10)]
    assert [sorted(block) for block in blocks] == [[*range(10)], [*range(10, 20)]] * 2
    assert all(block != sorted(block) for block in blocks)
    assert blocks[0] != blocks[2]
    assert order == flat(answers(reader(data, tokenizer), tokenizer, 10))
    assert order != flat(answers(reader(data, tokenizer, seed=1), tokenizer, 10))


@pytest.mark.parametrize("size", [24, 31, 100])
def test_steps_are_those_of_a_plan_over_all_rows_if_a_block_holds_them(
    size: int, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [*numbered(37), {"prompt": "a", "completion": " "}, *numbered(4, 50)]
    path = written(tmp_path / "rows.jsonl", rows)
    data = streamed(path, shuffle_buffer=100, max_length=24)
    cached = build_datasets(replace(data, streaming=False), tokenizer, 64)["train"].rows
    plan = plan_steps(Train(tokens_per_step=size, max_steps=20), cached.with_format("numpy")["supervised"][:], 3)
    one = reader(data, tokenizer, size, seed=3, tokens=True)
    for number, numbers in enumerate(plan.steps):
        wanted = [{name: row[name] for name in ("input_ids", "labels")} for row in cached.select(numbers)]
        assert one([number]) == wanted
    assert one.place.block.passes >= 1


def test_the_first_rows_are_held_out_and_so_are_others_like_them(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = numbered(20)
    path = written(tmp_path / "rows.jsonl", [*rows, rows[1], rows[4], *numbered(4, 20)])
    data = streamed(path, eval_rows=3, test_rows=2)
    splits = build_datasets(data, tokenizer, 64)
    assert {name: split.rows["row"][:] for name, split in splits.items() if name != "train"} == {
        "eval": [0, 1, 2],
        "test": [3, 4],
    }
    assert splits["eval"].counts.also_in_train == 0
    assert splits["train"].counts.dropped == {"held out": 2}
    one = reader(data, tokenizer)
    assert set(flat(answers(one, tokenizer, 20))) == {*range(5, 24)}
    assert one.place.block.passes >= 3
    assert one.place.counts.dropped["held out"] >= 6


def test_rows_of_evaluation_files_are_not_trained_on(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path, other = written(tmp_path / "rows.jsonl", numbered(12)), written(tmp_path / "eval.jsonl", numbered(3, 4))
    one = reader(streamed(path, eval_files=str(other)), tokenizer)
    assert flat(answers(one, tokenizer, 4))[:9] == [0, 1, 2, 3, 7, 8, 9, 10, 11]


def test_a_folder_is_all_its_files_with_rows(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    for number, name in enumerate(("a/1.jsonl", "a/2.jsonl", "b.jsonl")):
        written(tmp_path / "rows" / name, numbered(2, 10 * number))
    (tmp_path / "rows" / "README.md").write_text("no rows")
    one = reader(streamed(tmp_path / "rows"), tokenizer)
    assert flat(answers(one, tokenizer, 2))[:6] == [0, 1, 10, 11, 20, 21]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_data_set_as_on_the_hub_is_streamed_with_splits_of_its_own(
    kind: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    written(tmp_path / f"train.{kind}", numbered(25))
    written(tmp_path / f"test.{kind}", numbered(25, 50))
    data = streamed([], source="hub", path=str(tmp_path), eval_split="test", eval_rows=4, shuffle_buffer=7)
    data.files = None
    assert build_datasets(data, tokenizer, 64)["eval"].rows["row"][:] == [0, 1, 2, 3]
    whole = reader(data, tokenizer)
    steps = answers(whole, tokenizer, 9)
    assert sorted(flat(steps)[:25]) == [*range(25)]
    again = reader(data, tokenizer)
    whole([3])
    again.start = Place.of(whole.place.text())
    assert answers(again, tokenizer, 5) == steps[4:]


def test_useless_rows_are_dropped_and_counted_as_they_are_without_streaming(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows: list[dict[str, object]] = [
        *numbered(9),
        {"prompt": "a", "completion": " "},
        {"prompt": "b", "completion": None},
    ]
    rows += [{"prompt": "long " * 60, "completion": "never"}, {"prompt": "cut", "completion": "yes " * 60}]
    data = streamed(written(tmp_path / "rows.jsonl", rows), bad_rows="drop", max_length=40)
    cached = build_datasets(replace(data, streaming=False), tokenizer, 64)["train"].counts
    one = reader(data, tokenizer)
    one([0])
    assert one.place.counts == cached
    assert cached.dropped == {"empty": 1, "bad": 1, "cut off": 1}
    assert (cached.kept, cached.cut) == (10, 1)


def test_rows_that_are_of_no_use_from_the_start_end_it_before_it_begins(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = written(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": " "}] * 1200 + [*numbered(5)])
    with pytest.raises(UserError, match=r"train rows with something to learn; of 1000 none is left \(1000 empty\)"):
        build_datasets(streamed(path), tokenizer, 64)


def test_too_many_rows_of_no_use_one_after_the_other_end_it_with_the_reason(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = written(
        tmp_path / "rows.jsonl", [*numbered(500), *[{"prompt": "a", "completion": " "}] * 1700, *numbered(9)]
    )
    one = reader(streamed(path, shuffle_buffer=300), tokenizer)
    with pytest.raises(UserError, match=r"rows to learn from; in 1,\d\d\d one after the other .*\(\d+ empty\)"):
        answers(one, tokenizer, 200)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a"', r"data\.files = '.*rows\.jsonl'\n  one JSON object per line; line 26: .* at column"),
        ('{"prompt": "a", "completion": 3}', r"text in completion; it is 3 \(int\) \(.*rows\.jsonl line 26;"),
        ("[1, 2]", r"one JSON object per line; line 26 is list"),
    ],
)
def test_a_row_that_cannot_be_read_or_rendered_is_told_with_its_line(
    line: str, said: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorasweep.data import held_out

    monkeypatch.setattr(held_out, "FIRST_ROWS", 10)
    path = written(tmp_path / "rows.jsonl", numbered(25))
    path.write_text(path.read_text() + line + "\n")
    one = reader(streamed(path, shuffle_buffer=10), tokenizer)
    assert len(one([3])) == 4
    with pytest.raises(UserError, match=said):
        answers(one, tokenizer, 8)


def test_a_broken_end_of_a_compressed_file_is_told(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = written(tmp_path / "rows.jsonl.gz", numbered(2000))
    path.write_bytes(path.read_bytes()[:-2000])
    one = reader(streamed(path, shuffle_buffer=100), tokenizer)
    with pytest.raises(UserError, match=r"data\.files.*\n  data that can be read \(Compressed file ended"):
        answers(one, tokenizer, 500)


def test_a_document_of_json_is_not_streamed(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(list(numbered(3))))
    with pytest.raises(UserError, match=r"lines of JSON \(\.jsonl\)"):
        build_datasets(streamed(tmp_path / "rows.json"), tokenizer, 64)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = written(tmp_path / "rows.jsonl", numbered(40))
    one = reader(streamed(path, shuffle_buffer=10), tokenizer)
    one([0])
    written(path, numbered(41))
    with pytest.raises(UserError, match=r"rows\.jsonl'\n  a file that stays as it is while it is trained on"):
        answers(one, tokenizer, 40)


def test_what_is_recorded_of_the_rows_follows_all_that_decides_them(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    def recorded(data: Data) -> str:
        splits = build_datasets(data, tokenizer, 64)
        facts = fingerprint(data, splits)["splits"]["train"]
        assert facts["streamed"]
        return str(facts["sha256"])

    path = written(tmp_path / "rows.jsonl", numbered(40))
    data = streamed(path)
    first = recorded(data)
    assert recorded(replace(data, files=[str(written(tmp_path / "same.jsonl", numbered(40)))])) == first
    for other in (replace(data, max_length=9), replace(data, limit=30), replace(data, eval_rows=2)):
        assert recorded(other) != first
    written(path, numbered(41))
    assert recorded(data) != first


def test_plans_differ_where_the_order_does(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = streamed(written(tmp_path / "rows.jsonl", numbered(40)), max_length=30)
    run = schema.Run(model=Model(name="tiny"), data=data, train=Train(tokens_per_step=40, max_tokens=100))

    def facts(run: schema.Run) -> dict[str, object]:
        plan = choose_plan(run, build_datasets(run.data, tokenizer, 64)["train"])
        assert plan
        return plan.facts()

    first = facts(run)
    assert (first["count"], first["tokens_per_step"]) == (3, 40)
    assert facts(run) == first
    for other in (
        replace(run, train=replace(run.train, data_seed=1)),
        replace(run, data=replace(data, shuffle_buffer=10)),
        replace(run, train=replace(run.train, tokens_per_step=41)),
    ):
        assert facts(other)["sha256"] != first["sha256"]
    with pytest.raises(UserError, match=r"train\.tokens_per_step = 20\n  at least 30, the tokens that a row can have"):
        facts(replace(run, train=replace(run.train, tokens_per_step=20)))


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    def peak(count: int) -> int:
        data = streamed(written(tmp_path / f"{count}.jsonl", numbered(count)), shuffle_buffer=100)
        stream = build_datasets(data, tokenizer, 64)["train"].stream
        assert stream
        blocks: Iterator[object] = stream.blocks(Start())
        next(blocks)
        tracemalloc.start()
        assert sum(1 for _ in islice(blocks, count // 100)) == count // 100
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1000)
    assert peak(8000) < 1.3 * peak(1000)
