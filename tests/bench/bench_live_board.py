"""The board under load, through Superset: how soon an event is seen by the chart-data interface.

Run: `make bench PYTEST=tests/bench/bench_live_board.py`. It brings a demo up, or takes the one of
CALLHOUSE_BENCH_HOME and CALLHOUSE_BENCH_PORT_BASE that runs already, whose collector follows the
log that this writes. CALLHOUSE_BENCH_RATE: events per second (200). CALLHOUSE_BENCH_SECONDS: how
long (600). CALLHOUSE_BENCH_BOARDS: boards that are open meanwhile, each with all tiles every ten
seconds, by the demo's director, manager, lead and agent in turn (10).
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests import tiles
from tests.bench.bench_live import REFRESH_SECONDS, Exchange, percentile
from tests.bench.conftest import Tell
from tests.bench.product import up
from tests.e2e.test_access import Session

from callhouse.runner import components, postgres
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Tailed

RATE = int(os.environ.get("CALLHOUSE_BENCH_RATE", "200"))
SECONDS = float(os.environ.get("CALLHOUSE_BENCH_SECONDS", "600"))
BOARDS = int(os.environ.get("CALLHOUSE_BENCH_BOARDS", "10"))
PEOPLE = ("director", "manager_gd", "lead_gz_a", "agent_103")
# Not those of the demo's own exchange, which plays on.
QUEUES = tuple(f"bench_{number}" for number in range(8))
SEEN_P95, SEEN_P99 = 5.0, 15.0  # seconds, from an event to the answer that has it


@pytest.fixture
def product(tmp_path: Path, new_port_base: Callable[[], int]) -> Iterator[Settings]:
    """A demo that is up."""
    with up(tmp_path, new_port_base(), is_demo=True) as settings:
        yield settings


def numbers(session: Session) -> dict[str, int]:
    """Superset's number of each dataset."""
    listed = session.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    return {one["table_name"]: one["id"] for one in listed}


def offered(session: Session, dataset: int) -> int:
    """Calls of the benchmark's queues, as the interface tells them."""
    count = {"expressionType": "SQL", "sqlExpression": "sum(calls_offered)", "label": "n"}
    asked = {
        "columns": [], "metrics": [count],
        "filters": [{"col": "queue_id", "op": "IN", "val": list(QUEUES)}],
    }  # fmt: skip
    answer = session.ask(dataset, asked, force=True)
    answer.raise_for_status()
    return int(answer.json()["result"][0]["data"][0]["n"] or 0)


def look(
    session: Session, asked: dict[str, dict[str, object]], start: float, stop: threading.Event,
    times: dict[str, list[float]], errors: list[str],
) -> None:  # fmt: skip
    """One open board; seconds by tile."""
    stop.wait(start)
    while not stop.is_set():
        began = time.monotonic()
        for name, context in asked.items():
            at = time.monotonic()
            answer = session.post("/api/v1/chart/data", context)
            times[name].append(time.monotonic() - at)
            if answer.status_code != 200:
                errors.append(f"{name}: {answer.status_code} {answer.text[:200]}")
        stop.wait(max(0.0, REFRESH_SECONDS - (time.monotonic() - began)))


def cpu_seconds(settings: Settings) -> dict[str, float]:
    """Of the server, of Superset and of the collector, until now, by name."""
    kept: dict[str, float] = defaultdict(float)
    server = {str(directory) for directory in postgres.data_directories(settings)}
    for process in psutil.process_iter():
        try:
            line, spent = process.cmdline(), process.cpu_times()
            whole = spent.user + spent.system
            if line and line[0].startswith("postgres:"):
                parent = process.parent()
                line = parent.cmdline() if parent else []
            if server & set(line):
                kept["PostgreSQL"] += whole + spent.children_user + spent.children_system
            elif process.environ().get("CALLHOUSE_HOME") == str(settings.home):
                text = " ".join(line)
                part = next((p for p in ("collect", "superset", "gunicorn") if p in text), "others")
                kept[part] += whole
        except psutil.Error:
            continue
    return kept


@pytest.mark.timeout(7200)
def test_events_are_seen_on_the_board(product: Settings, figure: Tell) -> None:
    """Every call is counted once; the figures are printed."""
    feed = registry.feed(product, components.SAMPLE_FEED)
    assert isinstance(feed, Tailed)
    log = registry.tail(feed)
    assert log is not None
    sessions = [Session(product, PEOPLE[n % len(PEOPLE)]) for n in range(BOARDS)]
    asking = Session(product, "director")
    known = numbers(asking)
    asked = {
        tile.name: {**tile.saved, "datasource": {"id": known[tile.source.name], "type": "table"}}
        for tile in tiles.tiles(product)
        if tile.board.refresh_seconds
    }
    assert asked
    before = offered(asking, known["live_queues"])
    exchange = Exchange(log, RATE, 7, QUEUES)
    stop, times, errors = threading.Event(), defaultdict[str, list[float]](list), list[str]()
    looking = [
        threading.Thread(
            target=look, args=(session, asked, n * REFRESH_SECONDS / BOARDS, stop, times, errors)
        )
        for n, session in enumerate(sessions)
    ]
    writer = threading.Thread(target=exchange.play, args=(stop,))
    began, spent = time.monotonic(), cpu_seconds(product)
    for thread in (writer, *looking):
        thread.start()
    seen: list[float] = []
    elapsed = 0.0
    while not stop.is_set() or len(seen) < len(exchange.entered):
        count = offered(asking, known["live_queues"]) - before
        now = time.time()
        seen += [now - at for at in exchange.entered[len(seen) : count]]
        if not stop.is_set() and time.monotonic() - began > SECONDS:
            elapsed = time.monotonic() - began
            spent = {
                name: value - spent.get(name, 0) for name, value in cpu_seconds(product).items()
            }
            stop.set()
            writer.join()
        assert time.monotonic() - began < SECONDS + 300, (
            f"{len(exchange.entered) - len(seen)} missing"
        )
        time.sleep(1)
    for thread in looking:
        thread.join()
    print(f"\n{RATE} events/s for {elapsed:.0f} s, {BOARDS} boards: {len(exchange.ends):,} events, "
          f"{len(exchange.entered):,} calls; {len(errors)} errors {errors[:2]}")  # fmt: skip
    print(f"{'':28}{'p50':>8}{'p95':>8}{'p99':>8}{'most':>8}{'n':>9}   s")
    for name, values in (("seen", seen), *sorted(times.items())):
        figures = (statistics.median(values), percentile(values, 0.95), percentile(values, 0.99),
                   max(values))  # fmt: skip
        print(f"{name:28}{''.join(f'{figure:8.3f}' for figure in figures)}{len(values):9,}")
    shares = {name: value / elapsed for name, value in spent.items()}
    told = ", ".join(f"{name} {share:.2f}" for name, share in sorted(shares.items()))
    print(f"cores of {os.cpu_count()}: {told}")
    played = f"{RATE:,} events/s, {BOARDS} boards"
    figure(f"{played}: seen, p95", percentile(seen, 0.95), "s", at_most=SEEN_P95)
    figure(f"{played}: seen, p99", percentile(seen, 0.99), "s", at_most=SEEN_P99)
    figure(f"{played}: cores of all components", sum(shares.values()), "cores")
    assert errors == []
    assert offered(asking, known["live_queues"]) - before == len(exchange.entered)
    assert percentile(seen, 0.95) < SEEN_P95
    assert percentile(seen, 0.99) < SEEN_P99
