"""The simulator's exchange as queue log, call detail records and channel events, against its truth.

What the formats cannot say is listed here, case by case; everything else must be equal.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import re
from collections import Counter
from collections.abc import Container, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration import transfers

from callhouse import landing, quality, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.simulate import channels

SOURCE = "asterisk_queue_log"
KINDS = ("queue_log", "cdr", "cel")
START, DAYS, CALLS_PER_DAY = datetime.date(2026, 10, 24), 5, 300
FEED = """
feed: asterisk_{kind}
vendor: asterisk
records: {kind}
exchange: asterisk_queue_log
hotlines: "400[0-9]{{7}}"
agent: "Agent/{{party}}"
"""
TABLES = "staging.asterisk_events, staging.asterisk_cdr_records, staging.asterisk_cel_events"
CALLS = """
select call_id, business_day::text, to_char(arrived_at, 'YYYY-MM-DD HH24:MI:SS'),
    to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), hotline_id, caller_region_code, channel, outcome,
    abandon_stage, hangup_party, ivr_seconds, data_issues
from intake.stg_asterisk__calls
"""
COLUMNS = (
    "business_day", "arrived_at", "ended_at", "hotline_id", "region_code", "channel", "outcome",
    "abandon_stage", "hangup_party", "ivr_seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def exchange(settings: Settings, cluster: postgres.Cluster) -> Settings:
    """An instance whose feeds know how the simulator numbers things, with its views."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    for kind in ("cdr", "cel"):
        path = settings.feeds_directory / f"asterisk_{kind}.yaml"
        path.write_text(FEED.format(kind=kind), encoding="utf-8")
    transform.prepare(settings, lambda _line: None)
    transform.dbt.run(
        settings, "run", "--select", "path:models/staging", report=transform.dbt.quiet
    )
    return settings


@pytest.fixture(scope="module")
def worlds(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, Path]:
    """The same world, its files clean and dirty."""
    folders = {}
    for name in ("clean", "dirty"):
        folders[name] = tmp_path_factory.mktemp(name)
        simulate.write(
            folders[name], seed=7, start=START, days=DAYS,
            calls_per_day=pytestconfig.getoption("calls_per_day") or CALLS_PER_DAY,
            dirt=name == "dirty", formats=KINDS,
        )  # fmt: skip
    return folders


@pytest.fixture(scope="module")
def sample(worlds: dict[str, Path]) -> Path:
    return worlds["clean"]


@pytest.fixture(scope="module")
def dirty_sample(worlds: dict[str, Path]) -> Path:
    return worlds["dirty"]


def empty(settings: Settings) -> None:
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            f"truncate {TABLES}, staging.asterisk_calls, staging.members, pii.callers, "
            "ops.units cascade".encode()
        )
        connection.execute("delete from ops.dirty_marks")


def land(settings: Settings, folder: Path, *kinds: str) -> list[landing.UnitResult]:
    found = []
    for kind in kinds:
        found += landing.land(settings, f"asterisk_{kind}", [folder / kind])
    for result in found:
        assert result.status in ("landed", "already_landed"), result.reason
        assert result.read == result.staged + result.quarantined + result.duplicates
        assert result.source == SOURCE
    return found


