"""Writing batches: partitions ahead, COPY blocks, quarantine, duplicates, superseding, marks."""

from __future__ import annotations

import datetime
import re
import struct
import zoneinfo
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl
import psycopg
from psycopg import sql

from callhouse.errors import CallhouseError
from callhouse.landing import binary
from callhouse.landing.callers import Cipher, Found
from callhouse.security.redaction import redacted
from callhouse.sources import contract
from callhouse.sources.contract import Record, Rejected

ONE_DAY = datetime.timedelta(days=1)
PREVIEW_CHARACTERS = 200
COPY_CHUNK = 1 << 20
_LENGTHS = [struct.pack(">i", length) for length in range(256)]
_FOUR_FIELDS = struct.pack(">hi", 4, 16)  # and the length of the first, a uuid
ADDRESS = re.compile(r"[^\s,;|<>\"'{}=:]*@[^\s,;|<>\"'{}=]*")
NAME_OF_NUMBER = re.compile(r'"+[^"]*"+\s*<[^>]*>?')
CONFLICT = "conflicting_version"
# Rows of one plan are no further apart: it begins a day before or after its shift's date, and the
# last stretch may reach the day after.
PLAN_DAYS = 3
# Up to as many rows are looked up one by one, where an index leads to them.
SMALL_UNIT_ROWS = 20_000


def identifier(table: str) -> sql.Identifier:
    """`schema.table` quoted."""
    return sql.Identifier(*table.split("."))


# ------------------------------------------------------------------------------ partitions
class Partitions:
    """Daily partitions, made before a COPY needs them.

    On a connection of its own that commits at once: an empty partition harms nobody, while DDL
    inside the landing transaction would keep other feeds waiting until it ends.
    """

    def __init__(
        self, connection: psycopg.Connection, table: str, *, is_live: bool = False
    ) -> None:
        self.connection, self.table = connection, table
        # Of a day that a collector brings every unit looks for its own rows, and for older ones
        # like them. What comes as files is read by the day, for which an index would only cost.
        self.indexes = ("unit_id", "row_hash") if is_live else ()
        self._known: set[datetime.date] = set()

    def ensure(self, days: Iterable[datetime.date]) -> None:
        """Create and attach what is missing. LIKE + ATTACH: PARTITION OF would stop all readers."""
        missing = sorted(set(days) - self._known)
        if not missing:
            return
        with self.connection.transaction():
            self.connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
                [f"partitions {self.table}"],
            )
            there = {
                name for (name,) in self.connection.execute(
                    "select c.relname from pg_inherits as i "
                    "inner join pg_class as c on i.inhrelid = c.oid "
                    "where i.inhparent = %s::regclass", [self.table],
                )
            }  # fmt: skip
            self._refuse_archived(missing)
            self.connection.execute("set local role callhouse_owner")
            for day in missing:
                name = f"{self.table}_{day:%Y_%m_%d}"
                if name.split(".")[1] in there:
                    continue
                self.connection.execute(
                    sql.SQL("create table {} (like {} including all)").format(
                        identifier(name), identifier(self.table)
                    )
                )
                for column in self.indexes:
                    self.connection.execute(
                        sql.SQL("create index on {} ({})").format(
                            identifier(name), sql.Identifier(column)
                        )
                    )
                self.connection.execute(
                    sql.SQL(
                        "alter table {} attach partition {} for values from ({}) to ({})"
                    ).format(
                        identifier(self.table),
                        identifier(name),
                        sql.Literal(day),
                        sql.Literal(day + ONE_DAY),
                    )
                )
        self._known.update(missing)

    def _refuse_archived(self, days: list[datetime.date]) -> None:
        """An empty partition beside the rows of an archive would count these no more."""
        row = self.connection.execute(
            "select file, business_day from ops.staging_archives where restored_at is null "
            "and table_name = %s and business_day = any(%s) order by business_day limit 1",
            [self.table.split(".")[1], days],
        ).fetchone()
        if row is not None:
            raise CallhouseError(
                f"{row[1]} of {self.table} is archived in {row[0]}: "
                "run `./callhouse staging restore`, then repeat"
            )


