"""A simulated centre, streamed as Amazon Connect does: the truth as far as the records carry it."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from tests.integration import transfers

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

# Days with a week-end, a night between months and call-backs past midnight; 16 days and more have
# agents who change teams.
START, DAYS, CALLS_PER_DAY = date(2026, 10, 16), 17, 200
WORLDS = ("clean", "dirty")
KINDS = ("contacts", "agent_events")
# The simulator's names for what the records call by numbers and levels.
OWN = {
    "contacts": 'hotlines: {"+864000000001": service, "+864000000002": premium}\n'
    "hierarchy: {region: 1, team: 2}\n",
    "agent_events": "",
}
SHIPPED = Path(landing.__file__).parents[1] / "sources" / "amazon_connect" / "feeds"
# Never enqueued, so that the records have no queue: see docs/operators/amazon-connect.md.
REFUSED = ("overflow_full", "overflow_empty", "overflow_diverted", "closed")
STATES = ("ready", "ring", "dial", "talk", "hold", "acw", "pause")

# The agent's status during a pause of the simulator.
REASONS = {"": "", "break": "Break", "lunch": "Lunch", "no_answer": "Missed call"}

Row = dict[str, str]


class Landed(NamedTuple):
    """What came of one world."""

    folder: Path
    results: list[landing.UnitResult]


@pytest.fixture(scope="module")
def landed(
    settings: Settings,
    cluster: postgres.Cluster,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> dict[str, Landed]:
    """Simulate, land and transform both worlds, feeds of their own each."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    found = {}
    for world in WORLDS:
        folder = tmp_path_factory.mktemp(world)
        simulate.write(
            folder,
            seed=12,
            start=START,
            days=DAYS,
            calls_per_day=pytestconfig.getoption("calls_per_day") or CALLS_PER_DAY,
            dirt=world == "dirty",
            formats=("connect",),
        )
        results = []
        for kind in KINDS:
            shipped = (SHIPPED / f"amazon_connect_{kind}.yaml").read_text(encoding="utf-8")
            name = f"{world}_{kind}"
            (settings.feeds_directory / f"{name}.yaml").write_text(
                shipped.replace(": amazon_connect_", f": {world}_") + OWN[kind]
            )
            results += landing.land(settings, name, sorted((folder / "connect").glob(f"{kind}_*")))
        found[world] = Landed(folder, results)
    transform.prepare(settings, lambda _line: None)
    outcome = transform.drain(settings, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)
    return found


@pytest.fixture
def marts(settings: Settings, landed: dict[str, Landed]) -> Iterator[psycopg.Connection]:
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        yield connection


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, landed: dict[str, Landed]) -> str:
    return str(request.param)


@pytest.fixture
def truth(world: str, landed: dict[str, Landed]) -> Path:
    return landed[world].folder / "truth"


def table(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def plain(value: object) -> str:
    if value is None or value == "":
        return ""
    try:
        return str(Decimal(str(value)).normalize() + 0)
    except ArithmeticError:
        return str(value)


def asked(connection: psycopg.Connection, statement: str, source: str) -> list[tuple[str, ...]]:
    rows = connection.execute(statement.encode(), {"source": source})
    return sorted(tuple(plain(value) for value in row) for row in rows)


def same(left: list[Any], right: list[Any]) -> None:
    """Equal, or the first rows that only one side has."""
    assert left, "nothing to compare"
    only_left, only_right = Counter(left) - Counter(right), Counter(right) - Counter(left)
    assert not only_left and not only_right, (
        f"{len(only_left)} only in the truth: {sorted(only_left)[:3]}; "
        f"{len(only_right)} only in the marts: {sorted(only_right)[:3]}"
    )


def chosen(rows: list[Row], *columns: str) -> list[tuple[str, ...]]:
    return sorted(tuple(plain(row[column]) for column in columns) for row in rows)


# ------------------------------------------------------------------------------ as carried
@pytest.fixture
def contacts(truth: Path) -> dict[str, list[Row]]:
    """The contacts of each call, in order."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in table(truth / "connect_contacts.csv"):
        found[row["call_id"]].append(row)
    return found


@pytest.fixture
def visits(truth: Path, contacts: dict[str, list[Row]]) -> list[Row]:
    """The truth's visits without refused ones, numbered anew, under the ids of the records."""
    rows = [row for row in table(truth / "visits.csv") if row["outcome"] not in REFUSED]
    numbers: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: (row["call_id"], int(row["visit_number"]))):
        numbers[row["call_id"]] += 1
        row["visit_number"] = str(numbers[row["call_id"]])
        row["ring_seconds"] = ""
        if row["abandon_stage"]:
            row["abandon_stage"] = "queue"
        row["call_id"] = contacts[row["call_id"]][0]["contact_id"]
    return rows


