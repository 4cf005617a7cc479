"""Periods such as "Last month" end with the newest published day of the source that is asked.

Superset counts them from the beginning of today. A call centre whose records end earlier, because
they are handed in late or are a sample, would then open with empty boards; and what has no source,
the trail of accesses, would hide what happened today. Imported by superset_config.py: no Superset
at import.
"""

from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from callhouse.bi import superset_access
from callhouse.settings import Settings

RELATIVE = re.compile(r"last (\d+ )?(day|week|month|quarter|year)s?", re.IGNORECASE)
# How long a day that was read is taken for the newest one.
FRESH_SECONDS = 30
NEWEST = "select source, max(business_day) from bi.source_days group by source"


def install(settings: Settings) -> None:
    """Have Superset count periods of a source back from its newest published day."""
    from superset.common.query_context_factory import QueryContextFactory
    from superset.utils.date_parser import get_since_until
    from superset.viz import BaseViz

    newest = NewestDays(settings)
    create, split = QueryContextFactory.create, BaseViz.process_query_filters

    def create_from_newest(self: Any, *, queries: list[dict[str, Any]], **rest: Any) -> Any:
        return create(self, queries=[counted_back(query, newest) for query in queries], **rest)

    # The map still asks in the old way, which knows no other end than today.
    def split_from_newest(self: Any) -> None:
        split(self)
        form = self.form_data
        if (end := _end(form.get("filters"), form.get("time_range"), newest)) is not None:
            since, until = get_since_until(
                form["time_range"], relative_start=str(end), relative_end=str(end)
            )
            form["time_range"] = f"{since.isoformat()} : {until.isoformat()}"

    QueryContextFactory.create = create_from_newest
    BaseViz.process_query_filters = split_from_newest


def counted_back(query: dict[str, Any], newest: NewestDays) -> dict[str, Any]:
    """The query, its relative period ending after the newest day of the sources it asks for.

    Where it asks for none that is published, the newest day is today.
    """
    filters = query.get("filters") or []
    periods = [one.get("val") for one in filters if one.get("op") == "TEMPORAL_RANGE"]
    for period in (*periods, query.get("time_range")):
        if (end := _end(filters, period, newest)) is not None:
            told = {"relative_start": str(end), "relative_end": str(end)}
            return {**query, "extras": {**(query.get("extras") or {}), **told}}
    return query


def _end(filters: list[dict[str, Any]] | None, period: Any, newest: NewestDays) -> date | None:
    """The day after the period; None where it is no relative one."""
    if not isinstance(period, str) or not RELATIVE.fullmatch(period.strip()):
        return None
    chosen = [one.get("val") for one in filters or () if one.get("col") == "source"]
    sources = {name for val in chosen for name in (val if isinstance(val, list) else [val])}
    days = [day for name in sources if (day := newest.of(str(name))) is not None]
    return max(days, default=newest.today()) + timedelta(days=1)


class NewestDays:
    """Newest published day by source, read once in a while."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read_at = float("-inf")
        self._days: dict[str, date] = {}

    def of(self, source: str) -> date | None:
        """Newest published day of `source`, at most today; None where nothing is published."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._days, self._read_at = self._read(), time.monotonic()
        day = self._days.get(source)
        # A record from a clock that is ahead does not take the board into the future.
        return None if day is None else min(day, self.today())

    def today(self) -> date:
        """The day that it is in the call centre."""
        return datetime.now(ZoneInfo(self._settings.time_zone)).date()

    def _read(self) -> dict[str, date]:
        with superset_access.service_connection(self._settings) as connection:
            cursor = connection.cursor()
            cursor.execute(NEWEST)
            return dict(cursor.fetchall())
