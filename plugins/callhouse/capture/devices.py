"""What is watched: feeds by their YAML, and devices that send heartbeats by a file of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document, registry
from callhouse.sources import watch as watching
from callhouse.sources.contract import Feed
from callhouse.sources.watch import UNDECLARED, Watch

KINDS = ("collector", "pbx", "trunk", "recorder")
NOTIFIER = "notifier"  # the process that tells of alerts: somebody must tell of it
# What rows were counted of is counted again where another kind of row, or none before, is meant.
UPSERT = """
insert into ops.capture_devices as d ({columns}, registered_at) values ({places}, %(now)s)
on conflict (device) do update set {updates}, retired_at = null,
    counted_unit_id = case
        when (d.is_declared, d.records) is distinct from (excluded.is_declared, excluded.records)
            then 0
        else d.counted_unit_id
    end
"""


def is_known(connection: psycopg.Connection, device: str) -> bool:
    """Whether a heartbeat of the device can be written down."""
    found = connection.execute(
        "select 1 from ops.capture_devices where device = %s and retired_at is null", [device]
    )
    return found.fetchone() is not None


def declare(connection: psycopg.Connection, settings: Settings, now: datetime) -> list[str]:
    """Bring what is declared into the database; a sentence per declaration that cannot be used.

    A feed that says nothing of its delivery is entered when its DAG first looks. What is declared
    no more is retired; what cannot be read just now stays as it was.
    """
    holidays = watching.holidays()
    there = connection.execute("select calendar, day, is_working_day from ops.capture_holidays")
    if set(there.fetchall()) != set(holidays):
        connection.execute("delete from ops.capture_holidays")
        with connection.cursor() as cursor:
            cursor.executemany("insert into ops.capture_holidays values (%s, %s, %s)", holidays)
    entered = {device for (device,) in connection.execute("select device from ops.capture_devices")}
    feeds = {feed.file.stem: feed for feed in registry.feeds(settings)}
    for name, feed in feeds.items():
        if name in entered or registry.watch(feed):
            enter_feed(connection, feed, now)
    known, problems = registry.names(settings) | {NOTIFIER}, []
    for feed in feeds.values():
        if registry.tail(feed):
            enter_tail(connection, feed, now)
            known.add(tail_name(feed))
        if registry.listens(feed):
            enter_listener(connection, feed, now)
            known.add(listener_name(feed))
        if registry.receive(feed):
            enter_push(connection, feed, now)
            known.add(push_name(feed))
    try:
        own = read(settings.devices_file, feeds)
    except CallhouseError as problem:
        problems.append(str(problem))
        known |= {
            device
            for (device,) in connection.execute(
                "select device from ops.capture_devices where kind <> 'feed'"
            )
        }
    else:
        for device in own:
            _enter(connection, device, (), now)
            known.add(device["device"])
    connection.execute(
        "update ops.capture_devices set retired_at = %s "
        "where retired_at is null and device <> all(%s)",
        [now, sorted(known)],
    )
    return problems


def enter_feed(connection: psycopg.Connection, feed: Feed, now: datetime) -> None:
    """Enter a feed, or what its YAML says of it now."""
    said = registry.watch(feed)
    kinds = sorted(feed.kinds, key=lambda record: not record.partitioned)  # calls first
    watch, name = said or UNDECLARED, feed.file.stem
    has_events = said is not None and kinds[0].partitioned
    values = {
        "device": name,
        "kind": "feed",
        "label": feed.label,
        "source": feed.name,
        "records": [record.name for record in kinds],
        "events_of": name if has_events else None,
        "time_zone": feed.time_zone,
        "is_declared": said is not None,
        **_of_watch(watch),
    }
    _enter(connection, values, watch.series, now)


def tail_name(feed: Feed) -> str:
    """The device that follows the feed's log: the drop folder's heartbeats are another one's."""
    return f"{feed.file.stem}_tail"


def listener_name(feed: Feed) -> str:
    """The device that listens to the feed's exchange."""
    return f"{feed.file.stem}_listener"


def push_name(feed: Feed) -> str:
    """The device that pushes the feed's records."""
    return f"{feed.file.stem}_push"


def enter_tail(connection: psycopg.Connection, feed: Feed, now: datetime) -> None:
    """Enter the collector that follows the feed's log."""
    interval = watching.SHORTEST_INTERVAL
    _enter_lane(connection, feed, tail_name(feed), "collector", "live", interval, now)


def enter_listener(connection: psycopg.Connection, feed: Feed, now: datetime) -> None:
    """Enter what listens to the feed's exchange: numbers that it leaves out are lost rows."""
    interval = watching.SHORTEST_INTERVAL
    name = listener_name(feed)
    _enter_lane(connection, feed, name, "collector", "live", interval, now, source=feed.name)


