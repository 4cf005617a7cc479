"""Landing rate of a file of each format against COPY of its finished rows by the server itself.

Run: `python -m pytest -s tests/bench/bench_landing.py`. Rows: CALLHOUSE_BENCH_ROWS (1,000,000;
a quarter of it for contact records). The bound is a ratio within one run, so that it holds on a
slow or busy machine too: the median of three turns, each with other days, calls and callers. What
Python takes at most is printed and bound: it must not grow with the file.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

import psutil
import psycopg
import pytest
from tests.bench.conftest import Tell

from callhouse import landing, simulate, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

ROWS = int(os.environ.get("CALLHOUSE_BENCH_ROWS", "1000000"))
TURNS = 3
MEMORY = 1e9  # bytes
KNOWN_CALLS = 5_000_000
FLAT = 1.15
BANK_HEADER = [
    "vru+line",
    "call_id",
    "customer_id",
    "priority",
    "type",
    "date",
    "vru_entry",
    "vru_exit",
    "vru_time",
    "q_start",
    "q_exit",
    "q_time",
    "outcome",
    "ser_start",
    "ser_exit",
    "ser_time",
    "server",
]
HOTLINE_HEADER = [
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
]


def clock(second: int) -> str:
    """Time of day."""
    return f"{second // 3600 % 24}:{second // 60 % 60:02d}:{second % 60:02d}"


def bank_file(path: Path, rows: int, turn: int) -> None:
    """A month of calls in the shape of the AnonymousBank feed."""
    chance = random.Random(7 + 10 * turn)
    types = ("PS", "PS", "PS", "NE", "NW", "IN")
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(BANK_HEADER) + "\n")
        for number in range(rows):
            day = number * 30 // rows + 1
            entry = int(chance.random() * 80_000) + 3_000
            left = entry + chance.randint(3, 40)
            wait = int(chance.expovariate(1 / 60)) if chance.random() < 0.6 else 0
            talk = int(chance.expovariate(1 / 180)) + 1
            start = left + wait
            answered = chance.random() < 0.85
            caller = chance.randint(1, 200_000) + 200_000 * turn if chance.random() < 0.4 else 0
            cells = (
                f"AA01{number % 16 + 1:02d}", number + turn * rows, caller, chance.randint(0, 2),
                chance.choice(types), f"99{6 + turn:02d}{day:02d}", clock(entry), clock(left),
                left - entry, clock(left) if wait else "0:00:00",
                clock(start) if wait else "0:00:00", wait, "AGENT" if answered else "HANG",
                clock(start) if answered else "0:00:00",
                clock(start + talk) if answered else "0:00:00", talk if answered else 0,
                f"AGENT{chance.randint(1, 200)}" if answered else "NO_SERVER",
            )  # fmt: skip
            file.write("\t".join(map(str, cells)) + "\n")


def hotline_file(path: Path, rows: int, turn: int) -> None:
    """A month of calls in the shape of the sample hotline: full timestamps, phone numbers."""
    chance = random.Random(8 + 10 * turn)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(HOTLINE_HEADER) + "\n")
        for number in range(rows):
            day = f"2026-{6 + turn:02d}-{number * 30 // rows + 1:02d} "
            arrived = int(chance.random() * 80_000)
            left = arrived + chance.randint(3, 90)
            wait, talk = int(chance.expovariate(1 / 40)), int(chance.expovariate(1 / 180)) + 1
            hold, wrap_up = (int(chance.expovariate(1 / 20)) for _ in range(2))
            start = left + wait
            end = start + talk + hold
            answered = chance.random() < 0.9 and end < 86_400
            if not answered:
                end = start = min(start, 86_399)
                wait = start - left
            stamps = [f"{day}{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}"
                      for s in (arrived, left, start, end)]  # fmt: skip
            prefix = chance.choice(("1358", "1380", "1590", "1866", "1771"))
            caller = (
                f"{prefix}{chance.randint(0, 299) + 300 * turn:03d}{chance.randint(0, 166):04d}"
            )
            cells = (
                f"{day[:10]}-{number:08d}", 1, "service", caller, "human", "cards", stamps[0],
                stamps[0], stamps[1], left - arrived, "service", stamps[1], stamps[2], wait, 3,
                *(("answered", "", f"a{chance.randint(1, 200)}", stamps[2], stamps[3], talk, hold,
                   wrap_up, "", "customer") if answered
                  else ("abandoned", "queue", "", "", "", "", "", "", "", "customer")),
                stamps[3],
            )  # fmt: skip
            file.write(",".join(map(str, cells)) + "\n")


def queue_log_file(path: Path, rows: int, turn: int) -> None:
    """A month of queue_log lines: calls of three events each, of 200 agents in 8 queues."""
    chance = random.Random(9 + 10 * turn)
    begin, calls = int(datetime(2026, 6 + turn, 1, tzinfo=UTC).timestamp()), -(-rows // 3)
    with path.open("w", encoding="utf-8", newline="") as file:
        for number in range(calls):
            at = begin + number * 30 * 86_400 // calls
            queue, agent = f"queue{number % 8}", f"Agent/{chance.randint(1, 200)}"
            wait, talk = int(chance.expovariate(1 / 40)), int(chance.expovariate(1 / 180)) + 1
            caller = f"138{chance.randint(0, 299) + 300 * turn:04d}{chance.randint(0, 999):04d}"
            call = f"{at}.{number}"
            answered = chance.random() < 0.9
            lines = (
                f"{at}|{call}|{queue}|NONE|ENTERQUEUE||{caller}|1",
                f"{at + wait}|{call}|{queue}|{agent}|CONNECT|{wait}|{call}|2" if answered
                else f"{at + wait}|{call}|{queue}|NONE|ABANDON|1|1|{wait}",
                f"{at + wait + talk}|{call}|{queue}|{agent}|COMPLETECALLER|{wait}|{talk}|1"
                if answered else f"{at + wait}|{call}|{queue}|{agent}|RINGNOANSWER|5000",
            )  # fmt: skip
            file.write("\n".join(lines[: rows - 3 * number]) + "\n")


def contacts_file(path: Path, rows: int, turn: int) -> None:
    """A week of contact records as the simulator writes them, each many times by other ids."""
    with tempfile.TemporaryDirectory() as folder:
        simulate.write(
            Path(folder), seed=5 + turn, start=date(2026, 6 + turn, 1), days=7, calls_per_day=1000,
            dirt=False, formats=("connect",),
        )  # fmt: skip
        records = [
            line
            for file in sorted((Path(folder) / "connect").glob("contacts_*"))
            for line in gzip.decompress(file.read_bytes()).decode().splitlines()
        ]
    identifier = re.compile(r'ContactId":"[0-9a-f]{5}')
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            copy, record = divmod(number, len(records))
            prefix = f"{copy + turn * rows:05x}"
            file.write(identifier.sub(f'ContactId":"{prefix}', records[record]) + "\n")


class Memory(threading.Thread):
    """The most resident bytes of this process while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        # Some of it is the process itself, and what wrote the file.
        self.before = self.most = psutil.Process().memory_info().rss
        self.over = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        while not self.over.wait(0.1):
            self.most = max(self.most, process.memory_info().rss)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def settled(superuser: str) -> None:
    """Let the server finish what earlier loads left to do: neither side is to pay for it."""
    with psycopg.connect(superuser, autocommit=True) as server:
        server.execute("vacuum (analyze)")
        server.execute("checkpoint")


