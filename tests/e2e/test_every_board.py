"""Every tile of every board: Superset answers what SQL does, to people of each kind; all draw."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import tiles
from tests.e2e.test_access import Session
from tests.e2e.test_boards import SAMPLE, charts, chosen

from callhouse import bi, warehouse
from callhouse.bi import layout, render
from callhouse.security import login_password
from callhouse.settings import LANGUAGES, Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visitor

pytestmark = pytest.mark.timeout(3600)
PEOPLE = ("director", "manager_gd", "lead_gz_a")
SLUGS = sorted(file.stem for file in render.BOARDS.glob("*.yaml"))
# What Superset computes of an answer is not SQL's.
COMPUTED = {"agents_teams.peers"}
# What the sample's exchange adds to all the time.
MOVES = {"fct_landed_units", "fct_landed_days", "capture_status", "fct_capture_health"}
TIMES = 1e11  # milliseconds of 1973; no count or sum of the sample is as large


def told(value: Any) -> Any:
    """A value of either side in one notation: times as milliseconds, fractions to nine digits."""
    if isinstance(value, datetime):
        return round((value - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))
    if isinstance(value, date):
        return (value - date(1970, 1, 1)) // timedelta(milliseconds=1)
    if isinstance(value, float | Decimal):
        number = float(value)
        return round(number) if abs(number) >= TIMES else float(f"{number:.9g}")
    return value


@pytest.fixture
def asks_for_all(request: pytest.FixtureRequest) -> bool:
    """Whether all that there is is looked at, which takes half an hour, or a part of it."""
    return bool(request.config.getoption("every_board"))


@pytest.mark.parametrize("person", PEOPLE)
def test_every_tile_answers_what_sql_does(
    product: Settings, person: str, asks_for_all: bool
) -> None:
    """By the interface that the board itself asks, with the query that the chart is saved with."""
    if not asks_for_all and person != "manager_gd":
        pytest.skip("asked with --every-board (make test-boards)")
    session = Session(product, person)
    listed = session.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    numbers = {one["table_name"]: one["id"] for one in listed}
    compared, with_rows = 0, 0
    with warehouse.connect_as(product, person, login_password(product, person)) as connection:
        for tile in tiles.tiles(product):
            # What is now has changed until SQL is asked: tests/integration/test_live.py.
            if tile.board.refresh_seconds or tile.source.name in MOVES or tile.name in COMPUTED:
                continue
            asked = {**tile.saved, "datasource": {"id": numbers[tile.source.name], "type": "table"}}
            answer = session.post("/api/v1/chart/data", asked)
            assert answer.status_code == 200, (tile.name, answer.text[:500])
            for query, result in zip(tile.saved["queries"], answer.json()["result"], strict=True):
                if query.get("is_rowcount"):
                    continue
                rows = connection.execute(tiles.statement(tile.source, query, where={})).fetchall()
                by_api = [tuple(told(row[name]) for name in result["colnames"])
                          for row in result["data"]]  # fmt: skip
                by_sql = [tuple(told(value) for value in row) for row in rows]
                assert len(by_api) == len(by_sql), tile.name
                # Of rows that are equal in what orders them either may be the last.
                if len(rows) < query["row_limit"]:
                    assert Counter(by_api) == Counter(by_sql), tile.name
                compared += 1
                with_rows += bool(rows)
    assert compared > 100
    assert with_rows > 50


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_board_draws(
    product: Settings, visit: Visitor, artefacts: Path, language: str, asks_for_all: bool
) -> None:
    """No tile in error, every title in its language, nothing from outside."""
    if not asks_for_all:
        pytest.skip("drawn with --every-board (make test-boards)")
    bi.install(replace(product, language=language), print)
    try:
        draw(visit, artefacts, language)
    finally:
        bi.install(product, print)


def draw(visit: Visitor, artefacts: Path, language: str) -> None:
    """Open every board as people of each kind."""
    for person in PEOPLE:
        with visit(person) as seen:
            for slug in SLUGS:
                board = layout.load(render.BOARDS / f"{slug}.yaml", language)
                # The floor's source is another one: that of the exchange.
                filters = "()" if board.refresh_seconds else chosen(board, source=SAMPLE)
                seen.open(slug, charts(board), filters if filters != "()" else "")
                seen.screenshot(artefacts / f"{slug}_{person}_{language}.png")
                assert (seen.errors(), seen.problems, seen.outside) == ([], [], []), (slug, person)
                shown = set(seen.page.locator(".header-title").all_inner_texts())
                assert {tile.title for tile in board.tiles if tile.title} <= shown, (slug, person)
                assert board.title in seen.page.inner_text("body"), (slug, person)
