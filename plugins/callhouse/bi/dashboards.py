"""Superset dashboards from board descriptions: grid, filters and the rules all boards share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from callhouse.bi import members, theme
from callhouse.bi.board_links import ADDRESS
from callhouse.bi.datasets import CLOCK, VERSION, find, identity, known_column
from callhouse.bi.layout import WORDS_ONLY, Board, Filter, Tile
from callhouse.errors import CallhouseError

if TYPE_CHECKING:
    from callhouse.semantic import Catalogue

# One colour per meaning on all boards: metric → colour.
METRIC_COLORS = {
    "calls_offered": theme.ANSWERED,
    "calls_answered": theme.ANSWERED,
    "calls_abandoned": theme.ABANDONED,
    "abandon_rate": theme.ABANDONED,
    "service_level": theme.TARGET,
    "answer_rate": theme.ANSWERED,
    "avg_talk": theme.ANSWERED,
    "avg_hold": theme.HOLD,
    "avg_acw": theme.AFTER_CALL,
    "state_talk_seconds": theme.ANSWERED,
    "state_hold_seconds": theme.HOLD,
    "state_acw_seconds": theme.AFTER_CALL,
    "state_ring_seconds": theme.WAITING,
    "ready_seconds": theme.READY,
    "pause_seconds": theme.CLOSED,
    "transfer_rate": theme.HOLD,
    "self_service_contained": theme.GOOD,
    "self_service_containment_rate": theme.GOOD,
    "self_service_abandoned": theme.ABANDONED,
    "self_service_abandon_rate": theme.ABANDONED,
    "repeat_calls": theme.WAITING,
    "repeat_rate": theme.WAITING,
    "anonymous_contacts": theme.CLOSED,
    "fcr_24h": theme.AFTER_CALL,
    "fcr_7d": theme.GOOD,
}
# Members of dimensions, as the facts and the views of boards name them.
MEMBER_COLORS = {
    "human": theme.ANSWERED,
    "ivr": theme.AFTER_CALL,
    "bot": theme.HOLD,
    "callback": theme.WAITING,
    "voicemail": theme.CLOSED,
    "Served": theme.GOOD,
    "已满足": theme.GOOD,
    "Left unserved": theme.ABANDONED,
    "未满足": theme.ABANDONED,
    "Answered by an agent": theme.ANSWERED,
    "人工接通": theme.ANSWERED,
    "Abandoned by the caller": theme.ABANDONED,
    "放弃": theme.ABANDONED,
    "Solved in self-service": theme.GOOD,
    "自助完成": theme.GOOD,
    "Refused: outside opening hours": theme.CLOSED,
    "No queue": theme.CLOSED,
    "未进队列": theme.CLOSED,
}
CSS = """\
.dashboard-component-chart-holder .header-title { font-size: 13px; font-weight: 600; }
.superset-legacy-chart-big-number .header-line {
  font-size: 34px !important; line-height: 1.15 !important; font-weight: 600;
}
.superset-legacy-chart-big-number .subheader-line,
.superset-legacy-chart-big-number .subtitle-line {
  font-size: 12px !important; line-height: 1.3 !important; opacity: .7;
}
.dashboard-markdown { font-size: 13px; line-height: 1.55; }
"""
# A board that asks by itself and opens with one tile hangs on walls as well: on a large screen it
# is read from afar, that tile from the other end of the room.
WALL_CSS = """\
@media (min-width: 1600px) {
  .dashboard-component-chart-holder .header-title { font-size: 18px; }
  .dashboard-component-chart-holder td { font-size: 18px !important; padding: 4px 6px !important; }
  .dashboard-component-chart-holder th { font-size: 14px !important; }
  .grid-content > div:first-of-type td.right-border-only { white-space: nowrap; }
  .grid-content > div:first-of-type td:not(.right-border-only) {
    font-size: 44px !important; line-height: 1.2 !important; font-weight: 600;
    min-width: 0 !important; /* else 4.3 of these letters */
  }
}
"""


def dashboard(
    board: Board, catalogue: Catalogue, language: str, titles: dict[str, str]
) -> dict[str, Any]:
    """Asset of one board; `titles` of all boards by slug, for the links between them."""
    return {
        "dashboard_title": board.title,
        "description": board.description,
        "css": CSS + (WALL_CSS if board.refresh_seconds and len(board.rows[0].tiles) == 1 else ""),
        "slug": board.slug,
        "certified_by": None,
        "certification_details": None,
        "published": True,
        "uuid": identity("dashboard", board.slug),
        "position": _grid(board, titles),
        "metadata": {
            # A map would colour by name instead of by size; its board's other charts say it too.
            "color_scheme": None if any(t.chart == "map" for t in board.tiles) else "callhouse",
            "label_colors": _label_colors(catalogue, language),
            "shared_label_colors": [],
            "map_label_colors": {},
            "cross_filters_enabled": True,
            "refresh_frequency": board.refresh_seconds,
            "timed_refresh_immune_slices": [],
            "expanded_slices": {},
            "default_filters": "{}",
            "chart_configuration": {},
            "global_chart_configuration": {
                "scope": {"rootPath": ["ROOT_ID"], "excluded": _numbers(board, "")}
            },
            "filter_bar_orientation": "HORIZONTAL",
            "native_filter_configuration": [
                _filter(board, one, catalogue) for one in board.filters
            ],
        },
        "version": VERSION,
    }


def _label_colors(catalogue: Catalogue, language: str) -> dict[str, str]:
    # A chart of durations names the twin in milliseconds.
    clocks = {name + CLOCK: color for name, color in METRIC_COLORS.items()}
    words = members.words("", "channel", language)
    said = {words[code]: color for code, color in MEMBER_COLORS.items() if code in words}
    colors = {**METRIC_COLORS, **clocks, **MEMBER_COLORS, **said}
    for source in catalogue.datasets:
        for metric in source.metrics:
            if metric.name in METRIC_COLORS:
                label = str(getattr(metric, f"label_{language}") or metric.label_en)
                colors[label] = METRIC_COLORS[metric.name]
    return colors


def _grid(board: Board, titles: dict[str, str]) -> dict[str, Any]:
    grid: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": board.title}},
    }
    rows: list[str] = []
    number = 0
    for index, row in enumerate(board.rows, start=1):
        row_id = f"ROW-{index}"
        rows.append(row_id)
        children = []
        for tile in row.tiles:
            number += 1
            parents = ["ROOT_ID", "GRID_ID", row_id]
            node = _node(board, tile, row.height, number, parents, titles)
            grid[node["id"]] = node
            children.append(node["id"])
        grid[row_id] = {
            "type": "ROW",
            "id": row_id,
            "children": children,
            "parents": ["ROOT_ID", "GRID_ID"],
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        }
    grid["GRID_ID"] = {
        "type": "GRID",
        "id": "GRID_ID",
        "children": rows,
        "parents": ["ROOT_ID"],
    }
    return grid


def _node(
    board: Board, tile: Tile, height: int, number: int, parents: list[str], titles: dict[str, str]
) -> dict[str, Any]:
    if tile.chart in WORDS_ONLY:
        code = tile.options.get("text", "")
        if tile.chart == "links":
            code = _links(board, tile, titles)
        return {
            "type": "MARKDOWN",
            "id": f"MARKDOWN-{tile.name}",
            "children": [],
            "parents": parents,
            "meta": {"width": tile.width, "height": height, "code": code},
        }
    return {
        "type": "CHART",
        "id": f"CHART-{tile.name}",
        "children": [],
        "parents": parents,
        "meta": {
            "width": tile.width,
            "height": height,
            # A place-holder: the import puts the instance's own number here, by uuid.
            "chartId": number,
            "sliceName": tile.title,
            "uuid": identity("chart", f"{board.slug}.{tile.name}"),
        },
    }


def _links(board: Board, tile: Tile, titles: dict[str, str]) -> str:
    """Links to other boards that take the filters along (see board_links)."""
    slugs = tile.options.get("boards", [])
    if unknown := sorted(set(slugs) - set(titles)):
        raise CallhouseError(
            f"{board.slug}, tile {tile.name}: there is no board {', '.join(unknown)}"
        )
    links = " · ".join(f"[{titles[slug]}]({ADDRESS}{slug}/)" for slug in slugs)
    return f"{tile.options.get('text', '')} {links}".strip()


def _numbers(board: Board, name: str) -> list[int]:
    """Place-holders of the charts that filter `name` leaves alone, of any filter without a name."""
    return [
        number
        for number, tile in enumerate(board.tiles, start=1)
        if (name in tile.ignores if name else tile.ignores)
    ]


def filter_id(board: Board, name: str) -> str:
    """Id of filter `name`, which links to the board may use."""
    return f"NATIVE_FILTER-{identity('filter', f'{board.slug}.{name}')[:13]}"


def _filter(board: Board, one: Filter, catalogue: Catalogue) -> dict[str, Any]:
    asset: dict[str, Any] = {
        "id": filter_id(board, one.name),
        "name": one.title,
        "description": "",
        "type": "NATIVE_FILTER",
        "scope": {"rootPath": ["ROOT_ID"], "excluded": _numbers(board, one.name)},
        "cascadeParentIds": [filter_id(board, name) for name in one.after],
        "defaultDataMask": {"extraFormData": {}, "filterState": {}, "ownState": {}},
        "controlValues": {"enableEmptyFilter": False},
    }
    if one.kind == "time":
        if one.default:
            asset["defaultDataMask"] = {
                "extraFormData": {"time_range": one.default},
                "filterState": {"value": one.default},
                "ownState": {},
            }
        return {**asset, "filterType": "filter_time", "targets": [{}]}
    where = f"{board.slug}, filter {one.name}"
    column = known_column(find(catalogue, one.dataset, where), one.column, where)
    if one.kind == "range":
        target = {"column": {"name": column}, "datasetUuid": identity("dataset", one.dataset)}
        return {
            **asset,
            "filterType": "filter_range",
            "targets": [target],
            "controlValues": {"enableEmptyFilter": False, "enableSingleValue": None},
        }
    return {
        **asset,
        "filterType": "filter_select",
        # Else the first value would be shown in the bar and not applied to the tiles.
        "requiredFirst": one.is_first_value_default,
        "targets": [{"column": {"name": column}, "datasetUuid": identity("dataset", one.dataset)}],
        "controlValues": {
            "enableEmptyFilter": one.is_first_value_default,
            "defaultToFirstItem": one.is_first_value_default,
            "multiSelect": not one.is_first_value_default,
            "searchAllOptions": False,
            "inverseSelection": False,
            "sortAscending": True,
        },
    }
