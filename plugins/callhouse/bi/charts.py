"""Superset chart parameters for each tile type: how a number looks lives here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from callhouse.bi import members, targets, theme
from callhouse.bi.datasets import (
    CLOCK,
    CLOCK_FORMAT,
    FORMATS,
    VERSION,
    identity,
    known_column,
    shown_metric,
)
from callhouse.bi.layout import Board, Tile
from callhouse.errors import CallhouseError

if TYPE_CHECKING:
    from callhouse.semantic import Column, Dataset

COLORS = {
    "answered": theme.ANSWERED,
    "abandoned": theme.ABANDONED,
    "waiting": theme.WAITING,
    "closed": theme.CLOSED,
    "breach": theme.BREACH,
    "good": theme.GOOD,
}
# Behind the text of a cell, where the full colour would drown it.
TINTS = {
    "answered": "#D3E3F2",
    "abandoned": "#FBDDBF",
    "waiting": "#FDEBC0",
    "closed": "#E3E7EB",
    "breach": "#F6CBC6",
    "good": "#D5E8DC",
}
WORDS = {
    "en": {
        "change": "latest day vs a week earlier",
        "relative_change": "relative, latest day vs a week earlier",
        "target": "Target {bound}",
    },
    "zh": {
        "change": "最近一日较上周同日",
        "relative_change": "相对变化，最近一日较上周同日",
        "target": "目标 {bound}",
    },
}
# Days back to the comparable day: the same weekday of the week before.
WEEK = 7
ROW_LIMIT = 10_000
# Rows that a person can turn pages through; one page is asked for at a time.
PAGED_ROWS = 50_000
GRAINS = {"day": "P1D", "week": "P1W", "month": "P1M"}

Parts = tuple[str, dict[str, Any], list[dict[str, Any]]]


def chart(board: Board, tile: Tile, source: Dataset, language: str) -> dict[str, Any]:
    """Asset of the chart that `tile` of `board` shows."""
    where = f"{board.slug}, tile {tile.name}"
    viz_type, params, queries = _BUILDERS[tile.chart](tile, source, where, language)
    conditions = [
        (
            known_column(source, column, where),
            operator,
            members.shown(source.name, column, value, language),
        )
        for option, operator in (("without", "!="), ("only", "=="))
        for column, value in tile.options.get(option, {}).items()
    ]
    form = {
        "viz_type": viz_type,
        "adhoc_filters": [
            *([_period(source)] if source.main_time_column else []),
            *(_condition(*condition) for condition in conditions),
        ],
        "extra_form_data": {},
        "row_limit": ROW_LIMIT,
        **params,
    }
    if source.main_time_column and viz_type == "mixed_timeseries":
        form["adhoc_filters_b"] = form["adhoc_filters"]
    unknown = set(tile.options) - _OPTIONS[tile.chart] - {"only"}
    if unknown:
        raise CallhouseError(f"{where}: unknown keys {', '.join(sorted(unknown))}")
    context = {
        "datasource": {"id": 0, "type": "table"},
        "force": False,
        "queries": [_query(source, query, conditions) for query in queries],
        "form_data": form,
        "result_format": "json",
        "result_type": "full",
    }
    return {
        "slice_name": tile.title,
        "description": None,
        "certified_by": None,
        "certification_details": None,
        "viz_type": viz_type,
        "params": form,
        "query_context": json.dumps(context, ensure_ascii=False, sort_keys=True),
        "cache_timeout": -1 if board.refresh_seconds else None,
        "uuid": identity("chart", f"{board.slug}.{tile.name}"),
        "version": VERSION,
        "dataset_uuid": identity("dataset", source.name),
    }


def _period(source: Dataset) -> dict[str, Any]:
    # The board's period filter replaces the range; without this clause it would be ignored.
    return {
        "clause": "WHERE",
        "comparator": "No filter",
        "expressionType": "SIMPLE",
        "operator": "TEMPORAL_RANGE",
        "subject": source.main_time_column,
    }


def _condition(column: str, operator: str, value: str) -> dict[str, Any]:
    return {
        "clause": "WHERE",
        "comparator": value,
        "expressionType": "SIMPLE",
        "operator": operator,
        "subject": column,
    }


def _query(
    source: Dataset, query: dict[str, Any], conditions: list[tuple[str, str, str]]
) -> dict[str, Any]:
    filters = [
        {"col": column, "op": operator, "val": value} for column, operator, value in conditions
    ]
    if source.main_time_column:
        filters.append({"col": source.main_time_column, "op": "TEMPORAL_RANGE", "val": "No filter"})
    return {
        "filters": filters,
        "extras": {"having": "", "where": ""},
        "columns": [],
        "metrics": [],
        "orderby": [],
        "annotation_layers": [],
        "row_limit": ROW_LIMIT,
        "series_limit": 0,
        "order_desc": True,
        "url_params": {},
        "custom_params": {},
        "custom_form_data": {},
        "time_offsets": [],
        "post_processing": [],
        **query,
    }


def _by_day(source: Dataset, grain: str = "P1D") -> dict[str, Any]:
    return {
        "timeGrain": grain,
        "columnType": "BASE_AXIS",
        "sqlExpression": source.main_time_column,
        "label": source.main_time_column,
        "expressionType": "SQL",
    }


def format_of(source: Dataset, metric: str) -> str | None:
    """D3 format of the saved metric that a chart names."""
    if metric.endswith(CLOCK):
        return CLOCK_FORMAT
    return next((FORMATS[m.unit] for m in source.metrics if m.name == metric), None)


def _rgb(color: str) -> dict[str, Any]:
    r, g, b = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return {"r": r, "g": g, "b": b, "a": 1}


def _color(name: str, where: str) -> str:
    if name not in COLORS:
        raise CallhouseError(f"{where}: color {name!r} is not one of {', '.join(COLORS)}")
    return COLORS[name]


def _big_number(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    metric = shown_metric(source, tile.metric, where)
    if source.main_time_column is None:
        total = {
            "metric": metric,
            "subtitle": tile.options.get("subtitle", ""),
            "header_font_size": 0.3,
            "subtitle_font_size": 0.125,
            "y_axis_format": format_of(source, metric),
        }
        return "big_number_total", total, [{"metrics": [metric]}]
    params = {
        "metric": metric,
        "x_axis": source.main_time_column,
        "time_grain_sqla": "P1D",
        # The number is the metric of the whole period; the line shows its days.
        "aggregation": "raw",
        "compare_lag": WEEK,
        "compare_suffix": WORDS[language][
            "relative_change" if format_of(source, metric) == FORMATS["rate"] else "change"
        ],
        "show_trend_line": True,
        "start_y_axis_at_zero": False,
        "show_timestamp": False,
        "subtitle": tile.options.get("subtitle") or _target_words(source, tile.metric, language),
        "header_font_size": 0.4,
        "subheader_font_size": 0.125,
        "subtitle_font_size": 0.125,
        "y_axis_format": format_of(source, metric),
        "time_format": "%Y-%m-%d",
        "color_picker": _rgb(_color(tile.options.get("color", "answered"), where)),
        "rolling_type": "None",
    }
    days = {"columns": [_by_day(source)], "metrics": [metric]}
    return "big_number", params, [days, {"columns": [], "metrics": [metric]}]


def _date(tile: Tile, source: Dataset, where: str, _language: str) -> Parts:
    metric = shown_metric(source, tile.metric, where)
    params = {
        "metric": metric,
        "subtitle": tile.options.get("subtitle", ""),
        "header_font_size": 0.3,
        "subtitle_font_size": 0.125,
        "time_format": "%Y-%m-%d",
        "force_timestamp_formatting": True,
    }
    return "big_number_total", params, [{"metrics": [metric]}]


def _trend(tile: Tile, source: Dataset, where: str, _language: str) -> Parts:
    bars = [shown_metric(source, name, where) for name in tile.options.get("bars", ())]
    lines = [shown_metric(source, name, where) for name in tile.options.get("lines", ())]
    if not bars or not lines:
        raise CallhouseError(f"{where}: a trend needs bars and lines")
    params = {
        "x_axis": source.main_time_column,
        "time_grain_sqla": "P1D",
        "metrics": bars,
        "groupby": [],
        "seriesType": "bar",
        "stack": "Stack",
        "opacity": 1,
        "yAxisIndex": 0,
        "metrics_b": lines,
        "groupby_b": [],
        "seriesTypeB": "line",
        "markerEnabledB": True,
        "markerSizeB": 5,
        "opacityB": 0,
        "yAxisIndexB": 1,
        "row_limit_b": ROW_LIMIT,
        "truncate_metric": True,
        "truncate_metric_b": True,
        "color_scheme": "callhouse",
        "show_legend": True,
        "legendType": "plain",
        "legendOrientation": "top",
        "rich_tooltip": True,
        "tooltipTimeFormat": "%a %Y-%m-%d",
        "x_axis_time_format": "%Y-%m-%d",
        "y_axis_title": tile.options.get("bar_axis", ""),
        "y_axis_title_margin": 55,
        "y_axis_title_position": "Left",
        "yAxisTitleSecondary": tile.options.get("line_axis", ""),
        "y_axis_format": format_of(source, bars[0]),
        "y_axis_format_secondary": ".0%"
        if format_of(source, lines[0]) == ".1%"
        else format_of(source, lines[0]),
        "y_axis_bounds": [0, None],
        "y_axis_bounds_secondary": [0, 1 if format_of(source, lines[0]) == ".1%" else None],
        "zoomable": False,
    }
    day = [_by_day(source)]
    return (
        "mixed_timeseries",
        params,
        [
            {"columns": day, "metrics": bars},
            {"columns": day, "metrics": lines},
        ],
    )


def _heatmap(tile: Tile, source: Dataset, where: str, _language: str) -> Parts:
    metric = shown_metric(source, tile.metric, where)
    x, y = (known_column(source, tile.options.get(axis, ""), where) for axis in "xy")
    params = {
        "x_axis": x,
        "groupby": y,
        "metric": metric,
        "sort_x_axis": "alpha_asc",
        # Drawn from below: descending puts the first weekday on top.
        "sort_y_axis": "alpha_desc",
        "normalize_across": "heatmap",
        "linear_color_scheme": tile.options.get("scale", "callhouse_volume"),
        "legend_type": "continuous",
        "show_legend": True,
        "show_percentage": False,
        "show_values": False,
        "border_color": {"r": 255, "g": 255, "b": 255, "a": 1},
        "border_width": 1,
        "xscale_interval": 1,
        "yscale_interval": 1,
        "left_margin": "auto",
        "bottom_margin": "auto",
        "value_bounds": [None, None],
        "y_axis_format": format_of(source, metric),
        "x_axis_time_format": "smart_date",
    }
    return "heatmap_v2", params, [{"columns": [x, y], "metrics": [metric]}]


def _target_words(source: Dataset, name: str, language: str) -> str:
    """The target that metric `name` is held against, in words; empty without one."""
    if (target := targets.of(source, name)) is None:
        return ""
    sign = "≥" if target.is_minimum else "≤"
    return WORDS[language]["target"].format(bound=f"{sign} {target.bound:.0%}")


def _target_lines(source: Dataset, names: tuple[str, ...], language: str) -> list[dict[str, Any]]:
    """A dark dashed line for each different target of the metrics `names`."""
    lines = {
        words: {
            "annotationType": "FORMULA",
            "name": words,
            "value": str(target.bound),
            "style": "dashed",
            "color": theme.TARGET,
            "width": 1,
            "opacity": "",
            "show": True,
            "showLabel": True,
            "showMarkers": False,
            "hideLine": False,
            "overrides": {"time_range": None},
        }
        for name in names
        if (target := targets.of(source, name)) is not None
        and (words := _target_words(source, name, language))
    }
    return list(lines.values())


def _series(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    """Bars (`bars`) or lines (`lines`) of metrics over `x`: a column, or day, week or month."""
    metrics = [shown_metric(source, name, where) for name in tile.metrics]
    if not metrics:
        raise CallhouseError(f"{where}: {tile.chart} needs metrics")
    x = tile.options.get("x", "day")
    grain = GRAINS.get(x)
    if grain is not None and source.main_time_column is None:
        raise CallhouseError(f"{where}: dataset {source.name} has no days")
    column = source.main_time_column if grain else known_column(source, x, where)
    split = [known_column(source, c, where) for c in tile.options.get("split", ())]
    limit = int(tile.options.get("limit", ROW_LIMIT))
    # An axis of times or of ordered names reads in its own order, one of members by their size.
    is_ranked = grain is None and bool(tile.options.get("is_ranked", True))
    style = format_of(source, metrics[0])
    is_share = bool(tile.options.get("is_share"))
    is_rate = is_share or style == FORMATS["rate"]
    lines = _target_lines(source, tile.metrics, language) if tile.chart == "lines" else []
    params = {
        "x_axis": column,
        **({"time_grain_sqla": grain} if grain else {}),
        "metrics": metrics,
        "groupby": split,
        "limit": 12 if split else None,
        "row_limit": limit,
        "order_desc": True,
        "x_axis_sort": metrics[0] if is_ranked else column,
        # Horizontal bars are drawn from below.
        "x_axis_sort_asc": tile.options.get("is_horizontal", False) if is_ranked else True,
        "xAxisForceCategorical": grain is None,
        "orientation": "horizontal" if tile.options.get("is_horizontal") else "vertical",
        "stack": "Stack" if tile.chart == "bars" else None,
        "markerEnabled": tile.chart == "lines",
        "markerSize": 5,
        "annotation_layers": lines,
        "contributionMode": "row" if is_share else None,
        "truncate_metric": True,
        "only_total": True,
        "show_value": False,
        "color_scheme": "callhouse",
        "show_legend": len(metrics) > 1 or bool(split) or tile.chart == "lines",
        "legendType": "plain",
        "legendOrientation": "top",
        "rich_tooltip": True,
        "tooltipTimeFormat": "%a %Y-%m-%d",
        "x_axis_time_format": "%m-%d",
        "y_axis_format": ".0%" if is_rate else style,
        # A rate that is held against a target is read on the whole scale.
        "y_axis_bounds": [
            0 if lines or tile.chart == "bars" else None,
            1 if lines or is_share else None,
        ],
        "truncateYAxis": tile.chart == "lines",
        "zoomable": False,
    }
    axis = [_by_day(source, grain)] if grain else [column]
    order = [] if grain else [[metrics[0], False]]
    query = {
        "columns": [*axis, *split], "metrics": metrics, "orderby": order, "row_limit": limit,
        "series_columns": split,
    }  # fmt: skip
    kind = "echarts_timeseries_bar" if tile.chart == "bars" else "echarts_timeseries_line"
    return kind, params, [query]


def _spread(tile: Tile, source: Dataset, where: str, _language: str) -> Parts:
    """Box plot: how the members of `of` lie within each member of `by`."""
    metric = shown_metric(source, tile.metric, where)
    members, groups = (
        [known_column(source, c, where) for c in tile.options.get(key, ())] for key in ("of", "by")
    )
    if not members or not groups:
        raise CallhouseError(f"{where}: a spread needs of and by")
    params = {
        "columns": members,
        "groupby": groups,
        "metrics": [metric],
        "whiskerOptions": "Tukey",
        "x_ticks_layout": "auto",
        "color_scheme": "callhouse",
        "number_format": format_of(source, metric),
    }
    box = {
        "operation": "boxplot",
        "options": {"whisker_type": "tukey", "percentiles": None, "groupby": groups,
                    "metrics": [metric]},
    }  # fmt: skip
    query = {
        "columns": [*members, *groups], "metrics": [metric], "series_columns": groups,
        "post_processing": [box],
    }  # fmt: skip
    return "box_plot", params, [query]


def _flow(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    """Sankey: how many go from where to where, names in `language` where the dataset has them."""
    metric = shown_metric(source, tile.metric, where)
    origin, end = (
        _in_language(source, known_column(source, tile.options.get(key, ""), where), language)
        for key in ("from", "to")
    )
    params = {
        "source": origin,
        "target": end,
        "metric": metric,
        "sort_by_metric": True,
        "row_limit": 200,
        "color_scheme": "callhouse",
    }
    query = {"columns": [origin, end], "metrics": [metric], "orderby": [[metric, False]]}
    return "sankey_v2", params, [query]


def _in_language(source: Dataset, column: str, language: str) -> str:
    translated = f"{column}_{language}"
    return translated if translated in source.column_names else column


def _map(tile: Tile, source: Dataset, where: str, _language: str) -> Parts:
    """Provinces of China by a column of ISO codes; other codes are not on it."""
    metric = shown_metric(source, tile.metric, where)
    column = known_column(source, tile.options.get("column", ""), where)
    params = {
        "select_country": "china",
        "entity": column,
        "metric": metric,
        "number_format": format_of(source, metric),
        "linear_color_scheme": tile.options.get("scale", "callhouse_volume"),
        # This chart still asks the old way, which knows the period by its column only.
        "granularity_sqla": source.main_time_column,
        "time_range": "No filter",
    }
    return "country_map", params, [{"columns": [column], "metrics": [metric]}]


def _period_shown(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    """Which days the board shows of each source: what its period comes to."""
    shown = replace(tile, metrics=("first_day", "last_day"), options={"dimensions": ["source"]})
    return _table(shown, source, where, language)


def _highlights(
    tile: Tile, source: Dataset, resolve: Callable[[str], str], where: str, language: str
) -> list[dict[str, Any]]:
    rules = []
    for rule in tile.options.get("highlight", ()):
        rest = dict(rule)
        name = rest.pop("color", "")
        _color(name, where)
        column = rest.pop("metric", None)
        column = resolve(column) if column else rest.pop("column", "")
        if len(rest) != 1 or set(rest) - {"below", "above", "equals"}:
            raise CallhouseError(f"{where}: a highlight needs one of below, above, equals")
        ((operator, target),) = rest.items()
        symbol = {"below": "<", "above": ">", "equals": "="}[operator]
        if target == "target":
            if (found := targets.of(source, rule.get("metric", ""))) is None:
                raise CallhouseError(f"{where}: {rule.get('metric')} has no target")
            target = found.bound
        if operator == "equals":
            target = members.shown(source.name, column, target, language)
        rules.append(
            {
                "column": column,
                "operator": symbol,
                "targetValue": target,
                "colorScheme": TINTS[name],
                "useGradient": False,
            }
        )
    return rules


def _table(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    metrics = [shown_metric(source, name, where) for name in tile.metrics]
    dimensions = [known_column(source, d, where) for d in tile.options.get("dimensions", ())]
    if not metrics or not dimensions:
        raise CallhouseError(f"{where}: a table needs dimensions and metrics")
    with_bars = {shown_metric(source, name, where) for name in tile.options.get("bars", ())}
    rules = _highlights(
        tile, source, lambda name: shown_metric(source, name, where), where, language
    )
    has_totals = bool(tile.options.get("has_totals", False))
    short = {
        shown_metric(source, name, where): words
        for name, words in tile.options.get("labels", {}).items()
    }
    params = {
        "query_mode": "aggregate",
        "groupby": dimensions,
        "metrics": metrics,
        "percent_metrics": [],
        "all_columns": [],
        "timeseries_limit_metric": metrics[0],
        "order_desc": True,
        "order_by_cols": [],
        "row_limit": 1000,
        "server_pagination": False,
        "page_length": 0,
        "include_search": False,
        "show_totals": has_totals,
        "show_cell_bars": True,
        "color_pn": False,
        "table_timestamp_format": "%Y-%m-%d",
        "conditional_formatting": rules,
        "column_config": {
            metric: {
                "d3NumberFormat": format_of(source, metric),
                "showCellBars": metric in with_bars,
                "horizontalAlign": "right",
                **({"customColumnName": short[metric]} if metric in short else {}),
            }
            for metric in metrics
        },
    }
    rows = {
        "columns": dimensions,
        "metrics": metrics,
        "orderby": [[metrics[0], False]],
        "row_limit": 1000,
    }
    return "table", params, [rows, *([{"metrics": metrics}] if has_totals else [])]


def _records(tile: Tile, source: Dataset, where: str, language: str) -> Parts:
    columns = [known_column(source, c, where) for c in tile.options.get("columns", ())]
    if not columns:
        raise CallhouseError(f"{where}: records need columns")
    # "none": what a limit is reached with first, where an order would need every row.
    order = tile.options.get("order") or {"column": columns[0]}
    keys = [] if order == "none" else order if isinstance(order, list) else [order]
    sorting: list[list[Any]] = [
        [known_column(source, key.get("column", ""), where), not key.get("descending", False)]
        for key in keys
    ]
    page = int(tile.options.get("page_rows", 0))
    limit = PAGED_ROWS if page else int(tile.options.get("limit", 1000))
    params = {
        "query_mode": "raw",
        "all_columns": columns,
        "groupby": [],
        "metrics": [],
        "percent_metrics": [],
        "order_by_cols": [json.dumps(one) for one in sorting],
        "row_limit": limit,
        "server_pagination": bool(page),
        "server_page_length": page,
        "page_length": 0,
        "include_search": bool(page),
        "show_cell_bars": False,
        "color_pn": False,
        "table_timestamp_format": tile.options.get("time_format", "%Y-%m-%d %H:%M"),
        "conditional_formatting": _highlights(tile, source, str, where, language),
        "column_config": {
            c.name: config
            for c in source.columns
            if c.name in columns and (config := _record_column(tile, c))
        },
    }
    rows = {
        "columns": columns,
        "metrics": None,
        "orderby": sorting,
        "row_limit": page or limit,
    }
    counted = {**rows, "row_limit": limit, "is_rowcount": True}
    return "table", params, [rows, *([counted] if page else [])]


def _record_column(tile: Tile, column: Column) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if column.data_type == "date":
        config["d3TimeFormat"] = "%Y-%m-%d"
    if column.name.endswith("_seconds"):
        config["d3NumberFormat"] = ",.0f"
    if column.name in tile.options.get("labels", {}):
        config["customColumnName"] = tile.options["labels"][column.name]
    return config


_BUILDERS: dict[str, Callable[[Tile, Dataset, str, str], Parts]] = {
    "big_number": _big_number,
    "date": _date,
    "trend": _trend,
    "heatmap": _heatmap,
    "table": _table,
    "records": _records,
    "bars": _series,
    "lines": _series,
    "spread": _spread,
    "flow": _flow,
    "map": _map,
    "period": _period_shown,
}
_OPTIONS = {
    "big_number": {"subtitle", "color"},
    "date": {"subtitle"},
    "trend": {"bars", "lines", "bar_axis", "line_axis"},
    "heatmap": {"x", "y", "scale"},
    "table": {"dimensions", "bars", "highlight", "has_totals", "labels", "without"},
    "records": {
        "columns",
        "order",
        "highlight",
        "page_rows",
        "limit",
        "labels",
        "time_format",
        "without",
    },
    "bars": {"x", "split", "limit", "is_ranked", "is_horizontal", "is_share", "without"},
    "lines": {"x", "split", "limit", "is_ranked", "without"},
    "spread": {"of", "by", "without"},
    "flow": {"from", "to"},
    "map": {"column", "scale"},
    "period": set(),
    "text": {"text"},
}
