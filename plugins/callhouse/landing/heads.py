"""Call heads: the day of a call whose events come one by one, in any order and from any file.

An event is copied into the day of its own time, and the first of each call and day into
`landed_events` as well. `gather` then puts the unit's events into the days of their calls, and
takes a call's older events along where an earlier one has moved it.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product

import polars as pl
import psycopg
from psycopg import sql

from callhouse.landing import binary, store
from callhouse.sources.contract import Feed, Field, Record

INSTANTS = {name: Field(name, "instant") for name in ("event_at", "began_at")}


@dataclass(frozen=True)
class Gathering:
    """Business days after gathering."""

    rows: Counter[datetime.date]  # of the unit, by day
    older_days: set[datetime.date]  # those of them with rows of other units
    moved: set[datetime.date]  # from which and to which rows of other units were moved

    @property
    def days(self) -> set[datetime.date]:
        """Those of the unit's rows."""
        return set(self.rows)


def begin(connection: psycopg.Connection) -> None:
    """Make `landed_events`, until the transaction ends."""
    connection.execute(
        "create temporary table landed_events (call_id text, business_day date, "
        "event_at timestamptz, began_at timestamptz) on commit drop"
    )


def first_events(rows: pl.DataFrame, record: Record) -> tuple[str, bytes]:
    """(COPY statement, COPY bytes) of the first event of each call on each day of a block.

    A third of its rows or less, so that the server need not read all of them again and sort them.
    Calls of chains (`links`) are known only when all rows are there: of these nothing is told.
    """
    if record.heads is None or record.links is not None:
        return "", b""
    firsts = (
        rows.select("call_id", "business_day", "event_at", began_at=_began_at(record))
        .drop_nulls("call_id")
        .sort("event_at", "began_at")
        .unique(("call_id", "business_day"), keep="first")
    )
    if not firsts.height:
        return "", b""
    columns, data = binary.encode(firsts, INSTANTS, {})
    return f"copy landed_events ({', '.join(columns)}) from stdin (format binary)", data


def _began_at(record: Record) -> str:
    """Column of when a row's event began: records that report no durations begin when they say."""
    return "began_at" if "began_at" in record.by_name else "event_at"


