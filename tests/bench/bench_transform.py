"""CPU of the transform, events to facts and aggregates, against DuckDB running the same models.

Run: `python -m pytest -s tests/bench/bench_transform.py`. Calls of the day, with agents' states,
offers, steps, plans and surveys: CALLHOUSE_BENCH_CALLS (130,000). DuckDB gets the very SQL that dbt
compiled for the build, transpiled, and the rows of staging in tables of its own; both results are
compared column by column before anything is said of their cost. CPU seconds, because wall time
hangs on what else the machine does; the bound is a ratio within one run.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import psutil
import psycopg
import pytest
import sqlglot
from sqlglot import exp
from tests.bench.conftest import Tell

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

CALLS = int(os.environ.get("CALLHOUSE_BENCH_CALLS", "130000"))
REPEATS = 3
BOUND = 1.7
SLOWEST = 16
DAY = date(2026, 10, 27)
# Vendors of which no row is here; some of their models use types that DuckDB does not have.
ABSENT = ("asterisk", "amazon_connect")
# DuckDB's types for those of staging. Decimals, because seconds are exact in the marts; of three
# places, which is DuckDB's own `numeric` and what its squares fit into.
TYPES = {
    "numeric": "decimal(18, 3)",
    "timestamp with time zone": "timestamptz",
    "jsonb": "json",
    "text[]": "json",
}


@dataclass(frozen=True)
class Model:
    """A dbt model with the SQL that dbt compiled for the build that is measured."""

    name: str
    relation: str
    compiled: str
    is_view: bool
    is_absent: bool
    columns: dict[str, str]  # data type of each, as its contract says
    reads: tuple[str, ...]  # seeds and sources

    @property
    def transpiled(self) -> str:
        """The SQL for DuckDB; nothing is left of a vendor without rows but the columns."""
        if self.is_absent:
            nothing = (f"null::{in_duckdb(t)} as {c}" for c, t in self.columns.items())
            return f"select {', '.join(nothing)} limit 0"
        tree = sqlglot.parse_one(self.compiled, read="postgres").transform(rewritten)
        return tree.sql("duckdb")


def in_duckdb(data_type: str) -> str:
    """A column's type in DuckDB."""
    return "varchar[]" if data_type == "text[]" else TYPES.get(data_type, data_type)


def rewritten(node: exp.Expr) -> exp.Expr:
    """What sqlglot leaves as it is and DuckDB does not take."""
    if isinstance(node, exp.Table):
        node.set("catalog", None)
    # DuckDB formats no times of day; a day in front of it changes nothing in their labels.
    if isinstance(node, exp.Cast) and node.is_type("time"):
        return exp.cast(exp.Literal.string(f"1970-01-01 {node.this.name}"), "timestamp")
    # `FMDay`, the name of a weekday without blanks, as sqlglot misreads it.
    if isinstance(node, exp.TimeToStr) and node.text("format") == "FM%uay":
        node.set("format", exp.Literal.string("%A"))
    return node


def models_built(settings: Settings) -> list[Model]:
    """The models of the last dbt run, in the order in which it ran them."""
    target = dbt.target(settings)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    results = json.loads((target / "run_results.json").read_text(encoding="utf-8"))["results"]
    found = []
    for result in results:
        node = manifest["nodes"].get(result["unique_id"])
        if node is None or node["resource_type"] != "model":
            continue
        read = [
            manifest["nodes"].get(n) or manifest["sources"][n] for n in node["depends_on"]["nodes"]
        ]
        found.append(
            Model(
                name=node["name"],
                relation=f"{node['schema']}.{node['name']}",
                compiled=result["compiled_code"],
                is_view=node["config"]["materialized"] == "view",
                is_absent=node["path"].startswith(tuple(f"staging/{vendor}/" for vendor in ABSENT)),
                columns={c["name"]: c["data_type"] for c in node["columns"].values()},
                reads=tuple(
                    f"{r['schema']}.{r['identifier' if r['resource_type'] == 'source' else 'name']}"
                    for r in read
                    if r["resource_type"] != "model"
                ),
            )
        )
    return found


