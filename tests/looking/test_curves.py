"""Curves in a terminal, and the points that they are drawn from."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lorasweep.curves import MARK, Curve, plot
from lorasweep.learning import learning
from lorasweep.results import read_results
from tests.looking.made import BEFORE, made

FALLING = [(float(x), 4.0 - x / 100) for x in range(0, 201, 20)]
RISING = [(float(x), 2.0 + x / 100) for x in range(0, 201, 20)]


def drawn(*curves: Curve, width: int = 40, height: int = 5, **kwargs: object) -> list[str]:
    console = Console(file=io.StringIO(), width=80, **kwargs)  # type: ignore[arg-type]
    return [line.plain for line in plot(curves, console, width, height, "tokens")]


def test_a_curve_falls_from_the_top_left_to_the_bottom_right():
    lines = drawn(Curve("A", "cyan", FALLING, [FALLING[-1]]))
    axis = lines[0].index("│") + 1
    assert lines[0].startswith("4 ")
    assert lines[4].startswith("2 ")
    assert lines[0][axis] != " "
    assert lines[0][axis + 20 :].strip() == ""
    assert lines[4][axis : axis + 20].strip() == ""
    assert lines[4][axis + 39] == MARK
    assert lines[5].endswith("200 tokens")


def test_without_colours_several_curves_are_letters_and_a_star_where_they_meet():
    lines = drawn(Curve("A", "cyan", FALLING, [FALLING[-1]]), Curve("B", "red", RISING))
    axis = lines[0].index("│") + 1
    assert (lines[0][axis], lines[4][axis]) == ("a", "b")
    assert lines[4][axis + 39] == "A"
    assert any("*" in line for line in lines)


def test_with_colours_several_curves_are_dots():
    lines = drawn(
        Curve("A", "cyan", FALLING), Curve("B", "red", RISING), force_terminal=True, color_system="standard"
    )  # fmt: skip
    assert not any(letter in "".join(lines[:5]) for letter in "ab*")


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)]])
def test_what_has_no_length_is_not_drawn(points: list[tuple[float, float]]):
    assert drawn(Curve("A", "cyan", points, points)) == []


def test_a_flat_curve_and_a_single_point_are_drawn():
    assert len(drawn(Curve("A", "cyan", [(10.0, 1.0), (20.0, 1.0)]))) == 6
    assert len(drawn(Curve("A", "cyan", [(10.0, 1.0)]))) == 6


def test_many_steps_are_averaged():
    noisy = [(float(x), 1.0 + 10.0 * (x % 2)) for x in range(1, 2001)]
    lines = drawn(Curve("A", "cyan", noisy))
    assert float(lines[4].split()[0]) == pytest.approx(6.0, abs=0.5)


def test_evaluations_stand_where_the_tokens_of_their_steps_do(tmp_path: Path):
    folder = made(tmp_path / "run", steps=4)
    found = learning(read_results(folder))
    assert found.training == [(50.0, 3.25), (100.0, 2.5), (150.0, 1.75), (200.0, 1.0)]
    assert found.evaluation == [(0.0, BEFORE), (200.0, 1.0)]


def test_evaluations_between_logged_steps_stand_between_their_tokens(tmp_path: Path):
    folder = made(tmp_path / "run", steps=8, state="pruned", facts={"steps": 6, "tokens/supervised": 300})
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["step"] in (2, 4) and "train/loss" in line]
    kept += [{"step": step, "eval/loss": 1.0} for step in (0, 1, 3, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert [tokens for tokens, _ in learning(read_results(folder)).evaluation] == [0.0, 50.0, 150.0, 300.0]


def test_a_run_without_metrics_has_no_curve(tmp_path: Path):
    folder = made(tmp_path / "run", state=None)
    (folder / "metrics.jsonl").write_text('{"step": 0, "eval/loss": 4.0}\n')
    assert learning(read_results(folder)).evaluation == [(0.0, 4.0)]
