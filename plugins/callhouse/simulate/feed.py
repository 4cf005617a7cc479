"""The sample feed: a world as delimited files, with or without dirt.

The format and what the warehouse should make of the dirt: docs/contributors/sample-data.md.
"""

from __future__ import annotations

import gzip
import random
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, Leg, World

CALL_COLUMNS = (
    "call_id",
    "leg",
    "hotline",
    "caller",
    "channel",
    "business_type",
    "arrived",
    "ivr_start",
    "ivr_end",
    "ivr_s",
    "queue",
    "queue_start",
    "queue_end",
    "wait_s",
    "ring_s",
    "outcome",
    "stage",
    "agent",
    "answered",
    "released",
    "talk_s",
    "hold_s",
    "acw_s",
    "transfer",
    "hangup_by",
    "ended",
)
AGENT_COLUMNS = ("agent", "name", "team", "team_name", "region", "valid_from")
QUEUE_COLUMNS = ("queue", "name", "business_type", "valid_from")
UNKNOWN_TYPES = ("ZZ", "legacy_07")
FEWEST_ROWS = 20  # a smaller file stays clean


@dataclass(slots=True, eq=False)
class Row:
    """A line of a call file. `dirt` is completed with file and line when the file is written."""

    fields: list[str]
    dirt: list[dict[str, Any]] = field(default_factory=list)
    cut_at: int | None = None  # characters kept of a truncated line

    @property
    def clean(self) -> bool:
        """Whether nothing was done to the row."""
        return not self.dirt

    def value(self, column: str) -> str:
        """One field by name."""
        return self.fields[CALL_COLUMNS.index(column)]

    def replace(self, column: str, value: str) -> None:
        """Change one field."""
        self.fields[CALL_COLUMNS.index(column)] = value

    def note(self, kind: str, **details: Any) -> None:
        """Record what was done to the row."""
        entry = {"kind": kind, "call_id": self.value("call_id"), "leg": self.value("leg")}
        self.dirt.append(entry | details)


@dataclass(frozen=True)
class FeedFiles:
    """What was written: paths, lines and dirt per call file."""

    calls: list[Path]
    rows: dict[str, int]  # by file name, without header
    dirt: list[dict[str, Any]]


@dataclass(frozen=True)
class References:
    """The reference files, which every format needs."""

    agents: Path
    queues: Path


