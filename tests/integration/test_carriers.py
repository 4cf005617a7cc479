"""The carrier's count against ours: simulated worlds, clean and dirty, and files that come late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from callhouse import landing, semantic, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.semantic import query
from callhouse.settings import Settings

SOURCE = "sample_hotline"
CLEAN, DIRTY, DAYS = date(2026, 10, 23), date(2026, 11, 13), 3
FEEDS = {
    "exchange": """
feed: exchange
vendor: delimited
label: Exchange
time_zone: Europe/Berlin
records:
  - record: legs
    files: ["*.csv"]
    delimiter: comma
    header: true
    columns:
      call_id: call
      caller: {column: caller, kind: phone, country: CN}
      hotline_id: {constant: line}
      outcome: outcome
      arrived_at: arrived
""",
    "trunk": """
feed: trunk
vendor: delimited
label: Trunk
time_zone: Europe/Berlin
records:
  - record: carrier_calls
    files: ["*.csv"]
    delimiter: comma
    header: true
    columns:
      caller: {column: caller, kind: phone, country: CN}
      hotline_id: {column: called, codes: {"400": line}}
      started_at: started
""",
}


NIGHT, NOON, HOUR_OFF = "2025-03-03 23:59:58", "2025-03-03 12:00:00", "2025-03-04 10:00:00"
HEADERS = {"exchange": "call,caller,outcome,arrived", "trunk": "caller,called,started"}


def land(settings: Settings, folder: Path, feed: str, name: str, *lines: str) -> None:
    """Land a file of `feed`."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / f"{feed}.yaml").write_text(FEEDS[feed])
    file = folder / f"{feed}_{name}.csv"
    file.write_text("\n".join([HEADERS[feed], *lines]) + "\n")
    (result,) = landing.land(settings, feed, [file])
    assert result.status == "landed", result.reason
    assert result.quarantined == 0


