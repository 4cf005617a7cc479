"""The warehouse database: connections, roles, schemas and the SQL functions that guard it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from callhouse.errors import CallhouseError
from callhouse.settings import Settings

HERE = Path(__file__).parent
SCRIPTS = (
    "schema.sql", "access.sql", "publish.sql", "ledger.sql", "capture.sql", "live.sql",
    "alerts.sql", "trail.sql", "reports.sql", "annotations.sql", "reviews.sql",
)  # fmt: skip
# Of the scripts as a whole: what runs meanwhile may hold what they replace, and wait for the rest.
SCRIPT_ATTEMPTS = 5
# Service logins; people get their own (see callhouse.security).
SERVICE_LOGINS = (
    "callhouse_pipeline", "callhouse_superset", "callhouse_trail", "airflow", "superset",
)  # fmt: skip
GROUPS = ("callhouse_owner", "callhouse_reader", "callhouse_trail_owner")
DATABASES = {"callhouse": "callhouse_owner", "airflow": "airflow", "superset": "superset"}


@contextmanager
def connect(
    settings: Settings, user: str = "callhouse_pipeline", *, autocommit: bool = False
) -> Iterator[psycopg.Connection]:
    """A connection to the warehouse as a service login; commits when the block ends well.

    A server that goes away, or whose disk is full, within the block is told in one sentence.
    """
    connection = opened(settings, user, autocommit=autocommit)
    try:
        with connection:
            yield connection
    except psycopg.OperationalError as error:
        raise CallhouseError(
            f"the warehouse at {settings.database_host}:{settings.postgres_port} failed meanwhile "
            f"({' '.join(str(error).split())[:200]}): what was not complete is undone, so repeat "
            "the command; `./callhouse doctor` says whether the server is back"
        ) from error


def opened(
    settings: Settings, user: str = "callhouse_pipeline", *, autocommit: bool = False
) -> psycopg.Connection:
    """The same for the caller to close. Raises CallhouseError where there is no server."""
    try:
        return psycopg.connect(settings.dsn(user), autocommit=autocommit, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise CallhouseError(
            f"no warehouse at {settings.database_host}:{settings.postgres_port} "
            f"({str(error).strip().splitlines()[-1]}): run `make up`, or `./callhouse doctor`"
        ) from None


def one(
    connection: psycopg.Connection, statement: str | sql.Composed, parameters: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """The one row that `statement` must give."""
    query = statement.encode() if isinstance(statement, str) else statement
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError(f"no row for {statement!r}")
    return tuple(row)


@contextmanager
def connect_as(settings: Settings, person: str, password: str) -> Iterator[psycopg.Connection]:
    """A connection with a person's own login: row security decides what it reads."""
    address = f"host={settings.database_host} port={settings.postgres_port} dbname=callhouse"
    try:
        connection = psycopg.connect(address, user=person, password=password, connect_timeout=10)
    except psycopg.OperationalError:
        raise CallhouseError(
            f"{person!r} has no login here: `./callhouse access list` shows who has"
        ) from None
    with connection:
        yield connection


def bootstrap(settings: Settings, superuser_dsn: str) -> None:
    """Create roles, databases and schemas, or bring them up to date. Safe to repeat."""
    with psycopg.connect(superuser_dsn, dbname="postgres", autocommit=True) as server:
        for group in GROUPS:
            _ensure_role(server, group, "nologin")
        for login in SERVICE_LOGINS:
            _ensure_role(server, login, "login", settings.secret(f"{login}_password"))
        server.execute("grant callhouse_owner to callhouse_pipeline")
        server.execute("grant callhouse_reader to callhouse_superset")
        for database, owner in DATABASES.items():
            known = server.execute("select 1 from pg_database where datname = %s", [database])
            if known.fetchone() is None:
                server.execute(
                    sql.SQL("create database {} owner {}").format(
                        sql.Identifier(database), sql.Identifier(owner)
                    )
                )
            server.execute(
                sql.SQL("revoke connect on database {} from public").format(
                    sql.Identifier(database)
                )
            )
        server.execute(
            "grant connect on database callhouse to callhouse_pipeline, callhouse_reader"
        )
    for attempt in range(1, SCRIPT_ATTEMPTS + 1):
        try:
            with psycopg.connect(superuser_dsn, dbname="callhouse") as warehouse:
                for name in SCRIPTS:
                    warehouse.execute((HERE / name).read_text(encoding="utf-8").encode())
        except psycopg.errors.DeadlockDetected:
            if attempt == SCRIPT_ATTEMPTS:
                raise CallhouseError(
                    "the warehouse is too busy to be brought up to date: repeat the command"
                ) from None
        else:
            break


def _ensure_role(
    server: psycopg.Connection, name: str, kind: str, password: str | None = None
) -> None:
    known = server.execute("select 1 from pg_roles where rolname = %s", [name]).fetchone()
    verb = sql.SQL("alter role" if known else "create role")
    statement = sql.SQL("{} {} {} nosuperuser").format(verb, sql.Identifier(name), sql.SQL(kind))
    if password:
        statement += sql.SQL(" password {}").format(sql.Literal(password))
    server.execute(statement)
