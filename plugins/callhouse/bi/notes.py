"""What happened that explains a number: noted by people, shown on boards and in reports.

Incidents of capture stand there by themselves, for those who may read of them
(warehouse/annotations.sql).
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.sources import registry

if TYPE_CHECKING:
    from callhouse.settings import Settings

KINDS = ("campaign", "outage", "change", "event")
LONGEST_TITLE = 80


def add(
    settings: Settings,
    title: str,
    days: tuple[date, date],
    *,
    kind: str = "campaign",
    source: str | None = None,
    by: str,
) -> int:
    """Note what happened from the first to the last of `days`, both included; its number.

    Raises CallhouseError for an unknown kind or source, an empty or long title, or days in the
    wrong order. Everybody who opens boards reads the title: it names nobody.
    """
    title = " ".join(title.split())
    if not 1 <= len(title) <= LONGEST_TITLE:
        raise CallhouseError(f"a title has 1 to {LONGEST_TITLE} characters, this one {len(title)}")
    if kind not in KINDS:
        raise CallhouseError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    if days[1] < days[0]:
        raise CallhouseError(f"{title}: {days[1]} is before {days[0]}")
    known = {feed.name for feed in registry.feeds(settings)}
    if source is not None and source not in known:
        raise CallhouseError(f"no source {source!r}; there are: {', '.join(sorted(known))}")
    with warehouse.connect(settings) as connection:
        (number,) = warehouse.one(
            connection,
            "insert into ops.annotations (kind, title, source, first_day, last_day, noted_by)"
            " values (%s, %s, %s, %s, %s, %s) returning annotation_id",
            [kind, title, source, *days, by],
        )
    return int(number)


def listed(settings: Settings) -> list[dict[str, Any]]:
    """What is noted and not withdrawn, the newest first."""
    with (
        warehouse.connect(settings) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(
            "select annotation_id, kind, title, source, first_day, last_day, noted_by"
            " from ops.annotations where withdrawn_at is null order by first_day desc, 1 desc"
        ).fetchall()


def withdraw(settings: Settings, number: int, by: str) -> str:
    """Take note `number` off the boards; its title. It stays in the table."""
    with warehouse.connect(settings) as connection:
        found = connection.execute(
            "update ops.annotations set withdrawn_by = %s, withdrawn_at = clock_timestamp()"
            " where annotation_id = %s and withdrawn_at is null returning title",
            [by, number],
        ).fetchone()
    if found is None:
        raise CallhouseError(f"no note {number}: `./callhouse annotate list` shows them")
    return str(found[0])


def within(connection: psycopg.Connection, days: tuple[date, date]) -> list[tuple[Any, ...]]:
    """Titles and days of notes of the half-open `days`, as the connected login sees them."""
    return connection.execute(
        "select distinct title, first_day, last_day from bi.fct_annotations"
        " where kind <> 'incident' and business_day >= %s and business_day < %s order by 2, 1",
        days,
    ).fetchall()