@pytest.fixture
def connections(truth: Path, contacts: dict[str, list[Row]]) -> list[Row]:
    """The truth's connections, a consultation as the attended transfer that it looks like."""
    rows = table(truth / "connections.csv")
    for row in rows:
        row["transfer_type"] = row["transfer_type"].replace("consult", "attended")
        row["call_id"] = contacts[row["call_id"]][0]["contact_id"]
    return rows


@pytest.fixture
def calls(truth: Path, contacts: dict[str, list[Row]], visits: list[Row]) -> list[Row]:
    """The truth's calls, as the records tell of those that were refused."""
    visited = Counter(row["call_id"] for row in visits)
    first_queue = {row["call_id"]: row["queue_id"] for row in visits if row["visit_number"] == "1"}
    last_outcome = {
        row["call_id"]: row["outcome"]
        for row in sorted(table(truth / "visits.csv"), key=lambda row: int(row["leg_number"]))
    }
    rows = table(truth / "calls.csv")
    for row in rows:
        last = last_outcome.get(row["call_id"], "")
        row["call_id"] = contacts[row["call_id"]][0]["contact_id"]
        row["visits"] = str(visited[row["call_id"]])
        row["first_queue_id"] = first_queue.get(row["call_id"], "")
        if row["abandon_stage"] == "ring":
            row["abandon_stage"] = "queue"
        if row["outcome"] in REFUSED:
            is_first = len(contacts[row["call_id"]]) == 1 if row["call_id"] in contacts else True
            by_customer = row["hangup_party"] == "customer"
            row["outcome"] = "abandoned" if by_customer else "incomplete"
            row["abandon_stage"] = "ivr" if by_customer and is_first else ""
        if not visited[row["call_id"]] and row["channel"] == "human":
            row["channel"] = "ivr"
        if "incomplete" in (row["outcome"], last):
            row["hangup_party"] = "system"
    return rows


# ------------------------------------------------------------------------------ comparisons
def test_transfers_out_are_transfers_in(marts: psycopg.Connection, world: str, truth: Path) -> None:
    """A queue that refuses the call has no record: of a transfer to it only the next one tells."""
    expected = transfers.truth(truth, hidden=REFUSED)
    assert len(expected) == DAYS and sum(out for out, _ in expected.values()) > 100
    source = f"{world}_contacts"
    assert transfers.counted(marts, source) == {
        day: (out, way, out - way, 0) for day, (out, way) in expected.items()
    }
    told = transfers.balances(marts, source)
    assert told == {day: (out, True) for day, (out, _) in expected.items()}


def test_every_file_is_accounted_for(world: str, landed: dict[str, Landed]) -> None:
    results = landed[world].results
    assert {result.status for result in results} == {"landed"}
    for result in results:
        assert result.read == result.staged + result.quarantined + result.duplicates
    limits = json.loads((landed[world].folder / "truth/connect_limits.json").read_text())
    injected = Counter(entry["kind"] for entry in limits["dirt"])
    assert (len(injected) >= 6) == (world == "dirty")
    assert sum(result.read for result in results) == sum(limits["files"].values())
    assert sum(r.quarantined for r in results) == injected["truncated_line"]
    repeated = injected["sent_again"] + injected["event_sent_again"]
    assert sum(r.duplicates for r in results) == repeated


