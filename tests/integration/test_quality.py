"""The audit of a build against a throwaway server: what it lets through and what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event

from callhouse import quality, warehouse
from callhouse.errors import CallhouseError
from callhouse.quality import counts
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry

HERE = Path(__file__).parent
FIRST = date(2026, 3, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(4)]
CALLS = 200
STAGED = [
    f"staging.delimited_{kind}"
    for kind in ("legs", "agent_states", "offers", "ivr_steps", "surveys", "schedules")
]


@pytest.fixture
def build_id(settings: Settings, cluster: postgres.Cluster) -> Iterator[int]:
    """A build of four good days of 200 calls, with candidates that agree with staging."""
    with warehouse.connect(settings) as connection:
        build = make_build(connection, DAYS, CALLS)
    yield build
    with warehouse.connect(settings) as connection:
        clear(connection)


def make_build(connection: psycopg.Connection, days: list[date], calls: int) -> int:
    """Landed days, claimed by a new build, with their candidates."""
    connection.execute(registry.tables())
    clear(connection)
    connection.execute("set role callhouse_owner")
    for day in days:
        for table in STAGED:
            connection.execute(
                f"create table if not exists {table}_{day:%Y_%m_%d} partition of {table} "
                f"for values from ('{day}') to ('{day + timedelta(days=1)}')"
            )
    legs = (HERE / "test_quality_legs.sql").read_text(encoding="utf-8")
    legs = legs.format(calls=calls, first_day=days[0], last_day=days[-1])
    connection.execute(legs.encode())
    row = connection.execute("insert into ops.builds default values returning build_id").fetchone()
    assert row is not None
    connection.execute(
        "insert into ops.build_days (build_id, business_day) select %s, unnest(%s::date[])",
        [row[0], days],
    )
    connection.execute((HERE / "test_quality_candidates.sql").read_bytes())
    connection.execute("reset role")
    return int(row[0])


def clear(connection: psycopg.Connection) -> None:
    """Leave nothing to the next test."""
    connection.execute(
        f"truncate {', '.join(STAGED)}, ops.unit_days, ops.units, ops.quarantine, ops.held_days, "
        "ops.dirty_marks, ops.build_days, ops.published_days, ops.builds, ops.expectation_results, "
        "ops.sources cascade"
    )


def change(settings: Settings, statement: str) -> None:
    """One statement that damages what the build has made."""
    with warehouse.connect(settings) as connection:
        connection.execute(statement.encode())


def recorded(settings: Settings, name: str) -> tuple[object, ...]:
    """What ops.expectation_results says of one expectation."""
    with warehouse.connect(settings) as connection:
        row = connection.execute(
            "select severity, is_success, failing_days, observed from ops.expectation_results "
            "where suite || '.' || expectation = %s",
            [name],
        ).fetchone()
    assert row is not None, f"{name} was not recorded"
    return tuple(row)


def test_good_days_pass(settings: Settings, build_id: int) -> None:
    lines: list[str] = []
    report = quality.audit(settings, build_id, lines.append)
    bad = [f"{r.expectation}: {r.observed}" for r in report.results if not r.is_success]
    assert bad == []
    assert report.failing_days == {}
    assert {r.suite for r in report.results} == {
        "staging_amazon_connect",
        "staging_asterisk",
        "staging_delimited",
        "marts_calls",
        "marts_queues",
        "marts_agents",
        "marts_agent_states",
        "marts_agent_schedules",
        "marts_agent_offers",
        "marts_ivr_steps",
        "marts_call_events",
        "marts_surveys",
        "marts_channel_requests",
        "marts_call_anomalies",
    }
    with warehouse.connect(settings) as connection:
        counts = connection.execute(
            "select count(*), count(*) filter (where is_success), "
            "count(*) filter (where note = '') from ops.expectation_results where build_id = %s",
            [build_id],
        ).fetchone()
    assert counts == (len(report.results), len(report.results), 0)
    assert lines[-1].startswith("4 of 4 days pass")


def test_nothing_is_fetched_but_names_and_numbers(settings: Settings, build_id: int) -> None:
    """Left to itself the library asks for all rows of a batch, and of each check's query."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_context: object) -> None:
        sent.append(statement)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        quality.audit(settings, build_id)
    finally:
        event.remove(Engine, "after_cursor_execute", note)
    ours = [s for s in sent if s.startswith("select ") and "business_day" in s]
    assert ours and all(s.endswith(" limit 0") for s in ours), ours
    numbers = [s for s in sent if "unexpected_row_count" in s]
    assert numbers and len(numbers) == len(set(numbers))


