"""Board descriptions in superset/boards: what a person writes, read and checked for form."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from callhouse.bi import targets
from callhouse.errors import CallhouseError
from callhouse.settings import LANGUAGES, REPOSITORY

GRID_COLUMNS = 12
MINIMUM_WIDTH = 3
CHARTS = (
    "big_number", "date", "trend", "heatmap", "table", "records", "bars", "lines", "spread",
    "flow", "map", "period", "text", "links",
)  # fmt: skip
SHARED_FILTERS = REPOSITORY / "superset" / "filters.yaml"
# What a period may be at first: words of Superset's that its filter shows as they are. They end
# with the newest published day of the chosen source (see periods.py).
PERIODS = ("Last day", "Last week", "Last month", "Last quarter", "Last year")
# Tiles that ask nothing of the database.
WORDS_ONLY = ("text", "links")


@dataclass(frozen=True)
class Filter:
    """A filter of the board; `after` names filters that narrow its choices.

    `kind`: `time` (the period), `value` (some values of a column) or `range` (from one number to
    another). A period may have a `default`, one of PERIODS.
    """

    kind: str
    name: str
    title: str
    dataset: str = ""
    column: str = ""
    is_first_value_default: bool = False
    after: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True)
class Tile:
    """One tile. `options` holds the keys that only its chart type knows.

    `ignores`: filters of the board that do not narrow it; then clicks in other tiles do not either.
    """

    name: str
    chart: str
    width: int
    title: str = ""
    dataset: str = ""
    metrics: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The one metric of a chart that shows one."""
        if len(self.metrics) != 1:
            raise CallhouseError(
                f"tile {self.name}: a {self.chart} shows exactly one metric, not "
                f"{len(self.metrics)}"
            )
        return self.metrics[0]


@dataclass(frozen=True)
class Row:
    """Tiles side by side; `height` in grid units of 8 px."""

    height: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard, in one language."""

    slug: str
    title: str
    description: str
    filters: tuple[Filter, ...]
    rows: tuple[Row, ...]
    refresh_seconds: int = 0  # 0: when asked; else every tile is asked for again, past every cache

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, in reading order."""
        return tuple(tile for row in self.rows for tile in row.tiles)