def gather(
    connection: psycopg.Connection, partitions: Mapping[str, store.Partitions], record: Record,
    feed: Feed, unit_id: int, copied: Counter[datetime.date], older_days: set[datetime.date],
    thaw: Callable[[Iterable[datetime.date]], None],
) -> Gathering:  # fmt: skip
    """Move events to the day of their call's arrival.

    A call arrives when its first event says that it began: its record before may be lost. The
    smallest (event_at, began_at) wins, whatever order units come in and whatever record it is of:
    `partitions` are those of all tables with these heads, by table. `copied` are the unit's rows
    by day, `older_days` those of them and of the days beside them that have rows of other units.
    `thaw` reads what is archived back.

    The unit's days are counted as its rows are moved: the server would read all of them again.
    """
    if record.heads is None:
        raise ValueError(f"{record.name} have no call heads")
    days = set(copied)
    names = {
        "table": store.identifier(record.table), "heads": store.identifier(record.heads),
        "began_at": sql.Identifier(_began_at(record)),
    }  # fmt: skip
    values: dict[str, object] = {
        "source": feed.name, "unit": unit_id, "zone": feed.time_zone, "days": sorted(days),
    }  # fmt: skip

    def run(statement: str) -> psycopg.Cursor:
        return connection.execute(sql.SQL(statement).format(**names), values)

    if record.links:
        run(
            "insert into landed_events select call_id, business_day, event_at, {began_at} "
            "from {table} where unit_id = %(unit)s and business_day = any(%(days)s) "
            "and call_id is not null"
        )
        run(
            "insert into landed_events select call_id, old_day, event_at, event_at "
            "from relabelled_rows"
        )
    # Counted: a few calls are looked up among all that there are, many are compared with them.
    run("analyze landed_events")
    run(
        "create temporary table landed_heads on commit drop as with firsts as ("
        "select distinct on (call_id) call_id, event_at as first_event_at, "
        "began_at as arrived_at, (began_at at time zone %(zone)s)::date as business_day "
        "from landed_events order by call_id, event_at, began_at), compared as ("
        "select f.*, h.business_day as old_day, h.first_event_at as old_first_event_at, "
        "h.arrived_at as old_arrived_at, (h.first_event_at, h.arrived_at) "
        "<= (f.first_event_at, f.arrived_at) as is_old from firsts as f left join {heads} as h "
        "on h.source = %(source)s and h.call_id = f.call_id) "
        "select call_id, case when is_old then old_first_event_at else first_event_at end "
        "as first_event_at, case when is_old then old_arrived_at else arrived_at end "
        "as arrived_at, case when is_old then old_day else business_day end as business_day, "
        "old_day, old_day is not null and not is_old as is_earlier from compared"
    )
    run("analyze landed_heads")
    run(
        "update {heads} as h set business_day = l.business_day, "
        "first_event_at = l.first_event_at, arrived_at = l.arrived_at from landed_heads as l "
        "where l.is_earlier and h.source = %(source)s and h.call_id = l.call_id"
    )
    # One landing per source at a time: none can meet a conflict, which takes half as long again.
    run(
        "insert into {heads} (source, call_id, business_day, first_event_at, arrived_at) "
        "select %(source)s, call_id, business_day, first_event_at, arrived_at from landed_heads "
        "where old_day is null order by call_id"
    )
    known = {day for (day,) in run("select distinct business_day from landed_heads")}
    thaw(known)
    partitions[record.table].ensure(known)
    run(
        "create temporary table strays on commit drop as select distinct e.call_id, "
        "e.business_day as copied_to, l.business_day from landed_events as e "
        "inner join landed_heads as l on e.call_id = l.call_id "
        "where e.business_day <> l.business_day"
    )
    values["strayed"] = [day for (day,) in run("select distinct copied_to from strays")]
    if record.links:  # rows that changed their call stand on the day of the old one
        run(
            "insert into landed_heads select distinct h.call_id, h.first_event_at, h.arrived_at, "
            "h.business_day, r.old_day, false from relabelled_rows as r inner join {heads} as h "
            "on h.source = %(source)s and h.call_id = r.call_id"
        )
    # A unit's rows have no statistics yet: a nested loop would be chosen by mistake. From here on
    # a join with the calls would read all that there ever were.
    connection.execute("set local enable_nestloop = off")
    rows = Counter(copied)
    for copied_to, day, count in run(
        "with put as (update {table} as t set business_day = s.business_day from strays as s "
        "where t.unit_id = %(unit)s and t.business_day = any(%(strayed)s) "
        "and t.call_id = s.call_id and t.business_day = s.copied_to "
        "returning s.copied_to, s.business_day) "
        "select copied_to, business_day, count(*) from put group by copied_to, business_day"
    ):
        rows[copied_to] -= count
        rows[day] += count
    moved = _move_older(connection, partitions, feed.name, unit_id, thaw)
    around = {day + shift * store.ONE_DAY for day in days for shift in (-1, 0, 1)}
    asked = days | known if moved else known - around
    return Gathering(
        +rows,
        older_days=(older_days & (days | known)) - asked
        | store.days_with_rows(
            connection, record.table, "business_day", feed.name, asked, but=unit_id
        ),
        moved=moved,
    )


def _move_older(
    connection: psycopg.Connection,
    partitions: Mapping[str, store.Partitions],
    source: str,
    unit_id: int,
    thaw: Callable[[Iterable[datetime.date]], None],
) -> set[datetime.date]:
    """Take the staged events of calls that begin earlier than known along, with their ledger."""
    changes = connection.execute(
        "select distinct old_day, business_day from landed_heads where old_day <> business_day"
    ).fetchall()
    thaw({day for change in changes for day in change})
    for table, (old_day, new_day) in product(partitions, changes):
        partitions[table].ensure([new_day])
        statement = sql.SQL(
            "with moved as (update {} as t set business_day = %(new)s from landed_heads as l "
            "where t.business_day = %(old)s and t.source = %(source)s and t.unit_id <> %(unit)s "
            "and l.old_day = %(old)s and l.business_day = %(new)s and t.call_id = l.call_id "
            "returning t.unit_id), counted as ("
            "select unit_id, count(*) as rows from moved group by unit_id), added as ("
            "insert into ops.unit_days (unit_id, business_day, staged_rows) "
            "select unit_id, %(new)s, rows from counted on conflict (unit_id, business_day) "
            "do update set staged_rows = unit_days.staged_rows + excluded.staged_rows) "
            "update ops.unit_days as d set staged_rows = d.staged_rows - c.rows "
            "from counted as c where d.unit_id = c.unit_id and d.business_day = %(old)s "
            "returning d.unit_id"
        ).format(store.identifier(table))
        parameters = {"old": old_day, "new": new_day, "source": source, "unit": unit_id}
        units = [unit for (unit,) in connection.execute(statement, parameters)]
        connection.execute(
            "delete from ops.unit_days where business_day = %s and staged_rows = 0", [old_day]
        )
        connection.execute(
            "update ops.units as u set first_day = d.first_day, last_day = d.last_day from ("
            "select unit_id, min(business_day) as first_day, max(business_day) as last_day "
            "from ops.unit_days where unit_id = any(%s) group by unit_id) as d "
            "where u.unit_id = d.unit_id",
            [units],
        )
    return {day for change in changes for day in change}
