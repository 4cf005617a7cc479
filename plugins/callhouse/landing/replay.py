"""Rows in quarantine, read again: their bytes, with the mapping and the reader of today.

What now reads is staged as if it had been read with its file, under the unit and line of then, so
that newer files stay newer. One unit is one transaction with its ledger, as in landing.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from cryptography.exceptions import InvalidTag
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import Unit, store
from callhouse.landing.callers import Found
from callhouse.live import state
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import CUT_OFF, Batch, Feed, FileLayout, RefusedError, Rejected

ROWS_AT_ONCE = 20_000
# What was cut off is never read alone. Delimited files once said so in the reason only.
WHOLE = sql.SQL(
    "q.reason_code <> {} and q.reason not like '%%(the file ends within this line)%%'"
).format(sql.Literal(CUT_OFF))
OPEN = sql.SQL(
    "q.discarded_at is null and q.replayed_at is null "
    "and (%(reason)s::text is null or q.reason_code = %(reason)s)"
)
CHOSEN = sql.SQL(
    "from ops.quarantine as q where q.unit_id = %(unit)s and {open} and {whole}"
).format(open=OPEN, whole=WHOLE)


@dataclass(frozen=True)
class Kept:
    """A unit with open rows."""

    unit_id: int
    source: str
    record: str
    feed: str | None  # None: landed before it was kept
    file: str
    layout: FileLayout | None  # likewise
    open: int
    cut_off: int  # of them: they come with the complete file


@dataclass(frozen=True)
class Replay:
    """What became of a unit's open rows. `tried` = `staged` + `duplicates` + `unreadable`."""

    unit_id: int
    source: str
    record: str
    file: str
    tried: int = 0
    staged: int = 0
    duplicates: int = 0
    unreadable: int = 0
    cut_off: int = 0
    problem: str | None = None  # why none of them could be tried


def replay(
    settings: Settings, person: str, source: str | None = None, unit_id: int | None = None,
    reason: str | None = None, *, is_dry: bool = False,
) -> list[Replay]:  # fmt: skip
    """Read open rows again, units in the order in which they landed; `is_dry` keeps nothing of it.

    A unit that cannot be read again has a problem, and does not stop the others.
    """
    results = []
    for kept in _units(settings, source, unit_id, reason):
        try:
            result = _replay_unit(settings, kept, person, reason, is_dry=is_dry)
        except CallhouseError as problem:
            result = _result(kept, problem=f"unit {kept.unit_id}: {problem}")
        results.append(result)
    return results


def _units(
    settings: Settings, source: str | None, unit_id: int | None, reason: str | None
) -> list[Kept]:
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            sql.SQL(
                "select u.unit_id, u.source, u.record, u.feed, u.name, u.layout, count(*), "
                "count(*) filter (where not ({whole})) "
                "from ops.quarantine as q inner join ops.units as u on q.unit_id = u.unit_id "
                "where {open} and (%(source)s::text is null or u.source = %(source)s) "
                "and (%(unit)s::bigint is null or u.unit_id = %(unit)s) "
                "group by u.unit_id order by u.unit_id"
            ).format(open=OPEN, whole=WHOLE),
            {"source": source, "unit": unit_id, "reason": reason},
        ).fetchall()
    return [Kept(*row) for row in rows]


def _result(kept: Kept, **counts: Any) -> Replay:
    return Replay(kept.unit_id, kept.source, kept.record, kept.file, cut_off=kept.cut_off, **counts)


def _replay_unit(
    settings: Settings, kept: Kept, person: str, reason: str | None, *, is_dry: bool
) -> Replay:
    if kept.cut_off == kept.open:
        return _result(kept)
    feed = _feed(settings, kept)
    with warehouse.connect(settings) as connection:
        registry.register(connection, feed)
        connection.commit()
        result = _Again(settings, connection, feed, kept, is_dry=is_dry).replay(person, reason)
        if is_dry:
            connection.rollback()
        return result


