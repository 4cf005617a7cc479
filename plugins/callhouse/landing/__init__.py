"""Landing: a file becomes staging rows, quarantine, ledger entry and dirty marks, or nothing.

One file is one unit is one transaction; whatever is killed can be repeated.
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from callhouse import capture, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import cold, heads, links, store
from callhouse.landing.callers import Callers, Found, hold_keys
from callhouse.landing.connections import Connections
from callhouse.live import state
from callhouse.security import redaction
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources import storage as object_storage
from callhouse.sources.contract import (
    Batch,
    ChangedError,
    Feed,
    Field,
    Inspection,
    Reader,
    Record,
    RefusedError,
    Rejected,
)

# From this many rows on, a file without one readable row has a wrong mapping, not bad rows.
WRONG_MAPPING_ROWS = 20
# Rows of a file whose hashes are remembered, of 16 bytes; of more, the server has to look itself.
MOST_HASHES = 10_000_000
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
STABLE_SECONDS = 2.0
# No upload stalls for longer.
GROWING_SECONDS = 86_400.0
# Objects in a row that could not be read.
MOST_IN_VAIN = 3
# Rows that a table got later than this are fetched by `land` with its address.
LOOK_BACK = datetime.timedelta(days=8)
UNFINISHED = (".part", ".tmp", ".partial", ".crdownload")
REFUSED = "refused"
# An issue names the code that is unknown: in a shifted row it may be anything.
ISSUES = Field("data_issues", free="kept")

Progress = Callable[[str, int, float], None]
"""Called with file name, rows read so far, and the share of the file (0 to 1)."""


@dataclass(frozen=True)
class UnitResult:
    """What became of one file. `read` = `staged` + `quarantined` + `duplicates`."""

    source: str
    record: str
    name: str
    status: str  # landed | already_landed | unfinished (still being written) | refused
    read: int = 0
    staged: int = 0
    quarantined: int = 0
    duplicates: int = 0
    header_rows: int = 0
    notes: tuple[str, ...] = ()
    reason: str | None = None
    first_day: datetime.date | None = None
    last_day: datetime.date | None = None
    unit_id: int | None = None
    erased: int = 0  # rows of erased callers among those read


def land(
    settings: Settings, source: str, paths: Sequence[Path | str], progress: Progress | None = None
) -> list[UnitResult]:
    """Land files of feed `source`, one after the other. A refused file does not stop the others.

    A folder among `paths` stands for the files in it, an address (`s3://bucket/prefix`, a table's
    or a paged interface's) for what lies there. Without any, what is due at the feed's locations.
    """
    feed = registry.feed(settings, source)
    if not paths:
        if not registry.locations(feed):
            raise CallhouseError(f"{feed.file.name} names no location: name the files to land")
        return land_location(settings, source, progress)
    with warehouse.connect(settings) as connection:
        registry.register(connection, feed)
    results: list[UnitResult] = []
    for path in paths:
        if isinstance(path, str) and object_storage.is_address(path):
            storage = registry.remote(settings, feed, path)
            results += _land_objects(settings, feed, storage, storage.files(path), progress)
        else:
            whole = Path(path)
            folder = sorted(f for f in whole.iterdir() if f.is_file()) if whole.is_dir() else None
            files = [whole] if folder is None else folder
            results += [_land_file(settings, feed, file, progress) for file in files]
    return results


def _land_objects(
    settings: Settings, feed: Feed, storage: object_storage.Remote,
    wanted: Iterable[object_storage.RemoteFile], progress: Progress | None,
) -> list[UnitResult]:  # fmt: skip
    """Land copies of objects. One that cannot be read keeps no other away; the next look tries it.

    What was looked at is remembered for `land_location`.
    """
    results: list[UnitResult] = []
    in_vain = 0
    for found in wanted:
        with ExitStack() as stack:
            try:
                path = stack.enter_context(storage.fetched(found))
            except CallhouseError as problem:
                in_vain += 1
                # Or it is the storage, and not the object. A table is asked from the newest day
                # on: what is passed over would never be asked for again.
                if in_vain == MOST_IN_VAIN or object_storage.is_table(found.address):
                    raise
                results.append(UnitResult(feed.name, "", found.name, REFUSED, reason=str(problem)))
                continue
            in_vain = 0
            result = _land_file(settings, feed, path, progress, is_latest=found.is_latest)
        results.append(result)
        if result.unit_id is not None:  # else not even the refusal could be recorded
            with warehouse.connect(settings) as connection:
                connection.execute(
                    "insert into ops.landed_objects (source, address, version, unit_id) "
                    "values (%s, %s, %s, %s) on conflict (source, address) do update "
                    "set version = excluded.version, unit_id = excluded.unit_id",
                    [feed.name, found.address, found.version, result.unit_id],
                )
    return results


def _land_file(
    settings: Settings, feed: Feed, path: Path, progress: Progress | None,
    *, is_latest: bool = False,
) -> UnitResult:  # fmt: skip
    record, inspection = "", None
    try:
        record = feed.record_for(path.name).name
        with feed.open(path) as file:
            inspection = file.inspect()
            with warehouse.connect(settings) as connection:
                unit = Unit(settings, connection, feed, file, progress, is_latest=is_latest)
                return unit.land(inspection)
    except OSError as error:
        return UnitResult(
            feed.name,
            record,
            path.name,
            REFUSED,
            reason=f"{path}: {error.strerror or error}: check the path and its permissions",
        )
    except ChangedError as change:
        # No entry: it comes again, by itself, once for each time that it has changed.
        return UnitResult(feed.name, record, path.name, "unfinished", reason=str(change))
    except RefusedError as refusal:
        return _record_refusal(settings, feed, record, path, inspection, str(refusal))


def _record_refusal(
    settings: Settings, feed: Feed, record: str, path: Path, inspection: Inspection | None,
    reason: str,
) -> UnitResult:  # fmt: skip
    with warehouse.connect(settings) as connection:
        row = warehouse.one(
            connection,
            "insert into ops.units "
            "(source, record, name, content_hash, size_bytes, status, reason) "
            "values (%s, %s, %s, %s, %s, 'refused', %s) returning unit_id",
            [feed.name, record, path.name, inspection.content_hash if inspection else "",
             path.stat().st_size, store.printable(reason)],
        )  # fmt: skip
    return UnitResult(feed.name, record, path.name, "refused", reason=reason, unit_id=row[0])


@dataclass
class _Hashes:
    """64-bit hashes of a file's rows: whether some row may be there twice."""

    parts: list[pl.Series] = field(default_factory=list)
    rows: int = 0

    def add(self, part: pl.Series) -> None:
        """Take the hashes of a block; of a very long file they are forgotten."""
        self.rows += part.len()
        self.parts.append(part)
        if self.rows > MOST_HASHES:
            self.parts.clear()

    @property
    def may_repeat(self) -> bool:
        """By chance (once in 10⁷ files of a million rows), or where too many came to remember."""
        if self.rows > MOST_HASHES:
            return True
        whole = pl.concat(self.parts) if self.parts else pl.Series([], dtype=pl.UInt64)
        return bool(whole.n_unique() < whole.len())


@dataclass
class _Tally:
    """Running totals of one file."""

    read: int = 0
    rejected: int = 0
    copied: int = 0
    header_rows: int = 0
    blank_lines: int = 0
    first_rejected: Rejected | None = None
    days: Counter[datetime.date] = field(default_factory=Counter)  # rows by business day
    older_days: set[datetime.date] = field(default_factory=set)
    newest_event: int | None = None  # microseconds since 1970, of records that reach other days
    members: dict[str, set[str]] = field(default_factory=dict)
    # They decide whether the settling SQL has to look for repeated rows and keys.
    hashes: _Hashes = field(default_factory=_Hashes)
    keys: _Hashes = field(default_factory=_Hashes)


class Unit:
    """One file on its way into the warehouse, inside one transaction of `connection`."""

    def __init__(
        self, settings: Settings, connection: psycopg.Connection, feed: Feed, file: Reader,
        progress: Progress | None = None, *, kind: str = "file", is_latest: bool = False,
        connections: Connections | None = None,
    ) -> None:  # fmt: skip
        # file | tail (lines of one that grows) | push | page (an interval of an interface)
        self.kind = "page" if is_latest else kind
        self.settings, self.connection, self.is_latest = settings, connection, is_latest
        self.connections = connections  # that `connection` is of, with others that stay
        self.feed, self.file = feed, file
        self.record: Record = file.record
        self.free = (*self.record.free, ISSUES)
        self.progress = progress
        self.callers: Callers  # from `lock` on
        self.tally = _Tally()
        self.unit_id = 0

    def lock(self) -> None:
        """One landing per source at a time: what is staged must not change under a comparison."""
        self.connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"land {self.feed.name}"]
        )
        keys = hold_keys(self.connection)
        cold.hold(self.connection)
        self.callers = Callers(self.settings, self.feed.name, self.file.caller, keys)

    def thaw(self, days: Iterable[datetime.date]) -> None:
        """Read back what is archived of days that are about to be compared or written."""
        if self.record.partitioned:
            cold.thaw(self.settings, self.connection, days, reach=store.PLAN_DAYS)

    def land(self, inspection: Inspection) -> UnitResult:
        """Land the file; the caller commits by leaving the connection's block."""
        self.lock()
        if self.is_latest:
            inspection = self._after_the_last(inspection)
        if earlier := self._earlier(inspection):
            return earlier
        self.unit_id = self._open_entry(inspection)
        self.copy_all(self.file.batches(inspection))
        tally = self.tally
        is_nothing_read = tally.copied == 0 and tally.rejected >= WRONG_MAPPING_ROWS
        # Lines of a file that grows tell nothing of the whole: they are set aside.
        if is_nothing_read and tally.first_rejected and self.kind == "file":
            raise RefusedError(
                f"{self.file.name}: none of its {tally.read} rows can be read; the first: "
                f"{tally.first_rejected.reason}; correct {self.feed.file.name} or the export"
            )
        if not self.file.is_unchanged(inspection):
            raise ChangedError(
                f"{self.file.name} changed while it was read: land it again when it is complete"
            )
        found = self.gather()
        days, settlement = found.days, self.settle(found)
        store.count_days(
            self.connection,
            self.record,
            self.unit_id,
            found.rows,
            has_changed=settlement.duplicates > 0,
        )
        store.save_members(self.connection, self.feed.name, tally.members)
        store.save_roster(
            self.connection, self.record, self.feed.name, settlement.days | found.moved | days
        )
        changed = self.shaped(settlement.days | found.moved)
        store.mark_dirty(
            self.connection, self.record, self.feed.name, self.unit_id, changed,
            f"landed {self.record.name}",
        )  # fmt: skip
        state.move(
            self.connection, self.record, self.feed.name, self.unit_id, days | found.moved
        )  # fmt: skip
        return self._close_entry(sorted(days), settlement)

    def gather(self) -> heads.Gathering:
        """Put the copied rows into the days of their calls, where they are events of calls."""
        tally = self.tally
        if self.record.heads is None:
            return heads.Gathering(tally.days, tally.older_days, moved=set())
        links.relabel(
            self.connection, self.record, self.feed.name, self.unit_id, set(tally.days), self.thaw
        )
        with ExitStack() as stack:
            side = self._side(stack)
            return heads.gather(
                self.connection,
                {
                    table: store.Partitions(side, table, is_live=self.is_live)
                    for table in self.record.heads_of or (self.record.table,)
                },
                self.record,
                self.feed,
                self.unit_id,
                tally.days,
                tally.older_days,
                self.thaw,
            )

    def settle(self, found: heads.Gathering, *, is_newest: bool = True) -> store.Settlement:
        """Settle the copied rows against each other and against older ones."""
        return store.settle(
            self.connection,
            self.record,
            self.feed.name,
            self.unit_id,
            found.days,
            found.older_days,
            has_same_rows=self.tally.hashes.may_repeat,
            has_same_keys=self.tally.keys.may_repeat,
            is_newest=is_newest,
            is_latest=self.is_latest,
            is_small=self.tally.copied <= store.SMALL_UNIT_ROWS,
        )

    def shaped(self, changed: set[datetime.date]) -> set[datetime.date]:
        """The days whose facts are other ones now."""
        if self.tally.newest_event is None:
            return changed
        newest = store.extend_newest_event(
            self.connection,
            self.feed.name,
            EPOCH + datetime.timedelta(microseconds=self.tally.newest_event),
        )
        return store.shaped_days(changed, self.record.reach_days, self.feed.time_zone, newest)

    def _after_the_last(self, inspection: Inspection) -> Inspection:
        """The same with a hash that only the last unit of the name may share.

        What goes back to an older content has changed, and so have names of one content.
        """
        last = self.connection.execute(
            "select unit_id, content_hash from ops.units where source = %s and record = %s "
            "and name = %s and status = 'landed' order by unit_id desc limit 1",
            [self.feed.name, self.record.name, self.file.name],
        ).fetchone()
        unit_id, content = last or (self.file.name, "")
        if content.partition(" ")[0] == inspection.content_hash:
            return replace(inspection, content_hash=content)
        return replace(inspection, content_hash=f"{inspection.content_hash} after {unit_id}")

    def _earlier(self, inspection: Inspection) -> UnitResult | None:
        row = self.connection.execute(
            "select unit_id, read_rows, header_rows, name, first_day, last_day from ops.units "
            "where source = %s and record = %s and content_hash = %s and status = 'landed'",
            [self.feed.name, self.record.name, inspection.content_hash],
        ).fetchone()
        if row is None:
            return None
        unit_id, read, header_rows, name, first_day, last_day = row
        if name != self.file.name:  # capture asks for the files of each day by their names
            self.connection.execute(
                "insert into ops.unit_names (unit_id, name) values (%s, %s) on conflict do nothing",
                [unit_id, self.file.name],
            )
        return UnitResult(
            self.feed.name,
            self.record.name,
            self.file.name,
            "already_landed",
            read=read,
            duplicates=read,
            header_rows=header_rows,
            notes=(f"the same content was landed as {name}, unit {unit_id}",),
            first_day=first_day,
            last_day=last_day,
            unit_id=unit_id,
        )

    def _open_entry(self, inspection: Inspection) -> int:
        row = warehouse.one(
            self.connection,
            "insert into ops.units "
            "(kind, source, record, feed, name, content_hash, size_bytes, status) "
            "values (%s, %s, %s, %s, %s, %s, %s, 'landed') returning unit_id",
            [self.kind, self.feed.name, self.record.name, self.feed.file.stem, self.file.name,
             inspection.content_hash, inspection.size_bytes],
        )  # fmt: skip
        return int(row[0])

    def copy_all(self, batches: Iterator[Batch]) -> None:
        """Parse one block and encode another while the server takes a third."""
        with ExitStack() as stack:
            side, for_callers = self._side(stack), self._side(stack, 1)
            if self.record.heads:
                heads.begin(self.connection)
            writer, keeper = (stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2))
            partitions = store.Partitions(side, self.record.table, is_live=self.is_live)
            sending: Future[None] | None = None
            saving: Future[None] | None = None
            reader = stack.enter_context(ThreadPoolExecutor(1))
            for batch in _ahead(batches, reader):
                rows = self.count(batch, side)
                if saving:
                    saving.result()
                saving = keeper.submit(self.save_callers, for_callers, self.callers.take_found())
                if self.record.partitioned:
                    partitions.ensure(self.tally.days)
                blocks = []
                if rows.height:
                    blocks = [store.encode(rows, self.record, self.feed.name, self.unit_id),
                              heads.first_events(rows, self.record)]  # fmt: skip
                if sending:
                    sending.result()
                sending = writer.submit(self._send, blocks, batch.rejected)
                if self.progress:
                    self.progress(self.file.name, self.tally.read, batch.position)
            if sending:
                sending.result()
            if saving:
                saving.result()

    @property
    def is_live(self) -> bool:
        """Whether more of the same day comes every moment."""
        return self.kind in ("tail", "push")

    def _side(self, stack: ExitStack, number: int = 0) -> psycopg.Connection:
        """A connection that commits at once, besides the one in whose transaction rows land."""
        if self.connections:
            return self.connections.side(number)
        return stack.enter_context(warehouse.connect(self.settings, autocommit=True))

    def _send(self, blocks: list[tuple[str, bytes]], rejected: list[Rejected]) -> None:
        for statement, data in blocks:
            if data:
                store.copy(self.connection, statement, data)
        self.set_aside(rejected)

    def save_callers(self, connection: psycopg.Connection, found: list[Found]) -> None:
        """Add callers that are not known yet, ahead of their rows."""
        store.save_callers(connection, found, self.callers.keys.token)

    def set_aside(self, rejected: list[Rejected]) -> None:
        """Keep what could not be read."""
        store.quarantine(
            self.connection, self.unit_id, rejected, self.callers.cipher,
            callers_are_ids=self.callers_are_ids,
        )  # fmt: skip

    @property
    def callers_are_ids(self) -> bool:
        """Whether callers are ids of any shape, not telephone numbers."""
        return self.file.caller is not None and self.file.caller.country is None

    def count(self, batch: Batch, side: psycopg.Connection) -> pl.DataFrame:
        """Add a batch to the totals; returns its rows without callers and redacted."""
        tally, rows = self.tally, batch.rows
        tally.read += batch.read
        tally.header_rows += batch.header_rows
        tally.blank_lines += batch.blank_lines
        tally.rejected += len(batch.rejected)
        tally.copied += rows.height
        if tally.first_rejected is None and batch.rejected:
            tally.first_rejected = min(batch.rejected, key=lambda row: row.line_number)
        country = self.file.caller.country if self.file.caller else None
        rows = redaction.redact_rows(rows, self.free, country)
        if self.record.has_caller:
            rows = self.callers.replace(rows)
        for item in self.record.fields:
            if item.member:
                codes = rows.get_column(item.name).unique().drop_nulls().to_list()
                tally.members.setdefault(item.member, set()).update(codes)
        if self.record.reach_days and rows.height:
            newest = int(rows.select(pl.col("event_at").max()).item())
            tally.newest_event = max(newest, tally.newest_event or newest)
        counts = dict(rows.get_column(self.record.day).value_counts().iter_rows())
        days = set(counts) - set(tally.days)
        tally.days.update(counts)
        if days:
            if self.record.partitioned:  # not on the connection on which a block is being sent
                cold.thaw(self.settings, side, days, reach=store.PLAN_DAYS)
            # `side` sees committed rows only: those of other units.
            around = days
            if self.record.partitioned:
                around = {day + shift * store.ONE_DAY for day in days for shift in (-1, 0, 1)}
            tally.older_days |= store.days_with_rows(
                side, self.record.table, self.record.day, self.feed.name, around
            )
        tally.hashes.add(rows.get_column("row_hash").hash())
        if self.record.key:
            tally.keys.add(rows.select(pl.struct(self.record.key).hash()).to_series())
        return rows

    def _close_entry(self, days: list[datetime.date], settlement: store.Settlement) -> UnitResult:
        tally, notes = self.tally, list(self.file.notes)
        if tally.blank_lines:
            notes.append(f"{tally.blank_lines} blank lines skipped")
        if settlement.repeated:
            notes.append(
                f"{settlement.repeated} rows repeat a key of this file with other content: "
                + ("kept as calls of their own (~2, ~3 …)"
                   if self.record.partitioned and not self.record.last_counts
                   else "the last of each counts")
            )  # fmt: skip
        if settlement.superseded:
            notes.append(f"{settlement.superseded} earlier rows are superseded by newer versions")
        staged = tally.copied - settlement.duplicates
        result = UnitResult(
            self.feed.name,
            self.record.name,
            self.file.name,
            "landed",
            read=tally.read,
            staged=staged,
            quarantined=tally.rejected,
            duplicates=settlement.duplicates,
            header_rows=tally.header_rows,
            notes=tuple(notes),
            first_day=days[0] if days else None,
            last_day=days[-1] if days else None,
            unit_id=self.unit_id,
            erased=self.callers.erased_rows,
        )
        self.connection.execute(
            "update ops.units set read_rows = %s, staged_rows = %s, quarantined_rows = %s, "
            "duplicate_rows = %s, header_rows = %s, first_day = %s, last_day = %s, notes = %s, "
            "layout = %s where unit_id = %s",
            [result.read, staged, result.quarantined, result.duplicates, result.header_rows,
             result.first_day, result.last_day, [store.printable(note) for note in notes],
             Jsonb(self.file.layout), self.unit_id],
        )  # fmt: skip
        return result


