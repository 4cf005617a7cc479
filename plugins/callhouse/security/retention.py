"""How long each class of personal data is kept, and its removal once it is older.

Nothing that counts calls is touched: tokens, times and outcomes stay, and with them every metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import cold, store
from callhouse.landing.callers import hold_keys
from callhouse.settings import Settings
from callhouse.sources import document, registry

FOREVER = "forever"
LONGEST_DAYS = 36_500
# A caller is saved ahead of its rows, which are committed with the file's last one.
LONGEST_LANDING = timedelta(days=2)
# Rows change their day when a call turns out to have begun on another one.
LOOK_BACK = timedelta(days=7)


@dataclass(frozen=True)
class Removal:
    """One class on its way: what is older than `until` goes, or would go."""

    settings: Settings
    until: datetime
    before: tuple[datetime, datetime] | None  # (when, until when) it was last applied
    is_dry: bool


@dataclass(frozen=True)
class Class:
    """A class of personal data; `days` is how long it is kept unless a file says otherwise."""

    name: str
    days: int | None  # None: always
    counted_in: str
    since: str  # what the days are counted from
    remove: Callable[[Removal], int] | None = None  # returns how many; None: it stays, whatever


@dataclass(frozen=True)
class Outcome:
    """What went of a class (or would go), and until when; `problem` where it could not be done."""

    name: str
    days: int | None
    until: datetime | None
    removed: int
    counted_in: str
    since: str
    problem: str | None = None


def apply(
    settings: Settings, by: str, *, is_dry: bool = False, now: datetime | None = None
) -> list[Outcome]:
    """Remove what is older than its class is kept; each class by itself, and recorded.

    Safe to repeat. A dry run does the same and undoes it. CallhouseError where the file of
    `settings.retention_file` cannot be read: then nothing was removed.
    """
    now = now or datetime.now(UTC)
    kept = days_kept(settings)
    return [_apply(settings, item, kept[item.name], by, now, is_dry=is_dry) for item in CLASSES]


def days_kept(settings: Settings) -> dict[str, int | None]:
    """Days by class as the instance has them; None: always."""
    days = {item.name: item.days for item in CLASSES}
    file = settings.retention_file
    if not file.exists():
        return days
    node = document.read(file)
    for item in CLASSES:
        if item.remove is None or not node.has(item.name):
            continue
        text = node.text(item.name)
        if text == FOREVER:
            days[item.name] = None
        elif text.isascii() and text.isdigit() and 1 <= int(text) <= LONGEST_DAYS:
            days[item.name] = int(text)
        else:
            raise node.error(item.name, f"'{text}' is neither a number of days nor '{FOREVER}'")
    node.finish(allowed=tuple(item.name for item in CLASSES if item.remove))
    return days


def _apply(
    settings: Settings, item: Class, days: int | None, by: str, now: datetime, *, is_dry: bool
) -> Outcome:
    until = None if days is None else now - timedelta(days=days)
    removed, problem = 0, None
    if item.remove and until:
        try:
            with warehouse.connect(settings) as connection:
                before = connection.execute(
                    "select ran_at, kept_from from ops.retention_runs where class = %s "
                    "and problem is null order by run_id desc limit 1",
                    [item.name],
                ).fetchone()
            removed = item.remove(
                Removal(settings, until, (before[0], before[1]) if before else None, is_dry)
            )
        except (CallhouseError, OSError, psycopg.Error) as error:
            problem = " ".join(str(error).split())[:500]
    if until and not is_dry:
        with warehouse.connect(settings) as connection:
            connection.execute(
                "insert into ops.retention_runs "
                "(class, ran_at, ran_by, kept_days, kept_from, removed, problem) "
                "values (%s, %s, %s, %s, %s, %s, %s)",
                [item.name, now, by, days, until, removed, problem],
            )
    return Outcome(item.name, days, until, removed, item.counted_in, item.since, problem)


# ------------------------------------------------------------------------------ the warehouse
def _callers(removal: Removal) -> int:
    """Numbers of callers whose last row is older. Their tokens stay, and their calls with them.

    No file lands meanwhile: what it brings of an old caller could not be seen yet.
    """
    day = removal.until.date()
    recent = [
        sql.SQL("select caller_token from {} where {} >= {}").format(
            store.identifier(record.table), sql.Identifier(record.day), sql.Literal(day)
        )
        for record in registry.records()
        if record.has_caller
    ]
    with warehouse.connect(removal.settings) as connection:
        if not removal.is_dry:
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(name, 0)) "
                "from (select 'land ' || source as name from ops.sources order by source) as s"
            )
            hold_keys(connection)  # a rotation renames the callers that are compared
        cold.hold(connection)  # before it is asked which days are archived
        _read_back(removal, connection, {d for d in cold.days_archived(connection) if d >= day})
        gone = connection.execute(
            sql.SQL(
                "with recent as materialized (select distinct caller_token from ({}) as r) "
                "delete from pii.callers as c where c.added_at < %s "
                "and not exists (select from recent where recent.caller_token = c.caller_token)"
            ).format(sql.SQL(" union all ").join(recent)),
            [datetime.now(UTC) - LONGEST_LANDING],
        ).rowcount
        return _done(connection, removal, gone)


def _free_text(removal: Removal) -> int:
    """Texts of free-text columns that no model reads, of days before."""
    day, gone = removal.until.date(), 0
    with warehouse.connect(removal.settings) as connection:
        days = connection.execute(
            "select distinct d.business_day from ops.unit_days as d "
            "inner join ops.units as u on d.unit_id = u.unit_id where d.business_day < %(until)s "
            "and (%(ran)s::timestamptz is null or d.business_day >= %(before)s "
            "or u.landed_at >= %(ran)s or exists (select from ops.quarantine as q "
            "where q.unit_id = u.unit_id and q.replayed_at >= %(ran)s))",
            {"until": day, **_since(removal)},
        ).fetchall()
        _read_back(removal, connection, {found for (found,) in days})
        for record in registry.records():
            columns = [sql.Identifier(item.name) for item in record.free if item.free == "expires"]
            if not columns:
                continue
            statement = sql.SQL("update {} set {} where {} = any(%s) and num_nonnulls({}) > 0")
            gone += connection.execute(
                statement.format(
                    store.identifier(record.table),
                    sql.SQL(", ").join(sql.SQL("{} = null").format(name) for name in columns),
                    sql.Identifier(record.day),
                    sql.SQL(", ").join(columns),
                ),
                [[found for (found,) in days]],
            ).rowcount
        return _done(connection, removal, gone)


def _read_back(removal: Removal, connection: psycopg.Connection, days: set[date]) -> None:
    """What is archived of `days`, which stays in staging until the transaction ends."""
    cold.hold(connection)
    cold.thaw(removal.settings, connection, days)


def _since(removal: Removal) -> Mapping[str, object]:
    if removal.before is None:
        return {"ran": None, "before": None}
    ran, until = removal.before
    return {"ran": ran - LONGEST_LANDING, "before": until.date() - LOOK_BACK}


def _quarantine(removal: Removal) -> int:
    """Content and preview of rows that were decided about before. The rows stay, and count."""
    with warehouse.connect(removal.settings) as connection:
        hold_keys(connection)  # a rotation would put back what it has read before
        gone = connection.execute(
            "update ops.quarantine set content = '', preview = '' "
            "where coalesce(discarded_at, replayed_at) < %s and content <> ''",
            [removal.until],
        ).rowcount
        return _done(connection, removal, gone)


def _done(connection: psycopg.Connection, removal: Removal, gone: int) -> int:
    if removal.is_dry:
        connection.rollback()
    return gone


# ------------------------------------------------------------------------------ files
def _archive(removal: Removal) -> int:
    """Raw files that were put into the archive before."""
    return _remove_files(removal, removal.settings.archive)


def _superset_cache(removal: Removal) -> int:
    """Answers and filters of Superset: files that expired after minutes, and states after weeks."""
    states = _superset(removal, "delete from key_value where expires_on < %s")
    return states + _remove_files(removal, removal.settings.home / "superset" / "cache")


def _remove_files(removal: Removal, folder: Path) -> int:
    until, gone = removal.until.timestamp(), 0
    for path in _files(folder):
        try:
            # The time of its last change here, whatever time a file brought along.
            if path.stat().st_ctime < until:
                if not removal.is_dry:
                    path.unlink()
                gone += 1
        except FileNotFoundError:
            continue  # taken back into the drop folder, or replaced
    return gone


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# ------------------------------------------------------------------------------ Superset
def _superset_queries(removal: Removal) -> int:
    """Statements and their history in SQL Lab. The audit trail has them, masked."""
    return _superset(removal, "delete from query where changed_on < %s")


def _superset_log(removal: Removal) -> int:
    """Superset's own log of actions. The audit trail has them."""
    return _superset(removal, "delete from logs where dttm < %s")


def _superset(removal: Removal, statement: str) -> int:
    """Delete from Superset's metadata. Its times have no zone: hours do not matter here."""
    database = removal.settings.dsn("superset", "superset")
    with psycopg.connect(database, connect_timeout=10) as connection:
        if connection.execute("select to_regclass('query')").fetchone() == (None,):
            return 0  # Superset was never started here
        gone = connection.execute(statement.encode(), [removal.until.replace(tzinfo=None)]).rowcount
        return _done(connection, removal, gone)


# Reasons: docs/decisions/0043-what-is-kept-and-for-how-long.md.
CLASSES = (
    Class("callers", 365, "numbers", "the caller's last call", _callers),
    Class("free_text", 365, "rows", "the business day", _free_text),
    Class("quarantine", 30, "rows", "the decision about the row", _quarantine),
    Class("archive", 180, "files", "its landing", _archive),
    Class("superset_cache", 1, "entries", "its computation or end", _superset_cache),
    Class("superset_queries", 90, "statements", "its last change", _superset_queries),
    Class("superset_log", 180, "actions", "the action", _superset_log),
    Class("audit_trail", None, "entries", "the entry"),
)
