"""The board Data quality in a browser: what SQL says, and nothing for who may not see all calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from callhouse import warehouse
from callhouse.bi import layout, render
from callhouse.settings import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visitor

pytestmark = pytest.mark.timeout(1800)
SLUG = "data_quality"
LEDGER = """
    select
        (select count(*) from ops.quarantine where discarded_at is null),
        (
            select sum(read_rows - staged_rows - duplicate_rows) from ops.units
        ) - (select count(*) from ops.quarantine)
"""


def test_who_sees_all_calls_sees_the_ledger(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    board = layout.load(render.BOARDS / f"{SLUG}.yaml", product.language)
    titles = {tile.name: tile.title for tile in board.tiles}
    charts = sum(tile.chart not in layout.WORDS_ONLY for tile in board.tiles)
    with warehouse.connect(product) as connection:
        open_rows, missing_rows = warehouse.one(connection, LEDGER)
    assert (open_rows > 0, missing_rows) == (True, 0)
    with visit("director") as seen:
        seen.open(SLUG, charts)
        seen.screenshot(artefacts / "data_quality_director.png")
        assert seen.number(titles["rows_open"]) == f"{open_rows:,}"
        assert seen.number(titles["rows_missing"]) == "0"
        assert seen.number(titles["balances_broken"]) == "0"
        assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])
    with visit("manager_gd") as seen:
        seen.open(SLUG, 1)
        seen.screenshot(artefacts / "data_quality_manager_gd.png")
        assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])
        filled = [rows for results in seen.tiles.values() for rows in results if len(rows) > 1]
        # The state of the days is all that has rows; sums over no rows are empty.
        assert len(filled) == 1
        assert {"business_day", "status"} <= filled[0][0].keys()
        totals = [rows[0] for results in seen.tiles.values() for rows in results if len(rows) == 1]
        shown = {name: value for row in totals for name, value in row.items() if value}
        assert shown.keys() <= {"data_as_of"}


def test_pages_of_audits_are_for_who_sees_all_calls(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    with visit("director") as seen:
        answer = seen.page.goto(f"{seen.base}/audits/")
        assert answer is not None
        assert answer.status == 200
        seen.page.click("text=marts_queues")
        assert "abandon rate is plausible" in seen.page.inner_text("body")
        seen.screenshot(artefacts / "audit_page_director.png")
        assert (seen.problems, seen.outside) == ([], [])
    with visit("manager_gd") as seen:
        assert seen.page.request.get(f"{seen.base}/audits/").status == 403
        seen.page.context.clear_cookies()
        stranger = seen.page.request.get(f"{seen.base}/audits/", max_redirects=0)
        assert stranger.status == 302
        outside = seen.page.request.get(f"{seen.base}/audits/../secrets/", max_redirects=0)
        assert outside.status in (302, 404)