# ------------------------------------------------------------------------------ COPY
def encode(rows: pl.DataFrame, record: Record, source: str, unit_id: int) -> tuple[str, bytes]:
    """(COPY statement, COPY bytes) of `rows`. Columns without any value are left to the server."""
    columns, data = binary.encode(
        rows.select(contract.staged_columns(record)),
        record.by_name,
        {"source": source.encode(), "unit_id": struct.pack(">q", unit_id)},
    )
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(
        identifier(record.table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    return statement.as_string(None), data


def copy(connection: psycopg.Connection, statement: str, data: bytes) -> None:
    """Send one block."""
    view = memoryview(data)
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as stream:
        for start in range(0, len(view), COPY_CHUNK):
            stream.write(view[start : start + COPY_CHUNK])


# ------------------------------------------------------------------------------ quarantine
def quarantine(
    connection: psycopg.Connection, unit_id: int, rejected: list[Rejected], cipher: Cipher,
    *, callers_are_ids: bool,
) -> None:  # fmt: skip
    """Keep what could not be read: masked for people, whole and encrypted."""
    if not rejected:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "copy ops.quarantine (unit_id, line_number, reason_code, reason, column_name, preview, "
            "content) from stdin (format binary)"
        ) as stream,
    ):
        stream.set_types(["int8", "int8", "text", "text", "text", "text", "bytea"])
        for row in rejected:
            stream.write_row(
                (unit_id, row.line_number, row.code, printable(row.reason), row.column,
                 preview(row.content, has_ids=callers_are_ids), cipher.encrypt(row.content))
            )  # fmt: skip


def preview(content: bytes, *, has_ids: bool = False) -> str:
    """The beginning of a row, masked. Which cell is the caller's is unknown in a broken row.

    With `has_ids` callers are ids of any shape: no letter is shown either.
    """
    text = printable(content[: 4 * PREVIEW_CHARACTERS].decode("utf-8", "replace"))
    text = re.sub(r"[^\W_]", "#", text) if has_ids else redacted(masked(text))
    return text[:PREVIEW_CHARACTERS]


def masked(text: str) -> str:
    """`text` without digits, mail and SIP addresses, and names before a number in brackets."""
    for pattern in (ADDRESS, NAME_OF_NUMBER):
        text = pattern.sub(lambda found: "#" * len(found[0]), text)
    return re.sub(r"\d", "#", text)


def printable(text: str) -> str:
    """`text` without control characters; PostgreSQL has no NUL in texts."""
    return "".join(c if c == "\t" or (c >= " " and c != "\x7f") else "�" for c in text)


# ------------------------------------------------------------------------------ after the rows
def save_callers(connection: psycopg.Connection, found: list[Found], key_version: int) -> None:
    """Add the callers that are not known yet, and commit.

    On a connection of its own, while their rows are still being copied: landing would wait for it
    at the end of a file, and two feeds for each other's callers. Should the file be refused after
    all, an encrypted caller without a call is left, which the next file with the caller uses.
    """
    if not found:
        return
    data = bytearray(binary.HEADER)
    kinds = {kind: _LENGTHS[len(kind)] + kind.encode() for kind in ("phone", "id")}
    for token, kind, content, mask in found:
        shown, size = mask.encode(), len(content)
        data += b"".join((
            _FOUR_FIELDS, token, kinds[kind],
            _LENGTHS[size] if size < len(_LENGTHS) else struct.pack(">i", size), content,
            _LENGTHS[len(shown)] if len(shown) < len(_LENGTHS) else struct.pack(">i", len(shown)),
            shown,
        ))  # fmt: skip
    data += binary.TRAILER
    with connection.transaction():
        connection.execute(
            "create temporary table if not exists found_callers "
            "(token uuid, kind text, content bytea, masked text) on commit delete rows"
        )
        copy(connection, "copy found_callers from stdin (format binary)", bytes(data))
        # One at a time, for the moment that it takes: an insert that cannot meet a conflict costs
        # two thirds of one that can. Sorted for the index.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('save callers', 0))")
        connection.execute(
            "insert into pii.callers (caller_token, key_version, kind, content, masked) "
            "select f.token, %s, f.kind, f.content, f.masked from found_callers as f "
            "where not exists (select from pii.callers as c where c.caller_token = f.token) "
            "order by f.token",
            [key_version],
        )


