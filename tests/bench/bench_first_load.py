"""First load: files of calls with all details to published marts, and where the time goes.

Run: `python -m pytest -s tests/bench/bench_first_load.py`. Calls: CALLHOUSE_BENCH_LOAD (300,000),
in days of CALLHOUSE_BENCH_LOAD_DAY (10,000). The goal is 10M calls within 25 minutes on 2 cores:
10,000,000 in days of 130,000 is the whole of it. Simulating them takes longer than loading, so
CALLHOUSE_BENCH_FEED may name a folder that `./callhouse simulate` has filled. Yardstick, in the
same run: COPY of the same rows by the server itself, and the same models in DuckDB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import psutil
import psycopg
import pytest
from tests.bench import bench_landing
from tests.bench.bench_transform import (
    Model,
    copy_relation,
    models_built,
    prepared,
    statements,
)
from tests.bench.conftest import Tell

from callhouse import landing, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources.delimited import records
from callhouse.transform import dbt

CALLS = int(os.environ.get("CALLHOUSE_BENCH_LOAD", "300000"))
CALLS_PER_DAY = int(os.environ.get("CALLHOUSE_BENCH_LOAD_DAY", "10000"))
FEED = os.environ.get("CALLHOUSE_BENCH_FEED")
GOAL_CALLS, GOAL_SECONDS = 10_000_000, 25 * 60
MEMORY = 1e9  # bytes of any Python process
STAGED = [record.table for record in records.RECORDS.values() if record.partitioned]


class Memory(bench_landing.Memory):
    """The most resident bytes of this process, and of any that it starts (dbt), while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.2):
            self.most = max(self.most, process.memory_info().rss)
            for child in process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if not child.name().startswith("postgres"):
                        self.started = max(self.started, child.memory_info().rss)


class Clock:
    """Seconds by step: by the clock, of PostgreSQL and of Python."""

    def __init__(self, cluster: postgres.Cluster) -> None:
        self.cluster = cluster
        self.wall: dict[str, float] = defaultdict(float)
        self.server: dict[str, float] = defaultdict(float)
        self.python: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens within for `name`."""
        begin, server, python = time.perf_counter(), cpu_of_server(self.cluster), cpu_here()
        yield
        self.wall[name] += time.perf_counter() - begin
        self.server[name] += cpu_of_server(self.cluster) - server
        self.python[name] += cpu_here() - python


def cpu_of_server(cluster: postgres.Cluster) -> float:
    """CPU seconds of all of PostgreSQL: an audit's sessions stay open."""
    postmaster = int((cluster.data_directory / "postmaster.pid").read_text().splitlines()[0])
    process = psutil.Process(postmaster)
    seconds = 0.0
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system
    ended = process.cpu_times()
    return float(seconds + ended.children_user + ended.children_system)


