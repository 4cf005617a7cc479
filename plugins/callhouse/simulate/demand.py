"""Who calls when about what: customers, ordinary days, spike days."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from itertools import accumulate

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.records import Caller, Surge

# Repeat calls and call-backs come on top of first calls; this keeps the total near the wish.
FIRST_CALLS = 0.87
CALLERS_PER_DAILY_CALL = 9
MOST_CALLERS = 100_000  # the prefixes have room for several times as many
VIP_SHARE = 0.05
SURGES = (
    ("app outage", "digital", 0.34, 10.4, 1.3),
    ("card campaign", "cards", 0.42, 14.5, 3.0),
    ("payment run failed", "payments", 0.38, 9.6, 1.5),
)

_TYPE_SHARES = {region: list(accumulate(shares)) for region, shares in world.TYPE_SHARES.items()}


class Demand:
    """First calls of every day: (second, caller, business type) in order of time."""

    def __init__(self, seed: int, start: date, days: int, calls_per_day: int) -> None:
        self._random = stream(seed, "demand")
        self._days = world.days(start, days)
        self._level = calls_per_day * FIRST_CALLS
        self._callers = _customers(
            stream(seed, "customers"), min(calls_per_day * CALLERS_PER_DAILY_CALL, MOST_CALLERS)
        )
        # Few people call often: heavy-tailed weights, bounded so that nobody dominates a day.
        self._caller_weights = list(
            accumulate(min(self._random.paretovariate(1.5), 40.0) for _ in self._callers)
        )
        self.surges = _surges(stream(seed, "surges"), self._days)

    def of_day(self, offset: int) -> Iterator[tuple[int, Caller, str]]:
        """The first calls of day `offset`, a Poisson process along the intraday curve."""
        day = self._days[offset]
        level = self._level * world.season(day)
        if world.is_holiday(day):
            level *= world.HOLIDAY_LEVEL
        else:
            level *= world.WEEKDAY_LEVEL[world.weekday(day)]
        count = self._poisson(level * self._random.lognormvariate(0, 0.05))
        curve = list(accumulate(world.intraday(day)))
        minutes = self._random.choices(range(1440), cum_weights=curve, k=count)
        arrivals: list[tuple[int, str]] = [(self._second(minute), "") for minute in minutes]
        if surge := self.surges.get(offset):
            for _ in range(self._poisson(level * surge.share)):
                hour = self._random.gauss(surge.hour, surge.width_hours)
                if 0 <= hour < 23.9:
                    arrivals.append((self._second(int(hour * 60)), surge.business_type))
        arrivals.sort()
        callers = self._random.choices(
            self._callers, cum_weights=self._caller_weights, k=len(arrivals)
        )
        for (second, wanted), caller in zip(arrivals, callers, strict=True):
            yield offset * world.DAY + second, caller, wanted or self._business_type(caller)

    def _second(self, minute: int) -> int:
        return minute * 60 + int(self._random.random() * 60)

    def _business_type(self, caller: Caller) -> str:
        shares = _TYPE_SHARES.get(caller.region, _TYPE_SHARES["other"])
        return self._random.choices(world.BUSINESS_TYPES, cum_weights=shares)[0]

    def _poisson(self, mean: float) -> int:
        """Normal approximation, exact enough for the hundreds of calls of a day."""
        return max(0, round(self._random.gauss(mean, mean**0.5)))


def _surges(chance: random.Random, days: list[date]) -> dict[int, Surge]:
    """One spike day in about ten, never in the first two days, on a weekday without holiday."""
    fitting = [offset for offset, day in enumerate(days) if offset > 1 and world.weekday(day) < 5]
    if not fitting:
        return {}
    chosen = sorted(chance.sample(fitting, min(len(fitting), max(1, len(days) // 10))))
    return {offset: Surge(*SURGES[number % len(SURGES)]) for number, offset in enumerate(chosen)}


def _customers(chance: random.Random, count: int) -> list[Caller]:
    regions = chance.choices(
        world.REGIONS, weights=[region.share for region in world.REGIONS], k=count
    )
    used: set[str] = set()
    customers = []
    for region in regions:
        number = _number(chance, region)
        while number in used:
            number = _number(chance, region)
        if region.code != "unknown":
            used.add(number)
        customers.append(Caller(number, region.code, chance.random() < VIP_SHARE))
    return customers


def _number(chance: random.Random, region: world.Region) -> str:
    if not region.mobiles:
        return chance.choice(("", "anonymous"))
    if region.landlines and chance.random() < 0.14:
        area = chance.choice(region.landlines)
        return f"{area}{chance.choice('238')}{chance.randrange(10**7):07d}"
    prefix = chance.choice(region.mobiles)
    number = f"{prefix}{chance.randrange(10**4):04d}"
    return f"+86{number}" if prefix[0] != "+" and chance.random() < 0.06 else number
