"""Who sees what: an independent model of the entitlements against every relation and every way in.

The people and what they may see are written down here by hand; expected rows are picked from the
tables by Python, row by row. A relation without an expectation fails, and so does a way that shows
one row more.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from callhouse import landing, reviews, simulate, transform, warehouse
from callhouse.bi import importing, notes
from callhouse.errors import CallhouseError
from callhouse.landing.callers import Cipher
from callhouse.runner import postgres
from callhouse.security import callers, login_password, people
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import dbt
from callhouse.transform import marts as published_marts

START, DAYS = date(2026, 10, 5), 2
Row = dict[str, Any]

# Kind of every relation that readers can name: whose rows they are.
CALLS, GROUPS, OPEN, LEDGER, TRAIL = "calls", "groups", "open", "ledger", "trail"
ALERTS, NOTES = "alerts", "notes"
RELATIONS = {
    **dict.fromkeys(
        (
            "agg_agent_15min", "agg_agent_adherence_daily", "agg_agent_daily", "agg_calls_daily",
            "agg_fcr_daily", "agg_queue_15min", "agg_wait_histogram_daily", "bridge_call_anomaly",
            "dim_agent",
            "fct_agent_connections", "fct_agent_offers", "fct_agent_schedules", "fct_agent_states",
            "fct_call_events", "fct_call_flows", "fct_call_followups", "fct_calls",
            "fct_carrier_differences", "fct_carrier_reconciliation", "fct_channel_paths",
            "fct_channel_requests", "fct_ivr_steps", "fct_queue_visits", "fct_survey_responses",
            "live_agent_connections", "live_agents", "live_queue_visits", "quality_checks",
        ),
        CALLS,
    ),
    "agg_groups_daily": GROUPS,
    "agg_group_changes_weekly": GROUPS,
    **dict.fromkeys(
        (
            "data_status", "dim_anomaly_rule", "dim_business_type", "dim_channel", "dim_date",
            "dim_hotline", "dim_interval", "dim_outcome", "dim_queue", "dim_region", "dim_source",
            "dim_team", "live_sources", "source_days",
        ),
        OPEN,
    ),
    **dict.fromkeys(
        (
            "capture_status", "fct_capture_health", "fct_day_balances", "fct_dq_results",
            "fct_incidents", "fct_landed_days", "fct_landed_units", "fct_releases",
            "fct_restatements",
        ),
        LEDGER,
    ),
    "fct_access_audit": TRAIL,
    "fct_alert_events": ALERTS,
    "fct_annotations": NOTES,
}  # fmt: skip
# Views of readers over marts.
BOARD_VIEWS = ("agg_group_changes_weekly", "fct_call_flows", "fct_channel_paths")
# Views over fct_calls (compared in test_sample_truth), over sums of calls and over the live views
# below, whose rows are grouped.
GROUPED = ("agg_summary_daily", "dim_caller", "live_floor", "live_lost_callers", "live_queues")
# Relations that have no row in this sample.
EMPTY = (
    "agg_group_changes_weekly", "capture_status", "fct_access_audit", "fct_capture_health",
    "fct_carrier_differences", "fct_carrier_reconciliation", "fct_incidents", "fct_releases",
    "fct_restatements",
)  # fmt: skip

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
PEOPLE = {
    "director": people.Person("director", "d", (("all", "*"),)),
    "manager_gd": people.Person("manager_gd", "m", (("region", "CN-GD"),)),
    "manager_two": people.Person(
        "manager_two", "m", (("region", "CN-SC"), ("team", "GZ-A"))
    ),
    "lead_gz_a": people.Person("lead_gz_a", "l", (("team", "GZ-A"),), level="lead"),
    "lead_queue": people.Person("lead_queue", "l", (("queue", "cards"),), level="lead"),
    "agent_103": people.Person("agent_103", "a", (("agent", "103"),), level="agent"),
    # Of one source: both have an agent 103.
    "agent_here": people.Person(
        "agent_here", "a", (("agent", "sample_hotline/103"),), level="agent"
    ),
    "manager_there": people.Person("manager_there", "m", (("agent", "other_site/103"),)),
    "executive": people.Person("executive", "e", (("all", "*"),), level="executive"),
    "analyst": people.Person("analyst", "a", (("all", "*"),), level="analyst"),
    "analyst_sc": people.Person("analyst_sc", "a", (("region", "CN-SC"),), level="analyst"),
    "engineer": people.Person("engineer", "e", (), level="engineer"),
    "auditor": people.Person("auditor", "a", (), level="auditor"),
    "former": people.Person("former", "f", (("all", "*"),), until=YESTERDAY),
    "nobody_yet": people.Person("nobody_yet", "n", ()),
}  # fmt: skip
SEES_ALL = ("director", "analyst")
SEES_LEDGER = ("director", "analyst", "engineer")
SEES_GROUPS = ("director", "analyst", "executive")
# Levels that are shown masks; analysts have tokens, executives no call.
SEES_MASKS = (
    "director", "manager_gd", "manager_two", "lead_gz_a", "lead_queue", "agent_103", "agent_here",
    "manager_there",
)  # fmt: skip
ONLY_OF = {"agent_here": "sample_hotline", "manager_there": "other_site"}
COUNTRY_CODES = ("+86", "+852", "+65", "+81", "+44", "+1")
# One that fires in each kind of scope, of somebody who is here and of somebody who is not.
ALERT_OF_EACH_SCOPE = """
with rules as (
    insert into ops.alert_rules (rule, valid, metric, scope_type, scope_id, comparison, fire_at,
        clear_at, for_seconds, severity, owner, channels, reason, managed_by, entered_by)
    select 'rule_' || n, tstzrange(now(), null), 'waiting_now', kind, id, 'above', 10, 5, 0,
        'info', 'director', '{}', 'test', 'command', 'test'
    from (
        values (1, 'all', '*'), (2, 'pipeline', '*'), (3, 'region', 'CN-GD'), (4, 'region', 'HK'),
        (5, 'team', 'GZ-A'), (6, 'team', 'X'), (7, 'queue', %(queue)s), (8, 'queue', 'X'),
        (9, 'agent', '103'), (10, 'agent', 'X')
    ) as v (n, kind, id)
    returning *
)
insert into ops.alerts (rule, rule_id, metric, scope_type, scope_id, scopes, comparison, fire_at,
    severity, owner, breached_at, opened_at, value)
select rule, rule_id, metric, scope_type, scope_id, array[scope_type || '=' || scope_id],
    comparison, fire_at, severity, owner, now(), now(), 12
