"""The audit trail: reads what Postgres, Superset, Airflow, dbt and this command line have noted.

Light to import: Superset's processes and every command use `journal`.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from callhouse.settings import Settings

if TYPE_CHECKING:
    import psycopg

    from callhouse.security.trail.chain import Verdict
    from callhouse.security.trail.entries import Entry

LOGIN = "callhouse_trail"
PIECE = 8 * 2**20  # bytes of a log that are read and appended at once
# Rows whose numbers were given out earlier may become visible later: so many are read once more.
LOOK_BACK = 500
# Logs are kept for so long after their last line; what is in the trail stays.
LOG_DAYS = 30
LISTED = ("entry_id", "happened_at", "person", "origin", "address", "program", "action",
          "object_name", "row_count", "is_export", "outcome", "statement")  # fmt: skip

Parse = Callable[[bytes, str], "Entry | None"]
Read = Callable[[str, int, int], bytes]
# Entries of Airflow's log; events of tasks name no person.
OF_PEOPLE = "dttm is not null and (owner_display_name is not null or starts_with(event, 'cli'))"


@dataclass(frozen=True)
class Collected:
    """New entries by source, and what was found to be wrong."""

    added: dict[str, int]
    problems: tuple[str, ...]


def anchor_file(settings: Settings) -> Path:
    """Where heads of the chain are anchored, outside the database."""
    return settings.home / "trail" / "anchors"


def collect(settings: Settings) -> Collected:
    """Append what is new in every source, then anchor the head. Safe to repeat and to interrupt."""
    import psycopg

    from callhouse import warehouse
    from callhouse.security.trail import chain

    added: dict[str, int] = {}
    problems: list[str] = []
    file = anchor_file(settings)
    with _only_one(file.parent), warehouse.connect(settings, LOGIN) as connection:
        if wrong := _anchored_differently(connection, chain.read_anchors(file)):
            problems.append(wrong)
        sources: dict[str, Callable[[], int]] = {
            "postgres": lambda: _server_log(connection, problems),
            "journal": lambda: _journals(settings, connection, problems),
            "airflow": lambda: _airflow(settings, connection),
            "dbt": lambda: _dbt(connection),
        }
        _remove_old_logs(settings, connection)
        for source, read in sources.items():
            try:
                added[source] = read()
            except psycopg.OperationalError as error:
                # Airflow's database may be away; that of the trail will say so itself.
                if connection.closed:
                    raise
                connection.rollback()
                problems.append(f"{source} cannot be read: {' '.join(str(error).split())[:200]}")
        head = connection.execute(
            "select entry_id, hash from trail.entries order by entry_id desc limit 1"
        ).fetchone()
        connection.commit()
        known = chain.read_anchors(file)
        if head and not (known and known[-1].entry_id >= head[0]):
            chain.anchor(file, head[0], bytes(head[1]))
    return Collected(added, tuple(problems))


def verify(settings: Settings, anchors: Path | None = None) -> Verdict:
    """Walk the whole chain; `anchors` is a copy of the anchor file that was kept elsewhere."""
    from callhouse import warehouse
    from callhouse.security.trail import chain

    columns = ", ".join((*chain.COLUMNS, "previous_hash", "hash"))
    # First: what is anchored meanwhile would not be among the entries of this transaction.
    known = chain.read_anchors(anchors or anchor_file(settings))
    with warehouse.connect(settings, LOGIN) as connection, connection.cursor("chain") as cursor:
        cursor.itersize = 5_000
        cursor.execute(f"select {columns} from trail.entries order by entry_id".encode())  # noqa: S608
        return chain.verify(cursor, known)


def list_entries(
    settings: Settings, person: str | None = None, since: date | None = None
) -> list[dict[str, Any]]:
    """Entries, the newest first; `since` is the first day, in UTC."""
    from callhouse import warehouse

    with warehouse.connect(settings, LOGIN) as connection:
        rows = connection.execute(
            f"select {', '.join(LISTED)} from trail.entries "  # noqa: S608
            "where (%(person)s::text is null or person = %(person)s) and (%(since)s::date is null "
            "or happened_at >= %(since)s::timestamp at time zone 'UTC') "
            "order by entry_id desc".encode(),
            {"person": person, "since": since},
        ).fetchall()
    return [dict(zip(LISTED, row, strict=True)) for row in rows]


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Two that collect at once would read the same lines."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _anchored_differently(
    connection: psycopg.Connection, anchors: Sequence[Any] | None
) -> str | None:
    """A look at the newest anchor, so that a rewritten chain is noticed within a minute."""
    if anchors:
        row = connection.execute(
            "select hash from trail.entries where entry_id = %s", [anchors[-1].entry_id]
        ).fetchone()
        is_same = row is not None and bytes(row[0]).hex() == anchors[-1].hash
    else:
        row = connection.execute("select 1 from trail.entries limit 1").fetchone()
        is_same = row is None
    return (
        None
        if is_same
        else "the trail is not as it was anchored: `./callhouse audit-trail verify` names the entry"
    )


# --------------------------------------------------------------------------------- appending
def _position(connection: psycopg.Connection, source: str) -> dict[str, int]:
    row = connection.execute(
        "select position from trail.positions where source = %s", [source]
    ).fetchone()
    return dict(row[0]) if row else {}


def _append(
    connection: psycopg.Connection, source: str, position: dict[str, int], new: Sequence[Entry]
) -> int:
    from callhouse import warehouse

    rows = [
        {k: _storable(v) if isinstance(v, str) else v for k, v in asdict(entry).items()}
        for entry in new
    ]
    count = warehouse.one(
        connection, "select trail.append(%s, %s, %s)",
        [source, json.dumps(position), json.dumps(rows, ensure_ascii=False)],
    )[0]  # fmt: skip
    connection.commit()
    return int(count)


def _storable(text: str) -> str:
    """PostgreSQL's texts have no NUL and no half of a surrogate pair."""
    return text.replace("\x00", "�").encode("utf-8", "replace").decode()


