"""An exchange that is listened to tells what happens once, while everything around it dies."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from tests.conftest import look_until
from tests.faults import nemesis, world

from callhouse import capture, warehouse
from callhouse.errors import CallhouseError
from callhouse.live import collectors, exchanges
from callhouse.live import listener as listening
from callhouse.live.listener import Listener
from callhouse.runner import postgres, supervision
from callhouse.settings import Settings
from callhouse.simulate.manager import Exchange, message

FEED, USER, SECRET = "floor", "callhouse", "word"
UNTIL_SECONDS = 60.0
SESSIONS = 3


@pytest.fixture
def exchange(emptied: Settings) -> Iterator[Exchange]:
    with Exchange(USER, SECRET) as served:
        mapping = emptied.feeds_directory / f"{FEED}.yaml"
        mapping.parent.mkdir(parents=True, exist_ok=True)
        mapping.write_text(
            f"feed: {FEED}\nvendor: asterisk\ncountry: CN\nmarts: false\n"
            f"location: ami://{USER}@127.0.0.1:{served.port}\n"
        )
        secret = emptied.home / "secrets" / f"ami_{FEED}"
        secret.write_text(SECRET)
        yield served
        mapping.unlink()
        secret.unlink()


def entries(first: int, count: int) -> list[str]:
    """Callers who enter a queue, each with an id of its own."""
    now = int(time.time()) - 3600
    return [
        f"{now + n // 50}|{now}.{n}|sales|NONE|ENTERQUEUE||138{n:08}|1"
        for n in range(first, first + count)
    ]


def calls(lines: list[str]) -> list[str]:
    return [line.split("|")[1] for line in lines]


def staged(settings: Settings) -> list[str]:
    with warehouse.connect(settings) as connection:
        return [
            call for (call,) in connection.execute(
                "select call_id from staging.asterisk_events where source = %s "
                "order by unit_id, line_number", [FEED],
            )
        ]  # fmt: skip


def sequence(settings: Settings) -> list[int]:
    with warehouse.connect(settings) as connection:
        return [
            number for (number,) in connection.execute(
                "select sequence from ops.heartbeats where device = %s order by beat_id",
                [f"{FEED}_listener"],
            )
        ]  # fmt: skip


def until(settings: Settings, count: int) -> None:
    end = time.monotonic() + UNTIL_SECONDS
    while len(staged(settings)) < count:
        assert time.monotonic() < end, f"{len(staged(settings))} of {count}"
        time.sleep(0.1)


def until_heard(exchange: Exchange) -> None:
    end = time.monotonic() + UNTIL_SECONDS
    while exchange.listeners != 1:
        assert time.monotonic() < end, "nobody listens"
        time.sleep(0.02)


def test_a_collector_is_killed_while_events_come(
    emptied: Settings, exchange: Exchange, chance: random.Random, fault_runs: int
) -> None:
    """What a killed collector lacks are the last events of its session, and a number says so."""
    told: list[list[str]] = []
    count = 0
    for _ in range(SESSIONS if not fault_runs else 4 * SESSIONS):
        collector = nemesis.Command(emptied, "collect")
        until_heard(exchange)
        lines = entries(count, 400)
        count += len(lines)
        before = len(staged(emptied))
        for start in range(0, 400, 20):
            exchange.tell("\n".join(lines[start : start + 20]))
            time.sleep(chance.uniform(0, 0.1))
            if start == 200:  # it lands while they come
                until(emptied, before + 1)
        collector.kill()
        collector.end()
        exchange.hang_up()
        exchange.tell("\n".join(entries(10_000, 3)))  # nobody hears it
        told.append(calls(lines))
    collector = nemesis.Command(emptied, "collect")
    until_heard(exchange)
    last = entries(20_000, 200)
    exchange.tell("\n".join(last))
    until(emptied, len(set(staged(emptied)) | set(calls(last))))
    time.sleep(1)
    collector.process.send_signal(signal.SIGTERM)
    assert collector.end().code == 0
    found = staged(emptied)
    assert len(found) == len(set(found))
    for session in told:
        heard = [call for call in found if call in set(session)]
        assert heard == session[: len(heard)]
        assert heard
    assert found[-200:] == calls(last)
    assert len(found) == sum(len([c for c in found if c in set(s)]) for s in told) + 200
    world.check_ledger(emptied)
    numbers = sequence(emptied)
    assert numbers[0] == 1
    assert numbers[-1] - numbers[0] + 1 - len(numbers) == len(told)


def test_the_server_is_away_while_events_come(
    emptied: Settings, exchange: Exchange, cluster: postgres.Cluster
) -> None:
    """The way to the exchange stays open: nothing is lost, and no number left out."""
    assert "collector" in supervision.names(emptied)
    before = len(sequence(emptied))
    collector = nemesis.Command(emptied, "collect")
    until_heard(exchange)
    lines = entries(0, 1200)
    exchange.tell("\n".join(lines[:400]))
    until(emptied, 1)
    cluster.stop("immediate")
    exchange.tell("\n".join(lines[400:800]))
    time.sleep(1)
    cluster.start()
    exchange.tell("\n".join(lines[800:]))
    until(emptied, 1200)
    collector.process.send_signal(signal.SIGTERM)
    assert collector.end().code == 0
    assert staged(emptied) == calls(lines)
    world.check_ledger(emptied)
    numbers = sequence(emptied)[before:]
    assert len(numbers) > 1
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.fixture
def listener(emptied: Settings, exchange: Exchange) -> Iterator[Listener]:
    assert exchange.port
    with warehouse.connect(emptied) as connection:  # the watch looks at what these tests leave
        for table in ("heartbeats", "incidents"):
            connection.execute(f"delete from ops.{table}".encode())
    (found,) = collectors.configured(emptied, [FEED], say=lambda _: None)
    assert isinstance(found, Listener)
    found.first_pause = 0.05
    yield found
    found.close()


def test_what_is_missed_between_two_sessions_is_a_gap_of_its_day(
    emptied: Settings, exchange: Exchange, listener: Listener
) -> None:
    """The exchange ends a session in the middle of an event; what is told to nobody is gone."""
    lines = entries(0, 4)
    look_until(listener, lambda: exchange.listeners == 1)
    exchange.tell(lines[0])
    half = exchange.events.of(lines[1])
    exchange.send(message(half[0]) + message(half[1])[:-30])
    exchange.hang_up()
    exchange.tell(lines[2])
    look_until(listener, lambda: exchange.listeners == 1)
    exchange.tell(lines[3])
    look_until(listener, lambda: len(staged(emptied)) == 2)
    exchange.tell(lines[3])  # the same event is the same line
    exchange.tell("\n".join(more := entries(100, 2)))
    look_until(listener, lambda: len(staged(emptied)) == 4)
    assert staged(emptied) == calls([lines[0], lines[3], *more])
    numbers = sequence(emptied)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    assert numbers[0] == 1 and steps.count(2) == 1 and set(steps) == {1, 2}
    capture.watch(emptied)
    (gap,) = capture.incidents(emptied)
    assert (gap.device, gap.kind, gap.affected_days) == (f"{FEED}_listener", "gap", 1)
    assert "what it told from 20" in gap.detail and " UTC" in gap.detail
    capture.resolve(emptied, gap.incident_id, "the exchange was restarted", "a person")
    assert capture.incidents(emptied) == []
    capture.watch(emptied)
    assert capture.incidents(emptied) == []  # the same gap is told once


def test_a_login_that_is_refused_is_one_sentence(
    emptied: Settings, exchange: Exchange, listener: Listener
) -> None:
    assert exchange.port
    secret = emptied.home / "secrets" / f"ami_{FEED}"
    secret.write_text("another")
    look_until(listener, lambda: "refuses the user" in listener._problem)
    with pytest.raises(CallhouseError, match=f"user {USER} .Authentication failed.: check its pa"):
        listener.look()
    assert sequence(emptied) == []  # nobody is heard
    problem = exchanges.problems(emptied)[FEED]
    assert "refuses the user" in problem and "another" not in problem
    secret.unlink()
    assert "is missing: write it into" in exchanges.problems(emptied)[FEED]
    secret.write_text(SECRET)
    assert "the collector does not listen" in exchanges.problems(emptied)[FEED]
    # It goes on by itself. Another one beside it hears nothing, and says so.
    look_until(listener, lambda: exchanges.problems(emptied) == {FEED: ""})
    (second,) = collectors.configured(emptied, [FEED], say=lambda _: None)
    with pytest.raises(CallhouseError, match="another collector listens"):
        second.look()
    second.close()


def test_a_burst_waits_and_then_nothing_more_is_read(
    emptied: Settings, exchange: Exchange, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing lands what is heard waits, up to a limit; all of it lands once."""
    monkeypatch.setattr(listening, "MOST_WAITING_BYTES", 20_000)
    lines = entries(0, 3000)
    look_until(listener, lambda: exchange.listeners == 1)
    teller = threading.Thread(target=exchange.tell, args=("\n".join(lines),))
    teller.start()
    end = time.monotonic() + UNTIL_SECONDS
    while listener._bytes <= 20_000 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)
    assert 20_000 < listener._bytes < 21_000
    look_until(listener, lambda: len(staged(emptied)) == 3000)
    teller.join()
    assert staged(emptied) == calls(lines)


