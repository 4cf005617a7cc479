"""How long each tile of each board takes to ask for, as people with row security, at 10M calls.

Run: `make bench PYTEST=tests/bench/bench_boards.py`. Calls: CALLHOUSE_BENCH_CALLS (10 million),
filled as in bench_row_security.py, whose tables are the large ones; what else a tile reads has the
days of a board's period, too. Statements are made of the query that the chart is saved with, with
the board's own period and one source, as Superset makes them; its own share of a tile is not in it.
Boards of the moment are in bench_live.py.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests import tiles
from tests.bench.bench_live import percentile
from tests.bench.bench_row_security import DAYS, READERS, START, calls, logins
from tests.bench.conftest import Tell

from callhouse import warehouse
from callhouse.settings import Settings

__all__ = ["calls", "logins"]  # fixtures

END = START + timedelta(days=DAYS)
PERIODS = {"": date(1900, 1, 1), "Last month": END - timedelta(days=31),
           "Last quarter": END - timedelta(days=92)}  # fmt: skip
REPEATS = 5
# Issue 8, seconds: p95 of tiles on sums, any tile on facts, one call.
SUMS_P95, FACTS, ONE_CALL = 0.150, 1.5, 0.050


def statements(settings: Settings, call: str = "") -> list[tuple[str, str, sql.Composed]]:
    """(board and tile, relation, statement) of every query of every tile over published days.

    Of one call, if given: only tiles of the explorer.
    """
    found = []
    for tile in tiles.tiles(settings):
        columns = tile.source.column_names
        if tile.board.refresh_seconds or tile.source.main_time_column != "business_day":
            continue
        if call and (tile.board.slug != "call_explorer" or "call_key" not in columns):
            continue
        (period,) = {one.default for one in tile.board.filters if one.kind == "time"} or {""}
        where = {"source": "sample_hotline"} if "source" in columns else {}
        where |= {"call_key": call} if call else {}
        for number, query in enumerate(tile.saved["queries"]):
            asked = tiles.statement(tile.source, query, start=PERIODS[period], where=where)
            found.append((f"{tile.name}{f'.{number}' if number else ''}", tile.source.name, asked))
    return found


def seconds(connection: psycopg.Connection, asked: sql.Composed) -> float:
    """Median of some repeats, the first of which is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        connection.execute(asked).fetchall()
        times.append(time.perf_counter() - begin)
        connection.commit()
    return statistics.median(times[1:])


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_every_tile_is_quick(
    settings: Settings,
    calls: int,
    logins: dict[str, psycopg.Connection],
    reader: Any,
    figure: Tell,
) -> None:
    """Tiles on sums p95 ≤ 150 ms, tiles on facts ≤ 1.5 s."""
    found = defaultdict(list)
    for tile, relation, asked in statements(settings):
        found[relation.split("_")[0] == "fct"].append((seconds(logins[reader.name], asked), tile))
    for is_fact, figures in sorted(found.items()):
        times = [figure for figure, _ in figures]
        slowest = ", ".join(f"{tile} {took:.3f}" for took, tile in sorted(figures)[:-4:-1])
        print(f"\n{reader.name}, {calls:,} calls, {'facts' if is_fact else 'sums'}: {len(times)} "
              f"queries, p50 {statistics.median(times):.3f}, p95 {percentile(times, 0.95):.3f}, "
              f"most {max(times):.3f} s: {slowest}")  # fmt: skip
    sums, facts = percentile([took for took, _ in found[False]], 0.95), max(found[True])[0]
    figure(f"{calls:,} calls, {reader.name}: tiles of sums, p95", sums, "s", at_most=SUMS_P95)
    figure(f"{calls:,} calls, {reader.name}: slowest tile of facts", facts, "s", at_most=FACTS)
    assert sums <= SUMS_P95
    assert facts <= FACTS


@pytest.mark.timeout(7200)
def test_one_call_is_found_at_once(
    settings: Settings, calls: int, logins: dict[str, psycopg.Connection], figure: Tell
) -> None:
    """Every tile of the explorer for one call ≤ 50 ms."""
    with warehouse.connect(settings) as connection:
        (call,) = warehouse.one(
            connection,
            "select call_key from marts.fct_calls where business_day = %s and agent_id is not null "
            "order by call_key limit 1",
            [START + timedelta(days=DAYS // 2)],
        )
    figures = [
        (seconds(logins["director"], asked), tile) for tile, _, asked in statements(settings, call)
    ]
    print(f"\none call of {calls:,}: " + ", ".join(f"{t} {took:.3f}" for took, t in figures))
    assert figures
    figure(f"{calls:,} calls: slowest tile of one call", max(figures)[0], "s", at_most=ONE_CALL)
    assert max(figures)[0] <= ONE_CALL