def _follow(
    connection: psycopg.Connection, source: str, files: dict[str, int], read: Read, parse: Parse,
    problems: list[str],
) -> int:  # fmt: skip
    """Append what is new in `files` (name: size), each complete line once; returns how many.

    Entry and position are one transaction: a kill in between repeats nothing.
    """
    added = 0
    known = _position(connection, source)
    position = {name: known.get(name, 0) for name in files}
    for name, size in sorted(files.items()):
        if size < position[name]:
            problems.append(
                f"{name} was {position[name]} bytes long and has {size}: lines of it were removed"
            )
            continue
        length = PIECE
        while position[name] < size:
            piece = read(name, position[name], min(length, size - position[name]))
            complete = piece.rfind(b"\n") + 1
            if not complete:
                if len(piece) < length:
                    break  # the line is still being written
                length *= 2
                continue
            place, found = position[name], []
            for line in piece[:complete].split(b"\n")[:-1]:
                if entry := parse(line, f"{name}:{place}"):
                    found.append(entry)
                place += len(line) + 1
            position[name] = place
            added += _append(connection, source, position, found)
    return added


def _remove_old_logs(settings: Settings, connection: psycopg.Connection) -> None:
    """Logs on this machine that have been read to their end and that nobody writes any more."""
    from callhouse.runner import postgres
    from callhouse.security.trail import journal

    servers = [directory / "log" for directory in postgres.data_directories(settings)]
    for source, folders in (("postgres", servers), ("journal", [journal.directory(settings)])):
        read = _position(connection, source)
        for folder in folders:
            for file in folder.glob("*.json*"):
                about = file.stat()
                is_old = about.st_mtime < time.time() - LOG_DAYS * 86400
                if is_old and read.get(file.name) == about.st_size:
                    file.unlink()
                    file.with_suffix(".log").unlink(missing_ok=True)


# ---------------------------------------------------------------------------------- sources
def _server_log(connection: psycopg.Connection, problems: list[str]) -> int:
    """PostgreSQL's own log, through the server: it may be on another machine."""
    from callhouse import warehouse
    from callhouse.security.trail.entries import of_server

    services = frozenset((*warehouse.SERVICE_LOGINS, "postgres"))
    files = {
        str(name): int(size)
        for name, size in connection.execute("select file, bytes from trail.log_files()").fetchall()
    }
    if not files:
        problems.append(
            "the server writes no log that can be read: set logging_collector = on and "
            "log_destination = jsonlog, and restart it"
        )

    def read(name: str, start: int, length: int) -> bytes:
        return bytes(
            warehouse.one(connection, "select trail.read_log(%s, %s, %s)", [name, start, length])[0]
        )

    def parse(line: bytes, position: str) -> Entry | None:
        return of_server(line, position, services)

    return _follow(connection, "postgres", files, read, parse, problems)


