"""The sample hotline's calls as odd systems would tell them, each as a source of its own."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

from tests.faults import world
from tests.faults.world import World

from callhouse import landing
from callhouse.settings import REPOSITORY, Settings

SHIPPED = (
    REPOSITORY / "plugins/callhouse/sources/delimited/feeds" / f"{world.HOTLINE}.yaml"
).read_text(encoding="utf-8")
TIMES = ("arrived", "ivr_start", "ivr_end", "queue_start", "queue_end", "answered", "released",
         "ended")  # fmt: skip
DURATIONS = ("ivr_s", "wait_s", "ring_s", "talk_s", "hold_s", "acw_s")

# What of the mapping says that the durations of calls are milliseconds.
IN_MILLISECONDS = (
    "\n".join(f"      {field}_seconds: {field}_s" for field in
              ("ivr", "wait", "ring", "talk", "hold", "acw")),
    "\n".join(f"      {field}_seconds: {{column: {field}_s, unit: ms}}" for field in
              ("ivr", "wait", "ring", "talk", "hold", "acw")),
)  # fmt: skip

Row = dict[str, str]


def shifted(seconds: int) -> Callable[[Row], Row]:
    """The clock of the system is wrong."""

    def change(row: Row) -> Row:
        moved = {
            name: str(datetime.fromisoformat(row[name]) + timedelta(seconds=seconds))
            for name in TIMES
            if row[name]
        }
        return row | moved

    return change


def in_milliseconds(row: Row) -> Row:
    """The mapping says seconds, and the system has changed its mind."""
    return row | {name: row[name] + "000" for name in DURATIONS if row[name] not in ("", "0")}


def unknown_members(row: Row) -> Row:
    """Of an agent and a queue that no roster has."""
    agent, queue = (row[name] and f"new-{row[name]}" for name in ("agent", "queue"))
    return row | {"agent": agent, "queue": queue}


CLOCKS = {
    "clock_5m_fast": 300,
    "clock_5m_slow": -300,
    "clock_1h_fast": 3600,
    "clock_1h_slow": -3600,
}
CHANGES: dict[str, Callable[[Row], Row]] = {
    **{name: shifted(seconds) for name, seconds in CLOCKS.items()},
    "milliseconds": in_milliseconds,
    "unknown_members": unknown_members,
    "five_times": dict,
    "clocks_go_back": dict,
    "clocks_go_forward": dict,
}
# Days of Berlin with 25 and with 23 hours, told in its local time.
BERLIN = {"clocks_go_back": (date(2025, 10, 26), 100), "clocks_go_forward": (date(2025, 3, 30), 92)}


def land(
    settings: Settings, simulated: World, folder: Path, name: str, chance: random.Random,
    mended: tuple[str, str] = ("", ""),
) -> list[landing.UnitResult]:  # fmt: skip
    """Land the world's calls, changed, as the source `name`; `mended`: a change of its mapping."""
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    mapping = SHIPPED.replace(f"feed: {world.HOTLINE}", f"feed: {name}")
    mapping = mapping.replace(*mended)
    if name in BERLIN:
        mapping = mapping.replace("Asia/Shanghai", "Europe/Berlin")
    (settings.feeds_directory / f"{name}.yaml").write_text(mapping)
    header = simulated.headers["calls"].decode().strip().split(",")
    lines = []
    for row in csv.DictReader((line.decode() for line in simulated.lines["calls"]), header):
        lines.append((",".join(CHANGES[name](row).values()) + "\n").encode())
    files = [lines]
    if name == "five_times":
        every = lines * 5
        chance.shuffle(every)
        third = len(every) // 3
        files = [every[2 * third :], every[:third], every[third : 2 * third]]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [
        world.written(simulated, folder / f"calls_{number}.csv", "calls", part).path
        for number, part in enumerate(files)
    ]
    return landing.land(settings, name, [*simulated.references, *paths])


def land_all(settings: Settings, simulated: World, folder: Path) -> dict[str, World]:
    """Land every odd source; the world that each one tells."""
    told = {}
    for name in CHANGES:
        told[name] = simulated
        if name in BERLIN:
            told[name] = world.simulated(
                folder / f"world of {name}", 1, BERLIN[name][0], days=1, formats=("delimited",)
            )
        results = land(settings, told[name], folder / name, name, random.Random(name))
        statuses = {result.status for result in results}
        if name == "milliseconds":
            # Nothing of it is believed: the sentence names the fix, and with it everything lands.
            assert statuses == {"landed", "refused"}
            assert "write 'unit: ms' in the mapping" in str(results[-1].reason)
            results = land(
                settings, told[name], folder / name, name, random.Random(name), IN_MILLISECONDS
            )
            statuses = {results[-1].status}
        assert statuses == {"landed"}, results
        lines = len(told[name].lines["calls"])
        assert sum(r.staged for r in results if r.record == "legs") == lines
    return told
