"""Pushed events: how many a second are staged and answered, and how long senders wait."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import uvicorn
from tests.bench.conftest import Tell

from callhouse import warehouse
from callhouse.live import receiver, signing
from callhouse.runner import postgres
from callhouse.settings import Settings

FEED, SENDERS = "pushed_log", 64


@pytest.fixture(scope="module")
def url(settings: Settings, cluster: postgres.Cluster) -> Iterator[str]:
    settings.feeds_directory.mkdir(parents=True)
    (settings.feeds_directory / f"{FEED}.yaml").write_text(
        f"feed: {FEED}\nvendor: asterisk\ncountry: CN\nreceive: signed\n"
    )
    found = receiver.intakes(settings)
    app = receiver.Receiver(settings, found).app
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    stop = threading.Event()
    threads = [threading.Thread(target=server.run)]
    threads += [threading.Thread(target=intake.run, args=(stop,)) for intake in found]
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/events/{FEED}"
    server.should_exit = True
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("requests", "lines"), [(1000, 1), (1000, 50)])
def test_events_a_second(
    settings: Settings, url: str, requests: int, lines: int, figure: Tell
) -> None:
    """In closed loops: each sender waits for its answer. Without the floor's state."""
    secret = settings.secret(signing.secret_name(FEED))
    began, now = time.perf_counter(), int(time.time())
    waited: list[float] = []

    def send(number: int) -> None:
        call = f"{now}.{lines}{number:05d}"
        body = "\n".join(
            f"{now}|{call}{line:03d}|sales|NONE|ENTERQUEUE||138{number:04d}{line:04d}|1"
            for line in range(lines)
        ).encode()
        headers = {**signing.headers(secret, body), "Content-Type": "text/plain"}
        sent = time.perf_counter()
        answer = client.post(url, content=body, headers=headers)
        waited.append(time.perf_counter() - sent)
        assert answer.json()["staged"] == lines

    with (
        httpx.Client(timeout=60, limits=httpx.Limits(max_connections=SENDERS)) as client,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        list(pool.map(send, range(requests)))
    seconds = time.perf_counter() - began
    with warehouse.connect(settings) as connection:
        (units,) = warehouse.one(connection, "select count(*) from ops.units")
    p50, p99 = (statistics.quantiles(waited, n=100)[place] for place in (49, 98))
    print(
        f"\n{SENDERS} senders, {lines} lines a request: {requests * lines / seconds:.0f} events/s, "
        f"answer p50 {p50:.2f} s p99 {p99:.2f} s, {units} units so far"
    )
    pushed = f"{SENDERS} senders, {lines} lines a request"
    figure(f"{pushed}: events", requests * lines / seconds, "/s")
    figure(f"{pushed}: answered, p99", p99, "s", at_most=10)
    assert p99 < 10