def test_calls(marts: psycopg.Connection, world: str, calls: list[Row]) -> None:
    # A few made-up numbers look like a special service's, which has no province.
    unplaced = {
        call
        for call, *_ in asked(
            marts,
            "select call_id from marts.fct_calls where source = %(source)s and region_code = 'CN'",
            f"{world}_contacts",
        )
    }
    assert len(unplaced) <= 0.01 * len(calls)
    for row in calls:
        if row["call_id"] in unplaced:
            assert row["region_code"].startswith("CN-")
            row["region_code"] = "CN"
    same(
        chosen(
            calls, "call_id", "business_day", "arrived_at", "ended_at", "hotline_id",
            "region_code", "channel", "business_type", "outcome", "abandon_stage",
            "hangup_party", "first_queue_id", "visits", "connections", "wait_seconds",
            "talk_seconds", "hold_seconds", "acw_seconds",
        ),
        asked(
            marts,
            "select call_id, business_day, to_char(arrived_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), hotline_id, region_code, channel,"
            " business_type, outcome, abandon_stage, hangup_party, nullif(queue_id, 'none'),"
            " queue_visits_count, agent_connections_count,"
            " coalesce(wait_seconds, 0), coalesce(talk_seconds, 0), coalesce(hold_seconds, 0),"
            " coalesce(acw_seconds, 0) from marts.fct_calls where source = %(source)s",
            f"{world}_contacts",
        ),
    )  # fmt: skip


def test_queue_visits(marts: psycopg.Connection, world: str, visits: list[Row]) -> None:
    same(
        chosen(
            visits, "call_id", "visit_number", "business_day", "queue_id", "agent_id", "outcome",
            "abandon_stage", "entered_at", "left_at", "wait_seconds", "ring_seconds",
        ),
        asked(
            marts,
            "select call_id, visit_number, business_day, queue_id, nullif(agent_id, 'none'),"
            " outcome, abandon_stage, to_char(entered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(left_at, 'YYYY-MM-DD HH24:MI:SS'), wait_seconds, ring_seconds"
            " from marts.fct_queue_visits where source = %(source)s",
            f"{world}_contacts",
        ),
    )  # fmt: skip


def test_agent_connections(marts: psycopg.Connection, world: str, connections: list[Row]) -> None:
    same(
        chosen(
            connections, "call_id", "connection_number", "business_day", "queue_id", "agent_id",
            "team_id", "agent_region_code", "transfer_type", "connected_at", "ended_at",
            "talk_seconds", "hold_seconds", "acw_seconds",
        ),
        asked(
            marts,
            "select call_id, connection_number, business_day, nullif(queue_id, 'none'), agent_id,"
            " team_id, region_code, transfer_type,"
            " to_char(connected_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), talk_seconds, hold_seconds, acw_seconds"
            " from marts.fct_agent_connections where source = %(source)s",
            f"{world}_contacts",
        ),
    )  # fmt: skip


def test_self_service_of_calls_that_went_on(
    marts: psycopg.Connection, world: str, calls: list[Row], truth: Path
) -> None:
    """Of others the record does not tell self-service from the message after it."""
    told = [
        row for row in calls
        if row["channel"] != "callback" and (row["visits"] != "0" or row["outcome"] == "contained")
    ]  # fmt: skip
    wanted = {row["call_id"]: int(row["ivr_seconds"]) for row in told}
    found = {
        call: int(seconds or 0)
        for call, seconds in asked(
            marts,
            "select call_id, ivr_seconds from marts.fct_calls where source = %(source)s",
            f"{world}_contacts",
        )
    }
    assert len(wanted) > 500
    assert {call: found[call] for call in wanted} == wanted


def test_surveys(
    marts: psycopg.Connection, world: str, contacts: dict[str, list[Row]], truth: Path
) -> None:
    rows = table(truth / "surveys.csv")
    for row in rows:
        row["call_id"] = contacts[row["call_id"]][0]["contact_id"]
    same(
        chosen(
            rows, "call_id", "business_day", "survey_type", "channel", "queue_id", "agent_id",
            "score", "offered_at", "answered_at",
        ),
        asked(
            marts,
            "select call_id, business_day, survey_type, channel, nullif(queue_id, 'none'),"
            " nullif(agent_id, 'none'), score, to_char(offered_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(answered_at, 'YYYY-MM-DD HH24:MI:SS')"
            " from marts.fct_survey_responses where source = %(source)s",
            f"{world}_contacts",
        ),
    )  # fmt: skip


Interval = tuple[str, str, str, str, datetime, datetime]


