"""What is pushed, on its way into the warehouse: requests that come together are one unit.

A request is answered when its rows, the ledger, the heartbeat and the live state are committed.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import psycopg
from psycopg import sql

from callhouse import capture
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.landing import EPOCH, Unit, UnitResult, store
from callhouse.landing.connections import Connections
from callhouse.live import state
from callhouse.settings import Settings
from callhouse.sources import pushes, registry
from callhouse.sources.contract import FileLayout, Pushed, Record, RefusedError

# From one unit of a feed to its next: what comes meanwhile goes together.
GATHER_SECONDS = 0.25
MOST_RECORDS = 20_000  # of a unit, unless one request has more
# What waits to be landed; senders of more are told to come again.
MOST_WAITING_BYTES = 64 << 20
SEEN_SECONDS = 2.0
# What has waited for longer makes the floor old.
LATE_SECONDS = 10.0
BEAT_SECONDS = 60.0
# While the server is away.
RETRY_SECONDS = 3.0
# AWS repeats requests for a day, Firehose for two hours: none comes later than this.
REMEMBER = timedelta(days=8)
FORGET_SECONDS = 3600.0


class UnavailableError(CallhouseError):
    """Nothing is known to be landed: the request should be repeated after `seconds`."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True)
class Counts:
    """What became of the records of a request: read = staged + quarantined + duplicates."""

    read: int = 0
    staged: int = 0
    quarantined: int = 0
    duplicates: int = 0


@dataclass(eq=False)
class Push:
    """A request that waits to be landed. Without items it only says that its sender lives.

    Two that share one of `keys` do not become one unit.
    """

    record: Record
    items: list[Any]
    body: bytes
    answer: Future[Counts] = field(default_factory=Future)
    came_at: float = field(default_factory=time.monotonic)
    keys: frozenset[Hashable] = frozenset()

    @cached_property
    def hash(self) -> bytes:
        """What tells a request that is repeated."""
        return hashlib.sha256(self.record.name.encode() + b"\0" + self.body).digest()