def copy_relation(
    connection: psycopg.Connection, duck: duckdb.DuckDBPyConnection, relation: str, file: Path
) -> None:
    """The rows of a relation of PostgreSQL in a table of DuckDB, under the same name."""
    columns: dict[str, str] = dict(
        connection.execute(
            "select attname, format_type(atttypid, null) from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
            [relation],
        ).fetchall()
    )
    sent = ", ".join(f"to_json({c})" if t == "text[]" else c for c, t in columns.items())
    statement = f"copy (select {sent} from {relation}) to stdout (format csv)"
    with file.open("wb") as output, connection.cursor().copy(statement.encode()) as rows:
        for block in rows:
            output.write(block)
    kept = ", ".join(
        f"from_json({c}, '[\"varchar\"]') as {c}" if t == "text[]" else c
        for c, t in columns.items()
    )
    typed = {c: TYPES.get(t, t) for c, t in columns.items()}
    duck.execute(f"create schema if not exists {relation.split('.')[0]}")
    duck.execute(
        f"create table {relation} as select {kept} from read_csv('{file}', header = false, "
        "auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '', "
        f"allow_quoted_nulls = false, columns = {typed})"
    )


def totals(columns: dict[str, str]) -> str:
    """One number for each column, alike in both dialects, and the rows before them."""
    numbers = ["count(*)"]
    for column, data_type in columns.items():
        if data_type == "boolean":
            numbers.append(f"sum({column}::integer)")
        elif data_type.startswith("timestamp"):
            numbers.append(f"sum(extract(epoch from {column}))")
        elif data_type == "date":
            numbers.append(f"sum({column} - date '2000-01-01')")
        elif data_type == "text[]":
            numbers.append(f"sum(length(array_to_string({column}, ',')))")
        elif data_type in ("text", "uuid"):
            numbers.append(f"sum(length({column}::text))")
            numbers.append(f"count(distinct {column})")
        else:
            numbers.append(f"sum({column})")
    return ", ".join(numbers)


def compare(connection: psycopg.Connection, duck: duckdb.DuckDBPyConnection, model: Model) -> int:
    """Rows of a model; fails where the two sides differ in their number or in any column."""
    wanted = f"select {totals(model.columns)} from {model.relation}"
    ours = [math.nan if n is None else float(n) for n in warehouse.one(connection, wanted)]
    row = duck.execute(wanted).fetchone() or ()
    theirs = [math.nan if n is None else float(n) for n in row]
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-6, nan_ok=True), model.name
    return int(ours[0])


def cpu_of_ended_sessions(cluster: postgres.Cluster) -> float:
    """CPU seconds of PostgreSQL's sessions and workers that have ended."""
    postmaster = int((cluster.data_directory / "postmaster.pid").read_text().splitlines()[0])
    times = psutil.Process(postmaster).cpu_times()
    return float(times.children_user + times.children_system)


def cpu_of_dbt(settings: Settings, cluster: postgres.Cluster, command: str) -> float:
    """Median CPU seconds of PostgreSQL in dbt's `run` (models) or `build` (their tests too)."""
    taken = []
    for _ in range(REPEATS):
        before = cpu_of_ended_sessions(cluster)
        dbt.run(settings, command, "--selector", "production", report=dbt.quiet)
        taken.append(cpu_of_ended_sessions(cluster) - before)
    return statistics.median(taken)


def cpu_by_model(connection: psycopg.Connection, models: list[Model]) -> dict[str, float]:
    """CPU seconds of PostgreSQL by table, each once in one session without workers."""
    connection.execute("set max_parallel_workers_per_gather = 0")
    session = psutil.Process(connection.info.backend_pid)

    def now() -> float:
        times = session.cpu_times()
        return float(times.user + times.system)

    taken = {}
    for model in models:
        if not model.is_view:
            before = now()
            connection.execute(f"create temp table measured as {model.compiled}".encode())
            taken[model.name] = now() - before
            connection.execute("drop table measured")
    return taken


