"""The executive summary: the totals of its reader's facts, and no small group of all calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from callhouse import warehouse
from callhouse.bi import dashboards, layout, render
from callhouse.security import login_password
from callhouse.settings import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visitor

pytestmark = pytest.mark.timeout(1800)
SLUG = "executive_summary"
SAMPLE = "sample_hotline"


def facts(settings: Settings, person: str) -> tuple[int, float, float]:
    """Offered, service level and abandon rate of the sample, from single visits.

    Of all visits for who sees no single call, of those that the person may see for others.
    """
    opened = (
        warehouse.connect(settings)
        if person == "executive"
        else warehouse.connect_as(settings, person, login_password(settings, person))
    )
    with opened as connection:
        offered, in_time, abandoned, ended = warehouse.one(
            connection,
            "select sum(calls_offered), sum(answered_within_target), sum(calls_abandoned),"
            " sum(calls_answered + calls_abandoned) from {}.fct_queue_visits"
            " where source = %s".format("marts" if person == "executive" else "bi"),
            [SAMPLE],
        )
    return int(offered), float(in_time / ended), float(abandoned / ended)


def of_the_sample() -> str:
    """`native_filters` of the board's address: the first source by name may be another one."""
    name = dashboards.filter_id(layout.load(render.BOARDS / f"{SLUG}.yaml", "en"), "source")
    clause = f"extraFormData:(filters:!((col:source,op:IN,val:!({SAMPLE}))))"
    state = f"filterState:(label:{SAMPLE},validateStatus:!f,value:!({SAMPLE}))"
    return f"({name}:({clause},{state},id:{name},ownState:()))"


@pytest.mark.parametrize("person", ["executive", "director", "manager_gd"])
def test_the_totals_are_those_of_the_facts(
    visit: Visitor, product: Settings, artefacts: Path, person: str
) -> None:
    offered, service_level, abandon_rate = facts(product, person)
    with visit(person) as seen:
        board = layout.load(render.BOARDS / f"{SLUG}.yaml", product.language)
        charts = sum(tile.chart not in layout.WORDS_ONLY for tile in board.tiles)
        seen.open(SLUG, charts, of_the_sample())
        seen.screenshot(artefacts / f"{SLUG}_{person}.png")
        assert seen.errors() == []
        assert seen.problems == []
        assert seen.outside == []
        assert seen.number("Calls offered") == f"{offered:,}"
        assert seen.number("Service level") == f"{service_level:.1%}"
        assert seen.number("Abandon rate") == f"{abandon_rate:.1%}"
        # Satisfaction and resolution are of single calls: readers of aggregates have no rows.
        answered = [results for results in seen.tiles.values() if results[0]]
        tables = [results for results in answered if "member_name" in results[0][0]]
        assert len(tables) == 6
        for rows, totals in tables:
            for metric in ("Calls offered", "calls_offered", "Calls", "calls"):
                if metric in rows[0]:
                    assert sum(row[metric] for row in rows) == totals[0][metric]
                    assert metric.lower() != "calls offered" or totals[0][metric] == offered


def test_no_shown_group_is_small(product: Settings) -> None:
    """What the board asks, of the same login; the number of callers is in the rows themselves."""
    with warehouse.connect_as(
        product, "executive", login_password(product, "executive")
    ) as connection:
        (rows, smallest) = warehouse.one(
            connection, "select count(*), min(callers) from bi.agg_groups_daily"
        )
        assert rows
        assert smallest >= 5
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select 1 from marts.agg_calls_daily_2026_10")