def save_members(connection: psycopg.Connection, source: str, members: dict[str, set[str]]) -> None:
    """Add codes that were seen for the first time."""
    pairs = sorted((kind, code) for kind, codes in members.items() for code in codes)
    connection.execute(
        "insert into staging.members (source, kind, code) "
        "select %s, kind, code from unnest(%s::text[], %s::text[]) as m (kind, code) "
        "on conflict do nothing",
        [source, [kind for kind, _ in pairs], [code for _, code in pairs]],
    )


# ------------------------------------------------------------------------------ settling
@dataclass(frozen=True)
class Settlement:
    """What settling a unit's rows against each other and against older ones did."""

    duplicates: int
    repeated: int
    superseded: int
    days: set[datetime.date]  # business days whose content changed


def settle(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date], older_days: set[datetime.date],
    *, has_same_rows: bool, has_same_keys: bool, is_newest: bool = True, is_latest: bool = False,
    is_small: bool = False,
) -> Settlement:  # fmt: skip
    """Drop exact duplicates, tell repeated keys apart, let new versions supersede old ones.

    `older_days`: days (near the unit's) on which the source had rows before. What neither a
    repeated row nor an older day calls for is not run, and only the named days are read. Records
    without a key have no versions: what is not the same row is another one. Records with a version
    say themselves which row counts, and plans take each other's place as a whole. Of rows that are
    not the newest (`is_newest`), keys without a version and plans are left to `settle_late`.
    Rows that tell how things are now (`is_latest`) repeat only rows that count.
    """
    names: dict[str, sql.Composable] = {
        "table": identifier(record.table), "day": sql.Identifier(record.day),
        "key": sql.SQL(", ").join(map(sql.Identifier, record.key)),
        "name": sql.Identifier(record.key[0] if record.key else record.day),
    }  # fmt: skip
    same_key = sql.SQL(" and ").join(
        sql.SQL("o.{0} = n.{0}").format(sql.Identifier(column)) for column in record.key
    )
    if record.partitioned:  # another call may have the same id at another time
        same_key += sql.SQL(" and o.{0} between n.{0} - 1 and n.{0} + 1").format(names["day"])
    # Rows of a log have no versions, and no such column.
    names["still_counts"] = sql.SQL("and o.superseded_by is null" if is_latest else "")
    values: dict[str, object] = {
        "source": source, "unit": unit_id, "days": sorted(days), "older": sorted(older_days),
    }  # fmt: skip

    def run(statement: str) -> psycopg.Cursor:
        return connection.execute(sql.SQL(statement).format(**names, same_key=same_key), values)

    # A unit's rows have no statistics yet: a nested loop would be chosen by mistake.
    connection.execute("set local enable_nestloop = off")
    duplicates = repeated = superseded = 0
    changed = set(days)
    if has_same_rows:
        duplicates += run(
            "delete from {table} where unit_id = %(unit)s and {day} = any(%(days)s) "
            "and line_number in (select line_number from (select line_number, dense_rank() over "
            "(partition by row_hash order by line_number) as copy_number from {table} "
            "where unit_id = %(unit)s and {day} = any(%(days)s)) as c where copy_number > 1)"
        ).rowcount
    if has_same_keys and not record.version and is_newest:
        names["ranked"] = sql.SQL(
            "(select line_number, row_number() over (partition by {key} order by line_number) "
            "as version, max(line_number) over (partition by {key}) as last_line from {table} "
            "where unit_id = %(unit)s and {day} = any(%(days)s)) as r "
            "where n.unit_id = %(unit)s and n.{day} = any(%(days)s) "
            "and n.line_number = r.line_number"
        ).format(**names)
        if record.partitioned and not record.last_counts:
            # Two different rows of one file under one key are two calls: nothing says that the
            # second is a correction of the first, and a lost call cannot be found again.
            repeated = run(
                "update {table} as n set {name} = n.{name} || '~' || r.version, "
                "data_issues = n.data_issues || array['repeated_key'] from {ranked} "
                "and r.version > 1"
            ).rowcount
        else:
            repeated = run(
                "update {table} as n set superseded_by = %(unit)s from {ranked} "
                "and r.line_number < r.last_line"
            ).rowcount
    if record.plan:
        duplicates += _drop_repeated_plans(
            connection, record, source, unit_id, days, is_whole=is_newest
        )
        if is_newest:
            superseded, other_days = _rank_plans(connection, record, source, unit_id, days)
            changed |= other_days
    elif older_days and is_small:
        # Counted: the planner then knows how many it is to look up, and in what.
        run(
            "create temporary table landed_hashes on commit drop as select distinct row_hash "
            "from {table} where unit_id = %(unit)s and {day} = any(%(days)s)"
        )
        run("analyze landed_hashes")
        run("set local enable_nestloop = on")
        known = run(
            "select distinct o.row_hash from landed_hashes as n inner join {table} as o "
            "on o.row_hash = n.row_hash where o.source = %(source)s and o.unit_id <> %(unit)s "
            "and o.{day} = any(%(older)s) {still_counts}"
        ).fetchall()
        run("set local enable_nestloop = off")
        run("drop table landed_hashes")
        if known:
            values["known"] = [row_hash for (row_hash,) in known]
            duplicates += run(
                "delete from {table} where unit_id = %(unit)s and {day} = any(%(days)s) "
                "and row_hash = any(%(known)s)"
            ).rowcount
    elif older_days:
        duplicates += run(
            "delete from {table} as n where n.unit_id = %(unit)s and n.{day} = any(%(days)s) "
            "and exists (select from {table} as o where o.source = %(source)s "
            "and o.unit_id <> %(unit)s and o.{day} = any(%(older)s) and o.row_hash = n.row_hash "
            "{still_counts})"
        ).rowcount
    if record.version and not record.plan and (has_same_keys or older_days):
        superseded, other_days = _settle_versions(
            connection, record, source, unit_id, days, days | older_days
        )
        changed |= other_days
    elif older_days and record.key and is_newest:
        old_days = run(
            "update {table} as o set superseded_by = %(unit)s from {table} as n "
            "where n.unit_id = %(unit)s and n.{day} = any(%(days)s) and o.source = %(source)s "
            "and o.unit_id <> %(unit)s and o.{day} = any(%(older)s) and o.superseded_by is null "
            "and n.superseded_by is null and {same_key} returning o.{day}"
        ).fetchall()
        superseded = len(old_days)
        changed |= {day for (day,) in old_days}
    if duplicates:
        left = run(
            "select distinct {day} from {table} where unit_id = %(unit)s and {day} = any(%(days)s)"
        )
        changed = (changed - days) | {day for (day,) in left}
    return Settlement(duplicates, repeated, superseded, changed)


