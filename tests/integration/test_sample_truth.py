"""The simulator's own bookkeeping against the marts: every row, every column, exactly."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

SOURCE = "sample_hotline"
# Nine days hold two week-ends, a night crossing a month's end and a late file.
START, DAYS, CALLS_PER_DAY = date(2026, 10, 24), 9, 700


@pytest.fixture(scope="module")
def truth(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Simulate, land, transform; the folder of the truth."""
    folder = tmp_path_factory.mktemp("sample")
    simulate.write(folder, seed=7, start=START, days=DAYS, calls_per_day=CALLS_PER_DAY, dirt=True)
    results = landing.land(settings, SOURCE, [folder])
    assert {r.status for r in results} == {"landed"}
    assert {r.record for r in results} == {"legs", "agents", "queues"}
    for result in results:
        assert result.read == result.staged + result.quarantined + result.duplicates
    transform.prepare(settings, print)
    outcome = transform.drain(settings, print)
    assert outcome.problems == ()
    assert [b.held_days for b in outcome.builds] == [{}] * len(outcome.builds)
    return folder / "truth"


@pytest.fixture
def marts(settings: Settings, truth: Path) -> Iterator[psycopg.Connection]:
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        yield connection


def rows(file: Path, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """`columns` of a truth file as text, None for nothing and numbers without noise."""
    with file.open(encoding="utf-8", newline="") as handle:
        return sorted(tuple(plain(row[c]) for c in columns) for row in csv.DictReader(handle))


def plain(value: object) -> str:
    if value is None or value == "":
        return ""
    try:
        return str(Decimal(str(value)).normalize() + 0)
    except ArithmeticError:
        return str(value)


def asked(connection: psycopg.Connection, statement: str) -> list[tuple[str, ...]]:
    return sorted(tuple(plain(v) for v in row) for row in connection.execute(statement))


def same(left: list[Any], right: list[Any]) -> None:
    """Equal, or the first rows that only one side has."""
    assert left, "nothing to compare"
    only_left, only_right = set(left) - set(right), set(right) - set(left)
    assert not only_left and not only_right, (
        f"{len(only_left)} only in the truth: {sorted(only_left)[:3]}; "
        f"{len(only_right)} only in the marts: {sorted(only_right)[:3]}"
    )
    assert len(left) == len(right)


def test_calls(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "call_id", "business_day", "arrived_at", "ended_at", "hotline_id", "region_code",
        "channel", "outcome", "abandon_stage", "hangup_party", "first_queue_id", "visits",
        "connections", "ivr_seconds", "wait_seconds", "talk_seconds", "hold_seconds",
        "acw_seconds",
    )  # fmt: skip
    same(
        rows(truth / "calls.csv", columns),
        asked(
            marts,
            "select call_id, business_day, to_char(arrived_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), hotline_id, region_code, channel,"
            " outcome, abandon_stage, hangup_party, nullif(queue_id, 'none'),"
            " queue_visits_count, agent_connections_count, coalesce(ivr_seconds, 0),"
            " coalesce(wait_seconds, 0), coalesce(talk_seconds, 0), coalesce(hold_seconds, 0),"
            " coalesce(acw_seconds, 0)"
            # The nightly line test is a row, but no call: the truth does not know it.
            " from marts.fct_calls where source = 'sample_hotline' and calls = 1",
        ),
    )


def test_a_damaged_business_type_is_unknown_and_no_other_is(
    marts: psycopg.Connection, truth: Path
) -> None:
    dirt = json.loads((truth / "summary.json").read_text(encoding="utf-8"))["dirt"]
    damaged = {d["call_id"] for d in dirt if d["kind"] == "unknown_business_type"}
    assert damaged
    same(
        [
            (call, "unknown" if call in damaged else business_type or "unknown")
            for call, business_type in rows(truth / "calls.csv", ("call_id", "business_type"))
        ],
        asked(
            marts,
            "select call_id, business_type from marts.fct_calls"
            " where source = 'sample_hotline' and calls = 1",
        ),
    )


def test_queue_visits(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "call_id", "visit_number", "business_day", "queue_id", "channel", "region_code",
        "agent_id", "outcome", "abandon_stage", "entered_at", "left_at", "wait_seconds",
        "ring_seconds",
    )  # fmt: skip
    same(
        rows(truth / "visits.csv", columns),
        asked(
            marts,
            "select call_id, visit_number, business_day, queue_id, channel, region_code,"
            " nullif(agent_id, 'none'), outcome, abandon_stage,"
            " to_char(entered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(left_at, 'YYYY-MM-DD HH24:MI:SS'), wait_seconds, ring_seconds"
            " from marts.fct_queue_visits where source = 'sample_hotline'",
        ),
    )


def test_agent_connections(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "call_id", "connection_number", "business_day", "queue_id", "agent_id", "team_id",
        "agent_region_code", "transfer_type", "connected_at", "ended_at", "talk_seconds",
        "hold_seconds", "acw_seconds",
    )  # fmt: skip
    same(
        rows(truth / "connections.csv", columns),
        asked(
            marts,
            "select call_id, connection_number, business_day, nullif(queue_id, 'none'), agent_id,"
            " team_id, region_code, transfer_type,"
            " to_char(connected_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), talk_seconds, hold_seconds, acw_seconds"
            " from marts.fct_agent_connections where source = 'sample_hotline'",
        ),
    )


def any_count(row: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    """False where every number of the row is zero: a phantom, or a connection elsewhere."""
    return any(value != "0" for value in row[len(keys) :])


VISIT_COUNTS = (
    "queue_visits", "calls_offered", "calls_answered", "calls_abandoned",
    "answered_within_target", "abandoned_within_target", "answered_within_15s", "short_abandons",
    "answered_wait_seconds", "abandoned_wait_seconds",
)  # fmt: skip
CONNECTION_COUNTS = (
    "agent_connections", "connections_handled", "connections_held", "transfers",
    "transfers_blind", "transfers_attended", "transfers_consult", "talk_seconds", "hold_seconds",
    "acw_seconds",
)  # fmt: skip


def test_quarters_of_an_hour(marts: psycopg.Connection, truth: Path) -> None:
    sums = ", ".join(f"coalesce({c}, 0)" for c in VISIT_COUNTS)
    same(
        rows(
            truth / "queue_15min.csv",
            ("business_day", "interval_start_at", "queue_id", *VISIT_COUNTS),
        ),
        asked(
            marts,
            "select business_day, to_char(interval_start_at, 'YYYY-MM-DD HH24:MI:SS'), queue_id,"
            f" {sums} from marts.agg_queue_15min"
            " where source = 'sample_hotline' and queue_visits > 0",
        ),
    )


def test_days_by_queue_channel_and_region(marts: psycopg.Connection, truth: Path) -> None:
    counts = ("calls", "calls_abandoned_before_agent", "calls_contained", *VISIT_COUNTS)
    keys = ("business_day", "queue_id", "channel", "region_code")
    sums = ", ".join(f"coalesce(sum({c}), 0)" for c in counts)
    same(
        [row for row in rows(truth / "daily.csv", (*keys, *counts)) if any_count(row, keys)],
        [
            row
            for row in asked(
                marts,
                "select business_day, nullif(queue_id, 'none'), channel, region_code,"
                f" {sums} from marts.agg_calls_daily where source = 'sample_hotline'"
                " group by 1, 2, 3, 4",
            )
            if any_count(row, keys)
        ],
    )


def test_agents_by_day(marts: psycopg.Connection, truth: Path) -> None:
    sums = ", ".join(f"coalesce({c}, 0)" for c in CONNECTION_COUNTS)
    same(
        rows(
            truth / "agent_daily.csv",
            ("business_day", "agent_id", "team_id", "agent_region_code", *CONNECTION_COUNTS),
        ),
        asked(
            marts,
            f"select business_day, agent_id, team_id, region_code, {sums}"
            " from marts.agg_agent_daily"
            " where source = 'sample_hotline' and agent_connections > 0",
        ),
    )


def test_another_full_build_changes_no_row(marts: psycopg.Connection, settings: Settings) -> None:
    transform.mark(settings, None, "test")
    outcome = transform.drain(settings, print)
    assert [(b.inserted_rows, b.deleted_rows) for b in outcome.builds] == [(0, 0)]