def _ahead(batches: Iterator[Batch], reader: ThreadPoolExecutor) -> Iterator[Batch]:
    """`batches`, the next one already in the making."""
    coming: Future[Batch | None] = reader.submit(next, batches, None)
    while batch := coming.result():
        coming = reader.submit(next, batches, None)
        yield batch


# ------------------------------------------------------------------------------ drop folders
def inbox(settings: Settings, feed: str) -> list[Path]:
    """Complete files in the feed's drop folder: old enough, and of the same size twice."""
    folder = settings.inbox / feed
    if not folder.is_dir():
        return []
    seen = {path: status for path in sorted(folder.iterdir()) if (status := _ready(path))}
    if seen:
        time.sleep(0.2)
    return [path for path, status in seen.items() if _ready(path) == status]


def _ready(path: Path) -> tuple[int, int] | None:
    if path.name.startswith((".", "~")) or path.name.lower().endswith(UNFINISHED):
        return None
    try:
        if not path.is_file():
            return None
        status = path.stat()
    except OSError:
        return None
    if time.time() - status.st_mtime < STABLE_SECONDS:
        return None
    return status.st_size, status.st_mtime_ns


def land_inbox(settings: Settings, feed: str, progress: Progress | None = None) -> list[UnitResult]:
    """Land what is complete in the drop folder; move files to the archive or to `refused/`.

    A kill between landing and moving is harmless: the file is found again, is already landed,
    and is moved then. What turns out to be still written stays until it is complete. That it has
    looked to the end is a heartbeat, also where nothing lay there.
    """
    _take_back_grown(settings, feed)
    results: list[UnitResult] = []
    for path in inbox(settings, feed):
        result = land(settings, feed, [path], progress)[0]
        results.append(result)
        # What could not even be read (a share that is away) has no entry, and stays as well.
        if result.unit_id is not None:
            refused = settings.inbox / feed / REFUSED
            if result.erased or result.status == "already_landed":
                from callhouse.security import erasure

                erasure.hide_again(settings, feed, path)
            _move(path, refused if result.status == REFUSED else settings.archive / feed)
    results += land_location(settings, feed, progress)
    capture.looked(settings, registry.feed(settings, feed), f"{len(results)} files")
    return results


