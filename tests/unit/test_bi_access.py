"""Whose login a Superset query uses, and what of it is logged."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from callhouse import settings as settings_module
from callhouse.bi import superset_access
from callhouse.errors import CallhouseError
from callhouse.security import login_password
from callhouse.settings import Settings


@dataclass(frozen=True)
class Url:
    """What the mutator needs of SQLAlchemy's URL."""

    username: str
    password: str | None = None
    host: str = "warehouse"
    port: int | None = None
    database: str = "callhouse"

    def set(self, **values: Any) -> Url:
        return replace(self, **values)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path), "CALLHOUSE_PORT_BASE": "9000"})


def mutate(
    home: Settings, person: str | None, url: Url | None = None
) -> tuple[Url, dict[str, Any]]:
    mutator = superset_access.connection_mutator(home)
    stored = url or Url(superset_access.SERVICE_LOGIN)
    return mutator(stored, {"connect_args": {"sslmode": "disable"}}, person, None, None)


def test_query_runs_as_the_person(home: Settings) -> None:
    url, params = mutate(home, "manager_gd")
    assert url.username == "manager_gd"
    assert url.password == login_password(home, "manager_gd")
    assert (url.host, url.port) == ("127.0.0.1", 9032)
    assert params["poolclass"].__name__ == "NullPool"
    assert params["connect_args"]["sslmode"] == "disable"


def test_two_people_never_share_a_password(home: Settings) -> None:
    assert mutate(home, "director")[0].password != mutate(home, "manager_gd")[0].password


@pytest.mark.parametrize("person", [None, "admin"])
def test_without_a_person_the_login_has_no_entitlement(home: Settings, person: str | None) -> None:
    url, _ = mutate(home, person)
    assert url.username == "callhouse_superset"
    assert url.password == home.secret("callhouse_superset_password")


@pytest.mark.parametrize("person", ["postgres", "callhouse_pipeline", "superset", "Robert'); --"])
def test_user_named_like_a_service_gets_no_connection(home: Settings, person: str) -> None:
    with pytest.raises(CallhouseError, match="cannot be a person's login"):
        mutate(home, person)


def test_other_databases_are_left_alone(home: Settings) -> None:
    other = Url("someone", "word", "elsewhere")
    assert mutate(home, "director", other)[0] is other


def test_query_log_shows_login_and_no_password(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="callhouse.query"):
        superset_access.log_query(Url("director", "s3cret"), "select\n  1", "bi", "client", None)
    assert caplog.messages == ["login=director schema=bi sql=select 1"]


def test_query_log_understands_the_text_that_sql_lab_gives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "postgresql+psycopg2://analyst:s3cret@127.0.0.1:9032/callhouse"
    with caplog.at_level(logging.INFO, logger="callhouse.query"):
        superset_access.log_query(text, "select 1", "bi")
    assert caplog.messages == ["login=analyst schema=bi sql=select 1"]