def enter_push(connection: psycopg.Connection, feed: Feed, now: datetime) -> None:
    """Enter what pushes the feed's records: the sender, where its silence means something."""
    said = registry.receive(feed)
    kind, interval = "collector", watching.SHORTEST_INTERVAL  # the receiver beats
    if said and said.quiet_seconds:
        kind, interval = "pbx", said.quiet_seconds
    _enter_lane(connection, feed, push_name(feed), kind, "pushed", interval, now)


def _enter_lane(
    connection: psycopg.Connection, feed: Feed, device: str, kind: str, how: str, interval: int,
    now: datetime, source: str | None = None,
) -> None:  # fmt: skip
    said = registry.watch(feed) or UNDECLARED
    watch = replace(said, interval_seconds=interval, delay_seconds=None, due=None, series=())
    values = {
        "device": device,
        "kind": kind,
        "label": f"{feed.label}, {how}",
        "source": source,
        "records": [],
        "events_of": None,
        "time_zone": feed.time_zone,
        "is_declared": True,
        **_of_watch(watch),
    }
    _enter(connection, values, (), now)


def enter_notifier(connection: psycopg.Connection, now: datetime) -> None:
    """Enter the notifier, when it begins to work."""
    watch = replace(UNDECLARED, interval_seconds=watching.SHORTEST_INTERVAL)
    values = {
        "device": NOTIFIER,
        "kind": "collector",
        "label": "Notifier of alerts",
        "source": None,
        "records": [],
        "events_of": None,
        "time_zone": "UTC",
        "is_declared": True,
        **_of_watch(watch),
    }
    _enter(connection, values, (), now)


def read(file: Path, feeds: dict[str, Feed]) -> list[dict[str, Any]]:
    """The devices that are declared in `file`; none where there is no file."""
    if not file.exists():
        return []
    node = document.read(file)
    found: list[dict[str, Any]] = []
    for item in node.blocks("devices"):
        name = item.text("device")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
            raise item.error("device", f"'{name}': use lower-case letters, digits and _")
        tails = {tail_name(feed) for feed in feeds.values() if registry.tail(feed)}
        ears = {listener_name(feed) for feed in feeds.values() if registry.listens(feed)}
        pushed = {push_name(feed) for feed in feeds.values() if registry.receive(feed)}
        taken = {NOTIFIER, *feeds, *tails, *ears, *pushed, *(device["device"] for device in found)}
        if name in taken:
            raise item.error("device", f"'{name}' is a device already: choose another name")
        events_of = item.text("events_of", "") or None
        if events_of and (events_of not in feeds or not registry.watch(feeds[events_of])):
            raise item.error("events_of", f"'{events_of}' is no feed with `watch` in its YAML")
        found.append(
            {
                "device": name,
                "kind": item.text("kind", choices=KINDS),
                "label": item.text("label", name),
                "source": None,
                "records": [],
                "events_of": events_of,
                "time_zone": feeds[events_of].time_zone if events_of else "UTC",
                "is_declared": True,
                **_of_watch(watching.read_device(item)),
            }
        )
        item.finish(allowed=("lag_seconds",))
    node.finish()
    return found


def watched_feeds(connection: psycopg.Connection, settings: Settings) -> list[Feed]:
    """The feeds that are watched now, and can be read."""
    names = {
        device
        for (device,) in connection.execute(
            "select device from ops.capture_devices where kind = 'feed' and retired_at is null"
        )
    }
    return [feed for feed in registry.feeds(settings) if feed.file.stem in names]


def _of_watch(watch: Watch) -> dict[str, Any]:
    return {name: getattr(watch, name) for name in Watch.__dataclass_fields__ if name != "series"}


def _enter(
    connection: psycopg.Connection, values: dict[str, Any],
    series: tuple[watching.Series, ...], now: datetime,
) -> None:  # fmt: skip
    statement = UPSERT.format(
        columns=", ".join(values),
        places=", ".join(f"%({name})s" for name in values),
        updates=", ".join(f"{name} = excluded.{name}" for name in values),
    )
    connection.execute(statement.encode(), {**values, "now": now})
    connection.execute("delete from ops.capture_series where device = %s", [values["device"]])
    for item in dict.fromkeys(series):
        connection.execute(
            "insert into ops.capture_series (device, series, date_pattern, number_pattern) "
            "values (%s, %s, %s, %s)",
            [values["device"], item.text, item.date_pattern, item.number_pattern],
        )
