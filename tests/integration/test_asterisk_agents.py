"""What queue logs tell of agents, worked by hand; and that files and days may come in any way."""

from __future__ import annotations

import datetime
import random
import zoneinfo
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from callhouse import landing, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "asterisk"
SCENARIOS: list[dict[str, Any]] = yaml.safe_load((FIXTURES / "agents.yaml").read_text("utf-8"))
NAMES = [scenario["scenario"] for scenario in SCENARIOS]
SHANGHAI_ZONE = "Asia/Shanghai"
DAY = datetime.date(2025, 6, 3)
QUARTER = datetime.timedelta(minutes=15)
STATES = (
    "select agent_id, state, reason, call_id, queue_id, is_provisional, business_day, started_at, "
    "ended_at from candidate.int_agent_states__unioned where source = %s "
    "order by agent_id, started_at"
)
COLUMNS = (
    "agent_id", "state", "reason", "call_id", "queue_id", "is_provisional", "business_day",
    "started_at", "ended_at",
)  # fmt: skip

State = dict[str, Any]
Totals = dict[str, dict[str, Any]]


def feed(name: str) -> str:
    """A source of its own for each scenario: its newest event is the scenario's."""
    return f"a{NAMES.index(name):02}"


def zone_of(scenario: dict[str, Any]) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(scenario.get("zone", SHANGHAI_ZONE))


def lines_of(scenario: dict[str, Any]) -> list[str]:
    """The scenario's log with epochs."""
    lines = []
    for line in scenario["log"].splitlines():
        time, rest = line.split("|", 1)
        if "T" in time:
            moment = datetime.datetime.fromisoformat(time)
        else:
            moment = datetime.datetime.combine(
                DAY, datetime.time.fromisoformat(time), zone_of(scenario)
            )
        lines.append(f"{moment.timestamp():.0f}|{rest}")
    return lines


def states_of(settings: Settings, name: str) -> list[State]:
    with warehouse.connect(settings) as connection:
        rows = connection.execute(STATES.encode(), [feed(name)]).fetchall()
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def totals(states: list[State], start: Any = None, end: Any = None) -> Totals:
    """Seconds by agent and state, of the part between two instants; pauses by reason."""
    found: Totals = defaultdict(dict)
    for state in states:
        begun = max(state["started_at"], start) if start else state["started_at"]
        ended = min(state["ended_at"], end) if end else state["ended_at"]
        seconds = (ended - begun).total_seconds()
        if seconds <= 0:
            continue
        words = ["login"] + (["provisional"] if state["is_provisional"] else [])
        of_agent = found[state["agent_id"]]
        for word in (*words, *([] if state["state"] == "pause" else [state["state"]])):
            of_agent[word] = of_agent.get(word, 0) + seconds
        if state["state"] == "pause":
            reasons = of_agent.setdefault("pause", {})
            reason = state["reason"] or "none"
            reasons[reason] = reasons.get(reason, 0) + seconds
    return dict(found)


@pytest.fixture(scope="module")
def folder(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Feeds of all scenarios, and a place for their files."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    for scenario in SCENARIOS:
        name = feed(scenario["scenario"])
        (settings.feeds_directory / f"{name}.yaml").write_text(
            f"feed: {name}\nvendor: asterisk\ntime_zone: {zone_of(scenario).key}\ncountry: CN\n"
        )
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def built(settings: Settings, cluster: postgres.Cluster, folder: Path) -> Settings:
    """All scenarios landed, built, audited and published at once."""
    for scenario in SCENARIOS:
        land(settings, scenario["scenario"], folder, [lines_of(scenario)])
    transform.prepare(settings, lambda _line: None)
    outcome = transform.drain(settings, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}]
    return settings


def land(settings: Settings, name: str, folder: Path, pieces: list[list[str]]) -> None:
    """Land each piece as a file of its own."""
    files = [folder / f"{feed(name)}.{number}" for number in range(len(pieces))]
    for path, lines in zip(files, pieces, strict=True):
        path.write_text("\n".join(lines) + "\n")
    for result in landing.land(settings, feed(name), files):
        assert result.status in ("landed", "already_landed"), result.reason
        assert result.quarantined == 0


@pytest.fixture
def marts(built: Settings) -> Iterator[psycopg.Connection]:
    with warehouse.connect(built) as connection:
        yield connection


