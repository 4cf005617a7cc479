"""The processes of an instance, found by what they carry: no pid file has to be believed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

import psutil

from callhouse.runner import components
from callhouse.settings import Settings


def of_instance(settings: Settings) -> list[psutil.Process]:
    """Every living process of this instance except the caller and its ancestors.

    PostgreSQL's backends overwrite their environment with a process title, so they are known by
    their working directory, which is always the data directory.
    """
    mark = components.instance_id(settings)
    data = data_directories(settings)
    here = psutil.Process()
    own = {here.pid, *(ancestor.pid for ancestor in here.parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid not in own and _belongs(process, mark, data):
            found.append(process)
    return found


def data_directories(settings: Settings) -> set[str]:
    """Where the embedded server's data may be; see `postgres.embedded_cluster`."""
    from callhouse.runner import postgres

    return {str(d.resolve()) for d in postgres.data_directories(settings)}


def _belongs(process: psutil.Process, mark: str, data: set[str]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get("CALLHOUSE_INSTANCE") == mark:
            return True
        return process.name() == "postgres" and process.cwd() in data
    except (psutil.Error, OSError):
        # Gone in the meantime, or somebody else's: not one of ours to end.
        return False


def is_postmaster(process: psutil.Process) -> bool:
    """Whether `process` is a server's first process."""
    try:
        parent = process.parent()
        return process.name() == "postgres" and (parent is None or parent.name() != "postgres")
    except psutil.Error:
        return False


def end(processes: Iterable[psutil.Process], grace: float = 6.0) -> list[psutil.Process]:
    """Ask `processes` to end, wait `grace` seconds, then kill. Returns what is still alive."""
    alive = [p for p in processes if p.pid != os.getpid()]
    for process in alive:
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client.
        _signal(process, signal.SIGINT if is_postmaster(process) else signal.SIGTERM)
    _, alive = psutil.wait_procs(alive, timeout=grace)
    for process in alive:
        _signal(process, signal.SIGKILL)
    _, alive = psutil.wait_procs(alive, timeout=5)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
