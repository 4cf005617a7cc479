"""What has landed: events by hour, the newest event, and what came late of an incident."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
from psycopg import sql

from callhouse.settings import Settings
from callhouse.sources.contract import Feed, Record

# As far back as silence is compared, and a week for what lasts as long.
HISTORY = timedelta(days=64)
# So long after it was closed, what comes late still counts for an incident.
LATE = timedelta(days=7)


def count(connection: psycopg.Connection, feed: Feed, now: datetime) -> bool:
    """Count what has landed of a feed since it was last counted; whether anything has.

    Only the days of new units are counted again. Units of a source are written one after the other,
    so none can come up below one that was seen.
    """
    device = feed.file.stem
    row = connection.execute(
        "select d.events_of is not null, d.records[1], max(u.unit_id), min(u.unit_id) "
        "from ops.capture_devices as d inner join ops.units as u on u.source = d.source "
        "and u.record = any(d.records) and u.unit_id > d.counted_unit_id "
        "and u.status = 'landed' where d.device = %s group by d.device",
        [device],
    ).fetchone()
    if row is None:
        return False
    has_history, first, newest_unit, oldest_unit = row
    record = next(kind for kind in feed.kinds if kind.name == first)
    if record.partitioned:
        days = [
            day
            for (day,) in connection.execute(
                "select distinct b.business_day from ops.unit_days as b "
                "inner join ops.units as u on b.unit_id = u.unit_id "
                "where u.source = %s and u.record = %s and u.unit_id between %s and %s "
                "and b.business_day > %s order by b.business_day",
                [feed.name, first, oldest_unit, newest_unit, (now - HISTORY).date()],
            )
        ]
        _find_newest(connection, feed, record, (oldest_unit, newest_unit), days[-2:], now)
        if has_history:
            _count_hours(connection, feed, record, days)
    connection.execute(
        "update ops.capture_devices set counted_unit_id = %s where device = %s",
        [newest_unit, device],
    )
    return True


def _names(record: Record) -> dict[str, sql.Composable]:
    return {
        "table": sql.Identifier(*record.table.split(".")),
        "day": sql.Identifier(record.day),
        "at": sql.Identifier(record.times[0]),
        # Records without a key have no newer versions.
        "counts": sql.SQL("superseded_by is null" if record.key else "true"),
    }


def _find_newest(
    connection: psycopg.Connection, feed: Feed, record: Record, units: tuple[int, int],
    days: list[object], now: datetime,
) -> None:  # fmt: skip
    """The newest event that is no more than a wrong clock ahead of its own landing.

    One of next year would hide every silence until then.
    """
    connection.execute(
        sql.SQL(
            "with landed as (select t.{at} as event_at, u.landed_at, "
            "extract(epoch from t.{at} - u.landed_at) as ahead from {table} as t "
            "inner join ops.units as u on t.unit_id = u.unit_id where t.source = %(source)s "
            "and t.{day} = any(%(days)s) and t.unit_id between %(first)s and %(last)s) "
            "update ops.capture_devices as d set "
            "newest_event_at = greatest(d.newest_event_at, n.event_at), "
            "newest_landed_at = case when n.event_at > d.newest_event_at "
            "or d.newest_event_at is null then n.landed_at else d.newest_landed_at end, "
            "ahead_seconds = greatest(a.ahead, 0), "
            "clock_good_at = case when a.ahead <= d.skew_seconds then %(now)s "
            "else d.clock_good_at end "
            "from (select max(ahead) as ahead from landed) as a left join lateral ("
            "select l.event_at, l.landed_at from landed as l inner join ops.capture_devices as o "
            "on o.device = %(device)s where l.ahead <= o.skew_seconds "
            "order by l.event_at desc, l.landed_at limit 1) as n on true "
            "where d.device = %(device)s and a.ahead is not null"
        ).format(**_names(record)),
        {"source": feed.name, "days": days, "first": units[0], "last": units[1],
         "device": feed.file.stem, "now": now},
    )  # fmt: skip


def _count_hours(
    connection: psycopg.Connection, feed: Feed, record: Record, days: list[object]
) -> None:
    """Calls by the hour of their first row, where rows have calls: rows of one call come together,
    and chance is reckoned from what happens by itself.
    """
    device = feed.file.stem
    names = _names(record)
    names["chosen"] = sql.SQL("source = %(source)s and {day} = any(%(days)s) and {counts}").format(
        **names
    )
    names["events"] = sql.SQL(
        "select {day} as business_day, min({at}) as event_at from {table} "
        "where {chosen} and call_id is not null group by {day}, call_id"
        if "call_id" in record.by_name
        else "select {day} as business_day, {at} as event_at from {table} where {chosen}"
    ).format(**names)
    connection.execute(
        "delete from ops.capture_hours where device = %s and business_day = any(%s)",
        [device, days],
    )
    connection.execute(
        sql.SQL(
            "insert into ops.capture_hours (device, business_day, hour_at, events) "
            "select %(device)s, business_day, date_trunc('hour', event_at, %(zone)s) as hour_at, "
            "count(*) from ({events}) as e group by business_day, hour_at"
        ).format(**names),
        {"source": feed.name, "days": days, "device": device, "zone": feed.time_zone},
    )


def count_back_fill(
    settings: Settings, connection: psycopg.Connection, feeds: list[Feed], touched: set[str],
    now: datetime,
) -> None:  # fmt: skip
    """How much has come of what incidents of feeds had kept away, as far as it may have changed."""
    from callhouse.landing import cold  # landing imports this package

    by_name = {feed.file.stem: feed for feed in feeds}
    rows = connection.execute(
        "select incident_id, device, kind, since_at, coalesce(well_since, resolved_at, %(now)s), "
        "opened_at, days from ops.incidents where device = any(%(feeds)s) and kind <> 'clock' "
        "and (resolved_at is null or resolved_at > %(now)s - %(late)s) "
        "and (device = any(%(touched)s) or back_filled_rows is null)",
        {"now": now, "late": LATE, "feeds": list(by_name), "touched": list(touched)},
    ).fetchall()
    for incident_id, device, kind, since, until, opened_at, days in rows:
        if kind in ("late", "empty", "gap"):
            connection.execute("select ops.count_back_fill(%s)", [incident_id])
            continue
        parts = [
            sql.SQL(
                "select t.{day} as business_day, u.landed_at from {table} as t "
                "inner join ops.units as u on t.unit_id = u.unit_id "
                "where t.source = %(source)s and t.{day} = any(%(days)s) and t.{at} > %(since)s "
                "and t.{at} <= %(until)s and u.landed_at > %(opened)s"
            ).format(**_names(record))
            for record in by_name[device].kinds
            if record.partitioned
        ]
        if not parts:
            continue
        cold.hold(connection)
        cold.thaw(settings, connection, days or ())
        connection.execute(
            sql.SQL(
                "update ops.incidents as i set back_filled_rows = n.late_rows, "
                "back_filled_days = n.late_days, back_filled_at = n.landed_at from ("
                "select count(*) as late_rows, count(distinct business_day) as late_days, "
                "max(landed_at) as landed_at from ({}) as r) as n "
                "where i.incident_id = %(incident)s"
            ).format(sql.SQL(" union all ").join(parts)),
            {"source": by_name[device].name, "days": days, "since": since, "until": until,
             "opened": opened_at, "incident": incident_id},
        )  # fmt: skip
