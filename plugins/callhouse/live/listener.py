"""An exchange that tells what happens: heard in one thread, landed in small units in another.

What it says it says once, to who listens then. So the way to the exchange stays open while the
warehouse is away, and what is missed between two sessions is told by the numbers of the heartbeats:
the first one of a session leaves a number out.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from callhouse import capture, warehouse
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.landing import EPOCH, Unit
from callhouse.landing.connections import Connections
from callhouse.live import exchanges, state
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Listened, Session

# What waits to be landed. Beyond it nothing is read, and the exchange ends the session.
MOST_WAITING_BYTES = 16 << 20
MOST_LINES = 20_000  # of a unit
BEAT_SECONDS = 60.0
SEEN_SECONDS = 2.0
# Between attempts: twice as long each time, as long as no session has lasted for the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# So long it is waited for the ear when all ends: one that still connects has heard nothing.
LEAVE_SECONDS = 3.0


@dataclass(frozen=True)
class Told:
    """A line, which session it was heard in, and its number there, from 1."""

    session: str
    number: int
    line: bytes


class Listener:
    """Listens to the exchange of `feed` at `address`. Of two of them only one does."""

    def __init__(
        self, settings: Settings, feed: Listened, address: str,
        *, say: Callable[[str], None] = print, first_pause: float = FIRST_PAUSE,
    ) -> None:  # fmt: skip
        self.settings, self.feed, self.address, self.say = settings, feed, address, say
        self.first_pause = first_pause
        self.name = feed.file.stem
        self.device = devices.listener_name(feed)
        self._ear: threading.Thread | None = None
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[Told] = deque()
        self._bytes = 0
        self._session = ""  # when it began; empty while there is none
        self._problem = ""
        self._landing: list[Told] = []  # kept until it is known to be landed
        self._connections = Connections(settings, self._enter)
        self._count = 0  # of lines of the session of the last heartbeat
        self._beat_of = ""
        self._beat_at = self._seen_at = 0.0

    @property
    def follows(self) -> str:
        """What it listens to, for people."""
        return self.address

    def look(self) -> bool:
        """Land what was heard. True where more waits already."""
        if self._ear is None:
            with self._connections.transaction():  # first it is known that nobody else listens
                pass
            self._ear = threading.Thread(target=self._listen, daemon=True)
            self._ear.start()
        if self._land_next():
            return bool(self._waiting)
        if self._problem:
            raise CallhouseError(self._problem)
        self._tell()
        return False

    def forget(self) -> None:
        """Nothing is known of the warehouse: what may have been landed is landed again."""

    def disconnect(self) -> None:
        """Let go of the warehouse: the next landing connects anew."""
        self._connections.close()

    def close(self) -> None:
        """Listen no more, and land what was heard."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._ear:
            self._ear.join(LEAVE_SECONDS)
        try:
            while self._land_next():
                pass
        except (CallhouseError, psycopg.Error, OSError) as problem:
            left = len(self._landing) + len(self._waiting)
            self.say(f"{self.name}: {left} events were heard and are lost: {problem}")
        self.disconnect()

    # -------------------------------------------------------------------------- hearing
    def _listen(self) -> None:
        """Sessions one after the other; what ends one is told by `look`."""
        pause = self.first_pause
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                session = self.feed.session(
                    self.address, exchanges.password(self.settings, self.name)
                )
                try:
                    self._hear(session)
                finally:
                    self._session = ""
                    session.close()
            except CallhouseError as problem:
                self._problem = str(problem)
            except OSError as problem:
                self._problem = f"{self.address}: {problem}"
            except Exception as problem:  # noqa: BLE001  # without this thread nothing is heard
                self._problem = f"cannot be understood ({type(problem).__name__})"
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = self.first_pause
            self._stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _hear(self, session: Session) -> None:
        began, number = datetime.now(UTC).isoformat(), 0
        self._session, self._problem = began, ""
        try:
            while not self._stop.is_set():
                for line in session.heard():
                    number += 1
                    self._put(Told(began, number, line))
        finally:
            for line in session.rest():
                number += 1
                self._put(Told(began, number, line))

    def _put(self, told: Told) -> None:
        with self._changed:
            while self._bytes > MOST_WAITING_BYTES and not self._stop.is_set():
                self._changed.wait()
            self._waiting.append(told)
            self._bytes += len(told.line)

    # -------------------------------------------------------------------------- landing
    def _land_next(self) -> bool:
        """Land lines of one session; False where none wait."""
        if not self._landing:
            self._landing = self._take()
        if not self._landing:
            return False
        self._land(self._landing)
        self._landing = []
        return True

    def _take(self) -> list[Told]:
        with self._changed:
            taken: list[Told] = []
            while self._waiting and len(taken) < MOST_LINES:
                if taken and self._waiting[0].session != taken[0].session:
                    break
                taken.append(self._waiting.popleft())
                self._bytes -= len(taken[-1].line)
            self._changed.notify_all()
        return taken

    def _land(self, told: list[Told]) -> None:
        """Land lines: rows, ledger, heartbeat and live state in one transaction."""
        session, first = told[0].session, told[0].number
        content = b"".join(item.line + b"\n" for item in told)
        digest = hashlib.sha256(f"{self.name}:{session}:{first}:".encode() + content)
        lines = self.feed.open_lines(self.feed.told_as, content, first, digest.hexdigest())
        with self._connections.transaction() as connection:
            unit = Unit(
                self.settings,
                connection,
                self.feed,
                lines,
                kind="push",
                connections=self._connections,
            )
            unit.land(lines.inspect())
            newest = unit.tally.newest_event
            self._beat(
                connection, session, told[-1].number,
                EPOCH + timedelta(microseconds=newest) if newest else None,
            )  # fmt: skip

    def _enter(self, connection: psycopg.Connection) -> None:
        (is_alone,) = warehouse.one(
            connection, "select pg_try_advisory_lock(hashtextextended(%s, 0))",
            [f"listen {self.name}"],
        )  # fmt: skip
        if not is_alone:
            raise CallhouseError("another collector listens to the same exchange already")
        registry.register(connection, self.feed)
        devices.enter_listener(connection, self.feed, datetime.now(UTC))
        state.follow(connection, self.feed)

    # -------------------------------------------------------------------------- between
    def _tell(self) -> None:
        """While nothing comes: readers are told so, and the watch that somebody listens."""
        session, now = self._session, time.monotonic()
        if not session:
            return
        is_due = now - self._beat_at > BEAT_SECONDS or self._beat_of != session
        if is_due or now - self._seen_at > SEEN_SECONDS:
            with self._connections.transaction() as connection:
                if is_due:
                    count = self._count if self._beat_of == session else 0
                    self._beat(connection, session, count, None)
                state.seen(connection, self.feed.name)
            self._seen_at = now

    def _beat(
        self, connection: psycopg.Connection, session: str, count: int, newest: datetime | None
    ) -> None:
        """A heartbeat with the next number; the first one of a session leaves one out."""
        last = connection.execute(
            "select sequence, position from ops.heartbeats where device = %s "
            "and sequence is not null order by beat_id desc limit 1", [self.device],
        ).fetchone()  # fmt: skip
        number = 1
        if last:
            is_same = last[1].partition(" ")[0] == session
            number = last[0] + (1 if is_same else 2)
        capture.write_beat(
            connection, self.device, sequence=number, position=f"{session} {count}",
            newest_event_at=newest,
        )  # fmt: skip
        self._beat_of, self._count, self._beat_at = session, count, time.monotonic()