def write(
    directory: Path, played: World, start: date, days: int, seed: int, dirt: bool
) -> FeedFiles:
    """Write the feed of `played` into `directory`."""
    clock = Clock(start, days + 2)
    files: list[list[Row]] = [[] for _ in range(days)]
    for call in played.calls:
        rows = files[call.arrived // world.DAY]
        rows.extend(
            Row(_fields(call, number, leg, clock)) for number, leg in enumerate(call.legs, start=1)
        )
    names = call_file_names(start, days)
    if dirt:
        _soil(files, names, clock, stream(seed, "dirt"))
    injected: list[dict[str, Any]] = []
    for name, rows in zip(names, files, strict=True):
        lines = [",".join(CALL_COLUMNS)]
        for line, row in enumerate(rows, start=2):
            lines.append(",".join(row.fields)[: row.cut_at])
            injected.extend({"file": name, "line": line} | entry for entry in row.dirt)
        text = "\n".join(lines)
        # A file that broke off has no newline at its end.
        if not rows or rows[-1].cut_at is None:
            text += "\n"
        _replace(directory / name, gzip.compress(text.encode(), 6, mtime=0))
    return FeedFiles(
        [directory / name for name in names],
        {name: len(rows) for name, rows in zip(names, files, strict=True)},
        injected,
    )


def write_references(directory: Path, played: World, start: date) -> References:
    """Write agents and queues into `directory`."""
    return References(
        _table(directory / "agents.csv", AGENT_COLUMNS, _agents(played, start)),
        _table(
            directory / "queues.csv",
            QUEUE_COLUMNS,
            [
                (queue.queue_id, queue.name, queue.business_type, _epoch(start))
                for queue in world.QUEUES.values()
            ],
        ),
    )


def call_file_names(start: date, days: int) -> list[str]:
    """One file per day of arrival."""
    return [f"calls_{day.isoformat()}.csv.gz" for day in world.days(start, days)]


def _epoch(start: date) -> str:
    """Agents and queues exist since the new year before the first call."""
    return date(start.year, 1, 1).isoformat()


def _agents(played: World, start: date) -> list[tuple[str, ...]]:
    teams = {team.team_id: team for team in world.TEAMS}
    rows: list[tuple[str, ...]] = []
    for agent in played.agents:
        for entry in agent.memberships:
            team = teams[entry.team_id]
            since = (
                world.days(start, entry.from_day + 1)[-1].isoformat()
                if entry.from_day
                else _epoch(start)
            )
            rows.append((agent.agent_id, agent.name, team.team_id, team.name, team.region, since))
    return rows


def _table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Path:
    text = "".join(",".join(row) + "\n" for row in [columns, *rows])
    _replace(path, text.encode())
    return path


def _replace(path: Path, content: bytes) -> None:
    """Write whole or not at all: the folder may be watched."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _fields(call: Call, number: int, leg: Leg, clock: Clock) -> list[str]:
    first, queued, answered = number == 1, bool(leg.queue_id), leg.outcome == "answered"
    ivr = first and call.ivr_start is not None
    return [
        call.call_id,
        str(number),
        call.hotline,
        call.caller.number,
        call.channel,
        call.business_type,
        clock.stamp(call.arrived),
        clock.stamp(call.ivr_start) if ivr else "",
        clock.stamp(call.ivr_end) if ivr else "",
        str(call.ivr_seconds) if ivr else "",
        leg.queue_id,
        clock.stamp(leg.queue_start),
        clock.stamp(leg.queue_end),
        str(leg.wait_seconds) if queued else "",
        "" if leg.ring_seconds is None else str(leg.ring_seconds),
        leg.outcome,
        leg.stage,
        leg.agent_id,
        clock.stamp(leg.answered),
        clock.stamp(leg.released),
        str(leg.talk_seconds) if answered else "",
        str(leg.hold_seconds) if answered else "",
        str(leg.acw_seconds) if answered else "",
        leg.transfer,
        call.hangup_by,
        clock.stamp(call.ended),
    ]


def _soil(files: list[list[Row]], names: list[str], clock: Clock, chance: random.Random) -> None:
    """Inject dirt; every change notes what was done and what the warehouse should show."""
    carried: list[Row] = []
    for number, (name, rows) in enumerate(zip(names, files, strict=True)):
        arriving, carried = carried, []
        if len(rows) >= FEWEST_ROWS:
            _unknown_types(rows, chance)
            _negative_durations(rows, chance)
            if number + 1 < len(files):
                carried = _take_late(rows, name, chance) + _send_again(rows, name, chance)
            _duplicate(rows, chance)
            _impossible_date(rows, number, clock, chance)
        _line_test(rows, number, clock)
        rows.extend(arriving)
        if len(rows) >= FEWEST_ROWS and chance.random() < 0.2:
            _truncate(rows, chance)


def _few(chance: random.Random, mean: float) -> int:
    return max(1, round(chance.gauss(mean, mean**0.5)))


def _unknown_types(rows: list[Row], chance: random.Random) -> None:
    """A code that no list knows, on every leg of the call."""
    for picked in chance.sample(rows, _few(chance, len(rows) / 2000)):
        code = chance.choice(UNKNOWN_TYPES)
        for row in rows:
            if row.value("call_id") == picked.value("call_id") and row.clean:
                row.note(
                    "unknown_business_type",
                    column="business_type",
                    value=code,
                    recorded=row.value("business_type"),
                    warehouse=None,
                )
                row.replace("business_type", code)


def _negative_durations(rows: list[Row], chance: random.Random) -> None:
    """A reported duration with the wrong sign; the row's own times still tell the right one."""
    wanted = _few(chance, len(rows) / 1500)
    for row in chance.sample(rows, len(rows)):
        column = chance.choice(("ivr_s", "wait_s", "talk_s"))
        held = column == "talk_s" and row.value("hold_s") != "0"
        if row.value(column) in ("", "0") or held or not row.clean:
            continue
        seconds = int(row.value(column))
        row.note("negative_duration", column=column, value=-seconds, warehouse=seconds)
        row.replace(column, str(-seconds))
        wanted -= 1
        if not wanted:
            return


def _take_late(rows: list[Row], name: str, chance: random.Random) -> list[Row]:
    """Some of the day's last rows, which the exchange exports only with the next file."""
    if chance.random() > 0.35:
        return []
    late = [row for row in rows[-12:] if row.clean and chance.random() < 0.5]
    for row in late:
        rows.remove(row)
        row.note("late_row", expected_file=name)
    return late


def _send_again(rows: list[Row], name: str, chance: random.Random) -> list[Row]:
    """Rows that the next day's file holds once more, unchanged."""
    if chance.random() > 0.25:
        return []
    copies = []
    for row in chance.sample(rows, _few(chance, 2)):
        if row.clean:
            copies.append(Row(list(row.fields)))
            copies[-1].note("sent_again", first_file=name)
    return copies


def _duplicate(rows: list[Row], chance: random.Random) -> None:
    """The same line a second time, later in the same file."""
    for row in chance.sample(rows, _few(chance, len(rows) / 1000)):
        if row.clean:
            copy = Row(list(row.fields))
            copy.note("exact_duplicate")
            rows.insert(chance.randint(rows.index(row) + 1, len(rows)), copy)


def _impossible_date(rows: list[Row], number: int, clock: Clock, chance: random.Random) -> None:
    """An extra row that stands for no call: its arrival is on a 31st that does not exist."""
    if chance.random() > 0.3:
        return
    row = Row(list(chance.choice(rows).fields))
    day = clock.day(number * world.DAY)
    row.replace("call_id", f"{day.replace('-', '')}-9{chance.randrange(10**5):05d}")
    row.replace("arrived", f"{day[:4]}-02-31 {row.value('arrived')[11:]}")
    row.note("impossible_date", column="arrived", value=row.value("arrived"))
    rows.insert(chance.randint(0, len(rows)), row)


def _line_test(rows: list[Row], number: int, clock: Clock) -> None:
    """The exchange's own nightly test, recorded as if it were a call."""
    fields = dict.fromkeys(CALL_COLUMNS, "")
    at = number * world.DAY + 3 * world.HOUR + 15 * 60
    fields |= {
        "call_id": f"{clock.day(at).replace('-', '')}-TEST",
        "leg": "1",
        "hotline": "service",
        "channel": "ivr",
        "arrived": clock.stamp(at),
        "outcome": "phantom",
        "hangup_by": "system",
        "ended": clock.stamp(at + 2),
    }
    row = Row(list(fields.values()))
    row.note("phantom")
    place = next(
        (
            index
            for index, other in enumerate(rows)
            if other.value("arrived") > row.value("arrived")
        ),
        len(rows),
    )
    rows.insert(place, row)


def _truncate(rows: list[Row], chance: random.Random) -> None:
    """A last line that broke off: a repetition of a row that the file holds whole."""
    copy = Row(list(chance.choice([row for row in rows if row.clean]).fields))
    copy.cut_at = chance.randint(40, 90)
    copy.note("truncated_line")
    rows.append(copy)
