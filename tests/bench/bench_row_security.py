"""What row security costs the dashboards' queries: the same statements and rows, with and without.

Run: `make bench`. Calls: CALLHOUSE_BENCH_CALLS (10 million). The bound is a ratio within one run,
of what boards open with, the newest month. The whole record is told beside it: there a query
without row security gets both cores, and one with it cannot (docs/operators/performance.md).
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.bench.conftest import Tell

from callhouse import landing, semantic, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.semantic.query import Question, compose
from callhouse.settings import Settings
from callhouse.transform import dbt

CALLS = int(os.environ.get("CALLHOUSE_BENCH_CALLS", "10000000"))
BOUND = 1.15
REPEATS = 15
START, DAYS, CALLS_PER_DAY = date(2026, 9, 28), 28, 3000
# Whole weeks: weekdays stay what they are.
FILLED = (
    "fct_calls", "fct_queue_visits", "fct_agent_connections", "agg_calls_daily", "agg_queue_15min",
    "agg_agent_daily", "agg_groups_daily",
)  # fmt: skip
# The tiles of the operations board by what they ask (superset/boards/operations_overview.yaml), and
# the explorer's: dataset, metrics, dimensions.
TILES = (
    ("agg_calls_daily", ("calls_offered", "answer_rate", "service_level", "asa"), ()),
    ("agg_calls_daily", ("service_level", "abandon_rate"), ("business_day",)),
    ("agg_calls_daily", ("calls_offered", "abandon_rate", "asa"), ("queue_name",)),
    ("agg_queue_15min", ("calls_offered", "service_level"), ("queue_name",)),
    ("fct_queue_visits", ("calls_offered", "service_level"), ("local_hour", "iso_weekday")),
    ("fct_agent_connections", ("connections_handled", "aht", "transfer_rate"),
     ("agent_name", "team_name")),
    ("fct_calls", ("abandon_rate_total", "containment_rate"), ("region_name",)),
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """A login, and the dimension and value that give a reader without row security its rows."""

    name: str
    dimension: str | None
    value: str | None


READERS = (
    Reader("director", None, None),
    Reader("manager_gd", "region", "CN-GD"),
    Reader("lead_gz_a", "team", "GZ-A"),
)


def fill(settings: Settings) -> int:
    """Copies of the published days, further and further back; how many calls there are then."""
    with warehouse.connect(settings, "postgres", autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        connection.execute("set role callhouse_owner")
        (published,) = warehouse.one(connection, "select count(*) from marts.fct_calls")
        copies = CALLS // published
        for relation in FILLED:
            columns = connection.execute(
                "select attname, format_type(atttypid, null) from pg_attribute"
                " where attrelid = %s::regclass and attnum > 0 and not attisdropped",
                [f"marts.{relation}"],
            ).fetchall()
            moved = [
                sql.SQL("{} - {} * {}").format(
                    sql.Identifier(name),
                    sql.Placeholder("days"),
                    sql.SQL("1" if kind == "date" else "interval '1 day'"),
                )
                if kind in ("date", "timestamp with time zone")
                else sql.Identifier(name)
                for name, kind in columns
            ]
            statement = sql.SQL(
                "insert into marts.{table} ({names}) select {moved} from marts.{table}"
                " where business_day >= {start}"
            ).format(
                table=sql.Identifier(relation),
                names=sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
                moved=sql.SQL(", ").join(moved),
                start=sql.Literal(START),
            )
            for n in range(1, copies):
                for offset in (0, DAYS - 1):
                    connection.execute(
                        "select ops.ensure_month(%s, %s::date - %s + %s)",
                        [relation, START, n * DAYS, offset],
                    )
                connection.execute(statement, {"days": n * DAYS})
        connection.execute("reset role")
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
        (calls,) = warehouse.one(connection, "select count(*) from marts.fct_calls")
    return int(calls)


@pytest.fixture(scope="module")
def calls(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> int:
    """How many calls were published."""
    files: Path = tmp_path_factory.mktemp("sample")
    simulate.write(files, seed=5, start=START, days=DAYS, calls_per_day=CALLS_PER_DAY, dirt=False)
    landing.land(settings, "sample_hotline", [files])
    transform.prepare(settings, dbt.quiet)
    assert transform.drain(settings, dbt.quiet).published_days >= DAYS
    with warehouse.connect(settings, "postgres") as connection:
        for person in people.DEMO_PEOPLE:
            people.ensure(settings, connection, person)
    with warehouse.connect(settings, "postgres", autocommit=True) as connection:
        connection.execute("alter system set autovacuum = off")
        connection.execute("select pg_reload_conf()")
        # As a person's login in everything else.
        connection.execute("create role bench_reader login bypassrls in role callhouse_reader")
        connection.execute(
            sql.SQL("alter role bench_reader password {}").format(
                sql.Literal(login_password(settings, "bench_reader"))
            )
        )
        for name, value in people.LOGIN_SETTINGS:
            connection.execute(
                sql.SQL("alter role bench_reader set {} = {}").format(
                    sql.Identifier(name), sql.Literal(value)
                )
            )
    return fill(settings)


@pytest.fixture
def logins(settings: Settings, calls: int) -> Iterator[dict[str, psycopg.Connection]]:
    """Open connections of the readers and of one that row security does not stop."""
    names = (*(reader.name for reader in READERS), "bench_reader")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                warehouse.connect_as(settings, name, login_password(settings, name))
            )
            for name in names
        }


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_row_security_costs_little(
    settings: Settings,
    calls: int,
    logins: dict[str, psycopg.Connection],
    reader: Reader,
    figure: Tell,
) -> None:
    """Sum of the tiles' median seconds with row security ÷ without it, equal rows, ≤ 1.15."""
    ratios = {
        period: measure(settings, logins, reader, start)
        for period, start in (("newest month", START), ("whole record", None))
    }
    for period, (guarded, free) in ratios.items():
        print(f"{reader.name}, {calls:,} calls, {period}: {guarded:.3f} s ÷ {free:.3f} s = "
              f"{guarded / free:.3f}")  # fmt: skip
        figure(f"{calls:,} calls, {reader.name}, {period}: with row security ÷ without",
               guarded / free, at_most=BOUND if period == "newest month" else None)  # fmt: skip
    guarded, free = ratios["newest month"]
    assert guarded / free <= BOUND


