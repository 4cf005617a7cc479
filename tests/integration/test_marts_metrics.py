"""Metrics by their reference vectors, and the dbt project on a handful of calls worked by hand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from callhouse import semantic, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import dbt, marts

VISIT_COLUMNS = (
    "calls_offered", "calls_answered", "calls_abandoned", "answered_within_target",
    "abandoned_within_target", "answered_within_15s", "short_abandons", "answered_waits",
    "answered_wait_seconds", "abandoned_waits", "abandoned_wait_seconds",
)  # fmt: skip
# ICMI's example: 1000 answered (860 within 20 s), 60 abandoned (20 within 20 s, 10 within 5 s).
ICMI = {
    "calls_offered": 1060, "calls_answered": 1000, "calls_abandoned": 60,
    "answered_within_target": 860, "abandoned_within_target": 20, "short_abandons": 10,
}  # fmt: skip
# Cisco's: of 100 calls 70 were answered and 10 abandoned within the threshold, 20 answered later.
CISCO = {
    "calls_offered": 100, "calls_answered": 90, "calls_abandoned": 10,
    "answered_within_target": 70, "abandoned_within_target": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(settings: Settings) -> semantic.Catalogue:
    return semantic.load(settings)


def value(
    connection: psycopg.Connection, metric: semantic.Metric, relation: str
) -> Decimal | float | None:
    """The metric's own expression over `relation`."""
    query = f"select {metric.expression} from {relation} as relation"
    return warehouse.one(connection, query)[0]  # type: ignore[no-any-return]


def visits(**sums: int) -> str:
    """One row of sums, as an aggregate would hold them."""
    columns = ", ".join(f"{sums.get(name, 0)} as {name}" for name in VISIT_COLUMNS)
    return f"(select {columns})"


@pytest.mark.parametrize(
    ("sums", "metric", "expected"),
    [
        (ICMI, "service_level", 860 / 1060),
        (ICMI, "service_level_ignore", 860 / 1040),
        (ICMI, "service_level_positive", 880 / 1060),
        (ICMI, "service_level_answered", 0.86),
        (ICMI, "service_level_short_excluded", 860 / 1050),
        (ICMI, "abandon_rate", 60 / 1060),
        (ICMI, "answer_rate", 1000 / 1060),
        (CISCO, "service_level", 0.70),
        (CISCO, "service_level_ignore", 70 / 90),
        (CISCO, "service_level_positive", 0.80),
    ],
)
def test_reference_vectors(
    connection: psycopg.Connection, catalogue: semantic.Catalogue,
    sums: dict[str, int], metric: str, expected: float,
) -> None:  # fmt: skip
    found = value(connection, catalogue.metrics[metric], visits(**sums))
    assert found is not None
    assert float(found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "metric",
    ["service_level", "service_level_ignore", "service_level_positive", "service_level_answered",
     "service_level_short_excluded", "abandon_rate", "answer_rate", "answer_rate_15s", "asa",
     "avg_abandon_time"],
)  # fmt: skip
def test_a_ratio_without_a_denominator_is_null(
    connection: psycopg.Connection, catalogue: semantic.Catalogue, metric: str
) -> None:
    assert value(connection, catalogue.metrics[metric], visits()) is None


# Of an hour logged in an agent talked 20 minutes, held 5, wrapped up 5, was ready 10, rang 2,
# dialled 1, was consulted 2 and paused 15: occupied 30 of 40 minutes, talk and after-call work 25
# of 60.
HOUR = {
    "agent_days": 1, "login_seconds": 3600, "ready_seconds": 600, "pause_seconds": 900,
    "state_talk_seconds": 1200, "state_hold_seconds": 300, "state_acw_seconds": 300,
    "state_ring_seconds": 120, "state_dial_seconds": 60, "state_consult_seconds": 120,
    "provisional_login_seconds": 90,
}  # fmt: skip
# 40 offered, 20 answered: 6 of 8 satisfied; 5 promoters and 2 detractors of 10; efforts 7 and 4.
ASKED = {
    "survey_offers": 40, "survey_responses": 20, "csat_responses": 8, "csat_satisfied": 6,
    "nps_responses": 10, "nps_promoters": 5, "nps_detractors": 2, "ces_responses": 2,
    "ces_scores": 11,
}  # fmt: skip
# 50 rings, of which 4 ran out and 44 were answered, together 300 s.
RUNG = {"offers": 50, "offers_answered": 44, "offers_unanswered": 4, "ring_seconds": 300}
# 30 requests of self-service: 12 solved, 3 given up, together 1,500 s.
SERVED = {
    "self_service_requests": 30, "self_service_contained": 12, "self_service_abandoned": 3,
    "step_seconds": 1500,
}  # fmt: skip

