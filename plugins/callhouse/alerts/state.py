"""What fires, who has taken it up, and what did not arrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password
from callhouse.settings import Settings

# Longer than a look and a pause: then nobody looks any more.
SILENT_SECONDS = 60.0


@dataclass(frozen=True)
class Alert:
    """A firing, as bi.fct_alert_events tells it."""

    alert_id: int
    rule: str
    metric: str
    scope_type: str
    scope_id: str
    severity: str
    status: str  # firing | escalated | acknowledged | resolved
    comparison: str
    fire_at: float
    value: float
    reason: str
    owner: str | None
    opened_at: datetime
    notified_at: datetime | None
    escalated_at: datetime | None
    escalated_to: str | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    resolved_at: datetime | None
    resolved_value: float | None
    resolution: str | None
    notify_seconds: float | None
    acknowledge_seconds: float | None
    resolve_seconds: float | None
    undelivered: int

    @property
    def scope(self) -> str:
        """all, pipeline or TYPE=ID."""
        whole = self.scope_type in ("all", "pipeline")
        return self.scope_type if whole else f"{self.scope_type}={self.scope_id}"


COLUMNS = tuple(Alert.__dataclass_fields__)


def list_alerts(
    settings: Settings, *, with_resolved: bool = False, person: str | None = None
) -> list[Alert]:
    """The open ones, or all, the newest first; with `person` those that the person may see."""
    statement = (
        f"select {', '.join(COLUMNS)} from bi.fct_alert_events where %s or resolved_at is null "  # noqa: S608
        "order by opened_at desc, alert_id desc"
    ).encode()
    with _connection(settings, person) as connection:
        rows = connection.execute(statement, [with_resolved]).fetchall()
    return [Alert(*row) for row in rows]


def acknowledge(settings: Settings, alert_id: int, account: str, person: str | None = None) -> str:
    """A person, or else the operator `account`, takes an alert up; a sentence says how it stands.

    A person may do so only with what is in their scopes. The first one counts.
    """
    if person:
        with _connection(settings, person) as connection:
            # Personal logins begin read-only; what they may write, functions decide.
            connection.execute("set transaction read write")
            try:
                (by,) = warehouse.one(connection, "select sec.acknowledge_alert(%s)", [alert_id])
            except psycopg.errors.NoDataFound as problem:
                raise CallhouseError(str(problem.diag.message_primary)) from None
    else:
        with warehouse.connect(settings) as connection:
            row = connection.execute(
                "update ops.alerts set acknowledged_by = coalesce(acknowledged_by, "
                "case when resolved_at is null then %s end), acknowledged_at = "
                "coalesce(acknowledged_at, case when resolved_at is null then now() end) "
                "where alert_id = %s returning acknowledged_by",
                [account, alert_id],
            ).fetchone()
            if row is None:
                raise CallhouseError(f"no alert {alert_id}: `./callhouse alert list` lists them")
            (by,) = row
    if by is None:
        raise CallhouseError(f"alert {alert_id} is over: nothing is left to take up")
    if by != (person or account):
        raise CallhouseError(f"alert {alert_id} was acknowledged by {by} already")
    return f"alert {alert_id} is acknowledged by {by}"


def _connection(settings: Settings, person: str | None) -> Any:
    if person is None:
        return warehouse.connect(settings)
    return warehouse.connect_as(settings, check_person(person), login_password(settings, person))


# ------------------------------------------------------------------------------ the state
def summary(settings: Settings) -> dict[str, Any]:
    """For `status`: when rules were last looked at, what is open, what reached nobody.

    `silent_seconds` counts from the start of the database server at the earliest; None: never.
    """
    with warehouse.connect(settings) as connection:
        row = warehouse.one(
            connection,
            "select w.evaluated_at, extract(epoch from now() - greatest(w.evaluated_at, "
            "case when w.evaluated_at is not null then pg_postmaster_start_time() end))"
            "::double precision, a.opened, a.waiting, a.unowned, "
            "(select count(*) from ops.notifications where status = 'dead') "
            "from (select count(*) as opened, "
            "count(*) filter (where acknowledged_at is null) as waiting, "
            "count(*) filter (where owner is null and escalated_to is null) as unowned "
            "from ops.alerts where resolved_at is null) as a "
            "left join ops.alert_watch as w on true",
        )
    names = (
        "evaluated_at", "silent_seconds", "open_alerts", "unacknowledged", "unowned", "undelivered",
    )  # fmt: skip
    return dict(zip(names, row, strict=True))


def sentence(found: dict[str, Any]) -> str:
    """`summary` for people."""
    if found["evaluated_at"] is None:
        return "alerts: no rule was looked at yet"
    looked_at = found["evaluated_at"].isoformat(timespec="seconds")
    text = (
        f"alerts: {found['open_alerts']} open ({found['unacknowledged']} not acknowledged), "
        f"{found['undelivered']} dead letters, looked at {looked_at}"
    )
    if found["unowned"]:
        text += f"; {found['unowned']} have nobody who may be told"
    if found["silent_seconds"] > SILENT_SECONDS:
        text += f"; the notifier is silent for {found['silent_seconds']:.0f} s"
    return text


DEAD = ("notification_id", "alert_id", "kind", "person", "channel", "died_at", "note")


def dead_letters(settings: Settings) -> list[dict[str, Any]]:
    """Notifications that no attempt delivered and nobody has had sent again."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select n.notification_id, n.alert_id, n.kind, n.person, n.channel, d.died_at, d.note "
            "from ops.dead_letters as d inner join ops.notifications as n using (notification_id) "
            "where d.retried_at is null order by d.died_at"
        ).fetchall()
    return [dict(zip(DEAD, row, strict=True)) for row in rows]


def retry_dead_letters(settings: Settings) -> int:
    """Have every dead letter sent again, with its old key; their number."""
    with warehouse.connect(settings) as connection:
        done = connection.execute(
            "with again as (update ops.dead_letters set retried_at = now() "
            "where retried_at is null returning notification_id) "
            "update ops.notifications as n set status = 'waiting', failures = 0, due_at = now() "
            "from again as a where n.notification_id = a.notification_id and n.status = 'dead'"
        )
    return done.rowcount
