"""Who delivers, and what happens when they stop: everything at moments that are handed over."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from typer.testing import CliRunner

from callhouse import capture, cli, landing, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import diagnosis, postgres
from callhouse.security import login_password, people
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import dbt

ZONE = ZoneInfo("Asia/Shanghai")
MINUTE = timedelta(minutes=1)
FEED = """
feed: {name}
vendor: delimited
label: {name}
time_zone: Asia/Shanghai
{watch}
records:
  - record: legs
    files: ["*.csv"]
    delimiter: comma
    header: true
    columns:
      call_id: call
      queue_id: {{constant: desk}}
      agent_id: {{constant: "101"}}
      outcome: {{constant: answered}}
      arrived_at: {{column: arrived, format: "%Y-%m-%d %H:%M:%S"}}
      talk_seconds: {{constant: "60"}}
"""
STREAM = "watch: {delay_seconds: 600, owner: exchange team, acknowledge_seconds: 900}"
DAILY = 'watch: {due: "06:00", days: working, calendar: CN}'
DATED = 'watch: {due: "06:00", calendar: CN, series: "day_{date}.csv"}'
NUMBERED = 'watch: {delay_seconds: 86400, series: "part_{number}.csv"}'
DEVICES = """
devices:
  - {device: exchange, kind: pbx, owner: telephony, interval_seconds: 300}
  - {device: recorder, kind: recorder, owner: telephony, interval_seconds: 120, events_of: stream}
  - {device: trunk, kind: trunk, owner: carrier desk, interval_seconds: 300, skew_seconds: 30,
     lag_seconds: 60}
"""


def local(day: date, clock: str = "00:00") -> datetime:
    """A moment by the clock of the call centre."""
    return datetime.combine(day, time.fromisoformat(clock), ZONE)


def write(folder: Path, name: str, arrivals: list[datetime]) -> Path:
    file = folder / name
    with file.open("w", encoding="utf-8", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(("call", "arrived"))
        for at in arrivals:
            text = at.astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")
            lines.writerow((f"{text}", text))
    return file


def land(
    settings: Settings, feed: str, folder: Path, name: str, arrivals: list[datetime], at: datetime
) -> landing.UnitResult:
    """Land a file as if it had come at `at`; the collector has looked at it then."""
    (result,) = landing.land(settings, feed, [write(folder, name, arrivals)])
    with warehouse.connect(settings) as connection:
        if result.status == "landed":
            connection.execute(
                "update ops.units set landed_at = %s where unit_id = %s", [at, result.unit_id]
            )
        connection.execute(
            "update ops.unit_names set came_at = %s where unit_id = %s and name = %s",
            [at, result.unit_id, name],
        )
    capture.looked(settings, registry.feed(settings, feed), "1 file", at)
    return result


def look(settings: Settings, feed: str, at: datetime) -> None:
    """The collector finds nothing new."""
    capture.looked(settings, registry.feed(settings, feed), "0 files", at)


def watch(
    settings: Settings, first: datetime, last: datetime, step: timedelta = MINUTE
) -> list[tuple[str, str, str]]:
    """(event, device, kind) in their order, of devices that were heard."""
    found = []
    while first <= last:
        outcome = capture.watch(settings, first)
        assert outcome.problems == []
        heard = {device for (device,) in asked(settings, "select device from ops.heartbeats")}
        for event in ("opened", "escalated", "resolved"):
            found += [
                (event, i.device, i.kind) for i in getattr(outcome, event) if i.device in heard
            ]
        first += step
    return found


def asked(settings: Settings, statement: str, values: list[Any] | None = None) -> list[Any]:
    with warehouse.connect(settings) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def every(start: datetime, end: datetime, seconds: float) -> list[datetime]:
    count = int((end - start).total_seconds() / seconds)
    return [start + timedelta(seconds=seconds * number) for number in range(count)]


def incident(settings: Settings, device: str, kind: str) -> capture.Incident:
    """The newest one."""
    found = capture.incidents(settings, with_resolved=True)
    return next(i for i in found if (i.device, i.kind) == (device, kind))


@pytest.fixture(scope="module")
def instance(settings: Settings, cluster: postgres.Cluster) -> Settings:
    """An instance with feeds of every rhythm, and three devices."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "stream": STREAM, "fresh": STREAM, "daily": DAILY, "dated": DATED, "numbered": NUMBERED,
        "silent": "",
    }.items():  # fmt: skip
        (settings.feeds_directory / f"{name}.yaml").write_text(
            FEED.format(name=name, watch=text), encoding="utf-8"
        )
    settings.devices_file.write_text(DEVICES, encoding="utf-8")
    return settings


