"""A log is followed while it is written, rotated and while everything around it dies."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.faults import nemesis, world
from tests.faults.world import World

from callhouse import landing, warehouse
from callhouse.live import collectors
from callhouse.live import tail as tail_module
from callhouse.live.tail import Tail
from callhouse.runner import postgres, supervision
from callhouse.settings import Settings

LOG = "asterisk_queue_log"
UNTIL_SECONDS = 60.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each draw has another order of events; the short form has a few."""
    if "draw" in metafunc.fixturenames:
        metafunc.parametrize("draw", range(24 if metafunc.config.getoption("fault_runs") else 3))


@pytest.fixture
def log(emptied: Settings, tmp_path: Path) -> Iterator[Path]:
    """An empty log that the feed follows."""
    mapping = emptied.feeds_directory / f"{LOG}.yaml"
    mapping.parent.mkdir(parents=True, exist_ok=True)
    path = tmp_path / "asterisk" / "queue_log"
    path.parent.mkdir()
    path.touch()
    mapping.write_text(f"feed: {LOG}\nvendor: asterisk\ncountry: CN\ntail: {path}\n")
    yield path
    mapping.unlink()


@pytest.fixture
def followed(emptied: Settings, log: Path) -> Iterator[Callable[[float], Tail]]:
    """Makes a tail of the log with some patience, in the place of the one before."""
    made: list[Tail] = []

    def make(patience: float = 600.0) -> Tail:
        for tail in made:
            tail.close()
        (found,) = collectors.configured(emptied, say=lambda _: None)
        assert isinstance(found, Tail)
        made.append(found)
        made[-1].patience *= patience / 600.0
        return made[-1]

    yield make
    for tail in made:
        tail.close()


def write(log: Path, *lines: bytes) -> None:
    with log.open("ab") as file:
        file.writelines(lines)


def counts(settings: Settings) -> tuple[int, int, int]:
    """Rows staged, lines that tails have read, rows in quarantine."""
    with warehouse.connect(settings) as connection:
        row = warehouse.one(
            connection,
            "select (select count(*) from staging.asterisk_events),"
            " (select coalesce(sum(read_rows), 0)::int from ops.units where kind = 'tail'),"
            " (select count(*) from ops.quarantine)",
        )
    return row[0], row[1], row[2]


def check_once(settings: Settings, lines: tuple[bytes, ...], folder: Path) -> None:
    """Each line is staged once and was read once; the batch lane finds nothing new in the files."""
    world.check_ledger(settings)
    with warehouse.connect(settings) as connection:
        distinct = warehouse.one(
            connection, "select count(distinct row_hash) from staging.asterisk_events"
        )[0]
    assert counts(settings) == (len(lines), len(lines), 0)
    assert distinct == len(lines)
    with_rows = [path for path in folder.iterdir() if held(path)]
    assert with_rows
    for result in landing.land(settings, LOG, with_rows):
        assert (result.status, result.staged) == ("landed", 0), result
        assert result.read == result.duplicates > 0
    assert counts(settings)[0] == len(lines)