def prepared(file: Path | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB that reads the models as PostgreSQL does, in memory or in a file."""
    duck: duckdb.DuckDBPyConnection = duckdb.connect(file or ":memory:")
    duck.execute("set timezone = 'UTC'")
    duck.execute(f"set threads = {os.cpu_count()}")
    duck.execute("set integer_division = true")  # as in PostgreSQL, where 7 / 4 is 1
    duck.execute("create macro trim_scale(number) as number")  # how it is written, not what it is
    for schema in ("candidate", "intake"):
        duck.execute(f"create schema {schema}")
    return duck


def statements(models: list[Model]) -> list[tuple[str, str]]:
    """The name of each model and what makes it in DuckDB."""
    return [
        (model.name, f"create or replace {kind} {model.relation} as {model.transpiled}")
        for model in models
        for kind in ("view" if model.is_view else "table",)
    ]


def cpu_of_duckdb(duck: duckdb.DuckDBPyConnection, models: list[Model]) -> list[dict[str, float]]:
    """CPU seconds of this process by model, a dictionary per repeat."""
    transpiled = statements(models)
    taken = []
    for _ in range(REPEATS):
        by_model = {}
        for name, statement in transpiled:
            before = time.process_time()
            duck.execute(statement)
            by_model[name] = time.process_time() - before
        taken.append(by_model)
    return taken


@pytest.mark.timeout(7200)
def test_the_transform_against_duckdb(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """PostgreSQL's CPU for the models of a day ≤ 1.7 × DuckDB's, where both give the same rows."""
    feed = tmp_path / "feed"
    result = simulate.write(feed, seed=3, start=DAY, days=1, calls_per_day=CALLS, dirt=False)
    landing.land(settings, "sample_hotline", [feed])
    transform.prepare(settings, dbt.quiet)
    with warehouse.connect(settings, "postgres", autocommit=True) as server:
        server.execute("alter system set autovacuum = off")
        server.execute("select pg_reload_conf()")
        server.execute("vacuum analyze")
    build_id = transform.claim(settings)
    assert build_id is not None
    transform.build(settings, build_id, dbt.quiet)
    with_tests = cpu_of_dbt(settings, cluster, "build")
    ours = cpu_of_dbt(settings, cluster, "run")
    models = models_built(settings)

    # In memory: DuckDB pays for no file, as PostgreSQL's unlogged tables pay for no journal.
    duck = prepared()
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        for relation in sorted({relation for model in models for relation in model.reads}):
            copy_relation(connection, duck, relation, tmp_path / "rows.csv")
        runs = cpu_of_duckdb(duck, models)
        tables = [model for model in models if not model.is_view]
        rows = {model.name: compare(connection, duck, model) for model in tables}
        by_model = cpu_by_model(connection, models)
    assert rows["fct_calls"] >= result.totals["calls"]
    assert all(not rows[model.name] for model in tables if model.is_absent)

    theirs = statistics.median(sum(run.values()) for run in runs)
    theirs_by_model = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    print(f"\n{result.totals['calls']:,} calls, {rows['fct_call_events']:,} events, "
          f"{sum(rows.values()):,} rows in {len(tables)} tables, equal on both sides")  # fmt: skip
    print(f"{'model':<28}{'rows':>10}{'PostgreSQL':>12}{'DuckDB':>9}{'ratio':>7}")
    for name in sorted(by_model, key=by_model.__getitem__, reverse=True)[:SLOWEST]:
        print(f"{name:<28}{rows[name]:>10,}{by_model[name]:>10.2f} s{theirs_by_model[name]:>7.2f} s"
              f"{by_model[name] / theirs_by_model[name]:>7.1f}")  # fmt: skip
    print(f"{'all, one session':<38}{sum(by_model.values()):>10.2f} s{theirs:>7.2f} s"
          f"{sum(by_model.values()) / theirs:>7.1f}")  # fmt: skip
    print(f"dbt: models {ours:.2f} CPU s in PostgreSQL, with their tests {with_tests:.2f}; "
          f"DuckDB {theirs:.2f} CPU s; ratio {ours / theirs:.2f} (bound {BOUND})")  # fmt: skip
    day = f"a day of {result.totals['calls']:,} calls"
    figure(f"{day}: SQL of the models ÷ DuckDB's, CPU", sum(by_model.values()) / theirs)
    figure(f"{day}: dbt's run of the models ÷ DuckDB's, CPU", ours / theirs, at_most=BOUND)
    figure(f"{day}: dbt's run of the models", ours, "CPU s")
    figure(f"{day}: with their tests", with_tests, "CPU s")
    assert ours / theirs <= BOUND
