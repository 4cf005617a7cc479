"""Relative periods of boards end with the newest published day of their source."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse import settings as settings_module
from callhouse.bi import layout, periods, render
from callhouse.errors import CallhouseError

DAYS = {"old": date(1999, 1, 31), "sample": date(2026, 11, 8), "ahead": date(2999, 1, 1)}


class Days(periods.NewestDays):
    """Days that no database is asked for."""

    def _read(self) -> dict[str, date]:
        return DAYS


@pytest.fixture
def newest(tmp_path: Path) -> Days:
    return Days(settings_module.load({"CALLHOUSE_HOME": str(tmp_path)}))


def asked(period: str, *sources: str, **more: Any) -> dict[str, Any]:
    """A query as a tile of a board sends it."""
    filters: list[dict[str, Any]] = [{"col": "business_day", "op": "TEMPORAL_RANGE", "val": period}]
    if sources:
        filters.append({"col": "source", "op": "IN", "val": [*sources]})
    return {"filters": filters, **more}


@pytest.mark.parametrize("period", ["Last month", "Last quarter", "Last 13 weeks", "last day"])
def test_a_relative_period_ends_after_the_newest_day_of_its_source(
    newest: Days, period: str
) -> None:
    query = asked(period, "sample", extras={"where": ""})
    ends = {"relative_start": "2026-11-09", "relative_end": "2026-11-09"}
    assert periods.counted_back(query, newest) == {**query, "extras": {"where": "", **ends}}
    assert query["extras"] == {"where": ""}


def test_of_several_sources_the_newest_day_counts(newest: Days) -> None:
    told = periods.counted_back(asked("Last month", "old", "sample"), newest)
    assert told["extras"]["relative_end"] == "2026-11-09"


def test_the_period_of_a_whole_query_is_one_as_well(newest: Days) -> None:
    query = {"time_range": "Last year", "filters": [{"col": "source", "op": "==", "val": "old"}]}
    assert periods.counted_back(query, newest)["extras"]["relative_start"] == "1999-02-01"


@pytest.mark.parametrize(
    "query",
    [
        asked("No filter", "sample"),
        asked("2026-10-01 : 2026-11-01", "sample"),
        asked("Last 2 hours", "sample"),
        {},
    ],
)
def test_other_periods_are_left_alone(newest: Days, query: dict[str, Any]) -> None:
    assert periods.counted_back(query, newest) == query


@pytest.mark.parametrize("sources", [(), ("nothing published",)])
def test_without_a_published_source_a_period_ends_after_today(
    newest: Days, sources: tuple[str, ...]
) -> None:
    before = newest.today()
    told = periods.counted_back(asked("Last month", *sources), newest)
    end = date.fromisoformat(told["extras"]["relative_end"])
    assert before <= end - timedelta(days=1) <= newest.today()
    assert told["extras"]["relative_start"] == str(end)


def test_a_clock_that_is_ahead_does_not_lead_into_the_future(newest: Days) -> None:
    before = newest.today()
    told = periods.counted_back(asked("Last week", "ahead"), newest)
    end = date.fromisoformat(told["extras"]["relative_end"])
    assert before <= end - timedelta(days=1) <= newest.today()


def test_every_board_with_a_period_begins_with_one() -> None:
    boards = [layout.load(file, "en") for file in sorted(render.BOARDS.glob("*.yaml"))]
    chosen = {
        board.slug: one.default for board in boards for one in board.filters if one.kind == "time"
    }
    assert len(chosen) >= 10
    assert set(chosen.values()) <= set(layout.PERIODS)
    assert chosen["executive_summary"] == "Last quarter"
    shown = {board.slug for board in boards for tile in board.tiles if tile.chart == "period"}
    # The trail of accesses has no source.
    assert shown == set(chosen) - {"access_audit"}
    for period in layout.PERIODS:
        assert periods.RELATIVE.fullmatch(period)


def test_a_board_without_a_period_s_default_is_refused(tmp_path: Path) -> None:
    text = (render.BOARDS / "channels.yaml").read_text("utf-8")
    content = yaml.safe_load(text)
    content["filters"]["period"] = "Last century"
    file = tmp_path / "channels.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(CallhouseError, match="'Last century' is not one of Last day"):
        layout.load(file, "en")
