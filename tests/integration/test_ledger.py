"""What readers are told of how their numbers came about: balances, restatements, releases."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from callhouse import landing, quality, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import replay
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.settings import Settings
from callhouse.transform import dbt, releases, state

SOURCE = "shop"
FIRST, SECOND = date(2026, 3, 2), date(2026, 3, 3)
CALLS = 12
FEED = """
feed: shop
vendor: delimited
label: Shop
time_zone: Asia/Shanghai
records:
  - record: legs
    files: ["[!x]*.csv"]
    delimiter: comma
    header: true
    columns:
      call_id: call
      queue_id: queue
      agent_id: agent
      outcome: outcome
      abandon_stage: stage
      arrived_at: {column: arrived, format: "%Y-%m-%d %H:%M:%S"}
      queue_entered_at: {column: arrived, format: "%Y-%m-%d %H:%M:%S"}
      wait_seconds: wait
      talk_seconds: talk
  - record: offers
    files: ["x_offers*.csv"]
    delimiter: comma
    header: true
    columns:
      call_id: call
      queue_id: queue
      agent_id: agent
      outcome: result
      arrived_at: {column: arrived, format: "%Y-%m-%d %H:%M:%S"}
      offered_at: {column: offered, format: "%Y-%m-%d %H:%M:%S"}
"""


def land(
    settings: Settings, folder: Path, name: str, day: date, numbers: range, source: str = SOURCE
) -> None:
    """A file of calls of `day`; every third was abandoned."""
    file = folder / f"{name}.csv"
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("call", "queue", "agent", "outcome", "stage", "arrived", "wait", "talk"))
        for number in numbers:
            answered = number % 3 != 0
            writer.writerow(
                (f"{day}-{number}", "desk", "101" if answered else "",
                 "answered" if answered else "abandoned", "" if answered else "queue",
                 f"{day} 09:{number:02}:00", 5, 60 if answered else "")
            )  # fmt: skip
    (result,) = landing.land(settings, source, [file])
    assert (result.status, result.quarantined) == ("landed", 0)


def drain(settings: Settings) -> dict[date, str]:
    """Build and publish; the days that were held."""
    outcome = transform.drain(settings, dbt.quiet)
    assert outcome.problems == ()
    return {day: why for build in outcome.builds for day, why in build.held_days.items()}


def asked(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(statement.encode()).fetchall()


@pytest.fixture(scope="module")
def shop(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """Two published days of one shop; of the first, two calls came later."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / "shop.yaml").write_text(FEED, encoding="utf-8")
    folder = tmp_path_factory.mktemp("shop")
    transform.prepare(settings, lambda _line: None)
    land(settings, folder, "first", FIRST, range(CALLS))
    land(settings, folder, "second", SECOND, range(CALLS))
    assert drain(settings) == {}
    assert asked(settings, "select distinct status from bi.data_status") == [("complete",)]
    land(settings, folder, "late", FIRST, range(CALLS, CALLS + 2))
    assert drain(settings) == {}
    return settings


def test_every_fact_balances_with_what_it_is_made_from(shop: Settings) -> None:
    rows = asked(
        shop,
        "select business_day, balance, left_count, right_count, is_balanced, left_checksum <> 0 "
        "from bi.fct_day_balances where left_count > 0 order by 1, 2",
    )
    expected = []
    for day, calls in ((FIRST, CALLS + 2), (SECOND, CALLS)):
        answered = sum(number % 3 != 0 for number in range(calls))
        expected += [
            (day, "fct_agent_connections", answered, answered, True, True),
            (day, "fct_calls", calls, calls, True, True),
            (day, "fct_queue_visits", calls, calls, True, True),
            (day, "offered = answered + abandoned + other ways out", calls, calls, True, False),
        ]
    assert [row for row in rows if row[1] != "fct_call_events"] == expected


def test_a_call_that_was_exchanged_for_another_breaks_the_balance(shop: Settings) -> None:
    """Equal counts are not enough: the checksum of the keys differs."""
    transform.mark(shop, [SECOND], "test")
    build_id = transform.claim(shop)
    assert build_id is not None
    transform.build(shop, build_id, dbt.quiet)
    with warehouse.connect(shop) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "update candidate.fct_calls set call_id = 'another' where call_id = '2026-03-03-1'"
        )
        connection.execute("select ops.seal(%s)", [build_id])
        found = connection.execute(
            "select left_count = right_count, left_checksum = right_checksum from ops.balances "
            "where build_id = %s and balance = 'fct_calls'",
            [build_id],
        ).fetchall()
        connection.rollback()
    assert found == [(True, False)]
    drain(shop)