# Genesys' example: 60 minutes planned and worked, but 10 late and 10 over; 48 of 80 paid ones used.
KEPT = {
    "scheduled_seconds": 3600, "scheduled_work_seconds": 3600, "worked_seconds": 3600,
    "exception_seconds": 1200, "outside_seconds": 600, "utilised_seconds": 2880,
    "paid_seconds": 4800,
}  # fmt: skip


@pytest.mark.parametrize(
    ("sums", "metric", "expected"),
    [
        (HOUR, "occupied_seconds", 1800),
        (HOUR, "occupancy", 0.75),
        (HOUR, "occupancy_logged_in", 1500 / 3600),
        (HOUR, "pause_share", 0.25),
        (HOUR, "avg_login", 3600),
        (HOUR | {"agent_days": 2}, "avg_login", 1800),
        (HOUR | {"agent_days": 2}, "avg_pause", 450),
        (HOUR | {"agent_days": 2}, "avg_ready", 300),
        (HOUR, "provisional_login_share", 0.025),
        (ASKED, "survey_response_rate", 0.5),
        (ASKED, "csat", 0.75),
        (ASKED, "nps", 0.3),
        (ASKED, "ces", 5.5),
        (RUNG, "ring_no_answer_rate", 0.08),
        (RUNG, "offer_answer_rate", 0.88),
        (RUNG, "avg_offer_ring", 6),
        (SERVED, "self_service_containment_rate", 0.4),
        (SERVED, "self_service_abandon_rate", 0.1),
        (SERVED, "avg_self_service_time", 50),
        (KEPT, "adherence", 5 / 7),  # 71.4 %
        (KEPT, "adherence_in_shift", 5 / 6),
        (KEPT, "conformance", 1),
        (KEPT, "utilisation", 0.6),
        # Who stays away, and who stays away and works at another time, kept to nothing.
        (KEPT | {"exception_seconds": 3600, "outside_seconds": 0}, "adherence", 0),
        (KEPT | {"exception_seconds": 7200, "outside_seconds": 3600}, "adherence", 0),
    ],
)
def test_metrics_of_agents_and_customers(
    connection: psycopg.Connection, catalogue: semantic.Catalogue,
    sums: dict[str, int], metric: str, expected: float,
) -> None:  # fmt: skip
    """Worked by hand; and nothing to divide by is no result."""
    for factor, wanted in ((1, expected), (0, None)):
        columns = ", ".join(f"{value * factor} as {name}" for name, value in sums.items())
        found = value(connection, catalogue.metrics[metric], f"(select {columns})")
        if wanted is None and metric != "occupied_seconds":
            assert found is None
        else:
            assert found is not None
            assert float(found) == pytest.approx(wanted or 0, abs=1e-12)