class Intake:
    """Lands what is pushed of one feed, in a thread of its own. Two of them only take turns."""

    def __init__(
        self, settings: Settings, feed: Pushed, how: pushes.Receive,
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.settings, self.feed, self.how, self.say = settings, feed, how, say
        self.name = feed.file.stem
        self.device = devices.push_name(feed)
        self.waiting: list[Push] = []  # in the order in which they came
        self.is_landing = False
        self._bytes = 0
        self._wake = threading.Condition()
        self._connections = Connections(settings, self._enter)
        self._landed_at = self._seen_at = self._beat_at = self._forgot_at = 0.0

    @property
    def path(self) -> str:
        """Where its records are pushed to."""
        return f"/v1/events/{self.name}"

    def submit(self, push: Push) -> None:
        """Have a request landed; its `answer` comes after the commit."""
        push.keys = frozenset([push.hash, *self.feed.identities(push.record, push.items)])
        with self._wake:
            if self._bytes + len(push.body) > MOST_WAITING_BYTES and self.waiting:
                raise UnavailableError("too much waits to be landed: send it again", 1)
            self.waiting.append(push)
            self._bytes += len(push.body)
            self._wake.notify()

    def run(self, stop: threading.Event) -> None:
        """Land until `stop`, and then what still waits."""
        told = ""
        while not stop.is_set() or self.waiting:
            self.is_landing = False
            group = self._next(stop)
            self.is_landing = bool(group)
            try:
                if group:
                    self.land(group)
                else:
                    self._tell()
                told = ""
            except Exception as problem:  # noqa: BLE001  # without this thread all senders wait
                self.disconnect()
                for push in group:
                    _answer(push, UnavailableError("the warehouse does not answer", 5))
                if str(problem) != told:
                    told = str(problem)
                    self.say(f"{self.name}: {told}; trying again every {RETRY_SECONDS:.0f} s")
                if not group:
                    stop.wait(RETRY_SECONDS)
        self.disconnect()

    def disconnect(self) -> None:
        """Let go of the warehouse: the next landing connects anew."""
        self._connections.close()

    # -------------------------------------------------------------------------- groups
    def _next(self, stop: threading.Event) -> list[Push]:
        """The next requests that fit into a unit; none where nothing has come for a while."""
        with self._wake:
            if not self.waiting:
                self._wake.wait(SEEN_SECONDS)
            if not self.waiting:
                return []
        stop.wait(max(0.0, self._landed_at + GATHER_SECONDS - time.monotonic()))
        self._landed_at = time.monotonic()
        with self._wake:
            group = self._fitting()
            chosen = {id(push) for push in group}
            self.waiting = [push for push in self.waiting if id(push) not in chosen]
            self._bytes -= sum(len(push.body) for push in group)
        return group

    def _fitting(self) -> list[Push]:
        """From the oldest on: of one record, and none that another one of them replaces."""
        group: list[Push] = []
        record = self.waiting[0].record
        taken: set[Hashable] = set()
        size = 0
        for push in self.waiting:
            if push.record is not record:
                continue
            size += len(push.items)
            if group and (size > MOST_RECORDS or not taken.isdisjoint(push.keys)):
                break
            taken |= push.keys
            group.append(push)
        return group

    # -------------------------------------------------------------------------- landing
    def land(self, group: list[Push]) -> None:
        """Land requests and answer them. What one of them spoils, the others do not suffer."""
        try:
            found = self._commit(group)
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError):
            raise
        except Exception as problem:
            if len(group) > 1:
                for push in group:
                    self.land([push])
                return
            if isinstance(problem, CallhouseError) and not isinstance(problem, RefusedError):
                raise
            if not isinstance(problem, RefusedError | RecursionError):
                # Messages of these may quote a row.
                self.say(f"{self.name}: a request cannot be landed ({type(problem).__name__})")
            _answer(group[0], problem)
            return
        for push, counts in zip(group, found, strict=True):
            _answer(push, counts)

    def _commit(self, group: list[Push]) -> list[Counts]:
        record = group[0].record
        with self._connections.transaction() as connection:
            # As landing does: two receivers must not both find a request new.
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"land {self.feed.name}"]
            )
            known = {
                bytes(request_hash): (read, quarantined)
                for request_hash, read, quarantined in connection.execute(
                    "select request_hash, read_rows, quarantined_rows from ops.pushes "
                    "where feed = %s and request_hash = any(%s)",
                    [self.name, [push.hash for push in group]],
                )
            }
            fresh = [push for push in group if push.items and push.hash not in known]
            counts, newest = self._stage(connection, record, fresh) if fresh else ({}, None)
            if fresh or self.how.quiet_seconds:
                capture.write_beat(connection, self.device, newest_event_at=newest)
                self._beat_at = time.monotonic()
            self._see(connection)
        for request_hash, (read, quarantined) in known.items():
            counts[request_hash] = Counts(read, 0, quarantined, read - quarantined)
        return [counts.get(push.hash, Counts()) for push in group]

    def _stage(
        self, connection: psycopg.Connection, record: Record, fresh: list[Push]
    ) -> tuple[dict[bytes, Counts], datetime | None]:
        """Counts by request, and the newest event of them."""
        hashes = [push.hash for push in fresh]
        # A request that comes again after it was forgotten is another unit: its rows are known.
        digest = hashlib.sha256(b"".join(hashes) + str(time.time_ns()).encode())
        items = [item for push in fresh for item in push.items]
        file = self.feed.open_items(
            record, pushes.name(self.feed, record), items, digest.hexdigest(),
            self._layout(connection, record),
        )  # fmt: skip
        with file:
            unit = Unit(
                self.settings,
                connection,
                self.feed,
                file,
                kind="push",
                connections=self._connections,
            )
            result = unit.land(file.inspect())
        staged, quarantined = self._places(connection, record, result, len(items))
        counts, first = {}, 1
        for push in fresh:
            numbers = range(first, first + len(push.items))
            first = numbers.stop
            bad = sum(quarantined[number] for number in numbers)
            good = sum(staged[number] for number in numbers)
            read = len(push.items)
            counts[push.hash] = Counts(read, good, bad, read - good - bad)
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.pushes "
                "(feed, request_hash, unit_id, read_rows, staged_rows, quarantined_rows) "
                "values (%s, %s, %s, %s, %s, %s)",
                [
                    (self.name, request_hash, unit.unit_id, c.read, c.staged, c.quarantined)
                    for request_hash, c in counts.items()
                ],
            )
        newest = unit.tally.newest_event
        return counts, EPOCH + timedelta(microseconds=newest) if newest else None

    def _layout(self, connection: psycopg.Connection, record: Record) -> FileLayout | None:
        row = connection.execute(
            "select layout from ops.units where source = %s and record = %s and feed = %s "
            "and status = 'landed' and layout is not null order by unit_id desc limit 1",
            [self.feed.name, record.name, self.name],
        ).fetchone()
        return row[0] if row else None

    def _places(
        self, connection: psycopg.Connection, record: Record, result: UnitResult, items: int
    ) -> tuple[Counter[int], Counter[int]]:
        """Numbers of the items that are staged, and of those in quarantine."""
        unit = {"unit": result.unit_id, "first": result.first_day, "last": result.last_day}
        quarantined: Counter[int] = Counter()
        if result.quarantined:
            quarantined.update(
                number for (number,) in connection.execute(
                    "select distinct line_number from ops.quarantine where unit_id = %(unit)s",
                    unit,
                )
            )  # fmt: skip
        if not result.duplicates:
            return Counter(set(range(1, items + 1)) - set(quarantined)), quarantined
        statement = sql.SQL(
            "select distinct line_number from {table} where unit_id = %(unit)s "
            "and {day} between %(first)s and %(last)s"
        ).format(table=store.identifier(record.table), day=sql.Identifier(record.day))
        staged: Counter[int] = Counter()
        if result.staged:
            staged.update(number for (number,) in connection.execute(statement, unit))
        return staged, quarantined

    # -------------------------------------------------------------------------- between
    def _enter(self, connection: psycopg.Connection) -> None:
        registry.register(connection, self.feed)
        devices.enter_push(connection, self.feed, datetime.now(UTC))
        state.follow(connection, self.feed)

    def _tell(self) -> None:
        """While nothing comes: readers are told so, and the watch that somebody listens."""
        with self._connections.transaction() as connection:
            self._see(connection)
            now = time.monotonic()
            if not self.how.quiet_seconds and now - self._beat_at > BEAT_SECONDS:
                capture.write_beat(connection, self.device)
                self._beat_at = now
            if now - self._forgot_at > FORGET_SECONDS:
                connection.execute(
                    "delete from ops.pushes where feed = %s and received_at < %s",
                    [self.name, datetime.now(UTC) - REMEMBER],
                )
                self._forgot_at = now

    def _see(self, connection: psycopg.Connection) -> None:
        """Note that all is here, unless something waits, or the sender is silent, for too long."""
        now = time.monotonic()
        is_late = bool(self.waiting) and now - self.waiting[0].came_at > LATE_SECONDS
        if is_late or now - self._seen_at < SEEN_SECONDS:
            return
        self._seen_at = now
        if self.how.quiet_seconds:
            heard = connection.execute(
                "select heartbeat_at > now() - make_interval(secs => %s) "
                "from ops.last_heartbeats where device = %s",
                [self.how.quiet_seconds, self.device],
            ).fetchone()
            if not heard or not heard[0]:
                return
        state.seen(connection, self.feed.name)


def _answer(push: Push, answer: Counts | Exception) -> None:
    # Who has gone is not told.
    with contextlib.suppress(InvalidStateError):
        if isinstance(answer, Counts):
            push.answer.set_result(answer)
        else:
            push.answer.set_exception(answer)