def test_a_restated_day_tells_both_totals_and_why(shop: Settings) -> None:
    rows = asked(
        shop,
        "select business_day, revision, source, reason, calls_before, calls_after, "
        "calls_answered_before, calls_answered_after, calls_abandoned_before, "
        "calls_abandoned_after, handle_seconds_before, handle_seconds_after "
        "from bi.fct_restatements",
    )
    assert rows == [(FIRST, 2, SOURCE, "landed legs", 12, 14, 8, 9, 4, 5, 480, 540)]
    statuses = asked(shop, "select business_day, status, restated_because from bi.data_status")
    assert sorted(statuses) == [(FIRST, "restated", "landed legs"), (SECOND, "complete", None)]
    data = state.data_state(shop)
    assert (data["data_status"]["restated"], data["data_status"]["complete"]) == (1, 1)


def test_building_again_and_a_new_source_restate_nothing(shop: Settings, tmp_path: Path) -> None:
    before = asked(shop, "select count(*) from ops.restatements")
    transform.mark(shop, None, "test")
    drain(shop)
    other = FEED.replace("feed: shop", "feed: branch").replace("Shop", "Branch")
    (shop.feeds_directory / "branch.yaml").write_text(other, encoding="utf-8")
    file = tmp_path / "branch.csv"
    file.write_text(
        "call,queue,agent,outcome,stage,arrived,wait,talk\n"
        "b-1,desk,201,answered,,2026-03-03 10:00:00,1,30\n"
    )
    landing.land(shop, "branch", [file])
    drain(shop)
    assert asked(shop, "select count(*) from ops.restatements") == before
    assert asked(shop, "select count(*) from bi.fct_calls where source = 'branch'") == [(1,)]


def test_only_other_rows_of_a_fact_restate_a_day(shop: Settings, tmp_path: Path) -> None:
    """Records of a kind that come for the first time changed no number that anybody was told."""
    before = asked(shop, "select business_day, revision from ops.restatements order by 1, 2")
    for name, minute in (("x_offers", 1), ("x_offers_more", 2)):
        file = tmp_path / f"{name}.csv"
        time = f"{SECOND} 09:0{minute}"
        file.write_text(
            "call,queue,agent,result,arrived,offered\n"
            f"{SECOND}-{minute},desk,101,answered,{time}:00,{time}:02\n"
        )
        (result,) = landing.land(shop, SOURCE, [file])
        assert (result.status, result.staged) == ("landed", 1)
        drain(shop)
        found = asked(shop, "select business_day, revision from ops.restatements order by 1, 2")
        if name == "x_offers":
            assert found == before
    assert [day for day, _ in set(found) - set(before)] == [SECOND]


def test_a_day_in_progress_grows_without_being_restated(shop: Settings, tmp_path: Path) -> None:
    today = datetime.now(UTC).astimezone().date()
    land(shop, tmp_path, "morning", today, range(2))
    drain(shop)
    with warehouse.connect(shop) as connection:  # as if it had been published during the day
        connection.execute(
            "update ops.published_days set published_at = %s::date where business_day = %s",
            [today, today],
        )
    land(shop, tmp_path, "noon", today, range(2, 4))
    drain(shop)
    query = f"select status, revision from bi.data_status where business_day = '{today}'"
    assert asked(shop, query) == [("complete", 2)]


def checksums(settings: Settings, where: str) -> dict[str, tuple[Any, ...]]:
    """Rows and a sum over all columns, of each published fact and aggregate."""
    relations = asked(settings, "select relation from ops.marts where is_by_day and lane = 'facts'")
    return {
        relation: asked(
            settings,
            "select count(*), sum(hashtextextended(to_jsonb(t)::text, 0)) "
            f"from marts.{relation} as t where {where}",
        )[0]
        for (relation,) in relations
    }


