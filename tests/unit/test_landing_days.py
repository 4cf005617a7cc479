"""Which days a landed day shapes, worked by hand."""

from __future__ import annotations

import datetime

import pytest

from callhouse.landing import store

ZONE = "Asia/Shanghai"


def june(day: int) -> datetime.date:
    return datetime.date(2025, 6, day)


def noon(day: int) -> datetime.datetime:
    """12:00 in Shanghai."""
    return datetime.datetime(2025, 6, day, 4, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("changed", "before", "after", "expected"),
    [
        ({3}, None, 3, {2, 3}),  # the first file: tomorrow has no states yet
        ({3}, 3, 3, {2, 3}),
        ({3}, 9, 9, {2, 3, 4}),  # a late file
        ({3}, 2, 3, {2, 3}),  # the next day
        ({9}, 3, 9, {3, 4, 8, 9}),  # what was open on the 3rd lasts longer now
        ({3, 5}, 5, 5, {2, 3, 4, 5}),
        (set(), 5, 5, set()),  # nothing but duplicates
    ],
)
def test_days_around_up_to_the_newest_event(
    changed: set[int], before: int | None, after: int, expected: set[int]
) -> None:
    newest = (noon(before) if before else None, noon(after))
    found = store.shaped_days({june(day) for day in changed}, 1, ZONE, newest)
    assert found == {june(day) for day in expected}


def test_the_day_of_the_newest_event_is_a_local_one() -> None:
    late = datetime.datetime(2025, 6, 3, 16, 0, 1, tzinfo=datetime.UTC)  # the 4th, 00:00:01
    assert store.shaped_days({june(3)}, 1, ZONE, (None, late)) == {june(2), june(3), june(4)}
