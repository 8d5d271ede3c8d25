"""A trial is one controller's at a time: the others wait until it has been silent, and what it says later is void."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorasweep.study.database import local_url
from lorasweep.study.leases import LeaseLost
from lorasweep.study.outcomes import State
from lorasweep.study.store import Overtaken, Store
from tests.study.sessions import until
from tests.study.toy import SPACE

POINT = {"x": 0.25, "y": 0.1}
LONG = 3600.0
SHORT = 0.2


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    """Two controllers' views of one study; a file does for that where they take turns."""
    opened = [Store(local_url(tmp_path / "study.db"), "study", ["minimize"], SPACE) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def taken_over(store: Store, number: int) -> bool:
    """Whether a controller could take a trial by now."""
    store.renew(SHORT)
    store.refresh()
    return number in store.free() and store.claim(number)


def test_a_trial_of_a_living_controller_is_not_free(stores: list[Store]) -> None:
    one, other = stores
    one.join(LONG, is_alone=False)
    other.join(LONG, is_alone=False)
    number = one.create(POINT, "key", "sampled")
    other.refresh()
    other.renew(LONG)
    assert other.free() == []
    assert not other.claim(number)
    assert other.unfinished() == {number}
    assert [item.holder for item in other.others()] == [one.leases.holder]


def test_what_a_silent_controller_had_is_taken_over_and_its_end_is_not_overwritten(stores: list[Store]) -> None:
    slow, other = stores
    slow.join(SHORT, is_alone=False)
    number = slow.create(POINT, "key", "sampled")
    other.join(SHORT, is_alone=False)
    until(lambda: taken_over(other, number))
    other.finish(number, State.COMPLETE, [1.0], {"facts": {}, "reason": None})
    writes = [
        lambda: slow.note(number, deaths=1),
        lambda: slow.report(number, 100, 5.0),
        lambda: slow.finish(number, State.COMPLETE, [5.0], {"facts": {}, "reason": None}),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert slow.lost() == {number}
    slow.refresh()
    assert slow.trial(number).values == [1.0]
    assert slow.trial(number).reports == {}


def test_a_controller_that_was_taken_for_dead_keeps_what_nobody_has_taken(stores: list[Store]) -> None:
    slow, other = stores
    slow.join(SHORT, is_alone=False)
    taken, left = [slow.create({**POINT, "x": x}, str(x), "sampled") for x in (0.1, 0.2)]
    other.join(SHORT, is_alone=False)
    until(lambda: taken_over(other, taken))
    slow.renew(LONG)
    assert slow.lost() == {taken}
    assert not other.claim(left)
    slow.finish(left, State.COMPLETE, [5.0], {"facts": {}, "reason": None})
    other.refresh()
    assert other.trial(left).values == [5.0]


def test_nobody_is_taken_for_dead_soon_after_the_database_was_away(stores: list[Store]) -> None:
    one, other = stores
    one.join(SHORT, is_alone=False)
    other.join(LONG, is_alone=False)
    time.sleep(2 * SHORT)  # and the lease has run out
    other.leases.was_away()
    number = one.create(POINT, "key", "sampled")
    other.refresh()
    other.leases.bury(other.id, LONG)
    assert other.free() == []
    other.leases.bury(other.id, 0.0)
    assert other.free() == [number]


def test_a_number_is_one_controllers(stores: list[Store]) -> None:
    one, other = stores
    assert one.create(POINT, "one", "sampled") == 0
    with pytest.raises(Overtaken):
        other.create(POINT, "other", "sampled")
    assert other.refresh() == [0]
    assert other.create(POINT, "other", "sampled") == 1
    assert [trial.key for trial in other.trials()] == ["one", "other"]


def test_an_end_is_written_once_however_often_it_is_tried(stores: list[Store]) -> None:
    one, _ = stores
    number = one.create(POINT, "key", "sampled")
    for value in (1.0, 5.0):
        one.finish(number, State.COMPLETE, [value], {"facts": {}, "reason": None})
    assert one.trial(number).values == [1.0]
    assert not one.leases.claim(one.frozen()[number]._trial_id)


def test_who_leaves_leaves_its_trials(stores: list[Store]) -> None:
    one, other = stores
    one.join(LONG, is_alone=False)
    number = one.create(POINT, "key", "sampled")
    other.refresh()
    one.leases.leave()
    assert other.free() == [number]
    assert other.claim(number)


def test_what_is_settled_first_stays(stores: list[Store]) -> None:
    one, other = stores
    assert one.settle("definition", {"a": 1}) == {"a": 1}
    assert other.settle("definition", {"a": 2}) == {"a": 1}
    assert other.attributes["definition"] == {"a": 1}


def test_a_study_that_others_have_joined_is_not_begun_anew(stores: list[Store]) -> None:
    one, other = stores
    one.join(LONG, is_alone=False)
    one.settle("definition", 1)
    other.join(LONG, is_alone=False)
    other.begin_anew(LONG)
    assert other.settle("definition", 2) == 1
    one.leases.leave()
    other.begin_anew(LONG)
    assert other.settle("definition", 2) == 2


def test_all_controllers_hear_that_they_are_to_stop(stores: list[Store]) -> None:
    for store in stores:
        store.join(LONG, is_alone=False)
    assert not stores[1].renew(LONG)
    stores[0].tell_to_stop()
    assert [store.renew(LONG) for store in stores] == [True, True]
