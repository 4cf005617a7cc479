"""Who a Superset query runs as. Imported by superset_config.py: no Superset, Airflow or psycopg."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password
from callhouse.settings import Settings

# Stored in the connection "Callhouse"; member of the readers without any entitlement: 0 rows.
SERVICE_LOGIN = "callhouse_superset"
WAREHOUSE = "callhouse"
# Superset's administrator is no person of the warehouse: boards open for it, without a row.
ADMINISTRATOR = "admin"
STORED_URI = f"postgresql+psycopg2://{SERVICE_LOGIN}@warehouse/{WAREHOUSE}"

Mutator = Callable[[Any, dict[str, Any], str | None, Any, Any], tuple[Any, dict[str, Any]]]

_log = logging.getLogger("callhouse.query")


def connection_mutator(settings: Settings) -> Mutator:
    """DB_CONNECTION_MUTATOR: replaces the stored login by that of the person who asks.

    Without a person (background work) and for Superset's administrator the query runs as
    `SERVICE_LOGIN`, to which row security gives nothing. Any other user who is no person of the
    warehouse cannot connect.
    """

    def mutate(
        url: Any, params: dict[str, Any], username: str | None, _security: Any, _source: Any
    ) -> tuple[Any, dict[str, Any]]:
        if url.username != SERVICE_LOGIN:
            return url, params
        from sqlalchemy.pool import NullPool

        if username and username != ADMINISTRATOR:
            login, password = username, login_password(settings, check_person(username))
        else:
            login, password = SERVICE_LOGIN, settings.secret(f"{SERVICE_LOGIN}_password")
        mutated = url.set(
            username=login,
            password=password,
            host=settings.database_host,
            port=settings.postgres_port,
            database=WAREHOUSE,
        )
        arguments = {
            **params.get("connect_args", {}),
            "application_name": "callhouse superset",
            "connect_timeout": 10,
        }
        # A pooled connection could be handed to the next person.
        return mutated, {**params, "poolclass": NullPool, "connect_args": arguments}

    return mutate


@contextmanager
def personal_connection(settings: Settings, user: str) -> Iterator[Any]:
    """A connection as the person who is logged in; CallhouseError for who is no person here."""
    person = check_person(user)
    with _connection(settings, person, login_password(settings, person)) as connection:
        yield connection


@contextmanager
def service_connection(settings: Settings) -> Iterator[Any]:
    """A connection that reads what is told to everybody, and no row of a call."""
    password = settings.secret(f"{SERVICE_LOGIN}_password")
    with _connection(settings, SERVICE_LOGIN, password) as connection:
        yield connection


@contextmanager
def _connection(settings: Settings, login: str, password: str) -> Iterator[Any]:
    import psycopg2

    try:
        connection = psycopg2.connect(
            host=settings.database_host, port=settings.postgres_port, dbname=WAREHOUSE,
            user=login, password=password, connect_timeout=10,
            application_name="callhouse superset",
        )  # fmt: skip
    except psycopg2.OperationalError:
        raise CallhouseError(f"{login!r} has no login here") from None
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def log_query(url: Any, query: str, schema: str | None = None, *_: Any, **__: Any) -> None:
    """QUERY_LOGGER: one line per query with the login; `str(url)` would show the password.

    Charts hand over SQLAlchemy's URL, SQL Lab its text.
    """
    login = urlsplit(url).username if isinstance(url, str) else url.username
    _log.info("login=%s schema=%s sql=%s", login, schema, " ".join(query.split())[:2000])


def no_uploads(_database: Any, _user: Any) -> list[str]:
    """ALLOWED_USER_CSV_SCHEMA_FUNC: files enter by landing only."""
    return []
