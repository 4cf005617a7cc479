"""Files that are cut off, still growing, rotated and sent again: every line counts once."""

from __future__ import annotations

import errno
import gzip
import os
import random
import shutil
from pathlib import Path

import pytest
from tests.faults import nemesis, world
from tests.faults.world import World

from callhouse import landing, warehouse
from callhouse.settings import Settings
from callhouse.sources.files import LineFile

LOG = "asterisk_queue_log"


def check_complete(settings: Settings, simulated: World, kind: str) -> None:
    """Every line of the world is a row that counts, and no other row does."""
    world.check_ledger(settings)
    table, lines = world.COUNTED[kind], simulated.lines[kind]
    alone = "" if kind == "queue_log" else " and superseded_by is null"
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            f"select count(*), count(distinct row_hash) from staging.{table}"
            f" where source = %s{alone}".encode(),
            [world.sources()[kind]],
        ).fetchone()
    assert rows == (len(lines), len(lines))


# ------------------------------------------------------------------------------ cut off
@pytest.mark.parametrize("kind", ["calls", "queue_log", "contacts"])
def test_cut_off_anywhere_and_then_whole(
    emptied: Settings, simulated: World, tmp_path: Path, chance: random.Random, kind: str,
    fault_runs: int,
) -> None:  # fmt: skip
    """What a half of a line seems to say is corrected by the whole; a kept half is told."""
    whole = world.cut(simulated, tmp_path / "whole", kind)[0]
    content = whole.path.read_bytes()
    part = tmp_path / whole.path.name
    ends = [len(content) - n for n in range(1, 25)] if fault_runs else [len(content) - 3]
    ends += chance.sample(range(len(content) // 2, len(content)), 40 if fault_runs else 4)
    for end in ends:
        part.write_bytes(content[:end])
        [first] = landing.land(emptied, whole.feed, [part])
        assert first.status == "landed", (end, first.reason)
        [second] = landing.land(emptied, whole.feed, [whole.path])
        assert second.status == "landed" and second.quarantined == 0, end
        check_complete(emptied, simulated, kind)
        assert first.quarantined <= 1, end
        world.empty(emptied)


def test_a_compressed_file_cut_short_is_refused_until_it_is_whole(
    emptied: Settings, simulated: World, tmp_path: Path, chance: random.Random
) -> None:
    whole = world.written(simulated, tmp_path / "calls_1.csv.gz", "calls", simulated.lines["calls"])
    content = whole.path.read_bytes()
    for end in chance.sample(range(20, len(content)), 5):
        whole.path.write_bytes(content[:end])
        [result] = landing.land(emptied, whole.feed, [whole.path])
        assert result.status == "refused" and "cut off or damaged" in (result.reason or "")
    with warehouse.connect(emptied) as connection:
        assert warehouse.one(connection, "select count(*) from staging.delimited_legs") == (0,)
    whole.path.write_bytes(content)
    landing.land(emptied, whole.feed, [whole.path])
    check_complete(emptied, simulated, "calls")


# ------------------------------------------------------------------------------ growing
def test_a_file_that_grows_while_it_is_read_is_taken_when_it_is_complete(
    emptied: Settings, simulated: World
) -> None:
    """From the drop folder, and without anybody's help."""
    folder = emptied.inbox / world.HOTLINE
    shutil.rmtree(folder, ignore_errors=True)
    lines = simulated.lines["calls"]
    half = len(lines) // 2
    folder.mkdir(parents=True)
    growing = world.written(simulated, folder / "calls_1.csv", "calls", lines[:half])
    os.utime(growing.path, (1, 1))

    def grow() -> None:
        with growing.path.open("ab") as file:
            file.writelines(lines[half:])

    program = (
        "import sys; from callhouse import landing, settings; "
        "print([r.status for r in landing.land_inbox(settings.load(), sys.argv[1])])"
    )
    with nemesis.Door(emptied.postgres_port, at=12, strike=grow, goes_on=True) as door:
        looked = nemesis.Command(
            emptied, world.HOTLINE, port=door.port, program=("-c", program)
        ).end()
    assert door.struck and looked.code == 0, looked
    assert growing.path.exists(), f"taken away from who writes it: {looked.output}"
    os.utime(growing.path, (1, 1))
    assert [r.status for r in landing.land_inbox(emptied, world.HOTLINE)] == ["landed"]
    check_complete(emptied, simulated, "calls")
    with warehouse.connect(emptied) as connection:
        assert warehouse.one(connection, "select count(*) from ops.units") == (1,)


def test_an_upload_that_stalls_is_taken_whole(emptied: Settings, simulated: World) -> None:
    """It looks complete, lands and is archived; what is written after that is not lost."""
    folder = emptied.inbox / world.HOTLINE
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(emptied.archive, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = simulated.lines["calls"]
    half = len(lines) // 2
    with (folder / "calls_1.csv").open("wb") as upload:
        upload.write(simulated.headers["calls"] + b"".join(lines[:half]))
        upload.flush()
        os.utime(folder / "calls_1.csv", (1, 1))
        assert [r.staged for r in landing.land_inbox(emptied, world.HOTLINE)] == [half]
        assert landing.land_inbox(emptied, world.HOTLINE) == []
        upload.writelines(lines[half:])
    assert landing.land_inbox(emptied, world.HOTLINE) == []  # not for some seconds yet
    os.utime(folder / "calls_1.csv", (1, 1))
    results = landing.land_inbox(emptied, world.HOTLINE)
    assert [(r.staged, r.duplicates) for r in results] == [(len(lines) - half, half)]
    check_complete(emptied, simulated, "calls")
    assert [path.name for path in (emptied.archive / world.HOTLINE).iterdir()] == ["calls_1.csv"]
    assert landing.land_inbox(emptied, world.HOTLINE) == []


def test_a_share_that_fails_for_a_moment(
    emptied: Settings, simulated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fault of the file: it stays where it is, and is taken when it can be read."""
    folder = emptied.inbox / world.HOTLINE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sent = world.written(simulated, folder / "calls_1.csv", "calls", simulated.lines["calls"])
    os.utime(sent.path, (1, 1))

    def fail(_: LineFile) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(LineFile, "inspect", fail)
        patch.setattr("callhouse.sources.delimited.reader.DelimitedFile.inspect", fail)
        [result] = landing.land_inbox(emptied, world.HOTLINE)
    assert result.status == "refused" and "Stale file handle" in (result.reason or "")
    assert [r.status for r in landing.land_inbox(emptied, world.HOTLINE)] == ["landed"]
    check_complete(emptied, simulated, "calls")


def test_no_file_is_no_fault(emptied: Settings) -> None:
    """On a holiday nothing comes, and nothing happens."""
    folder = emptied.inbox / world.HOTLINE
    shutil.rmtree(folder, ignore_errors=True)
    assert landing.land_inbox(emptied, world.HOTLINE) == []
    folder.mkdir(parents=True)
    assert landing.land_inbox(emptied, world.HOTLINE) == []
    with warehouse.connect(emptied) as connection:
        assert warehouse.one(connection, "select count(*) from ops.units") == (0,)
        assert warehouse.one(connection, "select count(*) from ops.dirty_marks") == (0,)


# ------------------------------------------------------------------------------ rotated
def test_rotations_of_a_log(
    emptied: Settings, simulated: World, tmp_path: Path, chance: random.Random, fault_runs: int
) -> None:
    """By rename and by copy and truncate, compressed later, files gone and their inodes used again.

    A look at the folder comes at any moment. Each line is landed once, as long as it was there at
    some look.
    """
    for run in range(max(1, min(fault_runs, 10))):
        folder = tmp_path / str(run)
        folder.mkdir()
        log = folder / "queue_log"
        log.touch()
        left = list(simulated.lines["queue_log"])
        is_seen = True
        while left:
            what = chance.choice(("write", "write", "rename", "copy", "compress", "drop", "look"))
            if what == "write":
                count = chance.randint(1, 60)
                with log.open("ab") as file:
                    file.writelines(left[:count])
                del left[:count]
                is_seen = False
            elif what in ("rename", "copy"):
                for number in range(8, 0, -1):
                    for old in folder.glob(f"queue_log.{number}*"):
                        old.rename(folder / old.name.replace(f".{number}", f".{number + 1}", 1))
                if what == "rename":
                    log.rename(folder / "queue_log.1")
                    log.touch()
                else:
                    shutil.copyfile(log, folder / "queue_log.1")
                    os.truncate(log, 0)
            elif what == "compress":
                for old in folder.glob("queue_log.2"):
                    (folder / "queue_log.2.gz").write_bytes(gzip.compress(old.read_bytes()))
                    old.unlink()
            elif what == "drop" and is_seen:
                # A new file soon has the inode of one that is gone.
                for old in [path for path in folder.iterdir() if path != log]:
                    old.unlink()
            elif what == "look":
                look(emptied, folder)
                is_seen = True
        look(emptied, folder)
        check_complete(emptied, simulated, "queue_log")
        world.empty(emptied)


def look(settings: Settings, folder: Path) -> None:
    for result in landing.land(settings, LOG, [folder]):
        empty = result.status == "refused" and "is empty" in (result.reason or "")
        assert empty or result.status in ("landed", "already_landed"), result
    world.check_ledger(settings)


def test_one_name_and_one_inode_for_other_content(
    emptied: Settings, simulated: World, tmp_path: Path
) -> None:
    """Neither tells content: a file that is written over is another unit."""
    path = tmp_path / "queue_log"
    lines = simulated.lines["queue_log"]
    half = len(lines) // 2
    inodes = set()
    for part in (lines[:half], lines[half:], lines[:half]):
        path.write_bytes(b"".join(part))
        inodes.add(path.stat().st_ino)
        landing.land(emptied, LOG, [path])
    assert len(inodes) == 1
    check_complete(emptied, simulated, "queue_log")
