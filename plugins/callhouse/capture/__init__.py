"""Capture health: heartbeats, what has landed, and the incidents that follow from both.

What is declared, heard and counted is written here; warehouse/capture.sql judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg

from callhouse import warehouse
from callhouse.capture import counting, devices
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources.contract import Feed

# Chance that so long a silence is none, below which it is an incident: docs/decisions/0038.
SILENCE_LIMIT = 1e-6


@dataclass(frozen=True)
class Incident:
    """Something wrong with a device, as bi.fct_incidents tells it."""

    incident_id: int
    device: str
    kind: str
    status: str  # open | acknowledged | recovering | resolved
    owner: str
    detail: str
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None
    resolved_by: str | None
    resolution: str | None
    acknowledge_seconds: float | None
    resolve_seconds: float | None
    affected_days: int
    back_filled_rows: int | None
    back_filled_days: int | None
    rebuilt_days: int | None

    @property
    def sentence(self) -> str:
        """For the page at night."""
        return f"{self.device}, {self.kind} {self.incident_id} ({self.owner}): {self.detail}"


COLUMNS = tuple(Incident.__dataclass_fields__)


@dataclass
class Outcome:
    """What a look at everything brought up."""

    opened: list[Incident] = field(default_factory=list)
    escalated: list[Incident] = field(default_factory=list)
    resolved: list[Incident] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------ heartbeats
def beat(
    settings: Settings, device: str, *, sequence: int | None = None,
    device_at: datetime | None = None, newest_event_at: datetime | None = None,
    position: str | None = None, now: datetime | None = None,
) -> bool:  # fmt: skip
    """Write a heartbeat down; False where the same one is there already.

    `device_at` is what the device's own clock says at this moment.
    """
    with warehouse.connect(settings) as connection:
        if not devices.is_known(connection, device):
            devices.declare(connection, settings, now or datetime.now(UTC))
        if not devices.is_known(connection, device):
            raise CallhouseError(
                f"no device {device!r}: `capture status` lists them, and a new one is declared in "
                f"{settings.devices_file}"
            )
        return write_beat(
            connection, device, sequence=sequence, device_at=device_at,
            newest_event_at=newest_event_at, position=position, now=now,
        )  # fmt: skip


def looked(settings: Settings, feed: Feed, position: str, now: datetime | None = None) -> None:
    """A feed's DAG has looked through its folder and its location, to the end."""
    with warehouse.connect(settings) as connection:
        devices.enter_feed(connection, feed, now or datetime.now(UTC))
        write_beat(connection, feed.file.stem, position=position, now=now)


def write_beat(
    connection: psycopg.Connection, device: str, *, sequence: int | None = None,
    device_at: datetime | None = None, newest_event_at: datetime | None = None,
    position: str | None = None, now: datetime | None = None,
) -> bool:  # fmt: skip
    """`beat` of a device that is known, within the caller's transaction."""
    written = connection.execute(
        "insert into ops.heartbeats "
        "(device, beat_at, device_at, sequence, position, newest_event_at) "
        "values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
        [device, now or datetime.now(UTC), device_at, sequence, position, newest_event_at],
    )
    return written.rowcount == 1


# ------------------------------------------------------------------------------ the watch
def watch(
    settings: Settings, now: datetime | None = None, silence_limit: float = SILENCE_LIMIT
) -> Outcome:
    """Look at every device as of `now`: open, update and close incidents. Safe to repeat.

    A declaration that cannot be read is a problem of its own; what was known of it still holds.
    """
    moment, outcome = now or datetime.now(UTC), Outcome()
    with warehouse.connect(settings) as connection:
        connection.execute("select pg_advisory_xact_lock(hashtextextended('watch capture', 0))")
        outcome.problems = devices.declare(connection, settings, moment)
        feeds = devices.watched_feeds(connection, settings)
        touched = {feed.file.stem for feed in feeds if counting.count(connection, feed, moment)}
        events = connection.execute(
            "select event, incident_id from ops.watch_capture(%s, %s)", [moment, silence_limit]
        ).fetchall()
        counting.count_back_fill(settings, connection, feeds, touched, moment)
        for event, incident_id in events:
            getattr(outcome, event).append(_incident(connection, incident_id))
    return outcome


