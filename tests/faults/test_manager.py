"""An exchange that is listened to tells what happens once, while everything around it dies."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import pytest
from tests.faults import nemesis, world

from callhouse import warehouse
from callhouse.runner import postgres, supervision
from callhouse.settings import Settings
from callhouse.simulate.manager import Exchange

FEED, USER, SECRET = "floor", "callhouse", "word"
UNTIL_SECONDS = 60.0
SESSIONS = 4


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
    with warehouse.connect(emptied) as connection:
        numbers = [
            number for (number,) in connection.execute(
                "select sequence from ops.heartbeats where device = %s order by beat_id",
                [f"{FEED}_listener"],
            )
        ]  # fmt: skip
    assert numbers[0] == 1
    assert numbers[-1] - numbers[0] + 1 - len(numbers) == len(told)


def test_the_server_is_away_while_events_come(
    emptied: Settings, exchange: Exchange, cluster: postgres.Cluster
) -> None:
    """The way to the exchange stays open: nothing is lost, and no number left out."""
    assert "collector" in supervision.names(emptied)
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
    # What it is told when it ends is landed before it goes.
    more = entries(5000, 300)
    exchange.tell("\n".join(more))
    time.sleep(0.3)
    collector.process.send_signal(signal.SIGTERM)
    assert collector.end().code == 0
    assert staged(emptied) == calls(lines + more)
    world.check_ledger(emptied)
    with warehouse.connect(emptied) as connection:
        beats = warehouse.one(
            connection,
            "select count(*), max(sequence) - min(sequence) + 1, count(distinct session) "
            "from (select *, split_part(position, ' ', 1) as session from ops.heartbeats "
            "where device = %s order by beat_id desc limit 4) as b", [f"{FEED}_listener"],
        )  # fmt: skip
    assert beats == (4, 4, 1)
