"""Old days of staging as Parquet files, and back: what was read back is what was there.

A partition is dropped in the transaction that records its file, after the file was read back from
disk and compared. Whoever reads or writes staging holds (`hold`) and reads back (`thaw`) first.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

ONE_DAY = datetime.timedelta(days=1)
# Younger days are read by capture health and the live floor, and late rows come for them.
YOUNGEST_DAYS = 90
# Removal by age looks a week back (callhouse.security.retention); so that it reads nothing back.
AFTER_RETENTION = datetime.timedelta(days=14)
# Detaching stops every reader of the table: rather another time than a queue behind a long query.
LOCK_TIMEOUT = "2s"
PATIENCE = 5.0  # seconds
IN_USE = "staging is in use"
BLOCK = 32 << 20
PARTITION = re.compile(r"(.+)_(\d{4})_(\d{2})_(\d{2})")
# How a column comes out of a text, by its type; others stay the text that PostgreSQL writes.
PLAIN = {
    "bigint": pl.Int64, "integer": pl.Int32, "smallint": pl.Int16, "date": pl.Date,
    "timestamp with time zone": pl.Datetime("us", "UTC"), "boolean": pl.Boolean,
    "double precision": pl.Float64, "bytea": pl.Binary,
}  # fmt: skip


@dataclass(frozen=True)
class Archived:
    """One partition in a file."""

    table: str
    business_day: datetime.date
    file: str  # below `settings.cold`
    rows: int
    bytes: int
    checksum: str
    sha256: str
    columns: dict[str, str]  # name → type, in their order
    archived_at: datetime.datetime
    archived_by: str


@dataclass(frozen=True)
class Moved:
    """A partition that was archived or read back, or would be; `problem`: why it was not."""

    table: str
    business_day: datetime.date
    rows: int = 0
    bytes: int = 0  # of the file
    table_bytes: int = 0  # in PostgreSQL
    problem: str | None = None


# ------------------------------------------------------------------------------ locks
def hold(connection: psycopg.Connection) -> None:
    """Until the transaction ends no day goes into the archive: what was read back stays.

    Archiving only tries for the lock, so nobody ever waits for one who waits.
    """
    connection.execute("select pg_advisory_xact_lock_shared(hashtextextended('cold staging', 0))")


def days_archived(connection: psycopg.Connection) -> set[datetime.date]:
    """Days of which some table lies in the archive."""
    rows = connection.execute(
        "select distinct business_day from ops.staging_archives where restored_at is null"
    )
    return {day for (day,) in rows}


def archived(settings: Settings) -> list[Archived]:
    """What lies in the archive."""
    with warehouse.connect(settings) as connection:
        return _archived(connection, None)


def _archived(
    connection: psycopg.Connection, days: Iterable[datetime.date] | None
) -> list[Archived]:
    rows = connection.execute(
        "select table_name, business_day, file, row_count, file_bytes, checksum, sha256, columns, "
        "archived_at, archived_by from ops.staging_archives where restored_at is null "
        "and (%(days)s::date[] is null or business_day = any(%(days)s)) "
        "order by business_day, table_name",
        {"days": None if days is None else sorted(days)},
    ).fetchall()
    return [Archived(*row) for row in ((*row[:7], dict(row[7]), *row[8:]) for row in rows)]


# ------------------------------------------------------------------------------ reading back
def thaw(
    settings: Settings, connection: psycopg.Connection,
    days: Iterable[datetime.date] | None = None, *, reach: int = 0,
) -> list[Moved]:  # fmt: skip
    """Read back what is archived of `days` (None: of all), and of `reach` days around them.

    On a connection of its own that commits; `connection`, which only asks, should `hold` before.
    CallhouseError where a file is missing or damaged: that day stays as it is.
    """
    found = days_archived(connection)
    if days is not None:
        shifts = range(-reach, reach + 1)
        found &= {day + shift * ONE_DAY for day in days for shift in shifts}
    # Where all are asked for, no file may be left either.
    return restore(settings, found) if found or days is None else []


def restore(settings: Settings, days: Iterable[datetime.date] | None = None) -> list[Moved]:
    """Read archived days (None: all) back into staging; each partition in one transaction.

    Its file goes after the commit. One that a kill leaves is removed by the next call.
    """
    with warehouse.connect(settings) as connection:
        wanted = _archived(connection, days)
    moved = []
    for item in wanted:
        with warehouse.connect(settings) as connection:
            is_back = _restore(settings, connection, item)
        if is_back:
            moved.append(Moved(item.table, item.business_day, item.rows, item.bytes))
    sweep(settings)
    return moved


def _restore(settings: Settings, connection: psycopg.Connection, item: Archived) -> bool:
    """Read one partition back; whether nobody else has meanwhile."""
    parent = sql.Identifier("staging", item.table)
    partition = sql.Identifier("staging", f"{item.table}_{item.business_day:%Y_%m_%d}")
    _one_at_a_time(connection)
    if item not in _archived(connection, [item.business_day]):
        return False
    frame = _read(settings, item)
    there = _columns(connection, item.table)
    for name, kind in item.columns.items():
        if there.get(name) != kind:
            raise CallhouseError(
                f"{item.file}: column {name} was {kind} when it was archived and is "
                f"{there.get(name, 'gone')} now: nothing was changed"
            )
    # The file goes after the commit, which a crash must not take back then.
    connection.execute("set local synchronous_commit = on")
    connection.execute("set local role callhouse_owner")
    connection.execute(sql.SQL("create table {} (like {} including all)").format(partition, parent))
    _fill(connection, partition, item.columns, frame)
    if _checksum(connection, partition, item.columns) != (item.rows, item.checksum):
        raise CallhouseError(
            f"{item.file}: its rows are not those that were archived: nothing was changed"
        )
    connection.execute(
        sql.SQL("alter table {} attach partition {} for values from ({}) to ({})").format(
            parent, partition, sql.Literal(item.business_day),
            sql.Literal(item.business_day + ONE_DAY),
        )
    )  # fmt: skip
    connection.execute(sql.SQL("analyze {}").format(partition))
    connection.execute(
        "update ops.staging_archives set restored_at = now() "
        "where table_name = %s and business_day = %s",
        [item.table, item.business_day],
    )
    return True


def _read(settings: Settings, item: Archived) -> pl.DataFrame:
    """The rows of a file, which is the very one that was written."""
    path = settings.cold / item.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CallhouseError(
            f"{path}, where {item.rows} rows of {item.business_day} lie, cannot be read "
            f"({error.strerror}): nothing was changed; restore the file from a backup"
        ) from None
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise CallhouseError(
            f"{path}, where {item.rows} rows of {item.business_day} lie, is not as it was "
            "written: nothing was changed; restore the file from a backup"
        )
    return pl.read_parquet(io.BytesIO(content))


# ------------------------------------------------------------------------------ archiving
def archive(
    settings: Settings, before: datetime.date, by: str, *, is_dry: bool = False
) -> list[Moved]:
    """Archive every finished day before `before`; each partition in one transaction.

    Finished: published in both lanes and neither dirty nor held, nothing being built, and older
    than YOUNGEST_DAYS and than what retention still takes from rows. Nothing is built while a
    partition is written, and nothing lands while it goes; where something is on its way, the
    partition is left for another time.
    """
    from callhouse import transform

    before = min(before, newest_before(settings))
    moved = []
    with warehouse.connect(settings) as connection:
        wanted = _due(connection, before)
    for table, day in wanted:
        if is_dry:
            with warehouse.connect(settings) as connection:
                moved.append(_size(connection, table, day))
            continue
        with transform.standstill(settings):
            moved.append(_archive(settings, table, day, before, by))
        if moved[-1].problem == IN_USE:
            break  # a file that lands takes its time; the others are left as well
    if not is_dry:
        sweep(settings)
    return [item for item in moved if item.rows or item.problem]


def newest_before(settings: Settings, today: datetime.date | None = None) -> datetime.date:
    """The first day that may not be archived, whatever is asked for."""
    from callhouse.security import retention

    today = today or datetime.datetime.now(datetime.UTC).date()
    kept = retention.days_kept(settings)
    first = today - YOUNGEST_DAYS * ONE_DAY
    for name in ("callers", "free_text"):
        days = kept[name]
        if days is not None:
            first = min(first, today - days * ONE_DAY - AFTER_RETENTION)
    return first


def _due(connection: psycopg.Connection, before: datetime.date) -> list[tuple[str, datetime.date]]:
    """Partitions of finished days, oldest first."""
    is_open = connection.execute(
        "select from ops.builds where status in ('claimed', 'built', 'audited') limit 1"
    ).fetchone()
    if is_open is not None:
        return []
    finished = {
        day for (day,) in connection.execute(
            "select f.business_day from ops.lane_status as f where f.lane = 'facts' "
            "and f.status in ('complete', 'restated') and f.business_day < %s "
            "and not exists (select from ops.lane_status as u "
            "where u.business_day = f.business_day and u.status in ('held', 'provisional')) "
            "and not exists (select from ops.dirty_marks as d "
            "where d.business_day between f.business_day - 1 and f.business_day + 1)",
            [before],
        )
    }  # fmt: skip
    names = connection.execute(
        "select p.relname, c.relname from pg_inherits as i "
        "inner join pg_class as p on i.inhparent = p.oid "
        "inner join pg_class as c on i.inhrelid = c.oid "
        "where p.relnamespace = 'staging'::regnamespace order by p.relname, c.relname"
    ).fetchall()
    due = []
    for table, name in names:
        found = PARTITION.fullmatch(name)
        if found and found[1] == table:
            day = datetime.date(*map(int, found.groups()[1:]))
            if day in finished:
                due.append((table, day))
    return sorted(due, key=lambda one: (one[1], one[0]))


def _size(connection: psycopg.Connection, table: str, day: datetime.date) -> Moved:
    name = sql.Identifier("staging", f"{table}_{day:%Y_%m_%d}")
    row = warehouse.one(
        connection,
        sql.SQL("select count(*), pg_total_relation_size({}) from {}")
        .format(sql.Literal(name.as_string(None)), name)
        .as_string(None),
    )
    return Moved(table, day, rows=int(row[0]), table_bytes=int(row[1]))


def _archive(
    settings: Settings, table: str, day: datetime.date, before: datetime.date, by: str
) -> Moved:
    with warehouse.connect(settings) as connection:
        try:
            return _move(settings, connection, table, day, before, by)
        except psycopg.errors.LockNotAvailable:
            problem = "the table is being read"
        except (pl.exceptions.PolarsError, psycopg.DataError) as error:
            problem = "its rows cannot be written: " + " ".join(str(error).split())[:200]
        except OSError as error:
            raise CallhouseError(
                f"{settings.cold} cannot be written to ({error.strerror}): {table} of {day} stays "
                "in staging"
            ) from None
        return _undone(connection, table, day, problem)


def _move(
    settings: Settings, connection: psycopg.Connection, table: str, day: datetime.date,
    before: datetime.date, by: str,
) -> Moved:  # fmt: skip
    """One partition into its file; the caller commits."""
    partition = sql.Identifier("staging", f"{table}_{day:%Y_%m_%d}")
    file = f"{table}/{day}.parquet"
    path = settings.cold / file
    connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    _one_at_a_time(connection)
    if (table, day) not in _due(connection, before):
        return Moved(table, day, problem="it is not finished, or something is built")
    connection.execute(sql.SQL("lock table {} in exclusive mode").format(partition))
    size = _size(connection, table, day)
    if not size.rows:
        return size
    columns = _columns(connection, table)
    wanted = _checksum(connection, partition, columns)
    _write(path, pl.concat(list(_rows(connection, partition, columns))))
    content = path.read_bytes()
    # What counts is what lies on the disk, as the server understands it.
    connection.execute(
        sql.SQL(
            "create temporary table read_back (like {}) on commit drop"
        ).format(partition)
    )  # fmt: skip
    back = sql.Identifier("pg_temp", "read_back")
    _fill(connection, back, columns, pl.read_parquet(io.BytesIO(content)))
    if _checksum(connection, back, columns) != wanted:
        return _undone(connection, table, day, "its rows come back as others")
    # From here on nobody lands, and whoever asked before whether the day is here is done.
    if not _alone(connection):
        return _undone(connection, table, day, IN_USE)
    if (table, day) not in _due(connection, before):
        return _undone(connection, table, day, "it has changed meanwhile")
    connection.execute(
        "insert into ops.staging_archives (table_name, business_day, file, row_count, "
        "file_bytes, checksum, sha256, columns, archived_by) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "on conflict (table_name, business_day) do update set file = excluded.file, "
        "row_count = excluded.row_count, file_bytes = excluded.file_bytes, "
        "checksum = excluded.checksum, sha256 = excluded.sha256, "
        "columns = excluded.columns, archived_at = now(), "
        "archived_by = excluded.archived_by, restored_at = null",
        [table, day, file, wanted[0], len(content), wanted[1],
         hashlib.sha256(content).hexdigest(), Jsonb(list(columns.items())), by],
    )  # fmt: skip
    connection.execute("set local role callhouse_owner")
    connection.execute(
        sql.SQL("alter table {} detach partition {}").format(
            sql.Identifier("staging", table), partition
        )
    )
    connection.execute(sql.SQL("drop table {}").format(partition))
    return Moved(table, day, wanted[0], len(content), size.table_bytes)


def _alone(connection: psycopg.Connection) -> bool:
    """Whether nobody holds (`hold`) now, nor can before the transaction ends.

    Tried again for a while: the live floor lands all the time, but never for long.
    """
    until = time.monotonic() + PATIENCE
    while True:
        (is_free,) = warehouse.one(
            connection, "select pg_try_advisory_xact_lock(hashtextextended('cold staging', 0))"
        )
        if is_free or time.monotonic() > until:
            return bool(is_free)
        time.sleep(0.02)


def _undone(connection: psycopg.Connection, table: str, day: datetime.date, problem: str) -> Moved:
    connection.rollback()
    return Moved(table, day, problem=problem)


def _one_at_a_time(connection: psycopg.Connection) -> None:
    connection.execute("select pg_advisory_xact_lock(hashtextextended('cold files', 0))")


def sweep(settings: Settings) -> None:
    """Remove files that no row tells of: what a kill or a reading back has left."""
    if not settings.cold.is_dir():
        return
    with warehouse.connect(settings) as connection:
        _one_at_a_time(connection)  # a file that is being written has no row yet
        known = {item.file for item in _archived(connection, None)}
        for path in settings.cold.glob("*/*"):
            if str(path.relative_to(settings.cold)) not in known:
                path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------ rows
def _columns(connection: psycopg.Connection, table: str) -> dict[str, str]:
    rows = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = format('staging.%%I', %s::text)::regclass and attnum > 0 "
        "and not attisdropped order by attnum",
        [table],
    )
    return dict(rows.fetchall())


def _as_always(connection: psycopg.Connection) -> None:
    """Texts of values do not depend on a server's settings."""
    for name, value in (
        ("timezone", "UTC"), ("datestyle", "ISO"), ("intervalstyle", "iso_8601"),
        ("bytea_output", "hex"), ("extra_float_digits", "1"),
    ):  # fmt: skip
        connection.execute("select set_config(%s, %s, true)", [name, value])