# ------------------------------------------------------------------------------ people
def acknowledge(
    settings: Settings, incident_id: int, person: str, now: datetime | None = None
) -> Incident:
    """A person has taken the incident up. The first one counts."""
    with warehouse.connect(settings) as connection:
        found = _incident(connection, incident_id)
        if found.resolved_at:
            raise CallhouseError(f"incident {incident_id} is resolved: nothing is left to take up")
        if found.acknowledged_at:
            raise CallhouseError(
                f"incident {incident_id} was acknowledged by {found.acknowledged_by} already"
            )
        connection.execute(
            "update ops.incidents set acknowledged_at = %s, acknowledged_by = %s "
            "where incident_id = %s",
            [now or datetime.now(UTC), person, incident_id],
        )
        return _incident(connection, incident_id)


def resolve(
    settings: Settings, incident_id: int, note: str, person: str, now: datetime | None = None
) -> Incident:
    """A person closes the incident, with a reason: the same cause opens none again."""
    note = " ".join(note.split())
    if not note:
        raise CallhouseError("an incident is resolved with a reason: --note 'trunk was moved'")
    with warehouse.connect(settings) as connection:
        found = _incident(connection, incident_id)
        if found.resolved_at:
            raise CallhouseError(f"incident {incident_id} is resolved already: {found.resolution}")
        connection.execute(
            "update ops.incidents set resolved_at = %s, resolved_by = %s, resolution = %s "
            "where incident_id = %s",
            [now or datetime.now(UTC), person, note, incident_id],
        )
        return _incident(connection, incident_id)


# ------------------------------------------------------------------------------ asking
def _incident(connection: psycopg.Connection, incident_id: int) -> Incident:
    found = _incidents(connection, "incident_id = %s", [incident_id])
    if not found:
        raise CallhouseError(f"no incident {incident_id}: `capture incidents --all` lists them")
    return found[0]


def _incidents(
    connection: psycopg.Connection, where: str, values: Sequence[Any] = ()
) -> list[Incident]:
    statement = (
        f"select {', '.join(COLUMNS)} from bi.fct_incidents where {where} "  # noqa: S608
        "order by opened_at desc, incident_id desc"
    )
    return [Incident(*row) for row in connection.execute(statement.encode(), values).fetchall()]


def incidents(settings: Settings, *, with_resolved: bool = False) -> list[Incident]:
    """The open ones, or all; the newest first."""
    with warehouse.connect(settings) as connection:
        return _incidents(connection, "true" if with_resolved else "resolved_at is null")


STATUS = (
    "device", "device_kind", "owner", "status", "checked_at", "heartbeat_at", "newest_event_at",
    "lag_seconds", "skew_seconds", "missing_numbers", "missing_days", "expected_events", "detail",
)  # fmt: skip


def status(settings: Settings) -> list[dict[str, Any]]:
    """Every device as the last check found it."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            f"select {', '.join(STATUS)} from bi.capture_status order by device".encode()  # noqa: S608
        ).fetchall()
    return [dict(zip(STATUS, row, strict=True)) for row in rows]


def summary(settings: Settings) -> dict[str, Any]:
    """For `status`: when it was last looked, and what is open.

    `unwatched_seconds` counts from the start of the database server at the earliest.
    """
    with warehouse.connect(settings) as connection:
        row = warehouse.one(
            connection,
            "select w.checked_at, extract(epoch from now() "
            "- greatest(w.checked_at, pg_postmaster_start_time()))::double precision, "
            "i.opened, i.waiting from (select count(*) as opened, "
            "count(*) filter (where acknowledged_at is null) as waiting from ops.incidents "
            "where resolved_at is null) as i left join ops.capture_watch as w on true",
        )
    names = ("checked_at", "unwatched_seconds", "open_incidents", "unacknowledged")
    return dict(zip(names, row, strict=True))


def sentence(found: dict[str, Any]) -> str:
    """`summary` for people."""
    if found["checked_at"] is None:
        return "capture: not watched yet"
    looked_at = found["checked_at"].isoformat(timespec="seconds")
    return (
        f"capture: {found['open_incidents']} open incidents "
        f"({found['unacknowledged']} not acknowledged), looked at {looked_at}"
    )
