"""The simulator's own bookkeeping of its agents against what their queue logs tell."""

from __future__ import annotations

import csv
import datetime
import json
import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration import transfers

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

ZONE = zoneinfo.ZoneInfo("Asia/Shanghai")
START, DAYS, CALLS_PER_DAY = datetime.date(2026, 10, 24), 9, 700
CLEAN, DIRTY = "clean_queue_log", "dirty_queue_log"


class State(NamedTuple):
    """A state of an agent within one local day; local times."""

    agent: str
    day: str
    started_at: str
    ended_at: str
    state: str
    reason: str
    call: str


AgentDay = tuple[str, str]


@pytest.fixture(scope="module")
def truth(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Path:  # fmt: skip
    """Simulate the same world clean and dirty, land both, build and publish; the dirty truth."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    folder = Path()
    for name in (CLEAN, DIRTY):
        (settings.feeds_directory / f"{name}.yaml").write_text(
            f"feed: {name}\nvendor: asterisk\ntime_zone: {ZONE.key}\ncountry: CN\n"
        )
        folder = tmp_path_factory.mktemp(name)
        simulate.write(
            folder, seed=7, start=START, days=DAYS,
            calls_per_day=pytestconfig.getoption("calls_per_day") or CALLS_PER_DAY,
            dirt=name == DIRTY, formats=("queue_log",),
        )  # fmt: skip
        # The newest file's name comes first: order does not matter.
        results = landing.land(settings, name, [folder / "queue_log"])
        assert {result.status for result in results} == {"landed"}
    transform.prepare(settings, lambda _line: None)
    outcome = transform.drain(settings, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)
    return folder / "truth"


@pytest.mark.parametrize("name", [CLEAN, DIRTY])
def test_transfers_out_are_transfers_in(settings: Settings, truth: Path, name: str) -> None:
    """The log has no line of a colleague whom an attended transfer reaches."""
    with warehouse.connect(settings) as connection:
        found = transfers.counted(connection, name)
        told = transfers.balances(connection, name)
    expected = transfers.truth(truth, outside_queues=False)
    assert len(expected) == DAYS and all(0 < followed < out for out, followed in expected.values())
    assert found == {day: (out, way, out - way, 0) for day, (out, way) in expected.items()}
    assert told == {day: (out, True) for day, (out, _) in expected.items()}


def rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as handle:
        yield from csv.DictReader(handle)


@pytest.fixture(scope="module")
def expected(truth: Path) -> dict[AgentDay, list[State]]:
    """The truth as far as the format carries it.

    Calls without a queue are unknown: who is in one is ready. Hold is a part of the conversation.
    """
    names = {row["call_id"]: row["unique_id"] for row in rows(truth / "queue_log_visits.csv")}
    of_queues = {
        (row["call_id"], row["agent_id"], row["connected_at"], row["ended_at"])
        for row in rows(truth / "connections.csv")
        if row["queue_id"]
    }
    spans = defaultdict(list)
    for call, agent, start, end in of_queues:
        spans[call, agent].append((start, end))
    played: list[State] = []
    for row in rows(truth / "agent_states.csv"):
        what, call, agent = row["state"], row["call_id"], row["agent_id"]
        start, end = row["started_at"], row["ended_at"]
        within = [(s, e) for s, e in spans[call, agent] if s <= start and (end <= e or start == e)]
        if what in ("talk", "hold", "acw") and within:
            what = "talk" if what == "hold" else what
        elif what not in ("ring", "pause"):
            what = "ready"
        known = names[call] if what in ("ring", "talk", "acw") else ""
        played.append(State(f"Agent/{agent}", "", start, end, what, row["reason"], known))
    played.sort()
    merged: list[State] = []
    for state in played:
        # Another piece of the same: conversation and hold, or ready and in a call the log lacks.
        if (
            merged
            and merged[-1]._replace(started_at=state.started_at, ended_at="")
            == (state._replace(ended_at=""))
            and merged[-1].ended_at == state.started_at
        ):
            merged[-1] = merged[-1]._replace(ended_at=state.ended_at)
        else:
            merged.append(state)
    found = defaultdict(list)
    for state in merged:
        first, final = state.started_at[:10], state.ended_at[:10]
        midnight = f"{final} 00:00:00"
        if first != final and state.ended_at > midnight:
            found[state.agent, first].append(state._replace(day=first, ended_at=midnight))
            state = state._replace(started_at=midnight)
            first = final
        found[state.agent, first].append(state._replace(day=first))
    return dict(found)


def told(settings: Settings, source: str) -> dict[AgentDay, list[State]]:
    """What the warehouse says."""
    found = defaultdict(list)
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        for row in connection.execute(
            "select agent_id, business_day::text, to_char(started_at, 'YYYY-MM-DD HH24:MI:SS'), "
            "to_char(ended_at, 'YYYY-MM-DD HH24:MI:SS'), state, coalesce(reason, ''), "
            "coalesce(call_id, '') from candidate.int_agent_states__unioned "
            "where source = %s order by agent_id, started_at",
            [source],
        ):
            found[row[0], row[1]].append(State(*row))
    return dict(found)


def seconds(states: list[State]) -> Counter[str]:
    """By state, and their sum as `login`."""
    counts: Counter[str] = Counter()
    for state in states:
        start, end = map(datetime.datetime.fromisoformat, (state.started_at, state.ended_at))
        for word in (state.state, "login"):
            counts[word] += int((end - start).total_seconds())
    return counts


def test_states_are_the_truth_to_the_second(
    settings: Settings, expected: dict[AgentDay, list[State]]
) -> None:
    found = told(settings, CLEAN)
    assert sum(map(len, found.values())) > 10_000
    assert {state.state for states in found.values() for state in states} == {
        "ready", "ring", "talk", "acw", "pause",
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for key, states in expected.items():
        assert found[key] == states, key


def test_login_and_pause_are_those_of_the_agents_own_clock(settings: Settings, truth: Path) -> None:
    """`agent_time_daily.csv` is counted by another way than the states."""
    found = told(settings, CLEAN)
    compared = 0
    for row in rows(truth / "agent_time_daily.csv"):
        counts = seconds(found[f"Agent/{row['agent_id']}", row["business_day"]])
        assert counts["login"] == int(row["login_seconds"]), row
        assert counts["pause"] == int(row["pause_seconds"]), row
        assert counts["ring"] == int(row["ring_seconds"]), row
        # Conversations outside of queues are not in the log.
        assert counts["talk"] <= int(row["talk_seconds"]) + int(row["hold_seconds"]), row
        compared += 1
    assert compared > 100


def test_lost_lines_change_only_the_days_of_their_agents(
    settings: Settings, truth: Path, expected: dict[AgentDay, list[State]]
) -> None:
    notes = json.loads((truth / "queue_log_limits.json").read_text("utf-8"))["dirt"]
    kinds = Counter(note["kind"] for note in notes)
    for kind in ("missing_end", "missing_unpause", "missing_logoff", "restart", "sent_again"):
        assert kinds[kind], kind
    lost: dict[AgentDay, set[str]] = defaultdict(set)
    for note in notes:
        if note["kind"].startswith("missing"):
            epoch, _, _, agent, event = note["text"].split("|")[:5]
            moment = datetime.datetime.fromtimestamp(int(epoch), ZONE)
            # What is open ends by itself at most 16 hours later.
            for later in (moment, moment + datetime.timedelta(hours=16)):
                lost[agent, later.date().isoformat()].add(event)
    found = told(settings, DIRTY)
    different = {
        key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)
    }
    assert different <= lost.keys()
    assert 0 < len(different) < len(expected) / 3
    for key in different:
        now, then = seconds(found[key]), seconds(expected.get(key, []))
        if "AGENTLOGOFF" not in lost[key]:
            assert now["login"] == then["login"], key
        if not lost[key] & {"UNPAUSEALL", "AGENTLOGOFF"}:
            # A conversation whose end is lost lasts on into a pause, and never makes one longer.
            assert now["pause"] <= then["pause"], key
            if not lost[key] & {"COMPLETEAGENT", "COMPLETECALLER"}:
                assert now["pause"] == then["pause"], key
        assert now["login"] >= then["login"], key
