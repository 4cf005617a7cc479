"""The live floor in a browser: it moves, says when the lane is silent, and leads to an agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.e2e.conftest import callhouse

from callhouse import warehouse
from callhouse.bi import layout, render
from callhouse.runner import supervision
from callhouse.settings import Settings

if TYPE_CHECKING:
    from tests.e2e.conftest import Visit, Visitor

pytestmark = pytest.mark.timeout(1800)
SLUG = "live_floor"
TILES = ".dashboard-component-chart-holder"


def until(found: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(1)
    return False


def first_tile(seen: Visit) -> str:
    return seen.page.locator(TILES).first.inner_text()


def test_the_board_moves_by_itself_and_says_when_the_lane_is_silent(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    board = layout.load(render.BOARDS / f"{SLUG}.yaml", product.language)
    supervisor = supervision.Supervisor(product)

    def events() -> int:
        with warehouse.connect(product) as connection:
            counted = "select count(*) from live.asterisk_events"
            return int(warehouse.one(connection, counted)[0])

    assert until(lambda: events() > 100, 120), "the collector keeps no state"
    with visit("director") as seen:
        seen.open(SLUG, sum(tile.chart not in layout.WORDS_ONLY for tile in board.tiles))
        before, count = seen.page.screenshot(path=str(artefacts / "live_floor.png")), events()
        told = first_tile(seen)
        assert "live" in told and "STALE" not in told, told
        assert until(lambda: events() > count, 120), "nothing happens on the floor"
        seen.page.wait_for_timeout(20_000)
        assert seen.page.screenshot(path=str(artefacts / "live_floor_later.png")) != before
        assert first_tile(seen) != told
        assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])
        supervisor.stop("collector")
        try:
            assert until(lambda: "STALE" in first_tile(seen), 60), first_tile(seen)
            seen.page.screenshot(path=str(artefacts / "live_floor_stale.png"))
        finally:
            supervisor.start("collector")
        assert until(lambda: "STALE" not in first_tile(seen), 120), first_tile(seen)
        seen.page.set_viewport_size({"width": 1920, "height": 1080})  # a screen on the wall
        seen.page.wait_for_timeout(2000)
        seen.page.screenshot(path=str(artefacts / "live_floor_wall.png"))
        # Of an agent who talks: it has a conversation today. By its address: rows move meanwhile.
        row = seen.page.locator("tr", has_text="talk")
        way = row.locator("a[href^='/boards/live_day/']").first.get_attribute("href") or ""
        (agent,) = parse_qs(urlsplit(way).query)["agent_name"]
        with seen.page.expect_navigation(url="**/dashboard/live_day/**"):
            seen.page.locator(f"a[href='{way}']").click()
        seen.wait_until_drawn("live_day", 4)
        found = [row["agent_name"] for rows in seen.tiles.values() for part in rows
                 for row in part if "agent_name" in row]  # fmt: skip
        assert found and set(found) == {agent}, (agent, set(found))
        seen.page.screenshot(path=str(artefacts / "live_day.png"))
        assert (seen.errors(), seen.outside) == ([], [])
    with visit("manager_gd") as seen:
        seen.open(SLUG, 1)
        seen.page.screenshot(path=str(artefacts / "live_floor_manager_gd.png"))
        assert (seen.errors(), seen.problems, seen.outside) == ([], [], [])


def test_an_alert_is_on_the_board_as_long_as_it_is_open(
    product: Settings, visit: Visitor, artefacts: Path
) -> None:
    def shown(seen: Visit) -> list[tuple[str, str | None]]:
        seen.page.wait_for_timeout(500)  # in which answers are noted
        rows = (row for tile in seen.tiles.values() for part in tile for row in part)
        return [(row["scope_id"], row["acknowledged_by"]) for row in rows if "severity" in row]

    rule = "floor_has_calls"
    entered = callhouse(
        product, "alert", "add", rule, "--metric", "calls_offered_today", "--scope", "all",
        "--above", "1", "--clear", "0", "--severity", "critical", "--owner", "director",
        "--reason", "seen on the board",
    )  # fmt: skip
    assert entered.returncode == 0, entered.stdout
    opened = "select a.alert_id from ops.alerts as a where a.rule = %s and a.resolved_at is null"
    found: list[int] = []

    def fires() -> bool:
        with warehouse.connect(product) as connection:
            found[:] = [number for (number,) in connection.execute(opened, [rule])]
        return bool(found)

    try:
        assert until(fires, 60), "nothing fires"
        with visit("director") as seen:
            seen.open(SLUG, 6)
            assert ("*", None) in shown(seen), shown(seen)
            taken = callhouse(product, "alert", "acknowledge", str(found[0]), "--as", "director")
            assert taken.returncode == 0, taken.stdout
            assert until(lambda: ("*", "director") in shown(seen), 40), shown(seen)
            seen.page.screenshot(path=str(artefacts / "live_floor_alert.png"))
    finally:
        ended = callhouse(product, "alert", "end", rule, "--reason", "seen")
    assert ended.returncode == 0, ended.stdout
    with visit("director") as seen:
        seen.open(SLUG, 6)
        assert until(lambda: ("*", "director") not in shown(seen), 40), shown(seen)