from rules
"""
# One that is open, of a device that came to be with it.
INCIDENT = """
with pbx as (
    insert into ops.capture_devices (device, kind, label, owner, time_zone, interval_seconds,
        skew_seconds, acknowledge_seconds, registered_at)
    values ('pbx_1', 'pbx', 'PBX', 'telephony', 'UTC', 300, 120, 1800, now())
    returning device
)
insert into ops.incidents (device, kind, owner, opened_at, items, detail)
select device, 'heartbeat', 'telephony', now(), '{}', 'no heartbeat' from pbx
"""
# Of half of the visits within two minutes; nobody waits, for whose numbers change while time goes.
ENTERED_AT = """
case
    when outcome = 'incomplete' then now() - interval '5 hours'
    when hashtext(call_id) % 2 = 0 then now() - hashtext(call_id) % 120 * interval '1 second'
    else now() - interval '25 minutes'
end
"""
COLUMN_OF = {"region": "region_code", "team": "team_id", "queue": "queue_id", "agent": "agent_id"}
MAY: dict[str, dict[str, tuple[str, ...]]] = {
    "manager_gd": {"region": ("CN-GD",)},
    "manager_two": {"region": ("CN-SC",), "team": ("GZ-A",)},
    "agent_here": {"agent": ("103",)},
    "manager_there": {"agent": ("103",)},
    "lead_gz_a": {"team": ("GZ-A",)},
    "agent_103": {"agent": ("103",)},
    "analyst_sc": {"region": ("CN-SC",)},
}


def allowed(person: str, kind: str, row: Row) -> bool:
    """The model: whether `person` may see `row` of a relation of that kind."""
    if kind == OPEN:
        return True
    if kind == LEDGER or (kind == NOTES and row["kind"] == "incident"):
        return person in SEES_LEDGER
    if kind == NOTES:
        return True
    if kind == GROUPS:
        return person in SEES_GROUPS
    if kind == TRAIL:
        return person == "auditor"
    if kind == ALERTS and row["scope_type"] == "pipeline":
        return person in SEES_LEDGER
    if person in SEES_ALL:
        return True
    if person in ONLY_OF and row.get("source") != ONLY_OF[person]:
        return False
    if kind == ALERTS:
        return row["scope_id"] in MAY.get(person, {}).get(row["scope_type"], ())
    return any(
        COLUMN_OF[scope] in row and row[COLUMN_OF[scope]] in values
        for scope, values in MAY.get(person, {}).items()
    )


@pytest.fixture(scope="module")
def centre(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """Two published days of the sample, and everybody's logins."""
    folder = tmp_path_factory.mktemp("sample")
    simulate.write(folder, seed=11, start=START, days=DAYS, calls_per_day=300, dirt=True)
    landing.land(settings, "sample_hotline", [folder])
    other = tmp_path_factory.mktemp("other")
    simulate.write(other, seed=12, start=START, days=DAYS, calls_per_day=100, dirt=False)
    shipped = registry.feed(settings, "sample_hotline").file.read_text(encoding="utf-8")
    settings.feeds_directory.mkdir(parents=True)
    (settings.feeds_directory / "other_site.yaml").write_text(
        shipped.replace("feed: sample_hotline", "feed: other_site"), encoding="utf-8"
    )
    landing.land(settings, "other_site", [other])
    transform.prepare(settings, print)
    assert transform.drain(settings, print).problems == ()
    with warehouse.connect(settings) as connection:
        queue = warehouse.one(connection, "select min(queue_id) from marts.fct_queue_visits")[0]
    MAY["lead_queue"] = {"queue": (queue,)}
    fill_floor(settings)
    with people.server(settings) as server:
        for person in PEOPLE.values():
            if person.name == "lead_queue":
                person = people.Person(person.name, "l", (("queue", queue),), level="lead")
            people.ensure(settings, server, person)
        server.execute(ALERT_OF_EACH_SCOPE, {"queue": queue})
        server.execute(INCIDENT)
    notes.add(settings, "Autumn campaign", (START, START), by="test")
    return settings


def fill_floor(settings: Settings) -> None:
    """What was published, as if it happened today; columns that change while time goes are null."""
    today = "(now() at time zone 'Asia/Shanghai')::date"
    filled = {
        "queue_visits": (
            "fct_queue_visits",
            {"left_at": "now()", "is_last": "true", "entered_at": ENTERED_AT},
        ),
        "agent_connections": ("fct_agent_connections", {"ended_at": "now()", "is_last": "true"}),
        "agent_states": (
            (
                "(select distinct on (agent_id) * from marts.fct_agent_states "
                "where state = 'ready' order by agent_id, started_at) as s"
            ),
            {"started_at": "now() - interval '1 minute'", "ended_at": "now() + interval '2 hours'"},
        ),
    }
    with warehouse.connect(settings) as connection:
        connection.execute(
            "insert into live.sources (source, source_name, time_zone) "
            "values ('sample_hotline', 'Sample', 'Asia/Shanghai')"
        )
        for table, (origin, changed) in filled.items():
            names = [
                name for (name,) in connection.execute(
                    "select attname from pg_attribute where attrelid = to_regclass(%s) "
                    "and attnum > 0 order by attnum", [f"live.{table}"],
                )
            ]  # fmt: skip
            values = {"business_day": today, "caller_token": "null::uuid", **changed}
            shown = ", ".join(values.get(name, name) for name in names)
            origin = origin if " " in origin else f"marts.{origin}"
            connection.execute(f"insert into live.{table} select {shown} from {origin}".encode())


def dsn(settings: Settings, person: str) -> str:
    address = settings.dsn("callhouse_pipeline").split(" user=")[0]
    return f"{address} user={person} password={login_password(settings, person)}"


@pytest.fixture
def login(centre: Settings) -> Iterator[Callable[[str], psycopg.Connection]]:
    """Opens a person's own connection; read-only off, which people may switch off themselves."""
    opened = []

    def connect(person: str) -> psycopg.Connection:
        connection = psycopg.connect(
            dsn(centre, person), autocommit=True, options="-c default_transaction_read_only=off"
        )
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def whole(settings: Settings, relation: str) -> list[Row]:
    """Every row of a relation, as the superuser reads it."""
    kept = RELATIONS[relation] in (CALLS, GROUPS, OPEN)
    kept &= relation not in ("data_status", "source_days", "quality_checks", *BOARD_VIEWS)
    kept &= not relation.startswith("live_")
    schema = "marts" if kept else "bi"
    # Nobody but the superuser and auditors reads the trail.
    with people.server(settings) as connection:
        text = sql.SQL("select to_jsonb(r) from {}.{} as r").format(
            sql.Identifier(schema), sql.Identifier(relation)
        )
        return [row for (row,) in connection.execute(text)]


