"""Whether a component does its work, asked the way its users ask it. Standard library only."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from callhouse.settings import Settings

NOTIFIER_SECONDS = 60.0  # it looks every 10
# A machine at its work answers late; less than what a container's health check may take (10 s).
ANSWER_SECONDS = 8.0
HEARTBEATS = {
    "airflow-scheduler": "scheduler",
    "airflow-dag-processor": "dag_processor",
    "airflow-triggerer": "triggerer",
}


def answers(settings: Settings, name: str) -> bool:
    """Health of one component, as its container's health check asks."""
    if name == "postgres":
        return accepts(settings.database_host, settings.postgres_port)
    if name == "airflow-api-server":
        return airflow_report(settings) is not None
    if name in HEARTBEATS:
        return heartbeat_after(airflow_report(settings), name, 0)
    if name == "superset-web":
        return superset_answers(settings)
    if name == "receiver":
        return receiver_answers(settings)
    if name == "notifier":
        return notifier_works(settings, 0)
    # Celery over a database has no ping, a collector listens to nobody: there is only the process.
    program, what = b"/celery", name.removeprefix("superset-").encode()
    if name == "collector":
        program, what = b"callhouse", b"collect"
    found = Path("/proc").glob("[0-9]*/cmdline")
    return any(_runs(process, program, what) for process in found)


def _runs(process: Path, program: bytes, what: bytes) -> bool:
    try:
        words = process.read_bytes().split(b"\0")
    except OSError:
        return False  # it has just ended
    return what in words and any(word.endswith(program) for word in words)


def airflow_report(settings: Settings) -> dict[str, Any] | None:
    """Airflow's own health report, or None when its api-server does not answer."""
    host = settings.environment.get("CALLHOUSE_AIRFLOW_HOST") or "127.0.0.1"
    body = _get(f"http://{host}:{settings.airflow_port}/api/v2/monitor/health")
    try:
        report = json.loads(body) if body else None
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def heartbeat_after(report: dict[str, Any] | None, name: str, started: float) -> bool:
    """Whether `name` is healthy by `report` and has sent a heartbeat since `started`.

    Airflow believes a dead process for 30 s; a heartbeat of its successor cannot be mistaken.
    """
    part = (report or {}).get(HEARTBEATS[name]) or {}
    if part.get("status") != "healthy":
        return False
    beat = next((v for k, v in part.items() if k.startswith("latest_") and v), None)
    return beat is not None and datetime.fromisoformat(beat).timestamp() >= started


def notifier_works(settings: Settings, started: float) -> bool:
    """Whether the notifier has looked at the rules since `started` and within the last minute."""
    try:
        looked_at = (settings.run_directory / "notifier").stat().st_mtime
    except OSError:
        return False
    return looked_at >= max(started, time.time() - NOTIFIER_SECONDS)


# Celery over a database answers no ping; what it says when it begins to work is in its log.
CELERY_READY = re.compile(
    r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+: INFO/MainProcess\] "
    r"(?:celery@\S+ ready|beat: Starting)"
)
CELERY_SETTLED = 120.0


def celery_ready(settings: Settings, name: str, started: float) -> bool:
    """Whether a Celery process that runs since `started` has reached its work."""
    if time.time() - started > CELERY_SETTLED:
        return True  # by now it would have ended; its log may have been rotated
    file = settings.log_directory / f"{name}.log"
    if not file.exists():
        return False
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - 100_000))
        text = log.read().decode(errors="replace")
    # Log times are UTC, to the second below.
    return any(
        datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() >= started - 1
        for moment in CELERY_READY.findall(text)
    )


def superset_answers(settings: Settings) -> bool:
    """Whether Superset's web server works."""
    return _get(f"http://127.0.0.1:{settings.superset_port}/health") is not None


def receiver_answers(settings: Settings) -> bool:
    """Whether the receiver listens."""
    return _get(f"http://127.0.0.1:{settings.receiver_port}/health") is not None


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def _get(url: str) -> bytes | None:
    # No proxy: these are the instance's own addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_SECONDS) as response:
            return bytes(response.read())
    except (OSError, urllib.error.URLError, ValueError):
        return None
