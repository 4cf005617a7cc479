"""What must be in the warehouse, told by others than its pipeline: the simulator and its truth.

Deliveries are what senders make of a world's files: pieces, other names, again, late, in any order.
How many rows they hold, and how many of these are new, is counted here, line by line.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from psycopg import sql
from tests.conftest import Contents, empty_warehouse

from callhouse import simulate, warehouse
from callhouse.landing import quarantine
from callhouse.settings import Settings

HOTLINE = "sample_hotline"
FORMATS = ("delimited", "queue_log", "connect")
# Kinds of files, and whether a line is a row by itself wherever it stands.
KINDS = {
    "calls": HOTLINE, "agent_states": HOTLINE, "offers": HOTLINE, "ivr_steps": HOTLINE,
    "surveys": HOTLINE, "queue_log": "asterisk_queue_log", "contacts": "amazon_connect_contacts",
    "agent_events": "amazon_connect_agent_events",
}  # fmt: skip
# Of these every line is one row; a state over midnight is two, one for each day.
COUNTED = {
    "calls": "delimited_legs", "queue_log": "asterisk_events",
    "contacts": "amazon_connect_contacts", "agent_events": "amazon_connect_agent_events",
}  # fmt: skip
# Days on which calendars and clocks are difficult: end of a month, leap day, end of a year.
STARTS = (date(2025, 10, 31), date(2024, 2, 28), date(2025, 12, 31), date(2025, 5, 30))


@dataclass(frozen=True)
class Delivery:
    """A file as it was sent."""

    feed: str
    kind: str
    path: Path
    lines: tuple[bytes, ...]  # without header


@dataclass(frozen=True)
class World:
    """Simulated days, with the truth about them."""

    folder: Path
    start: date
    lines: dict[str, tuple[bytes, ...]]  # by kind
    headers: dict[str, bytes]

    @property
    def references(self) -> list[Path]:
        """Agents and queues, which come before the calls."""
        return [self.folder / "agents.csv", self.folder / "queues.csv"]

    def truth(self, name: str) -> list[dict[str, str]]:
        """A table of the truth."""
        with (self.folder / "truth" / name).open(encoding="utf-8", newline="") as handle:
            return list(csv.DictReader(handle))


def simulated(
    folder: Path, seed: int, start: date, *, days: int = 2, calls_per_day: int = 60,
    formats: Sequence[str] = FORMATS,
) -> World:  # fmt: skip
    """A clean world: what damages it is done here, where it is known."""
    simulate.write(
        folder, seed=seed, start=start, days=days, calls_per_day=calls_per_day, dirt=False,
        formats=formats,
    )  # fmt: skip
    lines, headers = {}, {}
    for kind, feed in KINDS.items():
        where = {HOTLINE: ".", "asterisk_queue_log": "queue_log"}.get(feed, "connect")
        found = []
        for path in sorted((folder / where).glob(f"{kind}*")):
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            rows = content.splitlines(keepends=True)
            if feed == HOTLINE:
                headers[kind] = rows.pop(0)
            found += rows
        if found:
            lines[kind] = tuple(found)
    return World(folder, start, lines, headers)


def cut(world: World, folder: Path, kind: str, *places: int) -> list[Delivery]:
    """The lines of a kind as files that end at `places` and at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, found = world.lines[kind], []
    bounds = [0, *places, len(lines)]
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        found.append(written(world, folder / name(kind, number), kind, lines[start:end]))
    return found


def name(kind: str, number: int) -> str:
    """A name that the kind's feed expects."""
    suffix = {HOTLINE: f"{kind}_{number}.csv"}
    return suffix.get(KINDS[kind], f"{kind}.{number}")


def written(world: World, path: Path, kind: str, lines: Sequence[bytes]) -> Delivery:
    """Write a file."""
    content = world.headers.get(kind, b"") + b"".join(lines)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return Delivery(KINDS[kind], kind, path, tuple(lines))


def delivered(world: World, folder: Path, chance: random.Random) -> list[Delivery]:
    """Everything at least once: cut, some of it up to five times, under other names, in any order.

    A day's end may come before its beginning, and days after what follows it.
    """
    found: list[Delivery] = []
    for kind, lines in world.lines.items():
        places = sorted(chance.sample(range(1, len(lines)), chance.randint(0, 2)))
        pieces = cut(world, folder, kind, *places)
        for copy in range(chance.choice((0, 0, 1, 1, 5))):
            old = chance.choice(pieces)
            path = folder / name(kind, 100 + copy)
            if chance.random() < 0.5:  # the very same content, or some of it among other lines
                new = replace(old, path=path)
                path.write_bytes(old.path.read_bytes())
            else:
                some = sorted(chance.sample(range(len(lines)), min(len(lines), 40)))
                new = written(world, path, kind, [lines[place] for place in some])
            found.append(new)
        found += pieces
    chance.shuffle(found)
    return found


# ------------------------------------------------------------------------------ the warehouse
def empty(settings: Settings) -> None:
    """Nothing landed, no partition made and nothing published."""
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        partitions = connection.execute(
            "select oid::regclass::text from pg_class where relispartition and relkind = 'r'"
            " and relnamespace = 'staging'::regnamespace"
        ).fetchall()
        if partitions:
            every = ", ".join(found for (found,) in partitions)
            connection.execute(f"drop table {every}".encode())
    empty_warehouse(settings)


