"""What publishing a day costs those who read meanwhile, and that none of them sees half a day.

Run: `make bench PYTEST=tests/bench/bench_readers.py`. Eight readers ask what dashboards ask all the
time, beside an analyst whose query runs as long as they do; calls of one day come in and are
published again and again. The bound is a ratio within one run.
"""

from __future__ import annotations

import contextlib
import gzip
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.bench.bench_live import percentile
from tests.bench.bench_row_security import TILES
from tests.bench.conftest import Tell

from callhouse import landing, semantic, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.semantic.query import Question, compose
from callhouse.settings import Settings
from callhouse.transform import dbt

BOUND = 3.0
START, DAYS, CALLS_PER_DAY = date(2026, 10, 5), 14, 3000
DAY = date(2026, 10, 18)
PARTS = 4  # in which the calls of DAY come
READERS = ("director", "manager_gd", "lead_gz_a", "director") * 2
QUIET_SECONDS = 40
PAUSE_SECONDS = 0.2
# One statement, hence one state: what a day has in its facts, its visits and its sums.
WHOLE_DAY = """
    select
        (select count(*) from bi.fct_calls where business_day = %s),
        (select sum(calls_offered) from bi.fct_queue_visits where business_day = %s),
        (select sum(calls) from bi.agg_calls_daily where business_day = %s),
        (select sum(calls_offered) from bi.agg_calls_daily where business_day = %s)
"""
# Does not come to its end by itself.
LONG = """
    select count(*) from bi.fct_calls as a, bi.fct_calls as b, generate_series(1, 10000) as again
    where a.arrived_at < b.ended_at
"""
Whole = tuple[int, int]


@dataclass
class Readings:
    """Seconds of every query, and what the director was told of DAY: calls and offered calls."""

    seconds: list[float] = field(default_factory=list)
    days: list[Whole] = field(default_factory=list)


def asked(settings: Settings) -> list[sql.Composed]:
    """What the tiles ask."""
    catalogue = semantic.load(settings)
    return [
        compose(catalogue, catalogue.dataset(relation), metrics, by, Question(metrics, by))
        for relation, metrics, by in TILES
    ]


def read(
    settings: Settings, person: str, statements: list[sql.Composed], is_over: threading.Event
) -> Readings:
    """One reader, with a connection of their own, until it is over."""
    found = Readings()
    with warehouse.connect_as(settings, person, login_password(settings, person)) as connection:
        connection.autocommit = True
        while not is_over.is_set():
            for statement in statements:
                begin = time.perf_counter()
                connection.execute(statement).fetchall()
                found.seconds.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            calls, visits, *sums = warehouse.one(connection, WHOLE_DAY, [DAY] * 4)
            found.seconds.append(time.perf_counter() - begin)
            if person == "director":
                assert sums == [calls, visits], "facts and sums of one moment differ"
                found.days.append((calls, visits))
            is_over.wait(PAUSE_SECONDS)
    return found


@contextmanager
def long_query(settings: Settings) -> Iterator[None]:
    """An analyst whose query takes longer than everything else here."""
    password = login_password(settings, "analyst")
    with (
        warehouse.connect_as(settings, "analyst", password) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        connection.execute("set statement_timeout = 0")

        def ask() -> None:
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                connection.execute(LONG)

        running = pool.submit(ask)
        yield
        connection.cancel()
        running.result()


@contextmanager
def readers(settings: Settings, statements: list[sql.Composed]) -> Iterator[Readings]:
    """What all readers measured, once the block is over."""
    is_over, all_of_them = threading.Event(), Readings()
    with long_query(settings), ThreadPoolExecutor(len(READERS)) as pool:
        running = [pool.submit(read, settings, name, statements, is_over) for name in READERS]
        try:
            yield all_of_them
        finally:
            is_over.set()
        for one in running:
            found = one.result()
            all_of_them.seconds += found.seconds
            all_of_them.days += found.days


def told(title: str, readings: Readings) -> float:
    """Print the figures; the 99th percentile."""
    p99 = percentile(readings.seconds, 0.99)
    print(f"{title}: {len(readings.seconds)} queries, p50 {statistics.median(readings.seconds):.3f}"
          f" s, p99 {p99:.3f} s, most {max(readings.seconds):.3f} s")  # fmt: skip
    return p99


@pytest.mark.timeout(3600)
def test_readers_hardly_notice_that_a_day_is_published(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """99th percentile of queries beside publishing ÷ without it ≤ 3; no answer is half a day."""
    del cluster
    simulate.write(
        tmp_path, seed=5, start=START, days=DAYS, calls_per_day=CALLS_PER_DAY, dirt=False
    )
    whole = tmp_path / f"calls_{DAY}.csv.gz"
    header, *lines = gzip.decompress(whole.read_bytes()).splitlines(keepends=True)
    parts = [tmp_path / f"calls_{DAY}_{number}.csv.gz" for number in range(PARTS)]
    for number, part in enumerate(parts):
        part.write_bytes(gzip.compress(b"".join([header, *lines[number::PARTS]])))
    before = [*set(tmp_path.glob("calls_*.csv.gz")) - {whole, *parts[1:]}]
    landing.land(settings, "sample_hotline", before)
    transform.prepare(settings, dbt.quiet)
    assert transform.drain(settings, dbt.quiet).published_days == DAYS
    with warehouse.connect(settings, "postgres") as connection:
        for person in people.DEMO_PEOPLE:
            people.ensure(settings, connection, person)
    with warehouse.connect(settings, "postgres", autocommit=True) as connection:
        connection.execute("vacuum analyze")
    statements = asked(settings)

    def published() -> Whole:
        with warehouse.connect(settings) as connection:
            row = warehouse.one(connection, WHOLE_DAY.replace("bi.", "marts."), [DAY] * 4)
        return row[0], row[1]

    with readers(settings, statements) as quiet:
        time.sleep(QUIET_SECONDS)
    versions = [published()]
    assert set(quiet.days) == set(versions)
    with readers(settings, statements) as beside:
        for part in parts[1:]:
            landing.land(settings, "sample_hotline", [part])
            assert transform.drain(settings, dbt.quiet).published_days == 1
            versions.append(published())
    assert len(set(versions)) == PARTS
    assert set(beside.days) <= set(versions), "a day that was never published"
    assert len(set(beside.days)) == PARTS, "every version was seen"
    ratio = told("beside publishing", beside) / told("without publishing", quiet)
    print(f"ratio of p99: {ratio:.2f} (bound {BOUND})")
    figure("p99 beside publishing ÷ without", ratio, at_most=BOUND)
    assert ratio <= BOUND