@pytest.mark.timeout(3600)
def test_a_landing_does_not_grow_with_the_calls_that_are_known(
    settings: Settings, cluster: postgres.Cluster, tmp_path: Path, figure: Tell
) -> None:
    """3,000 calls of a queue log, among few and among KNOWN_CALLS of its source."""
    feed, numbers = "asterisk_queue_log", iter(range(100))
    lines = tmp_path / "queue_log"
    queue_log_file(lines, 9_000, 0)
    text = lines.read_text(encoding="utf-8")

    def median() -> float:
        times = []
        for _ in range(6):
            path = tmp_path / f"queue_log.{next(numbers)}"
            path.write_text(re.sub(r"\|(\d+\.\d+)", rf"|\1{path.suffix}", text), encoding="utf-8")
            begin = time.perf_counter()
            assert landing.land(settings, feed, [path])[0].staged == 9_000
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])

    few = median()
    superuser = (
        f"host=127.0.0.1 port={settings.postgres_port} user=postgres "
        f"password={cluster.password} dbname=callhouse"
    )
    with psycopg.connect(superuser) as server:
        server.execute(
            "insert into staging.asterisk_calls "
            "(source, call_id, business_day, first_event_at, arrived_at) "
            "select %s, '1500000000.' || n, '2017-07-14', to_timestamp(1500000000), "
            "to_timestamp(1500000000) from generate_series(1, %s) as n", [feed, KNOWN_CALLS],
        )  # fmt: skip
    settled(superuser)
    many = median()
    with psycopg.connect(superuser) as server:
        server.execute("delete from staging.asterisk_calls where business_day = '2017-07-14'")
    print(f"\nlanding 9,000 lines: {few:.2f} s, among {KNOWN_CALLS:,} known calls {many:.2f} s, "
          f"ratio {many / few:.2f}")  # fmt: skip
    known = f"9,000 lines among {KNOWN_CALLS:,} known calls"
    figure(f"{known} ÷ among few", many / few, at_most=FLAT)
    figure(known, many, "s")
    assert many / few <= FLAT


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("feed", "write", "name", "rows", "table", "bound"),
    [
        ("anonymous_bank", bank_file, "bank.txt", ROWS, "delimited_legs", 0.8),
        ("sample_hotline", hotline_file, "calls_bench.csv", ROWS, "delimited_legs", 0.8),
        ("asterisk_queue_log", queue_log_file, "queue_log", ROWS, "asterisk_events", 0.6),
        ("amazon_connect_contacts", contacts_file, "contacts.jsonl", ROWS // 4,
         "amazon_connect_contacts", 0.4),
    ],
)  # fmt: skip
def test_landing_reaches_the_bound(
    settings: Settings,
    cluster: postgres.Cluster,
    tmp_path: Path,
    figure: Tell,
    feed: str,
    write: Callable[[Path, int, int], None],
    name: str,
    rows: int,
    table: str,
    bound: float,
) -> None:
    """Landing ≥ `bound` × the rate of a server-side COPY of the rows that came out."""
    superuser = (
        f"host=127.0.0.1 port={settings.postgres_port} user=postgres "
        f"password={cluster.password} dbname=callhouse"
    )
    landings, copies, most = [], [], 0.0
    for turn in range(TURNS):
        path = tmp_path / str(turn) / name
        path.parent.mkdir()
        write(path, rows, turn)
        settled(superuser)
        begin = time.perf_counter()
        with Memory() as memory:
            result = landing.land(settings, feed, [path])[0]
        landings.append(time.perf_counter() - begin)
        assert result.status == "landed" and result.unit_id is not None, result.reason
        assert (result.read, result.staged) == (rows, rows)
        copies.append(copy_seconds(superuser, table, result.unit_id))
        most = max(most, memory.most)
        print(
            f"\n{feed}: landing {rows / landings[-1]:,.0f} rows/s, server-side COPY into a "
            f"partitioned table {rows / copies[-1]:,.0f} rows/s, ratio "
            f"{copies[-1] / landings[-1]:.2f}; {path.stat().st_size / 1e6:,.0f} MB, Python at most "
            f"{memory.most / 1e6:,.0f} MB, {memory.before / 1e6:,.0f} MB before"
        )
        path.unlink()
    ratio = statistics.median(c / t for c, t in zip(copies, landings, strict=True))
    figure(f"{feed}, {rows:,} rows: landing ÷ COPY", ratio, at_least=bound)
    figure(f"{feed}, {rows:,} rows", rows / statistics.median(landings), "rows/s")
    figure(f"{feed}, {rows:,} rows: Python at most", most / 1e6, "MB", at_most=MEMORY / 1e6)
    assert ratio >= bound
    assert most < MEMORY