def _checksum(
    connection: psycopg.Connection, relation: sql.Identifier, columns: dict[str, str]
) -> tuple[int, str]:
    """Rows, and a sum over all their values that does not depend on the rows' order.

    Of md5, which is the same in every version of the server.
    """
    _as_always(connection)
    names = sql.SQL(", ").join(sql.Identifier("t", name) for name in columns)
    count, checksum = connection.execute(
        sql.SQL(
            "select count(*), coalesce(sum(('x' || left(h, 16))::bit(64)::bigint::numeric), 0) "
            "|| ':' || coalesce(sum(('x' || right(h, 16))::bit(64)::bigint::numeric), 0) "
            "from (select md5(row({})::text) as h from {} as t) as hashed"
        ).format(names, relation)
    ).fetchone() or (0, "")
    return int(count), str(checksum)


def _rows(
    connection: psycopg.Connection, partition: sql.Identifier, columns: dict[str, str]
) -> Iterator[pl.DataFrame]:
    _as_always(connection)
    values = [
        sql.SQL("(extract(epoch from {}) * 1000000)::bigint" if kind.startswith("timestamp with t")
                else "encode({}, 'hex')" if kind == "bytea" else "{}").format(sql.Identifier(name))
        for name, kind in columns.items()
    ]  # fmt: skip
    statement = sql.SQL("copy (select {} from {}) to stdout (format csv, force_quote *)").format(
        sql.SQL(", ").join(values), partition
    )
    with connection.cursor() as cursor, cursor.copy(statement) as stream:
        block = bytearray()
        for row in stream:  # whole rows: the server sends each by itself
            block += row
            if len(block) >= BLOCK:
                yield _frame(bytes(block), columns)
                block.clear()
        if block:
            yield _frame(bytes(block), columns)