def test_every_metric_of_the_list_is_there(catalogue: semantic.Catalogue) -> None:
    """What METRICS.md defines for calls, queues, agents and surveys.

    FCR needs the follow-ups of calls, and has its own tests.
    """
    listed = {
        "service_level", "service_level_ignore", "service_level_positive",
        "service_level_answered", "service_level_short_excluded", "queue_visits", "calls_offered",
        "calls_answered", "calls_abandoned", "answer_rate", "answer_rate_15s", "abandon_rate",
        "abandon_rate_total", "short_abandons", "transfer_rate", "transfer_rate_blind",
        "transfer_rate_attended", "transfer_rate_consult", "asa", "aht", "avg_talk", "avg_hold",
        "avg_hold_when_held", "avg_acw", "avg_abandon_time", "wait_p50", "wait_p80", "wait_p95",
        "occupancy", "occupancy_logged_in", "login_seconds", "pause_seconds", "talk_seconds",
        "hold_seconds", "acw_seconds", "ready_seconds", "csat", "survey_response_rate", "nps",
        "ces", "utilisation", "adherence", "adherence_in_shift", "conformance",
    }  # fmt: skip
    assert listed - catalogue.metrics.keys() == set()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([1, 2, 3, 4], 1.2909944487358056), ([7, 7, 7], 0.0), ([5], None), ([], None)],
)
def test_standard_deviation_is_the_sample_s(
    connection: psycopg.Connection, catalogue: semantic.Catalogue,
    seconds: list[int], expected: float | None,
) -> None:  # fmt: skip
    relation = (
        "(select 1 as connections_handled, s::numeric as handled_talk_seconds, "
        f"(s * s)::numeric as handled_talk_seconds_squared from unnest(array{seconds}::int[]) as s)"
    )
    found = value(connection, catalogue.metrics["talk_stddev"], relation)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert float(found) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def built(settings: Settings, cluster: postgres.Cluster) -> Iterator[Settings]:
    """Two days of a feed in Berlin, of which the first is claimed and built."""
    superuser = (
        f"host=127.0.0.1 port={settings.postgres_port} user=postgres "
        f"password={cluster.password} dbname=callhouse"
    )
    with psycopg.connect(superuser) as connection:
        connection.execute(registry.tables())
    with warehouse.connect(settings) as connection:
        connection.execute(
            """
            insert into ops.sources (source, vendor, label, time_zone)
            values ('by_hand', 'delimited', 'By hand', 'Europe/Berlin');
            insert into staging.members (source, kind, code)
            values ('by_hand', 'queue', 'q'), ('by_hand', 'agent', '101');
            create table staging.delimited_legs_by_hand partition of staging.delimited_legs
            for values from ('1998-03-29') to ('1998-03-31');
            insert into staging.delimited_legs (
                source, call_id, leg_number, unit_id, line_number, row_hash, queue_id, agent_id,
                outcome, abandon_stage, wait_seconds, talk_seconds, business_day, arrived_at,
                queue_entered_at, ended_at
            )
            select
                'by_hand', id, 1, 0, 0, md5(id)::uuid, queue, agent, outcome, stage, wait, talk,
                day, at, at, at + interval '2 minutes'
            from (
                values
                ('a', 'q', '101', 'answered', null, 20.0, 60.0, date '1998-03-29',
                 timestamptz '1998-03-29 00:59+00'),
                ('b', 'q', null, 'answered', null, 20.5, 0.0, '1998-03-29',
                 '1998-03-29 01:00+00'),
                ('c', 'q', null, 'abandoned', 'queue', 5.0, null, '1998-03-29',
                 '1998-03-29 21:59+00'),
                ('d', null, null, 'abandoned', 'ivr', null, null, '1998-03-29',
                 '1998-03-29 12:00+00'),
                ('e', null, null, 'phantom', null, null, 99.0, '1998-03-29',
                 '1998-03-29 12:00+00'),
                ('f', 'q', '101', 'answered', null, 1.0, 30.0, '1998-03-30',
                 '1998-03-29 22:01+00')
            ) as legs (id, queue, agent, outcome, stage, wait, talk, day, at);
            """
        )
        connection.execute(
            """
            create table staging.delimited_agent_states_by_hand
            partition of staging.delimited_agent_states
            for values from ('1998-03-29') to ('1998-03-30');
            create table staging.delimited_offers_by_hand partition of staging.delimited_offers
            for values from ('1998-03-29') to ('1998-03-30');
            create table staging.delimited_ivr_steps_by_hand
            partition of staging.delimited_ivr_steps
            for values from ('1998-03-29') to ('1998-03-30');
            create table staging.delimited_surveys_by_hand partition of staging.delimited_surveys
            for values from ('1998-03-29') to ('1998-03-30');
            create table staging.delimited_schedules_by_hand
            partition of staging.delimited_schedules
            for values from ('1998-03-29') to ('1998-03-30');
            -- 101 is to work from 00:58 to 01:00 UTC, over the clock change, then has a break until
            -- 01:01: 60 s absent, 60 s of the break worked or ready, 120 s outside of the shift.
            insert into staging.delimited_schedules (
                source, agent_id, unit_id, line_number, row_hash, activity, paid, shift_date,
                business_day, starts_at, ends_at
            )
            select
                'by_hand', '101', 0, 0, md5(activity)::uuid, activity, 'yes', '1998-03-29',
                '1998-03-29', start, stop
            from (
                values
                ('work', timestamptz '1998-03-29 00:58+00', timestamptz '1998-03-29 01:00+00'),
                ('break', '1998-03-29 01:00+00', '1998-03-29 01:01+00')
            ) as plan (activity, start, stop);
            -- 101 talks from 00:59 to 01:00 UTC (01:59 to 03:00 local), wraps up 30 s, is ready
            -- 90 s, pauses 60 s: 90 s of 180 s occupied, 240 s logged in.
            insert into staging.delimited_agent_states (
                source, agent_id, unit_id, line_number, row_hash, state, business_day, started_at,
                ended_at
            )
            select 'by_hand', '101', 0, 0, md5(state)::uuid, state, '1998-03-29', start, stop
            from (
                values
                ('talk', timestamptz '1998-03-29 00:59+00', timestamptz '1998-03-29 01:00+00'),
                ('acw', '1998-03-29 01:00+00', '1998-03-29 01:00:30+00'),
                ('ready', '1998-03-29 01:00:30+00', '1998-03-29 01:02+00'),
                ('pause', '1998-03-29 01:02+00', '1998-03-29 01:03+00')
            ) as states (state, start, stop);
            -- Call a rang in vain for 10 s, then 4 s until it was answered.
            insert into staging.delimited_offers (
                source, call_id, unit_id, line_number, row_hash, agent_id, outcome, ring_seconds,
                business_day, arrived_at, offered_at
            )
            select
                'by_hand', 'a', 0, 0, md5(outcome)::uuid, '101', outcome, ring, '1998-03-29',
                '1998-03-29 00:59+00', offered
            from (
                values
                ('no_answer', 10, timestamptz '1998-03-29 00:59:05+00'),
                ('answered', 4, '1998-03-29 00:59:16+00')
            ) as offers (outcome, ring, offered);
            -- Call d gave up in the menu, e was solved there after two steps.
            insert into staging.delimited_ivr_steps (
                source, call_id, step_number, unit_id, line_number, row_hash, channel, outcome,
                step_seconds, business_day, arrived_at, entered_at
            )
            select
                'by_hand', call, step, 0, 0, md5(call || step)::uuid, 'ivr', outcome, 15,
                '1998-03-29', '1998-03-29 12:00+00', '1998-03-29 12:00+00'
            from (
                values ('d', 1, 'abandoned'), ('e', 1, 'continued'), ('e', 2, 'contained')
            ) as steps (call, step, outcome);
            -- One of two satisfied; a promoter; an effort of 6; one without an answer.
            insert into staging.delimited_surveys (
                source, survey_id, unit_id, line_number, row_hash, call_id, survey_type, score,
                business_day, offered_at
            )
            select
                'by_hand', id, 0, 0, md5(id)::uuid, 'a', kind, score, '1998-03-29',
                '1998-03-29 01:01+00'
            from (
                values
                ('s1', 'csat', 5), ('s2', 'csat', 3), ('s3', 'nps', 9), ('s4', 'ces', 6),
                ('s5', 'csat', null)
            ) as surveys (id, kind, score);
            """
        )
        build = warehouse.one(
            connection, "insert into ops.builds default values returning build_id"
        )[0]
        connection.execute(
            "insert into ops.build_days (build_id, business_day) values (%s, '1998-03-29')", [build]
        )
    dbt.run(settings, "seed", report=dbt.quiet)
    dbt.run(settings, "build", "--selector", "production", report=dbt.quiet)
    # Unit tests ask for the columns of their inputs; follow-ups read what is published: nothing.
    with warehouse.connect(settings) as connection:
        marts.synchronise(connection, marts.from_manifest(dbt.manifest(settings)))
    dbt.run(settings, "build", "--selector", "followups", report=dbt.quiet)
    yield settings
    with warehouse.connect(settings) as connection:
        connection.execute("delete from ops.build_days where build_id = %s", [build])
        connection.execute("delete from ops.builds where build_id = %s", [build])
        for kind in ("legs", "agent_states", "offers", "ivr_steps", "surveys", "schedules"):
            connection.execute(f"drop table staging.delimited_{kind}_by_hand")
        connection.execute("delete from staging.members where source = 'by_hand'")
        connection.execute("delete from ops.sources where source = 'by_hand'")


