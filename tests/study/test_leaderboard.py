"""The leaderboard: the order of trials, what its CSV holds, what fits a terminal."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorasweep.study.leaderboard import Leaderboard, build_leaderboard, show, write_leaderboard
from lorasweep.study.outcomes import State
from lorasweep.study.session import run_session
from lorasweep.study.view import Lines
from tests.study.toy import toy
from tests.study.trials import ended, kept

RICH = {
    "eval/loss": 1.5,
    "eval/exact_match": 0.25,
    "memory/peak_gib": 9.5,
    "tokens/per_second": 1234.5,
    "train/seconds": 60.0,
}


def board_of(folder: Path, *trials: tuple[Any, ...], **facts: Any) -> Leaderboard:
    store = kept(folder, **facts)
    for trial in trials:
        ended(store, *trial)
    store.close()
    return build_leaderboard(store, folder)


def printed(board: Leaderboard, width: int = 120, most: int | None = 15) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    show(board, console, most)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    return text


def read(folder: Path) -> list[dict[str, str]]:
    with open(folder / "leaderboard.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_complete_trials_come_first_by_value_and_others_after_them_with_why(tmp_path: Path) -> None:
    trials = [
        ({"a": 1}, 2.0, "baseline"),
        ({"a": 2}, State.FAILED, "sampled", {}, "RuntimeError: broken\nmore"),
        ({"a": 3}, State.PRUNED, "sampled", {"objective": 1.9}),
        ({"a": 4}, 1.5),
        ({"a": 5}, State.OUT_OF_MEMORY, "sampled", {}, "no room"),
        ({"a": 6}, State.PRUNED, "sampled", {"objective": 1.8}),
    ]
    board = board_of(tmp_path, *trials)
    assert [row["trial"] for row in board.rows] == [3, 0, 5, 2, 4, 1]
    assert [row.get("rank") for row in board.rows] == [1, 2, None, None, None, None]
    assert [row.get("difference") for row in board.rows[:2]] == [-0.5, 0.0]
    text = printed(board)
    assert "trial 1 failed: RuntimeError: broken\n" in text
    assert "trial 4 out of memory: no room\n" in text


def test_more_is_better_where_a_score_is_maximized(tmp_path: Path) -> None:
    trials = [({"a": 1}, 0.1, "baseline"), ({"a": 2}, 0.3), ({"a": 3}, 0.2)]
    board = board_of(tmp_path, *trials, directions=["maximize"], **{"evaluation.objective": "exact_match"})
    assert [row["trial"] for row in board.rows] == [1, 2, 0]
    assert "exact_match" in printed(board)


def test_of_several_objectives_the_pareto_front_comes_first_and_is_marked(tmp_path: Path) -> None:
    trials = [
        ({"a": n}, values) for n, values in enumerate([(1.0, 9.0), (1.2, 9.5), (2.0, 5.0), (1.5, 7.0), (2.0, 6.0)])
    ]
    board = board_of(tmp_path, *trials, objectives=["objective", "memory/peak_gib"])
    assert [(row["trial"], row["front"]) for row in board.rows] == [
        (0, True),
        (3, True),
        (2, True),
        (1, False),
        (4, False),
    ]
    write_leaderboard(board)
    assert [row["front"] for row in read(tmp_path)] == ["true"] * 3 + ["false"] * 2
    assert printed(board).count("complete ●") == 3


def test_the_untuned_base_model_is_a_row_without_a_rank(tmp_path: Path) -> None:
    untuned = {"untuned/eval/loss": 3.0, "untuned/eval/exact_match": 0.0}
    board = board_of(tmp_path, ({"a": 1}, 1.5, "baseline", RICH | untuned), ({"a": 2}, State.FAILED))
    assert [row["state"] for row in board.rows] == ["complete", "untuned", "failed"]
    row = board.rows[1]
    assert (row["objective"], row["eval/exact_match"], row["difference"]) == (3.0, 0.0, 1.5)
    assert "rank" not in row


def test_the_csv_holds_every_trial_with_every_column_and_reads_back(tmp_path: Path) -> None:
    point = {
        "lora.r": 16,
        "lora.target_modules": ["q_proj", "v_proj"],
        "train.max_grad_norm": None,
        "data.packing": True,
    }
    board = board_of(tmp_path, (point, 1.5, "baseline", RICH), ({"lora.r": 8}, State.FAILED, "added", {}, 'a "b",\nc'))
    write_leaderboard(board)
    first, second = read(tmp_path)
    assert first["lora.target_modules"] == '["q_proj", "v_proj"]'
    assert (first["train.max_grad_norm"], first["data.packing"], first["lora.r"]) == ("null", "true", "16")
    assert {name: float(first[name]) for name in RICH} == RICH
    assert (first["rank"], first["objective"], first["folder"]) == ("1", "1.5", "trials/0")
    assert (second["state"], second["why"], second["objective"], second["data.packing"]) == (
        "failed",
        'a "b",\nc',
        "",
        "",
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_a_half_trained_trial_reached_is_not_among_the_objectives(tmp_path: Path) -> None:
    write_leaderboard(board_of(tmp_path, ({"a": 1}, State.PRUNED, "sampled", {"objective": 0.1})))
    (row,) = read(tmp_path)
    assert (row["objective"], row["reached"]) == ("", "0.1")


def test_what_is_the_same_in_every_trial_is_said_once_above_the_table(tmp_path: Path) -> None:
    board = board_of(tmp_path, ({"lora.r": 8, "lora.alpha": 16}, 1.0), ({"lora.r": 9, "lora.alpha": 16}, 2.0))
    first, *rest = printed(board).splitlines()
    assert first == "the same in every trial: lora.alpha=16"
    assert not any("alpha" in line for line in rest)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_fits_the_terminal_and_says_what_it_leaves_out(tmp_path: Path, width: int) -> None:
    point = {f"section.option_{name}": 1.5 for name in "abcdefgh"}
    board = board_of(tmp_path, *(({**point, "section.option_a": n, "section.option_b": -n}, n / 3, "sampled",
                                  {**RICH, "tokens/per_second": float(n)}) for n in range(5)))  # fmt: skip
    text = printed(board, width)
    assert "0.3333" in text
    assert "option_a" in text
    assert ("no room for" in text) == (width < 80)


def test_fifteen_rows_are_shown_the_baseline_among_them_unless_asked_for_more(tmp_path: Path) -> None:
    trials = [({"a": n}, float(n)) for n in range(20)]
    board = board_of(tmp_path, *trials, ({"a": 99}, 30.0, "baseline"))
    text = printed(board)
    assert "baseline" in text
    assert "not shown: 6 complete" in text
    assert "not shown" not in printed(board, most=None)


def test_a_session_leaves_its_leaderboard_in_the_folder_and_on_the_screen(tmp_path: Path) -> None:
    console = Console(width=100, file=io.StringIO())
    run_session(toy(tmp_path / "s", n_trials=3, slots=1), Lines(console))
    rows = read(tmp_path / "s")
    assert sorted(int(row["trial"]) for row in rows) == [0, 1, 2]
    assert "all of it:" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_study_without_trials_has_an_empty_table(tmp_path: Path) -> None:
    assert printed(board_of(tmp_path)) == "no trials yet\n"