# Holds its day: a request that is solved twice.
SOLVED_TWICE = (
    "update candidate.fct_ivr_steps set self_service_contained = 2 "
    "where business_day = '2026-03-02' and self_service_contained = 1"
)


def test_queries_are_asked_beside_the_library(settings: Settings, build_id: int) -> None:
    """In its one session they would wait for one another, and a core would be idle."""
    sessions: dict[str, set[int]] = {"queries": set(), "library": set()}
    answers: list[str] = []

    def note(_connection: object, cursor: Any, statement: str, *_context: object) -> None:
        session = cursor.connection.get_backend_pid()
        if "unexpected_row_count" in statement:
            sessions["queries"].add(session)
        elif re.fullmatch(r"select \d+", statement):
            sessions["library"].add(session)
            answers.append(statement)

    event.listen(Engine, "after_cursor_execute", note)
    try:
        assert quality.audit(settings, build_id).failing_days == {}
        assert 1 <= len(sessions["queries"]) <= counts.SESSIONS
        assert len(sessions["library"]) == 1
        assert not sessions["queries"] & sessions["library"]
        assert len(answers) > 50 and set(answers) == {"select 0"}
        change(settings, SOLVED_TWICE)
        assert set(quality.audit(settings, build_id).failing_days) == {DAYS[1]}
        assert set(answers) == {"select 0", "select 1"}
        assert sessions["queries"] & sessions["library"], "what fails is asked for once more"
    finally:
        event.remove(Engine, "after_cursor_execute", note)