def cpu_here() -> float:
    """CPU seconds of this process and of those it started and waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def simulated(directory: Path) -> Path:
    """The feed's folder, filled by a process of its own: its memory is not the load's."""
    if FEED:
        return Path(FEED)
    days = -(-CALLS // CALLS_PER_DAY)
    options = ("--days", days, "--calls-per-day", CALLS_PER_DAY, "--from", "2025-01-06")
    subprocess.run(
        [sys.executable, "-m", "callhouse", "simulate", str(directory), *map(str, options)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return directory


def copy_seconds(superuser: str) -> float:
    """What the server takes to COPY all staged rows from files into tables without an index."""
    taken = 0.0
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(superuser) as server:
        Path(folder).chmod(0o777)
        finished = str(Path(folder) / "rows")
        for table in STAGED:
            server.execute(f"copy (select * from {table}) to '{finished}'".encode())
            server.execute(f"create table public.copied (like {table})".encode())
            server.commit()
            begin = time.perf_counter()
            server.execute(f"copy public.copied from '{finished}'".encode())
            server.commit()
            taken += time.perf_counter() - begin
            server.execute("drop table public.copied")
            server.commit()
            Path(finished).unlink()
    return taken


def duckdb_seconds(settings: Settings, builds: list[list[Model]], folder: Path) -> float:
    """What DuckDB takes for the models of all builds, over the whole of staging in one file."""
    duck: duckdb.DuckDBPyConnection = prepared(folder / "duck.db")
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        for relation in sorted({r for models in builds for model in models for r in model.reads}):
            copy_relation(connection, duck, relation, folder / "rows.csv")
    begin = time.perf_counter()
    for models in builds:
        for _, statement in statements(models):
            duck.execute(statement)
    return time.perf_counter() - begin


@pytest.mark.timeout(4 * 3600)
def test_first_load(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """Every day is published, Python stays below 1 GB; 10M calls take 25 minutes at most."""
    feed = simulated(tmp_path / "feed")
    size = sum(file.stat().st_size for file in feed.iterdir() if file.is_file())
    transform.prepare(settings, dbt.quiet)
    clock, builds = Clock(cluster), []
    with Memory() as memory:
        with clock.step("landing"):
            results = landing.land(settings, "sample_hotline", [feed])
        assert {r.status for r in results} == {"landed"}
        while (build_id := transform.claim(settings)) is not None:
            with clock.step("building"):
                transform.build(settings, build_id, dbt.quiet)
            with clock.step("auditing"):
                held = transform.audit(settings, build_id, dbt.quiet)
            with clock.step("publishing"):
                report = transform.publish(settings, build_id)
            assert not held
            if report.lane == "facts":
                builds.append(models_built(settings))
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        calls, days = warehouse.one(
            connection, "select sum(calls), count(distinct business_day) from marts.fct_calls"
        )
        events = warehouse.one(connection, "select count(*) from marts.fct_call_events")[0]
        staged = {day for (day,) in connection.execute("select business_day from ops.unit_days")}
        published = {day for (day,) in connection.execute(
            "select business_day from ops.published_days where lane = 'facts'"
        )}  # fmt: skip
    assert published >= {day for day in staged if day is not None}

    rows, seconds = sum(r.staged for r in results), sum(clock.wall.values())
    print(f"\n{calls:,} calls of {days} days, {rows:,} rows landed ({size / 1e6:,.0f} MB), "
          f"{events:,} events of calls, {len(builds)} builds of facts")  # fmt: skip
    print(f"{'':<12}{'by the clock':>14}{'share':>7}{'PostgreSQL':>16}{'Python':>13}")
    for name, wall in clock.wall.items():
        print(f"{name:<12}{wall:>12.1f} s{wall / seconds:>7.0%}{clock.server[name]:>10.1f} CPU s"
              f"{clock.python[name]:>7.1f} CPU s")  # fmt: skip
    print(f"{'all':<12}{seconds:>12.1f} s, {rows / seconds:,.0f} rows/s, "
          f"{float(calls) / seconds:,.0f} calls/s; Python at most {memory.most / 1e6:,.0f} MB, "
          f"dbt {memory.started / 1e6:,.0f} MB")  # fmt: skip
    whole = seconds * GOAL_CALLS / float(calls)
    print(f"10M calls would take {whole / 60:.0f} minutes at this speed (extrapolated; goal 25)")

    superuser = (
        f"host=127.0.0.1 port={settings.postgres_port} user=postgres "
        f"password={cluster.password} dbname=callhouse"
    )
    copied = copy_seconds(superuser)
    transformed = duckdb_seconds(settings, builds, tmp_path)
    yardstick = copied + transformed
    print(f"yardstick: COPY {copied:.1f} s + DuckDB's models {transformed:.1f} s = "
          f"{yardstick:.1f} s; ratio {seconds / yardstick:.1f}")  # fmt: skip
    load = f"{calls:,} calls, {days} days"
    figure(f"{load}: by the clock ÷ COPY and DuckDB's models", seconds / yardstick)
    figure(f"{load}: 10M calls at this speed", whole / 60, "min", at_most=GOAL_SECONDS / 60)
    figure(f"{load}: Python at most", memory.most / 1e6, "MB", at_most=MEMORY / 1e6)
    assert max(memory.most, memory.started) < MEMORY
    if calls >= GOAL_CALLS:
        assert seconds <= GOAL_SECONDS