@pytest.fixture
def product(instance: Settings) -> Settings:
    """The instance, of which nothing was ever heard, counted or found."""
    with warehouse.connect(instance) as connection:
        registry.register(connection, *registry.feeds(instance))
        connection.execute(
            "truncate ops.capture_devices, ops.capture_watch, ops.units, ops.dirty_marks cascade"
        )
        connection.execute("truncate staging.delimited_legs")
    return instance


# ------------------------------------------------------------------------------ heartbeats
DAY = date(2026, 3, 10)


def test_a_device_that_stops_is_an_incident_within_two_intervals_and_closes_by_itself(
    product: Settings,
) -> None:
    start = local(DAY, "10:00")
    for number in range(5):
        capture.beat(product, "exchange", now=start + number * 5 * MINUTE)
    last = start + 20 * MINUTE
    assert watch(product, start, last + 5 * MINUTE, 5 * MINUTE) == []
    found = watch(product, last + 6 * MINUTE, last + 30 * MINUTE, 2 * MINUTE)
    # It is told once, however often it is looked at.
    assert found == [("opened", "exchange", "heartbeat")]
    told = incident(product, "exchange", "heartbeat")
    assert last < told.opened_at <= last + 10 * MINUTE
    assert (told.status, told.owner) == ("open", "telephony")
    assert "no heartbeat since 2026-03-10 02:20:00 UTC" in told.detail
    # Back at 10:55; it must stay for an interval, and counts from when it came.
    back = last + 35 * MINUTE
    capture.beat(product, "exchange", now=back)
    capture.beat(product, "exchange", now=back + 5 * MINUTE)
    assert watch(product, back, back + 9 * MINUTE, 3 * MINUTE) == []
    assert incident(product, "exchange", "heartbeat").status == "recovering"
    assert watch(product, back + 10 * MINUTE, back + 10 * MINUTE) == [
        ("resolved", "exchange", "heartbeat")
    ]
    told = incident(product, "exchange", "heartbeat")
    assert (told.resolved_at, told.resolved_by) == (back, None)


def test_what_comes_and_goes_opens_one_incident(product: Settings) -> None:
    start = local(DAY, "10:00")
    found = []
    # A beat every ten minutes where one is due every five.
    for number in range(5):
        at = start + number * 10 * MINUTE
        capture.beat(product, "exchange", now=at)
        found += watch(product, at, at + 9 * MINUTE, 3 * MINUTE)
    assert [e for e in found if e[0] != "escalated"] == [("opened", "exchange", "heartbeat")]


def test_nobody_is_blamed_for_what_nobody_watched(product: Settings) -> None:
    start = local(DAY, "20:00")
    capture.beat(product, "exchange", now=start)
    watch(product, start, start)
    morning = start + timedelta(hours=12)
    assert watch(product, morning, morning + 7 * MINUTE, 3 * MINUTE) == []
    (row,) = [row for row in capture.status(product) if row["device"] == "exchange"]
    assert row["status"] == "unknown"
    assert watch(product, morning + 8 * MINUTE, morning + 8 * MINUTE) == [
        ("opened", "exchange", "heartbeat")
    ]


def test_people_times_give_the_means(product: Settings) -> None:
    """Two incidents: acknowledged after 3 and 9 minutes, resolved after 10 and 40."""
    start = local(DAY, "10:00")
    opened = []
    for device in ("exchange", "trunk"):
        capture.beat(product, device, now=start)
    assert len(watch(product, start, start + 8 * MINUTE, 4 * MINUTE)) == 2
    for device in ("exchange", "trunk"):
        opened.append(incident(product, device, "heartbeat"))
    for told, minutes in zip(opened, (3, 9), strict=True):
        capture.acknowledge(
            product, told.incident_id, "a person", told.opened_at + minutes * MINUTE
        )
    for told, minutes in zip(opened, (10, 40), strict=True):
        capture.resolve(
            product, told.incident_id, "it was moved", "a person",
            told.opened_at + minutes * MINUTE,
        )  # fmt: skip
    (mtta, mttr) = metrics(product, "mtta_seconds", "mttr_seconds")
    assert (mtta, mttr) == ((180 + 540) / 2, (600 + 2400) / 2)
    # The third is the recorder's: it is declared and was never heard.
    assert metrics(product, "incidents", "open_incidents") == (3, 1)
    with pytest.raises(CallhouseError, match="resolved already: it was moved"):
        capture.resolve(product, opened[0].incident_id, "again", "another")
    with pytest.raises(CallhouseError, match="no incident 99"):
        capture.acknowledge(product, 99, "a person")
    with pytest.raises(CallhouseError, match="with a reason"):
        capture.resolve(product, opened[0].incident_id, "  ", "a person")
    # The same silence opens none again, the next one does.
    later = start + 24 * MINUTE
    assert watch(product, start + 12 * MINUTE, later, 4 * MINUTE) == []
    rows = {row["device"]: row["status"] for row in capture.status(product)}
    assert rows["exchange"] == "excused"
    capture.beat(product, "exchange", now=later)
    assert watch(product, later, later + 8 * MINUTE, 4 * MINUTE) == [
        ("opened", "exchange", "heartbeat")
    ]