def test_only_the_claimed_day_is_built(built: Settings, connection: psycopg.Connection) -> None:
    facts = connection.execute(
        "select call_id, calls, queue_id, agent_id, local_interval from candidate.fct_calls "
        "where source = 'by_hand' order by call_id"
    ).fetchall()
    assert facts == [
        ("a", 1, "q", "101", "01:45"),
        ("b", 1, "q", "unknown", "03:00"),
        ("c", 1, "q", "none", "23:45"),
        ("d", 1, "none", "none", "14:00"),
        ("e", 0, "none", "none", "14:00"),
    ]


def test_a_short_day_is_dense(built: Settings, connection: psycopg.Connection) -> None:
    found = connection.execute(
        "select count(*), sum(calls_offered), min(local_interval), max(local_interval) "
        "from candidate.agg_queue_15min where source = 'by_hand'"
    ).fetchone()
    assert found == (92, 3, "00:00", "23:45")


def test_quarters_after_a_clock_change(built: Settings, connection: psycopg.Connection) -> None:
    """At 01:00 UTC Berlin's clocks go from 02:00 to 03:00: after quarter 01:45 comes 03:00."""
    found = connection.execute(
        "select local_interval, login_seconds, state_talk_seconds, ready_seconds "
        "from candidate.agg_agent_15min where source = 'by_hand' order by interval_start_at"
    ).fetchall()
    assert found == [("01:45", 60, 60, 0), ("03:00", 180, 0, 90)]


