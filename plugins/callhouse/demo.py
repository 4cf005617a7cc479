"""The demo: people, dashboards and sample calls, loaded through the drop folder and the DAGs."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg

from callhouse import bi, security, transform, warehouse
from callhouse.alerts import rules
from callhouse.errors import CallhouseError
from callhouse.orchestration import airflow_users
from callhouse.runner import components, preparation
from callhouse.security import people
from callhouse.settings import Settings
from callhouse.transform import dbt

SOURCE = "sample_hotline"
SEED, START, DAYS, CALLS_PER_DAY = 42, date(2026, 10, 5), 35, 3000
# Without any progress. A build of all days is one step, and a slow or busy machine takes its time.
PATIENCE_SECONDS = 900


@dataclass(frozen=True)
class Login:
    """A login that `up` prints."""

    product: str
    user: str
    password: str
    label: str


def declare(settings: Settings) -> None:
    """In the demo: the feed of an exchange that is simulated as it goes, which `up` then starts.

    On the floor only: its numbers are in no mart, where they would change every ten minutes.
    """
    mapping = settings.feeds_directory / f"{components.SAMPLE_FEED}.yaml"
    if not settings.is_demo or mapping.exists():
        return
    log = settings.home / "live" / "queue_log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    mapping.parent.mkdir(parents=True, exist_ok=True)
    mapping.write_text(
        f"feed: {components.SAMPLE_FEED}\nvendor: asterisk\nlabel: Sample hotline, live\n"
        f"country: CN\ntail: {json.dumps(str(log))}\nmarts: false\n",
        encoding="utf-8",
    )


def load(settings: Settings, report: Callable[[str], None]) -> None:
    """Dashboards, and in the demo also people and sample calls. What is there is left alone."""
    stamp = settings.run_directory / "installed"
    current = _fingerprint(settings)
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != current:
        # Of an instance that runs already, `up` has not looked at the warehouse.
        preparation.bootstrap_warehouse(settings)
        transform.prepare(settings, report)
        if settings.is_demo:
            with psycopg.connect(settings.dsn("postgres")) as server:
                for person in people.DEMO_PEOPLE:
                    people.ensure(settings, server, person)
        # The bundle needs the bi.* views: Superset looks their columns up.
        bi.install(settings, report)
        stamp.write_text(current, encoding="utf-8")
    if settings.is_demo:
        _load_sample(settings, report)
        _load_rules(settings, report)


def logins(settings: Settings) -> list[Login]:
    """Administrators, and in the demo its people."""
    found = [
        Login("airflow", "admin", settings.secret("airflow_admin_password"), "administrator"),
        Login("superset", "admin", settings.secret("superset_admin_password"), "administrator"),
    ]
    if settings.is_demo:
        found += [
            Login("airflow", p.name, security.web_password(settings, p.name), p.label)
            for p in people.DEMO_PEOPLE if p.level in airflow_users.ROLE_OF_LEVEL
        ]  # fmt: skip
        found += [
            Login("superset", p.name, security.web_password(settings, p.name), p.label)
            for p in people.DEMO_PEOPLE
        ]
    return found


def _fingerprint(settings: Settings) -> str:
    digest = hashlib.sha256(dbt.project_hash(settings).encode())
    digest.update(f"{settings.language} {settings.is_demo}".encode())
    for path in sorted((settings.repository / "superset").rglob("*.yaml")):
        digest.update(path.read_bytes())
    for pattern in ("*.py", "*.sql"):
        for path in sorted((settings.repository / "plugins").rglob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _load_sample(settings: Settings, report: Callable[[str], None]) -> None:
    if _progress(settings)["files"] and not _progress(settings)["dirty"]:
        report("sample calls: already there")
        return
    inbox = settings.inbox / SOURCE
    if not _progress(settings)["files"]:
        report(f"sample calls: simulating {DAYS} days")
        # Only the demo needs the simulator's libraries.
        from callhouse import simulate

        written = settings.home / "sample"
        simulate.write(
            written, seed=SEED, start=START, days=DAYS, calls_per_day=CALLS_PER_DAY, dirt=True
        )
        inbox.mkdir(parents=True, exist_ok=True)
        # Under a temporary name first: the DAG must see neither half a file nor half of the days'
        # records, which would be published and restated a minute later.
        hidden = [
            Path(shutil.copyfile(file, inbox / f".{file.name}"))
            for file in sorted(written.glob("*.csv*"))
        ]
        for file in hidden:
            file.rename(inbox / file.name.removeprefix("."))
    report(f"sample calls: waiting for the DAGs land_{SOURCE} and transform")
    deadline = time.monotonic() + PATIENCE_SECONDS
    shown = ""
    while time.monotonic() < deadline:
        now = _progress(settings)
        sentence = f"sample calls: {now['files']} files landed, {now['published']} days published"
        if sentence != shown:
            report(sentence)
            shown = sentence
            deadline = time.monotonic() + PATIENCE_SECONDS
        if now["files"] and not now["dirty"] and now["published"] and not any(_waiting(settings)):
            return
        time.sleep(1)
    raise CallhouseError(
        f"nothing more of the sample was published for {PATIENCE_SECONDS} s: look at the DAGs "
        f"land_{SOURCE} and transform at http://{settings.host}:{settings.airflow_port}"
    )


def _load_rules(settings: Settings, report: Callable[[str], None]) -> None:
    """Example rules of alerts, where there has never been one."""
    with warehouse.connect(settings) as connection:
        (known,) = warehouse.one(connection, "select count(*) from ops.alert_rules")
        if not known:
            now = datetime.now(UTC)
            rules.synchronise(connection, settings, rules.EXAMPLE, "callhouse", now)
            report(f"rules of alerts: those of {rules.EXAMPLE.name}")


def _waiting(settings: Settings) -> list[str]:
    inbox = settings.inbox / SOURCE
    return [p.name for p in inbox.glob("*.csv*") if not p.name.startswith(".")]


def _progress(settings: Settings) -> dict[str, int]:
    with warehouse.connect(settings) as connection:
        row = warehouse.one(
            connection,
            "select (select count(*) from ops.units where source = %s and status = 'landed'),"
            " (select count(*) from ops.due_marks),"  # of days and of their follow-ups
            " (select count(*) from ops.published_days where lane = 'facts')",
            [SOURCE],
        )
    return {"files": int(row[0]), "dirty": int(row[1]), "published": int(row[2])}