def load(file: Path, language: str) -> Board:
    """The board that `file` describes, its words in `language`; CallhouseError if malformed."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CallhouseError(f"{file.name} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise CallhouseError(f"{file.name} must be a mapping with slug, title, filters and rows")
    return _Reader(file.name, language).board(content)


@dataclass(frozen=True)
class _Reader:
    file: str
    language: str

    def fail(self, where: str, problem: str) -> CallhouseError:
        return CallhouseError(f"{self.file}: {where}: {problem}")

    def board(self, content: dict[str, Any]) -> Board:
        rest = dict(content)
        board = Board(
            slug=str(self.take(rest, "board", "slug")),
            title=self.words(self.take(rest, "board", "title"), "title"),
            description=self.words(self.take(rest, "board", "description"), "description"),
            filters=self.filters(rest.pop("filters", [])),
            rows=tuple(self.row(r) for r in self.take(rest, "board", "rows")),
            refresh_seconds=int(rest.pop("refresh_seconds", 0)),
        )
        if rest:
            raise self.fail("board", f"unknown keys {', '.join(sorted(rest))}")
        names = [tile.name for tile in board.tiles]
        if doubles := sorted({name for name in names if names.count(name) > 1}):
            raise self.fail("board", f"several tiles are called {', '.join(doubles)}")
        known = {f.name for f in board.filters}
        for one in board.filters:
            if missing := sorted(set(one.after) - known):
                raise self.fail(f"filter {one.name}", f"no filter called {', '.join(missing)}")
        for tile in board.tiles:
            if missing := sorted(set(tile.ignores) - known):
                raise self.fail(f"tile {tile.name}", f"no filter called {', '.join(missing)}")
        return board

    def filters(self, content: list[Any] | dict[str, Any]) -> tuple[Filter, ...]:
        """The board's own filters, or the shared ones that it names with their `dataset`.

        A shared filter that names a dataset itself has that one on every board.
        """
        if isinstance(content, list):
            return tuple(self.filter(f) for f in content)
        rest = dict(content)
        dataset = self.take(rest, "filters", "dataset")
        names = self.take(rest, "filters", "shared")
        period = self.take(rest, "filters", "period") if "period" in names else ""
        if rest:
            raise self.fail("filters", f"unknown keys {', '.join(sorted(rest))}")
        shared = yaml.safe_load(SHARED_FILTERS.read_text(encoding="utf-8"))
        if unknown := sorted(set(names) - {one["name"] for one in shared}):
            raise self.fail("filters", f"no shared filter called {', '.join(unknown)}")
        chosen = [one for one in shared if one["name"] in names]
        if names != [one["name"] for one in chosen]:
            raise self.fail("filters", f"the order is that of {SHARED_FILTERS.name}")
        return tuple(
            self.filter(
                {**one, "default": period}
                if one["kind"] == "time"
                else {
                    **one,
                    "dataset": one.get("dataset", dataset),
                    "after": [name for name in one.get("after", ()) if name in names],
                }
            )
            for one in chosen
        )

    def filter(self, content: dict[str, Any]) -> Filter:
        rest = dict(content)
        name = str(self.take(rest, "filter", "name"))
        where = f"filter {name}"
        kind = self.take(rest, where, "kind")
        if kind not in ("time", "value", "range"):
            raise self.fail(where, f"kind {kind!r} is not one of time, value, range")
        title = self.words(self.take(rest, where, "title"), where)
        if kind == "time":
            default = str(rest.pop("default", ""))
            if default and default not in PERIODS:
                raise self.fail(where, f"{default!r} is not one of {', '.join(PERIODS)}")
            found = Filter(kind, name, title, default=default)
        else:
            found = Filter(
                kind,
                name,
                title,
                dataset=self.take(rest, where, "dataset"),
                column=self.take(rest, where, "column"),
                is_first_value_default=bool(rest.pop("is_first_value_default", False)),
                after=tuple(rest.pop("after", ())),
            )
        if rest:
            raise self.fail(where, f"unknown keys {', '.join(sorted(rest))}")
        return found

    def row(self, content: dict[str, Any]) -> Row:
        rest = dict(content)
        height = int(self.take(rest, "row", "height"))
        tiles = tuple(self.tile(t) for t in self.take(rest, "row", "tiles"))
        if rest:
            raise self.fail("row", f"unknown keys {', '.join(sorted(rest))}")
        if (width := sum(tile.width for tile in tiles)) > GRID_COLUMNS:
            names = ", ".join(tile.name for tile in tiles)
            raise self.fail(f"row {names}", f"{width} columns wide, more than {GRID_COLUMNS}")
        return Row(height, tiles)

    def tile(self, content: dict[str, Any]) -> Tile:
        rest = dict(content)
        name = str(self.take(rest, "tile", "name"))
        where = f"tile {name}"
        chart = self.take(rest, where, "chart")
        if chart not in CHARTS:
            raise self.fail(where, f"chart {chart!r} is not one of {', '.join(CHARTS)}")
        width = int(self.take(rest, where, "width"))
        if width < MINIMUM_WIDTH:
            raise self.fail(where, f"narrower than {MINIMUM_WIDTH} columns")
        is_text = chart in WORDS_ONLY
        for key in ("subtitle", "bar_axis", "line_axis", "text"):
            if key in rest:
                rest[key] = self.words(rest[key], f"{where}, {key}")
        if "labels" in rest:
            rest["labels"] = {
                metric: self.words(words, f"{where}, label of {metric}")
                for metric, words in rest["labels"].items()
            }
        return Tile(
            name=name,
            chart=chart,
            width=width,
            title="" if is_text else self.words(self.take(rest, where, "title"), where),
            dataset="" if is_text else self.take(rest, where, "dataset"),
            metrics=tuple(rest.pop("metrics", ())),
            ignores=tuple(rest.pop("ignores", ())),
            options=rest,
        )

    def take(self, content: dict[str, Any], where: str, key: str) -> Any:
        if key not in content:
            raise self.fail(where, f"needs {key}")
        return content.pop(key)

    def words(self, content: Any, where: str) -> str:
        missing = (
            [lang for lang in LANGUAGES if not (content or {}).get(lang)]
            if isinstance(content, dict)
            else list(LANGUAGES)
        )
        if missing:
            raise self.fail(where, f"needs words in {' and '.join(missing)}")
        # What follows a comma in {en: …, zh: …} is a key of its own without quotation marks.
        if others := sorted(map(str, set(content) - set(LANGUAGES))):
            raise self.fail(where, f"{others[0]!r} is no language; quote words with commas")
        return str(content[self.language]).strip().replace("{currency}", targets.currency())
