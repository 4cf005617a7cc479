"""The floor, live: what is told at any moment of a simulated day is what was true then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from tests.conftest import look_until

from callhouse import landing, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.live import collectors, receiver, state
from callhouse.live.intake import Counts, Intake, Push
from callhouse.live.listener import Listener
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.simulate import queue_log
from callhouse.simulate.centre import Centre
from callhouse.simulate.manager import Exchange
from callhouse.simulate.records import Leg, World
from callhouse.simulate.rendering import first_second
from callhouse.simulate.states import sessions
from callhouse.sources.asterisk.manager import SETTLE_SECONDS

FEED, CALLS, SEED = "exchange", 250, 5
TICKS = [6 * 3600, *range(9 * 3600, 20 * 3600, 2750), 24 * 3600 - 1]
REFUSED = ("overflow_full", "overflow_empty", "overflow_diverted", "closed")
TABLES = ("queue_visits", "agent_connections", "agent_states", "day_totals")
Told = dict[str, Any]


class Floor:
    """A day that is written line by line into a log, and what is true of it at each second."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.log = settings, folder / "queue_log"
        # The day must still go on when the test looks at it.
        self.day = (datetime.now(UTC) + timedelta(hours=8)).date()
        self.epoch = first_second(self.day)
        self.world: World = Centre(SEED, self.day, 1, CALLS, None).run()
        written = queue_log.write(folder / "whole", self.world, self.day, 1, SEED, dirt=False)
        lines = written.files[0].read_bytes().splitlines(keepends=True)
        self.lines = [(int(line.split(b"|")[0]) - self.epoch, line) for line in lines]
        self.log.touch()
        feeds = settings.feeds_directory
        feeds.mkdir(parents=True, exist_ok=True)
        (feeds / f"{FEED}.yaml").write_text(
            f"feed: {FEED}\nvendor: asterisk\ncountry: CN\ntail: {self.log}\n"
        )
        (self.tail,) = collectors.configured(settings, [FEED], say=lambda _: None)

    @property
    def legs(self) -> list[Leg]:
        return [leg for call in self.world.calls for leg in call.legs if leg.queue_id]

    def play_to(self, second: int) -> None:
        """Write and land what happens until then, as the exchange would have, and then."""
        with self.tail._connections.transaction() as connection:
            connection.execute(
                "select set_config('callhouse.clock', %s, false)", [self.at(second).isoformat()]
            )
        with self.log.open("ab") as file:
            while self.lines and self.lines[0][0] <= second:
                file.write(self.lines.pop(0)[1])
        while self.tail.look():
            pass

    def at(self, second: int) -> datetime:
        return datetime.fromtimestamp(self.epoch + second, UTC)

    def told(self, second: int) -> Told:
        """What the views say at that moment."""
        at = self.at(second)
        with warehouse.connect(self.settings) as connection:
            connection.execute("select set_config('callhouse.clock', %s, true)", [at.isoformat()])
            waiting = connection.execute(
                "select queue_id, extract(epoch from entered_at)::bigint - %s, queue_position "
                "from bi.live_queue_visits where is_waiting", [self.epoch],
            ).fetchall()  # fmt: skip
            talks = connection.execute(
                "select agent_id, extract(epoch from connected_at)::bigint - %s "
                "from bi.live_agent_connections where is_in_progress", [self.epoch],
            ).fetchall()  # fmt: skip
            agents = {
                agent: (what, since)
                for agent, what, since in connection.execute(
                    "select agent_id, state, extract(epoch from started_at)::bigint - %s "
                    "from bi.live_agents", [self.epoch],
                )
            }  # fmt: skip
            metrics = dict(
                connection.execute(
                    "select metric, value from live.metric_values where scope_type = 'all'"
                ).fetchall()
            )
            totals = connection.execute(
                "select queue_id, calls_offered_15min, calls_answered_15min, "
                "calls_abandoned_15min, answered_within_target_15min from bi.live_queues "
                "where calls_offered_15min > 0 order by queue_id"
            ).fetchall()
            visits = connection.execute(
                "select queue_id, sum(calls_offered), sum(calls_answered), sum(calls_abandoned), "
                "sum(answered_within_target) from live.recent_visits group by queue_id "
                "having sum(calls_offered) > 0 order by queue_id"
            ).fetchall()
        return {
            "waiting": waiting, "talks": talks, "agents": agents, "metrics": metrics,
            "recent": (totals, visits),
        }  # fmt: skip


