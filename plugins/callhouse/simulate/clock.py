"""Seconds of the simulation as local dates and times."""

from __future__ import annotations

from datetime import date

from callhouse.simulate import world

_TIMES = [
    f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}" for second in range(world.DAY)
]


class Clock:
    """Formats seconds after midnight of the first day."""

    def __init__(self, start: date, days: int) -> None:
        self._names = [day.isoformat() for day in world.days(start, days)]

    def day(self, second: int) -> str:
        """`YYYY-MM-DD`."""
        return self._names[second // world.DAY]

    def stamp(self, second: int | None) -> str:
        """`YYYY-MM-DD HH:MM:SS`, empty for what did not happen."""
        if second is None:
            return ""
        return f"{self._names[second // world.DAY]} {_TIMES[second % world.DAY]}"

    def quarter(self, second: int) -> str:
        """Start of the 15 minutes that hold `second`."""
        return self.stamp(second - second % 900)
