"""The trigger that watches drop folders."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from callhouse.orchestration import triggers
from callhouse.orchestration.triggers import InboxTrigger, snapshot

POLL = 0.02


async def event(run: AsyncIterator[Any], seconds: float = 5) -> Any:
    return await asyncio.wait_for(anext(run), seconds)


async def silent(run: AsyncIterator[Any]) -> asyncio.Task[Any]:
    """The wait for the next event, which must not come by itself."""
    waiting = asyncio.ensure_future(anext(run))
    done, _ = await asyncio.wait([waiting], timeout=10 * POLL)
    assert not done
    return waiting


def test_file_is_announced_once(tmp_path: Path) -> None:
    async def scene() -> None:
        run = InboxTrigger(str(tmp_path / "inbox"), POLL).run()
        # The folder does not exist yet: that is no error, only empty.
        waiting = await silent(run)
        (tmp_path / "inbox").mkdir()
        (tmp_path / "inbox" / "a.csv").write_text("x")
        assert (await asyncio.wait_for(waiting, 5)).payload == {"files": 1}
        waiting = await silent(run)
        (tmp_path / "inbox" / "b.csv").write_text("x")
        assert (await asyncio.wait_for(waiting, 5)).payload == {"files": 2}

    asyncio.run(scene())


def test_same_name_may_come_again(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "a.csv"
        file.write_text("x")
        run = InboxTrigger(str(tmp_path), POLL).run()
        await event(run)
        waiting = await silent(run)
        file.unlink()
        await asyncio.sleep(5 * POLL)
        file.write_text("x")
        os.utime(file, (1, 1))
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scene())


def test_growing_file_is_not_announced(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "a.csv"
        file.write_text("x")
        run = InboxTrigger(str(tmp_path), 0.1).run()
        waiting = asyncio.ensure_future(anext(run))
        for _ in range(20):
            with file.open("a") as handle:
                handle.write("x")
            await asyncio.sleep(0.02)
        assert not waiting.done()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(scene())


@pytest.mark.parametrize("name", [".hidden.csv", "~a.csv", "a.csv.PART", "a.csv.tmp"])
def test_unfinished_names_are_not_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    assert snapshot(tmp_path) == frozenset()


def test_same_names_are_unfinished_for_landing() -> None:
    # Otherwise a file would be announced that landing leaves, or landed late without a wake-up.
    from callhouse import landing

    assert landing.UNFINISHED == triggers.UNFINISHED
    assert 2 * triggers.POLL_SECONDS > landing.STABLE_SECONDS


def test_trigger_survives_serialisation(tmp_path: Path) -> None:
    path, values = InboxTrigger(str(tmp_path), 7).serialize()
    assert path == "callhouse.orchestration.triggers.InboxTrigger"
    assert InboxTrigger(**values).serialize() == (path, values)