def test_what_was_heard_is_landed_before_it_goes(
    emptied: Settings, exchange: Exchange, listener: Listener
) -> None:
    lines = entries(0, 100)
    look_until(listener, lambda: exchange.listeners == 1)
    exchange.tell("\n".join(lines))
    end = time.monotonic() + UNTIL_SECONDS
    while len(listener._waiting) < 100 and time.monotonic() < end:
        time.sleep(0.01)
    assert staged(emptied) == []
    listener.close()
    assert staged(emptied) == calls(lines)


def test_events_that_cannot_be_placed_in_time_are_told_or_set_aside(
    emptied: Settings, exchange: Exchange, listener: Listener
) -> None:
    look_until(listener, lambda: exchange.listeners == 1)
    (first, second) = entries(0, 2)
    exchange.send(message({**exchange.events.of(first)[1], "Timestamp": "soon"}))
    look_until(listener, lambda: sequence(emptied)[-1] > 1)
    with warehouse.connect(emptied) as connection:
        found = connection.execute("select line_number, reason_code from ops.quarantine").fetchall()
    assert found == [(1, "unreadable_time")]
    event = exchange.events.of(second)[1]
    del event["Timestamp"]
    exchange.send(message(event))
    look_until(listener, lambda: "timestampevents" in listener._problem)
    assert staged(emptied) == []