def copy_seconds(superuser: str, table: str, unit_id: int) -> float:
    """What the server takes to COPY the rows of a unit from a file into a table like theirs."""
    rows = f"staging.{table} where unit_id = {unit_id}"
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(superuser) as server:
        Path(folder).chmod(0o777)
        finished = str(Path(folder) / "rows")
        server.execute(f"copy (select * from {rows} order by line_number) to '{finished}'".encode())
        server.execute(
            f"create table public.copied (like staging.{table} including all) "
            "partition by range (business_day)".encode()
        )
        server.execute(
            f"do $$ declare d date; begin for d in select distinct business_day from {rows} loop "
            "execute format('create table public.copied_%s partition of public.copied for values "
            "from (%L) to (%L)', to_char(d, 'YYYYMMDD'), d, d + 1); end loop; end $$".encode()
        )
        server.commit()
        settled(superuser)
        begin = time.perf_counter()
        server.execute(f"copy public.copied from '{finished}'".encode())
        server.commit()
        taken = time.perf_counter() - begin
        server.execute("drop table public.copied")
        server.commit()
    return taken


def test_landing_again_costs_no_landing(settings: Settings, tmp_path: Path) -> None:
    """A file that was landed before is recognised by its content alone."""
    path = tmp_path / "again.txt"
    bank_file(path, 20_000, TURNS)
    with warehouse.connect(settings):
        pass
    first = landing.land(settings, "anonymous_bank", [path])[0]
    begin = time.perf_counter()
    second = landing.land(settings, "anonymous_bank", [path])[0]
    print(f"\nrecognised in {time.perf_counter() - begin:.2f} s")
    assert (first.status, second.status) == ("landed", "already_landed")
