"""Rows of Python values as the frames that landing takes, and the day that a row stands on."""

from __future__ import annotations

import datetime
import zoneinfo
from functools import lru_cache
from typing import Any

import polars as pl

from callhouse.sources.amazon_connect.mapping import Feed
from callhouse.sources.contract import Record

TYPES: dict[str, pl.DataType] = {
    "integer": pl.Int32(), "seconds": pl.Float64(), "instant": pl.Int64(), "day": pl.Date(),
}  # fmt: skip
MICRO = 1_000_000
QUARTER = 900  # seconds


def schema(record: Record) -> dict[str, pl.DataType]:
    """Columns of the frames of `record`."""
    columns: dict[str, pl.DataType] = {"line_number": pl.Int64(), "row_hash": pl.Binary()}
    columns |= {item.name: TYPES.get(item.kind, pl.String()) for item in record.fields}
    return columns | {"data_issues": pl.String(), "business_day": pl.Date()}


def typed(rows: list[tuple[Any, ...]], record: Record) -> pl.DataFrame:
    """Rows with a value for each column of `schema`, in its order."""
    columns = schema(record)
    values = dict(zip(columns, zip(*rows, strict=True), strict=False))  # no row has no columns
    return pl.DataFrame(values, columns, strict=True)


def local_day(instant: int, zone: str) -> datetime.date:
    """Local date of an instant in microseconds."""
    return _day_of_quarter(instant // (QUARTER * MICRO), zone)


@lru_cache(maxsize=10_000)
def _day_of_quarter(quarter: int, zone: str) -> datetime.date:
    """Of a quarter of an hour since 1970: no zone of today has its midnight within one."""
    try:
        moment = datetime.datetime.fromtimestamp(quarter * QUARTER, zoneinfo.ZoneInfo(zone))
    except (ValueError, OverflowError):  # the last hours of the year 9999
        return datetime.date.max
    return moment.date()


def implausible(day: datetime.date, feed: Feed) -> str | None:
    """Why no record can be of this day, None where one can."""
    tomorrow = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=1)
    first, last = feed.plausible_from, feed.plausible_to or tomorrow
    if first <= day <= last:
        return None
    return f"lies outside {first} to {last}: see 'plausible_days' in {feed.file.name}"