def metrics(settings: Settings, *names: str) -> tuple[Any, ...]:
    """Saved metrics of incidents, as the dashboards ask for them."""
    from callhouse.bi import ledger

    (source,) = [d for d in ledger.datasets() if d.name == "fct_incidents"]
    known = {metric.name: metric.expression for metric in source.metrics}
    listed = ", ".join(known[name] for name in names)
    (row,) = asked(settings, f"select {listed} from bi.fct_incidents")
    return tuple(row)


def test_nobody_takes_it_up_and_it_is_told_again(product: Settings) -> None:
    start = local(DAY, "10:00")
    capture.beat(product, "exchange", now=start)
    watch(product, start, start + 8 * MINUTE, 4 * MINUTE)
    opened_at = incident(product, "exchange", "heartbeat").opened_at
    assert watch(product, start + 9 * MINUTE, opened_at + 30 * MINUTE, 5 * MINUTE) == []
    assert watch(product, opened_at + 31 * MINUTE, opened_at + 50 * MINUTE, 5 * MINUTE) == [
        ("escalated", "exchange", "heartbeat")
    ]


def test_a_gap_of_beats_is_closed_by_the_late_ones(product: Settings) -> None:
    start = local(DAY, "10:00")
    for number in (1, 2, 3, 6):
        at = start + number * MINUTE
        assert capture.beat(product, "exchange", sequence=number, device_at=at, now=at)
    now = start + 7 * MINUTE
    assert watch(product, now, now) == [("opened", "exchange", "gap")]
    assert incident(product, "exchange", "gap").detail == "missing in its series: beats: 4–5"
    # They were kept back: their clock is of then, which is no skew.
    for number in (4, 5):
        capture.beat(
            product, "exchange", sequence=number, device_at=start + number * MINUTE, now=now
        )
    assert not capture.beat(
        product, "exchange", sequence=4, device_at=start + 4 * MINUTE, now=now + MINUTE
    )
    assert watch(product, now + MINUTE, now + MINUTE) == [("resolved", "exchange", "gap")]
    # Counting from 1 again is a new start, and no gap.
    capture.beat(product, "exchange", sequence=1, device_at=now, now=now)
    capture.beat(product, "exchange", sequence=2, device_at=now, now=now)
    assert watch(product, now + 2 * MINUTE, now + 2 * MINUTE) == []


def test_clocks_that_disagree_and_events_that_come_late(product: Settings) -> None:
    start = local(DAY, "10:00")

    def beat(number: int, ahead: float, newest: float) -> datetime:
        at = start + 4 * number * MINUTE
        capture.beat(
            product, "trunk", sequence=number, now=at, device_at=at + timedelta(seconds=ahead),
            newest_event_at=at - timedelta(seconds=newest),
        )  # fmt: skip
        return at

    assert watch(product, beat(1, 30, 60), start + 4 * MINUTE) == []
    now = beat(2, -31, 61)
    assert watch(product, now, now) == [("opened", "trunk", "clock"), ("opened", "trunk", "lag")]
    assert incident(product, "trunk", "clock").detail == "its clock is 31 s behind of ours"
    assert "was 61 s old when it came, at most 60 s" in incident(product, "trunk", "lag").detail
    for number in (3, 4, 5, 6):
        now = beat(number, 0, 5)
        found = watch(product, now, now)
    assert found == [("resolved", "trunk", "clock"), ("resolved", "trunk", "lag")]


# ------------------------------------------------------------------------------ silence
START, STOP = date(2026, 3, 2), date(2026, 4, 14)  # a Monday, and a Tuesday six weeks later
BUSY = 40  # seconds between two calls from 9 to 18; at night one call in three days


def history(first: date, days: int) -> list[datetime]:
    arrivals = []
    for number in range(days):
        day = first + timedelta(days=number)
        arrivals += every(local(day, "09:00"), local(day, "18:00"), BUSY)
        if number % 3 == 0:
            arrivals.append(local(day, "21:30"))
    return arrivals


@pytest.fixture
def centre(product: Settings, tmp_path: Path) -> Settings:
    """A feed with six weeks of history, and a morning whose last call came at 10:30."""
    land(product, "stream", tmp_path, "history.csv", history(START, 43), local(STOP, "00:05"))
    morning = every(local(STOP, "09:00"), local(STOP, "10:30"), BUSY)
    land(product, "stream", tmp_path, "morning.csv", morning, local(STOP, "10:31"))
    watch(product, local(STOP, "10:31"), local(STOP, "10:31"))
    return product