def _frame(block: bytes, columns: dict[str, str]) -> pl.DataFrame:
    texts = pl.read_csv(
        io.BytesIO(block), has_header=False, new_columns=list(columns), infer_schema=False
    )
    made = []
    for name, kind in columns.items():
        column = pl.col(name)
        plain = PLAIN.get(kind)
        if kind == "boolean":
            column = column == "t"
        elif kind == "bytea":
            column = column.str.decode("hex")
        elif kind == "date":
            column = column.str.to_date("%Y-%m-%d")
        elif kind == "timestamp with time zone":
            column = column.cast(pl.Int64).cast(pl.Datetime("us", "UTC"))
        elif plain is not None:
            column = column.cast(plain)
        made.append(column.alias(name))
    return texts.select(made)


def _fill(
    connection: psycopg.Connection, relation: sql.Identifier, columns: dict[str, str],
    frame: pl.DataFrame,
) -> None:  # fmt: skip
    _as_always(connection)
    made = [
        ("\\x" + pl.col(name).bin.encode("hex")).alias(name) if kind == "bytea" else pl.col(name)
        for name, kind in columns.items()
    ]
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(
        relation, sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as stream:
        for part in frame.select(made).iter_slices(100_000):
            stream.write(
                part.write_csv(
                    include_header=False,
                    quote_style="non_numeric",
                    null_value="",
                    datetime_format="%Y-%m-%d %H:%M:%S%.6f+00",
                )
            )


def _write(path: Path, frame: pl.DataFrame) -> None:
    """Whole and on the disk, or not under its name; for the account alone."""
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        frame.write_parquet(file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    for folder in (path.parent, path.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