def _settle_versions(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date], near: set[datetime.date],
) -> tuple[int, set[datetime.date]]:  # fmt: skip
    """Of all rows with a key of the unit's, on the days `near`, the newest version counts.

    (rows that count no more, days of rows that changed). Equal versions with other
    content: the larger hash counts and carries an issue, so that files may come in any order.
    """
    statement = sql.SQL(
        "with touched as (select distinct {key} from {table} "
        "where unit_id = %(unit)s and {day} = any(%(days)s)), ranked as ("
        "select o.unit_id, o.line_number, o.{day}, row_number() over w as place, "
        "first_value(o.unit_id) over w as newest_unit, "
        "count(*) over (partition by {key}, o.{version}) as rivals "
        "from {table} as o inner join touched using ({key}) "
        "where o.source = %(source)s and o.{day} = any(%(near)s) "
        "window w as (partition by {key} order by o.{version} desc, o.row_hash desc)), "
        "judged as (select *, case when place > 1 then newest_unit end as superseded_by, "
        "case when place = 1 and rivals > 1 then array[%(issue)s] else '{{}}' end as issues "
        "from ranked) "
        "update {table} as t set superseded_by = j.superseded_by, "
        "data_issues = array_remove(t.data_issues, %(issue)s) || j.issues "
        "from judged as j where t.unit_id = j.unit_id and t.line_number = j.line_number "
        "and t.{day} = j.{day} and t.{day} = any(%(near)s) "
        "and (t.superseded_by is distinct from j.superseded_by "
        "or coalesce(t.data_issues @> array[%(issue)s], false) <> (j.issues <> '{{}}')) "
        "returning t.{day}, j.place > 1"
    ).format(
        table=identifier(record.table),
        key=sql.SQL(", ").join(map(sql.Identifier, record.key)),
        day=sql.Identifier(record.day),
        version=sql.Identifier(record.version or ""),
    )
    values = {"source": source, "unit": unit_id, "days": sorted(days), "near": sorted(near),
              "issue": CONFLICT}  # fmt: skip
    rows = connection.execute(statement, values).fetchall()
    return sum(is_old for _, is_old in rows), {day for day, _ in rows}