def test_queries_whose_session_is_lost_are_asked_by_the_library(
    settings: Settings, build_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(url: URL, **options: Any) -> Engine:
        return create_engine(url.set(port=1), **options)

    change(settings, SOLVED_TWICE)
    before = quality.audit(settings, build_id)
    monkeypatch.setattr(counts, "create_engine", nowhere)
    assert quality.audit(settings, build_id) == before


def test_audit_may_be_repeated(settings: Settings, build_id: int) -> None:
    first = quality.audit(settings, build_id)
    quality.audit(settings, build_id)
    with warehouse.connect(settings) as connection:
        row = connection.execute("select count(*) from ops.expectation_results").fetchone()
    assert row == (len(first.results),)


def test_data_docs_name_the_failure(settings: Settings, build_id: int) -> None:
    change(settings, "update candidate.fct_queue_visits set ring_seconds = -7 "
                     "where visit_key like '%-03-02-11:1'")  # fmt: skip
    report = quality.audit(settings, build_id)
    assert report.data_docs.is_file()
    pages = list((settings.data_docs / "validations" / "marts_queues").rglob("*.html"))
    assert any("ring_seconds" in page.read_text(encoding="utf-8") for page in pages)
    assert any(f"build-{build_id:08}" in str(page) for page in pages)
    index = report.data_docs.read_text(encoding="utf-8")
    assert f"build-{build_id:08}/" in index
    assert "some do not" in index
    # Who opens a page tells nobody: nothing of it is fetched from the network.
    for page in settings.data_docs.rglob("*.html"):
        assert not re.search(
            r"(src|href)=[\"']https?://[^\"']*\.(css|js|png|svg)", page.read_text("utf-8")
        )


# Damage, and the expectation that must see it on 2026-03-02 and on no other day.
DAMAGE = [
    pytest.param(
        "delete from candidate.fct_calls where call_id = '2026-03-02-10'",
        "staging_delimited.every_staged_call_is_a_fact_and_no_other",
        id="lost call",
    ),
    pytest.param(
        "insert into candidate.fct_calls (business_day, source, call_id, calls) "
        "values ('2026-03-02', 'hotline', 'ghost', 0)",
        "staging_delimited.every_staged_call_is_a_fact_and_no_other",
        id="invented call",
    ),
    pytest.param(
        "update candidate.fct_calls set business_day = '2026-03-02' "
        "where call_id = '2026-03-02-10'; delete from candidate.fct_queue_visits "
        "where visit_key = 'hotline:2026-03-02-10:1'",
        "staging_delimited.every_staged_queue_visit_is_a_fact",
        id="lost visit",
    ),
    pytest.param(
        "delete from candidate.fct_agent_connections "
        "where connection_key = 'hotline:2026-03-02-10:1'",
        "staging_delimited.every_staged_connection_is_a_fact",
        id="lost connection",
    ),
    pytest.param(
        "update candidate.fct_agent_connections set agent_id = 'agent_1' "
        "where connection_key = 'hotline:2026-03-02-10:1'",
        "staging_delimited.every_staged_connection_is_a_fact",
        id="connection credited to another agent",
    ),
    pytest.param(
        "delete from staging.delimited_legs where call_id = '2026-03-02-10'",
        "staging_delimited.ledger_and_staged_rows_agree",
        id="staged row vanished",
    ),
    pytest.param(
        "update ops.units set quarantined_rows = 1, read_rows = read_rows + 1 "
        "where first_day = '2026-03-02'",
        "staging_delimited.ledger_of_each_unit_balances",
        id="quarantined row vanished",
    ),
    pytest.param(
        "update staging.delimited_legs set arrived_at = arrived_at + interval '1 day' "
        "where call_id = '2026-03-02-10'",
        "staging_delimited.business_day_is_the_local_day_of_arrival",
        id="wrong day",
    ),
    pytest.param(
        "update staging.delimited_legs set wait_seconds = -1 where call_id = '2026-03-02-10'",
        "staging_delimited.wait_seconds_are_not_negative",
        id="negative wait in staging",
    ),
    pytest.param(
        "update staging.delimited_legs set outcome = 'lost' where call_id = '2026-03-02-10'",
        "staging_delimited.outcome_is_a_known_code",
        id="unknown outcome",
    ),
    pytest.param(
        "update candidate.fct_agent_connections set talk_seconds = -1 "
        "where business_day = '2026-03-02'",
        "marts_agents.talk_seconds_are_not_negative",
        id="negative talk on every row of a day",
    ),
    pytest.param(
        "update candidate.fct_calls set agent_connections_count = 0 "
        "where call_id = '2026-03-02-10'",
        "marts_calls.answered_call_has_a_connection",
        id="answered by nobody",
    ),
    pytest.param(
        "update candidate.agg_calls_daily set calls = calls + 1 where business_day = '2026-03-02'",
        "marts_calls.daily_aggregate_equals_facts",
        id="daily aggregate",
    ),
    pytest.param(
        "delete from candidate.agg_queue_15min "
        "where business_day = '2026-03-02' and queue_id = 'queue_1'",
        "marts_queues.quarter_hour_aggregate_equals_facts",
        id="quarter-hour aggregate lost a queue",
    ),
    pytest.param(
        "update candidate.agg_calls_daily set calls_offered = calls_offered - 1 "
        "where business_day = '2026-03-02' and queue_id = 'queue_1'",
        "marts_queues.daily_aggregate_equals_facts",
        id="daily aggregate of a queue",
    ),
    pytest.param(
        "update candidate.agg_wait_histogram_daily set calls_answered = calls_answered - 1 "
        "where business_day = '2026-03-02' and queue_id = 'queue_1'",
        "marts_queues.wait_histogram_equals_facts",
        id="wait histogram lost an answer",
    ),
    pytest.param(
        "update candidate.agg_agent_daily set talk_seconds = talk_seconds + 1 "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agents.agent_aggregate_equals_facts",
        id="agent aggregate",
    ),
    pytest.param(
        "update candidate.fct_queue_visits set calls_abandoned = 1 "
        "where business_day = '2026-03-02' and calls_answered = 1",
        "marts_queues.offered_balances",
        id="answered and abandoned at once",
    ),
    pytest.param(
        "update candidate.fct_queue_visits set answered_within_target = 2 "
        "where visit_key = 'hotline:2026-03-02-10:1'",
        "marts_queues.parts_are_not_more_than_their_whole",
        id="service level above one",
    ),
    pytest.param(
        "delete from candidate.fct_survey_responses where survey_key = 'hotline:S2026-03-02-5'",
        "staging_delimited.every_staged_detail_is_a_fact",
        id="lost survey",
    ),
    pytest.param(
        "insert into candidate.fct_agent_offers "
        "select * from candidate.fct_agent_offers where call_id = '2026-03-02-10'",
        "staging_delimited.every_staged_detail_is_a_fact",
        id="doubled offer",
    ),
    pytest.param(
        "delete from staging.delimited_agent_states where call_id = '2026-03-02-10'",
        "staging_delimited.ledger_and_staged_rows_agree",
        id="staged state vanished",
    ),
    pytest.param(
        "update staging.delimited_surveys set arrived_at = arrived_at + interval '1 day' "
        "where business_day = '2026-03-02'",
        "staging_delimited.details_are_in_the_day_of_their_call",
        id="survey on another day",
    ),
    pytest.param(
        "update staging.delimited_agent_states set started_at = started_at + interval '1 day', "
        "ended_at = ended_at + interval '1 day' where call_id = '2026-03-02-10'",
        "staging_delimited.states_touch_their_day",
        id="state on another day",
    ),
    pytest.param(
        "update candidate.fct_agent_states set ended_at = ended_at + interval '10 minutes' "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_states.states_of_an_agent_never_overlap",
        id="overlapping states",
    ),
    pytest.param(
        "update candidate.fct_agent_states set state_talk_seconds = 0 "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_states.states_tile_the_login",
        id="state without a column",
    ),
    pytest.param(
        "update candidate.agg_agent_daily set login_seconds = login_seconds + 1 "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_states.day_aggregate_equals_states",
        id="login of a day",
    ),
    pytest.param(
        "delete from candidate.agg_agent_15min "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_states.quarter_hour_aggregate_equals_states",
        id="login of the quarters",
    ),
    pytest.param(
        "delete from staging.delimited_schedules "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "staging_delimited.ledger_and_staged_rows_agree",
        id="staged plan vanished",
    ),
    pytest.param(
        "update staging.delimited_schedules set starts_at = starts_at + interval '1 day', "
        "ends_at = ends_at + interval '1 day' where business_day = '2026-03-02'",
        "staging_delimited.plans_touch_their_day",
        id="plan on another day",
    ),
    pytest.param(
        "update candidate.fct_agent_schedules set ends_at = ends_at - interval '1 minute' "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "staging_delimited.every_planned_day_of_an_agent_is_a_fact",
        id="plan cut short",
    ),
    pytest.param(
        "delete from candidate.agg_agent_adherence_daily "
        "where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_schedules.every_plan_of_a_told_day_is_judged",
        id="agent who is not judged",
    ),
    pytest.param(
        "update candidate.agg_agent_adherence_daily set absent_seconds = 200000, "
        "exception_seconds = 200000 where business_day = '2026-03-02' and agent_id = 'agent_1'",
        "marts_agent_schedules.exceptions_fit_into_plan_and_login",
        id="more exceptions than plan",
    ),
    pytest.param(
        "update candidate.fct_agent_offers set offers_answered = 0 "
        "where business_day = '2026-03-02'",
        "marts_agent_offers.outcomes_add_up_to_offers",
        id="offer without an outcome",
    ),
    pytest.param(
        "update candidate.fct_ivr_steps set self_service_contained = 2 "
        "where business_day = '2026-03-02' and self_service_contained = 1",
        "marts_ivr_steps.a_request_ends_once",
        id="solved twice",
    ),
    pytest.param(
        "update candidate.fct_channel_requests set channel_requests_served = 0 "
        "where business_day = '2026-03-02' and channel = 'human'",
        "marts_channel_requests.connected_calls_are_served_requests",
        id="requests that nobody served",
    ),
    pytest.param(
        "update candidate.fct_calls set abnormal_calls = 1 where call_id = '2026-03-02-10'",
        "marts_call_anomalies.abnormal_calls_have_their_rules",
        id="abnormal call without a rule",
    ),
    pytest.param(
        "update candidate.fct_call_events set event_number = 2 where call_id = '2026-03-02-10'",
        "marts_call_events.events_are_numbered_in_order_of_time",
        id="event lost from the middle",
    ),
    pytest.param(
        "update candidate.fct_survey_responses set score = 6 "
        "where business_day = '2026-03-02' and score = 5",
        "marts_surveys.score_is_on_the_scale_of_its_survey",
        id="score beyond the scale",
    ),
    pytest.param(
        "update candidate.fct_survey_responses set csat_responses = 0 "
        "where business_day = '2026-03-02'",
        "marts_surveys.responses_are_answers_of_one_kind",
        id="response of no kind",
    ),
]


@pytest.mark.parametrize(("damage", "name"), DAMAGE)
def test_damage_holds_its_day(settings: Settings, build_id: int, damage: str, name: str) -> None:
    change(settings, damage)
    report = quality.audit(settings, build_id)
    severity, is_success, failing_days, observed = recorded(settings, name)
    assert (severity, is_success, failing_days) == ("fail", False, [date(2026, 3, 2)])
    assert observed
    assert list(report.failing_days) == [date(2026, 3, 2)]
    assert name in report.failing_days[date(2026, 3, 2)]


def test_rows_of_an_unclaimed_day_hold_the_build(settings: Settings, build_id: int) -> None:
    # The failure is not of a claimed day, so no claimed day can be called good.
    change(settings, "update candidate.fct_calls set business_day = '2026-02-01' "
                     "where call_id = '2026-03-02-10'")  # fmt: skip
    report = quality.audit(settings, build_id)
    assert list(report.failing_days) == DAYS


def test_every_failing_day_is_found(settings: Settings, build_id: int) -> None:
    # The library lists 20 rows of a failure at most; the other days' rows come after them.
    change(settings, "update candidate.fct_queue_visits set wait_seconds = -5")
    report = quality.audit(settings, build_id)
    assert list(report.failing_days) == DAYS
    assert "-5" in str(recorded(settings, "marts_queues.wait_seconds_are_not_negative")[3])


def test_warning_holds_nothing(settings: Settings, build_id: int) -> None:
    change(settings, "update candidate.fct_calls set ended_at = arrived_at - interval '1 hour' "
                     "where business_day = '2026-03-03'")  # fmt: skip
    report = quality.audit(settings, build_id)
    assert report.failing_days == {}
    assert recorded(settings, "marts_calls.call_ends_after_it_arrived")[:3] == (
        "warn", False, [date(2026, 3, 3)],
    )  # fmt: skip


def test_a_rule_that_most_calls_break_is_a_warning(settings: Settings, build_id: int) -> None:
    change(
        settings,
        "update candidate.fct_calls set abnormal_calls = 1 where business_day = '2026-03-03'; "
        "insert into candidate.bridge_call_anomaly select business_day, source, call_id, "
        "'too_short', 1 from candidate.fct_calls where business_day = '2026-03-03'",
    )
    report = quality.audit(settings, build_id)
    assert report.failing_days == {}
    assert recorded(settings, "marts_call_anomalies.no_rule_is_broken_by_most_calls")[:3] == (
        "warn", False, [date(2026, 3, 3)],
    )  # fmt: skip


TRANSFER = (
    "update candidate.fct_agent_connections set transfers = 1 where call_id like '2026-03-03-%0';"
    " insert into candidate.fct_queue_visits (business_day, source, call_id, calls_answered,"
    " entered_at) select business_day, source, call_id, 0, connected_at + interval '2 minutes'"
    " from candidate.fct_agent_connections where call_id like '2026-03-03-%0'"
)


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        pytest.param(
            "update candidate.fct_agent_connections set transfers = 0"
            " where call_id = '2026-03-03-10'",
            "marts_agents.transfers_out_are_transfers_in", id="announcement lost",
        ),
        pytest.param(
            "delete from candidate.fct_queue_visits where call_id in ('2026-03-03-10',"
            " '2026-03-03-20', '2026-03-03-30') and queue_id is null;"
            " update candidate.fct_calls set ended_at = ended_at + interval '9 minutes'"
            " where business_day = '2026-03-03'",
            "marts_agents.transfers_arrive", id="visits lost",
        ),
    ],
)  # fmt: skip
def test_transfers_that_are_not_balanced_warn(
    settings: Settings, build_id: int, damage: str, name: str
) -> None:
    change(settings, TRANSFER)
    quality.audit(settings, build_id)
    assert recorded(settings, name)[1] is True
    change(settings, damage)
    quality.audit(settings, build_id)
    severity, is_success, failing_days, observed = recorded(settings, name)
    assert (severity, is_success, failing_days) == ("warn", False, [date(2026, 3, 3)])
    assert "transfers_in" in str(observed)