def staged(settings: Settings) -> Contents:
    """Rows of each staging table, and a checksum of what they say, by source.

    Not which unit brought them, nor on which line: of equal rows it is the first that came.
    """
    found: Contents = {}
    with warehouse.connect(settings) as connection:
        tables = connection.execute(
            "select c.relname from pg_class as c where not c.relispartition"
            " and c.relkind in ('r', 'p') and c.relnamespace = 'staging'::regnamespace"
            " and exists (select from pg_attribute as a where a.attrelid = c.oid"
            " and a.attname = 'source')"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(
                sql.SQL(
                    "select source, count(*), sum(hashtextextended((to_jsonb(t)"
                    " - '{{unit_id,line_number,superseded_by}}'::text[])::text, 0)::numeric)"
                    " from staging.{} as t group by source"
                ).format(sql.Identifier(table))
            ).fetchall()
            found |= {f"{table} of {source}": tuple(values) for source, *values in rows}
        found["quarantine"] = warehouse.one(
            connection, "select count(*), sum(line_number) from ops.quarantine"
        )
        found["callers"] = warehouse.one(connection, "select count(*), '' from pii.callers")
        found["dirty days"] = tuple(
            connection.execute(
                "select distinct lane, business_day from ops.dirty_marks order by 1, 2"
            )
        )
    return found


def check_ledger(settings: Settings) -> None:
    """Every row read is in one place, and the ledger says of each unit what staging holds of it."""
    for ledger in quarantine.ledger(settings):
        assert ledger.is_balanced, ledger
    with warehouse.connect(settings) as connection:
        tables = connection.execute(
            "select c.relname from pg_class as c inner join pg_attribute as a on a.attrelid = c.oid"
            " where not c.relispartition and c.relkind in ('r', 'p')"
            " and c.relnamespace = 'staging'::regnamespace and a.attname = 'unit_id'"
        ).fetchall()
        counted = " union all ".join(
            f"select unit_id, count(*) as n from staging.{table} group by unit_id"
            for (table,) in tables
        )
        wrong = connection.execute(
            "select u.unit_id, u.name, u.staged_rows, s.n from ops.units as u full join"
            f" (select unit_id, sum(n) as n from ({counted}) as c group by unit_id) as s"
            " on u.unit_id = s.unit_id"
            " where u.staged_rows is distinct from coalesce(s.n, 0)".encode()
        ).fetchall()
        assert wrong == [], "the ledger of units is not what is staged"
        wrong = connection.execute(
            "select u.unit_id, u.name, u.quarantined_rows, q.n from ops.units as u full join"
            " (select unit_id, count(*) as n from ops.quarantine group by unit_id) as q"
            " on u.unit_id = q.unit_id where u.quarantined_rows is distinct from coalesce(q.n, 0)"
        ).fetchall()
        assert wrong == [], "the ledger of units is not what is in quarantine"


def check_lines(settings: Settings, world: World) -> None:
    """Each line of the world is staged once, however often it was delivered."""
    with warehouse.connect(settings) as connection:
        for kind, table in COUNTED.items():
            if kind not in world.lines:
                continue
            rows = warehouse.one(
                connection,
                sql.SQL("select count(*), count(distinct row_hash) from staging.{}"
                        " where source = %s").format(sql.Identifier(table)),
                [sources()[kind]],
            )  # fmt: skip
            wanted = len({line.strip() for line in world.lines[kind]})
            assert rows == (wanted, wanted), kind


def sources() -> dict[str, str]:
    """The source that the rows of a kind have: agents' events are of their contacts' centre."""
    return KINDS | {"agent_events": "amazon_connect_contacts"}


def check_truth(settings: Settings, world: World, source: str = HOTLINE) -> int:
    """No call of the truth is lost, none is doubled, and the sums are its own; returns how many."""
    wanted = Counter(row["call_id"] for row in world.truth("calls.csv"))
    with warehouse.connect(settings) as connection:
        found = Counter(dict(connection.execute(
            "select call_id, count(*)::int from marts.fct_calls where source = %s and calls = 1"
            " group by call_id", [source],
        ).fetchall()))  # fmt: skip
        lost, doubled = wanted - found, found - wanted
        assert not lost and not doubled, f"lost {len(lost)}, doubled {len(doubled)}"
        sums = (
            "select count(*), sum(ivr_seconds), sum(wait_seconds), sum(talk_seconds),"
            " sum(hold_seconds), sum(acw_seconds) from marts.fct_calls"
            " where source = %s and calls = 1"
        )
        columns = ("ivr", "wait", "talk", "hold", "acw")
        totals = [len(wanted), *(
            sum(int(row[f"{column}_seconds"]) for row in world.truth("calls.csv"))
            for column in columns
        )]  # fmt: skip
        assert list(warehouse.one(connection, sums, [source])) == totals
        boards = warehouse.one(
            connection,
            "select sum(calls_offered), sum(calls_answered), sum(calls_abandoned)"
            " from marts.agg_queue_15min where source = %s",
            [source],
        )
        daily = world.truth("queue_15min.csv")
        assert list(boards) == [
            sum(int(row[column]) for row in daily)
            for column in ("calls_offered", "calls_answered", "calls_abandoned")
        ]
    return len(wanted)


def different(left: Contents, right: Contents) -> list[str]:
    """What two contents do not agree in."""
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