def masks(settings: Settings) -> dict[str, str]:
    """What may be shown of each caller, worked out of the numbers themselves."""
    with people.server(settings) as connection:
        kept = connection.execute("select caller_token::text, content from pii.callers").fetchall()
    numbers = {token: Cipher(settings).decrypt(content).decode() for token, content in kept}
    return {token: mask(number) for token, number in numbers.items()}


def mask(number: str) -> str:
    """By hand: a mobile of mainland China is 138****1234, others show country code and end."""
    if len(number) == 14 and number.startswith("+861"):
        return f"{number[3:6]}****{number[-4:]}"
    code = next((code for code in COUNTRY_CODES if number.startswith(code)), "")
    national = number.removeprefix(code)
    end = national[max(4, len(national) - 4) :]
    return f"{code} " * bool(code) + "*" * max(4, len(national) - len(end)) + end


def keyed(rows: list[Row]) -> list[str]:
    same = ({k: v for k, v in row.items() if k != "state_seconds"} for row in rows)
    return sorted(json.dumps(row, sort_keys=True, default=str) for row in same)


# ---------------------------------------------------------------- relations × people
def test_every_relation_that_readers_reach_has_an_expectation(centre: Settings) -> None:
    with warehouse.connect(centre) as connection:
        found = {
            name
            for (name,) in connection.execute(
                "select c.relname from pg_class as c where c.relnamespace = 'bi'::regnamespace"
                " and has_table_privilege('callhouse_reader', c.oid, 'select')"
            )
        }
        assert found - set(GROUPED) == set(RELATIONS)
        assert published_marts.unprotected(connection) == []