def test_dbt_s_own_unit_tests(built: Settings) -> None:
    results = dbt.run(built, "test", "--selector", "unit_tests", report=dbt.quiet)
    statuses = [r.status for r in results if r.node.startswith("unit_test.")]
    assert len(statuses) >= 70
    assert set(statuses) == {"pass"}


def test_metricflow_says_the_same(
    built: Settings,
    connection: psycopg.Connection,
    catalogue: semantic.Catalogue,
    tmp_path: Path,
) -> None:
    """By hand: answered a and b, abandoned c; a within 20 s, c short; talk handled once, 60 s."""
    by_hand = {
        "calls_offered": 3, "service_level": 1 / 3, "service_level_positive": 2 / 3,
        "service_level_ignore": 1 / 2, "service_level_answered": 1 / 2,
        "service_level_short_excluded": 1 / 2, "abandon_rate": 1 / 3, "asa": 20.25,
        "wait_p50": 20.25, "longest_wait": 20.5, "calls": 4, "abandon_rate_total": 0.5,
        "agent_connections": 2, "connections_handled": 1, "aht": 60, "talk_p50": 60,
        "login_seconds": 240, "agent_days": 1, "avg_login": 240, "occupancy": 0.5,
        "occupancy_logged_in": 0.375, "occupied_seconds": 90, "pause_share": 0.25, "offers": 2,
        "ring_no_answer_rate": 0.5, "avg_offer_ring": 7, "self_service_requests": 2,
        "self_service_containment_rate": 0.5, "survey_response_rate": 0.8, "csat": 0.5, "nps": 1,
        "ces": 6, "adherence": 0.2, "adherence_in_shift": 1 / 3, "conformance": 1.5,
        "utilisation": 1, "planned_seconds": 180,
        "call_events": 15,  # arrival, queue entry and end of five calls
    }  # fmt: skip
    # MetricFlow looks for the manifest beside the project file and nowhere else.
    (tmp_path / "dbt_project.yml").symlink_to(dbt.project(built) / "dbt_project.yml")
    (tmp_path / "target").symlink_to(dbt.target(built))
    answer = tmp_path / "answer.csv"
    command = [str(built.pipeline_bin / "mf"), "query", "--metrics", ",".join(by_hand),
               "--decimals", "12", "--csv", str(answer), "--quiet"]  # fmt: skip
    environment = {
        **dbt.environment(built),
        "DBT_PROJECT_DIR": str(tmp_path),
        "PATH": f"{built.pipeline_bin}:{os.environ['PATH']}",
    }
    process = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    header, row = answer.read_text(encoding="utf-8").strip().splitlines()
    found = dict(zip(header.split(","), map(float, row.split(",")), strict=True))
    for name, expected in by_hand.items():
        metric = catalogue.metrics[name]
        ours = value(connection, metric, f"candidate.{metric.relation}")
        assert ours is not None
        assert float(ours) == pytest.approx(expected, abs=1e-9), name
        assert found[name] == pytest.approx(expected, abs=1e-9), name
