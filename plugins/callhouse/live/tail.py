"""A log that grows: its complete lines are landed in small units, wherever rotation moves it.

A file is known by device, inode and `mark`: hashes of its first bytes and of those before the place
that was read. By the mark it is found again after it was copied, compressed or moved, and another
file is told from it that has its name or its inode.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import psycopg
from psycopg.rows import class_row

from callhouse import capture, warehouse
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.landing import EPOCH, STABLE_SECONDS, UNFINISHED, Unit
from callhouse.landing.connections import Connections
from callhouse.live import state
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Tailed
from callhouse.sources.files import LONGEST_LINE

MARK_BYTES = 1024
READ_BYTES = 4 << 20
BEAT_SECONDS = 60.0
# How often readers are told that nothing waits to be read.
SEEN_SECONDS = 2.0
# An exchange writes into the rotated file until it is told; afterwards its last line is whole.
PATIENCE_SECONDS = 600.0
# The clocks of a file server and of this machine may differ by as much.
SKEW = timedelta(seconds=5)


@dataclass(frozen=True)
class Place:
    """How far one file was read: a row of ops.tail_files."""

    file_id: int
    device: int
    inode: int
    offset_bytes: int
    lines: int
    mark: str
    is_current: bool
    looked_at: datetime
    left_at: datetime | None
    finished_at: datetime | None

    def is_in(self, handle: IO[bytes]) -> bool:
        """Whether the open file is this one: of one not read yet only the inode tells."""
        if self.offset_bytes:
            return _mark(handle, self.offset_bytes) == self.mark
        return _identity(handle) == (self.device, self.inode)

    def has_all_of(self, handle: IO[bytes]) -> bool:
        """Whether the open file is a shorter copy, made before the last of this one was read."""
        head = _read(handle, 0, MARK_BYTES) or b""
        return (
            len(head) == MARK_BYTES <= self.offset_bytes
            and self.mark.startswith(_hash(head))
            and _mark(handle, self.offset_bytes) is None
        )


class Tail:
    """Follows the log at `path` for `feed`. Two of them on one log only take turns."""

    def __init__(
        self, settings: Settings, feed: Tailed, path: Path,
        *, say: Callable[[str], None] = print, patience: float = PATIENCE_SECONDS,
    ) -> None:  # fmt: skip
        self.settings, self.feed, self.path, self.say = settings, feed, path, say
        self.patience = timedelta(seconds=patience)
        self.name = feed.file.stem
        self.device = devices.tail_name(feed)
        self._places: list[Place] | None = None
        self._handles: dict[int, IO[bytes]] = {}
        self._folder_seen: int | None = None
        self._beat_at = self._seen_at = 0.0
        self._connections = Connections(settings)

    @property
    def follows(self) -> str:
        """The log, for people."""
        return str(self.path)

    def close(self) -> None:
        """Let go of the files and of the warehouse."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
        self.disconnect()

    def disconnect(self) -> None:
        """Let go of the warehouse: the next landing connects anew."""
        self._connections.close()

    def forget(self) -> None:
        """Ask the warehouse again how far it got: what failed may have been committed."""
        self._places = None

    def look(self) -> bool:
        """Land what is new. True where more waits already."""
        places = self._known()
        # What rotation brought is entered before the log counts as another one.
        is_settled = self._find_unknown(places)
        current = next((place for place in self._known() if place.is_current), None)
        if current is None or self._is_another(current):
            if self._begin(current):
                return True
            current = None  # nothing is at the path just now
        has_more = False
        for place in self._known():
            if place.finished_at is None:
                has_more |= self._read(place)
        if current and is_settled and not has_more:
            self._tell_seen()
        if current and time.monotonic() - self._beat_at > BEAT_SECONDS:
            self._beat_idle(current, is_settled=is_settled)
        return has_more

    def _tell_seen(self) -> None:
        if time.monotonic() - self._seen_at > SEEN_SECONDS:
            with self._connections.transaction() as connection:
                state.seen(connection, self.feed.name)
            self._seen_at = time.monotonic()

    # -------------------------------------------------------------------------- places
    def _known(self) -> list[Place]:
        if self._places is None:
            with self._connections.transaction() as connection:
                if not self._handles:
                    registry.register(connection, self.feed)
                    devices.enter_tail(connection, self.feed, datetime.now(UTC))
                    state.follow(connection, self.feed)
                with connection.cursor(row_factory=class_row(Place)) as cursor:
                    self._places = cursor.execute(
                        f"select {', '.join(Place.__dataclass_fields__)} from ops.tail_files "  # noqa: S608
                        "where feed = %s and path = %s order by file_id".encode(),
                        [self.name, str(self.path)],
                    ).fetchall()
        return self._places

    def _begin(self, before: Place | None) -> bool:
        """The file now at the path is the current one; False where there is none."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if before is None:
                raise CallhouseError(f"{self.path} is not there: check `tail`") from None
            return False
        now = datetime.now(UTC)
        with warehouse.connect(self.settings) as connection:
            if before:
                connection.execute(
                    "update ops.tail_files set is_current = false, left_at = %s "
                    "where file_id = %s and is_current", [now, before.file_id],
                )  # fmt: skip
            self._enter(connection, status, is_current=True)
        self.forget()
        return True

    def _enter(
        self, connection: psycopg.Connection, status: os.stat_result, *, is_current: bool
    ) -> int | None:
        now = datetime.now(UTC)
        row = connection.execute(
            "insert into ops.tail_files (feed, path, device, inode, is_current, looked_at, left_at)"
            " values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing returning file_id",
            [self.name, str(self.path), status.st_dev, status.st_ino, is_current, now,
             None if is_current else now],
        ).fetchone()  # fmt: skip
        return int(row[0]) if row else None

    def _is_another(self, current: Place) -> bool:
        """Whether the path holds another file than it did, or nothing."""
        try:
            status = self.path.stat()
            if (status.st_dev, status.st_ino) != (current.device, current.inode):
                return True
            handle = self._handles.get(current.file_id)
            if handle is None:
                handle = self._handles[current.file_id] = _opened(self.path)
        except FileNotFoundError:
            return True
        if _identity(handle) == (current.device, current.inode) and current.is_in(handle):
            return False
        self._let_go(current)
        return True

    def _let_go(self, place: Place) -> None:
        if handle := self._handles.pop(place.file_id, None):
            handle.close()

    # -------------------------------------------------------------------------- rotation
    def _siblings(self) -> list[Path]:
        """Files that rotation may have made of the log: `queue_log.1`, `queue_log-20261129.gz`."""
        pattern = re.compile(re.escape(self.path.name) + "[.-].+")
        found = (path for path in self.path.parent.iterdir() if pattern.fullmatch(path.name))
        return sorted(path for path in found if not path.name.lower().endswith(UNFINISHED))

    def _find_unknown(self, places: list[Place]) -> bool:
        """Enter rotated files of which nothing was read: what was rotated twice between two looks.

        Looked for when the folder has changed. False while one of them may still be written.
        """
        folder = self.path.parent.stat().st_mtime_ns
        if folder == self._folder_seen or not any(place.is_current for place in places):
            return True
        now = time.time()
        is_settled = now - folder / 1e9 > 1.0  # else a change within the clock's tick is missed
        since = min(
            place.looked_at for place in places
            if place.is_current or (place.finished_at is None and not place.offset_bytes)
        ) - SKEW  # fmt: skip
        for path in self._siblings():
            try:
                handle = _opened(path)
            except OSError:
                continue  # moved on meanwhile, which is a change of the folder
            status = os.fstat(handle.fileno())
            is_old = datetime.fromtimestamp(status.st_mtime, UTC) < since
            if is_old or any(
                # The inode of an empty file that is over may be used again.
                (place.is_in(handle) and (place.offset_bytes or place.finished_at is None))
                or place.has_all_of(handle)
                for place in places
            ):
                handle.close()
            elif now - status.st_mtime < STABLE_SECONDS:
                is_settled = False
                handle.close()
            else:
                with warehouse.connect(self.settings) as connection:
                    file_id = self._enter(connection, status, is_current=False)
                self.forget()
                if file_id:
                    self._handles[file_id] = handle
        if is_settled:
            self._folder_seen = folder
        return is_settled

    def _found(self, place: Place) -> IO[bytes] | None:
        """The open file of a place, wherever it has gone."""
        held = self._handles.get(place.file_id)
        if held and self._is_of(place, held):
            return held
        self._let_go(place)
        for path in sorted(self._siblings(), key=lambda path: path.suffix == ".gz"):
            try:
                handle = _opened(path)
            except OSError:
                continue
            if self._is_of(place, handle):
                self._handles[place.file_id] = handle
                return handle
            handle.close()
        return None

    def _is_of(self, place: Place, handle: IO[bytes]) -> bool:
        """Whether the open file is that of a place, and of no other one.

        While nothing of a file was read only its inode tells it, which a later file may have too.
        """
        return place.is_in(handle) and (
            place.offset_bytes > 0
            or not any(
                other.is_in(handle)
                for other in self._known()
                if other.offset_bytes or other.file_id > place.file_id
            )
        )

    # -------------------------------------------------------------------------- reading
    def _read(self, place: Place) -> bool:
        """Land the next complete lines of a file; True where more waits."""
        is_over = place.left_at is not None and datetime.now(UTC) - place.left_at > self.patience
        handle = self._found(place)
        content = _read(handle, place.offset_bytes, READ_BYTES) if handle else None
        if handle is None or content is None:
            if is_over:
                self.say(
                    f"{self.name}: the rest of a rotated {self.path.name} is nowhere beside "
                    f"{self.path}: land it with `./callhouse land {self.name} FILE` if it is kept"
                )
                self._finish(place)
            return False
        has_more = len(content) == READ_BYTES
        end = content.rfind(b"\n") + 1
        if not end and has_more:  # a line longer than that
            content = _read(handle, place.offset_bytes, LONGEST_LINE) or b""
            end = content.find(b"\n") + 1
            if not end and len(content) == LONGEST_LINE:
                raise CallhouseError(
                    f"{self.path} has {LONGEST_LINE >> 20} MiB without a line end: "
                    "this is no log; correct `tail`"
                )
        if is_over and not end:
            end = len(content)  # half a line that nobody will complete
        if end:
            self._land(place, handle, content[:end])
        elif not content and (is_over or isinstance(handle, gzip.GzipFile)):
            self._finish(place)  # what is compressed grows no more
        return has_more

    def _land(self, place: Place, handle: IO[bytes], content: bytes) -> None:
        """Land lines: rows, ledger, place and heartbeat in one transaction."""
        offset = place.offset_bytes + len(content)
        digest = hashlib.sha256(f"{place.file_id}:{place.offset_bytes}:".encode() + content)
        lines = self.feed.open_lines(
            self.path.name, content, place.lines + 1, digest.hexdigest()
        )  # fmt: skip
        mark = _mark(handle, offset)
        size = min(len(content), MARK_BYTES)
        if mark is None or not (
            place.is_in(handle) if place.offset_bytes else _read(handle, 0, size) == content[:size]
        ):
            return  # truncated, and maybe filled again; what was read is looked for in its copy
        with self._connections.transaction() as connection:
            moved = connection.execute(
                "update ops.tail_files set offset_bytes = %s, lines = %s, mark = %s "
                "where file_id = %s and offset_bytes = %s and finished_at is null",
                [offset, place.lines + content.count(b"\n") + (not content.endswith(b"\n")),
                 mark, place.file_id, place.offset_bytes],
            )  # fmt: skip
            if moved.rowcount:  # else another collector was faster
                unit = Unit(
                    self.settings,
                    connection,
                    self.feed,
                    lines,
                    kind="tail",
                    connections=self._connections,
                )
                unit.land(lines.inspect())
                newest = unit.tally.newest_event
                capture.write_beat(
                    connection, self.device, position=f"{self.path.name}:{offset}",
                    newest_event_at=EPOCH + timedelta(microseconds=newest) if newest else None,
                )  # fmt: skip
        self._beat_at = time.monotonic()
        self.forget()

    def _finish(self, place: Place) -> None:
        with warehouse.connect(self.settings) as connection:
            connection.execute(
                "update ops.tail_files set finished_at = %s where file_id = %s "
                "and offset_bytes = %s", [datetime.now(UTC), place.file_id, place.offset_bytes],
            )  # fmt: skip
        self._let_go(place)
        self.forget()

    def _beat_idle(self, current: Place, *, is_settled: bool) -> None:
        with warehouse.connect(self.settings) as connection:
            if is_settled:
                connection.execute(
                    "update ops.tail_files set looked_at = %s where file_id = %s",
                    [datetime.now(UTC), current.file_id],
                )
            capture.write_beat(
                connection, self.device, position=f"{self.path.name}:{current.offset_bytes}"
            )
        self._beat_at = time.monotonic()
        self.forget()


def _opened(path: Path) -> IO[bytes]:
    """A file for reading from anywhere, uncompressed. Without a buffer: what it held may change."""
    file = path.open("rb", buffering=0)
    is_gzip = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file, mode="rb") if is_gzip else file  # type: ignore[return-value]


def _identity(handle: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(handle.fileno())
    return status.st_dev, status.st_ino


def _read(handle: IO[bytes], offset: int, size: int) -> bytes | None:
    """Up to `size` bytes from `offset`; None where a compressed file is cut off or damaged."""
    try:
        handle.seek(offset)
        parts = []
        while size and (part := handle.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return None


def _mark(handle: IO[bytes], offset: int) -> str | None:
    """What tells a file, of which `offset` bytes were read, from others; None: it is shorter."""
    size = min(offset, MARK_BYTES)
    head, tail = _read(handle, 0, size) or b"", _read(handle, offset - size, size) or b""
    return _hash(head) + _hash(tail) if len(head) == len(tail) == size else None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