def test_a_source_that_stops_is_an_incident_and_what_comes_late_closes_it(
    centre: Settings, tmp_path: Path
) -> None:
    stopped, found, now = local(STOP, "10:30"), [], local(STOP, "10:32")
    while now <= local(STOP, "11:30"):
        look(centre, "stream", now)
        found += [(now, *event) for event in watch(centre, now, now)]
        now += 2 * MINUTE
    ((opened_at, *event), *rest) = found
    assert event == ["opened", "stream", "silence"]
    assert [tuple(later[1:]) for later in rest] == [("escalated", "stream", "silence")]
    # One interval is the 600 s that an event may take to its row.
    assert stopped < opened_at <= stopped + 2 * timedelta(seconds=600)
    told = incident(centre, "stream", "silence")
    assert "no event since 2026-04-14 02:29:20 UTC, where 76 were" in told.detail  # 50 min 40 s
    # The source returns with what it had kept: 60 calls of the hour, and 2 that are new.
    kept = every(local(STOP, "10:30"), local(STOP, "11:30"), 60)
    returned = local(STOP, "11:40")
    fresh = [local(STOP, "11:38"), local(STOP, "11:39")]
    result = land(centre, "stream", tmp_path, "kept.csv", kept + fresh, returned)
    assert result.staged == 62
    assert watch(centre, returned, returned) == []
    assert incident(centre, "stream", "silence").status == "recovering"
    # New calls after it came back are on time and not back-filled.
    later = every(local(STOP, "11:41"), local(STOP, "11:51"), 60)
    land(centre, "stream", tmp_path, "on_time.csv", later, local(STOP, "11:52"))
    assert watch(centre, local(STOP, "11:52"), local(STOP, "11:59"), 7 * MINUTE) == []
    assert watch(centre, local(STOP, "12:00"), local(STOP, "12:00")) == [
        ("resolved", "stream", "silence")
    ]
    told = incident(centre, "stream", "silence")
    assert told.resolved_at == returned
    assert (told.back_filled_rows, told.back_filled_days, told.affected_days) == (62, 1, 1)
    assert told.rebuilt_days == 0
    dirty = "select count(*) > 0 from ops.dirty_marks where business_day = %s"
    assert asked(centre, dirty, [STOP]) == [(True,)]
    # The day is built with what came late.
    with warehouse.connect(centre) as connection:
        connection.execute("delete from ops.dirty_marks where business_day <> %s", [STOP])
    transform.prepare(centre, lambda _line: None)
    assert transform.drain(centre, dbt.quiet).problems == ()
    assert asked(centre, dirty, [STOP]) == [(False,)]
    calls = "select sum(calls) from bi.fct_calls where business_day = %s"
    assert asked(centre, calls, [STOP]) == [(135 + 62 + 10,)]
    assert incident(centre, "stream", "silence").rebuilt_days == 1
    # The same file once more changes nothing.
    again = land(centre, "stream", tmp_path, "kept.csv", kept + fresh, local(STOP, "12:01"))
    assert again.status == "already_landed"
    assert watch(centre, local(STOP, "12:01"), local(STOP, "12:01")) == []
    assert incident(centre, "stream", "silence").back_filled_rows == 62


def test_a_quiet_night_is_no_outage(centre: Settings, tmp_path: Path) -> None:
    rest = every(local(STOP, "10:30"), local(STOP, "18:00"), BUSY)
    land(centre, "stream", tmp_path, "rest.csv", rest, local(STOP, "18:01"))
    now = local(STOP, "18:30")
    while now <= local(STOP + timedelta(days=1), "09:00"):
        look(centre, "stream", now)
        assert [e for e in watch(centre, now, now) if e[1] == "stream"] == []
        now += 30 * MINUTE
    (row,) = [row for row in capture.status(centre) if row["device"] == "stream"]
    assert row["status"] == "ok"
    # Fourteen hours: one call in the 40 s to 18:00, and one in three Tuesdays at 21:30.
    assert row["expected_events"] == pytest.approx(4 / 3)
    # An hour into the morning it is one.
    now = local(STOP + timedelta(days=1), "10:00")
    look(centre, "stream", now)
    assert watch(centre, now, now) == [("opened", "stream", "silence")]


def test_a_recorder_that_beats_and_records_nothing_is_silent(
    centre: Settings, tmp_path: Path
) -> None:
    rest = every(local(STOP, "10:30"), local(STOP, "12:00"), BUSY)
    land(centre, "stream", tmp_path, "rest.csv", rest, local(STOP, "12:00"))
    recorded = local(STOP, "11:00")
    found = []
    for minutes in range(0, 30, 2):
        now = recorded + minutes * MINUTE
        capture.beat(centre, "recorder", now=now, newest_event_at=recorded)
        found += [e for e in watch(centre, now, now) if e[1] == "recorder"]
    assert found == [("opened", "recorder", "silence")]
    told = incident(centre, "recorder", "silence")
    # 13.8 calls every 40 s, and one interval of 2 min.
    assert recorded + 11 * MINUTE <= told.opened_at <= recorded + 13 * MINUTE


