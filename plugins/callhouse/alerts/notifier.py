"""The process that looks at the rules every few seconds and sends what there is to tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from callhouse import capture
from callhouse.alerts import channels, messages
from callhouse.capture import devices
from callhouse.settings import Settings

LOOK_SECONDS = 10.0
BEAT_SECONDS = 30.0
SENDERS = 4
# Longer than a channel may take to connect and answer, so that no attempt is still on its way.
LEASE = timedelta(seconds=60)
# Failures before it is a dead letter: 5, 20, 80, 320 and 1280 s apart, about half an hour.
MOST_FAILURES = 6

Say = Callable[[str], None]


def pulse(settings: Settings) -> Path:
    """Touched after every look; its age tells whether the notifier works."""
    return settings.run_directory / "notifier"


def run(settings: Settings, stop: threading.Event, say: Say) -> None:
    """Look and send until `stop`. A database that is away is tried again at the next look."""
    beaten = 0.0
    sending: list[Future[int]] = []
    connection: psycopg.Connection | None = None
    with ThreadPoolExecutor(SENDERS, thread_name_prefix="sender") as pool:
        # Apprise takes seconds to import: not when something burns. `doctor` tells of a wrong file.
        pool.submit(channels.read, settings)
        while not stop.is_set():
            began = time.monotonic()
            try:
                if connection is None or connection.closed:
                    connection = psycopg.connect(
                        settings.dsn(), autocommit=True, connect_timeout=5,
                        application_name="callhouse notifier",
                    )  # fmt: skip
                for event, alert_id in look(connection):
                    say(f"{event}: alert {alert_id}")
                if began - beaten > BEAT_SECONDS:
                    beat(connection)
                    beaten = began
                pulse(settings).parent.mkdir(parents=True, exist_ok=True)
                pulse(settings).touch()
                sending = [task for task in sending if not _finished(task, say)]
                for _ in range(min(SENDERS - len(sending), due(connection))):
                    sending.append(pool.submit(send_all, settings, say, stop))
            except psycopg.Error as error:
                say(f"the warehouse cannot be asked: {' '.join(str(error).split())[:200]}")
                if connection is not None:
                    connection.close()
                    connection = None
            stop.wait(max(0.0, LOOK_SECONDS - (time.monotonic() - began)))
    if connection is not None:
        connection.close()


def _finished(task: Future[int], say: Say) -> bool:
    if not task.done():
        return False
    if error := task.exception():
        say(f"sending failed: {' '.join(str(error).split())[:200]}")
    return True


def look(connection: psycopg.Connection, now: datetime | None = None) -> list[tuple[str, int]]:
    """Evaluate every rule as of `now`: what fired, escalated or was resolved."""
    return connection.execute(
        "select event, alert_id from ops.evaluate_alerts(%s)", [now or datetime.now(UTC)]
    ).fetchall()


def beat(connection: psycopg.Connection, now: datetime | None = None) -> None:
    """Tell capture health that the notifier lives: a silent one opens an incident there."""
    moment = now or datetime.now(UTC)
    with connection.transaction():
        if not devices.is_known(connection, devices.NOTIFIER):
            devices.enter_notifier(connection, moment)
        capture.write_beat(connection, devices.NOTIFIER, now=moment)


def due(connection: psycopg.Connection) -> int:
    """How many notifications wait to be sent now; whom quiet hours hold back are none."""
    row = connection.execute(
        "select count(*) from ops.notifications as n "
        "inner join ops.alerts as a on n.alert_id = a.alert_id "
        "inner join ops.alert_rules as r on a.rule_id = r.rule_id "
        "where (n.status = 'waiting' and n.due_at <= now() "
        "or n.status = 'sending' and n.claimed_at <= now() - %s) and not ops.is_quiet(r, now())",
        [LEASE],
    ).fetchone()
    return int(row[0]) if row else 0


def send_all(settings: Settings, say: Say, stop: threading.Event | None = None) -> int:
    """Send what is due until nothing is; how many were taken."""
    sent = 0
    with psycopg.connect(
        settings.dsn(), autocommit=True, connect_timeout=5, application_name="callhouse sender"
    ) as connection:
        while not (stop and stop.is_set()):
            status = send_one(settings, connection, say=say)
            if status is None:
                return sent
            sent += status == "sent"
    return sent


def send_one(
    settings: Settings, connection: psycopg.Connection, now: datetime | None = None,
    say: Say = lambda _: None,
) -> str | None:  # fmt: skip
    """Claim one notification, send it, write down how it went; None where none is due.

    `connection` commits every statement by itself. Killed anywhere in between, the notification is
    claimed again when the lease is over and goes out with the same key: at least once in all, at
    most once per claim.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        claimed = cursor.execute(
            "select * from ops.claim_notification(%s, %s)", [now or datetime.now(UTC), LEASE]
        ).fetchone()
        if claimed is None:
            return None
        alert = cursor.execute(
            "select a.*, r.reason from ops.alerts as a inner join ops.alert_rules as r "
            "using (rule_id) where a.alert_id = %s",
            [claimed["alert_id"]],
        ).fetchone()
    assert alert is not None  # noqa: S101  # a foreign key says so
    letter = messages.letter(settings, claimed["idempotency_key"], claimed["kind"], alert)
    failure = channels.deliver(settings, claimed["channel"], claimed["person"], letter)
    row = connection.execute(
        "select ops.settle_notification(%s, %s, %s, %s, %s)",
        [claimed["notification_id"], claimed["claims"], failure, MOST_FAILURES,
         now or datetime.now(UTC)],
    ).fetchone()  # fmt: skip
    status = str(row[0]) if row and row[0] else "taken over"
    say(f"{claimed['idempotency_key']}: {status}" + (f" ({failure})" if failure else ""))
    return status
