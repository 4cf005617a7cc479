"""What wakes DAGs up without a task that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

POLL_SECONDS = 3.0
# The same as in callhouse.landing, which takes too long to import for a triggerer.
UNFINISHED = (".part", ".tmp", ".partial", ".crdownload")


class InboxTrigger(BaseEventTrigger):  # type: ignore[misc]
    """An event when files have arrived in a drop folder and have stopped growing.

    Files that stay (landing was down) are announced once; the DAG's clock looks at them again.
    """

    def __init__(self, directory: str, poll_seconds: float = POLL_SECONDS) -> None:
        super().__init__()
        self.directory = directory
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the triggerer makes the trigger from."""
        return (
            "callhouse.orchestration.triggers.InboxTrigger",
            {"directory": self.directory, "poll_seconds": self.poll_seconds},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the triggerer stops."""
        before: Snapshot = frozenset()
        announced: Snapshot = frozenset()
        while True:
            now = await asyncio.to_thread(snapshot, Path(self.directory))
            settled = now & before
            if settled - announced:
                yield TriggerEvent({"files": len(settled)})
            # What has left the folder may come again under the same name.
            announced = (announced & now) | settled
            before = now
            await asyncio.sleep(self.poll_seconds)


Snapshot = frozenset[tuple[str, int, int]]


def snapshot(directory: Path) -> Snapshot:
    """Name, size and time of every finished file; empty where the folder does not exist yet."""
    found = set()
    try:
        for path in directory.iterdir():
            if path.name.startswith((".", "~")) or path.name.lower().endswith(UNFINISHED):
                continue
            status = path.stat()
            if path.is_file():
                found.add((path.name, status.st_size, status.st_mtime_ns))
    except OSError:
        # Gone between listing and looking, or a share that is away: the next look will tell.
        return frozenset()
    return frozenset(found)