def test_the_last_fifteen_minutes_are_those_of_the_visits_one_sees(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    sums = ["calls_offered", "calls_answered", "calls_abandoned", "answered_within_target"]
    told = ", ".join(f"{name}_15min" for name in sums)
    counted = ", ".join(f"sum({name})" for name in sums)
    (filled_at,) = (
        login("director").execute("select max(entered_at) from bi.live_queue_visits").fetchone()
        or ()
    )
    offered: dict[str, set[int]] = {}
    for person in sorted(set(PEOPLE) - {"former"}):
        own = login(person)
        # Fifteen minutes that begin before these visits, at several moments among them, and after.
        for seconds in (1, 785, 812.4, 841, 899.9, 1000):
            clock = filled_at + timedelta(seconds=seconds)
            own.execute("select set_config('callhouse.clock', %s, false)", [clock.isoformat()])
            shown = own.execute(
                f"select source, queue_id, {told} from bi.live_queues "
                "where calls_offered_15min > 0 order by 1, 2".encode()
            ).fetchall()
            expected = own.execute(
                f"select source, queue_id, {counted} from bi.live_queue_visits where is_recent "
                "group by 1, 2 having sum(calls_offered) > 0 order by 1, 2".encode()
            ).fetchall()
            assert shown == expected, (person, seconds)
            offered.setdefault(person, set()).add(sum(row[2] for row in shown))
    # The times cut, and some see more than others.
    for person in ("director", "manager_gd", "manager_two", "lead_queue", "lead_gz_a"):
        assert len(offered[person]) > 2, person
    assert max(offered["director"]) > max(offered["manager_two"]) > 0
    assert offered["executive"] == offered["nobody_yet"] == {0}


def test_the_summary_is_of_all_calls_in_groups_or_of_ones_own(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    """Whoever sees all gets the groups and nothing beside; others sums of the rows they may see."""
    columns = {"queue": "queue_id", "channel": "channel", "region": "region_code",
               "business_type": "business_type", "hotline": "hotline_id"}  # fmt: skip
    groups, days = whole(centre, "agg_groups_daily"), whole(centre, "agg_calls_daily")
    summed = ("calls", "calls_offered", "calls_abandoned", "answered_within_target")
    with_rows = set()
    for name in PEOPLE:
        found = [
            row
            for (row,) in login(name).execute("select to_jsonb(s) from bi.agg_summary_daily as s")
        ]
        if name in SEES_GROUPS:
            assert keyed(found) == keyed(groups), name
            with_rows.add(name)
            continue
        wanted: dict[tuple[str, ...], list[int]] = {}
        for day in days:
            if not allowed(name, CALLS, day):
                continue
            members = {"all": "all", **{d: day[column] for d, column in columns.items()}}
            for member in members.items():
                sums = wanted.setdefault((day["business_day"], day["source"], *member), [0] * 4)
                sums[:] = [old + day[one] for old, one in zip(sums, summed, strict=True)]
        keys = ("business_day", "source", "dimension", "member")
        assert {tuple(r[k] for k in keys): [r[s] for s in summed] for r in found} == wanted, name
        assert len(found) == len(wanted), name
        with_rows |= {name} if found else set()
    assert with_rows == {
        *SEES_GROUPS, "manager_gd", "manager_two", "lead_queue", "analyst_sc",
    }  # fmt: skip


@pytest.mark.parametrize("person", ["director", "manager_gd"])
def test_whole_weeks_are_held_against_the_one_before(centre: Settings, person: str) -> None:
    """Of the last fourteen weeks of each source; a week that lacks a day has no one beside it."""
    newest = START + timedelta(days=DAYS - 1)
    sources = ("sample_hotline", "other_site")
    lost_day = {source: newest - timedelta(days=30 + 7 * n) for n, source in enumerate(sources)}
    is_there = "{} <> 'Cards' or mod(extract(week from business_day), 5) <> 0"
    with psycopg.connect(centre.dsn("postgres", "postgres"), dbname="callhouse") as server:
        for table in ("agg_groups_daily", "agg_calls_daily"):
            columns = [
                name for (name,) in server.execute(
                    "select attname from pg_attribute where attrelid = %s::regclass "
                    "and attnum > 0 and not attisdropped", [f"marts.{table}"],
                )
            ]  # fmt: skip
            moved = {
                "business_day": "d::date", "week_start": "date_trunc('week', d)::date",
                "month_start": "date_trunc('month', d)::date",
                "calls_offered": "calls_offered * (1 + mod(extract(doy from d)::int, 4))",
                "calls_abandoned": "calls_abandoned * (1 + mod(extract(doy from d)::int, 3))",
            }  # fmt: skip
            server.execute(
                "select ops.ensure_month(%s, d::date) from generate_series(%s::date - 200, %s, "
                "'1 day') as d", [table, newest, newest],
            )  # fmt: skip
            server.execute(f"delete from marts.{table} where business_day <> %s".encode(), [START])
            server.execute(
                f"insert into marts.{table} ({', '.join(columns)}) "
                f"select {', '.join(moved.get(name, name) for name in columns)} from marts.{table} "
                "cross join generate_series(%s::date - 200, %s, '1 day') as d "
                "where d <> business_day".encode(), [newest, newest],
            )  # fmt: skip
            for source, day in lost_day.items():
                server.execute(
                    f"delete from marts.{table} where source = %s and business_day = %s".encode(),
                    [source, day],
                )
            name = "member_name" if table == "agg_groups_daily" else "queue_name"
            server.execute(
                f"delete from marts.{table} where not ({is_there.format(name)})".encode()
            )
        server.execute(f"set local session authorization {person}".encode())
        asked = sql.SQL("select to_jsonb(r) from bi.{} as r")
        days, shown = (
            [row for (row,) in server.execute(asked.format(sql.Identifier(relation)))]
            for relation in ("agg_summary_daily", "agg_group_changes_weekly")
        )
        server.rollback()
    assert {row["source"] for row in shown} == set(sources)
    contributions: dict[tuple[str, str, str], float] = {}
    for row in shown:
        whole_week = row["source"], row["business_day"], row["dimension"]
        contributed = row.pop("service_contribution")
        contributions[whole_week] = contributions.get(whole_week, 0) + contributed
    found = changes(days, newest - timedelta(days=14 * 7))
    assert keyed(shown) == keyed(found)
    for whole_week, contributed in contributions.items():
        rows = [r for r in found if (r["source"], r["business_day"], r["dimension"]) == whole_week]
        now, before = (
            sum(r[f"answered_within_target{end}"] for r in rows)
            / sum(r[f"answered_or_abandoned{end}"] for r in rows)
            for end in ("", "_before")
        )
        assert contributed == pytest.approx(now - before, abs=1e-9), whole_week


def changes(days: list[Row], after: date) -> list[Row]:
    """What changed from week to week, of days after `after`: by hand, week by week."""
    summed = ("calls_offered", "calls_abandoned", "answered_within_target")
    weeks: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    seen: dict[tuple[str, str], set[str]] = {}
    for day in days:
        if date.fromisoformat(day["business_day"]) <= after:
            continue
        week, member = (day["source"], day["week_start"]), (day["dimension"], day["member"])
        row = weeks.setdefault(week, {}).setdefault(
            member, dict.fromkeys((*summed, "answered_or_abandoned"), 0) | {"member_name": ""}
        )
        for name in summed:
            row[name] += day[name]
        row["answered_or_abandoned"] += day["calls_answered"] + day["calls_abandoned"]
        row["member_name"] = max(row["member_name"], day["member_name"])
        seen.setdefault(week, set()).add(day["business_day"])
    found = []
    for (source, start), now in weeks.items():
        before_start = (date.fromisoformat(start) - timedelta(days=7)).isoformat()
        before = weeks.get((source, before_start), {})
        if len(seen[source, start]) < 7 or len(seen.get((source, before_start), ())) < 7:
            continue
        nothing = dict.fromkeys((*summed, "answered_or_abandoned"), 0)
        for place in {*now, *before}:
            new, old = now.get(place, nothing), before.get(place, nothing)
            found.append(
                {"business_day": start, "source": source,
                 "dimension": place[0], "member": place[1],
                 "member_name": (new if new is not nothing else old)["member_name"]}
                | {name: new[name] for name in nothing}
                | {f"{name}_before": old[name] for name in nothing}
            )  # fmt: skip
    newest = {row["source"]: max(r["business_day"] for r in found if r["source"] == row["source"])
              for row in found}  # fmt: skip
    return [row | {"is_newest": row["business_day"] == newest[row["source"]]} for row in found]


def test_each_person_sees_exactly_the_rows_of_the_model(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    connections = {name: login(name) for name in PEOPLE}
    seen: dict[str, int] = dict.fromkeys(PEOPLE, 0)
    shown_callers = masks(centre)
    for relation, kind in RELATIONS.items():
        rows = whole(centre, relation)
        assert rows or relation in EMPTY, relation
        for name, own in connections.items():
            found = own.execute(f"select to_jsonb(r) from bi.{relation} as r").fetchall()
            wanted = [row for row in rows if allowed(name, kind, row)]
            if relation == "fct_calls":
                shown = shown_callers if name in SEES_MASKS else {}
                wanted = [
                    {**row, "caller_masked": shown.get(row["caller_token"])} for row in wanted
                ]
                numbers = {row["caller_masked"] for row in wanted}
                assert (len(numbers) > 5) == (name in SEES_MASKS and bool(wanted)), name
            assert keyed([row for (row,) in found]) == keyed(wanted), (name, relation)
            if kind == CALLS:
                seen[name] += len(found)
    none = {"executive", "engineer", "auditor", "former", "nobody_yet"}
    assert {name for name, number in seen.items() if not number} == none


def test_masks_of_callers_follow_the_calls_and_are_not_to_be_asked_for(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    calls, shown = whole(centre, "fct_calls"), masks(centre)
    for name in PEOPLE:
        tokens = {
            call["caller_token"] for call in calls if allowed(name, CALLS, call)
        } - {None}  # fmt: skip
        wanted = {token: shown[token] if name in SEES_MASKS else None for token in tokens}
        found = login(name).execute("select caller_token::text, caller_masked from bi.dim_caller")
        assert dict(found.fetchall()) == wanted, name
    own = login("lead_gz_a")
    foreign = next(c for c in calls if not allowed("lead_gz_a", CALLS, c) and c["caller_token"])
    ask = "select sec.masked_caller(%s::date, %s)"
    place = [foreign["business_day"], foreign["call_key"]]
    assert own.execute(ask, place).fetchone() == (None,)
    assert login("analyst").execute(ask, place).fetchone() == (None,)
    assert login("director").execute(ask, place).fetchone() == (shown[foreign["caller_token"]],)


def test_an_id_of_one_source_is_not_that_of_another(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    ask = "select array_agg(distinct source order by source) from bi.fct_calls"
    assert login("agent_103").execute(ask).fetchone() == (["other_site", "sample_hotline"],)
    assert login("agent_here").execute(ask).fetchone() == (["sample_hotline"],)
    assert login("manager_there").execute(ask).fetchone() == (["other_site"],)
    call = next(c for c in whole(centre, "fct_calls") if allowed("agent_here", CALLS, c))
    because = people.explain(centre, "agent_here", call["call_key"]).because
    assert [why.split(",")[0] for why in because] == ["agent sample_hotline/103 (masked)"]
    assert not people.explain(centre, "manager_there", call["call_key"]).is_seen
    with people.server(centre) as server:
        told = people.shared_ids(server, (("agent", "103"), ("all", "*"), ("agent", "nobody")))
    (sentence,) = told
    assert sentence.startswith("agent 103 is in other_site, sample_hotline: all are seen;")


def test_who_has_tokens_too_sees_no_mask(centre: Settings) -> None:
    """A token beside a mask would tell of every call with it: the stricter of both holds."""
    with people.server(centre) as server:
        people.ensure(centre, server, people.Person("both", "b", (("team", "GZ-A"),)))
    ask = "select count(*), count(caller_masked) from bi.fct_calls"
    with psycopg.connect(dsn(centre, "both"), autocommit=True) as own:
        number, shown = warehouse.one(own, ask)
        assert 0 < shown <= number
        with people.server(centre) as server:
            server.execute(
                "insert into sec.entitlement (person, scope_type, scope_id, mask_level, granted_by,"
                " reason) values ('both', 'region', 'CN-SC', 'token', 'owner', 'research')"
            )
        more, shown = warehouse.one(own, ask)
        assert more > number and shown == 0
    with people.server(centre) as server:
        people.close(server, "both", "owner", "done")


def test_masks_of_callers_from_before_are_filled_in_once(centre: Settings) -> None:
    with warehouse.connect(centre) as connection:
        count = (
            "select count(*), md5(string_agg(masked, ',' order by caller_token)) from pii.callers"
        )
        before = warehouse.one(connection, count)
        connection.execute("update pii.callers set masked = null")
    assert callers.fill_masks(centre) == before[0] > 100
    assert callers.fill_masks(centre) == 0
    with warehouse.connect(centre) as connection:
        assert warehouse.one(connection, count) == before


# ---------------------------------------------------------------- reviews
def test_a_reviewed_call_leaves_the_queue_and_stays_out_of_it(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    checks = whole(centre, "quality_checks")
    assert keyed(checks) == keyed(whole(centre, "bridge_call_anomaly"))
    assert len({(c["call_key"], c["rule"]) for c in checks}) == len(checks)
    # Whose calls of this small sample have some.
    reviewer = next(
        name
        for name in ("lead_gz_a", "lead_queue", "manager_gd")
        if any(allowed(name, CALLS, check) for check in checks)
    )
    mine = next(c for c in checks if allowed(reviewer, CALLS, c))
    other = next(c for c in checks if not allowed(reviewer, CALLS, c))

    def review(check: Row, person: str | None) -> str:
        return reviews.done(
            centre, check["call_key"], check["rule"], "confirmed", "call 138 1234 5678 back",
            "operator", person,
        )  # fmt: skip

    for check, person, told in (
        (mine, "agent_103", "agent_103 reviews no calls"),
        (mine, "analyst", "analyst reviews no calls"),
        (other, reviewer, f"that {reviewer} may see"),
    ):
        with pytest.raises(CallhouseError, match=told):
            review(check, person)
    with pytest.raises(CallhouseError, match="is not one of confirmed, harmless, bad_data"):
        reviews.done(centre, mine["call_key"], mine["rule"], "fine", None, "operator")
    assert keyed(whole(centre, "quality_checks")) == keyed(checks)

    assert f"reviewed by {reviewer}" in review(mine, reviewer)
    assert "reviewed by operator" in review(other, None)
    for again in (reviewer, "director", None):
        with pytest.raises(CallhouseError, match="no open check"):
            review(mine, again)
    left = [c for c in checks if c not in (mine, other)]
    assert keyed(whole(centre, "quality_checks")) == keyed(left)
    names = {c.call_key for c in reviews.waiting(centre, reviewer, limit=1000)}
    assert names == {c["call_key"] for c in left if allowed(reviewer, CALLS, c)}

    # The day is built again from scratch: what was seen stays seen.
    transform.mark(centre, [date.fromisoformat(mine["business_day"])], "test")
    assert transform.drain(centre, print).problems == ()
    assert keyed(whole(centre, "quality_checks")) == keyed(left)
    with people.server(centre) as server:
        notes_kept = server.execute("select distinct note from ops.quality_reviews").fetchall()
        assert notes_kept == [("call <PHONE> back",)]
        # Another version of the rule asks again.
        server.execute(
            "update ops.quality_reviews set rule_version = 7 where call_key = %s",
            [mine["call_key"]],
        )
    assert keyed(whole(centre, "quality_checks")) == keyed([*left, mine])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        login("director").execute("select * from ops.quality_reviews")


# ---------------------------------------------------------------- ways in
def _copy(own: psycopg.Connection, query: str) -> list[str]:
    with own.cursor().copy(f"copy ({query}) to stdout") as data:
        return [bytes(chunk).decode().rstrip("\n") for chunk in data]


def _cursor(own: psycopg.Connection, query: str) -> list[str]:
    with own.transaction():
        own.execute(f"declare c scroll cursor for {query}")
        return [str(row[0]) for row in own.execute("fetch all from c").fetchall()]


def _prepared(own: psycopg.Connection, query: str) -> list[str]:
    own.execute(f"prepare p as {query}")
    found = own.execute("execute p").fetchall()
    own.execute("deallocate p")
    return [str(row[0]) for row in found]


def _plain(own: psycopg.Connection, query: str) -> list[str]:
    return [str(row[0]) for row in own.execute(query).fetchall()]


def _snapshot(own: psycopg.Connection, query: str) -> list[str]:
    with own.transaction():
        own.execute("set transaction isolation level repeatable read")
        return _plain(own, query)


def _without_row_security(own: psycopg.Connection, query: str) -> list[str]:
    own.execute("set row_security = off")
    try:
        return _plain(own, query)
    except psycopg.errors.InsufficientPrivilege:
        return []
    finally:
        own.execute("set row_security = on")


WAYS: dict[str, Callable[[psycopg.Connection, str], list[str]]] = {
    "select": _plain,
    "copy": _copy,
    "cursor": _cursor,
    "prepared": _prepared,
    "repeatable read": _snapshot,
    "server-side parameters": lambda own, q: [
        str(r[0]) for r in own.cursor(row_factory=psycopg.rows.tuple_row).stream(q)
    ],
    "binary": lambda own, q: [str(r[0]) for r in own.cursor(binary=True).execute(q).fetchall()],
    "subquery": lambda own, q: _plain(own, f"select * from ({q}) as s"),
    "cte": lambda own, q: _plain(own, f"with s as materialized ({q}) select * from s"),
    "cte of the table's name": lambda own, q: _plain(
        own, f"with fct_calls as ({q}) select * from fct_calls"
    ),
    "lateral": lambda own, q: _plain(own, f"select s.* from (select 1) as o, lateral ({q}) as s"),
    "upper case": lambda own, q: _plain(own, q.replace("bi.fct_calls", 'BI."fct_calls"')),
    "array": lambda own, q: _plain(own, f"select unnest(array({q}))"),
    "union": lambda own, q: _plain(own, f"{q} union all {q} limit 0") or _plain(own, q),
    "aggregate": lambda own, q: json.loads(
        str(own.execute(f"select coalesce(jsonb_agg(k), '[]') from ({q}) as s(k)").fetchone()[0])  # type: ignore[index]
        .replace("'", '"')
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_asking_shows_another_row(
    centre: Settings, login: Callable[[str], psycopg.Connection], way: str
) -> None:
    calls = whole(centre, "fct_calls")
    query = "select call_key from bi.fct_calls"
    for name in PEOPLE:
        wanted = sorted(c["call_key"] for c in calls if allowed(name, CALLS, c))
        assert sorted(WAYS[way](login(name), query)) == wanted, name


def test_pg_dump_and_psql_show_no_other_row(centre: Settings) -> None:
    """pg_dump asks without row security and is refused; with it, it gets the rows of the person."""
    directory = postgres.find_binaries(centre)
    assert directory is not None
    calls = whole(centre, "fct_calls")
    own = [c["call_key"] for c in calls if allowed("lead_gz_a", CALLS, c)]
    environment = {
        "PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGPORT": str(centre.postgres_port),
        "PGUSER": "lead_gz_a", "PGDATABASE": "callhouse",
        "PGPASSWORD": login_password(centre, "lead_gz_a"),
    }  # fmt: skip

    def run(tool: str, *arguments: str) -> str:
        result = subprocess.run(
            [directory.directory / tool, *arguments],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return result.stdout + result.stderr

    for arguments in (
        ("--data-only",), ("--data-only", "--enable-row-security"),
        ("--data-only", "--table=marts.fct_calls"), ("--data-only", "--schema=pii"),
        ("--data-only", "--enable-row-security", "--table=marts.fct_calls", "--inserts"),
    ):  # fmt: skip
        output = run("pg_dump", *arguments)
        others = [c["call_key"] for c in calls if c["call_key"] not in own]
        assert not any(f"{key}\t" in output or f"'{key}'" in output for key in others), arguments
    shown = run("psql", "-At", "-c", "select call_key from bi.fct_calls").split()
    assert sorted(shown) == sorted(own)


# ---------------------------------------------------------------- attacks
REFUSED = (
    # past the views
    "select * from marts.fct_calls",
    "table marts.fct_calls",
    "select * from marts.fct_calls_2026_10",
    "select * from candidate.fct_calls",
    "select * from intake.calls",
    "select * from staging.members",
    "select * from ops.quarantine",
    "select * from ops.units",
    "select * from ops.alerts",
    "select * from ops.notifications",
    "select * from pii.callers",
    "select masked from pii.callers",
    "select * from sec.entitlement",
    "select * from sec.people",
    "select * from sec.mine",
    "copy marts.fct_calls to stdout",
    "create view bi.mine as select 1",
    "create table bi.copy as select * from bi.fct_calls",
    "create temp table t as select * from bi.fct_calls",
    "create schema mine",
    "create function public.leak() returns int language sql as 'select 1'",
    "alter view bi.fct_calls set (security_invoker = off)",
    "drop policy reader on marts.fct_calls",
    "alter table marts.fct_calls disable row level security",
    # as somebody else
    "set role callhouse_owner",
    "set role director",
    "set role postgres",
    "set session authorization director",
    "alter role current_user superuser",
    "alter role director password 'x'",
    "create role thief login",
    "grant director to current_user",
    # text run as a query, and files
    "select query_to_xml('select * from bi.fct_calls', true, false, '')",
    "select table_to_xml('bi.fct_calls', true, false, '')",
    "select schema_to_xml('bi', true, false, '')",
    "select database_to_xml(true, false, '')",
    "select cursor_to_xml('c', 1, true, false, '')",
    "select * from ts_stat('select to_tsvector(call_key) from bi.fct_calls')",
    "select pg_read_file('PG_VERSION')",
    "select pg_ls_dir('.')",
    "copy (select 1) to '/tmp/leak'",
    "copy (select 1) to program 'cat'",
    "select lo_import('/etc/passwd')",
    "select lo_create(0)",
    "select pg_notify('x', 'y')",
    "select pg_export_snapshot()",
    # functions of the pipeline
    "select ops.publish(1)",
    "select ops.evaluate_alerts(now())",
    "select sec.keep_history()",
    # writing
    "insert into sec.entitlement values ('lead_gz_a', 'all', '*')",
    "update sec.people set level = 'engineer'",
    "delete from marts.fct_calls",
    "truncate marts.fct_calls",
    "do $$ begin lock table marts.fct_calls; end $$",
    # counts that row security hides
    "select * from pg_stat_user_tables",
    "select * from pg_stat_all_tables",
    "select * from pg_statio_user_tables",
    "select * from pg_stats",
    "select pg_stat_get_live_tuples('marts.fct_calls'::regclass)",
    "select pg_relation_size(c.oid) from pg_class as c limit 1",
    "select pg_total_relation_size(c.oid) from pg_class as c limit 1",
    "select pg_advisory_lock(1)",
    "select * from pg_authid",
    "select * from pg_user_mapping",
    "vacuum marts.fct_calls",
)  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_what_a_reader_may_not_do(
    login: Callable[[str], psycopg.Connection], statement: str
) -> None:
    with pytest.raises(
        (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidCursorName)
    ) as refused:
        login("lead_gz_a").execute(statement.encode())
    # What is refused must not tell of a row either.
    assert "GZ-" not in str(refused.value).replace(statement, "")


def test_settings_change_nothing_of_what_is_seen(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    own = login("lead_gz_a")
    (before,) = own.execute("select count(*) from bi.fct_calls").fetchone() or (0,)
    assert before
    for statement in (
        "select set_config('session_authorization', 'lead_gz_a', false)",
        "select set_config('search_path', 'marts, sec, bi', false)",
        "select set_config('callhouse.person', 'director', false)",
        "set application_name = 'director'",
        "set default_transaction_read_only = off",
        "set statement_timeout = 0",
        "set plan_cache_mode = force_generic_plan",
        "set enable_seqscan = off",
        "set row_security = on",
        "set check_function_bodies = off",
        "set jit = on",
    ):
        own.execute(statement.encode())
        assert own.execute("select count(*) from bi.fct_calls").fetchone() == (before,), statement
    for forged in (
        "select set_config('role', 'director', false)",
        "select set_config('session_authorization', 'director', false)",
        "select set_config('session_replication_role', 'replica', false)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute(forged.encode())
    own.execute("set row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        own.execute("select count(*) from bi.fct_calls")


def test_leaky_conditions_meet_no_foreign_row(
    centre: Settings, login: Callable[[str], psycopg.Connection]
) -> None:
    """Errors, notices and plans of a condition that fails on a foreign row would tell of it."""
    calls = whole(centre, "fct_calls")
    foreign = next(c for c in calls if not allowed("lead_gz_a", CALLS, c) and c["call_id"])
    own = login("lead_gz_a")
    notices: list[str] = []
    own.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    for condition in (
        "1 / (case when call_key = '{key}' then 0 else 1 end) = 1",
        "case when call_key = '{key}' then call_key::int else 1 end = 1",
        "call_key::text = '{key}' and (1 / (talk_seconds - talk_seconds)) > 0",
        "region_code::int = 0 and region_code <> 'CN-GD' and call_key = '{key}'",
    ):
        text = condition.format(key=foreign["call_key"])
        found = own.execute(f"select call_key from bi.fct_calls where {text}".encode()).fetchall()
        assert all(key != foreign["call_key"] for (key,) in found)
    own.execute(
        b"do $$ declare r record; begin for r in select call_key from bi.fct_calls loop"
        b" raise notice '%', r.call_key; end loop; end $$"
    )
    mine = {c["call_key"] for c in calls if allowed("lead_gz_a", CALLS, c)}
    assert set(notices) == mine
    plan = "\n".join(
        line for (line,) in own.execute("explain (analyze, verbose) select * from bi.fct_calls")
    )
    assert foreign["call_key"] not in plan


# ---------------------------------------------------------------- entitlements
def entitlements(settings: Settings, person: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(
            "select scope_type, scope_id, mask_level, upper_inf(valid), revoked_by, revoke_reason"
            " from sec.entitlement where person = %s order by lower(valid)",
            [person],
        ).fetchall()


def test_a_revoked_scope_ends_at_once_in_every_session(centre: Settings) -> None:
    person = people.Person("leaver", "l", (("team", "GZ-A"), ("region", "CN-SC")))
    with people.server(centre) as server:
        people.ensure(centre, server, person, by="owner", reason="joins")
        with psycopg.connect(dsn(centre, "leaver")) as open_session:
            # A snapshot from before the revocation, kept open.
            open_session.execute("set transaction isolation level repeatable read")
            before = warehouse.one(open_session, "select count(*) from bi.fct_calls")[0]
            ended = people.revoke(server, "leaver", [("region", "CN-SC")], "owner", "moved")
            assert ended == [("region", "CN-SC")]
            with pytest.raises(psycopg.OperationalError):
                open_session.execute("select count(*) from bi.fct_calls")
        with psycopg.connect(dsn(centre, "leaver")) as own:
            after = warehouse.one(own, "select count(*) from bi.fct_calls")[0]
        assert 0 < after < before
        with pytest.raises(CallhouseError, match="has no region=CN-SC"):
            people.revoke(server, "leaver", [("region", "CN-SC")], "owner", "again")
        people.close(server, "leaver", "owner", "left")
        with (
            pytest.raises(CallhouseError, match="no login"),
            warehouse.connect_as(centre, "leaver", login_password(centre, "leaver")),
        ):
            pass
        assert entitlements(centre, "leaver") == [
            ("team", "GZ-A", "masked", False, "owner", "left"),
            ("region", "CN-SC", "masked", False, "owner", "moved"),
        ]
        # Somebody who comes back starts anew; the history stays.
        people.ensure(centre, server, person, by="owner", reason="back")
        assert len(entitlements(centre, "leaver")) == 4


def test_entitlements_are_history(centre: Settings) -> None:
    row = ("lead_gz_a", "team", "GZ-A", "owner", "twice")
    again = (
        "insert into sec.entitlement (person, scope_type, scope_id, granted_by, reason)"
        " values (%s, %s, %s, %s, %s)"
    )
    longer = (
        "update sec.entitlement set valid = tstzrange(lower(valid) - interval '1 year', null)"
        " where person = %s"
    )
    with people.server(centre) as server:
        for statement, parameters, told in (
            (again, row, "already within that time"),
            ("delete from sec.entitlement where person = %s", ("lead_gz_a",), "history"),
            ("truncate sec.entitlement", (), "history"),
            ("update sec.entitlement set scope_id = 'GZ-B' where person = %s", ("lead_gz_a",),
             "only be ended"),
            (longer, ("lead_gz_a",), "only be ended"),
            ("update sec.entitlement set valid = tstzrange(lower(valid), null) where person = %s",
             ("former",), "only be ended"),
        ):  # fmt: skip
            with pytest.raises(psycopg.Error, match=told):
                server.execute(statement.encode(), parameters)
            server.rollback()


@pytest.mark.parametrize(
    ("person", "told"),
    [
        (people.Person("x_one", "x", (("team", "GZ-A"),), level="agent"), "cannot be given team"),
        (people.Person("x_one", "x", (("region", "CN-GD"),), level="executive"), "cannot be given"),
        (people.Person("x_one", "x", (("all", "CN-GD"),)), "is no scope"),
        (people.Person("x_one", "x", (("town", "A"),)), "is no scope: use one of"),
        (people.Person("x_one", "x", (), level="boss"), "is no level"),
        (people.Person("x_one", "x", (), rights=("all",)), "is no right"),
        (people.Person("postgres", "x", ()), "cannot be a person's login"),
    ],
)
def test_what_cannot_be_is_refused(centre: Settings, person: people.Person, told: str) -> None:
    with people.server(centre) as server, pytest.raises(CallhouseError, match=told):
        people.ensure(centre, server, person)


def test_another_level_ends_scopes_of_the_old_one(centre: Settings) -> None:
    everything = (("all", "*"),)
    with people.server(centre) as server:
        people.ensure(centre, server, people.Person("promoted", "p", everything, level="analyst"))
    with people.server(centre) as server:
        people.ensure(centre, server, people.Person("promoted", "p", everything, level="executive"))
    assert [(row[2], row[3]) for row in entitlements(centre, "promoted")] == [
        ("token", False), ("aggregate", True),
    ]  # fmt: skip
    with psycopg.connect(dsn(centre, "promoted")) as own:
        assert warehouse.one(own, "select count(*) from bi.fct_calls")[0] == 0


def test_a_file_of_version_control_decides(centre: Settings, tmp_path: Path) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(
        "people:\n"
        "  - {person: from_file, level: lead, label: Lead, scopes: [team=GZ-A, team=SH-A],"
        " rights: [export], reason: runs both}\n"
        "  - {person: also_file, level: engineer}\n",
        encoding="utf-8",
    )
    changes = people.synchronise(centre, file, "git")
    assert changes == ["from_file: brought up to date", "also_file: brought up to date"]
    assert people.synchronise(centre, file, "git") == []
    table = tmp_path / "access.csv"
    table.write_text(
        "person,label,level,scope,rights,until,reason\n"
        "from_file,Lead,lead,team=SH-A,export,,runs one\n",
        encoding="utf-8",
    )
    changes = people.synchronise(centre, table, "git")
    assert changes == ["from_file: brought up to date", "also_file: closed"]
    with people.server(centre) as server:
        assert people.find(server, "from_file").scopes == (("team", "SH-A"),)
        # Made by command: not the file's business.
        assert people.find(server, "lead_gz_a").scopes == (("team", "GZ-A"),)
    held = [(row[1], row[5]) for row in entitlements(centre, "from_file")]
    assert sorted(held, key=str) == [("GZ-A", "not in access.csv"), ("SH-A", None)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("people: []\n", "names nobody"),
        ("people:\n  - {person: a_one, level: lead, scopes: [team]}\n", "is no scope"),
        ("people:\n  - {person: a_one, level: lead, scope: x, town: y}\n", "unknown town"),
        ("people:\n  - {level: lead}\n", "needs person and level"),
        ("people:\n  - {person: a_one, level: lead, until: soon}\n", "until of a_one"),
        (
            "people:\n  - {person: a_one, level: lead}\n  - {person: a_one, level: lead}\n",
            "more than once",
        ),
        ("people: [\n", "is no YAML"),
    ],
)
def test_a_wrong_file_changes_nothing(
    centre: Settings, tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(text, encoding="utf-8")
    with warehouse.connect(centre) as connection:
        before = warehouse.one(connection, "select count(*) from sec.entitlement")
    with pytest.raises(CallhouseError, match=told):
        people.synchronise(centre, file, "git")
    with warehouse.connect(centre) as connection:
        assert warehouse.one(connection, "select count(*) from sec.entitlement") == before


def test_why_somebody_sees_a_call(centre: Settings) -> None:
    calls = whole(centre, "fct_calls")
    call = next(c for c in calls if c["team_id"] == "GZ-A" and c["region_code"] == "CN-GD")
    for name in PEOPLE:
        answer = people.explain(centre, name, call["call_key"])
        assert answer.is_seen == allowed(name, CALLS, call), name
        assert bool(answer.because) == answer.is_seen
    answer = people.explain(centre, "manager_two", call["call_key"])
    assert answer.because[0].startswith("team GZ-A (masked), granted by callhouse on ")
    other = next(c for c in calls if not allowed("manager_two", CALLS, c))
    answer = people.explain(centre, "manager_two", other["call_key"])
    assert f"region {other['region_code']}" in answer.sentence
    assert "manager_two sees region CN-SC, team GZ-A" in answer.sentence


# ---------------------------------------------------------------- the second belt
def test_row_filters_of_superset_show_what_the_policies_show(centre: Settings) -> None:
    """What Superset would add as WHERE to a person's query, against what row security shows."""
    published = published_marts.from_manifest(dbt.manifest(centre))
    with warehouse.connect(centre) as connection:
        held = connection.execute(
            "select person, scope_type, scope_id, mask_level from sec.entitlement"
            " where valid @> now()"
        ).fetchall()
    filters = importing.row_filters(published, {tuple(row[1:]) for row in held})
    for name in PEOPLE:
        roles = {"Callhouse viewer"} | {
            importing.scope_name(*row[1:]) for row in held if row[0] == name
        }
        with warehouse.connect(centre) as owner, psycopg.connect(dsn(centre, name)) as own:
            for mart in published:
                where = " and ".join(_superset_where(filters, mart.name, roles)) or "true"
                expected = warehouse.one(
                    owner, f"select count(*) from marts.{mart.name} where {where}"
                )
                assert warehouse.one(own, f"select count(*) from bi.{mart.name}") == expected, (
                    name, mart.name, where,
                )  # fmt: skip


def _superset_where(filters: list[Row], table: str, roles: set[str]) -> list[str]:
    """Superset's rule: base filters for all but their roles, regular ones of a group by OR."""
    taken = {name for one in filters if one["type"] == "Base" for name in one["tables"] or ()}
    base, regular = [], []
    for one in filters:
        tables = one["tables"]
        if table not in tables if tables is not None else table in taken:
            continue
        if one["type"] == "Base" and not roles & set(one["roles"]):
            base.append(one["clause"])
        if one["type"] == "Regular" and roles & set(one["roles"]):
            regular.append(one["clause"])
    return base + ([f"({' or '.join(regular)})"] if regular else [])


def test_what_protects_can_be_applied_again(centre: Settings) -> None:
    """As every `make up` does; the second time, everything belongs to its owner already."""
    warehouse.bootstrap(centre, centre.dsn("postgres", "postgres"))
    with warehouse.connect(centre) as connection:
        assert published_marts.unprotected(connection) == []
    with psycopg.connect(dsn(centre, "lead_gz_a")) as own:
        assert warehouse.one(own, "select count(*) > 0 from bi.fct_calls")[0]


def test_scripts_are_repeated_where_somebody_stood_in_their_way(centre: Settings) -> None:
    """A deadlock with whatever runs meanwhile ends the scripts, which begin anew."""
    superuser = centre.dsn("postgres", "postgres")
    with (
        psycopg.connect(superuser, dbname="callhouse", autocommit=True) as watching,
        ThreadPoolExecutor() as pool,
    ):
        before = deadlocks(watching)
        deadline = time.monotonic() + 120
        with psycopg.connect(superuser, dbname="callhouse") as other:
            other.execute("set deadlock_timeout = '1min'")  # it is the scripts that find it
            other.execute("lock table sec.people in access share mode")
            scripts = pool.submit(warehouse.bootstrap, centre, superuser)
            waits = "select count(*) from pg_locks where not granted"
            while not warehouse.one(watching, waits)[0]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            other.execute("lock table ops.units in access exclusive mode")
        scripts.result(120)
        # Counters of the server come a little later.
        while deadlocks(watching) == before:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def deadlocks(connection: psycopg.Connection) -> int:
    found = warehouse.one(
        connection, "select deadlocks from pg_stat_database where datname = 'callhouse'"
    )
    return int(found[0])