def test_too_short_a_history_is_unknown(product: Settings, tmp_path: Path) -> None:
    first = STOP - timedelta(days=27)
    land(product, "fresh", tmp_path, "history.csv", history(first, 27), local(STOP, "00:05"))
    now = local(STOP, "12:00")
    look(product, "fresh", now)
    assert watch(product, now, now) == []
    (row,) = [row for row in capture.status(product) if row["device"] == "fresh"]
    assert (row["status"], row["expected_events"]) == ("unknown", None)
    assert "silence is not judged" in row["detail"]


def test_a_feed_that_says_nothing_of_its_delivery_is_never_well(product: Settings) -> None:
    now = local(DAY, "10:00")
    assert capture.status(product) == []
    # As its DAG does, with nothing in the folder.
    landing.land_inbox(product, "silent")
    capture.watch(product)
    rows = {row["device"]: row for row in capture.status(product)}
    assert rows["silent"]["status"] == "unknown"
    assert "nothing says how many events to expect" in rows["silent"]["detail"]
    assert rows["silent"]["heartbeat_at"] > now
    # Declared feeds are watched from the start, others when their DAG first looks.
    assert {"stream", "daily", "exchange"} <= rows.keys()
    assert "sample_hotline" not in rows


def test_a_clock_that_is_ahead_hides_no_silence(centre: Settings, tmp_path: Path) -> None:
    tomorrow = [local(STOP + timedelta(days=1), "12:00")]
    land(centre, "stream", tmp_path, "ahead.csv", tomorrow, local(STOP, "10:40"))
    assert ("opened", "stream", "clock") in watch(
        centre, local(STOP, "10:40"), local(STOP, "10:40")
    )
    now = local(STOP, "11:30")
    look(centre, "stream", now)
    assert ("opened", "stream", "silence") in watch(centre, now, now)


# ------------------------------------------------------------------------------ files
def test_files_are_due_by_the_calendar_of_the_source(product: Settings, tmp_path: Path) -> None:
    """30 April to 11 May 2026 in China: five days of holidays, and a Saturday that is worked."""

    def deliver(day: date, calls: int, at: datetime) -> landing.UnitResult:
        arrivals = every(local(day, "09:00"), local(day, "09:00") + calls * MINUTE, 60)
        return land(product, "daily", tmp_path, f"{day}-{calls}.csv", arrivals, at)

    def found(at: datetime) -> list[tuple[str, str, str]]:
        look(product, "daily", at)
        return [event for event in watch(product, at, at) if event[2] != "heartbeat"]

    deliver(date(2026, 4, 29), 5, local(date(2026, 4, 30), "05:00"))
    # April 30 is due on May 6, the next day that is worked.
    assert found(local(date(2026, 5, 1), "07:00")) == []
    assert found(local(date(2026, 5, 6), "05:59")) == []
    assert found(local(date(2026, 5, 6), "06:00")) == [("opened", "daily", "late")]
    told = incident(product, "daily", "late")
    assert told.detail == "nothing came of 2026-04-30"
    # An empty file of a holiday is none, and makes nothing late.
    deliver(date(2026, 4, 30), 7, local(date(2026, 5, 6), "08:00"))
    assert found(local(date(2026, 5, 6), "08:01")) == [("resolved", "daily", "late")]
    told = incident(product, "daily", "late")
    assert (told.back_filled_rows, told.back_filled_days, told.affected_days) == (7, 1, 1)
    for day in (6, 7):
        deliver(date(2026, 5, day), 5, local(date(2026, 5, day + 1), "05:00"))
    # Saturday the 9th is worked: Friday's file is due on it, its own on Monday.
    assert found(local(date(2026, 5, 9), "06:30")) == [("opened", "daily", "late")]
    deliver(date(2026, 5, 8), 5, local(date(2026, 5, 9), "07:00"))
    assert found(local(date(2026, 5, 9), "07:01")) == [("resolved", "daily", "late")]
    assert found(local(date(2026, 5, 10), "23:00")) == []
    assert found(local(date(2026, 5, 11), "06:30")) == [("opened", "daily", "late")]
    assert incident(product, "daily", "late").detail == "nothing came of 2026-05-09"