def held(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def rotate(log: Path, *, by_copy: bool) -> None:
    """More are kept than the longest run has rotations: what nobody keeps nobody can read."""
    for number in range(99, 0, -1):
        for end in ("", ".gz"):
            old = log.with_name(f"queue_log.{number}{end}")
            if old.exists():
                old.rename(log.with_name(f"queue_log.{number + 1}{end}"))
    if by_copy:
        shutil.copyfile(log, log.with_name("queue_log.1"))
        os.truncate(log, 0)
    else:
        log.rename(log.with_name("queue_log.1"))
        log.touch()


def compress(log: Path) -> None:
    for old in log.parent.glob("queue_log.2"):
        with gzip.open(log.with_name("queue_log.2.gz"), "wb") as packed:
            packed.write(old.read_bytes())
        old.unlink()


def until_read(settings: Settings, count: int, look: Callable[[], object]) -> None:
    """`look` until so many lines were read."""
    end = time.monotonic() + UNTIL_SECONDS
    while counts(settings)[1] < count and time.monotonic() < end:
        look()
        time.sleep(0.1)


def test_a_collector_and_its_server_die_while_lines_come(
    emptied: Settings, cluster: postgres.Cluster, simulated: World, log: Path,
    chance: random.Random, fault_runs: int,
) -> None:  # fmt: skip
    """SIGKILL at any moment, an immediate stop, rotation of every kind, lines written in halves."""
    lines = simulated.lines["queue_log"]
    content = b"".join(lines)
    rounds = 1 if not fault_runs else 12
    what = ["kill", "kill", "rename", "copy", "compress", "rename"] * rounds
    what += ["stop"] * (1 if not fault_runs else 4)
    chance.shuffle(what)
    places = sorted(chance.sample(range(1, len(content)), 3 * len(what)))
    collector = nemesis.Command(emptied, "collect")
    collector.wait_for("follows")
    start = 0
    for number, place in enumerate(places):
        write(log, content[start:place])
        start = max(start, place)  # a line that was ended for rotation may reach beyond it
        time.sleep(chance.uniform(0, 0.4))
        if number % 3:
            continue
        fault = what[number // 3]
        if fault == "kill":
            collector.kill()
            collector.end()
            collector = nemesis.Command(emptied, "collect")
        elif fault == "stop":
            cluster.stop("immediate")
            write(log, content[start : (start := max(start, (start + places[number + 1]) // 2))])
            time.sleep(chance.uniform(0, 1))
            cluster.start()
        elif fault == "compress":
            compress(log)
        else:
            # An exchange ends its line before it turns to the new file.
            end = content.index(b"\n", start - 1) + 1
            write(log, content[start:end])
            start = max(start, end)
            rotate(log, by_copy=fault == "copy")
    write(log, content[start:])
    until_read(emptied, len(lines), lambda: None)
    time.sleep(1)
    collector.process.send_signal(signal.SIGTERM)
    assert collector.end().code == 0
    check_once(emptied, lines, log.parent)


@pytest.mark.usefixtures("draw")
def test_rotation_at_any_moment(
    emptied: Settings, simulated: World, log: Path, chance: random.Random,
    followed: Callable[[], Tail],
) -> None:  # fmt: skip
    """Between two looks anything: rotated twice, compressed, removed, the inode used again."""
    lines = simulated.lines["queue_log"][:300]
    left, is_read = list(lines), True
    tail = followed()
    tail.look()
    while left:
        fault = chance.choice(
            ("write", "write", "rename", "copy", "compress", "drop", "look", "look", "start")
        )
        if fault == "write":
            count = chance.randint(1, 40)
            write(log, *left[:count])
            del left[:count]
            is_read = False
        elif fault in ("rename", "copy"):
            rotate(log, by_copy=fault == "copy")
        elif fault == "compress":
            compress(log)
        elif fault == "drop" and is_read:
            for old in [path for path in log.parent.iterdir() if path != log]:
                old.unlink()
        elif fault == "look":
            until_read(emptied, len(lines) - len(left), tail.look)
            is_read = True
        elif fault == "start":
            tail = followed()
    until_read(emptied, len(lines), tail.look)
    tail.look()
    check_once(emptied, lines, log.parent)


def test_the_inode_of_an_empty_file_is_used_again(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail]
) -> None:
    """A log is rotated empty and removed; a later one has its inode and is rotated in its turn.

    Nothing but the inode tells a file of which nothing was read: the later log was read as its
    rest, a second time.
    """
    lines = simulated.lines["queue_log"][:60]
    tail = followed()
    tail.look()
    rotate(log, by_copy=False)
    for _ in range(3):
        tail.look()
    log.with_name("queue_log.1").unlink()
    with warehouse.connect(emptied) as connection:  # which inode is next, the file system decides
        connection.execute(
            "update ops.tail_files set inode = %s where path = %s", [log.stat().st_ino, str(log)]
        )
    tail = followed()
    write(log, *lines[:40])
    until_read(emptied, 40, tail.look)
    rotate(log, by_copy=False)
    write(log, *lines[40:])
    until_read(emptied, 60, tail.look)
    for _ in range(3):
        tail.look()
    check_once(emptied, lines, log.parent)


def test_a_copy_that_lacks_the_last_lines(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail]
) -> None:
    """Lines between copy and truncation are read in the log; the copy is not taken for another."""
    lines = simulated.lines["queue_log"][:120]
    tail = followed()
    write(log, *lines[:50])
    until_read(emptied, 50, tail.look)
    shutil.copyfile(log, log.with_name("queue_log.1"))
    write(log, *lines[50:60])
    until_read(emptied, 60, tail.look)
    os.truncate(log, 0)
    write(log, *lines[60:])
    time.sleep(landing.STABLE_SECONDS)  # what was written just now may still grow
    until_read(emptied, 120, tail.look)
    for _ in range(3):
        tail.look()
    check_once(emptied, lines, log.parent)


def test_truncated_and_filled_again_while_it_is_landed(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Between reading and remembering the place: it was remembered as one in the new content."""
    lines = simulated.lines["queue_log"][:120]
    tail = followed()
    write(log, *lines[:50])
    tail.look()
    mark = tail_module._mark
    truncated: list[int] = []

    def late(handle: IO[bytes], offset: int) -> str | None:
        if not truncated:
            truncated.append(offset)
            rotate(log, by_copy=True)
            write(log, *lines[50:])
        return mark(handle, offset)

    monkeypatch.setattr(tail_module, "_mark", late)
    until_read(emptied, 120, tail.look)
    assert truncated == [len(b"".join(lines[:50]))]
    for _ in range(3):
        tail.look()
    check_once(emptied, lines, log.parent)


def test_another_file_of_the_same_inode_and_longer(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail]
) -> None:
    """Neither inode nor size tells that the log was truncated and has grown past its old end."""
    lines = simulated.lines["queue_log"][:300]
    tail = followed()
    write(log, *lines[:50])
    until_read(emptied, 50, tail.look)
    inode = log.stat().st_ino
    write(log, *lines[50:60])
    rotate(log, by_copy=True)
    write(log, *lines[60:])
    assert (log.stat().st_ino, log.stat().st_size > sum(map(len, lines[:60]))) == (inode, True)
    until_read(emptied, 300, tail.look)
    check_once(emptied, lines, log.parent)


def test_a_half_line_waits_for_its_end(
    emptied: Settings, simulated: World, log: Path, followed: Callable[..., Tail]
) -> None:
    """It lands once it is whole; of a file that is over it is set aside, and told."""
    first, second, third = simulated.lines["queue_log"][:3]
    tail = followed()
    write(log, first, second[:-5])
    for _ in range(3):
        tail.look()
    assert counts(emptied) == (1, 1, 0)
    write(log, second[-5:], third[:-5])
    for _ in range(3):
        tail.look()
    assert counts(emptied) == (2, 2, 0)
    rotate(log, by_copy=False)
    for _ in range(3):
        tail.look()
    assert counts(emptied) == (2, 2, 0)
    tail = followed(0.0)
    for _ in range(4):
        tail.look()
    assert counts(emptied) == (2, 3, 1)
    with warehouse.connect(emptied) as connection:
        found = connection.execute("select line_number, reason_code from ops.quarantine").fetchall()
        ended = connection.execute(
            "select lines, finished_at is not null from ops.tail_files where path = %s "
            "order by file_id", [str(log)],
        ).fetchall()  # fmt: skip
    assert found == [(3, "cut_off")]
    assert ended == [(3, True), (0, False)]


def test_lines_that_are_none_do_not_stop_it(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail]
) -> None:
    """As many as would refuse a file: they are set aside, what comes after them lands."""
    lines = simulated.lines["queue_log"][:5]
    tail = followed()
    write(log, *[b"no event\n"] * (landing.WRONG_MAPPING_ROWS + 1))
    tail.look()
    tail.look()
    write(log, *lines)
    until_read(emptied, landing.WRONG_MAPPING_ROWS + 6, tail.look)
    assert counts(emptied) == (5, landing.WRONG_MAPPING_ROWS + 6, landing.WRONG_MAPPING_ROWS + 1)


def test_two_collectors_take_turns(emptied: Settings, simulated: World, log: Path) -> None:
    """The second finds what the first has landed."""
    lines = simulated.lines["queue_log"][:200]
    tails = [tail for _ in range(2) for tail in collectors.configured(emptied, say=lambda _: None)]
    for place in range(0, 200, 20):
        write(log, *lines[place : place + 20])
        for tail in tails:
            tail.look()
    for tail in tails:
        tail.look()
        tail.close()
    check_once(emptied, lines, log.parent)


def test_it_beats_and_is_supervised(
    emptied: Settings, simulated: World, log: Path, followed: Callable[[], Tail]
) -> None:
    """The heartbeat says how far it got; the runner knows of it as long as there is a tail."""
    lines = simulated.lines["queue_log"][:20]
    write(log, *lines)
    tail = followed()
    until_read(emptied, 20, tail.look)
    with warehouse.connect(emptied) as connection:
        beat = connection.execute(
            "select b.position, b.newest_event_at is not null, d.kind from ops.heartbeats as b "
            "inner join ops.capture_devices as d using (device) where device = %s "
            "order by beat_id desc limit 1", [f"{LOG}_tail"],
        ).fetchone()  # fmt: skip
        marked = warehouse.one(connection, "select count(*) from ops.dirty_marks")[0]
    assert beat == (f"queue_log:{log.stat().st_size}", True, "collector")
    assert marked > 0
    assert "collector" in supervision.names(emptied)
    (emptied.feeds_directory / f"{LOG}.yaml").write_text(f"feed: {LOG}\nvendor: asterisk\n")
    assert "collector" not in supervision.names(emptied)
