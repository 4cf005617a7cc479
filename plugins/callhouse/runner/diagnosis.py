"""`doctor`: what may be wrong on this machine, and what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from callhouse import capture
from callhouse.alerts import channels
from callhouse.alerts import state as alerting
from callhouse.errors import CallhouseError
from callhouse.runner import health, lifecycle, postgres, processes, supervision
from callhouse.security import single_sign_on
from callhouse.settings import Settings

FREE_BYTES = 5 * 2**30
MEMORY_BYTES = 4 * 2**30
# As long as the watch takes a break for one: then it begins anew and blames nobody.
UNWATCHED_SECONDS = 900.0


@dataclass(frozen=True)
class Finding:
    """One answer of `doctor`. `fix` is what a person can do; empty when all is well."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def doctor(settings: Settings) -> list[Finding]:
    """Every check; none changes anything."""
    return [
        *_environments(settings),
        _home(settings),
        _disk(settings),
        _memory(),
        _log_in(settings),
        _server(settings),
        *_ports(settings),
        _supervisor(settings),
        *_components(settings),
        *_capture(settings),
        *_exchanges(settings),
        _erasures(settings),
        *_alerts(settings),
    ]


def _environments(settings: Settings) -> Iterator[Finding]:
    for name, directory, tool in (
        ("pipeline", settings.pipeline_bin, "airflow"),
        ("superset", settings.superset_bin, "superset"),
    ):
        ok = (directory / tool).exists()
        fix = "" if ok else f"remove {directory.parent} and run `make up`, which installs it again"
        yield Finding(f"environment {name}", ok, str(directory.parent), fix)


def _log_in(settings: Settings) -> Finding:
    try:
        return Finding("log-in", True, f"by {single_sign_on.method(settings)}")
    except CallhouseError as error:
        return Finding("log-in", False, str(error), "set it, then `./callhouse down` and `up`")


def _home(settings: Settings) -> Finding:
    existing = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    ok = os.access(existing, os.W_OK | os.X_OK)
    fix = "" if ok else f"let this account write to {existing}, or set CALLHOUSE_HOME"
    return Finding("home", ok, str(settings.home), fix)


def _disk(settings: Settings) -> Finding:
    existing = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    ok = free >= FREE_BYTES
    fix = "" if ok else f"free at least {FREE_BYTES // 2**30} GiB, or move CALLHOUSE_HOME"
    return Finding("disk", ok, f"{free / 2**30:.1f} GiB free at {existing}", fix)


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    ok = total >= MEMORY_BYTES * 0.9
    fix = "" if ok else "give the machine 4 GiB: the components need about 2 GiB when idle"
    return Finding("memory", ok, f"{total / 2**30:.1f} GiB", fix)


def _server(settings: Settings) -> Finding:
    if settings.postgres_host:
        address = f"{settings.postgres_host}:{settings.postgres_port}"
        ok = health.accepts(settings.postgres_host, settings.postgres_port)
        fix = "" if ok else "start that server, or check CALLHOUSE_POSTGRES_HOST and _PORT"
        return Finding("PostgreSQL", ok, f"external, {address}", fix)
    binaries = postgres.find_binaries(settings)
    if binaries is None:
        fix = "install PostgreSQL 15 or newer, or run `make up`, which installs a wheel"
        return Finding("PostgreSQL", False, "no server program", fix)
    for directory in postgres.data_directories(settings):
        version = directory / "PG_VERSION"
        if version.exists() and int(version.read_text(encoding="ascii")) != binaries.major:
            fix = f"install PostgreSQL {version.read_text(encoding='ascii').strip()}"
            return Finding("PostgreSQL", False, f"{directory} needs another version", fix)
    detail = f"{binaries.major} ({binaries.origin}, {binaries.directory})"
    return Finding("PostgreSQL", True, detail)


def _ports(settings: Settings) -> Iterator[Finding]:
    mine = bool(supervision.Supervisor(settings).processes())
    for product, port in lifecycle.ports(settings).items():
        if mine:
            yield Finding(f"port {port}", True, f"{product}, ours")
            continue
        reason = lifecycle.port_problem(settings, product, port)
        fix = "end the program that has it, or set CALLHOUSE_PORT_BASE" if reason else ""
        yield Finding(f"port {port}", not reason, f"{product}: {reason or 'free'}", fix)


def _supervisor(settings: Settings) -> Finding:
    found = processes.of_instance(settings)
    answers = supervision.Supervisor(settings).answers()
    if answers or not found:
        return Finding("supervisor", True, "running" if answers else "not running")
    detail = f"{len(found)} processes have lost it"
    return Finding("supervisor", False, detail, "run `make up`, which heals this, or `make down`")


def _components(settings: Settings) -> Iterator[Finding]:
    for component in lifecycle.status(settings).components:
        log = Path(settings.log_directory) / f"{component.name}.log"
        fix = "" if component.healthy else f"run `make up`; if it stays so, read {log}"
        yield Finding(component.name, component.healthy, component.detail, fix)


def _capture(settings: Settings) -> Iterator[Finding]:
    """Whether anybody watches who delivers. What is found there is no fault of the machine."""
    try:
        found = capture.summary(settings)
    except (CallhouseError, psycopg.Error):
        return  # no warehouse to ask, which the components tell
    ok = found["unwatched_seconds"] < UNWATCHED_SECONDS
    fix = "" if ok else "look at the DAG watch_capture, or run ./callhouse capture check"
    yield Finding("capture", ok, capture.sentence(found).removeprefix("capture: "), fix)


def _exchanges(settings: Settings) -> Iterator[Finding]:
    """Whether those that are listened to let the collector in."""
    # Here, so that only this command waits for what it loads.
    from callhouse.live import exchanges

    try:
        found = exchanges.problems(settings)
    except (CallhouseError, psycopg.Error):
        return  # no warehouse to ask, which the components tell
    log = Path(settings.log_directory) / "collector.log"
    for feed, problem in found.items():
        fix = f"correct it; the collector tries again by itself, see {log}" if problem else ""
        yield Finding(f"exchange of {feed}", not problem, problem or "is listened to", fix)


def _erasures(settings: Settings) -> Finding:
    # Here, so that only this command waits for what it loads.
    from callhouse.security import erasure

    number = erasure.unfinished(settings)
    fix = (
        "run the same `./callhouse callers erase` again, which finishes or undoes it"
        if number
        else ""
    )
    detail = f"{number} not finished" if number else "none half done"
    return Finding("erasures", not number, detail, fix)


def _alerts(settings: Settings) -> Iterator[Finding]:
    """Whether somebody looks at the rules, and whether what is told arrives."""
    try:
        names = channels.read(settings).names
    except CallhouseError as problem:
        yield Finding("channels", False, str(problem), f"mend {settings.channels_file}")
    else:
        yield Finding("channels", True, ", ".join(names))
    try:
        found = alerting.summary(settings)
    except (CallhouseError, psycopg.Error):
        return  # no warehouse to ask, which the components tell
    fix = ""
    if found["silent_seconds"] is None or found["silent_seconds"] > alerting.SILENT_SECONDS:
        fix = f"run `make up`; if it stays so, read {settings.log_directory / 'notifier.log'}"
    elif found["undelivered"]:
        fix = "`./callhouse alert dead-letters` says why; then `--again`"
    elif found["unowned"]:
        fix = "see `./callhouse alert list`; give their rules another owner, or grant the scope"
    yield Finding("alerts", not fix, alerting.sentence(found).removeprefix("alerts: "), fix)
