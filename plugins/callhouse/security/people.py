"""Creating people: entitlement rows and the personal Postgres login that row security reads."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from callhouse.errors import CallhouseError
from callhouse.security import check_person, login_password
from callhouse.settings import Settings

SCOPE_TYPES = ("all", "region", "team", "queue", "agent")


@dataclass(frozen=True)
class Person:
    """Someone who may look, and what they may see: pairs of scope type and id."""

    name: str
    label: str
    scopes: tuple[tuple[str, str], ...]
    is_demo: bool = False


DEMO_PEOPLE = (
    Person("director", "Director (sees everything)", (("all", "*"),), is_demo=True),
    Person("manager_gd", "Regional manager Guangdong", (("region", "CN-GD"),), is_demo=True),
)


def ensure(settings: Settings, server: psycopg.Connection, person: Person) -> None:
    """Create `person`'s login and entitlements, or bring them up to date.

    `server` is a superuser connection to the warehouse: only it may create logins.
    """
    check_person(person.name)
    for scope_type, _ in person.scopes:
        if scope_type not in SCOPE_TYPES:
            raise CallhouseError(f"{scope_type!r} is no scope: use one of {', '.join(SCOPE_TYPES)}")
    with server.transaction():
        name = sql.Identifier(person.name)
        known = server.execute("select 1 from pg_roles where rolname = %s", [person.name])
        if known.fetchone() is None:
            server.execute(sql.SQL("create role {} login").format(name))
        server.execute(
            sql.SQL("alter role {} nosuperuser nocreatedb nocreaterole password {}").format(
                name, sql.Literal(login_password(settings, person.name))
            )
        )
        server.execute(sql.SQL("grant callhouse_reader to {}").format(name))
        for setting, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "60s"),
            ("search_path", "bi"),
            ("log_min_duration_statement", "0"),  # the audit trail reads them from the log
        ):
            server.execute(
                sql.SQL("alter role {} set {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(value)
                )
            )
        server.execute(
            "insert into sec.people (person, label, is_demo) values (%s, %s, %s) "
            "on conflict (person) do update set label = excluded.label",
            [person.name, person.label, person.is_demo],
        )
        for scope_type, scope_id in person.scopes:
            server.execute(
                "insert into sec.entitlement (person, scope_type, scope_id, granted_by, reason) "
                "select %s, %s, %s, session_user, 'created with the person' where not exists ("
                " select 1 from sec.entitlement where person = %s and scope_type = %s"
                " and scope_id = %s and valid @> current_date)",
                [person.name, scope_type, scope_id, person.name, scope_type, scope_id],
            )
