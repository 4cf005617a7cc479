"""When a report is due: a recipient's wall clock, whatever daylight saving does to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from callhouse.errors import CallhouseError

PERIODS = ("last_day", "last_week", "last_month")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
LATEST_DAY = 28  # every month has it


@dataclass(frozen=True)
class Schedule:
    """Every day, week (on a weekday) or month (on a day), at a local time."""

    every: str
    at: time
    on: int = 0  # of a week: 0 is Monday; of a month: 1 to 28

    @classmethod
    def parse(cls, content: Any) -> Schedule:
        """From `{every, day, at}`; CallhouseError says what cannot be."""
        given = dict(content) if isinstance(content, dict) else {}
        every, at, on = given.pop("every", None), given.pop("at", None), given.pop("day", None)
        if given or not isinstance(at, str) or not TIME.fullmatch(at):
            raise CallhouseError('schedule: needs every and at, such as "07:30", and knows day')
        clock = time.fromisoformat(at)
        match every:
            case "day" if on is None:
                return cls("day", clock)
            case "week" if on in WEEKDAYS:
                return cls("week", clock, WEEKDAYS.index(on))
            case "month" if type(on) is int and 1 <= on <= LATEST_DAY:
                return cls("month", clock, on)
        raise CallhouseError(
            f"schedule: every {every!r}, day {on!r} is none of day, week with a weekday such as"
            f" monday, month with a day from 1 to {LATEST_DAY}"
        )

    def as_yaml(self) -> dict[str, Any]:
        """As `parse` reads it."""
        found: dict[str, Any] = {"every": self.every, "at": f"{self.at:%H:%M}"}
        if self.every != "day":
            found["day"] = WEEKDAYS[self.on] if self.every == "week" else self.on
        return found

    def sentence(self) -> str:
        """For lists."""
        words = {"day": "daily", "month": f"monthly on {self.on}"}
        every = words.get(self.every) or f"every {WEEKDAYS[self.on]}"
        return f"{every} at {self.at:%H:%M}"

    def latest(self, now: datetime, zone: ZoneInfo) -> datetime:
        """The last due moment that is not after `now` (an instant), in UTC.

        A local time that the clocks skip is as much later as they skip; one that comes twice counts
        the first time. So each day, week or month has exactly one.
        """
        day = now.astimezone(zone).date()
        for back in range(40):
            candidate = day - timedelta(days=back)
            if not self._is_day(candidate):
                continue
            due = datetime.combine(candidate, self.at, zone).astimezone(UTC)
            if due <= now:
                return due
        raise AssertionError("every month has the day")

    def _is_day(self, day: date) -> bool:
        if self.every == "week":
            return day.weekday() == self.on
        return self.every == "day" or day.day == self.on


def period(name: str, on: date) -> tuple[date, date]:
    """First day and the day after the last one of period `name`, complete by the day `on`."""
    match name:
        case "last_day":
            return on - timedelta(days=1), on
        case "last_week":
            monday = on - timedelta(days=on.weekday())
            return monday - timedelta(days=7), monday
        case "last_month":
            first = on.replace(day=1)
            return (first - timedelta(days=1)).replace(day=1), first
        case _:
            raise CallhouseError(f"{name!r} is not one of {', '.join(PERIODS)}")
