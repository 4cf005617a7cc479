"""Local wall-clock time to UTC, with the two hours a year that are not one-to-one."""

from __future__ import annotations

import datetime
import zoneinfo
from dataclasses import dataclass
from functools import lru_cache

import polars as pl

MICRO = 1_000_000
EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Piece:
    """Wall-clock times from `start` (microseconds of local time since 1970) share an offset.

    `kind` is plain, ambiguous (the repeated autumn hour: `offset` is that of its first pass,
    `fold` is how much later the second one is) or missing (the spring gap: the clock's old
    offset goes on, as if nobody had changed it).
    """

    start: int
    offset: int
    kind: str = "plain"
    fold: int = 0


def _offset(zone: zoneinfo.ZoneInfo, second: int) -> int:
    moment = datetime.datetime.fromtimestamp(second, tz=zone)
    shift = moment.utcoffset()
    return round(shift.total_seconds()) if shift else 0


@lru_cache(maxsize=512)
def _transitions(zone_name: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """(UTC second, offset before, offset after) of the year's clock changes."""
    zone = zoneinfo.ZoneInfo(zone_name)
    begin = int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp())
    end = int(datetime.datetime(year + 1, 1, 1, tzinfo=datetime.UTC).timestamp())
    found = []
    for day in range(begin, end, 86400):
        low, high = day, min(day + 86400, end)
        before, after = _offset(zone, low), _offset(zone, high)
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
        found.append((high, before, after))
    return tuple(found)


def pieces(zone_name: str, first: datetime.datetime, last: datetime.datetime) -> list[Piece]:
    """The pieces that cover local times `first` to `last` (clamped to 1970–2100)."""
    years = range(max(first.year, 1970), min(last.year, 2100) + 1)
    low, high = (int((t - EPOCH).total_seconds()) for t in (first, last))
    changes = [
        change for year in years for change in _transitions(zone_name, year)
        if low - 2 * 86400 <= change[0] <= high + 2 * 86400
    ]  # fmt: skip
    start_offset = changes[0][1] if changes else _offset(zoneinfo.ZoneInfo(zone_name), max(low, 0))
    result = [Piece(-(1 << 62), start_offset * MICRO)]
    for second, before, after in changes:
        wall_before, wall_after = (second + before) * MICRO, (second + after) * MICRO
        if after > before:
            result.append(Piece(wall_before, before * MICRO, "missing"))
            result.append(Piece(wall_after, after * MICRO))
        else:
            fold = (before - after) * MICRO
            result.append(Piece(wall_after, before * MICRO, "ambiguous", fold))
            result.append(Piece(wall_before, after * MICRO))
    return result


def pick(local: pl.Expr, parts: list[Piece], attribute: str) -> pl.Expr:
    """`attribute` of the piece in which the expression `local` (integer microseconds) lies."""
    value = pl.lit(getattr(parts[0], attribute))
    for part in parts[1:]:
        value = pl.when(local >= part.start).then(pl.lit(getattr(part, attribute))).otherwise(value)
    return value