@pytest.fixture(scope="module")
def worlds(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[date, Path]:
    """A clean and a dirty world of the same feed, weeks apart, landed and published."""
    folders = {}
    for start in (CLEAN, DIRTY):
        folder = folders[start] = tmp_path_factory.mktemp("world")
        simulate.write(
            folder, seed=11, start=start, days=DAYS, calls_per_day=600, dirt=start == DIRTY,
            formats=("delimited", "carrier"),
        )  # fmt: skip
        # The details of days have no part in it.
        files = [*folder.glob("calls_*"), folder / "agents.csv", folder / "queues.csv"]
        results = landing.land(settings, SOURCE, [*sorted(files), folder / "carrier"])
        assert {r.status for r in results} <= {"landed", "already_landed"}  # the references
        assert {r.record for r in results} == {"legs", "agents", "queues", "carrier_calls"}
    # Before there are days that only a carrier knows: new seeds would mark them in both lanes.
    transform.prepare(settings, print)
    # Of another exchange only the carrier's lines are there yet, one file of them twice.
    folder = folders[CLEAN]
    lines = (f"+8613022011111,400,{NIGHT}", f"+8613022012222,400,{NOON}")
    land(settings, folder, "trunk", "3", *lines)
    land(settings, folder, "trunk", "4", f"+8613022013333,400,{HOUR_OFF}")
    land(settings, folder, "trunk", "again", *reversed(lines))
    outcome = transform.drain(settings, print)
    assert outcome.problems == ()
    assert [b.held_days for b in (*outcome.builds, *outcome.followups)] == [{}, {}]
    return folders


@pytest.fixture
def marts(settings: Settings, worlds: dict[date, Path]) -> Iterator[psycopg.Connection]:
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        yield connection


def test_a_clean_world_is_matched_to_the_last_call(
    marts: psycopg.Connection, worlds: dict[date, Path]
) -> None:
    days = marts.execute(
        "select hotline_id, sum(carrier_calls), sum(warehouse_calls), sum(matched_calls),"
        " sum(only_carrier_calls + only_warehouse_calls), min(median_offset_seconds),"
        " max(median_offset_seconds) from marts.fct_carrier_reconciliation"
        " where carrier_source = %s and business_day < %s group by hotline_id order by hotline_id",
        [SOURCE, DIRTY],
    ).fetchall()
    counted = marts.execute(
        "select hotline_id, count(*) from marts.fct_calls where business_day < %s"
        " and calls = 1 and channel <> 'callback' group by hotline_id order by hotline_id",
        [DIRTY],
    ).fetchall()
    assert [row[0] for row in counted] == ["premium", "service"]
    for (hotline, carried, ours, matched, different, low, high), (_, calls) in zip(
        days, counted, strict=True
    ):
        assert carried == ours == matched == calls > 50, hotline
        assert different == 0, hotline
        assert 1 <= low <= high <= 4, hotline
    unanswered, anonymous = warehouse.one(
        marts,
        "select count(*) filter (where calls_connected = 0),"
        " count(*) filter (where caller_token is null) from marts.fct_calls"
        " where business_day < %s and calls = 1",
        [DIRTY],
    )
    assert unanswered > 500 and anonymous > 20


def test_a_dirty_world_lists_each_lost_call_and_no_other(
    marts: psycopg.Connection, worlds: dict[date, Path]
) -> None:
    """Lost calls are told by the carrier's number of the call: its place on the trunk."""
    truth = worlds[DIRTY] / "truth"
    lost = {
        entry["call_id"]
        for entry in json.loads((truth / "summary.json").read_text())["dirt"]
        if entry["kind"] == "lost_call"
    }
    forgotten = {
        entry["call_id"]
        for entry in json.loads((truth / "carrier_limits.json").read_text())["dirt"]
    }
    assert len(lost) >= 2 * DAYS and len(forgotten) >= 2 * DAYS and not lost & forgotten
    differences = marts.execute(
        "select side, call_id, carrier_call_id, reason from marts.fct_carrier_differences"
        " where carrier_source = 'sample_hotline'"
    ).fetchall()
    assert {call for side, call, _, _ in differences if side == "warehouse"} == forgotten
    # Of the truth's calls, in order of arrival, those that are no call-back came over the trunk.
    trunk = [
        line.split(",")[0]
        for line in (truth / "calls.csv").read_text().splitlines()[1:]
        if ",callback," not in line
    ]
    missing = {
        trunk[int(record.removeprefix("R"))]
        for side, _, record, _ in differences
        if side == "carrier"
    }
    assert missing == lost
    assert len(differences) == len(lost) + len(forgotten)
    assert {(side, reason) for side, _, _, reason in differences} <= {
        ("carrier", "no_record"), ("warehouse", "no_carrier_record"),
        ("carrier", "time_differs"), ("warehouse", "time_differs"),
    }  # fmt: skip


def test_a_carrier_s_line_is_no_call(marts: psycopg.Connection) -> None:
    facts, carried = warehouse.one(
        marts,
        "select (select count(*) from marts.fct_calls where calls = 1 and channel <> 'callback'),"
        " (select sum(carrier_calls - only_carrier_calls + only_warehouse_calls)"
        " from marts.fct_carrier_reconciliation)",
    )
    assert facts == carried


def test_the_match_rate_is_a_metric(settings: Settings, marts: psycopg.Connection) -> None:
    names, rows = query.ask(
        settings,
        semantic.load(settings),
        query.Question(("carrier_match_rate", "calls_missing"), by=("hotline",), start=DIRTY),
    )
    expected = marts.execute(
        "select hotline_id, sum(matched_calls) / sum(carrier_calls), sum(only_carrier_calls)"
        " from marts.fct_carrier_reconciliation where business_day >= %s"
        " group by hotline_id order by hotline_id",
        [DIRTY],
    ).fetchall()
    assert names == ["hotline", "carrier_match_rate", "calls_missing"]
    assert sorted((hotline, round(rate, 9), missing) for hotline, rate, missing in rows) == [
        (hotline, round(rate, 9), missing) for hotline, rate, missing in expected
    ]
    assert any(missing > 0 for _, _, missing in expected)


def test_a_day_with_lost_calls_is_warned_of_and_published(marts: psycopg.Connection) -> None:
    (short,) = warehouse.one(
        marts,
        "select array_agg(distinct business_day) from marts.fct_carrier_reconciliation"
        " where matched_calls < 0.995 * carrier_calls and carrier_source = 'sample_hotline'",
    )
    assert short and min(short) >= DIRTY
    (found,) = marts.execute(
        "select severity, is_success, failing_days from ops.expectation_results"
        " where suite = 'marts_carriers' and expectation = 'the_carrier_s_calls_are_known'"
    ).fetchall()
    assert found[:2] == ("warn", False)
    assert [day for day in found[2] if day.year == DIRTY.year] == sorted(short)


def test_rows_are_shown_by_region_and_counts_to_those_who_see_all(
    settings: Settings, marts: psycopg.Connection
) -> None:
    counted = {}
    with psycopg.connect(settings.dsn("postgres")) as server:
        for name, scope in {"everywhere": ("all", "*"), "guangdong": ("region", "CN-GD")}.items():
            people.ensure(settings, server, people.Person(name, name, (scope,)))
    for name in ("everywhere", "guangdong"):
        with warehouse.connect_as(settings, name, login_password(settings, name)) as own:
            counted[name] = warehouse.one(
                own,
                "select (select count(*) from bi.fct_carrier_reconciliation),"
                " (select count(*) from bi.fct_carrier_differences)",
            )
    everything = warehouse.one(
        marts,
        "select (select count(*) from marts.fct_carrier_reconciliation), count(*),"
        " count(*) filter (where region_code = 'CN-GD') from marts.fct_carrier_differences",
    )
    assert counted == {"everywhere": everything[:2], "guangdong": (0, everything[2])}
    assert 0 < everything[2] < everything[1]


def reconciled(connection: psycopg.Connection) -> list[tuple[int, int, int, int]]:
    """(day of March 2025, the carrier's calls, ours, matched)."""
    return connection.execute(
        "select extract(day from business_day)::int, carrier_calls, warehouse_calls, matched_calls"
        " from marts.fct_carrier_reconciliation where hotline_id = 'line' order by business_day"
    ).fetchall()


def differing(connection: psycopg.Connection) -> list[tuple[int, str, str, str]]:
    return connection.execute(
        "select extract(day from business_day)::int, side, coalesce(call_id, 'none'), reason"
        " from marts.fct_carrier_differences where hotline_id = 'line'"
        " order by business_day, side, started_at"
    ).fetchall()


def test_our_side_may_come_late(
    settings: Settings, worlds: dict[date, Path], tmp_path: Path
) -> None:
    """A call at midnight is of the 3rd by the carrier's clock and of the 4th by ours."""
    with warehouse.connect(settings, autocommit=True) as connection:
        # Days that are known to the carrier alone.
        assert reconciled(connection) == [(3, 2, 0, 0), (4, 1, 0, 0)]
        lost = ("carrier", "none", "no_record")
        assert differing(connection) == [(3, *lost), (3, *lost), (4, *lost)]
        land(settings, tmp_path, "exchange", "4",
             "m,13022011111,abandoned,2025-03-04 00:00:03",
             "n,13022013333,abandoned,2025-03-04 09:00:00")  # fmt: skip
        assert transform.drain(settings, print).problems == ()
        # The facts of the 4th reach back to a day that has none. An hour off, as in a wrong time
        # zone, nothing is matched, and the difference says why.
        assert reconciled(connection) == [(3, 2, 0, 1), (4, 1, 2, 0)]
        assert differing(connection) == [
            (3, *lost), (4, "carrier", "none", "time_differs"),
            (4, "warehouse", "n", "time_differs"),
        ]  # fmt: skip
        (calls,) = warehouse.one(
            connection, "select count(*) from marts.fct_calls where source in ('exchange', 'trunk')"
        )
        assert calls == 2
