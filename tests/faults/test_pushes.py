"""Senders push while receivers die: what was answered is there, and what comes again is no more."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.conftest import free_port_base
from tests.faults import nemesis
from tests.faults.world import World

from callhouse import warehouse
from callhouse.live import signing
from callhouse.settings import Settings

FEED = "pushed_log"
PATIENCE_SECONDS = 120.0
BATCH = 12
BAD = b"no event at all"


@pytest.fixture
def pushed(emptied: Settings) -> Iterator[Settings]:
    """An instance of which one feed receives pushes, at a port of its own."""
    mapping = emptied.feeds_directory / f"{FEED}.yaml"
    mapping.parent.mkdir(parents=True, exist_ok=True)
    mapping.write_text(f"feed: {FEED}\nvendor: asterisk\ncountry: CN\nreceive: signed\n")
    yield elsewhere(emptied)
    mapping.unlink()


def elsewhere(settings: Settings) -> Settings:
    """The same instance, with other ports."""
    base = free_port_base()
    environment = {**settings.environment, "CALLHOUSE_PORT_BASE": str(base)}
    return replace(settings, port_base=base, environment=environment)


def started(settings: Settings, port: int | None = None) -> nemesis.Command:
    receiver = nemesis.Command(settings, "receive", port=port)
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if httpx.get(f"http://127.0.0.1:{settings.receiver_port}/health").is_success:
                return receiver
        except httpx.TransportError:
            assert receiver.process.poll() is None, receiver.said()
            assert time.monotonic() < until, receiver.said()
            time.sleep(0.1)


def send(settings: Settings, body: bytes) -> dict[str, int]:
    """Counts of the answer; httpx.HTTPError where there is none, or none of success."""
    signed = signing.headers(settings.secret(signing.secret_name(FEED)), body)
    answer = httpx.post(
        f"http://127.0.0.1:{settings.receiver_port}/v1/events/{FEED}", content=body, timeout=30,
        headers={**signed, "Content-Type": "text/plain"},
    )  # fmt: skip
    counts: dict[str, int] = answer.raise_for_status().json()
    return counts


def asked(settings: Settings, statement: str) -> tuple[Any, ...]:
    with warehouse.connect(settings) as connection:
        return warehouse.one(connection, statement)


@pytest.mark.parametrize("is_committed", [False, True], ids=["before", "after"])
def test_killed_at_the_commit(pushed: Settings, simulated: World, is_committed: bool) -> None:
    lines = simulated.lines["queue_log"]
    first, second = b"".join(lines[:5]), b"".join([*lines[5:10], BAD])
    with nemesis.Door(pushed.postgres_port) as door:
        receiver = started(pushed, door.port)
        assert send(pushed, first)["staged"] == 5

        def strike() -> None:
            door.goes_on = False
            receiver.kill()

        def arm() -> None:
            """From here on the next commit of this session is that of the request."""
            door.word, door.after, door.strike, door.struck = b"COMMIT", is_committed, strike, False

        door.word, door.goes_on, door.strike = b"update ops.units set read_rows", True, arm
        with pytest.raises(httpx.TransportError):
            send(pushed, second)
        assert receiver.end().code == -9
        assert door.struck
    found = asked(pushed, "select count(*) from staging.asterisk_events")
    assert found == (10 if is_committed else 5,)
    receiver = started(pushed)
    counts = send(pushed, second)
    staged = 0 if is_committed else 5
    assert counts == {"read": 6, "staged": staged, "quarantined": 1, "duplicates": 5 - staged}
    assert send(pushed, second)["staged"] == 0
    receiver.process.terminate()
    assert receiver.end().code == 0
    found = asked(
        pushed, "select count(*), count(distinct row_hash), (select count(*) from ops.quarantine) "
        "from staging.asterisk_events",
    )  # fmt: skip
    assert found == (10, 10, 1)


def test_two_receivers_die_and_senders_send_again(
    pushed: Settings, simulated: World, chance: random.Random
) -> None:
    """Every batch goes to both, until each has answered."""
    lines = list(dict.fromkeys(simulated.lines["queue_log"]))[: 20 * BATCH]
    batches = [
        b"".join([*lines[start : start + BATCH], BAD, str(start).encode()])
        for start in range(0, len(lines), BATCH)
    ]
    places = [pushed, elsewhere(pushed)]
    receivers = [started(place) for place in places]
    answers: list[dict[str, int]] = []
    is_over = threading.Event()

    def deliver(place: Settings, body: bytes) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answers.append(send(place, body))
            except httpx.HTTPError:
                assert time.monotonic() < until, "no receiver comes back"
                time.sleep(0.1)
            else:
                return

    def strike() -> None:
        for number in (0, 1):
            if is_over.wait(chance.uniform(0.2, 1.0)):
                return
            receivers[number].kill()
            receivers[number].end()
            receivers[number] = started(places[number])

    with ThreadPoolExecutor(9) as pool:
        killer = pool.submit(strike)
        sent = [pool.submit(deliver, place, body) for body in batches for place in places]
        for done in sent:
            done.result()
        is_over.set()
        killer.result()
    for receiver in receivers:
        receiver.process.terminate()
        assert receiver.end().code == 0
    found = asked(
        pushed, "select count(*), count(distinct row_hash), (select count(*) from ops.quarantine) "
        "from staging.asterisk_events",
    )  # fmt: skip
    assert found == (len(lines), len(lines), len(batches))
    # What no receiver was told is counted, too: at most what was committed and not answered.
    assert sum(answer["staged"] for answer in answers) <= len(lines)
    assert all(answer["read"] == BATCH + 1 for answer in answers), json.dumps(answers[:3])


def test_an_exchange_that_pushes_is_killed_and_goes_on(pushed: Settings) -> None:
    """`simulate --live --into`: its log is what has arrived."""
    receiver = started(pushed)
    log = pushed.home / "pushed" / "queue_log"
    play = ("simulate", "--live", "--speed", "100", "--into", FEED)

    def until_written(count: int) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while not log.exists() or log.read_bytes().count(b"\n") < count:
            assert exchange.process.poll() is None, exchange.said()
            assert time.monotonic() < until, exchange.said()
            time.sleep(0.05)

    exchange = nemesis.Command(pushed, *play)
    until_written(10)
    exchange.kill()
    exchange.end()
    receiver.kill()
    receiver.end()
    before = log.read_bytes().count(b"\n")
    exchange = nemesis.Command(pushed, *play)
    exchange.wait_for("trying again")
    receiver = started(pushed)
    until_written(before + 50)
    for command in (exchange, receiver):
        command.process.terminate()
        assert command.end().code == 0
    written = log.read_bytes().splitlines()
    found = asked(
        pushed, "select count(*), count(distinct row_hash), (select count(*) from ops.quarantine) "
        "from staging.asterisk_events",
    )  # fmt: skip
    assert found == (len(set(written)), len(set(written)), 0)
