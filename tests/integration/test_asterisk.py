"""Queue logs worked by hand, from the file to the metrics; and that files may come in any way."""

from __future__ import annotations

import datetime
import gzip
import random
import zoneinfo
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql

from callhouse import landing, semantic, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "asterisk"
SCENARIOS: list[dict[str, Any]] = yaml.safe_load((FIXTURES / "scenarios.yaml").read_text("utf-8"))
NAMES = [scenario["scenario"] for scenario in SCENARIOS]
FEED = "asterisk_queue_log"
BERLIN = "berlin_queue_log"
SHANGHAI_ZONE = "Asia/Shanghai"
DAY = datetime.date(2025, 6, 3)
NO_ONE = ("NONE", "REALTIME", "MANAGER")
CALLER = "13800138"
# What the facts count, by the scenario's word for it.
COUNTS = {
    "offered": "sum(calls_offered)",
    "answered": "sum(calls_answered)",
    "abandoned": "sum(calls_abandoned)",
    "timeout": "count(*) filter (where outcome = 'timeout')",
    "exit_key": "count(*) filter (where outcome = 'exit_key')",
    "full": "count(*) filter (where outcome = 'overflow_full')",
    "closed": "count(*) filter (where outcome = 'closed')",
    "diverted": "count(*) filter (where outcome = 'overflow_diverted')",
    "incomplete": "count(*) filter (where outcome = 'incomplete')",
    # Who was refused never waited; who left had.
    "join_empty": "count(*) filter (where outcome = 'overflow_empty' and wait_seconds is null)",
    "leave_empty": "count(*) filter (where outcome = 'overflow_empty' and wait_seconds >= 0)",
}
RATES = {"average_wait": "asa", "answered_rate": "answer_rate", "service_level": "service_level"}


def lines_of(scenario: dict[str, Any]) -> list[str]:
    """The scenario's log with epochs, and its name before its ids."""
    zone = zoneinfo.ZoneInfo(scenario.get("zone", SHANGHAI_ZONE))
    lines = []
    for line in scenario["log"].splitlines():
        time, call, queue, agent, rest = line.split("|", 4)
        if "T" in time:
            moment = datetime.datetime.fromisoformat(time)
        else:
            moment = datetime.datetime.combine(DAY, datetime.time.fromisoformat(time), zone)
        epoch = f"{moment.timestamp():.6f}".rstrip("0").rstrip(".")
        ids = [i if i in NO_ONE else f"{scenario['scenario']}.{i}" for i in (call, queue, agent)]
        lines.append("|".join([epoch, *ids, rest]))
    return lines


@pytest.fixture(scope="module")
def logs() -> dict[str, list[str]]:
    """The lines of each feed."""
    found: dict[str, list[str]] = {FEED: [], BERLIN: []}
    for scenario in SCENARIOS:
        found[BERLIN if "zone" in scenario else FEED] += lines_of(scenario)
    return found


