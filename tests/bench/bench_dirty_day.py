"""Cost of one dirty day, staging to published, with 1 day and with a year of history; and cost of
the follow-ups that its calls make dirty, with as much history as they read and with a year.

Run: `make bench`. Days of history: CALLHOUSE_BENCH_DAYS (365), each of CALLHOUSE_BENCH_CALLS
(3,000) calls with all details. Postgres' CPU seconds, because wall time hangs on what else the
machine does; the bound is a ratio within one run.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import date, timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.bench.conftest import Tell

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources.delimited import records
from callhouse.transform import dbt

HISTORY = int(os.environ.get("CALLHOUSE_BENCH_DAYS", "365"))
CALLS = int(os.environ.get("CALLHOUSE_BENCH_CALLS", "3000"))
REPEATS = 4
BOUND = 1.15
DAY = date(2026, 10, 27)
STAGED = {record.name: record.table for record in records.RECORDS.values() if record.partitioned}
# What new calls on the newest day make dirty. It reads 17 days; partitions are monthly, so the
# history to compare with is the whole month.
FOLLOWED_UP = [DAY - timedelta(days=n) for n in range(9)]
WINDOW = DAY.day


def backend_cpu(cluster: postgres.Cluster) -> float:
    """CPU seconds of every backend that has ended.

    Not those of the checkpointer and its like: after a load they are busy for minutes with pages
    of other days.
    """
    postmaster = int((cluster.data_directory / "postmaster.pid").read_text().splitlines()[0])
    times = psutil.Process(postmaster).cpu_times()
    return float(times.children_user + times.children_system)


def measure(settings: Settings, cluster: postgres.Cluster, title: str) -> tuple[float, float]:
    """Median (CPU seconds, wall seconds) of rebuilding and publishing DAY."""
    cpu, wall = [], []
    for number in range(REPEATS + 1):
        transform.mark(settings, [DAY], f"bench {number}")
        before, begin = backend_cpu(cluster), time.perf_counter()
        outcome = transform.drain(settings, dbt.quiet)
        assert outcome.published_days == 1
        if number:  # the first run warms caches up
            assert outcome.followed_up_days == 0, "no call has changed"
            wall.append(time.perf_counter() - begin)
            cpu.append(backend_cpu(cluster) - before)
    print(f"{title}: {statistics.median(cpu):.2f} CPU s in Postgres, "
          f"{statistics.median(wall):.1f} s wall")  # fmt: skip
    return statistics.median(cpu), statistics.median(wall)


def measure_followups(settings: Settings, cluster: postgres.Cluster, title: str) -> float:
    """Median CPU seconds of rebuilding and publishing the follow-ups that DAY makes dirty."""
    cpu = []
    for number in range(REPEATS + 1):
        transform.mark_followups(settings, FOLLOWED_UP, f"bench {number}")
        before = backend_cpu(cluster)
        outcome = transform.drain(settings, dbt.quiet)
        assert (outcome.published_days, outcome.followed_up_days) == (0, len(FOLLOWED_UP))
        if number:
            cpu.append(backend_cpu(cluster) - before)
    print(f"{title}: {statistics.median(cpu):.2f} CPU s in Postgres for {len(FOLLOWED_UP)} days")
    return statistics.median(cpu)


def load_history(settings: Settings, offsets: range) -> None:
    """Stage and publish copies of DAY, follow-ups included."""
    with warehouse.connect(settings) as connection:
        landed = {record for (record,) in connection.execute("select record from ops.units")}
        for record in STAGED.keys() & landed:
            copy_days(connection, record, STAGED[record], offsets)
            connection.commit()  # with it go the locks of a thousand partitions
        connection.execute("reset role")
    transform.mark(settings, None, "bench history")
    begin = time.perf_counter()
    outcome = transform.drain(settings, dbt.quiet)
    assert outcome.published_days == offsets.stop
    print(f"{offsets.stop} days loaded, published and followed up in "
          f"{time.perf_counter() - begin:.0f} s")  # fmt: skip
    with warehouse.connect(settings, "postgres", autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")


def copy_days(connection: psycopg.Connection, record: str, table: str, offsets: range) -> None:
    """History of one record made of copies of DAY, with their own days and times."""
    columns = [
        row[0]
        for row in connection.execute(
            "select attname from pg_attribute where attrelid = %s::regclass"
            " and attnum > 0 and not attisdropped order by attnum",
            [table],
        )
    ]

    def shifted(column: str) -> str:
        if column == "business_day":
            return "business_day - %(n)s"
        if column in ("call_id", "survey_id"):
            return f"{column} || '-' || %(n)s"
        if column == "unit_id":
            return "%(unit)s"
        return f"{column} - %(n)s * interval '1 day'" if column.endswith("_at") else column

    copied = ", ".join(map(shifted, columns))
    connection.execute("set role callhouse_owner")
    for n in offsets:
        day = DAY - timedelta(days=n)
        # A unit of its own for each day: the audit compares the ledger with what is staged.
        unit, staged = warehouse.one(
            connection,
            "insert into ops.units (source, record, name, content_hash, size_bytes, status,"
            " read_rows, staged_rows, first_day, last_day)"
            " select source, record, name, content_hash || %s, size_bytes, status,"
            " staged_rows, staged_rows, %s, %s"
            " from ops.units where first_day = %s and record = %s returning unit_id, staged_rows",
            [str(n), day, day, DAY, record],
        )
        name = f"{table}_{day:%Y_%m_%d}"
        connection.execute(f"create table {name} (like {table} including all)")
        connection.execute(
            f"insert into {name} ({', '.join(columns)})"
            f" select {copied} from {table} where business_day = '{DAY}'",
            {"n": n, "unit": unit},
        )
        connection.execute(
            f"alter table {table} attach partition {name}"
            f" for values from ('{day}') to ('{day + timedelta(days=1)}')"
        )
        connection.execute(
            "insert into ops.unit_days (unit_id, business_day, staged_rows) values (%s, %s, %s)",
            [unit, day, staged],
        )


@pytest.mark.timeout(3600)
def test_a_dirty_day_costs_the_same_with_a_year_behind_it(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """Ratio of Postgres' CPU with HISTORY days to that with one day ≤ 1.15."""
    simulate.write(tmp_path, seed=3, start=DAY, days=1, calls_per_day=CALLS, dirt=False)
    landing.land(settings, "sample_hotline", [tmp_path])
    transform.prepare(settings, dbt.quiet)
    with warehouse.connect(settings, "postgres", autocommit=True) as connection:
        connection.execute("alter system set autovacuum = off")
        connection.execute("select pg_reload_conf()")
    one, one_wall = measure(settings, cluster, "1 day of history")
    load_history(settings, range(1, WINDOW))
    near = measure_followups(settings, cluster, f"follow-ups, {WINDOW} days of history")
    load_history(settings, range(WINDOW, HISTORY))
    many, many_wall = measure(settings, cluster, f"{HISTORY} days of history")
    print(f"ratio: {many / one:.2f} CPU (bound {BOUND}), {many_wall / one_wall:.2f} wall")
    history = f"{CALLS:,} calls a day, 1 to {HISTORY:,} days"
    figure(f"{history}: one dirty day, CPU", many / one, at_most=BOUND)
    figure(f"{history}: one dirty day", many, "CPU s")
    assert many / one <= BOUND
    far = measure_followups(settings, cluster, f"follow-ups, {HISTORY} days of history")
    print(f"ratio of follow-ups: {far / near:.2f} CPU")
    figure(f"{CALLS:,} calls a day, {WINDOW} to {HISTORY:,} days: follow-ups, CPU", far / near)
