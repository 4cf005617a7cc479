"""The realtime table `queue_log` of a PostgreSQL, read as the lines that a file would have.

An hour of the table is to landing what an object is in object storage: listed with a version that
changes with its content, fetched whole, and again when rows were added, however late.
"""

from __future__ import annotations

import datetime
import re
import tempfile
import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources.storage import RemoteFile

ADDRESS = re.compile(
    r"postgres(ql)?://(?P<server>[^/?#\s]+/[^/?#\s]+)/(?P<table>\w+(\.\w+)?)(/(?P<hour>\S+))?"
)
NEEDED = ("time", "callid", "queuename", "agent", "event")
DATA = ("data1", "data2", "data3", "data4", "data5")
EPOCH = re.compile(r"([0-9]{9,11})(\.[0-9]*)?")
# Text orders and cuts either way of writing times: 2026-11-02 10…, or ten thousand epoch seconds.
HOUR = sql.SQL(
    "case when time::text ~ '^[0-9]{{4}}-' then translate(left(time::text, 13), ' ', 'T') "
    "when time::text ~ '^[0-9]{{9,11}}([.]|$)' then left(split_part(time::text, '.', 1), -4) "
    "else 'unreadable' end"
).format()
FETCHED_ROWS = 20_000


class Table:
    """The table at an address. libpq finds the password: it is in no mapping and no message."""

    def __init__(self, settings: Settings, zone: str) -> None:
        self.settings, self.zone = settings, zoneinfo.ZoneInfo(zone)

    def files(self, address: str, since: datetime.date | None = None) -> list[RemoteFile]:
        """Its hours, oldest first; where it can be told, without days before `since`."""
        match = _parsed(address)
        base = address.removesuffix(f"/{match['hour']}") if match["hour"] else address.rstrip("/")
        with self._opened(match) as (connection, table, _columns):
            (style,) = warehouse.one(
                connection, sql.SQL("select max(time)::text from {}").format(table)
            )
            start = _start(style or "", since) if since else None
            found = connection.execute(
                sql.SQL(
                    "select {hour}, count(*), sum(hashtextextended(t::text, 0)::numeric)::text, "
                    "sum(octet_length(t::text)) from {table} as t where {since} "
                    "group by 1 order by 1"
                ).format(
                    hour=HOUR,
                    table=table,
                    since=sql.SQL("time >= {}").format(sql.Literal(start))
                    if start
                    else sql.SQL("true"),
                )
            ).fetchall()
        return [
            RemoteFile(f"{base}/{hour}", int(size), f"{count}:{checksum}")
            for hour, count, checksum, size in found
            if match["hour"] in (None, hour)
        ]

    @contextmanager
    def fetched(self, file: RemoteFile) -> Iterator[Path]:
        """The hour as a queue log, which is removed afterwards."""
        match = _parsed(file.address)
        downloads = self.settings.home / "downloads"
        downloads.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=downloads) as folder:
            path = Path(folder) / f"{match['table']}-{match['hour']}"
            with (
                self._opened(match) as (connection, table, columns),
                path.open("w", encoding="utf-8", newline="") as lines,
                connection.cursor("queue_log") as rows,
            ):
                rows.itersize = FETCHED_ROWS
                names = [*NEEDED, *(name for name in ("data", *DATA) if name in columns)]
                rows.execute(
                    sql.SQL(
                        "select {cells} from {table} as t where {hour} = {wanted} "
                        "order by time::text, {position}"
                    ).format(
                        cells=sql.SQL(", ").join(
                            sql.SQL("{}::text").format(sql.Identifier(name)) for name in names
                        ),
                        table=table,
                        hour=HOUR,
                        wanted=sql.Literal(match["hour"]),
                        position=sql.SQL("id" if "id" in columns else "t::text"),
                    )
                )
                for row in rows:
                    lines.write(self.line(row))
            yield path

    def line(self, row: Sequence[str | None]) -> str:
        """The line of a file for a row: time, callid, queuename, agent, event, data fields."""
        time, *cells = ((cell or "").strip() for cell in row)
        moment = EPOCH.fullmatch(time)
        if moment:
            time = moment[1]
        else:
            try:
                stamp = datetime.datetime.fromisoformat(time)
                time = str(int(stamp.replace(tzinfo=stamp.tzinfo or self.zone).timestamp()))
            except ValueError:
                pass  # not a time: the line goes to quarantine as it is
        text = "|".join((time, *cells)).replace("\r", " ").replace("\n", " ")
        return text.rstrip("| ") + "\n"

    @contextmanager
    def _opened(
        self, match: re.Match[str]
    ) -> Iterator[tuple[psycopg.Connection, sql.Identifier, set[str]]]:
        address = f"postgresql://{match['server']}"
        where = f"{address}/{match['table']}"
        try:
            with psycopg.connect(
                address,
                connect_timeout=10,
                options="-c default_transaction_read_only=on -c timezone=UTC",
            ) as connection:
                table = sql.Identifier(*match["table"].split("."))
                columns = {
                    name
                    for (name,) in connection.execute(
                        "select attname from pg_attribute where attrelid = to_regclass(%s) "
                        "and attnum > 0 and not attisdropped",
                        [match["table"]],
                    )
                }
                missing = [name for name in NEEDED if name not in columns]
                if not columns:
                    raise CallhouseError(f"{where}: there is no such table: correct the address")
                if missing or not columns & {"data", *DATA}:
                    raise CallhouseError(
                        f"{where} is no queue_log: column {(missing or ['data1'])[0]} is missing"
                    )
                yield connection, table, columns
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise CallhouseError(
                f"{where} cannot be read ({reason}): check the address, the reader's grants and "
                "its password in the password file (PGPASSFILE)"
            ) from None


def _parsed(address: str) -> re.Match[str]:
    match = ADDRESS.fullmatch(address.rstrip("/"))
    if match is None:
        shown = re.sub(r":[^:@/]*@", ":…@", address)
        raise CallhouseError(
            f"{shown} is no address of a table: write postgresql://user@host/database/table"
        )
    if urlsplit(address).password:
        raise CallhouseError(
            "an address may hold no password: put it into the password file (PGPASSFILE)"
        )
    return match


def _start(style: str, since: datetime.date) -> str | None:
    """The beginning of `since` in every zone, as the table writes times such as `style`.

    It is also the beginning of an hour: one that is cut would look like one that has changed.
    """
    day = since - datetime.timedelta(days=1)
    if EPOCH.fullmatch(style):
        midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
        return str(int(midnight.timestamp()) // 10_000 * 10_000)
    return day.isoformat() if re.match("[0-9]{4}-", style) else None
