"""What the simulated centre is made of: regions, numbers, queues, teams, shifts, calendar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta

HOUR = 3600
DAY = 24 * HOUR
TIME_ZONE = "Asia/Shanghai"


@dataclass(frozen=True)
class Region:
    """Where callers live: share of callers and the prefixes that such numbers begin with."""

    code: str
    share: float
    mobiles: tuple[str, ...]
    landlines: tuple[str, ...]


# Mobile prefixes have 7 of 11 digits, landline prefixes are trunk zero + area code.
REGIONS = (
    Region(
        "CN-GD",
        0.33,
        ("1302201", "1307090", "1331653", "1338081", "1332265", "1343595", "1341172", "1342706"),
        ("020", "0755", "0769"),
    ),
    Region(
        "CN-SH", 0.14, ("1305200", "1300416", "1306286", "1331185", "1330162", "1344509"), ("021",)
    ),
    Region(
        "CN-BJ", 0.12, ("1303110", "1302117", "1314607", "1330122", "1531370", "1343905"), ("010",)
    ),
    Region(
        "CN-SC", 0.12, ("1303818", "1305663", "1335007", "1332069", "1340854", "1355002"), ("028",)
    ),
    Region("CN-ZJ", 0.05, ("1307364", "1300475", "1333607", "1348420"), ("0571",)),
    Region("CN-JS", 0.05, ("1301033", "1306386", "1334808", "1340504"), ("025",)),
    Region("CN-HB", 0.035, ("1300712", "1303274", "1347614"), ("027",)),
    Region("CN-HN", 0.03, ("1307737", "1310025", "1346754"), ("0731",)),
    Region("CN-FJ", 0.03, ("1300484", "1335829", "1340065"), ("0591",)),
    Region("CN-SD", 0.025, ("1307530", "1337088", "1345520"), ("0531",)),
    Region("CN-CQ", 0.02, ("1303632", "1335035", "1359492"), ("023",)),
    Region("CN-SN", 0.015, ("1307297", "1336397", "1357246"), ("029",)),
    Region("HK", 0.006, ("+8529123", "+8526123"), ()),
    Region("SG", 0.004, ("+659123",), ()),
    Region("JP", 0.003, ("+81901234",), ()),
    Region("US", 0.003, ("+1212555",), ()),
    Region("GB", 0.002, ("+44207946",), ()),
    Region("unknown", 0.025, (), ()),
)

BUSINESS_TYPES = ("account", "cards", "payments", "loans", "digital", "complaints")

# What people of a region call about; regions not named follow the last line.
TYPE_SHARES: dict[str, tuple[float, ...]] = {
    "CN-GD": (0.26, 0.22, 0.21, 0.10, 0.16, 0.05),
    "CN-SH": (0.22, 0.25, 0.15, 0.14, 0.18, 0.06),
    "CN-BJ": (0.22, 0.20, 0.15, 0.13, 0.21, 0.09),
    "CN-SC": (0.33, 0.17, 0.20, 0.12, 0.12, 0.06),
    "other": (0.28, 0.20, 0.19, 0.11, 0.16, 0.06),
}


@dataclass(frozen=True)
class Handling:
    """How calls about one business type go: medians in seconds, probabilities."""

    talk_median: float
    talk_sigma: float
    hold_probability: float
    acw_median: float
    contained: float  # solved by the IVR without an agent
    bot_share: float  # answered by the voice bot instead of the touch-tone menu
    unresolved: float  # calls again although an agent served it
    transfer: float


HANDLING = {
    "account": Handling(170, 0.75, 0.14, 30, 0.36, 0.10, 0.07, 0.06),
    "cards": Handling(195, 0.70, 0.17, 38, 0.22, 0.08, 0.08, 0.07),
    "payments": Handling(185, 0.75, 0.18, 34, 0.30, 0.16, 0.08, 0.07),
    "loans": Handling(285, 0.70, 0.26, 60, 0.10, 0.05, 0.10, 0.09),
    "digital": Handling(240, 0.85, 0.16, 32, 0.20, 0.22, 0.13, 0.08),
    "complaints": Handling(330, 0.65, 0.30, 85, 0.03, 0.02, 0.17, 0.11),
}


@dataclass(frozen=True)
class Queue:
    """A skill group: opening hours of weekdays (Monday first) and holidays, limits, overflow.

    Calls that wait at closing time are moved to `overflow` if that is open, else served to the
    end. The limits are calls waiting per agent on duty.
    """

    queue_id: str
    name: str
    business_type: str
    hours: tuple[tuple[int, int] | None, ...]
    holiday_hours: tuple[int, int] | None
    capacity_share: float  # above it new calls are refused
    divert_share: float  # above it new calls are sent to `overflow`
    overflow: str | None


def _week(
    weekdays: tuple[int, int], saturday: tuple[int, int] | None, sunday: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, ...]:
    return (weekdays,) * 5 + (saturday, sunday)


QUEUES = {
    queue.queue_id: queue
    for queue in (
        Queue(
            "service",
            "Customer service",
            "account",
            _week((7, 22), (8, 22), (8, 22)),
            (9, 18),
            0.9,
            9.0,
            None,
        ),
        Queue(
            "cards",
            "Cards",
            "cards",
            _week((7, 24), (7, 24), (7, 24)),
            (9, 18),
            1.0,
            0.45,
            "service",
        ),
        Queue("loans", "Loans", "loans", _week((9, 18), (9, 18), None), None, 1.0, 0.6, "service"),
        Queue(
            "digital",
            "Digital support",
            "digital",
            _week((8, 21), (8, 21), (9, 21)),
            None,
            0.8,
            0.5,
            "service",
        ),
        Queue(
            "complaints",
            "Complaints",
            "complaints",
            _week((9, 18), (9, 18), None),
            None,
            1.5,
            9.0,
            "service",
        ),
        Queue("vip", "Premium", "", _week((7, 24), (7, 24), (7, 24)), (9, 22), 3.0, 9.0, "service"),
    )
}
QUEUE_OF_TYPE = {
    "account": "service",
    "payments": "service",
    "cards": "cards",
    "loans": "loans",
    "digital": "digital",
    "complaints": "complaints",
}

# Where an agent of a queue passes a call on to.
TRANSFER_TARGETS = {
    "service": (("cards", 0.3), ("loans", 0.2), ("digital", 0.25), ("complaints", 0.25)),
    "cards": (("service", 0.5), ("complaints", 0.3), ("digital", 0.2)),
    "loans": (("service", 0.6), ("complaints", 0.4)),
    "digital": (("service", 0.6), ("cards", 0.25), ("complaints", 0.15)),
    "complaints": (("service", 0.4), ("cards", 0.3), ("loans", 0.3)),
    "vip": (("cards", 0.4), ("loans", 0.3), ("complaints", 0.3)),
}


@dataclass(frozen=True)
class Team:
    """Agents of one place; `region` is that of the team, not of its callers."""

    team_id: str
    name: str
    region: str


TEAMS = (
    Team("GZ-A", "Guangzhou A", "CN-GD"),
    Team("GZ-B", "Guangzhou B", "CN-GD"),
    Team("SH-A", "Shanghai A", "CN-SH"),
    Team("BJ-A", "Beijing A", "CN-BJ"),
    Team("CD-A", "Chengdu A", "CN-SC"),
    Team("CD-B", "Chengdu B", "CN-SC"),
)

# Skills of an agent, best first; agents take these lines in turn.
SKILLS: tuple[tuple[str, ...], ...] = (
    ("service", "digital"),
    ("cards", "service"),
    ("service", "vip"),
    ("digital", "service"),
    ("loans", "complaints"),
    ("service", "cards"),
    ("vip", "cards"),
    ("service", "digital"),
    ("cards", "vip", "service"),
    ("complaints", "service"),
    ("digital", "cards", "vip"),
    ("service", "cards", "vip"),
    ("loans", "service"),
)

# Login and logoff in hours; a queue's agents rotate through its shifts week by week.
SHIFTS: dict[str, tuple[tuple[float, float], ...]] = {
    "service": ((6.9, 15.4), (13.6, 22.3), (7.8, 16.8), (12.0, 20.5), (8.9, 18.4), (13.6, 22.3)),
    "cards": ((6.9, 15.4), (15.6, 24.3), (8.4, 17.4), (12.5, 21.0)),
    "loans": ((8.9, 18.1),),
    "digital": ((7.9, 16.4), (12.6, 21.1), (8.9, 17.9)),
    "complaints": ((8.9, 18.1),),
    "vip": ((6.9, 15.4), (15.6, 24.3), (9.0, 18.0)),
}

# Pairs of days off (0 = Monday), so that weekends are staffed thinner than Mondays.
DAYS_OFF = (
    ((5, 6),) * 5 + ((6, 0),) * 3 + ((4, 5),) * 3 + ((1, 2),) * 4 + ((2, 3),) * 3 + ((3, 4),) * 2
)

# Calls of a weekday against the average day of a week, Monday first.
_WEEK = (1.22, 1.10, 1.05, 1.02, 1.06, 0.82, 0.73)
WEEKDAY_LEVEL = tuple(level * 7 / sum(_WEEK) for level in _WEEK)
HOLIDAY_LEVEL = 0.55
# Over the year, highest in the middle of January and lowest in the middle of July.
SEASON_AMPLITUDE, SEASON_PEAK_DAY = 0.1, 15

# Statutory holidays with a fixed date, and the weekend days that are worked instead.
_HOLIDAYS = {
    (1, 1),
    (1, 2),
    (1, 3),
    *((5, day) for day in range(1, 6)),
    *((10, day) for day in range(1, 8)),
}
_MAKE_UP_DAYS = {date(2026, 1, 4), date(2026, 5, 9), date(2026, 9, 20), date(2026, 10, 10)}


def is_holiday(day: date) -> bool:
    """Whether the centre works reduced hours."""
    return (day.month, day.day) in _HOLIDAYS


def weekday(day: date) -> int:
    """The weekday (Monday 0) that `day` is run like: holidays as Sundays, make-up days as
    Fridays."""
    if is_holiday(day):
        return 6
    return 4 if day in _MAKE_UP_DAYS else day.weekday()


def season(day: date) -> float:
    """Calls of the time of year against the average of the year."""
    turn = 2 * math.pi * (day.timetuple().tm_yday - SEASON_PEAK_DAY) / 365.25
    return 1 + SEASON_AMPLITUDE * math.cos(turn)


def opening(queue: Queue, day: date) -> tuple[int, int] | None:
    """Opening and closing of `queue` on `day`, in seconds after midnight."""
    hours = queue.holiday_hours if is_holiday(day) else queue.hours[weekday(day)]
    return None if hours is None else (hours[0] * HOUR, hours[1] * HOUR)


def _bell(hour: float, centre: float, width: float) -> float:
    return math.exp(-0.5 * ((hour - centre) / width) ** 2)


def intraday(day: date) -> list[float]:
    """Relative call intensity of each of the 1440 minutes of `day`: a morning and an afternoon
    peak, a smaller one in the evening, few calls at night; later and flatter on days off."""
    curve = []
    for minute in range(1440):
        hour = (minute + 0.5) / 60
        if weekday(day) >= 5:
            level = (
                0.85 * _bell(hour, 10.9, 1.6)
                + 0.75 * _bell(hour, 16.0, 1.9)
                + 0.36 * _bell(hour, 20.4, 1.8)
            )
        else:
            level = (
                1.00 * _bell(hour, 10.2, 1.4)
                + 0.94 * _bell(hour, 15.6, 1.7)
                + 0.30 * _bell(hour, 20.3, 1.8)
            )
        curve.append(0.025 + level)
    return curve


def days(start: date, count: int) -> list[date]:
    """`count` days from `start` on."""
    return [start + timedelta(days=offset) for offset in range(count)]
