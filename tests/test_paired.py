"""Differences of losses over the same rows, and their intervals."""

import pytest

from lorasweep.paired import RowScores, paired_difference, students_t


def test_the_interval_is_that_of_a_paired_t_test_where_rows_are_of_one_length() -> None:
    before, after = RowScores([3.0, 2.0, 4.0, 3.0], [1] * 4), RowScores([2.0, 1.5, 2.0, 2.5], [1] * 4)
    found = paired_difference(before, after)
    assert found
    assert found.mean == -1.0
    assert found.high - found.mean == pytest.approx(3.182 * 0.7071 / 2, rel=0.01)
    assert paired_difference(RowScores([1.0], [1]), RowScores([1.0], [1])) is None


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (30, 2.042)])
def test_students_t_is_close_to_the_tables(freedom: int, point: float) -> None:
    assert students_t(freedom) == pytest.approx(point, rel=0.01)


def test_rows_that_weigh_more_move_the_interval_more() -> None:
    found = paired_difference(RowScores([10.0, 1.0, 1.0], [10, 1, 1]), RowScores([5.0, 1.0, 1.0], [10, 1, 1]))
    assert found
    assert found.mean == pytest.approx(-5 / 12)
    assert found.low < found.mean < found.high
