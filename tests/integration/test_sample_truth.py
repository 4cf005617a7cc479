"""The simulator's own bookkeeping against the marts: every row, every column, exactly."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.integration import transfers

from callhouse import landing, semantic, simulate, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.semantic import query
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
    assert {r.record for r in results} == {
        "legs", "agents", "queues", "agent_states", "offers", "ivr_steps", "surveys", "schedules",
    }  # fmt: skip
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


def test_transfers_out_are_transfers_in(marts: psycopg.Connection, truth: Path) -> None:
    """Counted from both sides, as the truth has them; nothing follows none of them."""
    expected = transfers.truth(truth)
    assert len(expected) == DAYS and sum(out for out, _ in expected.values()) > 100
    assert all(out == followed for out, followed in expected.values())
    found = transfers.counted(marts, SOURCE)
    assert found == {day: (out, followed, 0, 0) for day, (out, followed) in expected.items()}
    told = transfers.balances(marts, SOURCE)
    assert told == {day: (out, True) for day, (out, _) in expected.items()}


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        # out, in, left, unknown
        pytest.param(
            "update marts.fct_agent_connections set transfers = 0 where {that}", (-1, 0, 0, 0),
            id="announcement lost",
        ),
        pytest.param(
            "delete from marts.fct_queue_visits where call_key = (select call_key"
            " from marts.fct_agent_connections where {that}) and visit_number = 2", (0, -1, 0, 1),
            id="visit lost",
        ),
        pytest.param(
            "insert into marts.fct_queue_visits select (jsonb_populate_record("
            "v, jsonb_build_object('visit_key', v.visit_key || ' again'))).*"
            " from marts.fct_queue_visits as v"
            " where call_key = (select call_key from marts.fct_agent_connections where {that})"
            " and visit_number = 2", (0, 1, 0, 0), id="visit doubled",
        ),
    ],
)  # fmt: skip
def test_a_transfer_lost_or_doubled_unbalances_its_day(
    marts: psycopg.Connection, truth: Path, damage: str, difference: tuple[int, ...]
) -> None:
    # A call that was passed on once, to a queue where it was answered.
    day, key = marts.execute(
        "select c.business_day, c.connection_key from marts.fct_agent_connections as c"
        " inner join marts.fct_calls as k using (business_day, call_key)"
        " inner join marts.fct_queue_visits as v using (business_day, call_key)"
        " where c.source = %s and c.transfer_type = 'blind' and k.transfers_count = 1"
        " and c.connection_number = 1 and v.visit_number = 2 and v.calls_answered = 1"
        " and k.queue_visits_count = 2 order by 2 limit 1",
        [SOURCE],
    ).fetchone() or ("", "")
    before = transfers.counted(marts, SOURCE)
    that = f"business_day = '{day}' and connection_key = '{key}'"
    assert marts.execute(damage.format(that=that).encode()).rowcount == 1
    after = transfers.counted(marts, SOURCE)
    marts.rollback()
    changed = tuple(map(int.__sub__, after.pop(str(day)), before.pop(str(day))))
    assert changed == difference
    assert after == before


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


END = START + timedelta(days=DAYS)  # the export of agents' states ends with the last midnight
SPENT = {
    "login_seconds": "login_seconds", "ready_seconds": "ready_seconds",
    "ring_seconds": "state_ring_seconds", "dial_seconds": "state_dial_seconds",
    "consult_seconds": "state_consult_seconds", "talk_seconds": "state_talk_seconds",
    "hold_seconds": "state_hold_seconds", "acw_seconds": "state_acw_seconds",
    "pause_seconds": "pause_seconds",
}  # fmt: skip


def cut_at_midnight(file: Path) -> list[tuple[str, ...]]:
    """The truth's states as pieces of days, up to the last midnight."""
    pieces = []
    with file.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            at, end = (datetime.fromisoformat(row[c]) for c in ("started_at", "ended_at"))
            while at < end:
                midnight = datetime.combine(at.date() + timedelta(days=1), datetime.min.time())
                until = min(end, midnight)
                if at.date() < END:
                    pieces.append(
                        (str(at.date()), row["agent_id"], row["state"], row["reason"],
                         row["call_id"], str(at), str(until), plain((until - at).seconds))
                    )  # fmt: skip
                at = until
    return sorted(pieces)


