"""The components, their environment and their supervision, without starting anything."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.runner import components, health, lifecycle, postgres, processes, supervision
from callhouse.settings import Settings


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a home that does not exist yet."""
    settings = settings_module.load(
        {"CALLHOUSE_HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]}
    )
    yield settings
    for directory in postgres.data_directories(settings):
        shutil.rmtree(directory.parent, ignore_errors=True)


def test_every_component_carries_the_mark_of_its_instance(bare: Settings) -> None:
    for kind in ("airflow", "superset"):
        environment = components.component_environment(bare, kind)
        assert environment["CALLHOUSE_INSTANCE"] == components.instance_id(bare)
        assert environment["SPT_NOENV"] == "1"


def test_two_homes_are_two_instances(bare: Settings, tmp_path: Path) -> None:
    other = replace(bare, home=tmp_path / "other")
    assert components.instance_id(bare) != components.instance_id(other)
    assert components.instance_id(bare) == components.instance_id(replace(bare))


def test_settings_survive_the_way_through_the_environment(bare: Settings) -> None:
    chosen = replace(
        bare,
        port_base=9400,
        time_zone="Asia/Jerusalem",
        language="zh",
        postgres_host="db",
        postgres_external_port=6543,
        is_demo=False,
        feeds_directory=bare.home / "mappings",
    )
    again = settings_module.load(components.settings_environment(chosen))
    assert replace(again, environment={}) == replace(chosen, environment={})


def test_products_do_not_see_each_others_secrets(bare: Settings) -> None:
    airflow = components.component_environment(bare, "airflow")
    superset = components.component_environment(bare, "superset")
    assert bare.secret("airflow_jwt_key") in airflow.values()
    assert not [v for v in superset.values() if bare.secret("airflow_jwt_key") in v]
    assert not [v for v in airflow.values() if bare.secret("superset_password") in v]


def test_an_operator_may_tune_airflow_but_not_rewire_it(bare: Settings) -> None:
    own = {
        **bare.environment,
        "AIRFLOW__CORE__PARALLELISM": "32",
        "AIRFLOW__API__PORT": "1",
        "AIRFLOW__SMTP__SMTP_HOST": "mail",
    }
    environment = components.component_environment(replace(bare, environment=own), "airflow")
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "32"
    assert environment["AIRFLOW__SMTP__SMTP_HOST"] == "mail"
    assert environment["AIRFLOW__API__PORT"] == str(bare.airflow_port)


def test_variables_that_slow_python_down_are_not_passed_on(bare: Settings) -> None:
    own = {**bare.environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/elsewhere"}
    environment = components.marked_environment(replace(bare, environment=own))
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["PYTHONPATH"] == str(bare.repository / "plugins")


def test_supervisor_configuration_names_every_component_and_no_secret(bare: Settings) -> None:
    text = supervision.configuration(bare)
    parsed = configparser.RawConfigParser()
    parsed.read_string(text)
    programs = [s.removeprefix("program:") for s in parsed.sections() if s.startswith("program:")]
    assert programs == ["postgres", *components.BY_NAME]
    for name in programs:
        section = parsed[f"program:{name}"]
        assert shlex.split(section["command"])[1:] == ["-m", "callhouse.runner", "run", name]
        assert section["autorestart"] == "true"
        assert section["killasgroup"] == "true"
    for secret in ("airflow_password", "superset_password", "postgres_password"):
        assert bare.secret(secret) not in text


def test_a_percent_sign_in_the_home_does_not_break_the_configuration(
    bare: Settings, tmp_path: Path
) -> None:
    text = supervision.configuration(replace(bare, home=tmp_path / "50%"))
    assert "50%%" in text


def test_an_external_server_is_not_supervised(bare: Settings) -> None:
    assert "postgres" not in supervision.names(replace(bare, postgres_host="db"))


def test_the_control_socket_fits_the_kernel(bare: Settings, tmp_path: Path) -> None:
    deep = replace(bare, home=tmp_path / ("x" * 100))
    assert len(os.fsencode(supervision.socket_path(deep))) <= supervision.LONGEST_SOCKET
    assert supervision.socket_path(replace(bare, home=Path("/c"))) == Path("/c/run/supervisor.sock")


def test_a_taken_port_is_named_in_one_sentence(bare: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        blocked = replace(bare, port_base=taken.getsockname()[1] - 88)
        with pytest.raises(CallhouseError, match=r"port \d+, which Superset.*CALLHOUSE_PORT_BASE"):
            lifecycle._check_ports(blocked)


def test_a_heartbeat_from_before_the_restart_does_not_count() -> None:
    beat = {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:10+00:00"}
    moment = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC).timestamp()
    assert health.heartbeat_after({"scheduler": beat}, "airflow-scheduler", moment - 1)
    assert not health.heartbeat_after({"scheduler": beat}, "airflow-scheduler", moment + 1)
    assert not health.heartbeat_after(None, "airflow-scheduler", 0)
    stale = {"scheduler": {**beat, "status": "unhealthy"}}
    assert not health.heartbeat_after(stale, "airflow-scheduler", 0)


def test_celery_is_ready_when_it_has_said_so_since_it_started(bare: Settings) -> None:
    bare.log_directory.mkdir(parents=True)
    log = bare.log_directory / "superset-worker.log"
    now = time.time()
    assert not health.celery_ready(bare, "superset-worker", now)
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S")
    log.write_text(f"[{stamp},123: INFO/MainProcess] celery@machine ready.\n", encoding="utf-8")
    assert health.celery_ready(bare, "superset-worker", now)
    assert not health.celery_ready(bare, "superset-worker", now + 10)


@pytest.fixture
def marked(bare: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the instance that has lost its supervisor."""
    environment = {**os.environ, "CALLHOUSE_INSTANCE": components.instance_id(bare)}
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env=environment
    )
    yield process
    process.kill()
    process.wait()


def test_lost_processes_are_found_and_only_these_are_ended(
    bare: Settings, marked: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert [p.pid for p in processes.of_instance(bare)] == [marked.pid]
    assert processes.of_instance(replace(bare, home=tmp_path / "other")) == []
    assert processes.end(processes.of_instance(bare)) == []
    assert processes.of_instance(bare) == []


def test_status_of_an_instance_that_never_ran(bare: Settings) -> None:
    found = lifecycle.status(replace(bare, port_base=64_000))
    assert {c.name for c in found.components} == {"postgres", *components.BY_NAME}
    assert not found.healthy
    assert not found.running
    assert json.dumps(found.addresses)


def test_buffers_fit_the_machine() -> None:
    tuned = postgres.tuning()
    megabytes = int(tuned["shared_buffers"].removesuffix("MB"))
    assert 128 <= megabytes <= 1024


def test_a_killed_initdb_leaves_nothing_that_looks_complete(
    bare: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = postgres.embedded_cluster(bare)
    target = cluster.data_directory
    unfinished = target.parent / f"{target.name}.unfinished"
    unfinished.mkdir(parents=True)
    # initdb writes this first, so it proves nothing.
    (unfinished / "PG_VERSION").write_text("15\n", encoding="ascii")
    assert cluster.initialise()
    assert not unfinished.exists()
    assert (target / "postgresql.conf").exists()
    assert not cluster.initialise()


def test_data_of_another_version_is_refused_with_the_way_out(bare: Settings) -> None:
    cluster = postgres.embedded_cluster(bare)
    cluster.data_directory.mkdir(parents=True)
    (cluster.data_directory / "PG_VERSION").write_text("12\n", encoding="ascii")
    with pytest.raises(CallhouseError, match="was made by PostgreSQL 12"):
        cluster.initialise()
