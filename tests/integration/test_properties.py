"""What must hold of any files of any vendor, in whatever pieces, order and repetition they come.

`pytest --examples N` draws more than the few of `make test`. Examples are the same in every run.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, strategies
from tests.conftest import Contents, empty_warehouse, published_contents

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

# The last day of a month and the first of the next; calls and states go on over midnight.
START, DAYS, CALLS_PER_DAY = date(2026, 10, 31), 2, 80
DELIMITED = ("agents", "queues", "calls", "agent_states", "offers", "ivr_steps", "surveys",
             "schedules")  # fmt: skip
COUNTS = (
    "queue_visits", "calls_offered", "calls_answered", "calls_abandoned", "answered_within_target",
    "abandoned_within_target", "answered_within_20s", "short_abandons", "answered_waits",
    "answered_wait_seconds", "abandoned_waits", "abandoned_wait_seconds",
)  # fmt: skip
STATES = (
    "ready_seconds", "pause_seconds", "state_ring_seconds", "state_dial_seconds",
    "state_consult_seconds", "state_talk_seconds", "state_hold_seconds", "state_acw_seconds",
)  # fmt: skip
COMPONENTS = (
    "ivr_seconds", "wait_seconds", "ring_seconds", "talk_seconds", "hold_seconds", "acw_seconds",
    "call_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """What a system wrote, line by line, before anybody cut it into files."""

    feed: str
    name: str  # of a file, with the place of its number
    lines: tuple[bytes, ...]
    header: bytes = b""
    is_loose: bool = False  # lines come in any order, and without line ends too


@dataclass(frozen=True)
class Piece:
    """Some lines of a stream, as a file."""

    stream: Stream
    start: int
    end: int
    is_compressed: bool


def lines_of(folder: Path, pattern: str) -> list[bytes]:
    """All lines of the files of one kind, in the order of their names."""
    found = []
    for path in sorted(folder.glob(pattern)):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        found += [line.rstrip(b"\n") + b"\n" for line in content.splitlines(True)]
    return found


def simulated(folder: Path) -> list[Stream]:
    """The same two days by every vendor, with dirt.

    The delimited files are clean: of two versions of one of their rows the one that landed last
    counts. What was cut off within a line is left out: it is no line of another file.
    """
    for name in ("clean", "dirty"):
        simulate.write(
            folder / name, seed=5, start=START, days=DAYS, calls_per_day=CALLS_PER_DAY,
            dirt=name == "dirty", formats=simulate.FORMATS,
        )  # fmt: skip
    found = []
    for kind in DELIMITED:
        lines = lines_of(folder / "clean", f"{kind}*.csv*")
        rows = tuple(line for line in lines if line != lines[0])
        found.append(Stream("sample_hotline", kind + "_{}.csv", rows, lines[0]))
    for kind in ("queue_log", "cdr", "cel"):
        lines = lines_of(folder / "dirty" / kind, "*")
        if kind == "queue_log":
            lines = [line for line in lines if line.count(b"|") >= 4]
        found.append(Stream(f"asterisk_{kind}", kind + ".{}", tuple(lines)))
    for kind in ("contacts", "agent_events"):
        lines = lines_of(folder / "dirty" / "connect", f"{kind}_*")
        lines = [line for line in lines if line.endswith(b"}\n")]
        if kind == "contacts":
            lines += odd_contacts(lines)
        found.append(Stream(f"amazon_connect_{kind}", kind + ".{}", tuple(lines), is_loose=True))
    assert all(len(stream.lines) > 5 for stream in found)
    return found


def odd_contacts(lines: list[bytes]) -> list[bytes]:
    """A survey of each scale that comes late, and rivals of one version."""
    found = []
    for place, scale in enumerate(("csat", "nps", "ces")):
        rival, surveyed = json.loads(lines[7]), json.loads(lines[place])
        for content in (rival, surveyed):
            content["Attributes"] = {"survey_type": scale, "survey_score": str(place)}
        surveyed["LastUpdateTimestamp"] = "2026-11-05T00:00:00Z"
        found += [json.dumps(content).encode() + b"\n" for content in (rival, surveyed)]
    return found


@strategies.composite
def pieces_of(draw: strategies.DrawFn, streams: list[Stream]) -> list[Piece]:
    """Every line of every stream at least once: cut anywhere, some again, in any order."""
    found = []
    for stream in streams:
        if stream.is_loose:
            lines = list(stream.lines)
            random.Random(draw(strategies.integers(0, 1000))).shuffle(lines)
            if draw(strategies.booleans()):
                lines = [line.strip() for line in lines]
            stream = replace(stream, lines=tuple(lines))
        place = strategies.integers(0, len(stream.lines))
        inner = strategies.integers(1, len(stream.lines) - 1)
        cuts = sorted({0, len(stream.lines), *draw(strategies.lists(inner, max_size=3))})
        spans = list(itertools.pairwise(cuts))
        # Once more: the very same lines as another file, or some that overlap others.
        overlapping = strategies.tuples(place, place).filter(lambda span: span[0] < span[1])
        again = strategies.one_of(strategies.sampled_from(spans), overlapping)
        spans += draw(strategies.lists(again, max_size=2))
        found += [Piece(stream, *span, draw(strategies.booleans())) for span in spans]
    return draw(strategies.permutations(found))


@pytest.fixture(scope="module")
def ready(settings: Settings, cluster: postgres.Cluster) -> Settings:
    transform.prepare(settings, dbt.quiet)
    return settings


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> list[Stream]:
    return simulated(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def whole(
    ready: Settings, streams: list[Stream], tmp_path_factory: pytest.TempPathFactory
) -> Contents:
    """What one file of each stream gives."""
    pieces = [Piece(stream, 0, len(stream.lines), False) for stream in streams]
    found = published(ready, tmp_path_factory.mktemp("whole"), pieces)
    filled = {relation for relation, (count, _) in found.items() if count}
    assert filled >= {
        "fct_calls", "fct_queue_visits", "fct_agent_connections", "fct_agent_offers",
        "fct_agent_states", "fct_call_events", "fct_call_followups", "fct_ivr_steps",
        "fct_survey_responses", "agg_agent_15min", "agg_agent_daily", "agg_calls_daily",
        "agg_fcr_daily", "agg_queue_15min", "fct_agent_schedules", "agg_agent_adherence_daily",
    }  # fmt: skip
    with warehouse.connect(ready) as connection:
        calls = connection.execute("select count(*) from marts.fct_calls group by source")
        assert [count > CALLS_PER_DAY for (count,) in calls] == [True] * 3
    return found


def published(ready: Settings, folder: Path, pieces: list[Piece]) -> Contents:
    """Land `pieces` in this order into an empty warehouse, build, publish, and sum up the marts."""
    empty_warehouse(ready)
    for number, piece in enumerate(pieces):
        content = piece.stream.header + b"".join(piece.stream.lines[piece.start : piece.end])
        path = folder / piece.stream.name.format(number)
        if piece.is_compressed:
            path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
        path.write_bytes(content)
        [result] = landing.land(ready, piece.stream.feed, [path])
        assert result.status in ("landed", "already_landed"), result.reason
        assert result.read == result.staged + result.duplicates
    outcome = transform.drain(ready, dbt.quiet)
    assert outcome.problems == ()
    assert [b.held_days for b in (*outcome.builds, *outcome.followups) if b.held_days] == []
    return published_contents(ready)


def sums(ready: Settings, relation: str, keys: str, columns: tuple[str, ...]) -> dict[Any, Any]:
    """Sums by key, of keys of which there is anything."""
    with warehouse.connect(ready) as connection:
        totals = ", ".join(f"coalesce(sum({column}), 0)" for column in columns)
        rows = connection.execute(
            f"select {keys}, {totals} from marts.{relation} group by {keys}".encode()
        ).fetchall()
    width = len(columns)
    return {row[:-width]: row[-width:] for row in rows if any(row[-width:])}


def check_sums(ready: Settings) -> None:
    """Quarters of an hour, days and months say the same, and that is what the rows say."""
    for period in ("business_day", "month_start"):
        facts = sums(ready, "fct_queue_visits", f"source, queue_id, {period}", COUNTS)
        assert facts == sums(ready, "agg_queue_15min", f"source, queue_id, {period}", COUNTS)
        assert facts == sums(ready, "agg_calls_daily", f"source, queue_id, {period}", COUNTS)
        calls = ("calls", "calls_connected", "calls_contained", "calls_abandoned_before_agent")
        assert sums(ready, "fct_calls", f"source, channel, {period}", calls) == sums(
            ready, "agg_calls_daily", f"source, channel, {period}", calls
        )
        times = ("login_seconds", *STATES)
        states = sums(ready, "fct_agent_states", f"source, agent_id, {period}", times)
        assert states == sums(ready, "agg_agent_15min", f"source, agent_id, {period}", times)
        assert states == sums(ready, "agg_agent_daily", f"source, agent_id, {period}", times)
        for key, (login, *parts) in states.items():
            assert login == sum(parts), key


def none(ready: Settings, statement: str) -> None:
    with warehouse.connect(ready) as connection:
        assert connection.execute(statement.encode()).fetchmany(3) == []


def check_agents(ready: Settings) -> None:
    """Nobody is in two states at once, nor longer than there is time."""
    for relation in ("agg_agent_15min", "agg_agent_daily"):
        none(ready, f"select * from marts.{relation} where login_seconds <> {' + '.join(STATES)}")
    none(ready, "select * from marts.agg_agent_15min where login_seconds not between 0 and 900")
    none(
        ready,
        "select * from (select *, lag(ended_at) over (partition by source, agent_id"
        " order by started_at, ended_at) as before from marts.fct_agent_states) as s"
        " where started_at < before or ended_at < started_at",
    )


def check_calls(ready: Settings) -> None:
    """Parts of a call are not negative nor, together, longer than it, or the call says so."""
    negative = " or ".join(f"{column} < 0" for column in COMPONENTS)
    none(ready, f"select * from marts.fct_calls where ({negative}) and data_issues = '{{}}'")
    none(
        ready,
        "select * from marts.fct_calls where coalesce(ivr_seconds, 0) + coalesce(wait_seconds, 0)"
        " + coalesce(talk_seconds, 0) + coalesce(hold_seconds, 0) > call_seconds + 6"
        " and not 'components_exceed_call' = any(data_issues)",
    )


def check(ready: Settings) -> None:
    check_sums(ready)
    check_agents(ready)
    check_calls(ready)


def few(pytestconfig: pytest.Config, examples: int) -> hypothesis.settings:
    """Each example is a build; one that fails is shown as drawn, as shrinking would take hours."""
    return hypothesis.settings(
        max_examples=pytestconfig.getoption("examples") or examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_any_split_any_order_any_repetition(
    ready: Settings,
    streams: list[Stream],
    whole: Contents,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> None:
    @few(pytestconfig, 2)
    @given(pieces_of(streams))
    def example(pieces: list[Piece]) -> None:
        found = published(ready, tmp_path_factory.mktemp("pieces"), pieces)
        assert {relation for relation in whole if found[relation] != whole[relation]} == set()
        check(ready)

    example()


def test_what_is_lost_makes_no_number_contradict_another(
    ready: Settings,
    streams: list[Stream],
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> None:
    """Whatever part of the files came."""

    @few(pytestconfig, 1)
    @given(pieces_of(streams), strategies.data())
    def example(pieces: list[Piece], data: strategies.DataObject) -> None:
        came = data.draw(strategies.lists(strategies.sampled_from(pieces), min_size=5, unique=True))
        published(ready, tmp_path_factory.mktemp("part"), came)
        check(ready)

    example()
