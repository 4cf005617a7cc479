"""A person's word that a held day is right: it is published as it was built, with the reason.

A release holds for the very rows and the failures that the person has seen. Other rows or another
failure hold the day again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import NamedTuple

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings


class Release(NamedTuple):
    """What a person let through on one day, and why."""

    business_day: date
    expectations: tuple[str, ...]
    reason: str
    released_by: str

    @property
    def sentence(self) -> str:
        """For those who read the day's state."""
        return f"released by {self.released_by}: {self.reason}"


def release(
    settings: Settings, day: date, reason: str, person: str, lane: str = "facts"
) -> Release:
    """Release a held day and mark it, so that the next build publishes it."""
    reason = " ".join(reason.split())
    if not reason:
        raise CallhouseError("a day is released with a reason: --reason 'holiday, shop was closed'")
    with warehouse.connect(settings) as connection:
        held = connection.execute(
            "select build_id, reason from ops.held_days where business_day = %s and lane = %s",
            [day, lane],
        ).fetchone()
        if held is None:
            raise CallhouseError(f"{day} is not held: `./callhouse status` lists the days that are")
        build_id, why = held
        expectations = [
            name
            for (name,) in connection.execute(
                "select suite || '.' || expectation from ops.expectation_results "
                "where build_id = %s and severity = 'fail' and not is_success "
                "and %s = any(failing_days) order by 1",
                [build_id, day],
            )
        ]
        if not expectations:
            raise CallhouseError(
                f"{day} could not be built, so there is nothing to release ({why}): "
                f"mend the cause, then `./callhouse transform --days {day}`"
            )
        connection.execute(
            "insert into ops.releases (business_day, lane, build_id, expectations, reason, "
            "released_by) values (%s, %s, %s, %s, %s, %s)",
            [day, lane, build_id, expectations, reason, person],
        )
        found = Release(day, tuple(expectations), reason, person)
        connection.execute(
            "insert into ops.dirty_marks (business_day, lane, reason) values (%s, %s, %s)",
            [day, lane, found.sentence],
        )
    return found


def released(
    connection: psycopg.Connection, build_id: int, failures: Mapping[date, Iterable[str]]
) -> dict[date, Release]:
    """Of `failures` (names by day) of a sealed build, the days that a release lets through."""
    found = {}
    rows = connection.execute(
        "select distinct on (r.business_day) r.business_day, r.expectations, r.reason, "
        "r.released_by from ops.releases as r "
        "inner join ops.builds as b on r.lane = b.lane and b.build_id = %(build)s "
        "where r.business_day = any(%(days)s) "
        "and not ops.is_changed(r.build_id, %(build)s, r.business_day) "
        "order by r.business_day, r.release_id desc",
        {"build": build_id, "days": list(failures)},
    ).fetchall()
    for day, expectations, reason, person in rows:
        if set(failures[day]) <= set(expectations):
            found[day] = Release(day, tuple(expectations), reason, person)
    return found