def test_components_beyond_the_call_warn(settings: Settings, build_id: int) -> None:
    change(settings, "update candidate.fct_calls set talk_seconds = 4000 "
                     "where business_day = '2026-03-03'")  # fmt: skip
    assert quality.audit(settings, build_id).failing_days == {}
    assert recorded(settings, "marts_calls.components_fit_into_the_call")[1] is False


@pytest.fixture
def busy_weeks(settings: Settings, build_id: int) -> Iterator[int]:
    """Four weeks in which 8 o'clock was as busy as in the build, 3 at night had one call in two."""
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "create table marts.agg_queue_15min as select d.business_day - 7 * w as business_day, "
            "v.source, v.local_hour, count(*) as queue_visits from ops.build_days as d "
            "cross join generate_series(1, 4) as w inner join candidate.fct_queue_visits as v "
            "on d.business_day = v.business_day where d.build_id = %s group by 1, 2, 3 "
            "union all select d.business_day - 7 * w, 'hotline', 3, w %% 2 from ops.build_days "
            "as d cross join generate_series(1, 4) as w where d.build_id = %s",
            [build_id, build_id],
        )
    yield build_id
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute("drop table marts.agg_queue_15min")


NAME_OF_HOURS = "marts_queues.hours_are_as_busy_as_usual"