def test_an_empty_file_is_an_incident_on_a_day_that_is_worked(
    product: Settings, tmp_path: Path
) -> None:
    def empty(at: datetime) -> list[tuple[str, str, str]]:
        (tmp_path / "empty.csv").write_bytes(b"")
        (result,) = landing.land(product, "daily", [tmp_path / "empty.csv"])
        assert result.status == "refused"
        with warehouse.connect(product) as connection:
            connection.execute(
                "update ops.units set landed_at = %s where unit_id = %s", [at, result.unit_id]
            )
        look(product, "daily", at)
        return [event for event in watch(product, at, at) if event[2] != "heartbeat"]

    first = date(2026, 4, 30)
    arrivals = every(local(first, "09:00"), local(first, "09:05"), 60)
    land(product, "daily", tmp_path, "first.csv", arrivals, local(date(2026, 5, 1), "05:00"))
    assert empty(local(date(2026, 5, 2), "05:00")) == []  # of May 1
    assert empty(local(date(2026, 5, 7), "05:00")) == [("opened", "daily", "empty")]  # of May 6
    assert incident(product, "daily", "empty").detail == "empty file of 2026-05-06"
    worked = date(2026, 5, 6)
    arrivals = every(local(worked, "09:00"), local(worked, "09:03"), 60)
    at = local(date(2026, 5, 7), "05:30")
    land(product, "daily", tmp_path, "again.csv", arrivals, at)
    assert watch(product, at, at) == [("resolved", "daily", "empty")]
    assert incident(product, "daily", "empty").back_filled_rows == 3


def test_a_header_without_rows_is_an_empty_file_and_a_missing_date_is_late(
    product: Settings, tmp_path: Path
) -> None:
    for number, calls in ((1, 3), (2, 0), (4, 3)):
        day = date(2026, 3, number)
        arrivals = every(local(day, "09:00"), local(day, "09:00") + calls * MINUTE, 60)
        at = local(day + timedelta(days=1), "05:00")
        land(product, "dated", tmp_path, f"day_2026030{number}.csv", arrivals, at)
    now = local(date(2026, 3, 5), "06:30")
    assert watch(product, now, now) == [("opened", "dated", "empty"), ("opened", "dated", "late")]
    assert incident(product, "dated", "empty").detail == "empty file of 2026-03-02"
    assert incident(product, "dated", "late").detail == "nothing came of 2026-03-03"


def test_an_empty_file_of_a_holiday_is_none(product: Settings, tmp_path: Path) -> None:
    """The source delivers every day; May 1 is a holiday, May 6 is none."""
    first = date(2026, 4, 29)
    for number in range(8):
        day = first + timedelta(days=number)
        arrivals = [local(day, "09:00")] if number < 2 else []
        at = local(day + timedelta(days=1), "05:00")
        land(product, "dated", tmp_path, f"day_{day}.csv", arrivals, at)
        if number < 7:
            assert [e for e in watch(product, at, at) if e[2] != "heartbeat"] == []
    assert watch(product, at, at) == [("opened", "dated", "empty")]
    told = incident(product, "dated", "empty")
    assert (told.detail, told.affected_days) == ("empty file of 2026-05-06", 1)


def test_a_day_that_a_person_has_closed_is_not_told_again(
    product: Settings, tmp_path: Path
) -> None:
    for number in (1, 3):
        day = date(2026, 3, number)
        at = local(day + timedelta(days=1), "05:00")
        land(product, "dated", tmp_path, f"day_2026030{number}.csv", [local(day, "09:00")], at)
    now = local(date(2026, 3, 4), "07:00")
    assert watch(product, now, now) == [("opened", "dated", "late")]
    told = incident(product, "dated", "late")
    capture.resolve(product, told.incident_id, "the shop was shut", "a person", now)
    assert watch(product, now + MINUTE, now + MINUTE) == []
    now = local(date(2026, 3, 5), "07:00")
    assert watch(product, now, now) == [("opened", "dated", "late")]
    told = incident(product, "dated", "late")
    assert (told.detail, told.affected_days) == ("nothing came of 2026-03-04", 1)


def test_a_hole_in_a_series_of_files_is_closed_by_the_late_file(
    product: Settings, tmp_path: Path
) -> None:
    def part(number: int, calls: int, at: datetime) -> landing.UnitResult:
        start = local(DAY, "09:00") + number * 10 * MINUTE
        arrivals = every(start, start + calls * MINUTE, 60)
        return land(product, "numbered", tmp_path, f"part_{number:04}.csv", arrivals, at)

    noon = local(DAY, "12:00")
    for number in (7, 8, 11, 12):
        part(number, 4, noon)
    assert watch(product, noon, noon) == [("opened", "numbered", "gap")]
    told = incident(product, "numbered", "gap")
    assert told.detail == "missing in its series: part_{number}.csv: 9–10"
    # What comes on time is not counted for it.
    part(13, 4, noon + MINUTE)
    part(10, 5, noon + MINUTE)
    assert watch(product, noon + MINUTE, noon + MINUTE) == []
    assert incident(product, "numbered", "gap").detail.endswith("csv: 9")
    part(9, 6, noon + 2 * MINUTE)
    assert watch(product, noon + 2 * MINUTE, noon + 2 * MINUTE) == [("resolved", "numbered", "gap")]
    told = incident(product, "numbered", "gap")
    assert (told.back_filled_rows, told.back_filled_days) == (11, 1)
    assert part(9, 6, noon + 3 * MINUTE).status == "already_landed"
    assert watch(product, noon + 3 * MINUTE, noon + 3 * MINUTE) == []
    assert incident(product, "numbered", "gap").back_filled_rows == 11
    assert len(capture.incidents(product, with_resolved=True)) == 1


