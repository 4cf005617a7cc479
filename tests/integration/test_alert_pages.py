"""The page of an alert: who sees it, who takes it up. With Superset's log-in and CSRF parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask, redirect
from flask_login import LoginManager, UserMixin, login_user
from flask_wtf.csrf import CSRFProtect

from callhouse.alerts import link
from callhouse.bi import alert_pages
from callhouse.runner import postgres
from callhouse.security import people
from callhouse.settings import Settings

PEOPLE = (
    people.Person("director", "d", (("all", "*"),)),
    people.Person("lead_queue", "l", (("queue", "service"),), level="lead"),
    people.Person("lead_gz_a", "l", (("team", "GZ-A"),), level="lead"),
)


class User(UserMixin):  # type: ignore[misc]  # has no types
    def __init__(self, name: str) -> None:
        self.id = self.username = name


def application(settings: Settings) -> Flask:
    """Superset's parts around the page: log-in by session, and the check of its forms."""
    app = Flask("page")
    app.config.update(SECRET_KEY="x", TESTING=True)
    CSRFProtect(app)
    manager = LoginManager(app)
    manager.user_loader(User)

    @app.route("/as/<name>")
    def enter(name: str) -> Any:
        login_user(User(name))
        return redirect("/")

    alert_pages.serve(app, settings)
    return app


@pytest.fixture(scope="module")
def centre(settings: Settings, cluster: postgres.Cluster) -> Settings:
    with people.server(settings) as server:
        for person in PEOPLE:
            people.ensure(settings, server, person)
        server.execute(
            "insert into ops.alert_rules (rule, valid, metric, scope_type, scope_id, comparison,"
            " fire_at, clear_at, for_seconds, severity, owner, channels, reason, managed_by,"
            " entered_by) values ('long_queue', tstzrange(now(), null), 'waiting_now', 'queue',"
            " 'service', 'above', 10, 5, 0, 'critical', 'lead_queue', '{}',"
            " 'callers <b>give up</b>', 'command', 'x')"
        )
    return settings


@pytest.fixture
def alert_id(centre: Settings) -> Iterator[int]:
    """One that fires."""
    with psycopg.connect(centre.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "insert into ops.alerts (rule, rule_id, metric, scope_type, scope_id, scopes,"
            " comparison, fire_at, severity, owner, breached_at, opened_at, value)"
            " select rule, rule_id, metric, scope_type, scope_id, '{queue=service}', comparison,"
            " fire_at, severity, owner, now(), now(), 17 from ops.alert_rules returning alert_id"
        ).fetchone()
        assert row
        yield int(row[0])
        connection.execute("delete from ops.alerts")


def test_who_leads_there_takes_it_up_with_the_button(centre: Settings, alert_id: int) -> None:
    page = f"/alerts/{link.token(centre, alert_id)}"
    client = application(centre).test_client()
    stranger = client.get(page)
    assert (stranger.status_code, stranger.location) == (302, f"/login/?next={page}")
    client.get("/as/lead_queue")
    seen = client.get(page)
    assert seen.status_code == 200
    for text in ("Calls waiting, queue service: 17", "limit: 10 or more", "&lt;b&gt;give up",
                 "Nobody has taken it up yet", "I look after it"):  # fmt: skip
        assert text in seen.text
    assert client.post(page).status_code == 400  # a form of somebody else's page
    assert "Nobody has taken it up yet" in client.get(page).text  # looking is not taking up
    found = re.search(r'name="csrf_token" value="([^"]+)"', seen.text)
    assert found
    done = client.post(page, data={"csrf_token": found[1]})
    assert done.status_code == 200 and "You have taken it up" in done.text
    assert "<button" not in done.text
    client.get("/as/director")
    again = client.get(page).text
    assert "Taken up by lead_queue at" in again and "<button" not in again


def test_others_neither_see_it_nor_take_it_up(centre: Settings, alert_id: int) -> None:
    page = f"/alerts/{link.token(centre, alert_id)}"
    client = application(centre).test_client()
    client.get("/as/lead_queue")
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(page).text)
    assert found
    for name in ("lead_gz_a", "admin", "postgres", "no_such_person"):
        client.get(f"/as/{name}")
        for answer in (client.get(page), client.post(page, data={"csrf_token": found[1]})):
            assert answer.status_code == 403 and "outside what you may see" in answer.text
            assert "service" not in answer.text
    client.get("/as/director")
    assert "Nobody has taken it up yet" in client.get(page).text
    assert client.get(page + "0").status_code == 404
    assert client.get(f"/alerts/{alert_id}").status_code == 404


def test_it_speaks_chinese(centre: Settings, alert_id: int, tmp_path: Path) -> None:
    client = application(replace(centre, language="zh")).test_client()
    client.get("/as/lead_queue")
    text = client.get(f"/alerts/{link.token(centre, alert_id)}").text
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "[严重] 告警：排队通话数，技能组 service：17" in text and "由我处理" in text