def settle_late(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    lines: list[int], days: set[datetime.date],
) -> set[datetime.date]:  # fmt: skip
    """Give rows that came late to their unit, on `days`, their place among rows of the same key.

    A newer unit's row supersedes them, they supersede an older unit's, and within their file the
    order of lines tells them apart, as if `settle` had seen them. Returns the days of rows that now
    count, count no more, or have another name.
    """
    if record.plan and lines:
        return days | _rank_plans(connection, record, source, unit_id, days)[1]
    if not record.key or record.version or not lines:
        return set()
    is_renamed = record.partitioned and not record.last_counts
    columns = [sql.Identifier(column) for column in record.key]
    first_name = sql.SQL(
        "case when data_issues @> array['repeated_key'] "
        "then regexp_replace({0}, '~[0-9]+$', '') else {0} end" if is_renamed else "{0}"
    ).format(columns[0])  # fmt: skip
    names: dict[str, sql.Composable] = {
        "table": identifier(record.table), "day": sql.Identifier(record.day), "name": columns[0],
        "key": sql.SQL(", ").join(columns), "first_name": first_name,
        "first_key": sql.SQL(", ").join((first_name, *columns[1:])),
        "same_key": sql.SQL(" and ").join(sql.SQL("l.{0} = o.{0}").format(c) for c in columns),
        "last_counts": sql.Literal(not is_renamed),
        "is_partitioned": sql.Literal(record.partitioned),
    }  # fmt: skip
    values: dict[str, object] = {"unit": unit_id, "source": source, "lines": lines}

    def run(statement: str) -> psycopg.Cursor:
        return connection.execute(sql.SQL(statement).format(**names), values)

    known = run("select business_day from ops.unit_days where unit_id = %(unit)s")
    values["days"] = sorted(days | {day for (day,) in known})
    run(
        "create temporary table late_rows on commit drop as select * from ("
        "select line_number, {key}, {day} as own_day, {first_name} as first_name, "
        "row_number() over (partition by {first_key} order by line_number) as place, "
        "bool_or(line_number = any(%(lines)s)) over (partition by {first_key}) as is_touched "
        "from {table} where unit_id = %(unit)s "
        "and ({day} = any(%(days)s) or not {is_partitioned})) as r where is_touched"
    )
    changed: set[datetime.date] = set()
    if is_renamed:
        run("update late_rows set {name} = first_name || '~' || place where place > 1")
        renamed = run(
            "update {table} as t set {name} = l.{name}, data_issues = case "
            "when t.data_issues @> array['repeated_key'] then t.data_issues "
            "else t.data_issues || array['repeated_key'] end from late_rows as l "
            "where t.unit_id = %(unit)s and t.{day} = l.own_day and t.line_number = l.line_number "
            "and l.place > 1 and t.{name} <> l.{name} returning t.{day}"
        )
        changed |= {day for (day,) in renamed}
    near = {day for (day,) in run("select distinct own_day from late_rows")}
    if record.partitioned:
        near = {day + shift * ONE_DAY for day in near for shift in (-1, 0, 1)}
    values["near"] = sorted(near)
    judged = run(
        "with rivals as materialized (select t.unit_id, t.line_number, t.{day} as own_day, {key}, "
        "t.superseded_by from {table} as t "
        "inner join (select distinct {key} from late_rows) as k using ({key}) "
        "where t.source = %(source)s and t.{day} = any(%(near)s)), "
        "judged as (select o.unit_id, o.line_number, o.own_day, o.superseded_by, "
        "min(l.unit_id) as newer_unit from rivals as o left join rivals as l on {same_key} and ("
        "({last_counts} and l.unit_id = o.unit_id and l.line_number > o.line_number) "
        "or (l.unit_id > o.unit_id and l.superseded_by is distinct from l.unit_id "
        "and (not {is_partitioned} or l.own_day between o.own_day - 1 and o.own_day + 1))) "
        # What a later line of another file supersedes stays so: that line may be far away.
        "where o.unit_id = %(unit)s or o.superseded_by is distinct from o.unit_id "
        "group by o.unit_id, o.line_number, o.own_day, o.superseded_by) "
        "update {table} as t set superseded_by = j.newer_unit from judged as j "
        "where t.unit_id = j.unit_id and t.{day} = j.own_day and t.line_number = j.line_number "
        "and t.superseded_by is distinct from j.newer_unit "
        "returning t.{day}, (j.superseded_by is null) <> (j.newer_unit is null)"
    )
    return changed | {day for day, is_changed in judged if is_changed}