@pytest.fixture(scope="module")
def results(
    settings: Settings,
    cluster: postgres.Cluster,
    logs: dict[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[landing.UnitResult]:
    """Land all scenarios, build, audit and publish them at once."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / f"{BERLIN}.yaml").write_text(
        f"feed: {BERLIN}\nvendor: asterisk\nlabel: Berlin\ntime_zone: Europe/Berlin\ncountry: DE\n"
    )
    folder = tmp_path_factory.mktemp("logs")
    landed = []
    for feed, lines in logs.items():
        path = folder / f"{feed}.log"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        landed += landing.land(settings, feed, [path])
    transform.prepare(settings, lambda _line: None)
    outcome = transform.drain(settings, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)
    return landed


@pytest.fixture(scope="module")
def catalogue(settings: Settings, results: list[landing.UnitResult]) -> semantic.Catalogue:
    return semantic.load(settings)


@pytest.fixture
def marts(settings: Settings, results: list[landing.UnitResult]) -> Iterator[psycopg.Connection]:
    with warehouse.connect(settings) as connection:
        yield connection


def number(value: Any) -> Any:
    return float(value) if isinstance(value, (Decimal, int)) else value


def test_there_are_enough_scenarios() -> None:
    assert len(NAMES) >= 40
    assert len(set(NAMES)) == len(NAMES)


def test_every_line_is_accounted_for(
    results: list[landing.UnitResult], logs: dict[str, list[str]]
) -> None:
    for result in results:
        assert result.status == "landed"
        assert result.read == len(logs[result.source])
        assert result.read == result.staged + result.quarantined + result.duplicates
        assert result.quarantined == 0
    assert sum(result.duplicates for result in results) == 3  # of scenario lines_twice


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_queues(
    scenario: dict[str, Any], marts: psycopg.Connection, catalogue: semantic.Catalogue
) -> None:
    name = scenario["scenario"]
    columns = ", ".join(COUNTS.values())
    found = {
        row[0].removeprefix(f"{name}."): dict(zip(COUNTS, map(number, row[1:]), strict=True))
        for row in marts.execute(
            f"select queue_id, {columns} from marts.fct_queue_visits "
            "where call_id like %s group by queue_id".encode(),
            [f"{name}.%"],
        )
    }
    transfers: dict[str, int] = dict(
        marts.execute(
            "select queue_id, count(transfer_type) from marts.fct_agent_connections "
            "where call_id like %s group by queue_id",
            [f"{name}.%"],
        ).fetchall()
    )
    assert found.keys() == scenario["queues"].keys()
    for queue, expected in scenario["queues"].items():
        counts = {word: expected.get(word, 0) for word in COUNTS}
        assert found[queue] == counts, queue
        assert transfers.get(f"{name}.{queue}", 0) == expected.get("transferred", 0)
        for word in RATES.keys() & expected.keys():
            metric = catalogue.metrics[RATES[word]]
            value = warehouse.one(
                marts,
                f"select {metric.expression} from marts.{metric.relation} as relation "
                "where queue_id = %s",
                [f"{name}.{queue}"],
            )[0]
            assert number(value) == expected[word], (queue, word)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_agents(scenario: dict[str, Any], marts: psycopg.Connection) -> None:
    name = scenario["scenario"]
    found = {
        agent.removeprefix(f"{name}."): number(talk)
        for agent, talk in marts.execute(
            "select agent_id, sum(talk_seconds) from marts.fct_agent_connections "
            "where call_id like %s group by agent_id",
            [f"{name}.%"],
        )
    }
    assert found == scenario.get("talk", {})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_calls(scenario: dict[str, Any], marts: psycopg.Connection) -> None:
    name = scenario["scenario"]
    in_log = {line.split("|")[1] for line in lines_of(scenario)} - set(NO_ONE)
    found = {
        row[0]
        for row in marts.execute(
            "select call_id from marts.fct_calls where call_id like %s", [f"{name}.%"]
        )
    }
    # Of these only lines that make no call are known.
    strangers = {"events_without_a_call.c1", "unknown_events_are_kept.c2"}
    assert found == in_log - strangers
    for call, expected in scenario.get("calls", {}).items():
        for column, wanted in expected.items():
            value = warehouse.one(
                marts,
                sql.SQL("select {} from marts.fct_calls where call_id = %s").format(
                    sql.Identifier(column)
                ),
                [f"{name}.{call}"],
            )[0]
            if column in ("queue_id", "agent_id"):
                value = value.removeprefix(f"{name}.")
            assert number(value) == number(wanted), (call, column)


def test_no_number_is_staged_in_clear(marts: psycopg.Connection) -> None:
    found = marts.execute(
        "select count(*), count(*) filter (where caller_token is not null), "
        "count(*) filter (where e::text like %s or e::text like '%%30123456%%'), "
        "count(*) filter (where e::text like '%%desk%%') from staging.asterisk_events as e",
        [f"%{CALLER}%"],
    ).fetchone()
    assert found is not None
    assert found[0] > 100
    assert found[1] > 40
    assert found[2:] == (0, 0)


def test_events_without_a_call_stand_on_their_own_day(marts: psycopg.Connection) -> None:
    rows = marts.execute(
        "select event, call_id, business_day, began_at = event_at from staging.asterisk_events "
        "where reported_call_id in ('NONE', 'REALTIME', 'MANAGER') "
        "or event in ('AGENTLOGIN', 'AGENTLOGOFF')"
    ).fetchall()
    assert len(rows) >= 9
    assert {row[1:] for row in rows} == {(None, DAY, True)}


# ------------------------------------------------------------------------------ any way of coming
FACTS = (
    """
    select source, call_id, visit_number, queue_id, agent_id, outcome, abandon_stage,
        wait_seconds, ring_seconds, business_day, entered_at, left_at
    from intake.stg_asterisk__queue_visits
    """,
    """
    select source, call_id, connection_number, queue_id, agent_id, transfer_type, ring_seconds,
        talk_seconds, business_day, connected_at, ended_at
    from intake.stg_asterisk__agent_connections
    """,
    """
    select source, call_id, caller_token, hotline_id, hangup_party, outcome, abandon_stage,
        data_issues, business_day, arrived_at, ended_at
    from intake.stg_asterisk__calls
    """,
    """
    select call_id, business_day, first_event_at, arrived_at from staging.asterisk_calls
    """,
    """
    select row_hash, business_day, caller_token, data1 from staging.asterisk_events
    """,
)


@pytest.fixture
def emptied(settings: Settings, results: list[landing.UnitResult]) -> Iterator[Settings]:
    """The warehouse with nothing landed."""
    empty(settings)
    yield settings
    empty(settings)


def empty(settings: Settings) -> None:
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "truncate staging.asterisk_events, staging.asterisk_calls, staging.members, "
            "pii.callers, ops.units cascade"
        )
        connection.execute("delete from ops.dirty_marks")
        connection.execute("update ops.sources set newest_event_at = null")


def land(settings: Settings, *files: Path) -> list[landing.UnitResult]:
    found = landing.land(settings, FEED, files)
    for result in found:
        assert result.status in ("landed", "already_landed"), result.reason
        assert result.read == result.staged + result.quarantined + result.duplicates
    return found


def facts(settings: Settings) -> list[list[tuple[Any, ...]]]:
    with warehouse.connect(settings) as connection:
        found = [sorted(connection.execute(query.encode()).fetchall(), key=repr) for query in FACTS]
        # The ledger by day agrees with the rows, whatever was moved.
        ledger = "select unit_id, business_day, staged_rows from ops.unit_days order by 1, 2"
        staged = (
            "select unit_id, business_day, count(*) from staging.asterisk_events "
            "group by unit_id, business_day order by 1, 2"
        )
        assert connection.execute(ledger).fetchall() == connection.execute(staged).fetchall()
    return found


@pytest.fixture
def whole(
    emptied: Settings, logs: dict[str, list[str]], tmp_path: Path
) -> list[list[tuple[Any, ...]]]:
    """What one file with everything gives."""
    path = tmp_path / "whole"
    path.write_text("\n".join(logs[FEED]) + "\n")
    land(emptied, path)
    found = facts(emptied)
    assert all(found)
    empty(emptied)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_any_split_any_order_any_repetition(
    seed: int,
    emptied: Settings,
    whole: list[list[tuple[Any, ...]]],
    logs: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    chance = random.Random(seed)
    # Lines of one second whose durations contradict their times are told apart by the file's order
    # alone, so this scenario comes in one piece.
    lines = [line for line in logs[FEED] if "everything_in_one_second" not in line]
    rest = [line for line in logs[FEED] if "everything_in_one_second" in line]
    cuts = sorted(chance.sample(range(1, len(lines)), chance.randint(1, 7)))
    bounds = list(zip([0, *cuts], [*cuts, len(lines)], strict=True))
    pieces = [lines[start:end] for start, end in bounds]
    pieces += [lines[chance.randrange(len(lines)) :] for _ in range(2)]  # overlapping rotations
    pieces.append(chance.choice(pieces))  # the very same content
    pieces.append(rest)
    chance.shuffle(pieces)
    files = []
    for number_of_piece, piece in enumerate(pieces):
        content = ("\n".join(piece) + "\n").encode()
        path = tmp_path / f"queue_log.{number_of_piece}"
        if chance.random() < 0.4:
            path, content = tmp_path / f"{path.name}.gz", gzip.compress(content)
        path.write_bytes(content)
        files.append(path)
    land(emptied, *files)
    for expected, found in zip(whole, facts(emptied), strict=True):
        assert found == expected


def test_every_line_in_a_file_of_its_own(emptied: Settings, tmp_path: Path) -> None:
    """The hardest split: also lines of one second come from different files, last ones first."""
    names = (
        "abandoned_at_once", "leave_empty_is_one_departure", "two_queues_in_one_call",
        "same_queue_twice", "transferred_into_another_queue", "full_then_another_queue",
        "second_end_after_a_transfer", "lost_entry_after_an_ended_visit", "after_midnight",
    )  # fmt: skip
    chosen = [scenario for scenario in SCENARIOS if scenario["scenario"] in names]
    assert len(chosen) == len(names)
    lines = [line for scenario in chosen for line in lines_of(scenario)]
    path = tmp_path / "whole"
    path.write_text("\n".join(lines) + "\n")
    land(emptied, path)
    whole = facts(emptied)
    empty(emptied)
    for position, line in enumerate(reversed(lines)):
        path = tmp_path / f"queue_log.{position}"
        path.write_text(line + "\n")
        land(emptied, path)
    for expected, found in zip(whole, facts(emptied), strict=True):
        assert found == expected


def test_an_earlier_event_moves_its_call_and_marks_both_days(
    emptied: Settings, tmp_path: Path
) -> None:
    midnight = int(
        datetime.datetime(2025, 8, 4, tzinfo=zoneinfo.ZoneInfo(SHANGHAI_ZONE)).timestamp()
    )
    late, early, again = (tmp_path / name for name in ("late", "early", "again"))
    late.write_text(
        f"{midnight + 5}|c1|q|SIP/1|CONNECT|0|1.1|2\n"
        f"{midnight + 65}|c1|q|SIP/1|COMPLETEAGENT|0|60|1\n"
    )
    early.write_text(f"{midnight - 5}|c1|q|NONE|ENTERQUEUE||13800138000|1\n")
    again.write_text(f"{midnight + 70}|c1|q|SIP/1|WRAPUPSTART|30\n" + late.read_text())
    assert land(emptied, late)[0].first_day == datetime.date(2025, 8, 4)
    with warehouse.connect(emptied) as connection:
        connection.execute("delete from ops.dirty_marks")
    land(emptied, early)
    days = "select distinct business_day from ops.dirty_marks order by 1"
    where = "select distinct business_day, count(*) over () from staging.asterisk_events"
    with warehouse.connect(emptied) as connection:
        both = [(datetime.date(2025, 8, 3),), (datetime.date(2025, 8, 4),)]
        # A log's lines tell of agents too, who may have been there since the day before.
        three = [(datetime.date(2025, 8, 2),), *both]
        assert connection.execute(days).fetchall() == three
        assert connection.execute(where.encode()).fetchall() == [(datetime.date(2025, 8, 3), 3)]
        connection.execute("delete from ops.dirty_marks")
        unit_days = "select distinct first_day, last_day from ops.units"
        assert connection.execute(unit_days).fetchall() == [(datetime.date(2025, 8, 3),) * 2]
    # Lines that are staged on the day before are known, though their own time is of this day.
    result = land(emptied, again)[0]
    assert (result.duplicates, result.staged) == (2, 1)
    with warehouse.connect(emptied) as connection:
        assert connection.execute(days).fetchall() == three
        assert connection.execute(where.encode()).fetchall() == [(datetime.date(2025, 8, 3), 4)]
    facts(emptied)


def test_days_are_marked_as_far_as_their_agents_reach(emptied: Settings, tmp_path: Path) -> None:
    """The newest event is the end of what is open: its day is built again when it moves."""

    def marked(day: int, hour: int) -> list[int]:
        zone = zoneinfo.ZoneInfo(SHANGHAI_ZONE)
        at = int(datetime.datetime(2025, 8, day, hour, tzinfo=zone).timestamp())
        path = tmp_path / f"queue_log.{day}.{hour}"
        path.write_text(f"{at}|NONE|NONE|Agent/1|PAUSEALL|\n")
        with warehouse.connect(emptied) as connection:
            connection.execute("delete from ops.dirty_marks")
        land(emptied, path)
        with warehouse.connect(emptied) as connection:
            found = connection.execute("select business_day from ops.dirty_marks order by 1")
            return [row[0].day for row in found]

    assert marked(4, 10) == [3, 4]
    assert marked(4, 12) == [3, 4]
    assert marked(9, 12) == [4, 5, 8, 9]
    assert marked(6, 12) == [5, 6, 7]
    with warehouse.connect(emptied) as connection:
        newest = "select newest_event_at from ops.sources where source = %s"
        assert warehouse.one(connection, newest, [FEED])[0] == datetime.datetime(
            2025, 8, 9, 4, tzinfo=datetime.UTC
        )


def test_what_is_no_event_goes_to_quarantine(emptied: Settings, tmp_path: Path) -> None:
    path = tmp_path / "queue_log"
    path.write_bytes(
        b"1748908800|c1|q|NONE|ENTERQUEUE||13800138000|1\r\n"
        b"\r\n"
        b"1748908801|c1|q\n"
        b"yesterday|c1|q|NONE|ABANDON|1|1|5\n"
        b"1748908802|c1|q|NONE||1|1|5\n"
        b"99999999999|c1|q|NONE|ABANDON|1|1|5\n"
        b"1748908803|c1|q|NONE|ABA\0NDON|1|1|5\n"
        b"1748908805|c1|q|NONE|ABANDON|1|1"
    )
    result = land(emptied, path)[0]
    assert (result.read, result.staged, result.quarantined) == (7, 1, 6)
    assert "1 blank lines skipped" in result.notes
    with warehouse.connect(emptied) as connection:
        rows = connection.execute(
            "select line_number, reason_code, preview from ops.quarantine order by line_number"
        ).fetchall()
    assert [row[:2] for row in rows] == [
        (3, "column_count"), (4, "unreadable_time"), (5, "unreadable_event"),
        (6, "implausible_day"), (7, "nul_byte"), (8, "cut_off"),
    ]  # fmt: skip
    assert "1748908802" not in rows[2][2]


def test_a_file_whose_lines_all_have_the_same_issue(emptied: Settings, tmp_path: Path) -> None:
    """Issues are arrays: as a text that is the same in every row they stopped the whole file."""
    path = tmp_path / "queue_log"
    path.write_text("1748908800|NONE|NONE|A/1|MOOD|1\n1748908801|NONE|NONE|A/1|MOOD|2\n")
    assert land(emptied, path)[0].staged == 2
    with warehouse.connect(emptied) as connection:
        found = connection.execute("select distinct data_issues from staging.asterisk_events")
        assert found.fetchall() == [(["unknown_event:MOOD"],)]


def test_a_growing_log_is_landed_again_and_again(
    emptied: Settings, logs: dict[str, list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "queue_log"
    seen = 0
    for end in (10, 25, 60):
        path.write_text("\n".join(logs[FEED][:end]) + "\n")
        result = land(emptied, path)[0]
        assert result.duplicates >= seen
        seen += result.staged
    assert seen == len(set(logs[FEED][:60]))
