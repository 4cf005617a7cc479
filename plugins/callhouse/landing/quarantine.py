"""Rows that could not be read, for people: masked, in groups, and closed with a reason."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import store
from callhouse.settings import Settings


@dataclass(frozen=True)
class Group:
    """Open rows that have the same trouble."""

    source: str
    record: str
    reason_code: str
    column: str | None
    rows: int
    newest_unit: int
    example: str  # masked


@dataclass(frozen=True)
class Ledger:
    """What became of every row read from a source."""

    source: str
    read: int
    staged: int
    open: int
    discarded: int
    duplicates: int

    @property
    def is_balanced(self) -> bool:
        """Whether each row read is in exactly one place."""
        return self.read == self.staged + self.open + self.discarded + self.duplicates

    @property
    def sentence(self) -> str:
        """The sum, for people."""
        return (
            f"{self.source}: read {self.read} {'=' if self.is_balanced else 'IS NOT'} "
            f"staged {self.staged} + open {self.open} + discarded {self.discarded} "
            f"+ duplicates {self.duplicates}"
        )


@dataclass(frozen=True)
class KeptRow:
    """A row in quarantine, masked. Its bytes are shown to nobody."""

    unit_id: int
    source: str
    file: str
    line_number: int
    reason_code: str
    reason: str
    column: str | None
    preview: str
    discarded_at: datetime.datetime | None
    discarded_by: str | None
    discard_reason: str | None
    replayed_at: datetime.datetime | None
    replayed_by: str | None
    replayed_as: str | None  # staged | duplicate


def groups(
    settings: Settings, source: str | None = None, reason: str | None = None,
    since: datetime.date | None = None,
) -> list[Group]:  # fmt: skip
    """Open rows by trouble, the most frequent first; `since` is the day of landing in UTC."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select u.source, u.record, q.reason_code, q.column_name, count(*), max(u.unit_id), "
            "(array_agg(q.preview order by u.unit_id desc, q.line_number))[1] "
            "from ops.quarantine as q inner join ops.units as u on q.unit_id = u.unit_id "
            "where q.discarded_at is null and q.replayed_at is null "
            "and (%(source)s::text is null or u.source = %(source)s) "
            "and (%(reason)s::text is null or q.reason_code = %(reason)s) "
            "and (%(since)s::date is null "
            "or (u.landed_at at time zone 'UTC')::date >= %(since)s) "
            "group by u.source, u.record, q.reason_code, q.column_name "
            "order by count(*) desc, u.source, u.record, q.reason_code, q.column_name",
            {"source": source, "reason": reason, "since": since},
        ).fetchall()
    found = [Group(*row) for row in rows]
    return [replace(group, example=store.masked(group.example)) for group in found]


def ledger(settings: Settings, source: str | None = None) -> list[Ledger]:
    """Per source, whole: filters of `groups` do not apply. An unknown source is a problem."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select source, read_rows, staged_rows, open_rows, discarded_rows, duplicate_rows "
            "from ops.source_ledger where %(source)s::text is null or source = %(source)s "
            "order by source",
            {"source": source},
        ).fetchall()
    if source and not rows:
        raise CallhouseError(f"nothing of '{source}' was ever landed: `status` lists the sources")
    return [Ledger(*row) for row in rows]


def show(settings: Settings, unit_id: int, line_number: int | None = None) -> list[KeptRow]:
    """The rows of a unit, or one of them; those that were discarded or replayed too."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select q.unit_id, u.source, u.name, q.line_number, q.reason_code, q.reason, "
            "q.column_name, q.preview, q.discarded_at, q.discarded_by, q.discard_reason, "
            "q.replayed_at, q.replayed_by, q.replayed_as "
            "from ops.quarantine as q inner join ops.units as u on q.unit_id = u.unit_id "
            "where q.unit_id = %(unit)s "
            "and (%(line)s::bigint is null or q.line_number = %(line)s) order by q.line_number",
            {"unit": unit_id, "line": line_number},
        ).fetchall()
    if not rows:
        raise CallhouseError(
            f"{_place(unit_id, line_number)} has no row in quarantine: "
            "`quarantine list` names units"
        )
    found = [KeptRow(*row) for row in rows]
    return [
        replace(row, reason=_veiled(row.reason), preview=store.masked(row.preview)) for row in found
    ]


def discard(
    settings: Settings, unit_id: int, line_number: int | None, reason: str, person: str
) -> int:
    """Close the open rows of a unit, or one of them; returns how many. Nothing is deleted."""
    reason = store.printable(reason.strip())
    if not reason:
        raise CallhouseError("a row is discarded with a reason: --reason 'test calls of March 2'")
    with warehouse.connect(settings) as connection:
        closed = connection.execute(
            "update ops.quarantine set discarded_at = now(), discarded_by = %(person)s, "
            "discard_reason = %(reason)s where unit_id = %(unit)s and discarded_at is null "
            "and replayed_at is null and (%(line)s::bigint is null or line_number = %(line)s)",
            {"unit": unit_id, "line": line_number, "reason": reason, "person": person},
        ).rowcount
    if not closed:
        raise CallhouseError(
            f"{_place(unit_id, line_number)} has no open row in quarantine: nothing is changed"
        )
    return closed


def _place(unit_id: int, line_number: int | None) -> str:
    return f"unit {unit_id}" + ("" if line_number is None else f" line {line_number}")


def _veiled(reason: str) -> str:
    """A reason quotes the cell at fault, which may be the caller's in a row that is shifted."""
    return re.sub(r"'[^']*'", lambda quoted: store.masked(quoted[0]), reason)