def asked(settings: Settings, query: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        return connection.execute(query.encode()).fetchall()


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    with (folder / "truth" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ids_of(folder: Path) -> dict[str, str]:
    """The id that the exchange gave each call."""
    return {row["call_id"]: row["linked_id"] for row in rows_of(folder, "cel_calls")}


def truth_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The truth of each call, by the id that the exchange gave it."""
    ids = ids_of(folder)
    return {ids[row["call_id"]]: row for row in rows_of(folder, "calls")}


def differences(
    settings: Settings, folder: Path, query: str = CALLS, damaged: Container[str] = ()
) -> Counter[tuple[Any, ...]]:
    """How often (column, outcome in truth, there, here) differ; all calls are there."""
    truth = truth_of(folder)
    found = {row[0]: row[1:] for row in asked(settings, query)}
    assert found.keys() == truth.keys()
    counted: Counter[tuple[Any, ...]] = Counter()
    for call, row in truth.items():
        if call in damaged:
            continue
        expected = {column: row.get(column) or None for column in COLUMNS}
        expected["hotline_id"] = channels.EXTENSIONS[row["hotline_id"]]
        expected["ivr_seconds"] = Decimal(row["ivr_seconds"] or 0)
        here = dict(zip(COLUMNS, found[call], strict=False))
        here["region_code"] = here["region_code"] or "unknown"
        # The fraction of a second only keeps the simulator's events in order.
        here["ivr_seconds"] = Decimal(round(here["ivr_seconds"] or 0))
        for column in COLUMNS:
            if here[column] != expected[column]:
                shown = (None, None) if column in ("arrived_at", "ended_at", "ivr_seconds") else (
                    expected[column], here[column]
                )  # fmt: skip
                counted[column, row["outcome"], *shown] += 1
    return counted


# ------------------------------------------------------------------------------ limits
# (column, outcome, there, here): what the formats do not say. `...` fits everything.
SELF_SERVICE = [  # who hangs up in a menu has got what he wanted, or not
    ("outcome", "abandoned", "abandoned", "contained"),
    ("abandon_stage", "abandoned", "ivr", None),
    ("abandon_stage", "abandoned", "bot", None),
]
MESSAGES = [  # whether a message was left
    ("outcome", "abandoned", "abandoned", "voicemail"),
    ("abandon_stage", ..., "voicemail", None),
]
QUEUE_LOG = [
    ("abandon_stage", ..., "ring", "queue"),
    ("outcome", "callback_requested", "callback_requested", "exit_key"),
    ("outcome", "transferred", "transferred", "overflow_empty"),
]
# A few made-up numbers look like a special service's, which has no province.
UNPLACED = [("region_code", ..., ..., "CN")]
NO_HOTLINE = [("hotline_id", ..., ..., None)]  # once in the queue, dst is the queue
NO_PARTY = [("hangup_party", ..., ..., None)]  # no CDR says who hung up
QUEUE_UNKNOWN = [  # how it ended in a queue
    ("outcome", ..., "abandoned", "incomplete"),
    ("outcome", "closed", "closed", "incomplete"),
    ("outcome", "callback_requested", "callback_requested", "incomplete"),
    ("outcome", "overflow_empty", "overflow_empty", "incomplete"),
    ("outcome", "overflow_full", "overflow_full", "incomplete"),
    ("outcome", "overflow_diverted", "overflow_diverted", "incomplete"),
    ("abandon_stage", ..., "queue", None),
    ("abandon_stage", ..., "ring", None),
]
CEL_QUEUE = [  # a key pressed, or a refusal announced, is not told
    ("outcome", "callback_requested", "callback_requested", "abandoned"),
    ("abandon_stage", "callback_requested", None, "queue"),
    ("channel", "closed", "human", "ivr"),
    ("channel", "overflow_empty", "human", "ivr"),
    ("channel", "overflow_full", "human", "ivr"),
    ("channel", "overflow_diverted", "human", "ivr"),
]
LIMITS: dict[tuple[str, ...], list[tuple[Any, ...]]] = {
    ("queue_log", "cdr", "cel"): SELF_SERVICE + MESSAGES + QUEUE_LOG,
    ("cel", "queue_log"): SELF_SERVICE + MESSAGES + QUEUE_LOG,
    ("cdr", "queue_log"): SELF_SERVICE + MESSAGES + QUEUE_LOG + NO_HOTLINE + NO_PARTY,
    ("cel", "cdr"): SELF_SERVICE + MESSAGES + QUEUE_LOG + QUEUE_UNKNOWN + CEL_QUEUE,
    ("cel",): SELF_SERVICE + MESSAGES + QUEUE_LOG + QUEUE_UNKNOWN + CEL_QUEUE,
    ("cdr",): SELF_SERVICE + MESSAGES + QUEUE_UNKNOWN + NO_HOTLINE + NO_PARTY
    + [("ivr_seconds", ..., ..., ...)],
}  # fmt: skip


def is_known(difference: tuple[Any, ...], limits: list[tuple[Any, ...]]) -> bool:
    return any(
        all(part is ... or part == own for part, own in zip(limit, difference, strict=True))
        for limit in (*limits, *UNPLACED)
    )


@pytest.mark.parametrize("kinds", LIMITS, ids=" ".join)
def test_calls_equal_the_truth(exchange: Settings, sample: Path, kinds: tuple[str, ...]) -> None:
    empty(exchange)
    land(exchange, sample, *kinds)
    found = differences(exchange, sample)
    unexplained = {key: count for key, count in found.items() if not is_known(key, LIMITS[kinds])}
    assert unexplained == {}
    # What nobody damaged does not contradict itself, and nothing is missing but the end of a visit
    # that the world itself left open.
    truth = truth_of(sample)
    issues = {row[0]: row[11] for row in asked(exchange, CALLS) if row[11]}
    assert {
        call: issue for call, issue in issues.items() if truth[call]["outcome"] != "incomplete"
    } == {}
    outcomes = Counter(row["outcome"] for row in truth.values())
    assert len(truth) > 1500
    assert outcomes["contained"] > 300
    assert outcomes["voicemail"] > 5
    # Calls that never reached a queue and of which nobody knows whether they were solved.
    assert found["outcome", "abandoned", "abandoned", "contained"] < outcomes["contained"] / 4


@pytest.mark.parametrize("kinds", [("queue_log", "cdr", "cel"), ("cel", "queue_log"), ("cel",)])
def test_connections_equal_the_truth(
    exchange: Settings, sample: Path, kinds: tuple[str, ...]
) -> None:
    """Colleagues who took over and call-backs too, which no queue log knows."""
    empty(exchange)
    land(exchange, sample, *kinds)
    expected = connections_of(sample)
    found = set(
        asked(
            exchange,
            "select call_id, connection_number, agent_id, transfer_type,"
            " to_char(connected_at, 'YYYY-MM-DD HH24:MI:SS'),"
            " to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), round(talk_seconds)::integer"
            " from intake.stg_asterisk__agent_connections",
        )
    )
    assert len(expected) > 800
    assert found == expected


def connections_of(folder: Path) -> set[tuple[Any, ...]]:
    """The truth; the log calls a consultation an attended transfer and knows no hold."""
    ids = ids_of(folder)
    return {
        (
            ids[row["call_id"]], int(row["connection_number"]), f"Agent/{row['agent_id']}",
            "attended" if row["transfer_type"] == "consult" else row["transfer_type"] or None,
            row["connected_at"], row["ended_at"],
            int(row["talk_seconds"]) + int(row["hold_seconds"]),
        )
        for row in rows_of(folder, "connections")
    }  # fmt: skip


def visits_of(folder: Path) -> set[tuple[Any, ...]]:
    """The truth, in the words of the log.

    Who was refused never waited; of an incomplete visit the log has the entry alone.
    """
    told = {
        (row["call_id"], row["visit_number"]): row for row in rows_of(folder, "queue_log_visits")
    }
    visits = rows_of(folder, "visits")
    assert len(told) == len(visits)
    found = set()
    for row in visits:
        log = told[row["call_id"], row["visit_number"]]
        is_refused = log["outcome"] in REFUSALS and row["wait_seconds"] == "0"
        found.add((
            log["unique_id"], int(row["visit_number"]), row["business_day"], row["queue_id"],
            f"Agent/{row['agent_id']}" if row["agent_id"] else None, log["outcome"],
            "queue" if row["abandon_stage"] == "ring" else row["abandon_stage"] or None,
            row["entered_at"], row["left_at"] if log["wait_seconds"] else None,
            None if is_refused or not log["wait_seconds"] else int(log["wait_seconds"]),
            int(log["ring_seconds"]) if log["ring_seconds"] else None,
        ))  # fmt: skip
    return found


def test_steps_add_up_to_the_self_service(exchange: Settings, sample: Path) -> None:
    for kinds in (("cel",), ("cdr", "queue_log"), KINDS):
        empty(exchange)
        land(exchange, sample, *kinds)
        wrong = asked(
            exchange,
            "select calls.call_id, calls.ivr_seconds, steps.seconds"
            " from intake.stg_asterisk__calls as calls left join (select business_day, call_id,"
            " sum(step_seconds) as seconds, bool_or(outcome <> 'continued') as is_end"
            " from intake.stg_asterisk__ivr_steps group by business_day, call_id) as steps"
            " on calls.business_day = steps.business_day and calls.call_id = steps.call_id"
            " where coalesce(calls.ivr_seconds, 0) <> coalesce(steps.seconds, 0)"
            " or steps.is_end <> (calls.outcome = 'contained'"
            " or calls.abandon_stage in ('ivr', 'bot'))",
        )
        assert wrong == []
        [(steps,)] = asked(exchange, "select count(*) from intake.stg_asterisk__ivr_steps")
        assert steps > 1500


@pytest.mark.parametrize("relation", ["calls", "queue_visits", "agent_connections", "ivr_steps"])
def test_a_day_is_built_from_its_own_partitions(
    exchange: Settings, sample: Path, relation: str
) -> None:
    """Else the cost of a day would grow with history."""
    empty(exchange)
    land(exchange, sample, *KINDS)
    plan = "\n".join(
        row[0]
        for row in asked(
            exchange,
            f"explain select * from intake.stg_asterisk__{relation} "
            "where business_day in (date '2026-10-25', date '2026-10-26')",
        )
    )
    assert "_2026_10_25" in plan
    assert "_2026_10_26" in plan
    assert "_2026_10_24" not in plan
    assert "_2026_10_27" not in plan


def test_no_number_is_staged_in_clear(exchange: Settings, sample: Path) -> None:
    empty(exchange)
    land(exchange, sample, "cdr", "cel")
    with gzip.open(next((sample / "cdr").glob("*.gz")), "rt", encoding="utf-8") as file:
        numbers = {row[1] for row in csv.reader(file)}
    numbers -= {*channels.EXTENSIONS.values()}  # of the centre: they stand in clear
    numbers = {number for number in numbers if len(number) > 9 and number.isdigit()}
    assert len(numbers) > 100
    for table in TABLES.split(", ")[1:]:
        rows = asked(exchange, f"select r::text, caller_token is null from {table} as r")
        assert len(rows) > 1500
        text = "\n".join(row[0] for row in rows)
        assert [number for number in numbers if number in text] == []
        assert sum(not row[1] for row in rows) > 1000


# ------------------------------------------------------------------------------ dirt
def test_every_difference_of_the_dirty_files_is_explained(
    exchange: Settings, sample: Path, dirty_sample: Path
) -> None:
    empty(exchange)
    results = land(exchange, dirty_sample, *KINDS)
    notes = {
        kind: json.loads((dirty_sample / "truth" / f"{kind}_limits.json").read_text("utf-8"))[
            "dirt"
        ]
        for kind in KINDS
    }
    kinds = {kind: Counter(note["kind"] for note in notes[kind]) for kind in KINDS}
    assert kinds["cdr"]["sent_again"] > 0
    assert kinds["cel"]["missing_event"] > 0
    duplicates = Counter[str]()
    for result in results:
        duplicates[result.record] += result.duplicates
    assert duplicates["cdr"] == kinds["cdr"]["sent_again"]
    assert duplicates["cel"] == 0
    # A call of which something was lost may say less; of every other one all is as it was.
    touched = set()
    for kind in KINDS:
        for note in notes[kind]:
            text = str(note.get("text", ""))
            if note["kind"] in ("lost_in_batch", "missing_event", "missing_end",
                                "missing_after_crash"):  # fmt: skip
                touched |= {call for call in truth_of(dirty_sample) if call in text}
    found = {row[0]: row for row in asked(exchange, CALLS)}
    assert found.keys() == truth_of(dirty_sample).keys()
    empty(exchange)
    land(exchange, sample, *KINDS)
    without = {row[0]: row for row in asked(exchange, CALLS)}
    changed = {call: row[1:] for call, row in found.items() if row != without[call]}
    assert {call: row for call, row in changed.items() if call not in touched} == {}
    # Nothing is hidden: who lost a whole kind of record, or its end, says so.
    assert sum(bool(row[10]) for row in changed.values()) > 3


# ------------------------------------------------------------------------------ to the marts
PUBLISHED_CALLS = """
select call_id, business_day::text, to_char(arrived_at, 'YYYY-MM-DD HH24:MI:SS'),
    to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), hotline_id, region_code, channel, outcome,
    abandon_stage, hangup_party, ivr_seconds, data_issues
from marts.fct_calls
"""
PUBLISHED_VISITS = """
select call_id, visit_number, business_day::text, queue_id, nullif(agent_id, 'none'), outcome,
    abandon_stage, to_char(entered_at, 'YYYY-MM-DD HH24:MI:SS'),
    to_char(left_at, 'YYYY-MM-DD HH24:MI:SS'), wait_seconds::integer, ring_seconds::integer
from marts.fct_queue_visits
"""
PUBLISHED_CONNECTIONS = """
select call_id, connection_number, agent_id, transfer_type,
    to_char(connected_at, 'YYYY-MM-DD HH24:MI:SS'), to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'),
    round(talk_seconds)::integer
from marts.fct_agent_connections
"""
REFUSALS = ("closed", "overflow_full", "overflow_empty", "overflow_diverted")


def damaged_calls(folder: Path) -> set[str]:
    """Calls of which a line was lost, by the simulator's own notes."""
    calls = truth_of(folder).keys()
    found: set[str] = set()
    for kind in KINDS:
        limits = json.loads((folder / "truth" / f"{kind}_limits.json").read_text("utf-8"))
        for note in limits["dirt"]:
            if note["kind"].startswith(("missing", "lost")):
                found |= calls & set(re.findall(r"\d{10}\.\d+", note["text"]))
    return found


@pytest.mark.parametrize("world", ["clean", "dirty"])
def test_the_published_marts_are_the_truth(
    world: str, exchange: Settings, worlds: dict[str, Path]
) -> None:
    """Row by row; of calls of which a line was lost, and of no other, less may be known."""
    folder = worlds[world]
    empty(exchange)
    land(exchange, folder, *KINDS)
    outcome = transform.drain(exchange, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)
    damaged = damaged_calls(folder)
    assert bool(damaged) == (world == "dirty")
    truth = truth_of(folder)
    assert len(damaged) < len(truth) / 20
    found = differences(exchange, folder, PUBLISHED_CALLS, damaged)
    assert [key for key in found if not is_known(key, LIMITS[KINDS])] == []
    unplaced = sum(count for key, count in found.items() if key[0] == "region_code")
    assert unplaced <= len(truth) / 1000
    for query, expected in (
        (PUBLISHED_VISITS, visits_of(folder)),
        (PUBLISHED_CONNECTIONS, connections_of(folder)),
    ):
        rows = asked(exchange, query)
        assert len(rows) == len(set(rows))
        assert len(expected) > 800
        unequal = set(rows) ^ expected
        assert [row for row in sorted(unequal, key=repr) if row[0] not in damaged] == []
        # Nothing is made up: each visit and connection of a damaged call did happen.
        assert {row[:2] for row in rows} <= {row[:2] for row in expected}
    # Each transfer is followed to the end; of a damaged call it may be announced in vain.
    ((out, off),) = asked(
        exchange,
        "select sum(left_count)::int, sum(abs(left_count - right_count))::int "
        f"from bi.fct_day_balances where balance = '{transfers.NAME}'",
    )
    assert out > 50 and off <= len(damaged)
    if world == "clean":
        with warehouse.connect(exchange) as connection:
            counts = transfers.counted(connection, SOURCE)
        assert counts == {
            day: (announced, way, 0, 0)
            for day, (announced, way) in transfers.truth(folder / "truth").items()
        }


DAMAGE = {
    "no_number_in_clear_in_records": (
        24, ("update staging.asterisk_cdr_records set user_field = 'call 13812345678' "
        "where business_day = '2026-10-24' and sequence = (select min(sequence) "
        "from staging.asterisk_cdr_records where business_day = '2026-10-24')"),
    ),
    "ledger_and_staged_records_agree": (
        25, ("delete from staging.asterisk_cel_events where business_day = '2026-10-25' "
        "and event = 'LINKEDID_END' and call_id = (select min(call_id) "
        "from staging.asterisk_cel_events where business_day = '2026-10-25' "
        "and event = 'LINKEDID_END')"),
    ),
    "every_staged_call_is_a_fact_and_no_other": (
        26, ("delete from marts.fct_calls where call_key = (select min(call_key) "
        "from marts.fct_calls where business_day = '2026-10-26' and outcome = 'contained')"),
    ),
    "ledger_of_each_file_of_records_balances": (
        28, ("update ops.units set read_rows = read_rows + 1, staged_rows = staged_rows + 1 "
        "where record = 'cdr' and last_day = '2026-10-28'"),
    ),
    "records_stand_on_the_day_of_their_call": (
        27, ("update staging.asterisk_cdr_records set business_day = '2026-10-27' "
        "where business_day = '2026-10-28' and sequence = (select max(sequence) "
        "from staging.asterisk_cdr_records where business_day = '2026-10-28')"),
    ),
    "some_channels_come_from_outside": (
        27,
        (
            "with records as (update staging.asterisk_cdr_records set direction = 'internal' "
            "where business_day = '2026-10-27') update staging.asterisk_cel_events "
            "set direction = 'internal' where business_day = '2026-10-27'"
        ),
    ),
}  # fmt: skip


def found_by_the_audit(settings: Settings) -> dict[str, tuple[datetime.date, ...]]:
    results = quality.audit_published(settings).results
    return {r.expectation: r.failing_days for r in results if r.suite == "staging_asterisk"}


def test_the_audit_sees_what_was_damaged(exchange: Settings, dirty_sample: Path) -> None:
    """After the build above: each damage is seen on its day."""
    assert asked(exchange, "select count(*) > 1000 from marts.fct_calls") == [(True,)]
    before = found_by_the_audit(exchange)
    with warehouse.connect(exchange) as connection:
        connection.execute("set role callhouse_owner")
        for _, statement in DAMAGE.values():
            assert connection.execute(statement.encode()).rowcount > 0
    after = found_by_the_audit(exchange)
    for name, (day, _) in DAMAGE.items():
        assert before[name] == (), name
        assert datetime.date(2026, 10, day) in after[name], name


@pytest.fixture(scope="module", autouse=True)
def _nothing_left(exchange: Settings) -> Iterator[None]:
    yield
    empty(exchange)