def _take_back_grown(settings: Settings, feed: str) -> None:
    """Back into the drop folder with archived files that were written to since.

    An upload that stalls looks complete. When it goes on, it writes into the archive: that sets
    both of the file's times, while moving it has set only the time of its change.
    """
    folder = settings.archive / feed
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        status = entry.stat()
        home = settings.inbox / feed / entry.name
        is_grown = status.st_ctime - status.st_mtime < STABLE_SECONDS / 2
        if is_grown and time.time() - status.st_mtime < GROWING_SECONDS and not home.exists():
            home.parent.mkdir(parents=True, exist_ok=True)
            entry.rename(home)


def land_location(
    settings: Settings, feed: str, progress: Progress | None = None
) -> list[UnitResult]:
    """Land what is new at the feed's locations, or has changed since it was read.

    Nothing is moved or written there. What was refused is tried again when it changes, or by
    `land` with its address. A location that cannot be read keeps no other away.
    """
    found = registry.feed(settings, feed)
    results: list[UnitResult] = []
    problems: list[CallhouseError] = []
    for address in registry.locations(found):
        try:
            results += _land_new(settings, found, address, progress)
        except CallhouseError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]
    return results


def _land_new(
    settings: Settings, found: Feed, address: str, progress: Progress | None
) -> list[UnitResult]:
    storage = registry.remote(settings, found, address)
    with warehouse.connect(settings) as connection:
        registry.register(connection, found)
        known = set(
            connection.execute(
                "select address, version from ops.landed_objects where source = %s", [found.name]
            ).fetchall()
        )
        # Of what was read, not of what lies there: a first look that broke off goes on from here.
        (newest,) = warehouse.one(
            connection,
            "select max(u.last_day) from ops.landed_objects as o "
            "inner join ops.units as u on o.unit_id = u.unit_id "
            # Plans reach ahead of everything else.
            "where o.source = %s and starts_with(o.address, %s) and u.record <> 'schedules'",
            [found.name, address.rstrip("/") + "/"],
        )
    new = (
        item
        for item in storage.files(address, newest and newest - LOOK_BACK)
        if (item.address, item.version) not in known
    )
    return _land_objects(settings, found, storage, new, progress)


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    number = 1
    while target.exists():  # an archive never overwrites: the same name may hold other calls
        number += 1
        target = folder / f"{path.name}.{number}"
    try:
        shutil.move(path, target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CallhouseError(
            f"{path} cannot be moved to {folder} ({error.strerror}): give the service account "
            "write access to both folders"
        ) from None