def test_agent_states(marts: psycopg.Connection, truth: Path) -> None:
    pieces = cut_at_midnight(truth / "agent_states.csv")
    assert sum(piece[6].endswith("00:00:00") for piece in pieces) > 3
    same(
        pieces,
        asked(
            marts,
            "select business_day, agent_id, state, reason, call_id,"
            " to_char(started_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), login_seconds"
            " from marts.fct_agent_states where source = 'sample_hotline'",
        ),
    )


def before_the_end(found: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [row for row in found if row[0] < str(END)]


def test_time_of_agents_by_day(marts: psycopg.Connection, truth: Path) -> None:
    """Also those who were logged in and handled nothing."""
    same(
        before_the_end(rows(truth / "agent_time_daily.csv", ("business_day", "agent_id", *SPENT))),
        asked(
            marts,
            f"select business_day, agent_id, {', '.join(SPENT.values())}"
            " from marts.agg_agent_daily"
            " where source = 'sample_hotline' and login_seconds is not null",
        ),
    )


def test_time_of_agents_by_quarter_of_an_hour(marts: psycopg.Connection, truth: Path) -> None:
    keys = ("business_day", "interval_start_at", "agent_id")
    same(
        before_the_end(rows(truth / "agent_time_15min.csv", (*keys, *SPENT))),
        asked(
            marts,
            "select business_day, to_char(interval_start_at, 'YYYY-MM-DD HH24:MI:SS'), agent_id,"
            f" {', '.join(SPENT.values())}"
            " from marts.agg_agent_15min where source = 'sample_hotline'",
        ),
    )


def test_plans_of_agents(marts: psycopg.Connection, truth: Path) -> None:
    """The newest version of each: who reported sick has a paid absence, also in a later file."""
    columns = ("agent_id", "shift_date", "activity", "is_paid", "starts_at", "ends_at")
    pieces = []
    for agent, shift, activity, is_paid, *times in rows(truth / "schedules.csv", columns):
        at, end = (datetime.fromisoformat(time) for time in times)
        while at < end:
            midnight = datetime.combine(at.date() + timedelta(days=1), datetime.min.time())
            until = min(end, midnight)
            pieces.append((str(at.date()), agent, shift, activity, is_paid, str(at), str(until)))
            at = until
    assert {piece[3] for piece in pieces} == {"work", "break", "lunch", "absence"}
    assert sum(piece[6].endswith("00:00:00") for piece in pieces) > 3
    same(
        sorted(pieces),
        asked(
            marts,
            "select business_day, agent_id, shift_date, activity, is_paid,"
            " to_char(starts_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ends_at, 'YYYY-MM-DD HH24:MI:SS')"
            " from marts.fct_agent_schedules where source = 'sample_hotline'",
        ),
    )


KEPT = (
    "scheduled_seconds", "scheduled_work_seconds", "paid_seconds", "worked_seconds",
    "utilised_seconds", "absent_seconds", "paused_seconds", "worked_break_seconds",
    "outside_seconds", "exception_seconds",
)  # fmt: skip


def test_how_agents_kept_to_their_plans(marts: psycopg.Connection, truth: Path) -> None:
    """Also who did not come, and who was not expected any more."""
    expected = rows(truth / "agent_adherence_daily.csv", ("business_day", "agent_id", *KEPT))
    place = {name: number for number, name in enumerate(KEPT, 2)}
    assert any(row[place["absent_seconds"]] == row[place["scheduled_work_seconds"]] != "0"
               for row in expected)  # fmt: skip
    assert any(row[place["scheduled_seconds"]] == "0" for row in expected)
    for name in KEPT:
        assert any(row[place[name]] != "0" for row in expected), name
    same(
        expected,
        asked(
            marts,
            f"select business_day, agent_id, {', '.join(KEPT)}"
            " from marts.agg_agent_adherence_daily where source = 'sample_hotline'",
        ),
    )


def test_adherence_conformance_and_utilisation_by_agent(
    settings: Settings, marts: psycopg.Connection, truth: Path
) -> None:
    """The saved metrics on the sums of nine days, against the truth's seconds."""
    sums: dict[str, dict[str, int]] = {}
    for _, agent, *seconds in rows(
        truth / "agent_adherence_daily.csv", ("business_day", "agent_id", *KEPT)
    ):
        account = sums.setdefault(agent, dict.fromkeys(KEPT, 0))
        for name, value in zip(KEPT, seconds, strict=True):
            account[name] += int(Decimal(value))
    formulas: dict[str, Callable[[dict[str, int]], float]] = {
        "adherence": lambda s: (
            1 - s["exception_seconds"] / (s["scheduled_seconds"] + s["outside_seconds"])
        ),
        "adherence_in_shift": lambda s: (
            1 - (s["exception_seconds"] - s["outside_seconds"]) / s["scheduled_seconds"]
        ),
        "conformance": lambda s: s["worked_seconds"] / s["scheduled_work_seconds"],
        "utilisation": lambda s: s["utilised_seconds"] / s["paid_seconds"],
    }
    saved = {
        m.name: m.expression
        for m in semantic.load(settings).dataset("agg_agent_adherence_daily").metrics
    }
    for name, formula in formulas.items():
        found: dict[str, Decimal] = dict(
            marts.execute(
                f"select agent_id, {saved[name]} from marts.agg_agent_adherence_daily"
                " where source = 'sample_hotline' group by agent_id"
            ).fetchall()
        )
        assert found.keys() == sums.keys()
        for agent, account in sums.items():
            assert float(found[agent]) == pytest.approx(formula(account), abs=1e-12), (name, agent)
            assert 0 < found[agent] < 1.2, (name, agent)


def test_states_tile_the_login_and_quarters_the_day(marts: psycopg.Connection) -> None:
    parts = " + ".join(column for column in SPENT.values() if column != "login_seconds")
    for relation in ("fct_agent_states", "agg_agent_15min", "agg_agent_daily"):
        found = asked(
            marts,
            f"select count(*) > 0, count(*) filter (where login_seconds <> {parts})"
            f" from marts.{relation} where login_seconds is not null",
        )
        assert found == [("True", "0")], relation
    sums = "business_day, agent_id, sum(login_seconds), sum(pause_seconds), sum(agent_days)"
    same(*(
        asked(marts, f"select {sums} from marts.{r} where login_seconds is not null group by 1, 2")
        for r in ("agg_agent_15min", "agg_agent_daily")
    ))  # fmt: skip


def test_intervals_days_and_months_agree(marts: psycopg.Connection, settings: Settings) -> None:
    """Counts add up; ratios are those of the sums, never means of smaller grains."""
    catalogue = semantic.load(settings)
    names = ("calls_offered", "calls_answered", "calls_abandoned", "asa", "service_level")
    where = (("source", SOURCE),)

    def by(grain: str) -> dict[Any, list[Any]]:
        question = query.Question(metrics=names, by=(grain,), where=where)
        _, found = query.ask(settings, catalogue, question)
        return {row[0]: row[1:] for row in found}

    days, months = by("day"), by("month")
    assert len(months) == 2 and len(days) >= DAYS
    counts = marts.execute(
        "select date_trunc('month', business_day)::date, sum(calls_offered), sum(calls_answered), "
        "sum(calls_abandoned), sum(answered_wait_seconds) / sum(answered_waits), "
        "sum(answered_within_target)::numeric / sum(calls_answered + calls_abandoned) "
        "from marts.agg_queue_15min where source = %s group by 1",
        [SOURCE],
    ).fetchall()
    assert len(counts) == 2
    for month, *quarters in counts:
        for place, name in enumerate(names):
            assert float(months[month][place]) == pytest.approx(float(quarters[place]), abs=1e-9), (
                month,
                name,
            )
        for place in range(3):
            of_days = [row[place] for day, row in days.items() if day.replace(day=1) == month]
            assert sum(of_days) == quarters[place] > 0


def test_parts_of_a_call_are_no_longer_than_the_call(marts: psycopg.Connection) -> None:
    parts = ("ivr", "wait", "ring", "talk", "hold", "acw", "call")
    negative = " or ".join(f"{part}_seconds < 0" for part in parts)
    (rows_seen, wrong, longer, flagged) = warehouse.one(
        marts,
        f"select count(*), count(*) filter (where {negative}), "
        "count(*) filter (where coalesce(ivr_seconds, 0) + coalesce(wait_seconds, 0) "
        "+ coalesce(talk_seconds, 0) + coalesce(hold_seconds, 0) > call_seconds + 6), "
        "count(*) filter (where 'components_exceed_call' = any(data_issues)) from marts.fct_calls",
    )
    assert rows_seen > 5000
    assert wrong == 0
    assert longer == flagged


def test_offers(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "call_id", "offer_number", "business_day", "queue_id", "agent_id", "team_id",
        "agent_region_code", "outcome", "offered_at", "ended_at", "ring_seconds",
    )  # fmt: skip
    same(
        rows(truth / "offers.csv", columns),
        asked(
            marts,
            "select call_id, offer_number, business_day, queue_id, agent_id, team_id,"
            " region_code, outcome, to_char(offered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), ring_seconds"
            " from marts.fct_agent_offers where source = 'sample_hotline'",
        ),
    )


def test_steps_of_self_service(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "call_id", "step_number", "business_day", "channel", "region_code", "node", "outcome",
        "entered_at", "left_at", "step_seconds",
    )  # fmt: skip
    same(
        rows(truth / "ivr_steps.csv", columns),
        asked(
            marts,
            "select call_id, step_number, business_day, channel, region_code, node, outcome,"
            " to_char(entered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(left_at, 'YYYY-MM-DD HH24:MI:SS'), step_seconds"
            " from marts.fct_ivr_steps where source = 'sample_hotline'",
        ),
    )


def test_surveys(marts: psycopg.Connection, truth: Path) -> None:
    columns = (
        "survey_id", "call_id", "business_day", "survey_type", "channel", "queue_id", "agent_id",
        "region_code", "score", "offered_at", "answered_at",
    )  # fmt: skip
    same(
        rows(truth / "surveys.csv", columns),
        asked(
            marts,
            "select survey_id, call_id, business_day, survey_type, channel,"
            " nullif(queue_id, 'none'), nullif(agent_id, 'none'), region_code, score,"
            " to_char(offered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(answered_at, 'YYYY-MM-DD HH24:MI:SS')"
            " from marts.fct_survey_responses where source = 'sample_hotline'",
        ),
    )


def test_requests_of_channels(marts: psycopg.Connection, truth: Path) -> None:
    """By call: where it was in self-service, wanted an agent, left a message."""
    expected: dict[tuple[str, str], int] = {}
    for call, channel, outcome in rows(truth / "ivr_steps.csv", ("call_id", "channel", "outcome")):
        expected[call, channel] = int(outcome == "contained" or expected.get((call, channel), 0))
    columns = ("call_id", "channel", "outcome", "visits", "connections")
    for call, channel, outcome, visits, connections in rows(truth / "calls.csv", columns):
        if channel == "callback" or visits != "0" or connections != "0":
            by = "callback" if channel == "callback" else "human"
            expected[call, by] = int(connections != "0")
        if channel == "voicemail":
            expected[call, "voicemail"] = int(outcome == "voicemail")
    assert {channel for _, channel in expected} == {"ivr", "bot", "human", "callback", "voicemail"}
    same(
        sorted((*key, str(served)) for key, served in expected.items()),
        asked(
            marts,
            "select call_id, channel, channel_requests_served from marts.fct_channel_requests"
            " where source = 'sample_hotline'",
        ),
    )


def test_abnormal_calls(marts: psycopg.Connection, truth: Path) -> None:
    """By the truth of calls and connections; repeats by a walk over each caller's calls."""
    expected: set[tuple[str, str]] = set()
    transfers_of: dict[str, int] = {}
    for call, kind in rows(truth / "connections.csv", ("call_id", "transfer_type")):
        transfers_of[call] = transfers_of.get(call, 0) + bool(kind)
    expected |= {(call, "ping_pong") for call, count in transfers_of.items() if count >= 3}
    columns = ("call_id", "connections", "talk_seconds", "hold_seconds", "ended_at")
    for call, connections, talk, hold, ended in rows(truth / "calls.csv", columns):
        if connections != "0":
            together = Decimal(talk or 0) + Decimal(hold or 0)
            expected |= {(call, "too_short")} if together < 10 else set()
            expected |= {(call, "too_long")} if together > 3600 else set()
        expected |= {(call, "no_hang_up")} if not ended else set()
    before: dict[Any, datetime] = {}
    over_midnight = 0
    for call, day, token, at in marts.execute(
        "select call_id, business_day, caller_token, arrived_at from marts.fct_calls"
        " where source = 'sample_hotline' and calls = 1 and channel <> 'callback'"
        " and caller_token is not null order by arrived_at, call_key"
    ):
        if (day, token) in before and at - before[day, token] <= timedelta(minutes=10):
            expected.add((call, "repeat"))
        elif token in before and at - before[token] <= timedelta(minutes=10):
            over_midnight += 1
        before[day, token] = before[token] = at
    assert {rule for _, rule in expected} >= {"too_short", "repeat"}
    assert over_midnight < 10
    found = "select call_id, rule from marts.bridge_call_anomaly where source = 'sample_hotline'"
    same(sorted(expected), asked(marts, found))
    same(
        sorted({(call,) for call, _ in expected}),
        asked(marts, "select call_id from marts.fct_calls where is_abnormal"),
    )


def test_occupancy_by_agent(settings: Settings, marts: psycopg.Connection, truth: Path) -> None:
    """The saved metric on the aggregate, against the truth's seconds."""
    spent: dict[str, dict[str, int]] = {}
    columns = ("business_day", "agent_id", *SPENT)
    for row in before_the_end(rows(truth / "agent_time_daily.csv", columns)):
        sums = spent.setdefault(row[1], dict.fromkeys(SPENT, 0))
        for name, value in zip(SPENT, row[2:], strict=True):
            sums[name] += int(Decimal(value))
    catalogue = semantic.load(settings)
    for name, top, bottom in (
        ("occupancy", ("talk", "hold", "acw"), ("talk", "hold", "acw", "ready")),
        ("occupancy_logged_in", ("talk", "acw"), ("login",)),
    ):
        expression = next(
            m.expression for m in catalogue.dataset("agg_agent_daily").metrics if m.name == name
        )
        found: dict[str, Decimal] = dict(
            marts.execute(
                f"select agent_id, {expression} from marts.agg_agent_daily"
                " where source = 'sample_hotline' group by agent_id"
            ).fetchall()
        )
        assert found.keys() == spent.keys()
        for agent, sums in spent.items():
            wanted = sum(sums[f"{s}_seconds"] for s in top) / sum(
                sums[f"{s}_seconds"] for s in bottom
            )
            assert float(found[agent]) == pytest.approx(wanted, abs=1e-12), (name, agent)


def test_events_say_what_the_call_says(marts: psycopg.Connection, truth: Path) -> None:
    """Arrival, end, answers and entries of each call, by the truth of calls and visits."""
    expected = [
        *((call, event, at)
          for event, column in (("arrived", "arrived_at"), ("ended", "ended_at"))
          for call, at in rows(truth / "calls.csv", ("call_id", column))),
        *((call, "queue_entered", at)
          for call, at in rows(truth / "visits.csv", ("call_id", "entered_at"))),
        *((call, "answered", at)
          for call, at in rows(truth / "connections.csv", ("call_id", "connected_at"))),
    ]  # fmt: skip
    same(
        sorted(expected),
        asked(
            marts,
            "select e.call_id, e.event, to_char(e.event_at, 'YYYY-MM-DD HH24:MI:SS')"
            " from marts.fct_call_events as e"
            " inner join marts.fct_calls as c using (business_day, source, call_id)"
            " where e.source = 'sample_hotline' and c.calls = 1"
            " and e.event in ('arrived', 'ended', 'queue_entered', 'answered')",
        ),
    )


SCOPED = {
    "manager": ("region", "CN-GD", "region_code"),
    "lead": ("team", "GZ-A", "team_id"),
    "agent_101": ("agent", "101", "agent_id"),
    "nobody_yet": None,
}
SHOWN = {  # relation → scope columns that it has
    "fct_agent_states": ("region_code", "team_id", "agent_id"),
    "agg_agent_15min": ("region_code", "team_id", "agent_id"),
    "fct_agent_schedules": ("region_code", "team_id", "agent_id"),
    "agg_agent_adherence_daily": ("region_code", "team_id", "agent_id"),
    "fct_agent_offers": ("region_code", "team_id", "agent_id"),
    "fct_ivr_steps": ("region_code",),
    "fct_channel_requests": ("region_code", "team_id", "agent_id"),
    "bridge_call_anomaly": ("region_code", "team_id", "agent_id"),
    "fct_call_events": ("region_code", "team_id", "agent_id"),
    "fct_survey_responses": ("region_code", "team_id", "agent_id"),
}


def test_each_person_sees_the_rows_of_their_scope_only(
    settings: Settings, marts: psycopg.Connection
) -> None:
    with psycopg.connect(settings.dsn("postgres")) as server:
        for name, scope in SCOPED.items():
            scopes = (scope[:2],) if scope else ()
            people.ensure(settings, server, people.Person(name, name, scopes))
    for name, scope in SCOPED.items():
        address = settings.dsn("callhouse_pipeline").split(" user=")[0]
        login = f"{address} user={name} password={login_password(settings, name)}"
        with psycopg.connect(login) as own:
            for relation, columns in SHOWN.items():
                (found,) = warehouse.one(own, f"select count(*) from bi.{relation}")
                expected = 0
                if scope and scope[2] in columns:
                    (expected,) = warehouse.one(
                        marts,
                        f"select count(*) from marts.{relation} where {scope[2]} = '{scope[1]}'",
                    )
                    assert expected > 0
                assert found == expected, (name, relation)


def test_a_team_has_no_rate_of_queues(settings: Settings, marts: psycopg.Connection) -> None:
    """A lead sees answered visits only: 100 % answered would be no answer at all."""
    catalogue = semantic.load(settings)
    scopes = {
        "lead_of_offers": (("team", "GZ-A"),),
        "agent_of_offers": (("agent", "sample_hotline/101"),),
        "lead_of_both": (("team", "GZ-A"), ("region", "CN-GD")),
    }
    with psycopg.connect(settings.dsn("postgres")) as server:
        for name, scope in scopes.items():
            people.ensure(settings, server, people.Person(name, name, scope))
    refused = ("answer_rate", "service_level", "abandon_rate", "abandon_rate_total",
               "containment_rate", "calls_offered")  # fmt: skip
    for name in ("lead_of_offers", "agent_of_offers"):
        for metric in refused:
            with pytest.raises(CallhouseError, match=f"{metric} is of queues.*offer_answer_rate"):
                query.ask(settings, catalogue, query.Question((metric,)), name)
        told = query.Question(("offer_answer_rate", "asa", "calls", "abnormal_call_rate", "csat"))
        (row,) = query.ask(settings, catalogue, told, name)[1]
        assert 0 < row[0] <= 1 and row[1] > 0 and row[2] > 0
    for person in ("lead_of_both", None):
        (row,) = query.ask(settings, catalogue, query.Question(("answer_rate",)), person)[1]
        assert 0 < row[0] < 1


def test_callers_are_those_of_the_calls_that_a_person_sees(
    settings: Settings, marts: psycopg.Connection
) -> None:
    """Grouped here row by row; a caller of two regions is another one to each manager."""
    calls = marts.execute(
        "select caller_token, region_code, caller_carrier, arrived_at, calls from marts.fct_calls "
        "where caller_token is not null order by arrived_at, call_key"
    ).fetchall()
    seen_by = {
        "reader_callers_all": (("all", "*"), None),
        "reader_callers_gd": (("region", "CN-GD"), "CN-GD"),
    }
    with psycopg.connect(settings.dsn("postgres")) as server:
        for name, (scope, _) in seen_by.items():
            people.ensure(settings, server, people.Person(name, name, (scope,)))
    sizes = []
    for name, (_, region) in seen_by.items():
        expected: dict[Any, tuple[Any, ...]] = {}
        for token, code, carrier, arrived, count in calls:
            if region in (None, code):
                _, _, first, _, before = expected.get(token, (None, None, arrived, None, 0))
                expected[token] = (code, carrier, first, arrived, before + count)
        with warehouse.connect_as(settings, name, login_password(settings, name)) as own:
            found = own.execute(
                "select caller_token, region_code, caller_carrier, first_arrived_at, "
                "newest_arrived_at, calls from bi.dim_caller"
            ).fetchall()
            plan = "\n".join(
                line
                for (line,) in own.execute(
                    "explain select * from bi.dim_caller where caller_token = %s",
                    [calls[0][0]],
                )
            )
        assert {row[0]: row[1:] for row in found} == expected
        assert len(found) == len(expected)
        assert "caller_token" in plan and "Seq Scan" not in plan.replace("Seq Scan on sec", "")
        sizes.append(len(found))
    assert sizes[0] > sizes[1] > 0


def test_another_full_build_changes_no_row(marts: psycopg.Connection, settings: Settings) -> None:
    transform.mark(settings, None, "test")
    outcome = transform.drain(settings, print)
    assert [(b.inserted_rows, b.deleted_rows) for b in outcome.builds] == [(0, 0)]
