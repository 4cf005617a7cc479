"""A product that is up, for benchmarks of what its services do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callhouse import settings as settings_module
from callhouse.runner import postgres
from callhouse.settings import REPOSITORY, Settings


def callhouse(settings: Settings, command: str) -> None:
    """Run `./callhouse up` or `down`."""
    with (settings.home.parent / f"{command}.log").open("w") as log:
        subprocess.run([REPOSITORY / "callhouse", command], env=dict(settings.environment),
                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)  # fmt: skip


@contextmanager
def up(folder: Path, port_base: int, *, is_demo: bool) -> Iterator[Settings]:
    """One of its own, or the one of CALLHOUSE_BENCH_HOME and CALLHOUSE_BENCH_PORT_BASE."""
    running = os.environ.get("CALLHOUSE_BENCH_HOME")
    home = Path(running) if running else folder / "home"
    settings = settings_module.load({
        **os.environ, "CALLHOUSE_HOME": str(home), "CALLHOUSE_DEMO": "1" if is_demo else "0",
        "CALLHOUSE_PORT_BASE": os.environ.get("CALLHOUSE_BENCH_PORT_BASE") or str(port_base),
    })  # fmt: skip
    try:
        if not running:
            home.mkdir()
            callhouse(settings, "up")
        yield settings
    finally:
        if not running:
            callhouse(settings, "down")
            for directory in postgres.data_directories(settings):
                shutil.rmtree(directory, ignore_errors=True)