@pytest.fixture(scope="module")
def floor(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Floor]:
    transform.prepare(settings, lambda _: None)
    state.install(settings, lambda _: None)
    played = Floor(settings, tmp_path_factory.mktemp("exchange"))
    yield played
    played.tail.close()


def rows(settings: Settings, table: str) -> Counter[str]:
    with warehouse.connect(settings) as connection:
        return Counter(
            text for (text,) in connection.execute(
                f"select to_jsonb(t)::text from live.{table} as t "
                f"{'where visits + connections > 0' if table == 'day_totals' else ''}"
            )
        )  # fmt: skip


def test_each_moment_of_a_day_is_told_as_it_was(floor: Floor) -> None:
    seen_waiting = seen_busy = 0
    # Whatever day it is, somebody waits at one of them.
    longest = max(floor.legs, key=lambda leg: (leg.queue_end or 0) - (leg.queue_start or 0))
    for tick in sorted({*TICKS, ((longest.queue_start or 0) + (longest.queue_end or 0)) // 2}):
        floor.play_to(tick)
        told = floor.told(tick)
        waits = [
            leg for leg in floor.legs
            if leg.outcome not in REFUSED and (leg.queue_start or 0) <= tick
            and (leg.outcome == "incomplete" or tick < (leg.queue_end or 0))
            and tick < (leg.queue_start or 0) + 7200
        ]  # fmt: skip
        places: Counter[str] = Counter()
        expected = []
        for leg in sorted(waits, key=lambda leg: leg.queue_start or 0):
            places[leg.queue_id] += 1
            expected.append((leg.queue_id, leg.queue_start, places[leg.queue_id]))
        assert sorted(told["waiting"]) == sorted(expected), tick
        talks = [
            (f"Agent/{leg.agent_id}", leg.answered) for leg in floor.legs
            if leg.answered is not None and leg.answered <= tick < (leg.released or 0)
        ]  # fmt: skip
        assert sorted(told["talks"]) == sorted(talks), tick
        check_agents(floor, told["agents"], tick)
        check_day(floor, told["metrics"], tick)
        totals, visits = told["recent"]
        assert totals == visits, tick
        seen_waiting += len(waits)
        seen_busy += len(talks)
    assert seen_waiting and seen_busy > 5


def check_agents(floor: Floor, told: dict[str, tuple[str, int]], tick: int) -> None:
    on_duty = set()
    for agent in floor.world.agents:
        name = f"Agent/{agent.agent_id}"
        for session in sessions(agent):
            if not session.login <= tick < session.logout:
                continue
            on_duty.add(name)
            (now,) = [s for s in session.states if s.start <= tick < s.end]
            if (now.leg is not None and not now.leg.queue_id) or now.state in ("dial", "consult"):
                continue  # the log does not tell
            if now.state == "ring":  # only told when it ends
                continue
            assert told[name][0] == {"hold": "talk"}.get(now.state, now.state), (name, tick)
            if now.state == "pause":
                assert told[name][1] == now.start, (name, tick)
    assert set(told) == on_duty


def check_day(floor: Floor, told: dict[str, Any], tick: int) -> None:
    legs = [leg for leg in floor.legs if (leg.queue_start or 0) <= tick]
    answered = [leg for leg in legs if leg.answered is not None and leg.answered <= tick]
    lost = [
        leg for leg in legs
        if leg.outcome == "abandoned" and leg.stage in ("queue", "ring", "")
        and (leg.queue_end or 0) <= tick
    ]  # fmt: skip
    within = [leg for leg in answered if leg.wait_seconds <= 20]
    over = [leg for leg in answered if (leg.released or 0) <= tick]
    assert told["calls_offered_today"] == len([leg for leg in legs if leg.outcome != "closed"])
    assert told["calls_answered_today"] == len(answered)
    assert told["calls_abandoned_today"] == len(lost)
    if answered:
        share = len(within) / (len(answered) + len(lost))
        assert float(told["service_level_today"]) == pytest.approx(share)
        waits = sum(leg.wait_seconds for leg in answered)
        assert float(told["asa_today"]) == pytest.approx(waits / len(answered))
    if over:
        handled = sum((leg.released or 0) - (leg.answered or 0) + leg.acw_seconds for leg in over)
        assert float(told["aht_today"]) == pytest.approx(handled / len(over), rel=0.01)
    recent = [leg for leg in legs if (leg.queue_start or 0) > tick - 900]
    done = [leg for leg in recent if leg in answered or leg in lost]
    if done:
        gone = len([leg for leg in recent if leg in lost])
        assert float(told["abandon_rate_15min"]) == pytest.approx(gone / len(done))


def test_a_rebuild_from_staging_is_the_same(floor: Floor) -> None:
    floor.play_to(25 * 3600)
    before = {table: rows(floor.settings, table) for table in TABLES}
    assert all(len(found) > 10 for found in before.values())
    with warehouse.connect(floor.settings) as connection:
        connection.execute("delete from live.queue_visits where visit_number = 1")
        connection.execute("update live.agent_states set state = 'ready'")
    assert rows(floor.settings, "queue_visits") != before["queue_visits"]
    told = state.rebuild(floor.settings)
    assert told == {FEED: sum(before["queue_visits"].values())}
    assert {table: rows(floor.settings, table) for table in TABLES} == before
    with pytest.raises(CallhouseError, match="no live source"):
        state.rebuild(floor.settings, ["elsewhere"])


def test_views_that_are_made_anew_are_those_that_the_next_landing_reads(floor: Floor) -> None:
    floor.play_to(25 * 3600)
    enters = "select count(*) from live.queue_visits where call_id = %s"
    for number in range(2):
        at, call = floor.epoch + 3600 + number, f"anew.{number}"
        with floor.log.open("a") as file:
            file.write(f"{at}|{call}|cards|NONE|ENTERQUEUE||13800001111|1\n")
        while floor.tail.look():
            pass
        with warehouse.connect(floor.settings) as connection:
            assert warehouse.one(connection, enters, [call]) == (1,)
            connection.execute("comment on schema live_intake is null")  # as loading seeds does
        state.install(floor.settings, lambda _: None)


def test_a_landing_looks_its_calls_up_among_all_that_there_were(floor: Floor) -> None:
    """It must not cost more with each year of calls: none of its statements reads all of them."""
    known, read = 200_000, "select seq_tup_read from pg_stat_user_tables where relname = %s"
    heads = "staging.asterisk_calls"
    with warehouse.connect(floor.settings, "postgres", autocommit=True) as connection:
        connection.execute(
            f"insert into {heads} (source, call_id, business_day, first_event_at, arrived_at) "
            "select %s, '1500000000.' || n, '2017-07-14', to_timestamp(1500000000), "
            "to_timestamp(1500000000) from generate_series(1, %s) as n".encode(), [FEED, known],
        )  # fmt: skip
        connection.execute(f"vacuum analyze {heads}".encode())
        try:
            (before,) = warehouse.one(connection, read, ["asterisk_calls"])
            at, others = floor.epoch + 7200, floor.settings.home / "other_queue_log"
            line = f"{at}|known.1|cards|NONE|ENTERQUEUE||13800001111|1\n"
            with floor.log.open("a") as file:
                file.write(line)
            while floor.tail.look():
                pass
            others.write_text(line)  # the log is the whole of the day for the tests that follow
            (landed,) = landing.land(floor.settings, FEED, [others])
            assert landed.duplicates == 1
            floor.tail.disconnect()  # a server counts what a session has read when it ends
            sessions = "select count(*) from pg_stat_activity where usename = 'callhouse_pipeline'"
            until = time.monotonic() + 60
            while warehouse.one(connection, sessions)[0]:
                assert time.monotonic() < until
                time.sleep(0.02)
            (after,) = warehouse.one(connection, read, ["asterisk_calls"])
            assert after - before < known
        finally:
            connection.execute(f"delete from {heads} where business_day = '2017-07-14'".encode())


TOLD, USER, SECRET = "told", "callhouse", "word"
# What no event tells (docs/decisions/0060): refusals, and by what a caller who was sent on left.
UNTOLD = ("overflow_full", "overflow_diverted", "closed")


@pytest.fixture
def exchange(floor: Floor) -> Iterator[Exchange]:
    """The same exchange again, as one that is listened to."""
    with Exchange(USER, SECRET) as served:
        mapping = floor.settings.feeds_directory / f"{TOLD}.yaml"
        mapping.write_text(
            f"feed: {TOLD}\nvendor: asterisk\ncountry: CN\nmarts: false\n"
            f"location: ami://{USER}@127.0.0.1:{served.port}\n"
        )
        secret = floor.settings.home / "secrets" / f"ami_{TOLD}"
        secret.write_text(f"{SECRET}\n")
        yield served
        mapping.unlink()
        secret.unlink()
    with warehouse.connect(floor.settings) as connection:  # other tests look at the whole floor
        for table in (*TABLES, "sources"):
            connection.execute(f"delete from live.{table} where source = %s".encode(), [TOLD])


@pytest.fixture
def listener(floor: Floor, exchange: Exchange) -> Iterator[Listener]:
    assert exchange.port
    (found,) = collectors.configured(floor.settings, [TOLD], say=lambda _: None)
    assert isinstance(found, Listener)
    found.first_pause = 0.05
    yield found
    found.close()


def asked(floor: Floor, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with warehouse.connect(floor.settings) as connection:
        return connection.execute(statement.encode(), values or [TOLD]).fetchall()


def test_a_day_that_is_told_is_the_floor_of_its_log(
    floor: Floor, exchange: Exchange, listener: Listener
) -> None:
    """Up to what no event tells; afterwards the state is what a rebuild says."""
    floor.play_to(25 * 3600)
    written = floor.log.read_text().splitlines()
    look_until(listener, lambda: exchange.listeners == 1)
    for start in range(0, len(written), 500):
        exchange.tell("\n".join(written[start : start + 500]))
    time.sleep(SETTLE_SECONDS + 1)  # who left by a key is told when nothing else has told it
    exchange.tell(f"{floor.epoch + 60}|MANAGER|nowhere|Agent/last|ADDMEMBER|")
    last = "select agent_id from staging.asterisk_events where source = %s and queue_id = 'nowhere'"
    look_until(listener, lambda: asked(floor, last) == [("Agent/last",)])

    def visits(source: str) -> list[tuple[Any, ...]]:
        left = "case when outcome in ('timeout', 'overflow_empty') then 'sent on' else outcome end"
        return asked(
            floor,
            f"select call_id, queue_id, agent_id, {left}, wait_seconds, entered_at, left_at, "
            "answered_within_target, calls_answered, calls_abandoned, caller_token "
            "from live.queue_visits where source = %s and outcome <> all(%s) "
            "and (outcome <> 'overflow_empty' or wait_seconds is not null) order by 1, 2, 6",
            source, list(UNTOLD),
        )  # fmt: skip

    told, logged = visits(TOLD), visits(FEED)
    assert len(told) > 20 and {row[3] for row in told} >= {"answered", "abandoned"}
    assert told == logged
    talks = (
        "select call_id, connection_number, agent_id, queue_id, connected_at, ended_at "
        "from live.agent_connections where source = %s order by 1, 2"
    )
    assert asked(floor, talks, TOLD) == asked(floor, talks, FEED)
    assert len(asked(floor, talks, TOLD)) > 20
    ((read, kept, kinds),) = asked(
        floor,
        "select sum(read_rows), sum(staged_rows + duplicate_rows + quarantined_rows), "
        "array_agg(distinct kind) from ops.units where source = %s",
    )
    assert read == kept > 100 and kinds == ["push"]
    before = {table: rows(floor.settings, table) for table in TABLES}
    state.rebuild(floor.settings, [TOLD])
    assert {table: rows(floor.settings, table) for table in TABLES} == before


PUSHED = "pushed"


@pytest.fixture
def intake(floor: Floor) -> Iterator[Intake]:
    """Of a feed that is pushed, whose sender is never silent for ten minutes."""
    mapping = floor.settings.feeds_directory / f"{PUSHED}.yaml"
    mapping.write_text(
        f"feed: {PUSHED}\nvendor: asterisk\ncountry: CN\nreceive: {{quiet_seconds: 600}}\n"
        "marts: false\n"
    )
    (found,) = receiver.intakes(floor.settings)
    yield found
    found.disconnect()
    mapping.unlink()
    with warehouse.connect(floor.settings) as connection:  # other tests look at the whole floor
        for table in (*TABLES, "sources"):
            connection.execute(f"delete from live.{table} where source = %s".encode(), [PUSHED])


def test_what_is_pushed_is_on_the_floor_when_it_is_answered(floor: Floor, intake: Intake) -> None:
    def push(*lines: str) -> Counts:
        items = [line.encode() for line in lines]
        request = Push(intake.feed.kinds[0], items, b"\n".join(items))
        intake.land([request])
        return request.answer.result(0)

    def told(what: str) -> list[tuple[Any, ...]]:
        with warehouse.connect(floor.settings) as connection:
            return connection.execute(what.encode(), [PUSHED]).fetchall()

    seen = "select looked_at is not null from live.sources where source = %s"
    intake._tell()
    assert told(seen) == [(False,)]  # the sender was never heard
    now = floor.epoch + 60
    entries = [f"{now + n}|{now}.{n}|sales|NONE|ENTERQUEUE||1380013800{n}|1" for n in range(2)]
    assert push(*entries) == Counts(2, 2, 0, 0)
    state_of = (
        'select outcome from live.queue_visits where source = %s order by call_id collate "C"'
    )
    assert told(state_of) == [("incomplete",), ("incomplete",)]
    intake._seen_at = 0.0
    intake._tell()
    assert told(seen) == [(True,)]
    gone = f"{now + 30}|{now}.0|sales|NONE|ABANDON|1|1|30"
    assert push(gone, entries[0]) == Counts(2, 1, 0, 1)
    assert told(state_of) == [("abandoned",), ("incomplete",)]
    before = rows(floor.settings, "queue_visits")
    state.rebuild(floor.settings, [PUSHED])
    assert rows(floor.settings, "queue_visits") == before
    with warehouse.connect(floor.settings) as connection:  # a sender that broke its promise
        connection.execute("update ops.heartbeats set beat_at = beat_at - interval '700 s'")
        connection.execute("update live.sources set looked_at = null where source = %s", [PUSHED])
    intake._seen_at = 0.0
    intake._tell()
    assert told(seen) == [(False,)]


def test_preparations_at_once_have_each_day_built_once(floor: Floor) -> None:
    floor.play_to(24 * 3600)
    with warehouse.connect(floor.settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute("comment on schema reference is null")
        connection.execute("delete from ops.dirty_marks")
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(transform.prepare, floor.settings, print) for _ in range(2)]:
            done.result()
    with warehouse.connect(floor.settings) as connection:
        marks = connection.execute("select business_day, reason from ops.dirty_marks").fetchall()
    days = [day for day, _ in marks]
    # The last ones may log off after midnight.
    assert set(days) - {floor.day + timedelta(days=1)} == {floor.day}
    assert len(days) == len(set(days))
    assert {reason for _, reason in marks} == {"seeds changed"}


def test_days_of_the_floor_only_are_not_built(floor: Floor) -> None:
    floor.play_to(24 * 3600)
    assert transform.mark(floor.settings, None, "again") > 0
    mapping = floor.settings.feeds_directory / f"{FEED}.yaml"
    kept = mapping.read_text()
    mapping.write_text(f"{kept}marts: false\n")
    try:
        assert transform.mark(floor.settings, None, "again") == 0
    finally:
        mapping.write_text(kept)


def test_what_a_day_usually_brings_is_the_mean_of_its_weekday(floor: Floor) -> None:
    """By hand: of a quarter that brought 4 and 8 calls, and one that brought 2 and 2."""
    floor.play_to(20 * 3600)
    moment = floor.epoch + 10 * 3600 + 450  # within the first of them
    with warehouse.connect(floor.settings) as connection:
        (queue,) = warehouse.one(connection, "select min(queue_id) from bi.live_queues")
        brought = [
            (7, "09:45", 2), (7, "10:00", 4), (14, "09:45", 2), (14, "10:00", 8),
            (6, "10:00", 100), (63, "10:00", 100),  # another weekday, and too long ago
        ]  # fmt: skip
        connection.execute("set role callhouse_owner")
        for days, local, calls in brought:
            day = floor.day - timedelta(days=days)
            connection.execute("select ops.ensure_month('agg_queue_15min', %s)", [day])
            row = {
                "business_day": str(day), "local_interval": local, "source": FEED,
                "queue_id": queue, "interval_start_at": f"{day} {local} Asia/Shanghai",
                "calls_offered": calls, "calls_answered": calls, "calls_abandoned": 0,
            }  # fmt: skip
            columns = sql.SQL(", ").join(map(sql.Identifier, row))
            connection.execute(
                sql.SQL(
                    "insert into marts.agg_queue_15min ({0}) select {0} "
                    "from jsonb_populate_record(null::marts.agg_queue_15min, %s)"
                ).format(columns),
                [Jsonb(row)],
            )
        connection.execute("reset role")
        connection.execute(
            "select set_config('callhouse.clock', to_timestamp(%s)::text, true)", [moment]
        )
        connection.execute("select live.learn(%s)", [FEED])
        learned = connection.execute(
            "select to_char(interval_start_at at time zone 'Asia/Shanghai', 'HH24:MI'), days, "
            "calls_offered from live.usual_quarters order by 1"
        ).fetchall()
        assert learned == [("09:45", 2, 2), ("10:00", 2, 6)]
        # The last fifteen minutes lie in both, half and half.
        usual = "select usual_offered_15min from bi.live_queues where queue_id = %s"
        assert warehouse.one(connection, usual, [queue])[0] == pytest.approx(1 + 3)
        connection.rollback()