def test_there_are_enough_scenarios() -> None:
    assert len(NAMES) >= 60
    assert len(set(NAMES)) == len(NAMES)
    assert all({"agents", "days", "quarters"} & scenario.keys() for scenario in SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_seconds_in_each_state(scenario: dict[str, Any], built: Settings) -> None:
    states = states_of(built, scenario["scenario"])
    if "agents" in scenario:
        assert totals(states) == scenario["agents"]
    for day, expected in scenario.get("days", {}).items():
        of_day = [state for state in states if state["business_day"] == day]
        assert totals(of_day) == expected, day
    if "days" in scenario:
        assert {state["business_day"] for state in states} <= scenario["days"].keys()
    for quarter, expected in scenario.get("quarters", {}).items():
        start = datetime.datetime.fromisoformat(quarter)
        found = totals(states, start, start + QUARTER)
        assert found == expected, quarter


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_states_tile_the_login(scenario: dict[str, Any], built: Settings) -> None:
    zone = zone_of(scenario)
    last: dict[str, datetime.datetime] = {}
    for state in states_of(built, scenario["scenario"]):
        begun, ended = (state[word].astimezone(zone) for word in ("started_at", "ended_at"))
        assert begun.timestamp() < ended.timestamp()
        assert begun.date() == state["business_day"]
        # The end is not included: midnight is the end of the day before.
        assert (ended - datetime.timedelta(microseconds=1)).date() == state["business_day"]
        if state["agent_id"] in last:
            assert last[state["agent_id"]].timestamp() <= begun.timestamp()
        last[state["agent_id"]] = ended


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if scenario.keys() & {"offers", "after_call"}],
    ids=lambda scenario: scenario["scenario"],
)
def test_offers_and_after_call_work(scenario: dict[str, Any], marts: psycopg.Connection) -> None:
    source = feed(scenario["scenario"])
    if "offers" in scenario:
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for agent, outcome, count in marts.execute(
            "select agent_id, outcome, count(*) from candidate.int_agent_offers__unioned "
            "where source = %s group by agent_id, outcome",
            [source],
        ):
            found[agent][outcome] = count
        assert found == scenario["offers"]
    if "after_call" in scenario:
        seconds = marts.execute(
            "select call_id, acw_seconds::float from marts.fct_agent_connections "
            "where source = %s and acw_seconds > 0",
            [source],
        ).fetchall()
        assert dict(seconds) == scenario["after_call"]


def test_events_of_a_call_are_numbered_in_order(marts: psycopg.Connection) -> None:
    rows = marts.execute(
        "select event_number, event from candidate.int_call_events__unioned "
        "where source = %s and call_id = 'c1' order by event_number",
        [feed("wrapup")],
    ).fetchall()
    assert rows == [(1, "ENTERQUEUE"), (2, "CONNECT"), (3, "COMPLETEAGENT"), (4, "WRAPUPSTART")]


# ------------------------------------------------------------------------------ any way of coming
def build(settings: Settings) -> dict[str, list[State]]:
    """The states of the claimed days, by scenario."""
    dbt.run(settings, "run", "--select", "+int_agent_states__unioned", report=dbt.quiet)
    return {name: states_of(settings, name) for name in NAMES}


@pytest.fixture(scope="module")
def whole(built: Settings) -> dict[str, list[State]]:
    """What one file with everything gives, when all days are claimed at once."""
    transform.mark(built, None, "test")
    assert transform.claim(built) is not None
    found = build(built)
    assert sum(map(len, found.values())) > 150
    return found


@pytest.mark.parametrize("seed", range(2))
def test_any_split_any_order_any_repetition(
    seed: int, built: Settings, whole: dict[str, list[State]], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    with warehouse.connect(built) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "truncate staging.asterisk_events, staging.asterisk_calls, ops.units cascade"
        )
        connection.execute("update ops.sources set newest_event_at = null")
    for scenario in SCENARIOS:
        name, lines = scenario["scenario"], lines_of(scenario)
        pieces = [lines]
        if "whole" not in scenario:
            cuts = sorted(chance.sample(range(1, len(lines)), chance.randrange(len(lines))))
            bounds = zip([0, *cuts], [*cuts, len(lines)], strict=True)
            pieces = [lines[start:end] for start, end in bounds]
            pieces.append(lines[chance.randrange(len(lines)) :])  # overlapping rotations
            pieces.append(chance.choice(pieces))  # the very same content
        chance.shuffle(pieces)
        land(built, name, tmp_path, pieces)
    found = build(built)
    for name in NAMES:
        assert found[name] == whole[name], name


@pytest.mark.parametrize("day", [3, 4, 5])
def test_a_day_alone_is_the_day_among_others(
    day: int, built: Settings, whole: dict[str, list[State]]
) -> None:
    """What else is claimed with a day must not change it: only its neighbours are read."""
    date = datetime.date(2025, 6, day)
    with warehouse.connect(built) as connection:
        connection.execute("delete from ops.dirty_marks")
    transform.mark(built, [date], "test")
    assert transform.claim(built) is not None
    alone = build(built)
    assert any(alone.values())
    for name in NAMES:
        assert alone[name] == [s for s in whole[name] if s["business_day"] == date], name