# ------------------------------------------------------------------------------ declarations
def test_feeds_of_every_vendor_are_counted(product: Settings, tmp_path: Path) -> None:
    """Calls by hour where rows have calls, whatever their table and its columns are called."""
    start = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
    epoch = int(start.timestamp())
    log = tmp_path / "queue_log"
    log.write_text(
        f"{epoch}|c1|desk|NONE|ENTERQUEUE||13800138000|1\n"
        f"{epoch + 9}|c1|desk|A/1|CONNECT|9|c1b|3\n"
        f"{epoch + 3900}|c2|desk|NONE|ENTERQUEUE||13800138000|1\n"
        f"{epoch + 3960}|NONE|NONE|A/1|PAUSEALL|\n",
        encoding="utf-8",
    )
    files = {
        "log": ("asterisk", "country: CN", log),
        "cdr": ("asterisk", "records: cdr", FIXTURES / "asterisk" / "cdr_master.csv"),
        "cel": ("asterisk", "records: cel", FIXTURES / "asterisk" / "cel_master.csv"),
        "contacts": ("amazon_connect", "record: contacts", one_line("contact", tmp_path)),
        "agents": ("amazon_connect", "record: agent_events", one_line("agent_event", tmp_path)),
    }
    for name, (vendor, more, file) in files.items():
        mapping = product.feeds_directory / f"{name}.yaml"
        mapping.write_text(
            f"feed: {name}\nvendor: {vendor}\ntime_zone: Asia/Shanghai\n{more}\n{STREAM}\n"
        )
        (result,) = landing.land(product, name, [file])
        assert (result.status, result.quarantined) == ("landed", 0), result
        first_day = result.first_day
        assert first_day
        with warehouse.connect(product) as connection:
            at = local(first_day + timedelta(days=1))
            connection.execute(
                "update ops.units set landed_at = %s where unit_id = %s", [at, result.unit_id]
            )
        outcome = capture.watch(product, at)
        assert outcome.problems == []
        ((newest, landed_at),) = asked(
            product,
            "select newest_event_at, newest_landed_at from ops.capture_devices where device = %s",
            [name],
        )
        assert at - timedelta(days=1) <= newest < at == landed_at
        ((hours, first, calls),) = asked(
            product,
            "select count(*), min(hour_at), sum(events) from ops.capture_hours where device = %s",
            [name],
        )
        if name == "log":
            assert newest == start + timedelta(seconds=3960)
            assert (hours, first, calls) == (2, start, 2)
        else:
            assert calls > 0 or name == "agents"
        mapping.unlink()


FIXTURES = Path(__file__).parents[1] / "fixtures"


def one_line(name: str, folder: Path) -> Path:
    """A record of Amazon Connect as its stream writes it."""
    file = folder / f"{name}.json"
    content = json.loads((FIXTURES / "amazon_connect" / f"{name}.json").read_text("utf-8"))
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_what_is_declared_no_more_is_retired_and_what_is_broken_stays(product: Settings) -> None:
    now = local(DAY, "10:00")
    for device in ("exchange", "trunk"):
        capture.beat(product, device, now=now)
    assert len(watch(product, now, now + 8 * MINUTE, 4 * MINUTE)) == 2
    file = product.devices_file
    try:
        file.write_text(DEVICES.replace("kind: pbx", "kind: pdx"), encoding="utf-8")
        outcome = capture.watch(product, now + 9 * MINUTE)
        (problem,) = outcome.problems
        assert problem.startswith("devices.yaml: devices[1].kind: 'pdx' is not one of collector,")
        assert outcome.resolved == []
        file.write_text("".join(DEVICES.splitlines(keepends=True)[:4]), encoding="utf-8")
        outcome = capture.watch(product, now + 10 * MINUTE)
        ((told,), problems) = (outcome.resolved, outcome.problems)
        assert (told.device, told.resolution, problems) == ("trunk", "it is no longer watched", [])
        assert "trunk" not in {row["device"] for row in capture.status(product)}
        with pytest.raises(CallhouseError, match=r"no device 'trunk'.*devices\.yaml"):
            capture.beat(product, "trunk")
    finally:
        file.write_text(DEVICES, encoding="utf-8")


