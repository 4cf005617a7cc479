"""A whole instance in a fresh home: up, up again, killed in every way, down."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator

import psutil
import psycopg
import pytest

from callhouse import runner
from callhouse import settings as settings_module
from callhouse.runner import components, lifecycle, postgres, processes, supervision
from callhouse.runner.lifecycle import Status, status
from callhouse.settings import Settings

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def instance(
    tmp_path_factory: pytest.TempPathFactory, new_port_base: Callable[[], int]
) -> Iterator[Settings]:
    home = tmp_path_factory.mktemp("instance") / "home"
    settings = settings_module.load(
        {**os.environ, "CALLHOUSE_HOME": str(home), "CALLHOUSE_PORT_BASE": str(new_port_base())}
    )
    if not (settings.pipeline_bin / "airflow").exists():
        pytest.skip("the environments are not installed: run `requirements/install`")
    lines: list[str] = []
    try:
        runner.up(settings, lines.append)
        print(*lines, sep="\n")
        yield settings
    finally:
        runner.down(settings)
        assert processes.of_instance(settings) == []
        for directory in postgres.data_directories(settings):
            shutil.rmtree(directory, ignore_errors=True)


def pid_of(settings: Settings, name: str) -> int:
    return supervision.Supervisor(settings).processes()[name].pid


def settled(settings: Settings) -> Status:
    """The instance once it is healthy: on a busy machine one answer may come too late to count."""
    until = time.monotonic() + 60
    while not (found := status(settings)).healthy and time.monotonic() < until:
        time.sleep(1)
    return found


def test_every_component_is_healthy(instance: Settings) -> None:
    found = settled(instance)
    assert {c.name for c in found.components} == {"postgres", *components.BY_NAME}
    assert found.healthy, found
    assert all(finding.ok for finding in runner.doctor(instance)), runner.doctor(instance)


def test_a_second_up_says_so_and_starts_nothing(
    instance: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: pid_of(instance, name) for name in ("postgres", *components.BY_NAME)}
    # Whether all is healthy is the test before; here is what `up` does then.
    monkeypatch.setattr(lifecycle, "status", settled)
    lines: list[str] = []
    runner.up(instance, lines.append)
    assert lines == ["Callhouse is up: every component is healthy."]
    assert {name: pid_of(instance, name) for name in before} == before


def test_only_loopback_is_listened_on(instance: Settings) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes.of_instance(instance)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {port for _, port in listening} >= set(lifecycle.ports(instance).values())
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_secrets_are_readable_by_the_owner_only(instance: Settings) -> None:
    files = [
        *(instance.home / "secrets").iterdir(),
        instance.run_directory / "supervisord.conf",
    ]
    assert len(files) > 10
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_old_rows_of_airflow_are_pruned(
    instance: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Airflow's own command, from where a task calls it; what is young stays."""
    from callhouse.orchestration import metadata

    for name in ("CALLHOUSE_HOME", "CALLHOUSE_PORT_BASE"):
        monkeypatch.setenv(name, instance.environment[name])
    with psycopg.connect(instance.dsn("airflow", "airflow"), autocommit=True) as airflow:
        airflow.execute(
            "insert into log (dttm, event, owner) select now() - age * interval '1 day',"
            " 'tested', 'test' from unnest('{29, 31, 400}'::int[]) as age"
        )
        metadata.prune()
        ages = airflow.execute(
            "select extract(day from now() - dttm)::int from log where event = 'tested'"
        ).fetchall()
        left = airflow.execute(
            "select tablename from pg_tables where tablename like '\\_airflow\\_deleted%'"
        ).fetchall()
    assert (ages, left) == ([(29,)], [])


def test_killed_components_come_back(instance: Settings) -> None:
    """One of each kind at once: the server, a component with children, one without."""
    victims = ["postgres", "airflow-scheduler", "superset-web", "superset-beat"]
    before = {name: pid_of(instance, name) for name in victims}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    runner.up(instance, lambda line: None)
    assert settled(instance).healthy
    for name in victims:
        assert pid_of(instance, name) != before[name]


def test_a_killed_supervisor_is_replaced_with_all_that_it_ran(instance: Settings) -> None:
    before = {p.pid for p in processes.of_instance(instance)}
    supervisor = int((instance.run_directory / "supervisord.pid").read_text(encoding="ascii"))
    os.kill(supervisor, signal.SIGKILL)
    lines: list[str] = []
    runner.up(instance, lines.append)
    assert any("lost their supervisor" in line for line in lines)
    assert settled(instance).healthy
    assert not before & {p.pid for p in processes.of_instance(instance)}
    # Nothing was migrated a second time.
    assert not any("preparing" in line for line in lines)


def test_down_leaves_no_process_even_without_a_supervisor(instance: Settings) -> None:
    supervisor = int((instance.run_directory / "supervisord.pid").read_text(encoding="ascii"))
    os.kill(supervisor, signal.SIGKILL)
    runner.down(instance)
    assert processes.of_instance(instance) == []
    assert not runner.status(instance).running
    lines: list[str] = []
    runner.down(instance, lines.append)
    assert lines == ["Callhouse is not running."]
