"""What may be said of who delivers: how often, by when, on which days, and who looks after it.

Read from `watch` of a feed's YAML and from the file of devices; judged by callhouse.capture.
"""

from __future__ import annotations

import csv
import datetime
import re
from dataclasses import dataclass
from functools import cache

from callhouse.settings import REPOSITORY
from callhouse.sources.document import Node, near

HOLIDAYS = REPOSITORY / "dbt_project" / "seeds" / "calendar" / "holidays.csv"
OWNER = "data-engineering"
# The drop folder of a feed is looked through at least this often.
LOOK_SECONDS = 600
# The watch looks every minute: what beats faster could not be told within two of its intervals.
SHORTEST_INTERVAL = 120
SKEW_SECONDS = 120
ACKNOWLEDGE_SECONDS = 1800
DATE = "{date}"
NUMBER = "{number}"
# As 20261129 or 2026-11-29.
_DATE_FORM = r"20[0-9]{2}-?[0-9]{2}-?[0-9]{2}"
_NUMBER_FORM = r"[0-9]+"


@dataclass(frozen=True)
class Series:
    """Names of files that follow each other, such as `calls_{date}.csv`."""

    text: str

    @property
    def date_pattern(self) -> str | None:
        """A pattern of PostgreSQL with one group, the date; None where there is none."""
        return self._pattern(DATE) if DATE in self.text else None

    @property
    def number_pattern(self) -> str | None:
        """The same for the number."""
        return self._pattern(NUMBER) if NUMBER in self.text else None

    def _pattern(self, wanted: str) -> str:
        forms = {DATE: _DATE_FORM, NUMBER: _NUMBER_FORM, "*": ".*"}
        parts = []
        for part in re.split(r"(\{date\}|\{number\}|\*)", self.text):
            form = forms.get(part) or re.sub(r"([^A-Za-z0-9_])", r"\\\1", part)
            parts.append(f"({form})" if part == wanted else form)
        return f"^{''.join(parts)}$"


@dataclass(frozen=True)
class Watch:
    """How something is watched. Of a feed either `delay_seconds` or `due` is set."""

    owner: str
    interval_seconds: int
    delay_seconds: int | None
    due: datetime.time | None
    is_working_days: bool
    calendar: str | None
    series: tuple[Series, ...]
    skew_seconds: int
    lag_seconds: int | None
    acknowledge_seconds: int


# Of a feed whose YAML says nothing: that its folder is looked through is all that can be judged.
UNDECLARED = Watch(
    OWNER, LOOK_SECONDS, None, None, False, None, (), SKEW_SECONDS, None, ACKNOWLEDGE_SECONDS
)


@cache
def holidays() -> tuple[tuple[str, datetime.date, bool], ...]:
    """(calendar, day, whether it is worked) of every day that is no ordinary one."""
    with HOLIDAYS.open(encoding="utf-8", newline="") as file:
        return tuple(
            (row["calendar"], datetime.date.fromisoformat(row["holiday_date"]),
             row["is_working_day"] == "true")
            for row in csv.DictReader(file)
        )  # fmt: skip


def read(node: Node) -> Watch:
    """Check `watch` of a feed."""
    if node.has("delay_seconds") == node.has("due"):
        raise node.error(
            "",
            "needs 'delay_seconds' (from an event to its row) or 'due' (of daily files), not both",
        )
    found = Watch(
        owner=node.text("owner", OWNER),
        interval_seconds=LOOK_SECONDS,
        delay_seconds=seconds(node, "delay_seconds", 0) if node.has("delay_seconds") else None,
        due=_time(node, "due") if node.has("due") else None,
        is_working_days=node.text("days", "all", ("all", "working")) == "working",
        calendar=_calendar(node),
        series=tuple(_series(node, text) for text in node.texts("series", ())),
        skew_seconds=seconds(node, "skew_seconds", SKEW_SECONDS),
        lag_seconds=seconds(node, "lag_seconds", 0) if node.has("lag_seconds") else None,
        acknowledge_seconds=seconds(node, "acknowledge_seconds", ACKNOWLEDGE_SECONDS),
    )
    node.finish(allowed=("delay_seconds", "due", "lag_seconds"))
    return found


def read_device(node: Node) -> Watch:
    """Check the same of a device that sends heartbeats of its own."""
    interval = seconds(node, "interval_seconds", 300)
    if interval < SHORTEST_INTERVAL:
        raise node.error(
            "interval_seconds", f"at least {SHORTEST_INTERVAL}: the watch looks once a minute"
        )
    return Watch(
        owner=node.text("owner"),
        interval_seconds=interval,
        delay_seconds=None,
        due=None,
        is_working_days=False,
        calendar=_calendar(node),
        series=(),
        skew_seconds=seconds(node, "skew_seconds", SKEW_SECONDS),
        lag_seconds=seconds(node, "lag_seconds", 0) if node.has("lag_seconds") else None,
        acknowledge_seconds=seconds(node, "acknowledge_seconds", ACKNOWLEDGE_SECONDS),
    )


def seconds(node: Node, key: str, default: int) -> int:
    """A number of whole seconds above 0."""
    value = node.text(key, str(default))
    if not value.isascii() or not value.isdigit() or not 0 < int(value) <= 31_536_000:
        raise node.error(key, f"'{value}' is no number of seconds between 1 and 31536000")
    return int(value)


def _time(node: Node, key: str) -> datetime.time:
    value = node.text(key)
    try:
        return datetime.time.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        raise node.error(key, f"'{value}' is no time of day: write HH:MM") from None


def _calendar(node: Node) -> str | None:
    value = node.text("calendar", "")
    known = sorted({calendar for calendar, _, _ in holidays()})
    if value and value not in known:
        raise node.error(
            "calendar",
            f"'{value}' is not one of {', '.join(known)}{near(value, known)}: "
            f"add its days to {HOLIDAYS.name}",
        )
    return value or None


def _series(node: Node, text: str) -> Series:
    if text.count(DATE) + text.count(NUMBER) == 0 or max(text.count(DATE), text.count(NUMBER)) > 1:
        raise node.error("series", f"'{text}' needs {DATE} or {NUMBER}, each once")
    return Series(text)