def _drop_repeated_plans(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date], *, is_whole: bool,
) -> int:  # fmt: skip
    """Delete rows of the unit that say again what is there of the same plan; returns how many.

    Without versions a file's plan is one only with the very rows of the plan that counts: a single
    row of it is none, for the rows beside it have changed. Where `is_whole` is false the unit's
    rows are not all of its plan, so these are left.
    """
    statement = (
        ", plans as (select key, unit_id, "
        "array_agg({day}::text || row_hash::text order by {day}, row_hash) as content from near "
        "where {version} is null and superseded_by is null group by key, unit_id), "
        "same as (select mine.key from plans as mine inner join plans as theirs "
        "on mine.key = theirs.key and mine.content = theirs.content "
        "where mine.unit_id = %(unit)s and theirs.unit_id <> %(unit)s and %(whole)s) "
        "delete from {table} as t where t.unit_id = %(unit)s and t.{day} = any(%(days)s) "
        "and case when t.{version} is null then {key} in (select key from same) "
        "else t.row_hash in (select row_hash from near where unit_id <> %(unit)s) end"
    )
    return _on_plans(connection, record, source, unit_id, days, statement, whole=is_whole).rowcount


def _rank_plans(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date],
) -> tuple[int, set[datetime.date]]:  # fmt: skip
    """Of all plans with a key of the unit's the newest one counts; the others as a whole do not.

    A plan is what is said of a key in one version; without versions, what one file says. Returns
    rows of other units that count no more, and days of rows of other units that changed.
    """
    rows = _on_plans(
        connection, record, source, unit_id, days,
        ", plans as (select key, {version} as version, "
        "case when {version} is null then unit_id end as file, max(unit_id) as newest_unit "
        "from near group by key, {version}, file), "
        "judged as (select key, version, file, case when row_number() over w > 1 "
        "then first_value(newest_unit) over w end as superseded_by from plans "
        "window w as (partition by key order by version desc nulls last, file desc)) "
        "update {table} as t set superseded_by = j.superseded_by "
        "from judged as j where t.source = %(source)s and t.{day} = any(%(near)s) "
        "and {key} = j.key and t.{version} is not distinct from j.version "
        "and (j.file is null or t.unit_id = j.file) "
        "and t.superseded_by is distinct from j.superseded_by "
        "returning t.{day}, t.unit_id <> %(unit)s, j.superseded_by is not null",
    ).fetchall()  # fmt: skip
    return (
        sum(is_other and is_old for _, is_other, is_old in rows),
        {day for day, is_other, _ in rows if is_other},
    )


