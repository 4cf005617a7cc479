"""Tiles of boards as SQL: the query that a chart is saved with, as a statement over `bi`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from psycopg import sql

from callhouse import semantic
from callhouse.bi import charts, datasets, layout, render
from callhouse.semantic import Dataset
from callhouse.settings import Settings

GRAINS = {"P1D": "day", "P1W": "week", "P1M": "month"}


@dataclass(frozen=True)
class Tile:
    """A tile with its chart's queries. `saved`: the chart's query context."""

    board: layout.Board
    name: str
    source: Dataset
    saved: dict[str, Any]


def tiles(settings: Settings) -> Iterator[Tile]:
    """Every tile of every board that asks for data."""
    catalogue = render.with_ledger(semantic.load(settings))
    for file in sorted(render.BOARDS.glob("*.yaml")):
        board = layout.load(file, settings.language)
        for tile in board.tiles:
            if tile.chart not in layout.WORDS_ONLY:
                source = datasets.find(catalogue, tile.dataset, tile.name)
                chart = charts.chart(board, tile, source, settings.language)
                saved = json.loads(chart["query_context"])
                yield Tile(board, f"{board.slug}.{tile.name}", source, saved)


def _name(text: str) -> sql.Composable:
    return sql.Identifier(text)


def _column(asked: str | dict[str, Any]) -> sql.Composable:
    """A column of a chart's query: by name, or a time cut to its grain."""
    if isinstance(asked, str):
        return _name(asked)
    return sql.SQL("date_trunc({}, {})").format(
        GRAINS[asked["timeGrain"]], _name(asked["sqlExpression"])
    )


def statement(
    source: Dataset, query: dict[str, Any], *, start: date | None = None, where: dict[str, str]
) -> sql.Composed:
    """A chart's saved query as SQL, from `start` on, of rows where columns have the values."""
    expressions = {metric.name: metric.expression for metric in source.metrics}
    # The same number in milliseconds, as it is drawn as a duration: bi/datasets.py.
    expressions |= {
        f"{metric}_clock": f"1000 * round({text})" for metric, text in expressions.items()
    }
    by = [_column(one) for one in query["columns"]]
    metrics = [sql.SQL(expressions[metric]) for metric in query["metrics"] or ()]
    conditions: list[sql.Composable] = [sql.SQL("true")]
    for one in query["filters"]:
        if one["op"] == "TEMPORAL_RANGE":
            if start is not None:
                conditions.append(sql.SQL("{} >= {}").format(_name(one["col"]), start))
        else:
            operator = sql.SQL({"==": "=", "!=": "<>"}[one["op"]])
            conditions.append(sql.SQL("{} {} {}").format(_name(one["col"]), operator, one["val"]))
    for column, value in where.items():
        conditions.append(sql.SQL("{} = {}").format(_name(column), value))
    asked = sql.SQL("select {} from bi.{} where {}").format(
        sql.SQL(", ").join([*by, *metrics]), _name(source.name), sql.SQL(" and ").join(conditions)
    )
    if metrics and by:
        places = sql.SQL(", ").join(sql.SQL(str(n + 1)) for n in range(len(by)))
        asked += sql.SQL(" group by {}").format(places)
    order = [
        sql.SQL("{} {}").format(
            sql.SQL(expressions[what]) if what in expressions else _name(what),
            sql.SQL("asc" if is_ascending else "desc"),
        )
        for what, is_ascending in query["orderby"]
    ]
    if order:
        asked += sql.SQL(" order by ") + sql.SQL(", ").join(order)
    return asked + sql.SQL(" limit {}").format(query["row_limit"])
