"""One day of a large centre, built again: by the clock and in CPU, from its claim to the readers.

Run: `python -m pytest -s tests/bench/bench_day.py`. Calls: CALLHOUSE_BENCH_CALLS (130,000), with
agents' states, offers, steps, plans and surveys; CALLHOUSE_BENCH_FILES names the files to take of
them (`*`; `calls_*,agents.csv,queues.csv` is calls alone). The goal is 10 s by the clock and 5 CPU
seconds of PostgreSQL. Measured are a day of which nothing has changed, and one of which the last
of 300 parts of its records comes late. Yardstick, in the same run: what the server takes to copy
the day's rows once.
"""

from __future__ import annotations

import gzip
import os
import statistics
from datetime import date
from pathlib import Path

import pytest
from tests.bench.bench_first_load import Clock, cpu_of_server
from tests.bench.conftest import Tell

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

CALLS = int(os.environ.get("CALLHOUSE_BENCH_CALLS", "130000"))
FILES = os.environ.get("CALLHOUSE_BENCH_FILES", "*").split(",")
REPEATS = 3
LATE = 300  # one of as many parts of the records comes late, each time
WALL, SERVER = 10.0, 5.0
DAY = date(2026, 10, 27)


def hold_back(feed: Path, late: Path) -> None:
    """Move the last records of the day's files to files of their own, REPEATS + 1 of each."""
    late.mkdir()
    for file in sorted(feed.glob("*.csv.gz")):
        header, *lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
        part = len(lines) // LATE
        for number in range(REPEATS + 1):
            held, lines = lines[len(lines) - part :], lines[: len(lines) - part]
            name = file.name.replace(".csv", f"_{number}.csv")
            (late / name).write_bytes(gzip.compress(header + b"".join(held)))
        file.write_bytes(gzip.compress(header + b"".join(lines)))


def drained(settings: Settings, cluster: postgres.Cluster) -> Clock:
    """What is dirty is built, audited and published; seconds by step."""
    clock = Clock(cluster)
    while (build_id := transform.claim(settings)) is not None:
        with warehouse.connect(settings) as connection:
            lane = warehouse.one(
                connection, "select lane from ops.builds where build_id = %s", [build_id]
            )[0]
        with clock.step(f"{lane}, building"):
            transform.build(settings, build_id, dbt.quiet)
        with clock.step(f"{lane}, auditing"):
            held = transform.audit(settings, build_id, dbt.quiet)
        assert not held
        with clock.step(f"{lane}, publishing"):
            transform.publish(settings, build_id)
    return clock


def tell(title: str, clocks: list[Clock]) -> tuple[float, float]:
    """Print medians by step; returns those of all, by the clock and of the server."""
    print(title)
    for step in clocks[0].wall:
        by_clock = statistics.median(c.wall[step] for c in clocks)
        of_server = statistics.median(c.server[step] for c in clocks)
        print(f"  {step:<24}{by_clock:>7.1f} s by the clock{of_server:>7.1f} CPU s in PostgreSQL")
    wall = statistics.median(sum(c.wall.values()) for c in clocks)
    server = statistics.median(sum(c.server.values()) for c in clocks)
    print(f"  {'all':<22}{wall:>7.1f} s (goal {WALL:.0f}), "
          f"{server:.1f} CPU s (goal {SERVER:.0f})")  # fmt: skip
    return wall, server


def copy_cpu(settings: Settings, cluster: postgres.Cluster) -> tuple[int, float]:
    """Rows of the day in all marts, and the server's CPU seconds for copying them once."""
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        names = [name for (name,) in connection.execute("select relation from ops.marts")]
        before, rows = cpu_of_server(cluster), 0
        for name in names:
            rows += connection.execute(
                f"create temp table copied_{name} as select * from candidate.{name}".encode()
            ).rowcount
    return rows, cpu_of_server(cluster) - before


@pytest.mark.timeout(3600)
def test_a_large_day_is_built_again(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """10 s by the clock, 5 CPU seconds of PostgreSQL; late records are in what readers see."""
    feed, late = tmp_path / "feed", tmp_path / "late"
    result = simulate.write(feed, seed=3, start=DAY, days=1, calls_per_day=CALLS, dirt=False)
    for file in feed.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in FILES):
            file.unlink()
    hold_back(feed, late)
    landing.land(settings, "sample_hotline", [feed])
    transform.prepare(settings, dbt.quiet)
    first = drained(settings, cluster)
    with warehouse.connect(settings, "postgres", autocommit=True) as server:
        server.execute("alter system set autovacuum = off")
        server.execute("select pg_reload_conf()")
        server.execute("vacuum analyze")
        server.execute("checkpoint")

    def again(number: int) -> Clock:
        transform.mark(settings, [DAY], f"bench {number}")
        return drained(settings, cluster)

    def changed(number: int) -> Clock:
        files = sorted(late.glob(f"*_{number}.csv.gz"))
        landed = landing.land(settings, "sample_hotline", files)
        assert {r.status for r in landed} == {"landed"}
        return drained(settings, cluster)

    unchanged = [again(number) for number in range(REPEATS + 1)][1:]  # the first warms caches up
    late_records = [changed(number) for number in range(REPEATS + 1)][1:]
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        calls = warehouse.one(connection, "select sum(calls) from marts.fct_calls")[0]
    assert calls == result.totals["calls"]

    rows, copied = copy_cpu(settings, cluster)
    print(f"\n{calls:,} calls, {rows:,} rows in the marts, which cost {copied:.1f} CPU s to copy")
    tell("first time", [first])
    wall, cpu = tell("nothing has changed", unchanged)
    late_wall, late_cpu = tell(f"{REPEATS} times the last of {LATE} parts came late", late_records)
    print(f"CPU of PostgreSQL: {cpu / copied:.1f} times that of copying the rows")
    day = f"a day of {calls:,} calls, {','.join(FILES)}"
    figure(f"{day}: again, by the clock", wall, "s", at_most=WALL)
    figure(f"{day}: again, PostgreSQL", cpu, "CPU s", at_most=SERVER)
    figure(f"{day}: again ÷ copying its rows, CPU", cpu / copied)
    figure(f"{day}: late records, by the clock", late_wall, "s")
    figure(f"{day}: late records, PostgreSQL", late_cpu, "CPU s")
    figure(f"{day}: late records ÷ nothing changed, CPU", late_cpu / cpu)
    assert wall <= WALL
    assert cpu <= SERVER