def _feed(settings: Settings, kept: Kept) -> Feed:
    """The feed that reads the unit's file today."""

    def reads(feed: Feed) -> bool:
        try:
            return feed.name == kept.source and feed.record_for(kept.file).name == kept.record
        except RefusedError:
            return False

    if kept.feed is None:
        found = [feed for feed in registry.feeds(settings) if reads(feed)]
        if len(found) != 1:
            names = ", ".join(feed.file.stem for feed in found) or "none"
            raise CallhouseError(
                f"{kept.file} may be of one feed, but of today's these take it as {kept.record} of "
                f"{kept.source}: {names}"
            )
        return found[0]
    feed = registry.feed(settings, kept.feed)
    if not reads(feed):
        feed.record_for(kept.file)  # where no pattern takes the name, it says so
        raise CallhouseError(
            f"{kept.file} was landed as {kept.record} of {kept.source}, and {feed.file.name} "
            "reads it as something else now"
        )
    return feed


class _Again(Unit):
    """Some rows of a unit on their way, as a unit of their own until they have their place.

    Its number is the unit's, negative: what the unit has staged is to them an older file's.
    """

    def __init__(
        self, settings: Settings, connection: psycopg.Connection, feed: Feed, kept: Kept,
        *, is_dry: bool,
    ) -> None:  # fmt: skip
        super().__init__(settings, connection, feed, feed.open(Path(kept.file)))
        self.kept, self.is_dry = kept, is_dry
        self.unit_id = -kept.unit_id
        self.read_lines: list[int] = []

    def replay(self, person: str, reason: str | None) -> Replay:
        """Read the rows again; the caller commits by leaving the connection's block."""
        self.lock()
        chosen = {"unit": self.kept.unit_id, "reason": reason}
        # Nobody discards them meanwhile.
        tried = self.connection.execute(
            sql.SQL("select {chosen} for update").format(chosen=CHOSEN), chosen
        ).rowcount
        self.copy_all(self._batches(chosen))
        staged_lines = self._place() if self.read_lines else []
        closed = self.connection.execute(
            "update ops.quarantine set replayed_at = now(), replayed_by = %(person)s, "
            "replayed_as = case when line_number = any(%(staged)s) then 'staged' "
            "else 'duplicate' end where unit_id = %(unit)s and line_number = any(%(lines)s) "
            "and discarded_at is null and replayed_at is null",
            {"person": person, "unit": self.kept.unit_id, "lines": self.read_lines,
             "staged": staged_lines},
        ).rowcount  # fmt: skip
        if closed != len(self.read_lines):
            raise RuntimeError(f"{self.kept}: {closed} rows closed for {len(self.read_lines)} read")
        return _result(
            self.kept,
            tried=tried,
            staged=len(staged_lines),
            duplicates=closed - len(staged_lines),
            unreadable=tried - closed,
        )

    def _batches(self, chosen: dict[str, Any]) -> Iterator[Batch]:
        with (
            warehouse.connect(self.settings) as connection,
            connection.cursor("kept_rows") as rows,
        ):
            rows.execute(
                sql.SQL(
                    "select q.line_number, q.reason_code, q.reason, q.column_name, q.content "
                    "{chosen} order by q.line_number"
                ).format(chosen=CHOSEN),
                chosen,
            )
            while found := rows.fetchmany(ROWS_AT_ONCE):
                kept = [
                    Rejected(line, code, reason, column, self._decrypted(line, content))
                    for line, code, reason, column, content in found
                ]
                yield self.file.again(kept, self.kept.layout)

    def _decrypted(self, line_number: int, content: bytes) -> bytes:
        try:
            return self.callers.cipher.decrypt(content)
        except InvalidTag:
            raise CallhouseError(
                f"{self.kept.file} line {line_number} cannot be decrypted: "
                "secrets/caller_encryption_key is not the one it was kept with"
            ) from None

    def count(self, batch: Batch, side: psycopg.Connection) -> pl.DataFrame:
        """Also remember which rows were read: a state over midnight is staged twice."""
        self.read_lines += batch.rows.get_column("line_number").unique().to_list()
        return super().count(batch, side)

    def save_callers(self, connection: psycopg.Connection, found: list[Found]) -> None:
        """Callers are saved at once, which a dry run must not do."""
        if not self.is_dry:
            super().save_callers(connection, found)

    def set_aside(self, rejected: list[Rejected]) -> None:
        """What still cannot be read stays where it is, with the reason of today."""
        with self.connection.cursor() as cursor:
            cursor.executemany(
                "update ops.quarantine set reason_code = %(code)s, reason = %(reason)s, "
                "column_name = %(column)s, preview = %(preview)s "
                "where unit_id = %(unit)s and line_number = %(line)s "
                "and (reason_code, reason, column_name) "
                "is distinct from (%(code)s, %(reason)s, %(column)s)",
                [
                    {
                        "code": row.code,
                        "reason": store.printable(row.reason),
                        "column": row.column,
                        "preview": store.preview(row.content, has_ids=self.callers_are_ids),
                        "unit": self.kept.unit_id,
                        "line": row.line_number,
                    }
                    for row in rejected
                ],
            )

    def _place(self) -> list[int]:
        """Settle what was copied and make it the old unit's; the lines that are staged now."""
        unit_id, record, source = self.kept.unit_id, self.record, self.feed.name
        found = self.gather()
        settlement = self.settle(found, is_newest=False)
        near = found.days | found.older_days
        names = {"table": store.identifier(record.table), "day": sql.Identifier(record.day)}
        values = {"unit": unit_id, "days": sorted(found.days), "near": sorted(near)}

        def run(statement: str) -> psycopg.Cursor:
            return self.connection.execute(sql.SQL(statement).format(**names), values)

        adopted = run(
            "update {table} set unit_id = %(unit)s "
            "where unit_id = -%(unit)s and {day} = any(%(days)s) returning line_number"
        )
        lines = [line for (line,) in adopted]
        if record.version:
            run(
                "update {table} set superseded_by = %(unit)s "
                "where superseded_by = -%(unit)s and {day} = any(%(near)s)"
            )
        changed = settlement.days | found.moved
        changed |= store.settle_late(
            self.connection, record, source, unit_id, sorted(set(lines)), found.days
        )
        if record.partitioned:
            run(
                "insert into ops.unit_days (unit_id, business_day, staged_rows) "
                "select unit_id, {day}, count(*) from {table} "
                "where unit_id = %(unit)s and {day} = any(%(days)s) group by unit_id, {day} "
                "on conflict (unit_id, business_day) do update "
                "set staged_rows = excluded.staged_rows"
            )
        store.save_members(self.connection, source, self.tally.members)
        store.save_roster(self.connection, record, source, changed | found.days)
        store.mark_dirty(
            self.connection, record, source, unit_id, self.shaped(changed),
            f"replayed {record.name}",
        )  # fmt: skip
        state.move(self.connection, record, source, unit_id, found.days | found.moved)
        self._balance(found.days, len(lines))
        return sorted(set(lines))

    def _balance(self, days: set[datetime.date], staged: int) -> None:
        """Write the unit's ledger entry as it would be had the rows been read with their file."""
        copied, read = self.tally.copied, len(self.read_lines)
        self.connection.execute(
            "update ops.units set read_rows = read_rows + %(copied)s - %(read)s, "
            "staged_rows = staged_rows + %(staged)s, "
            "quarantined_rows = quarantined_rows - %(read)s, "
            "duplicate_rows = duplicate_rows + %(copied)s - %(staged)s, "
            "first_day = least(first_day, %(first)s), last_day = greatest(last_day, %(last)s) "
            "where unit_id = %(unit)s",
            {"unit": self.kept.unit_id, "copied": copied, "read": read, "staged": staged,
             "first": min(days, default=None), "last": max(days, default=None)},
        )  # fmt: skip