def test_a_backfilled_day_is_the_same_while_files_land_and_rows_are_replayed(
    shop: Settings, tmp_path: Path
) -> None:
    """Built three times, each time while a file of another day lands; of that one a row was bad."""
    day, other = f"business_day = '{SECOND}'", date(2026, 3, 6)
    before = checksums(shop, day)
    assert before["fct_calls"][0] >= CALLS
    restatements = f"select count(*) from ops.restatements where {day}"
    restated_before = asked(shop, restatements)
    odd = tmp_path / "odd.csv"
    odd.write_text(
        "call,queue,agent,outcome,stage,arrived,wait,talk\n"
        f"odd-1,desk,101,answered,,{other} 09:40:00,5,60\n"
        f"odd-2,desk,101,taken,,{other} 09:41:00,5,60\nodd-3,desk,,?,,{other} 09:42:00,5,\n"
    )
    assert landing.land(shop, SOURCE, [odd])[0].quarantined == 2
    for turn in range(3):
        with ThreadPoolExecutor(1) as company:
            numbers = range(4 * turn, 4 * turn + 4)
            landed = company.submit(land, shop, tmp_path, f"file_{turn}", other, numbers)
            assert transform.mark_known(shop, SECOND, "backfill")
            build_id = transform.claim(shop)
            assert build_id is not None
            transform.build(shop, build_id, dbt.quiet)
            assert transform.audit(shop, build_id) == {}
            assert SECOND in transform.publish(shop, build_id).published_days
            landed.result()
        assert checksums(shop, day) == before
    mended = "{column: outcome, codes: {answered: answered, abandoned: abandoned, taken: answered}}"
    feed = FEED.replace("outcome: outcome", f"outcome: {mended}")
    (shop.feeds_directory / "shop.yaml").write_text(feed, encoding="utf-8")
    (replayed,) = replay.replay(shop, "a person")
    assert (replayed.staged, replayed.unreadable) == (1, 1)
    assert drain(shop) == {}  # the audits of the ledger hold
    assert checksums(shop, day) == before
    restated = "select calls_before, calls_after, reason from bi.fct_restatements where "
    assert asked(shop, restatements) == restated_before
    last = asked(shop, f"{restated} business_day = '{other}' order by revision desc limit 1")[0]
    assert last[0] < last[1] == 3 * 4 + 2
    assert "replayed legs" in last[2]
    units = "select missing_rows, open_rows, replayed_rows from bi.fct_landed_units "
    assert asked(shop, f"{units} where unit_name = 'odd.csv'") == [(0, 1, 1)]
    assert not transform.mark_known(shop, date(2020, 1, 1), "backfill")
    assert transform.pending(shop) == 0


def damage(settings: Settings, call: str) -> None:
    """A staged row is gone; what the audit says of it holds the day."""
    with warehouse.connect(settings) as connection:
        gone = connection.execute("delete from staging.delimited_legs where call_id = %s", [call])
        assert gone.rowcount == 1
    transform.mark(settings, [FIRST], f"{call} was lost")


def test_a_held_day_is_released_as_it_is_with_a_reason(shop: Settings) -> None:
    with pytest.raises(CallhouseError, match="2026-03-02 is not held"):
        releases.release(shop, FIRST, "it is right", "a person")
    damage(shop, "2026-03-02-1")
    held = drain(shop)
    assert list(held) == [FIRST]
    assert "ledger_and_staged_rows_agree" in held[FIRST]
    day = f"where business_day = '{FIRST}'"
    assert asked(shop, f"select status from bi.data_status {day}") == [("held",)]
    with pytest.raises(CallhouseError, match="with a reason"):
        releases.release(shop, FIRST, "  ", "a person")
    found = releases.release(shop, FIRST, "a test call of the exchange", "a person")
    assert "staging_delimited.ledger_and_staged_rows_agree" in found.expectations
    assert drain(shop) == {}
    assert asked(shop, f"select status, reason from bi.data_status {day}") == [
        ("restated", "released by a person: a test call of the exchange")
    ]
    calls = asked(shop, f"select sum(calls) from bi.fct_calls {day}")
    assert calls == asked(shop, f"select sum(calls) from marts.fct_calls {day}") == [(13,)]
    assert asked(shop, "select released_by, reason from bi.fct_releases") == [
        ("a person", "a test call of the exchange")
    ]
    # The word was given for those rows: others are held again.
    damage(shop, "2026-03-02-2")
    assert list(drain(shop)) == [FIRST]
    assert asked(shop, f"select sum(calls) from bi.fct_calls {day}") == [(13,)]


def test_a_day_that_could_not_be_built_is_not_released(shop: Settings) -> None:
    with warehouse.connect(shop) as connection:
        build = warehouse.one(
            connection, "insert into ops.builds default values returning build_id"
        )
        connection.execute(
            "insert into ops.held_days (business_day, build_id, reason) "
            "values ('2026-01-01', %s, 'key: 1 row')",
            build,
        )
    with pytest.raises(CallhouseError, match=r"could not be built.*key: 1 row"):
        releases.release(shop, date(2026, 1, 1), "why not", "a person")