def test_hours_as_busy_as_usual_and_a_quiet_night_are_right(
    settings: Settings, busy_weeks: int
) -> None:
    quality.audit(settings, busy_weeks)
    assert recorded(settings, NAME_OF_HOURS)[1] is True


def test_an_hour_without_its_usual_calls_warns(settings: Settings, busy_weeks: int) -> None:
    change(settings, "update candidate.fct_queue_visits set local_hour = 13 "
                     "where business_day = '2026-03-03' and local_hour = 8")  # fmt: skip
    quality.audit(settings, busy_weeks)
    severity, is_success, failing_days, observed = recorded(settings, NAME_OF_HOURS)
    assert (severity, is_success, failing_days) == ("warn", False, [date(2026, 3, 3)])
    assert "usual_visits" in str(observed)


def test_hours_to_come_are_not_judged(settings: Settings, busy_weeks: int) -> None:
    change(settings, "update ops.sources set time_zone = 'Asia/Shanghai'; "
                     "update candidate.fct_queue_visits set business_day = '2999-03-02', "
                     "local_hour = 13 where business_day = '2026-03-02'; "
                     "update marts.agg_queue_15min set business_day = date '2999-03-02' - 7 * w "
                     "from generate_series(1, 2) as w where business_day = "
                     "date '2026-03-02' - 7 * w; "
                     "update ops.build_days set business_day = '2999-03-02' "
                     "where business_day = '2026-03-02'")  # fmt: skip
    quality.audit(settings, busy_weeks)
    assert recorded(settings, NAME_OF_HOURS)[1] is True


