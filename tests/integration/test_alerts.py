"""What fires, who is told and when it is over: everything at moments that are handed over."""

from __future__ import annotations

import email
import http.server
import json
import mailbox
import os
import random
import re
import signal
import subprocess
import threading
import time as clock
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from aiosmtpd.controller import Controller

from callhouse import capture, cli, warehouse
from callhouse.alerts import channels, notifier, rules
from callhouse.alerts import state as alerts
from callhouse.alerts.metrics import METRICS, PIPELINE
from callhouse.errors import CallhouseError
from callhouse.runner import components, diagnosis, health, postgres
from callhouse.security import login_password, people
from callhouse.settings import Settings
from callhouse.sources import document

SECOND = timedelta(seconds=1)
START = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)  # noon in Shanghai
PEOPLE = (
    people.Person("director", "d", (("all", "*"), ("queue", "cards"), ("queue", "loans"))),
    people.Person("lead_queue", "l", (("queue", "service"),), level="lead"),
    people.Person("manager_queue", "m", (("queue", "service"),)),
    people.Person("lead_gz_a", "l", (("team", "GZ-A"),), level="lead"),
    people.Person("agent_103", "a", (("agent", "103"),), level="agent"),
    people.Person("executive", "e", (("all", "*"),), level="executive"),
    people.Person("engineer", "e", (), level="engineer"),
    people.Person("nobody_yet", "n", ()),
)
GOOD: dict[str, Any] = {
    "rule": "long_queue", "metric": "waiting_now", "scope": "queue=service", "above": "10",
    "clear": "5", "severity": "critical", "owner": "lead_queue", "channels": ["mailbox"],
    "reason": "callers give up",
}  # fmt: skip


MEASURED: set[str] = set()  # metrics of the live lane


@dataclass
class Floor:
    """A warehouse whose floor reads what a test says, and whose messages go into a list."""

    settings: Settings
    connection: psycopg.Connection
    sent: list[tuple[str, str, str]] = field(default_factory=list)  # key, person, channel
    now: datetime = START

    def rule(self, **changes: Any) -> rules.Rule:
        given = {k: v for k, v in {**GOOD, **changes}.items() if v is not None}
        rule = rules.from_node(document.Node(Path("alerts.yaml"), "rules[1]", given))
        with self.connection.transaction():
            rules.add(self.connection, self.settings, rule, "tester", self.now)
        return rule

    def read(
        self, value: float | None, metric: str = "waiting_now", scope: str = "queue=service",
        seconds: float = 5, age: float = 0,
    ) -> list[str]:  # fmt: skip
        """The time goes on, the value is measured, everything is looked at once."""
        self.now += seconds * SECOND
        kind, _, name = scope.partition("=")
        with self.connection.transaction():
            self.connection.execute(
                "delete from live.metric_values where metric = %s and scope_type = %s"
                " and scope_id = %s",
                [metric, kind, name or "*"],
            )
            self.connection.execute(
                "insert into live.metric_values values (%s, %s, %s, %s, %s)",
                [metric, kind, name or "*", value, self.now - age * SECOND],
            )
        return self.look()

    def look(self, seconds: float = 0) -> list[str]:
        self.now += seconds * SECOND
        return [event for event, _ in notifier.look(self.connection, self.now)]

    def send(self, seconds: float = 0) -> list[str]:
        """Send until nothing is due; the keys that went out."""
        self.now += seconds * SECOND
        before = len(self.sent)
        while notifier.send_one(self.settings, self.connection, self.now):
            pass
        return [key for key, _, _ in self.sent[before:]]

    def told(self) -> list[tuple[str, str]]:
        """(kind, person) of what was sent."""
        return [(key.split("-")[2], person) for key, person, _ in self.sent]

    def ask(self, statement: str, *values: Any) -> list[Any]:
        return self.connection.execute(statement.encode(), values).fetchall()


@pytest.fixture(scope="module")
def centre(settings: Settings, cluster: postgres.Cluster) -> Settings:
    """People, and in the place of the live lane's view a table of its values."""
    with people.server(settings) as server:
        for person in PEOPLE:
            people.ensure(settings, server, person)
        (text,) = warehouse.one(server, "select pg_get_viewdef('live.metric_values'::regclass)")
        MEASURED.update(re.findall(r"\(\(?'([a-z0-9_]+)'::text,", text))
        server.execute("alter view live.metric_values rename to values_of_the_lane")
        server.execute(
            "create table live.metric_values (metric text, scope_type text, scope_id text, "
            "value numeric, measured_at timestamptz)"
        )
        server.execute("alter table live.metric_values owner to callhouse_owner")
    return settings