@pytest.fixture
def states(truth: Path, contacts: dict[str, list[Row]]) -> list[Interval]:
    """The truth's states cut at midnights; what a snapshot shows alike is one interval."""
    found: list[Interval] = []
    rows = table(truth / "agent_states.csv")
    for row in sorted(rows, key=lambda row: (row["agent_id"], row["started_at"])):
        state = "ring" if row["state"] == "consult" else row["state"]
        call = contacts[row["call_id"]][0]["contact_id"] if row["call_id"] else ""
        start, end = map(datetime.fromisoformat, (row["started_at"], row["ended_at"]))
        while start < end:
            until = min(end, datetime.combine(start + timedelta(days=1), time()))
            found.append((row["agent_id"], state, REASONS[row["reason"]], call, start, until))
            start = until
    joined: list[Interval] = []
    for piece in found:
        before = joined[-1] if joined else None
        midnight = datetime.combine(piece[4], time())
        if before and before[:4] == piece[:4] and before[5] == piece[4] != midnight:
            joined[-1] = (*before[:5], piece[5])
        else:
            joined.append(piece)
    return joined


def test_agent_states(marts: psycopg.Connection, world: str, states: list[Interval]) -> None:
    rows = marts.execute(
        "select agent_id, state, coalesce(reason, ''), coalesce(call_id, ''),"
        " started_at at time zone 'Asia/Shanghai', ended_at at time zone 'Asia/Shanghai'"
        " from candidate.int_agent_states__unioned where source = %s",
        [f"{world}_contacts"],
    ).fetchall()
    same(sorted(states), sorted(rows))
    assert {row[1] for row in rows} == set(STATES)


def test_states_fill_the_time_logged_in(marts: psycopg.Connection, world: str, truth: Path) -> None:
    same(
        chosen(table(truth / "agent_time_daily.csv"), "business_day", "agent_id", "login_seconds"),
        asked(
            marts,
            "select business_day, agent_id, extract(epoch from sum(ended_at - started_at))"
            " from candidate.int_agent_states__unioned where source = %(source)s group by 1, 2",
            f"{world}_contacts",
        ),
    )
    overlaps = warehouse.one(
        marts,
        "select count(*) from (select started_at < lag(ended_at) over ("
        "partition by source, agent_id order by started_at) as is_overlap"
        " from candidate.int_agent_states__unioned) as s where is_overlap",
    )
    assert overlaps == (0,)


def test_the_differences_are_those_that_were_injected(
    marts: psycopg.Connection, landed: dict[str, Landed]
) -> None:
    limits = json.loads((landed["dirty"].folder / "truth/connect_limits.json").read_text())
    injected: dict[str, set[str]] = defaultdict(set)
    for entry in limits["dirt"]:
        if "contact_id" in entry:
            injected[entry["kind"]].add(entry["contact_id"])
    old = {
        contact
        for (contact,) in marts.execute(
            "select contact_id from staging.amazon_connect_contacts"
            " where source = 'dirty_contacts' and superseded_by is not null"
        )
    }
    assert old == injected["older_version"] | injected["older_version_last"]
    assert injected["older_version_last"]
    unknown = {
        contact
        for (contact,) in marts.execute(
            "select contact_id from staging.amazon_connect_contacts"
            " where source = 'dirty_contacts' and other_fields ? 'QualityPreview'"
        )
    }
    assert unknown == injected["unknown_field"]
    assert (
        warehouse.one(
            marts,
            "select count(*) from staging.amazon_connect_contacts"
            " where source = 'clean_contacts' and superseded_by is not null",
        )[0]
        == 0
    )


def test_no_number_is_staged_in_clear(marts: psycopg.Connection, landed: dict[str, Landed]) -> None:
    row = warehouse.one(
        marts,
        "select count(*), count(caller_token), count(*) filter ("
        "where attributes::text || other_fields::text ~ '[0-9]{7}') "
        "from staging.amazon_connect_contacts",
    )
    assert row[0] > 2 * 16 * 200
    assert row[1] > 0.9 * row[0]
    assert row[2] == 0


def test_a_day_alone_gives_what_all_days_together_gave(
    marts: psycopg.Connection, settings: Settings
) -> None:
    """Nothing of a day depends on which others are built with it."""
    day = START + timedelta(days=8)
    statement = "select to_jsonb(s)::text from candidate.{} as s where business_day = %s order by 1"
    relations = ("int_agent_states__unioned", "int_agent_offers__unioned")
    together = [marts.execute(statement.format(r).encode(), [day]).fetchall() for r in relations]
    assert all(together)
    marts.commit()
    transform.mark(settings, [day], "test")
    outcome = transform.drain(settings, lambda _line: None)
    assert [(b.inserted_rows, b.deleted_rows) for b in outcome.builds] == [(0, 0)]
    alone = [marts.execute(statement.format(r).encode(), [day]).fetchall() for r in relations]
    assert alone == together