def _on_plans(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    days: set[datetime.date], statement: str, **values: object,
) -> psycopg.Cursor:  # fmt: skip
    """Run `statement` on the rows `near`: those that share a plan's key with one of the unit's."""
    values |= {
        "source": source, "unit": unit_id, "days": sorted(days),
        "near": sorted({
            day + shift * ONE_DAY for day in days for shift in range(-PLAN_DAYS, PLAN_DAYS + 1)
        }),
    }  # fmt: skip
    names = {
        "table": identifier(record.table),
        "day": sql.Identifier(record.day),
        "version": sql.Identifier(record.version or ""),
        # Fields of a key may be empty, and nothing equals an empty one.
        "key": sql.SQL("row({})::text").format(
            sql.SQL(", ").join(sql.Identifier("t", column) for column in record.plan)
        ),
    }
    rows = (
        "with touched as (select distinct {key} as key from {table} as t "
        "where t.unit_id = %(unit)s and t.{day} = any(%(days)s)), near as ("
        "select t.*, {key} as key from {table} as t where t.source = %(source)s "
        "and t.{day} = any(%(near)s) and {key} in (select key from touched)) "
    )
    return connection.execute(sql.SQL(rows + statement).format(**names), values)


def save_roster(
    connection: psycopg.Connection, record: Record, source: str, days: set[datetime.date]
) -> None:
    """Say anew what the rows of `days` tell of agents: per day, what the latest one does."""
    if record.roster is None or not days:
        return
    columns = sql.SQL("agent_name, team_id, team_name, agent_region_code")
    names = {
        "roster": identifier(record.roster), "table": identifier(record.table),
        "day": sql.Identifier(record.day), "columns": columns,
    }  # fmt: skip
    values = {"source": source, "record": record.name, "days": sorted(days)}
    connection.execute(
        sql.SQL(
            "delete from {roster} where source = %(source)s and record = %(record)s "
            "and seen_on = any(%(days)s)"
        ).format(**names),
        values,
    )
    connection.execute(
        sql.SQL(
            "insert into {roster} (source, record, agent_id, seen_on, {columns}) "
            "select distinct on (agent_id, {day}) source, %(record)s, agent_id, {day}, {columns} "
            "from {table} where source = %(source)s and {day} = any(%(days)s) "
            "and superseded_by is null and agent_id is not null "
            "order by agent_id, {day}, event_at desc, row_hash desc"
        ).format(**names),
        values,
    )


def count_days(
    connection: psycopg.Connection, record: Record, unit_id: int,
    counts: dict[datetime.date, int], *, has_changed: bool,
) -> None:  # fmt: skip
    """Staged rows of the unit by business day: how much there is to build, and to reconcile.

    `counts` is what was copied; where settling removed rows, the table is asked.
    """
    if not record.partitioned:
        return
    if has_changed:
        statement = sql.SQL(
            "select {0}, count(*) from {1} where unit_id = %s and {0} = any(%s) group by {0}"
        ).format(sql.Identifier(record.day), identifier(record.table))
        counts = dict(connection.execute(statement, [unit_id, sorted(counts)]).fetchall())
    connection.execute(
        "insert into ops.unit_days (unit_id, business_day, staged_rows) "
        "select %s, day, n from unnest(%s::date[], %s::bigint[]) as d (day, n)",
        [unit_id, list(counts), list(counts.values())],
    )