@pytest.fixture
def floor(centre: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    """Nothing fires yet and no rule holds."""
    with people.server(centre) as server:
        server.execute("set session_replication_role = replica")  # history may not be deleted
        for table in ("dead_letters", "notifications", "alerts", "alert_breaches", "alert_rules"):
            server.execute(f"delete from ops.{table}".encode())
        server.execute("delete from ops.alert_watch")
        for table in ("metric_values", "sources", "agent_states"):
            server.execute(f"delete from live.{table}".encode())
    with psycopg.connect(centre.dsn(), autocommit=True) as connection:
        floor = Floor(centre, connection)

        def deliver(_: Settings, channel: str, person: str, letter: channels.Letter) -> None:
            floor.sent.append((letter.key, person, channel))

        monkeypatch.setattr(channels, "deliver", deliver)
        yield floor


# ------------------------------------------------------------------------------ evaluation
def test_it_fires_once_and_is_over_once(floor: Floor) -> None:
    floor.rule(for_seconds="10")
    assert floor.read(10) == []  # at the limit, not for long enough
    assert floor.read(12) == []
    assert floor.read(11) == ["fired"]
    assert floor.read(30) == [] and floor.read(7) == [] and floor.read(11) == []
    assert floor.read(None) == []  # unknown is neither
    assert floor.read(6) == [] and floor.read(5) == ["resolved"] and floor.read(1) == []
    floor.send()
    assert floor.told() == [("fired", "lead_queue"), ("resolved", "lead_queue")]
    (row,) = floor.ask(
        "select value, resolved_value, resolution, extract(epoch from opened_at - breached_at)"
        " from ops.alerts"
    )
    assert [*row] == [11, 5, "cleared", 10]


def test_what_comes_and_goes_is_not_long_enough(floor: Floor) -> None:
    floor.rule(for_seconds="10")
    for value in (10, 10, 9, 10, 10, None, 10, 10):
        assert floor.read(value) == []
    assert floor.read(10) == ["fired"]
    floor.rule(rule="other", scope="queue=cards", owner="director", for_seconds="10")
    assert floor.read(10, scope="queue=cards") == []
    # Nobody looked for more than a minute: it may not have lasted.
    assert floor.read(10, scope="queue=cards", seconds=90) == []
    assert floor.read(10, scope="queue=cards", seconds=10) == ["fired"]


def test_an_old_value_is_unknown(floor: Floor) -> None:
    floor.rule()
    assert floor.read(20, age=130) == []
    assert floor.read(20) == ["fired"]
    assert floor.read(0, age=130) == []
    floor.ask("delete from live.metric_values returning 1")
    assert floor.look(5) == []  # a scope that is gone is unknown, too
    assert floor.read(0) == ["resolved"]


def test_every_metric_of_the_live_lane_can_be_watched(centre: Settings) -> None:
    floor = {name for name, metric in METRICS.items() if metric.scopes != PIPELINE}
    assert len(floor) == 18 and floor <= MEASURED
    assert MEASURED - floor <= {"all", "source", "queue", "team", "region", "agent"}


VISIT = {
    "source": "exchange", "call_id": "1", "visit_number": 1, "queue_id": "service",
    "queue_name": "", "agent_id": "none", "agent_name": "", "team_id": "none", "team_name": "",
    "region_code": "CN-GD", "region_name": "", "channel": "phone", "hotline_id": "h",
    "outcome": "incomplete", "calls_offered": 1, "calls_answered": 0, "calls_abandoned": 0,
    "answered_within_target": 0, "short_abandons": 0, "answered_waits": 0, "is_last": True,
}  # fmt: skip


def test_a_call_that_waits_on_the_live_floor_fires(floor: Floor) -> None:
    """By the lane's own view, as the notifier's login reads it."""
    now = datetime.now(UTC)
    floor.now = now - SECOND
    floor.rule(rule="queue", metric="longest_wait_seconds", above="120", clear="60")
    floor.rule(rule="centre", scope="all", above="1", clear="0", owner="director")
    visit = {
        **VISIT, "business_day": str(now.date()), "entered_at": str(now - 130 * SECOND)
    }  # fmt: skip
    floor.ask("insert into ops.sources values ('exchange', 'asterisk', 'x', 'UTC')"
              " on conflict (source) do update set label = 'x' returning 1")  # fmt: skip
    with floor.connection.transaction(force_rollback=True):
        floor.connection.execute("alter table live.metric_values rename to values_of_the_test")
        floor.connection.execute("alter view live.values_of_the_lane rename to metric_values")
        floor.ask("insert into live.sources values ('exchange', 'x', 'UTC', now(), now())"
                  " returning 1")  # fmt: skip
        floor.ask("insert into live.queue_visits select (jsonb_populate_record("
                  "null::live.queue_visits, %s)).* returning 1", json.dumps(visit))  # fmt: skip
        floor.now = now
        assert floor.look() == ["fired", "fired"]
        found = dict(floor.ask("select rule, value from ops.alerts"))
        assert found["centre"] == 1 and 130 <= found["queue"] < 190


def test_while_the_lane_is_silent_nothing_is_known_of_its_floor(floor: Floor) -> None:
    """Callers would wait longer and longer, as nobody tells of their end."""
    floor.rule()
    floor.rule(rule="team", metric="agents_break", scope="team=GZ-A", owner="lead_gz_a")
    floor.rule(rule="age", metric="data_age_seconds", scope="all", above="60", clear="15",
               owner="director")  # fmt: skip
    floor.ask("insert into ops.sources values ('exchange', 'asterisk', 'x', 'UTC')"
              " on conflict do nothing returning 1")  # fmt: skip
    floor.ask("insert into live.sources values ('exchange', 'x', 'UTC', %s, %s) returning 1",
              floor.now, floor.now)  # fmt: skip
    floor.ask("insert into live.agent_states values ('exchange', '103', %s, %s, current_date, 'a',"
              " 'GZ-A', 't', 'none', 'r', 'none', 'q', 'ready', null, null) returning 1",
              floor.now, floor.now)  # fmt: skip
    assert floor.read(20, "agents_break", "team=GZ-A", seconds=30) == ["fired"]
    assert floor.read(0, "agents_break", "team=GZ-A", seconds=31) == []  # silent by now
    assert floor.read(61, "data_age_seconds", "all") == ["fired"]
    assert floor.read(20) == ["fired"]  # of another lane
    floor.ask("update live.sources set looked_at = %s returning 1", floor.now)
    assert floor.read(0, "agents_break", "team=GZ-A") == ["resolved"]


def test_below_and_each_scope_by_itself(floor: Floor) -> None:
    floor.rule(
        metric="service_level_15min", scope="queue=*", above=None, below="0.6", clear="0.75",
        owner="scope", escalate_to="director",
    )  # fmt: skip
    level = "service_level_15min"
    assert floor.read(0.5, level) == ["fired"]
    assert floor.read(0.6, level, "queue=digital") == ["fired"]
    assert floor.read(0.7, level) == [] and floor.read(0.75, level) == ["resolved"]
    floor.send()
    # Nobody leads digital; of service the lead, not the manager, is told.
    assert floor.told() == [
        ("fired", "lead_queue"), ("fired", "director"), ("resolved", "lead_queue"),
    ]  # fmt: skip


def test_a_rule_of_one_scope_takes_the_place_of_the_rule_for_each(floor: Floor) -> None:
    floor.rule(rule="each", scope="queue=*", owner="director")
    assert floor.read(12) == ["fired"]
    floor.rule(rule="own", above="20", clear="15")
    assert floor.look(5) == ["resolved"]  # `each` does not watch it any more
    assert floor.read(14) == [] and floor.read(25) == ["fired"]
    assert floor.ask("select rule from ops.alerts where resolved_at is null") == [("own",)]


def verdict(value: float | None) -> str:
    return "unknown" if value is None else "fire" if value >= 10 else "over" if value <= 5 else ""


@pytest.mark.parametrize("seed", range(6))
def test_any_path_of_values_has_one_fire_and_one_end_an_excursion(
    floor: Floor, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Against a model by hand, with senders that are killed between any two steps."""
    draw = random.Random(seed)
    waits = {"service": 0, "cards": 10, "loans": 30}
    for queue, wait in waits.items():
        floor.rule(rule=f"rule_{queue}", scope=f"queue={queue}", for_seconds=str(wait),
                   owner="director")  # fmt: skip
    expected: list[str] = []
    since: dict[str, datetime | None] = dict.fromkeys(waits)
    firing = dict.fromkeys(waits, False)
    level = dict.fromkeys(waits, 3.0)

    def send_with_kills() -> None:
        """A sender dies after the claim, after the sending, or not at all."""
        real = channels.deliver

        def dying(settings: Settings, channel: str, person: str, letter: Any) -> str | None:
            fate = draw.random()
            if fate < 0.2:
                raise KeyboardInterrupt
            if fate < 0.3:
                return "the room is closed"
            failure = real(settings, channel, person, letter)
            if fate < 0.5:
                raise KeyboardInterrupt
            return failure

        with monkeypatch.context() as patched:
            patched.setattr(channels, "deliver", dying)
            try:
                while notifier.send_one(floor.settings, floor.connection, floor.now):
                    pass
            except KeyboardInterrupt:
                pass

    for _ in range(120):
        queue = draw.choice([*waits])
        level[queue] = max(0, level[queue] + draw.choice((-4, -2, -1, 0, 1, 2, 4)))
        value = None if draw.random() < 0.1 else draw.choice((level[queue], level[queue], 10, 5))
        events = floor.read(value, scope=f"queue={queue}", seconds=draw.choice((1, 5, 15)))
        # The others keep what was measured; that is known for two minutes.
        wanted = []
        for name, wait in waits.items():
            rows = floor.ask(
                "select value, measured_at from live.metric_values where scope_id = %s", name
            )
            if not rows:
                continue
            known = rows[0][1] > floor.now - timedelta(minutes=2)
            said = verdict(rows[0][0] if known else None)
            if said != "fire":
                since[name] = None
                if said == "over" and firing[name]:
                    firing[name] = False
                    wanted.append("resolved")
            elif not firing[name]:
                since[name] = since[name] or floor.now
                if (floor.now - (since[name] or floor.now)).total_seconds() >= wait:
                    firing[name], since[name] = True, None
                    wanted.append("fired")
        assert sorted(events) == sorted(wanted)
        expected += wanted
        if draw.random() < 0.5:
            send_with_kills()
    assert Counter(expected)["fired"] >= 5, "a path that shows nothing"
    for _ in range(12):  # whoever died has left what it had
        floor.send(1300)
    rows = floor.ask("select idempotency_key, status from ops.notifications")
    assert Counter(key.split("-")[2] for key, _ in rows) == Counter(expected)
    assert {status for _, status in rows} == {"sent"}
    assert {key for key, _, _ in floor.sent} == {key for key, _ in rows}


# ------------------------------------------------------------------------------ who is told
def test_two_evaluations_at_once_fire_once(floor: Floor) -> None:
    floor.rule()
    floor.ask("insert into live.metric_values values "
              "('waiting_now', 'queue', 'service', 20, %s) returning 1", START)  # fmt: skip
    found: list[str] = []

    def look() -> None:
        with psycopg.connect(floor.settings.dsn(), autocommit=True) as own:
            found.extend(event for event, _ in notifier.look(own, START + SECOND))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["fired"]


def test_senders_side_by_side_send_each_once(floor: Floor) -> None:
    floor.rule(rule="each", scope="queue=*", owner="director")
    for number in range(30):
        floor.read(20, scope=f"queue=q{number}", seconds=0.1)
    threads = [
        threading.Thread(target=notifier.send_all, args=(floor.settings, lambda _: None))
        for _ in range(4)
    ]
    floor.ask("update ops.notifications set due_at = now() - interval '1 second' returning 1")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(floor.sent) == len({key for key, _, _ in floor.sent}) == 30


def test_it_escalates_once_when_nobody_takes_it_up(floor: Floor) -> None:
    floor.rule(escalate_to="director", escalate_after_seconds="60")
    floor.read(20)
    floor.send()
    assert floor.read(20, seconds=59) == []
    assert floor.read(20, seconds=1) == ["escalated"] and floor.read(20) == []
    floor.read(0)
    floor.send()
    assert floor.told() == [
        ("fired", "lead_queue"), ("escalated", "director"),
        ("resolved", "director"), ("resolved", "lead_queue"),
    ]  # fmt: skip


def test_what_is_taken_up_does_not_escalate(floor: Floor) -> None:
    floor.rule(escalate_to="director", escalate_after_seconds="60")
    floor.read(20)
    (alert,) = alerts.list_alerts(floor.settings)
    assert alert.status == "firing" and alert.owner == "lead_queue"
    for stranger in ("lead_gz_a", "agent_103", "executive", "engineer", "nobody_yet"):
        with pytest.raises(CallhouseError, match=f"that {stranger} may see"):
            alerts.acknowledge(floor.settings, alert.alert_id, "root", stranger)
    told = alerts.acknowledge(floor.settings, alert.alert_id, "root", "lead_queue")
    assert told == f"alert {alert.alert_id} is acknowledged by lead_queue"
    with pytest.raises(CallhouseError, match="by lead_queue already"):
        alerts.acknowledge(floor.settings, alert.alert_id, "root", "director")
    with pytest.raises(CallhouseError, match="by lead_queue already"):
        alerts.acknowledge(floor.settings, alert.alert_id, "root")
    with pytest.raises(CallhouseError, match="no alert 999999"):
        alerts.acknowledge(floor.settings, 999_999, "root")
    assert floor.read(20, seconds=600) == []
    floor.read(0)
    with pytest.raises(CallhouseError, match="by lead_queue already"):
        alerts.acknowledge(floor.settings, alert.alert_id, "root")
    (after,) = alerts.list_alerts(floor.settings, with_resolved=True)
    assert (after.status, after.acknowledged_by) == ("resolved", "lead_queue")
    assert after.acknowledge_seconds is not None and after.resolve_seconds is not None


def test_who_lost_the_scope_is_told_nothing_more(floor: Floor) -> None:
    settings = floor.settings
    floor.rule(owner="manager_queue", escalate_to="director", escalate_after_seconds="60")
    floor.read(20)
    with people.server(settings) as server:
        people.revoke(server, "manager_queue", [("queue", "service")], "root", "moved")
    try:
        assert floor.send() == []
        assert floor.ask("select status, note from ops.notifications") == [
            ("dropped", "manager_queue may not see this any more")
        ]
        assert floor.read(20, seconds=60) == ["escalated"]
        floor.send()
        assert floor.told() == [("escalated", "director")]
        floor.read(0)
        # The next one goes to whom it escalates at once.
        floor.read(20)
        assert "have nobody" not in alerts.sentence(alerts.summary(settings))
        assert floor.ask("select owner from ops.alerts order by alert_id desc limit 1") == [
            ("director",)
        ]
    finally:
        with people.server(settings) as server:
            people.ensure(
                settings, server,
                people.Person("manager_queue", "m", (("queue", "service"),)),
            )  # fmt: skip


def test_who_leads_the_team_of_an_agent_sees_the_agents_alerts(floor: Floor) -> None:
    with people.server(floor.settings) as server:
        server.execute(
            "create table marts.dim_agent as select v.* from (values"
            " ('103', 'GZ-A', 'CN-GD', true), ('103', 'SH-A', 'CN-SH', false),"
            " ('104', 'GZ-A', 'CN-GD', true), ('104', 'SH-A', 'CN-SH', true))"
            " as v (agent_id, team_id, region_code, is_current)"
        )
        server.execute("grant select on marts.dim_agent to callhouse_owner")
    try:
        state = {"metric": "time_in_state_seconds", "above": "600", "clear": "300"}
        floor.rule(scope="agent=*", owner="director", **state)
        floor.read(900, "time_in_state_seconds", "agent=103")
        floor.read(900, "time_in_state_seconds", "agent=104")  # of which team is not known
        assert floor.ask("select scopes from ops.alerts order by scope_id") == [
            (["agent=103", "team=GZ-A", "region=CN-GD"],), (["agent=104"],),
        ]  # fmt: skip
        seen = alerts.list_alerts(floor.settings, person="lead_gz_a")
        assert [alert.scope for alert in seen] == ["agent=103"]
    finally:
        with people.server(floor.settings) as server:
            server.execute("drop table marts.dim_agent")


def test_an_alert_that_nobody_may_be_told_is_no_silence(floor: Floor) -> None:
    settings = floor.settings
    floor.rule(owner="manager_queue")
    with people.server(settings) as server:
        people.revoke(server, "manager_queue", [("queue", "service")], "root", "moved")
    try:
        assert floor.read(20) == ["fired"] and floor.send() == []
        assert "1 have nobody who may be told" in alerts.sentence(alerts.summary(settings))
        assert any("nobody" in f.detail and not f.ok for f in diagnosis._alerts(settings))
        assert floor.read(0) == ["resolved"] and floor.send() == []
    finally:
        with people.server(settings) as server:
            manager = people.Person("manager_queue", "m", (("queue", "service"),))
            people.ensure(settings, server, manager)


# ------------------------------------------------------------------------------ quiet hours
QUIET = {"from": "22:00", "to": "07:00", "time_zone": "Asia/Shanghai"}
NIGHT = datetime(2026, 11, 30, 23, 30, tzinfo=ZoneInfo("Asia/Shanghai"))


def quiet_rule(floor: Floor, **changes: Any) -> None:
    floor.now = NIGHT - timedelta(hours=8)
    floor.rule(**{"severity": "warning", "quiet": QUIET, **changes})
    floor.now = NIGHT


def test_quiet_hours_hold_back_what_still_fires_at_their_end(floor: Floor) -> None:
    quiet_rule(floor, escalate_to="director", escalate_after_seconds="600")
    assert floor.read(20) == ["fired"]
    for hours in (0.5, 1, 3, 2):  # to 06:00 of the next day
        assert floor.send(3600 * hours) == [] and floor.read(20) == []
    floor.now = NIGHT.replace(hour=7, minute=0) + timedelta(days=1)
    assert floor.read(20, seconds=0) == []  # it escalates from the telling on
    assert len(floor.send()) == 1
    assert floor.read(20, seconds=600) == ["escalated"]
    floor.send()
    assert floor.told() == [("fired", "lead_queue"), ("escalated", "director")]


def test_what_is_over_before_they_end_is_not_told(floor: Floor) -> None:
    quiet_rule(floor)
    assert floor.read(20) == ["fired"] and floor.send() == []
    assert floor.read(0) == ["resolved"]
    assert floor.send(10 * 3600) == []
    assert [row[0] for row in floor.ask("select status from ops.notifications")] == ["dropped"]


def test_what_was_told_before_them_ends_after_them(floor: Floor) -> None:
    quiet_rule(floor)
    floor.now = NIGHT.replace(hour=21, minute=50)
    floor.read(20)
    assert len(floor.send()) == 1
    floor.now = NIGHT
    assert floor.read(0) == ["resolved"] and floor.send() == []
    assert len(floor.send(8 * 3600)) == 1
    assert floor.told() == [("fired", "lead_queue"), ("resolved", "lead_queue")]


def test_critical_knows_no_quiet_hours(floor: Floor) -> None:
    quiet_rule(floor, severity="critical")
    floor.read(20)
    assert len(floor.send()) == 1


@pytest.mark.parametrize(
    ("quiet", "moment", "is_quiet"),
    [
        (("22:00", "07:00", "Asia/Shanghai"), "2026-11-30T13:59:59Z", False),  # 21:59:59
        (("22:00", "07:00", "Asia/Shanghai"), "2026-11-30T14:00:00Z", True),
        (("22:00", "07:00", "Asia/Shanghai"), "2026-11-30T16:00:00Z", True),  # midnight
        (("22:00", "07:00", "Asia/Shanghai"), "2026-11-30T22:59:59Z", True),
        (("22:00", "07:00", "Asia/Shanghai"), "2026-11-30T23:00:00Z", False),
        (("12:00", "14:00", "Asia/Shanghai"), "2026-11-30T05:59:59Z", True),
        (("12:00", "14:00", "Asia/Shanghai"), "2026-11-30T06:00:00Z", False),
        # Berlin, 29 March 2026: 02:00 becomes 03:00; the night has seven hours.
        (("22:00", "06:00", "Europe/Berlin"), "2026-03-29T03:59:59Z", True),  # 05:59:59
        (("22:00", "06:00", "Europe/Berlin"), "2026-03-29T04:00:00Z", False),
        (("22:00", "02:30", "Europe/Berlin"), "2026-03-29T00:59:59Z", True),  # 01:59:59
        (("22:00", "02:30", "Europe/Berlin"), "2026-03-29T01:00:00Z", False),  # 03:00
        # 25 October 2026: 03:00 becomes 02:00; the night has nine hours.
        (("22:00", "06:00", "Europe/Berlin"), "2026-10-25T04:59:59Z", True),
        (("22:00", "06:00", "Europe/Berlin"), "2026-10-25T05:00:00Z", False),
    ],
)
def test_quiet_hours_follow_the_clock_on_the_wall(
    floor: Floor, quiet: tuple[str, str, str], moment: str, is_quiet: bool
) -> None:
    begin, end, zone = quiet
    floor.rule(severity="warning", quiet={"from": begin, "to": end, "time_zone": zone})
    assert floor.ask("select ops.is_quiet(r, %s) from ops.alert_rules as r", moment) == [
        (is_quiet,)
    ]


# ------------------------------------------------------------------------------ dates
def test_a_temporary_rule_ends_by_itself(floor: Floor) -> None:
    until = START + timedelta(minutes=10)
    floor.rule(until=until.isoformat())
    assert floor.read(20) == ["fired"]
    assert floor.read(20, seconds=590) == []
    assert floor.read(20) == ["resolved"]  # 10 minutes later it is no rule any more
    assert floor.read(0) == [] and floor.read(20) == []
    assert floor.ask("select resolution from ops.alerts") == [("rule ended",)]


def test_a_change_for_a_time_is_followed_by_the_old_rule(floor: Floor) -> None:
    floor.rule()
    floor.now += timedelta(hours=1)
    until = floor.now + timedelta(hours=1)
    with floor.connection.transaction():
        rules.change(
            floor.connection, floor.settings, "long_queue",
            {"fire_at": 30, "clear_at": 20, "reason": "promotion"}, "root", floor.now, until,
        )  # fmt: skip
    assert floor.read(25) == [] and floor.read(30) == ["fired"] and floor.read(20) == ["resolved"]
    floor.now = until
    assert floor.read(10) == ["fired"]
    versions = rules.current(floor.connection, floor.now, with_ended=True)
    assert [(rule.fire_at, rule.reason) for rule, _ in versions] == [
        (10, "callers give up"), (30, "promotion"), (10, "callers give up"),
    ]  # fmt: skip
    assert [rule.starts for rule, _ in versions][1:] == [rule.ends for rule, _ in versions][:2]
    for statement in ("delete from ops.alert_rules", "truncate ops.alert_rules cascade",
                      "update ops.alert_rules set fire_at = 3"):  # fmt: skip
        with pytest.raises(psycopg.errors.RaiseException):
            floor.connection.execute(statement.encode())


def test_a_change_keeps_what_fires(floor: Floor) -> None:
    floor.rule()
    floor.read(20)
    floor.now += SECOND
    rules.change(floor.connection, floor.settings, "long_queue",
                 {"fire_at": 30.0, "clear_at": 8.0, "reason": "x"}, "root", floor.now)  # fmt: skip
    assert floor.read(9) == [] and floor.read(8) == ["resolved"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scope": "queue=servic"}, "there is no queue 'servic' (did you mean 'service'?)"),
        ({"owner": "lead_nobody"}, "there is no person 'lead_nobody'"),
        ({"owner": "lead_gz_a"}, "lead_gz_a does not see queue=service"),
        ({"owner": "executive"}, "executive does not see queue=service"),
        ({"escalate_to": "engineer"}, "engineer does not see queue=service"),
        ({"channels": ["mailbxo"]}, "there is no channel 'mailbxo' (did you mean 'mailbox'?)"),
        ({}, "rule long_queue is there already within that time"),
        ({"rule": "same_again"}, "overlaps with rule long_queue"),
        ({"rule": "Long Queue"}, "names are of lower-case letters"),
        ({"rule": "old", "until": "2026-01-01"}, "would have ended"),
    ],
)
def test_what_a_rule_cannot_mean_here_is_one_sentence(
    floor: Floor, changes: dict[str, Any], told: str
) -> None:
    floor.rule()
    with pytest.raises(CallhouseError) as refused:
        floor.rule(**changes)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_a_later_version_may_follow_and_be_taken_back(floor: Floor) -> None:
    floor.rule(until=(START + timedelta(days=1)).isoformat())
    floor.rule(**{"from": (START + timedelta(days=1)).isoformat(), "above": "50"})
    rules.end(floor.connection, "long_queue", "root", "not needed", START + timedelta(hours=1))
    assert rules.current(floor.connection, START + timedelta(hours=2)) == []
    assert floor.ask("select count(*) from ops.alert_rules where ended_by = 'root'") == [(2,)]


def test_a_file_decides_about_its_rules(floor: Floor, tmp_path: Path) -> None:
    floor.rule(rule="by_hand", metric="calls_in_progress", severity="info")
    file = tmp_path / "alerts.yaml"

    def sync(*entries: dict[str, Any]) -> list[str]:
        file.write_text(json.dumps({"rules": entries}), encoding="utf-8")
        floor.now += SECOND
        with floor.connection.transaction():
            return rules.synchronise(floor.connection, floor.settings, file, "root", floor.now)

    other = {**GOOD, "rule": "other", "metric": "longest_wait_seconds"}
    assert sync(GOOD, other) == ["long_queue: new", "other: new"]
    assert sync(GOOD, other) == []
    assert sync({**GOOD, "above": "12"}, other) == ["long_queue: changed"]
    with pytest.raises(CallhouseError, match="comes from a file"):
        rules.change(floor.connection, floor.settings, "other", {"fire_at": 9.0}, "x", floor.now)
    with pytest.raises(CallhouseError, match="lead_gz_a does not see"):
        sync({**GOOD, "above": "14"}, {**other, "owner": "lead_gz_a"})
    assert [r.fire_at for r, _ in rules.current(floor.connection, floor.now)
            if r.rule == "long_queue"] == [12]  # fmt: skip
    # Another rule takes its place within one file.
    assert sync({**GOOD, "rule": "renamed"}) == [
        "long_queue: ended", "other: ended", "renamed: new"
    ]  # fmt: skip
    with pytest.raises(CallhouseError, match="has no rule"):
        sync()
    held = [rule.rule for rule, _ in rules.current(floor.connection, floor.now)]
    assert held == ["by_hand", "renamed"]


def test_the_shipped_rules_fit_the_demo(centre: Settings, floor: Floor) -> None:
    with people.server(centre) as server:
        for person in people.DEMO_PEOPLE:
            people.ensure(centre, server, person)
    with floor.connection.transaction():
        rules.synchronise(floor.connection, centre, rules.EXAMPLE, "root", floor.now)
    assert floor.read(130, "longest_wait_seconds", seconds=0) == []
    assert "fired" in floor.read(130, "longest_wait_seconds", seconds=15)
    floor.send()
    assert ("fired", "lead_queue") in floor.told()


# ------------------------------------------------------------------------------ the pipeline
def test_metrics_of_the_pipeline(floor: Floor) -> None:
    pipeline = {"scope": "pipeline", "owner": "engineer", "escalate_to": None}
    floor.rule(rule="held", metric="held_days", above="1", clear="0", **pipeline)
    floor.rule(rule="silent", metric="lane_silence_seconds", above="180", clear="60", **pipeline)
    floor.rule(rule="waiting", metric="unacknowledged_incidents", above="1", clear="0", **pipeline)
    floor.rule(rule="age", metric="published_age_seconds", above="90000", clear="3600", **pipeline)
    assert floor.look() == []
    with floor.connection.transaction(force_rollback=True):
        floor.ask(
            "insert into ops.capture_devices (device, kind, label, owner, time_zone,"
            " interval_seconds, skew_seconds, acknowledge_seconds, registered_at)"
            " values ('q_tail', 'collector', 'q', 'me', 'UTC', 120, 60, 60, %s) returning 1", START
        )  # fmt: skip
        floor.ask("insert into ops.heartbeats (device, beat_at) values ('q_tail', %s) returning 1",
                  START)  # fmt: skip
        floor.ask("insert into ops.capture_watch values (true, %s, %s) on conflict (is_only) do"
                  " update set checked_at = excluded.checked_at returning 1",
                  START, START)  # fmt: skip
        floor.ask("insert into ops.incidents (device, kind, owner, opened_at, items, detail) values"
                  " ('q_tail', 'heartbeat', 'me', %s, '{}', 'x') returning 1", START)  # fmt: skip
        assert floor.look(10) == ["fired"]  # the incident
        assert floor.look(200) == ["fired"]  # the silence
        # Nobody has looked at the incidents for a quarter of an hour: not known, so not over.
        floor.ask("update ops.incidents set acknowledged_at = now() returning 1")
        assert floor.look(1200) == []
        found = floor.ask("select rule, owner from ops.alerts order by alert_id")
        assert found == [("waiting", "engineer"), ("silent", "engineer")]


# ------------------------------------------------------------------------------ the history
def test_history_is_seen_by_scope(floor: Floor) -> None:
    floor.rule(owner="director")
    floor.rule(rule="team", metric="agents_break", scope="team=GZ-A", owner="lead_gz_a")
    floor.rule(rule="agent", metric="time_in_state_seconds", scope="agent=103", owner="agent_103")
    floor.rule(rule="centre", scope="all", owner="director")
    floor.rule(rule="held", metric="held_days", scope="pipeline", above="1", clear="0",
               owner="engineer")  # fmt: skip
    floor.read(20)
    floor.read(20, "agents_break", "team=GZ-A")
    floor.read(900, "time_in_state_seconds", "agent=103")
    floor.read(20, scope="all")
    floor.read(1, "held_days", "pipeline")
    everything = {"long_queue", "team", "agent", "centre", "held"}
    seen = {
        "director": everything,
        "lead_queue": {"long_queue"},
        "manager_queue": {"long_queue"},
        "lead_gz_a": {"team"},
        "agent_103": {"agent"},
        "executive": set(),
        "engineer": {"held"},
        "nobody_yet": set(),
    }
    for person, wanted in seen.items():
        shown = alerts.list_alerts(floor.settings, with_resolved=True, person=person)
        assert {alert.rule for alert in shown} == wanted, person
    assert {a.rule for a in alerts.list_alerts(floor.settings)} == everything
    with warehouse.connect_as(
        floor.settings, "lead_gz_a", login_password(floor.settings, "lead_gz_a")
    ) as own:
        for statement in ("select * from ops.alerts", "select * from ops.notifications",
                          "select * from live.metric_values",
                          "select ops.evaluate_alerts(now())"):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege), own.transaction():
                own.execute(statement.encode())


def test_means_are_of_what_was_taken_up_and_of_what_is_over(floor: Floor) -> None:
    from callhouse.bi import ledger

    (source,) = [d for d in ledger.datasets() if d.name == "fct_alert_events"]
    floor.rule()
    floor.read(20)
    floor.read(0, seconds=120)
    floor.read(20)
    floor.ask("update ops.alerts set acknowledged_at = opened_at + interval '30 seconds'"
              " where resolved_at is not null returning 1")  # fmt: skip
    listed = ", ".join(f"{m.expression} as {m.name}" for m in source.metrics)
    columns = [column.name for column in source.columns]
    told = floor.connection.execute(
        f"select {', '.join(columns)} from bi.fct_alert_events".encode()
    )
    assert len(told.fetchall()) == 2
    (row,) = floor.ask(f"select {listed} from bi.fct_alert_events")
    found = dict(zip([m.name for m in source.metrics], row, strict=True))
    assert (found["alerts_fired"], found["alerts_firing"]) == (2, 1)
    assert (found["alert_mtta_seconds"], found["alert_mttr_seconds"]) == (30, 120)


# ------------------------------------------------------------------------------ delivery
def test_failures_wait_longer_each_time_and_end_as_dead_letters(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor.rule()
    floor.read(20)
    with monkeypatch.context() as patched:
        patched.setattr(channels, "deliver", lambda *_: "the room is closed")
        waits = []
        for _ in range(notifier.MOST_FAILURES):
            (due,) = floor.ask("select due_at from ops.notifications")
            waits.append((due[0] - floor.now).total_seconds())
            floor.now = max(floor.now, due[0])
            assert floor.send() == []
    assert waits[1:] == [5, 20, 80, 320, 1280]
    (dead,) = alerts.dead_letters(floor.settings)
    assert (dead["note"], dead["person"], dead["kind"]) == (
        "the room is closed", "lead_queue", "fired"
    )  # fmt: skip
    assert alerts.summary(floor.settings)["undelivered"] == 1
    assert floor.send(3600) == []
    assert alerts.retry_dead_letters(floor.settings) == 1
    floor.now = datetime.now(UTC)
    assert floor.send(1) == [f"alert-{dead['alert_id']}-fired-lead_queue-mailbox"]
    assert alerts.dead_letters(floor.settings) == []


def test_a_killed_sender_leaves_it_to_the_next_with_the_same_key(floor: Floor) -> None:
    floor.rule()
    floor.read(20)
    first = floor.ask("select (ops.claim_notification(%s, %s)).*", floor.now, notifier.LEASE)
    assert len(first) == 1
    assert floor.send(59) == []
    (key,) = floor.send(1)
    # The first one lives after all: what it says comes too late to count.
    (late,) = floor.ask(
        "select ops.settle_notification(%s, 1, 'failed', 6, %s)", first[0][0], floor.now
    )
    assert late == (None,)
    assert floor.ask("select idempotency_key, status, claims from ops.notifications") == [
        (key, "sent", 2)
    ]


def test_the_mailbox_has_a_letter_once(centre: Settings) -> None:
    letter = channels.Letter(
        "alert-1-fired-lead_queue-mailbox", "Zu viele 告警", "Text 文", True, False
    )
    for _ in range(2):
        assert channels.deliver(centre, "mailbox", "lead_queue", letter) is None
    (kept,) = mailbox.Maildir(centre.mail_directory / "lead_queue")
    assert kept["X-Idempotency-Key"] == letter.key


class Sinks:
    """A mail server and a webhook that keep what they get; the webhook may be slow."""

    def __init__(self, port: int) -> None:
        self.mails: list[tuple[str, str, float]] = []  # key, subject, when
        self.posts: list[tuple[str, dict[str, Any], float]] = []
        self.patience = 0.0
        sinks = self

        class Hook(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sinks.posts.append((self.headers["X-Idempotency-Key"], body, clock.monotonic()))
                clock.sleep(sinks.patience)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        threading.Thread(target=self.hook.serve_forever, daemon=True).start()
        self.smtp = Controller(self, hostname="127.0.0.1", port=port)
        self.smtp.start()

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        message = email.message_from_bytes(envelope.content)
        subject = str(email.header.make_header(email.header.decode_header(message["Subject"])))
        self.mails.append((message["X-Idempotency-Key"], subject, clock.monotonic()))
        return "250 kept"

    @property
    def ports(self) -> tuple[int, int]:
        return self.smtp.port, self.hook.server_port

    def close(self) -> None:
        self.smtp.stop()
        self.hook.shutdown()
        self.hook.server_close()


@pytest.fixture
def sinks(new_port_base: Callable[[], int]) -> Iterator[Sinks]:
    found = Sinks(new_port_base())
    yield found
    found.close()


def until(what: Callable[[], Any], seconds: float) -> float:
    """How long it takes until `what` holds."""
    began = clock.monotonic()
    while not what():
        assert clock.monotonic() - began < seconds, "it has not come"
        clock.sleep(0.05)
    return clock.monotonic() - began


def test_the_process_tells_within_half_a_minute_also_when_it_is_killed(
    centre: Settings, floor: Floor, sinks: Sinks, tmp_path: Path
) -> None:
    """The real notifier with a mail server and a webhook; killed while the webhook has its post."""
    smtp, hook = sinks.ports
    centre.channels_file.write_text(
        f"channels:\n  mail: mailto://127.0.0.1:{smtp}/?from=callhouse@example.com&to={{address}}\n"
        f"  hook: json://127.0.0.1:{hook}/alerts\n"
        "people:\n  lead_queue: {mail: lead@example.com}\n",
        encoding="utf-8",
    )
    floor.now = datetime.now(UTC) - SECOND
    floor.rule(channels=["mail", "hook"], until=None)
    environment = components.component_environment(centre, "airflow")
    log = (tmp_path / "notifier.log").open("w+b")

    def start() -> subprocess.Popen[bytes]:
        # As the supervisor and the container start it.
        command = components.command(centre, components.BY_NAME["notifier"])
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def measured(value: float) -> None:
        floor.ask("delete from live.metric_values returning 1")
        floor.ask("insert into live.metric_values values ('waiting_now', 'queue', 'service', %s,"
                  " now()) returning 1", value)  # fmt: skip

    process = start()
    try:
        until(lambda: health.notifier_works(centre, 0), 60)
        sinks.patience = 5.0
        measured(20)
        took = until(lambda: sinks.posts and sinks.mails, 30)
        process.send_signal(signal.SIGKILL)  # the webhook has not answered yet
        process.wait()
        sinks.patience = 0.0
        print(f"breach → mail and webhook: {took:.1f} s")
        # A minute's lease is over.
        floor.ask("update ops.notifications set claimed_at = claimed_at - interval '2 minutes'"
                  " where status = 'sending' returning 1")  # fmt: skip
        process = start()
        until(lambda: len(sinks.posts) == 2, 60)
        measured(0)
        until(lambda: len(sinks.posts) == 3 and len(sinks.mails) >= 2, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        centre.channels_file.unlink()
    (alert,) = alerts.list_alerts(centre, with_resolved=True)
    keys = [f"alert-{alert.alert_id}-{kind}-lead_queue-hook" for kind in ("fired", "resolved")]
    assert [key for key, _, _ in sinks.posts] == [keys[0], keys[0], keys[1]]
    assert sinks.posts[0][1]["title"] == "[critical] Alert: Calls waiting, queue service: 20"
    assert "/alerts/" in sinks.posts[0][1]["message"] and keys[0] in sinks.posts[0][1]["message"]
    assert {key.replace("mail", "hook") for key, _, _ in sinks.mails} == set(keys)
    assert [subject for _, subject, _ in sinks.mails][-1].startswith("[critical] Over: Calls")
    log.seek(0)
    told = log.read().decode()
    assert "fired: alert" in told and "127.0.0.1" not in told and "example.com" not in told
    assert floor.ask("select count(*) from ops.notifications where status <> 'sent'") == [(0,)]
    stored = floor.ask("select string_agg(n::text || r::text, '') from ops.notifications as n,"
                       " ops.alert_rules as r")  # fmt: skip
    assert "example.com" not in stored[0][0] and "127.0.0.1" not in stored[0][0]


# ------------------------------------------------------------------------------ dead man
def test_a_silent_notifier_is_told_by_the_watch_and_by_doctor(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, now = floor.settings, datetime.now(UTC).replace(microsecond=0)
    begun = now + timedelta(minutes=20)  # later than the process of the test above
    notifier.beat(floor.connection, begun)
    moment = begun
    while moment <= begun + timedelta(minutes=4):  # it beats for a while, and no more
        notifier.beat(floor.connection, moment)
        capture.watch(settings, moment)
        moment += timedelta(minutes=1)
    opened = []
    for _ in range(5):
        opened += [(i.device, i.kind) for i in capture.watch(settings, moment).opened]
        moment += timedelta(minutes=1)
    assert ("notifier", "heartbeat") in opened
    assert alerts.sentence(alerts.summary(settings)) == "alerts: no rule was looked at yet"
    notifier.look(floor.connection)
    assert "silent" not in alerts.sentence(alerts.summary(settings))
    (finding,) = [f for f in diagnosis._alerts(settings) if f.name == "alerts"]
    assert finding.ok
    # Never longer than the server is up: here not for a minute yet, so that is asked for less.
    floor.ask("update ops.alert_watch set evaluated_at = now() - interval '1 hour' returning 1")
    monkeypatch.setattr(alerts, "SILENT_SECONDS", 0.0)
    assert "the notifier is silent for" in alerts.sentence(alerts.summary(settings))
    (finding,) = [f for f in diagnosis._alerts(settings) if f.name == "alerts"]
    assert not finding.ok and "notifier.log" in finding.fix
    pulse = notifier.pulse(settings)
    pulse.parent.mkdir(exist_ok=True)
    pulse.touch()
    assert health.notifier_works(settings, clock.time() - 5)
    os.utime(pulse, (clock.time() - 90, clock.time() - 90))
    assert not health.notifier_works(settings, 0)


def test_the_commands(floor: Floor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    monkeypatch.setattr(cli, "_settings", lambda: floor.settings)

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli.app, ["alert", *words])
        assert result.exit_code == code, (words, result.output, result.exception)
        return result.output

    added = run("add", "long_queue", "--metric", "waiting_now", "--scope", "queue=service",
                "--above", "10", "--clear", "5", "--severity", "warning", "--owner", "lead_queue",
                "--quiet", "22:00-07:00", "--reason", "x")  # fmt: skip
    assert added == "long_queue watches waiting_now of queue=service\n"
    run("change", "long_queue", "--above", "12", "--until", "2099-01-01", "--reason", "fair")
    assert "above 12" in run("rules") and "above 10" in run("rules")
    assert len(json.loads(run("rules", "--json"))) == 2
    assert run("list").count("\n") == 1
    floor.now = datetime.now(UTC)
    floor.read(20, seconds=0)
    assert "long_queue" in run("list", code=3) and "long_queue" in run("history")
    (alert,) = alerts.list_alerts(floor.settings)
    assert "acknowledged by director" in run("acknowledge", str(alert.alert_id), "--as", "director")
    assert "long_queue" in run("list", "--as", "lead_queue")
    assert "long_queue" not in run("list", "--as", "lead_gz_a")
    assert run("end", "long_queue", "--reason", "over") == "long_queue has ended\n"
    assert run("test", "mailbox", "--person", "director").startswith("mailbox has taken it")
    assert run("dead-letters").count("\n") == 1
    assert run("sync", str(rules.EXAMPLE)).count(": new") == len(rules.read_file(rules.EXAMPLE))
    assert run("sync", str(rules.EXAMPLE)) == "nothing has changed\n"