def test_results_of_audits_are_history(shop: Settings) -> None:
    count = "select count(*), count(distinct checked_at) from bi.fct_dq_results"
    ((before, _),) = asked(shop, count)
    quality.audit_published(shop)
    quality.audit_published(shop)
    ((after, _),) = asked(shop, count)
    runs = asked(
        shop, "select count(*) from bi.fct_dq_results where audited = 'published' "
        "group by checked_at"
    )  # fmt: skip
    assert len(runs) == 2
    assert after - before == sum(number for (number,) in runs)
    failed = asked(
        shop, "select first_failing_day from bi.fct_dq_results where audited = 'facts' "
        "and expectation = 'ledger_and_staged_rows_agree' and not is_success"
    )  # fmt: skip
    assert (FIRST,) in failed


def test_the_ledger_of_units_and_days_is_complete(shop: Settings) -> None:
    rows = asked(
        shop,
        "select unit_name, read_rows, staged_rows, missing_rows from bi.fct_landed_units "
        "where source = 'shop' order by unit_id limit 3",
    )
    assert rows == [
        ("first.csv", 12, 12, 0), ("second.csv", 12, 12, 0), ("late.csv", 2, 2, 0),
    ]  # fmt: skip
    assert asked(
        shop,
        "select sum(staged_rows) from bi.fct_landed_days "
        f"where source = 'shop' and business_day = '{FIRST}'",
    ) == [(14,)]


def test_only_who_sees_all_calls_reads_the_ledger(shop: Settings) -> None:
    views = ("fct_landed_units", "fct_landed_days", "fct_day_balances", "fct_restatements",
             "fct_dq_results", "fct_releases")  # fmt: skip
    scopes = {"sees_all": (("all", "*"),), "sees_a_queue": (("queue", "desk"),)}
    with psycopg.connect(shop.dsn("postgres")) as server:
        for name, scope in scopes.items():
            people.ensure(shop, server, people.Person(name, name, scope))
    for name in scopes:
        with warehouse.connect_as(shop, name, login_password(shop, name)) as own:
            for view in views:
                (count,) = warehouse.one(own, f"select count(*) from bi.{view}")
                assert (count > 0) == (name == "sees_all"), (name, view)
            (days,) = warehouse.one(own, "select count(*) from bi.data_status")
            assert days > 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                own.execute("select * from ops.units")


def test_what_is_on_the_floor_only_is_in_no_day(shop: Settings, tmp_path: Path) -> None:
    """It was built into the days that other feeds brought, unfinished, and could hold them."""
    day = date(2026, 3, 9)
    feed = FEED.replace("feed: shop", "feed: stall") + "marts: false\n"
    (shop.feeds_directory / "stall.yaml").write_text(feed, encoding="utf-8")
    land(shop, tmp_path, "stall_1", day, range(20, 25), source="stall")
    assert transform.pending(shop) == 0
    land(shop, tmp_path, "beside", day, range(CALLS))
    build_id = transform.claim(shop)
    assert build_id is not None
    transform.build(shop, build_id, dbt.quiet)
    # The floor goes on while the day is audited.
    land(shop, tmp_path, "stall_2", day, range(25, 30), source="stall")
    assert transform.audit(shop, build_id, dbt.quiet) == {}
    transform.publish(shop, build_id)
    for relation in ("fct_calls", "fct_queue_visits", "agg_queue_15min", "agg_calls_daily"):
        found = f"select distinct source from marts.{relation} where business_day = '{day}'"
        assert asked(shop, found) == [(SOURCE,)], relation
    assert asked(shop, f"select source, balance from bi.fct_day_balances "
                 f"where business_day = '{day}' and source <> '{SOURCE}'") == []  # fmt: skip
    assert asked(
        shop, "select unit_name, staged_rows, missing_rows from bi.fct_landed_units "
        "where source = 'stall' order by unit_id"
    ) == [("stall_1.csv", 5, 0), ("stall_2.csv", 5, 0)]  # fmt: skip
    mapping = shop.feeds_directory / "stall.yaml"
    mapping.write_text(feed.replace("false", "true"), encoding="utf-8")
    transform.mark(shop, None, "the stall is for the marts now")
    marked = f"select count(*) > 0 from ops.dirty_marks where business_day = '{day}'"
    assert asked(shop, marked) == [(True,)]