def days_with_rows(
    connection: psycopg.Connection, table: str, day: str, source: str, days: set[datetime.date],
    *, but: int | None = None,
) -> set[datetime.date]:  # fmt: skip
    """Which of `days` have rows of `source` now (of unit `but` apart). Stops at a day's first row.

    With `limit`, day by day: as a semi-join it was planned as a scan of every partition there is.
    """
    statement = sql.SQL(
        "select d.day from unnest(%s::date[]) as d (day) cross join lateral "
        "(select from {} as t where t.{} = d.day and t.source = %s {} limit 1) as found"
    ).format(
        identifier(table), sql.Identifier(day),
        sql.SQL("" if but is None else "and t.unit_id <> {}").format(sql.Literal(but)),
    )  # fmt: skip
    return {day for (day,) in connection.execute(statement, [sorted(days), source])}


def extend_newest_event(
    connection: psycopg.Connection, source: str, seen: datetime.datetime
) -> tuple[datetime.datetime | None, datetime.datetime]:
    """The source's newest event before and after one of `seen`."""
    row = connection.execute(
        "select newest_event_at from ops.sources where source = %s", [source]
    ).fetchone()
    before: datetime.datetime | None = row[0] if row else None
    if before and before >= seen:
        return before, before
    connection.execute(
        "update ops.sources set newest_event_at = %s where source = %s", [seen, source]
    )
    return before, seen


def shaped_days(
    changed: set[datetime.date], reach_days: int, zone: str,
    newest: tuple[datetime.datetime | None, datetime.datetime],
) -> set[datetime.date]:  # fmt: skip
    """`changed` and the days around them that its rows shape.

    What is open lasts to the newest event, hence no later day is shaped. When that event moves
    (`newest`: before, after), so does the end of what was open on its day.
    """
    before, after = (
        moment.astimezone(zoneinfo.ZoneInfo(zone)).date() if moment else None for moment in newest
    )
    reach = range(-reach_days, reach_days + 1)
    days = {day + shift * ONE_DAY for day in changed for shift in reach}
    if before and newest[0] != newest[1]:
        days |= {before + shift * ONE_DAY for shift in reach if shift >= 0}
    return {day for day in days if after and day <= after}


def mark_dirty(
    connection: psycopg.Connection, record: Record, source: str, unit_id: int,
    changed: set[datetime.date], reason: str,
) -> None:  # fmt: skip
    """Mark the business days whose facts the unit changes: none where it is for the floor only.

    Reference rows change every day from their validity on that has rows of the source, and the
    first one of an agent or queue the days before as well: nothing older describes these.
    """
    days = changed
    if record.is_reference and changed:
        is_first = sql.SQL(
            "select exists (select from {table} as n where n.unit_id = %(unit)s "
            "and n.{day} = any(%(days)s) and not exists (select from {table} as o "
            "where o.source = %(source)s and o.{id} = n.{id} "
            "and o.{day} < n.{day} and o.superseded_by is null))"
        ).format(
            table=identifier(record.table),
            id=sql.Identifier(record.key[0]),
            day=sql.Identifier(record.day),
        )
        row = connection.execute(
            is_first, {"unit": unit_id, "source": source, "days": sorted(changed)}
        ).fetchone()
        rows = connection.execute(
            "select distinct d.business_day from ops.unit_days as d "
            "inner join ops.units as u on d.unit_id = u.unit_id "
            "where u.source = %s and (%s or d.business_day >= %s)",
            [source, bool(row and row[0]), min(changed)],
        )
        days = {day for (day,) in rows}
    if record.lane == "followups":
        days = {day + shift * ONE_DAY for day in days for shift in (-1, 0, 1)}
    connection.execute(
        "insert into ops.dirty_marks (business_day, unit_id, reason, lane) "
        "select d.day, %s, %s, %s from unnest(%s::date[]) as d (day) "
        "inner join ops.sources as s on s.source = %s and s.is_for_marts order by d.day",
        [unit_id, reason, record.lane, sorted(days), source],
    )