def test_day_that_changed_meanwhile_is_excused(settings: Settings, build_id: int) -> None:
    # Landing goes on while a build runs: a new leg of a claimed day is no lost call, and its mark
    # brings the day back. The same difference without a mark is one.
    change(settings, """
        insert into staging.delimited_legs (
            source, call_id, leg_number, unit_id, line_number, row_hash, outcome, business_day,
            arrived_at
        )
        select
            source, call_id || '-late', 1, unit_id, 9999, row_hash, 'contained', business_day,
            arrived_at
        from staging.delimited_legs
        where call_id in ('2026-03-02-9', '2026-03-03-9');
        insert into ops.dirty_marks (business_day, reason) values ('2026-03-02', 'landed')
    """)  # fmt: skip
    report = quality.audit(settings, build_id)
    assert list(report.failing_days) == [date(2026, 3, 3)]
    name = "staging_delimited.every_staged_call_is_a_fact_and_no_other"
    assert recorded(settings, name)[2] == [date(2026, 3, 3)]
    assert "changed while being built: 2026-03-02" in str(recorded(settings, name)[3])


def test_empty_day_is_reported(settings: Settings, build_id: int) -> None:
    with warehouse.connect(settings) as connection:
        for table in STAGED:
            connection.execute(f"delete from {table} where business_day = '2026-03-04'")
        connection.execute("delete from ops.unit_days where business_day = '2026-03-04'")
        connection.execute("delete from ops.units where first_day = '2026-03-04'")
        connection.execute((HERE / "test_quality_candidates.sql").read_bytes())
    report = quality.audit(settings, build_id)
    assert report.failing_days == {}
    assert recorded(settings, "staging_delimited.day_is_not_empty")[:3] == (
        "warn", False, [date(2026, 3, 4)],
    )  # fmt: skip


