"""Chains of rows: to which call a row belongs, where only the rows before it can tell.

A row that follows another one belongs to that one's call, except where it begins a call of its own
(its `call_id` is its own key). Rows may come in any order: whenever one is landed, those that hang
on it are told anew, also in older units.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable

import psycopg
from psycopg import sql

from callhouse.landing import store
from callhouse.sources.contract import Record

# Longer chains are circles: the way back ends somewhere, and at the same place every time.
LONGEST_CHAIN = 100


def relabel(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date], thaw: Callable[[Iterable[datetime.date]], None],
) -> None:  # fmt: skip
    """Give the unit's rows, and older ones that follow them, the call of their chain.

    Leaves `relabelled_rows`: the older ones, still on the day of the call they seemed to be of.
    `thaw` reads their days back where they are archived.
    """
    if record.links is None or record.follows is None or record.heads is None:
        return
    names = {
        "table": store.identifier(record.table), "links": store.identifier(record.links),
        "heads": store.identifier(record.heads), "key": sql.Identifier(record.key[0]),
        "previous": sql.Identifier(record.follows),
        "version": sql.Identifier(record.version or "event_at"),
    }  # fmt: skip
    values: dict[str, object] = {
        "source": source, "unit": unit_id, "days": sorted(days), "longest": LONGEST_CHAIN,
    }  # fmt: skip

    def run(statement: str) -> psycopg.Cursor:
        return connection.execute(sql.SQL(statement).format(**names), values)

    run(
        "insert into {links} as l (source, row_id, previous_id, own_call_id, call_id, version, "
        "row_hash) select distinct on ({key}) source, {key}, {previous}, call_id, call_id, "
        "{version}, row_hash from {table} where unit_id = %(unit)s "
        "and business_day = any(%(days)s) and {previous} is not null "
        "order by {key}, {version} desc, row_hash desc "
        "on conflict (source, row_id) do update set previous_id = excluded.previous_id, "
        "own_call_id = excluded.own_call_id, version = excluded.version, "
        "row_hash = excluded.row_hash "
        "where (l.version, l.row_hash) < (excluded.version, excluded.row_hash)"
    )
    # Counted: of rows that are just there the planner thinks they are few, and would look through
    # them for every link there is.
    run(
        "create temporary table landed_keys on commit drop as select distinct {key} as row_id "
        "from {table} where unit_id = %(unit)s and business_day = any(%(days)s)"
    )
    run("analyze landed_keys")
    run(
        "create temporary table landed_links on commit drop as with recursive affected as ("
        "select l.row_id, 0 as depth from landed_keys as t inner join {links} as l "
        "on l.source = %(source)s and l.row_id = t.row_id "
        "union select l.row_id, a.depth + 1 from affected as a inner join {links} as l "
        "on l.source = %(source)s and l.previous_id = a.row_id and l.own_call_id <> l.row_id "
        "where a.depth < %(longest)s), "
        "climbed as (select distinct row_id, row_id as at_id, 0 as depth from affected "
        "union all select c.row_id, p.row_id, c.depth + 1 from climbed as c "
        "inner join {links} as l on l.source = %(source)s and l.row_id = c.at_id "
        "and l.own_call_id <> l.row_id "
        "inner join {links} as p on p.source = %(source)s and p.row_id = l.previous_id "
        "where c.depth < %(longest)s) "
        "select distinct on (c.row_id) c.row_id, top.own_call_id as call_id, "
        "l.own_call_id, l.call_id as old_call_id from climbed as c "
        "inner join {links} as top on top.source = %(source)s and top.row_id = c.at_id "
        "inner join {links} as l on l.source = %(source)s and l.row_id = c.row_id "
        "order by c.row_id, c.depth desc"
    )
    run(
        "update {table} as t set call_id = l.call_id from landed_links as l "
        "where t.unit_id = %(unit)s and t.business_day = any(%(days)s) and t.{key} = l.row_id "
        "and t.call_id <> l.call_id"
    )
    run(
        "update {links} as l set call_id = n.call_id from landed_links as n "
        "where l.source = %(source)s and l.row_id = n.row_id and l.call_id <> n.call_id"
    )
    # Older rows stand on the day of the call that they were given then.
    old_days = [
        day
        for (day,) in run(
            "select distinct h.business_day from landed_links as l inner join {heads} as h "
            "on h.source = %(source)s and h.call_id in (l.own_call_id, l.old_call_id, l.call_id)"
        )
    ]
    thaw(old_days)
    values["days"] = old_days
    run(
        "create temporary table relabelled_rows on commit drop as "
        "select t.unit_id, t.line_number, t.business_day as old_day, t.call_id as old_call_id, "
        "l.call_id, t.event_at from {table} as t inner join landed_links as l "
        "on t.{key} = l.row_id where t.source = %(source)s and t.unit_id <> %(unit)s "
        "and t.business_day = any(%(days)s) and t.call_id <> l.call_id"
    )
    run(
        "update {table} as t set call_id = r.call_id from relabelled_rows as r "
        "where t.business_day = any(%(days)s) and t.business_day = r.old_day "
        "and t.unit_id = r.unit_id and t.line_number = r.line_number"
    )
    run(
        "delete from {heads} as h where h.source = %(source)s "
        "and h.call_id in (select old_call_id from relabelled_rows) and not exists ("
        "select from {table} as t where t.source = h.source and t.call_id = h.call_id "
        "and t.business_day = h.business_day and t.business_day = any(%(days)s))"
    )