def _journals(settings: Settings, connection: psycopg.Connection, problems: list[str]) -> int:
    from callhouse.security.trail import journal
    from callhouse.security.trail.entries import of_journal

    folder = journal.directory(settings)

    def read(name: str, start: int, length: int) -> bytes:
        with (folder / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def parse(line: bytes, position: str) -> Entry | None:
        return of_journal(line, position, position.partition("-")[0])

    files = {file.name: file.stat().st_size for file in folder.glob("*-*.jsonl")}
    return _follow(connection, "journal", files, read, parse, problems)


def _airflow(settings: Settings, connection: psycopg.Connection) -> int:
    """What people did by Airflow's pages, API and commands, and their log-ins, from its tables."""
    import psycopg

    from callhouse.security.trail.entries import Entry, masked

    position = _position(connection, "airflow")
    with psycopg.connect(
        settings.dsn("airflow", "airflow"), connect_timeout=10,
        options="-c default_transaction_read_only=on",
    ) as airflow:  # fmt: skip
        there = airflow.execute("select to_regclass('log') is not null").fetchone()
        if not (there and there[0]):
            return 0  # not prepared yet
        rows = airflow.execute(
            "select id, dttm, owner, event, concat_ws(' ', dag_id, run_id, task_id), extra "  # noqa: S608
            f"from log where id > %s and {OF_PEOPLE} order by id".encode(),
            [position.get("log", 0) - LOOK_BACK],
        ).fetchall()
        # Airflow tells of log-ins only by counting them; failed ones since the last that went well.
        people = airflow.execute(
            "select username, coalesce(login_count, 0), coalesce(fail_login_count, 0), "
            "coalesce(last_login, now() at time zone 'UTC') at time zone 'UTC' from ab_user"
        ).fetchall()
    found = [
        Entry(
            happened_at=when.isoformat(), origin="airflow", action=event, person=who,
            object_name=what or None, statement=masked(extra or "") or None,
            source_position=f"airflow.log:{number}",
        )
        for number, when, who, event, what, extra in rows
    ]  # fmt: skip
    position["log"] = max((position.get("log", 0), *(row[0] for row in rows)))
    for name, logins, failures, when in people:
        counted = position.get(f"logins of {name}", 0)
        found += [
            Entry(
                happened_at=when.isoformat(), origin="airflow", action="login", person=name,
                source_position=f"airflow.ab_user:{name}:{number}",
            )
            for number in range(counted + 1, logins + 1)
        ]  # fmt: skip
        failed = position.get(f"failures of {name}", 0) if counted == logins else 0
        found += [
            Entry(
                happened_at=datetime.now(UTC).isoformat(), origin="airflow", action="login_failed",
                person=name, outcome="refused",
                source_position=f"airflow.ab_user:{name}:{logins}:{number}",
            )
            for number in range(failed + 1, failures + 1)
        ]  # fmt: skip
        position |= {f"logins of {name}": logins, f"failures of {name}": failures}
    return _append(connection, "airflow", position, found)


def oldest_in_airflow(settings: Settings) -> datetime | None:
    """When the oldest entry of Airflow's log happened that is not collected yet; None: all are."""
    import psycopg

    from callhouse import warehouse

    with warehouse.connect(settings, LOGIN) as connection:
        taken = _position(connection, "airflow").get("log", 0)
    with psycopg.connect(settings.dsn("airflow", "airflow"), connect_timeout=10) as airflow:
        oldest: datetime | None = warehouse.one(
            airflow,
            f"select min(dttm) from log where id > %s and {OF_PEOPLE}",  # noqa: S608
            [taken],
        )[0]
    return oldest


def _dbt(connection: psycopg.Connection) -> int:
    """Builds that have ended."""
    from callhouse.security.trail.entries import Entry, masked

    known = _position(connection, "dbt").get("build", 0)
    rows = connection.execute(
        "select build_id, coalesce(published_at, audited_at, built_at, started_at), lane, status, "
        "problem from ops.builds where build_id > %s "
        "and status in ('published', 'held', 'abandoned', 'failed') order by build_id",
        [known - LOOK_BACK],
    ).fetchall()
    found = [
        Entry(
            happened_at=when.isoformat(), origin="dbt", action="build", person="callhouse_pipeline",
            object_name=lane, statement=masked(problem or "") or None, outcome=status,
            source_position=f"ops.builds:{number}",
        )
        for number, when, lane, status, problem in rows
    ]  # fmt: skip
    newest = max((known, *(row[0] for row in rows)))
    return _append(connection, "dbt", {"build": newest}, found)
