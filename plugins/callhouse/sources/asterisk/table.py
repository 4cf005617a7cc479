"""The realtime table `queue_log` of an exchange's database, read as the lines of a file.

An hour of the table is to landing what an object is in object storage: listed with a version that
changes with its content, fetched whole, and again when rows were added, however late.
"""

from __future__ import annotations

import datetime
import re
import tempfile
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources.asterisk.dialects import DIALECTS, ERRORS, Dialect
from callhouse.sources.storage import RemoteFile

ADDRESS = re.compile(
    rf"(?P<scheme>{'|'.join(DIALECTS)})://(?P<server>[^/?#\s]+/[^/?#\s]+)"
    r"/(?P<table>\w+(\.\w+)?)(/(?P<hour>\S+))?"
)
PASSWORD = re.compile(r"(//[^:/@]*):.*@")
NEEDED = ("time", "callid", "queuename", "agent", "event")
DATA = ("data1", "data2", "data3", "data4", "data5")
EPOCH = re.compile(r"([0-9]{9,11})(\.[0-9]*)?")


@dataclass(frozen=True)
class _Opened:
    """A table and how statements name what is in it: words of ADDRESS and of this module alone."""

    dialect: Dialect
    connection: Any
    table: str
    columns: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.dialect.name(self.table)

    @property
    def read(self) -> list[str]:
        """Columns in the order of a line."""
        return [*NEEDED, *(name for name in ("data", *DATA) if name in self.columns)]

    @property
    def row(self) -> str:
        return self.dialect.row(self.read)

    def time(self, expression: str) -> str:
        return self.dialect.text(expression, self.columns["time"])

    def rows(self, statement: str, *values: str) -> Iterator[Sequence[Any]]:
        with self.dialect.cursor(self.connection) as rows:
            rows.execute(statement, values)
            yield from rows


class Table:
    """The table at an address, whose password is in no mapping and no message."""

    def __init__(self, settings: Settings, zone: str) -> None:
        self.settings, self.zone = settings, zoneinfo.ZoneInfo(zone)

    def files(self, address: str, since: datetime.date | None = None) -> list[RemoteFile]:
        """Its hours, oldest first; where it can be told, without days before `since`."""
        match = _parsed(address)
        base = address.removesuffix(f"/{match['hour']}") if match["hour"] else address.rstrip("/")
        with self._opened(match) as table:
            ((style,),) = table.rows(
                f"select {table.time('max(time)')} from {table.name}"  # noqa: S608 (see _Opened)
            )
            start = _start(style or "", since) if since else None
            found = table.rows(
                f"select {table.dialect.hour}, count(*), {table.dialect.checksum}, "  # noqa: S608
                "sum(octet_length(content)) "
                f"from (select {table.time('time')} as moment, {table.row} as content "
                f"from {table.name} as t where {'time >= %s' if start else 'true'}) as r "
                "group by 1 order by 1",
                *([start] if start else []),
            )
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
                self._opened(match) as table,
                # Bytes that are no text are written as they came, as the exchange would.
                path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as lines,
            ):
                # What an index on `time` understands.
                limits = _limits(match["hour"])
                around = "time >= %s and time < %s" if limits else "true"
                cells = ", ".join(table.dialect.cell.format(name) for name in table.read[1:])
                rows = table.rows(
                    f"{table.dialect.select} moment, {', '.join(table.read[1:])} "  # noqa: S608
                    f"from (select {table.time('time')} as moment, {cells}, "
                    f"{'id' if 'id' in table.columns else table.row} as place "
                    f"from {table.name} as t where {around}) as r "
                    f"where {table.dialect.hour} = %s order by moment, place",
                    *limits,
                    match["hour"],
                )
                for row in rows:
                    lines.write(self.line(row))
            yield path

    def line(self, row: Sequence[str | bytes | None]) -> str:
        """The line of a file for a row: time, callid, queuename, agent, event, data fields."""
        time, *cells = (_text(cell).strip() for cell in row)
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
    def _opened(self, match: re.Match[str]) -> Iterator[_Opened]:
        dialect = DIALECTS[match["scheme"]]
        server = f"{dialect.scheme}://{match['server']}"
        where = f"{server}/{match['table']}"
        try:
            with dialect.connected(self.settings, server) as connection:
                columns = dialect.columns(connection, match["table"])
                missing = [name for name in NEEDED if name not in columns]
                if not columns:
                    raise CallhouseError(f"{where}: there is no such table: correct the address")
                if missing or not columns.keys() & {"data", *DATA}:
                    raise CallhouseError(
                        f"{where} is no queue_log: column {(missing or ['data1'])[0]} is missing"
                    )
                yield _Opened(dialect, connection, match["table"], columns)
        except ERRORS as error:
            reason = " ".join(str(error.args[-1] if error.args else error).split())[:200]
            raise CallhouseError(
                f"{where} cannot be read ({reason}): check the address, the reader's grants and "
                f"its password in {dialect.password_file}"
            ) from None


def _text(cell: str | bytes | None) -> str:
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell or ""


def _parsed(address: str) -> re.Match[str]:
    scheme = DIALECTS[address.partition("://")[0]]
    if PASSWORD.search(address):
        raise CallhouseError(f"an address may hold no password: put it into {scheme.password_file}")
    match = ADDRESS.fullmatch(address.rstrip("/"))
    if match is None:
        raise CallhouseError(
            f"{address} is no address of a table: write {scheme.scheme}://user@host/database/table"
        )
    return match


def _limits(hour: str) -> tuple[str, ...]:
    """Times around an hour, as its table writes them; none where that cannot be told."""
    if re.fullmatch("[0-9]{5,7}", hour):
        limits = f"{hour}0000", f"{int(hour) + 1}0000"
        return limits if len(limits[0]) == len(limits[1]) else ()  # else text is in other order
    try:
        day = datetime.date.fromisoformat(hour[:10])
        return day.isoformat(), (day + datetime.timedelta(days=1)).isoformat()
    except (ValueError, OverflowError):
        return ()


def _start(style: str, since: datetime.date) -> str | None:
    """The beginning of `since` in every zone, as the table writes times such as `style`.

    It is also the beginning of an hour: one that is cut would look like one that has changed.
    """
    day = since - datetime.timedelta(days=1)
    if EPOCH.fullmatch(style):
        midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
        return str(int(midnight.timestamp()) // 10_000 * 10_000)
    return day.isoformat() if re.match("[0-9]{4}-", style) else None
