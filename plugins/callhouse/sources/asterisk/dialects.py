"""The servers that hold the table of an exchange: how each is reached, and how each says things.

Statements of the reader name a row's time as text `moment`, and its whole content `content`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
from pymysql.constants import ER, FIELD_TYPE
from pymysql.cursors import SSCursor

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

FETCHED_ROWS = 20_000
# Such a silence is no long look at a large table any more: the server is gone.
SILENCE_SECONDS = 3_600
# Option files as MySQL reads them, whose own clients understand more than PyMySQL does.
OPTION = re.compile(
    r"""(?P<name>[\w-]+)\s*(=\s*((?P<quote>["'])(?P<quoted>.*)(?P=quote)|(?P<plain>[^#]*?))\s*)?(#.*)?"""
)
ESCAPED = re.compile(r"\\([btnrs\\])")
ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "r": "\r", "s": " ", "\\": "\\"}


@dataclass(frozen=True)
class Dialect:
    """What the reader needs of a kind of server. Both drivers take `%s` for a value."""

    scheme: str
    password_file: str  # where a password belongs, in the words of a message
    connected: Callable[[Settings, str], AbstractContextManager[Any]]
    columns: Callable[[Any, str], Mapping[str, Any]]
    """Types of a table's columns by name; none if there is no such table."""
    cursor: Callable[[Any], Any]
    """One that keeps no more than a part of a long result."""
    quote: str
    text: Callable[[str, Any], str]
    """A time of a type as text; of an instant with its zone."""
    cell: str
    """A column as text, or as the bytes that were written."""
    row: Callable[[Sequence[str]], str]
    """A row of which these columns are read."""
    hour: str
    """By which a table is cut: a part of addresses, and of names of files.

    Text orders and cuts either way of writing times: 2026-11-02 10…, or ten thousand epoch seconds.
    """
    checksum: str
    """Of rows in whatever order."""
    select: str = "select"

    def name(self, table: str) -> str:
        """A table's name in a statement."""
        return ".".join(f"{self.quote}{part}{self.quote}" for part in table.split("."))


# -------------------------------------------------------------------------------- PostgreSQL
@contextmanager
def _postgresql(settings: Settings, server: str) -> Iterator[psycopg.Connection]:  # noqa: ARG001
    with psycopg.connect(
        server, connect_timeout=10, options="-c default_transaction_read_only=on -c timezone=UTC"
    ) as connection:
        yield connection


def _postgresql_columns(connection: psycopg.Connection, table: str) -> Mapping[str, Any]:
    rows = connection.execute(
        "select attname, atttypid from pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [table],
    )
    return dict(rows.fetchall())


def _postgresql_cursor(connection: psycopg.Connection) -> psycopg.ServerCursor[Any]:
    cursor = connection.cursor("queue_log")
    cursor.itersize = FETCHED_ROWS
    return cursor


POSTGRESQL = Dialect(
    scheme="postgresql",
    password_file="the password file (PGPASSFILE)",  # noqa: S106 (the place of one)
    connected=_postgresql,
    columns=_postgresql_columns,
    cursor=_postgresql_cursor,
    quote='"',
    text=lambda time, _kind: f"{time}::text",
    cell="{}::text",
    row=lambda _columns: "t::text",
    hour=(
        "case when moment ~ '^[0-9]{4}(-[0-9]{2}){2}([ T][0-9]{2}|$)' "
        "then translate(left(moment, 13), ' ', 'T') "
        "when moment ~ '^[0-9]{9,11}([.]|$)' then left(split_part(moment, '.', 1), -4) "
        "else 'unreadable' end"
    ),
    checksum="sum(hashtextextended(content, 0)::numeric)::text",
)


# -------------------------------------------------------------------------- MySQL and MariaDB
# Values as the server writes them: nothing is decoded on the way.
AS_WRITTEN: dict[Any, Any] = {**pymysql.converters.encoders}


@contextmanager
def _mysql(settings: Settings, server: str) -> Iterator[Any]:
    try:
        address = urlsplit(server)
        host, port = address.hostname or "", address.port or 3306
        options = _options(settings, host)
        connection = pymysql.connect(
            host=host,
            port=port,
            user=unquote(address.username or "") or options.get("user"),
            password=options.get("password", "").encode(),
            database=unquote(address.path.removeprefix("/")),
            charset="utf8mb4",
            # Whatever modes the server has: none that pads text or refuses a date of zeros.
            sql_mode="",
            init_command="set time_zone = '+00:00'",
            conv=AS_WRITTEN,
            connect_timeout=10,
            read_timeout=SILENCE_SECONDS,
            **_encryption(host, options),
        )
    except ValueError as error:  # no host, or no port
        raise pymysql.OperationalError(str(error)) from None
    except OSError as error:
        raise pymysql.OperationalError(f"ssl-ca, ssl-cert or ssl-key: {error}") from None
    with connection, connection.cursor() as cursor:
        # Only with this isolation the server makes a snapshot.
        cursor.execute("set session transaction isolation level repeatable read")
        cursor.execute("start transaction with consistent snapshot, read only")
        yield connection


def _options(settings: Settings, host: str) -> dict[str, str]:
    """Options of `[client]`; those of `[client_HOST]`, a group with a suffix, count before them."""
    file = settings.mysql_option_file
    groups: dict[str, dict[str, str]] = {"client": {}, f"client_{host}": {}}
    found: dict[str, str] = {}
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise CallhouseError(
            f"option file {file} cannot be read ({getattr(error, 'strerror', 'it is no text')}): "
            "check the file and its permissions"
        ) from None
    for line in map(str.strip, lines):
        if line.startswith("["):
            found = groups.get(line.strip("[] "), {})
        elif option := OPTION.fullmatch(line):
            value = option["quoted"] if option["quote"] else option["plain"] or ""
            found[option["name"].replace("_", "-")] = ESCAPED.sub(
                lambda escape: ESCAPES[escape[1]], value
            )
    return groups["client"] | groups[f"client_{host}"]


def _encryption(host: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Where the server offers it, but on the way to itself; certain and checked with `ssl-ca`."""
    if "ssl-ca" in options:
        return {
            "ssl_ca": options["ssl-ca"],
            "ssl_cert": options.get("ssl-cert"),
            "ssl_key": options.get("ssl-key"),
            "ssl_verify_cert": True,
            "ssl_verify_identity": "ssl-verify-server-cert" in options,
        }
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    return {"ssl_disabled": is_loopback}


def _mysql_columns(connection: Any, table: str) -> Mapping[str, Any]:
    # information_schema would hide what the reader may not read, as if it were not there.
    with connection.cursor() as cursor:
        try:
            cursor.execute(f"select * from {MYSQL.name(table)} limit 0")  # noqa: S608
        except pymysql.ProgrammingError as error:
            if error.args[0] == ER.NO_SUCH_TABLE:
                return {}
            raise
        return {name.lower(): kind for name, kind, *_rest in cursor.description}


def _mysql_text(time: str, kind: Any) -> str:
    # A timestamp is an instant, told in the session's zone; a datetime is what was written.
    told = f"concat({time}, '+00:00')" if kind == FIELD_TYPE.TIMESTAMP else time
    return f"convert({told} using utf8mb4) collate utf8mb4_bin"


def _mysql_row(columns: Sequence[str]) -> str:
    # As bytes, because columns of different character sets cannot always be joined.
    cells = ", ".join(f"coalesce(cast({name} as binary), '')" for name in columns)
    return f"concat_ws('|', {cells})"


MYSQL = Dialect(
    scheme="mysql",
    password_file="the option file (~/.my.cnf, CALLHOUSE_MYSQL_OPTION_FILE)",  # noqa: S106
    connected=_mysql,
    columns=_mysql_columns,
    cursor=lambda connection: connection.cursor(SSCursor),
    quote="`",
    text=_mysql_text,
    cell="{}",
    row=_mysql_row,
    hour=(
        "case when moment regexp '^[0-9]{4}(-[0-9]{2}){2}([ T][0-9]{2}|$)' "
        "then replace(left(moment, 13), ' ', 'T') "
        "when moment regexp '^[0-9]{9,11}([.]|$)' then left(moment, "
        "char_length(substring_index(moment, '.', 1)) - 4) "
        "else 'unreadable' end"
    ),
    checksum="sum(cast(conv(left(sha2(content, 256), 16), 16, 10) as decimal(20)))",
    # A result of its own: a MyISAM table is free again before its lines are fetched.
    select="select sql_buffer_result",
)

DIALECTS = {
    "postgresql": POSTGRESQL, "postgres": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL,
}  # fmt: skip
ERRORS = (psycopg.Error, pymysql.MySQLError)
