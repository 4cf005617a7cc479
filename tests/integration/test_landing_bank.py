"""The real AnonymousBank months: every row accounted for, the published figures to the digit."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from callhouse import landing, warehouse
from callhouse.settings import Settings
from callhouse.sources import registry

ROWS = [31_599, 33_344, 38_801, 32_036, 39_553, 37_935]
# README of the data: outcomes AGENT/HANG/PHANTOM · service n, mean, sd, median · HANG before the
# queue · offered · abandon % · service level at 20 s ignore, negative, positive, answered.
FIGURES = {
    1: ((27_060, 4_299, 240), (26_783, 185.3, 230.2, 114), 1_219, 30_140, 10.22,
        (0.5626, 0.5442, 0.5769, 0.6061)),
    2: ((27_162, 5_904, 278), (27_077, 176.9, 217.3, 107), 1_972, 31_094, 12.65,
        (0.5427, 0.5213, 0.5607, 0.5968)),
}  # fmt: skip
STATEMENT = """
with legs as (
    select outcome, abandon_stage, queue_id, wait_seconds as wait, talk_seconds as talk
    from staging.delimited_legs
    where source = 'anonymous_bank' and superseded_by is null
        and business_day between %(first)s and %(last)s
),
counts as (
    select
        count(*) filter (where outcome = 'answered') as ans,
        count(*) filter (where outcome = 'abandoned') as hang,
        count(*) filter (where outcome = 'phantom') as phantom,
        count(*) filter (where outcome = 'abandoned' and abandon_stage = 'ivr') as before,
        count(*) filter (where outcome = 'abandoned' and queue_id is not null) as ab,
        count(*) filter (where outcome = 'answered' and wait <= 20) as ans20,
        count(*) filter (
            where outcome = 'abandoned' and queue_id is not null and wait <= 20
        ) as ab20,
        count(*) filter (where talk > 0) as n,
        avg(talk) filter (where talk > 0) as mean,
        stddev_samp(talk) filter (where talk > 0) as deviation,
        percentile_cont(0.5) within group (order by talk) filter (where talk > 0) as median
    from legs
)
select
    ans, hang, phantom, n, round(mean, 1), round(deviation, 1), median, before, ans + ab,
    round(100.0 * ab / (ans + ab), 2), round(1.0 * ans20 / (ans + ab - ab20), 4),
    round(1.0 * ans20 / (ans + ab), 4), round(1.0 * (ans20 + ab20) / (ans + ab), 4),
    round(1.0 * ans20 / ans, 4)
from counts
"""


@pytest.fixture(scope="module")
def months(settings: Settings, cluster: object, bank_data: Path) -> list[landing.UnitResult]:
    """All six months, landed once."""
    with warehouse.connect(settings) as connection:
        registry.register(connection, *registry.feeds(settings))
        connection.execute("set role callhouse_owner")
        connection.execute("truncate staging.delimited_legs, ops.units cascade")
    paths = [bank_data / f"1999-{month:02d}.txt.gz" for month in range(1, 7)]
    return landing.land(settings, "anonymous_bank", paths)


def test_every_row_of_every_month_is_accounted_for(
    months: list[landing.UnitResult], connection: psycopg.Connection
) -> None:
    assert [(unit.status, unit.read) for unit in months] == [("landed", rows) for rows in ROWS]
    for unit in months:
        assert unit.read == unit.staged + unit.quarantined + unit.duplicates
        assert (unit.header_rows, unit.quarantined, unit.duplicates) == (1, 0, 0)
    staged = connection.execute(
        "select count(*), count(distinct call_id) from staging.delimited_legs"
    ).fetchone()
    assert staged == (sum(ROWS), sum(ROWS))


@pytest.mark.parametrize("month", FIGURES)
def test_the_published_figures(
    months: list[landing.UnitResult], connection: psycopg.Connection, month: int
) -> None:
    unit = months[month - 1]
    row = connection.execute(STATEMENT, {"first": unit.first_day, "last": unit.last_day}).fetchone()
    assert row is not None
    outcomes, service, before, offered, rate, levels = FIGURES[month]
    expected = (*outcomes, *service, before, offered, rate, *levels)
    assert [float(value) for value in row] == pytest.approx(list(expected), abs=1e-9)


def test_no_customer_id_is_in_the_clear(
    months: list[landing.UnitResult], connection: psycopg.Connection
) -> None:
    found = connection.execute(
        "select count(*) from staging.delimited_legs as t where t::text like '%9664491%'"
    ).fetchone()
    callers = connection.execute("select count(*) from pii.callers").fetchone()
    assert found == (0,)
    assert callers is not None and callers[0] > 10_000