def test_superseded_legs_are_not_expected(settings: Settings, build_id: int) -> None:
    with warehouse.connect(settings) as connection:
        connection.execute(
            "update staging.delimited_legs set superseded_by = unit_id, wait_seconds = -1 "
            "where call_id = '2026-03-02-10'"
        )
        connection.execute((HERE / "test_quality_candidates.sql").read_bytes())
    assert quality.audit(settings, build_id).failing_days == {}


def test_candidates_that_are_not_there(settings: Settings, build_id: int) -> None:
    change(settings, "drop table candidate.fct_calls")
    with pytest.raises(CallhouseError, match=r"candidate\.fct_calls does not exist.*build first"):
        quality.audit(settings, build_id)


def test_guard_that_cannot_look_gives_no_verdict(settings: Settings, build_id: int) -> None:
    # A renamed column: neither good (nothing was compared) nor the days' fault.
    change(settings, "alter table candidate.fct_calls rename column calls_connected to answered")
    with pytest.raises(CallhouseError, match="answered_call_has_a_connection could not be checked"):
        quality.audit(settings, build_id)
    assert recorded(settings, "marts_calls.answered_call_has_a_connection")[1] is False


def test_unknown_build(settings: Settings, build_id: int) -> None:
    with pytest.raises(CallhouseError, match="build 999999 has no days"):
        quality.audit(settings, 999999)


def test_old_pages_are_forgotten(
    settings: Settings, build_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callhouse.quality.docs.KEPT_AUDITS", 1)
    quality.audit(settings, build_id)
    with warehouse.connect(settings) as connection:
        other = make_build(connection, DAYS[:1], CALLS)
    report = quality.audit(settings, other)
    pages = {p.parts[-3] for p in (settings.data_docs / "validations").rglob("*_*.html")}
    assert pages == {f"build-{other:08}"}
    assert f"build-{other:08}" in report.data_docs.read_text(encoding="utf-8")


@pytest.fixture
def published(settings: Settings, build_id: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The build as if it were published, in a schema of its own."""
    monkeypatch.setattr("callhouse.quality.suites.PUBLISHED_SCHEMA", "published_copy")
    names = ("fct_calls", "fct_queue_visits", "fct_agent_connections", "agg_calls_daily",
             "agg_queue_15min", "agg_agent_daily")  # fmt: skip
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute("alter schema candidate rename to published_copy")
        connection.execute("create schema candidate")
        connection.execute(
            "insert into ops.published_days (business_day, build_id, revision, published_at) "
            "select business_day, build_id, 1, now() from ops.build_days"
        )
    yield
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute("drop schema candidate")
        connection.execute("alter schema published_copy rename to candidate")
        for name in names:
            connection.execute(f"drop table candidate.{name}".encode())


@pytest.mark.usefixtures("published")
def test_published_days_are_audited(settings: Settings) -> None:
    change(settings, "delete from published_copy.fct_calls where call_id = '2026-03-02-10'")
    report = quality.audit_published(settings)
    assert list(report.failing_days) == [date(2026, 3, 2)]
    # What is said about a build only is not asked of what is published.
    assert "only_claimed_days_are_built" not in {r.expectation for r in report.results}


@pytest.mark.usefixtures("published")
def test_dirty_days_are_not_held_against_what_is_published(settings: Settings) -> None:
    change(settings, "delete from published_copy.fct_calls where call_id = '2026-03-02-10'; "
                     "insert into ops.dirty_marks (business_day, reason) "
                     "values ('2026-03-02', 'landed')")  # fmt: skip
    assert quality.audit_published(settings).failing_days == {}


def test_nothing_published(settings: Settings, build_id: int) -> None:
    with pytest.raises(CallhouseError, match="no day is published"):
        quality.audit_published(settings)
