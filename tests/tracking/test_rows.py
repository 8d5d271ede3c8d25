"""A row of W&B's history is what metrics.jsonl says of a step, however it is read."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lorasweep.tracking.rows import Rows

ENTRIES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.integers()), max_size=12).map(sorted)


@given(ENTRIES, st.lists(st.integers(0, 400), max_size=6))
def test_rows_are_the_same_however_the_file_grows(
    tmp_path_factory: object, entries: list[tuple[int, str, int]], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "metrics.jsonl"  # type: ignore[attr-defined]
    data = "".join(json.dumps({"step": step, name: value}) + "\n" for step, name, value in entries).encode()
    rows, found = Rows(path), []
    found += rows.whole()
    for end in [*sorted(cuts), len(data)]:
        path.write_bytes(data[:end])
        found += rows.whole()
    found += rows.last()
    rows.close()
    expected: dict[int, dict[str, int]] = {}
    for step, name, value in entries:
        expected.setdefault(step, {})[name] = value
    assert found == list(expected.items())


def test_the_last_step_is_told_apart_from_those_that_are_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 2, "b"')
    rows = Rows(path)
    assert list(rows.whole()) == [(1, {"a": 1})]
    assert list(rows.last()) == [(2, {"a": 2})]
    assert list(rows.last()) == []
    rows.close()


def test_steps_that_are_taken_again_from_a_checkpoint_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    entries = [json.dumps({"step": step, "a": step}) + "\n" for step in range(6)]
    path.write_text("".join(entries[:4]))
    rows = Rows(path)
    found = list(rows.whole())
    path.unlink()
    found += rows.whole()
    path.write_text("".join(entries[:3]))
    found += rows.whole()
    with open(path, "a") as file:
        file.write("".join(entries[3:]))
    found += [*rows.whole(), *rows.last()]
    rows.close()
    assert found == [(step, {"a": step}) for step in range(6)]
