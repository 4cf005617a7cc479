"""What the carrier of the hotline's trunk delivered: its own records, independent of the exchange.

Every call that reached the trunk is there, also those that the exchange loses; call-backs are not,
because agents make them. The carrier's clock is ahead of the exchange's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.channels import EXTENSIONS
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, World
from callhouse.simulate.rendering import Rendering, write_text

FOLDER = "carrier"
COLUMNS = ("record", "caller", "called", "started", "seconds", "billed", "answered", "trunk")
AHEAD = (1, 4)  # seconds of the clocks' difference, and until the exchange notices a call
SHARE_LOST = 1 / 250
LIMITS = (("call-backs", "agents make them: they do not come in over the trunk"),)


def delivered(played: World) -> list[Call]:
    """Calls that came in over the trunk."""
    return [call for call in played.calls if call.channel != "callback"]


def lost(played: World, seed: int) -> set[str]:
    """Ids of calls that the exchange never writes down, at least one of every day."""
    return _some(delivered(played), stream(seed, "lost by the exchange"))


def write(
    directory: Path, played: World, start: date, days: int, seed: int, missing: Collection[str]
) -> Rendering:
    """Write `carrier/trunk_<day>.csv.gz`, by day of the call's start.

    `missing` are calls that the exchange lost. Where there are any, the carrier forgets others.
    """
    clock, chance = Clock(start, days + 2), stream(seed, "carrier")
    calls = delivered(played)
    kept = [call for call in calls if call.call_id not in missing]
    forgotten = _some(kept, stream(seed, "lost by the carrier")) if missing else set[str]()
    lines: dict[int, list[tuple[int, str]]] = defaultdict(list)
    injected: list[dict[str, Any]] = []
    for number, call in enumerate(calls):
        started, fields = _line(call, number, clock, chance)
        if call.call_id in forgotten:
            injected.append({"kind": "not_in_carrier_file", "call_id": call.call_id})
        else:
            lines[started // world.DAY].append((started, ",".join(fields)))
    counts: dict[str, int] = {}
    for day, found in sorted(lines.items()):
        name = _file_name(clock.day(day * world.DAY))
        write_text(directory / FOLDER / name, [",".join(COLUMNS), *(t for _, t in sorted(found))])
        counts[name] = len(found)
    return Rendering(
        FOLDER, [directory / FOLDER / name for name in counts], counts, injected, LIMITS, {}
    )


def file_names(start: date, days: int) -> list[str]:
    """What a run may write: by the carrier's clock the last calls are of the day after."""
    return [_file_name(day.isoformat()) for day in world.days(start, days + 1)]


def _file_name(day: str) -> str:
    return f"trunk_{day}.csv.gz"


def _some(calls: Sequence[Call], chance: random.Random) -> set[str]:
    picked: set[str] = set()
    for _, of_day in groupby(calls, key=lambda call: call.arrived // world.DAY):
        of_day_calls = list(of_day)
        wanted = max(1, round(len(of_day_calls) * SHARE_LOST))
        picked |= {call.call_id for call in chance.sample(of_day_calls, wanted)}
    return picked


def _line(
    call: Call, number: int, clock: Clock, chance: random.Random
) -> tuple[int, tuple[str, ...]]:
    started = call.arrived + chance.randint(*AHEAD)
    seconds = call.ended - call.arrived + chance.randint(0, 1)
    was_answered = call.ivr_start is not None or call.outcome == "answered"
    return started, (
        f"R{number:07d}",
        _international(call.caller.number),
        EXTENSIONS[call.hotline],
        clock.stamp(started),
        str(seconds),
        str(seconds if was_answered else 0),
        str(int(was_answered)),
        f"trunk-{1 + number % 2}",
    )


def _international(number: str) -> str:
    """A carrier writes whole numbers where the exchange leaves out its own country."""
    return f"+86{number.removeprefix('0')}" if number.isdigit() else number