def test_only_who_sees_all_calls_reads_of_devices(product: Settings) -> None:
    now = datetime.now(UTC)
    capture.beat(product, "exchange", now=now - timedelta(hours=1))
    capture.watch(product, now - timedelta(minutes=59))
    capture.watch(product, now - timedelta(minutes=55))
    capture.watch(product, now - timedelta(minutes=51))
    scopes = {"sees_all": (("all", "*"),), "sees_a_queue": (("queue", "desk"),)}
    with psycopg.connect(product.dsn("postgres")) as server:
        for name, scope in scopes.items():
            people.ensure(product, server, people.Person(name, name, scope))
    for name in scopes:
        with warehouse.connect_as(product, name, login_password(product, name)) as own:
            for view in ("capture_status", "fct_capture_health", "fct_incidents"):
                (count,) = warehouse.one(own, f"select count(*) from bi.{view}")
                assert (count > 0) == (name == "sees_all"), (name, view)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                own.execute("select * from ops.heartbeats")


def test_health_is_kept_when_it_changes_and_every_quarter_of_an_hour(product: Settings) -> None:
    start = local(DAY, "10:00")
    for number in range(8):
        capture.beat(product, "exchange", now=start + number * 5 * MINUTE)
    watch(product, start, start + 35 * MINUTE, 5 * MINUTE)
    rows = asked(
        product,
        "select checked_at, status from bi.fct_capture_health where device = 'exchange' order by 1",
    )
    assert rows == [(start + minutes * MINUTE, "ok") for minutes in (0, 15, 30)]


def test_what_is_missing_stays_missing_however_old_it_grows(
    product: Settings, tmp_path: Path
) -> None:
    """Files and beats are looked through for 35 days; an open incident is no reason to forget."""
    noon = local(DAY, "12:00")
    for number in (1, 3):
        arrivals = [local(DAY, f"09:0{number}")]
        land(product, "numbered", tmp_path, f"part_{number}.csv", arrivals, noon)
        capture.beat(product, "exchange", sequence=number, now=noon)
    gaps = [("opened", "exchange", "gap"), ("opened", "numbered", "gap")]
    assert watch(product, noon, noon) == gaps
    late = noon + timedelta(days=60)
    watch(product, late, late)
    assert {i.device for i in capture.incidents(product) if i.kind == "gap"} == {
        "exchange", "numbered",
    }  # fmt: skip


def test_the_command_line_tells_and_closes(
    product: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_settings", lambda: product)
    monkeypatch.setattr(cli, "_account", lambda: "a person")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, ["capture", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout

    assert run("beat", "exchange", "--sequence", "1", "--clock", "2026-03-10T10:00:00+08:00") == (
        0, "exchange: heard\n",
    )  # fmt: skip
    assert run("beat", "exchange", "--sequence", "1", "--clock", "2026-03-10T10:00:00+08:00") == (
        0, "exchange: known already\n",
    )  # fmt: skip
    with pytest.raises(CallhouseError, match="no time with an offset"):
        run("beat", "exchange", "--newest", "2026-03-10 10:00")
    code, told = run("check")
    assert (code, told.count("opened: exchange, clock")) == (3, 1)
    number = str(incident(product, "exchange", "clock").incident_id)
    code, told = run("incidents")
    assert (code, told.splitlines()[1].split("\t")[:5]) == (
        3, [number, "exchange", "clock", "open", "telephony"],
    )  # fmt: skip
    assert capture.sentence(capture.summary(product)).startswith(
        "capture: 1 open incidents (1 not acknowledged), looked at "
    )
    code, told = run("ack", number)
    assert (code, told.startswith("acknowledged by a person: exchange, clock")) == (0, True)
    assert run("incidents")[0] == 0
    assert run("status")[0] == 3
    code, told = run("resolve", number, "--note", "it has no battery", "--json")
    assert (code, json.loads(told)["resolution"]) == (0, "it has no battery")
    assert run("check")[0] == 0
    (row,) = [row for row in json.loads(run("status", "--json")[1]) if row["device"] == "exchange"]
    assert (row["status"], row["owner"]) == ("excused", "telephony")
    assert len(json.loads(run("incidents", "--all", "--json")[1])) == 1
    (finding,) = diagnosis._capture(product)
    assert finding.ok
    with warehouse.connect(product) as connection:
        connection.execute("update ops.capture_watch set checked_at = now() - interval '1 hour'")
        (unwatched,) = warehouse.one(connection, "select now() - pg_postmaster_start_time()")
    (finding,) = diagnosis._capture(product)
    assert finding.ok == (unwatched < timedelta(seconds=diagnosis.UNWATCHED_SECONDS))