def measure(
    settings: Settings, logins: dict[str, psycopg.Connection], reader: Reader, start: date | None
) -> tuple[float, float]:
    """Sums of the tiles' median seconds, with row security and without it."""
    catalogue = semantic.load(settings)
    guarded, free = logins[reader.name], logins["bench_reader"]
    sums = [0.0, 0.0]
    for relation, metrics, by in TILES:
        dataset = catalogue.dataset(relation)
        if reader.dimension and reader.dimension not in dataset.dimensions:
            continue  # the board's tile is empty for this reader
        # Superset adds its own filter of the reader's scope to every query (bi/importing.py), which
        # asks for the same rows as the policy.
        where = ((reader.dimension, str(reader.value)),) if reader.dimension else ()
        question = Question(metrics, by, start, None, where)
        asked = compose(catalogue, dataset, metrics, by, question)
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(REPEATS):
            answers = []
            turns = list(enumerate((guarded, free)))
            for place, connection in turns if repeat % 2 else reversed(turns):
                begin = time.perf_counter()
                rows = connection.execute(asked).fetchall()
                times[place].append(time.perf_counter() - begin)
                connection.commit()
                answers.append(sorted(map(str, rows)))
            assert answers[0] == answers[1], (relation, by)
        medians = [statistics.median(found) for found in times]
        print(f"{reader.name} {relation} by {by or '-'}: {medians[0] * 1000:.0f} ms with row "
              f"security, {medians[1] * 1000:.0f} ms without")  # fmt: skip
        sums = [sums[0] + medians[0], sums[1] + medians[1]]
    return sums[0], sums[1]
