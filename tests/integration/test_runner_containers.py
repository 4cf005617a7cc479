"""The containers' commands, run here with the environment that docker-compose.yml gives them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse import settings as settings_module
from callhouse.runner import components, postgres
from callhouse.settings import Settings

pytestmark = pytest.mark.timeout(900)
ROOT = settings_module.REPOSITORY
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::[?-]([^}]*))?\}")


class Containers:
    """Stand-in for an engine: one process per service, an own home per named volume."""

    def __init__(self, folder: Path, port_base: int, postgres_port: int) -> None:
        lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
        pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
        variables = {name: value or f"secret-of-{name}" for name, value in pairs}
        text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
        text = VARIABLE.sub(lambda m: variables.get(m[1]) or m[2], text)
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
        # What the engine does by itself: names of hosts, and its own network.
        self.here = {
            "CALLHOUSE_HOST": "127.0.0.1",
            "CALLHOUSE_POSTGRES_HOST": "127.0.0.1",
            "CALLHOUSE_POSTGRES_PORT": str(postgres_port),
            "CALLHOUSE_AIRFLOW_HOST": "127.0.0.1",
            "CALLHOUSE_PORT_BASE": str(port_base),
        }
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str) -> dict[str, str]:
        product = self.services[service]["build"]["target"]
        venv = ROOT / ".venv" / product
        return {
            "PATH": f"{venv}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "plugins"),
            **self.services[service]["environment"],
            **self.here,
            "CALLHOUSE_HOME": str(self.folder / product),
        }

    def run(self, service: str, command: list[str]) -> int:
        """One command in a service's environment, to its end."""
        done = subprocess.run(
            command, env=self.environment(service), check=False, capture_output=True, text=True
        )
        print(service, done.stdout[-2000:], done.stderr[-2000:])
        return done.returncode

    def start(self, service: str) -> None:
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running[service] = subprocess.Popen(
                self.services[service]["command"],
                env=self.environment(service),
                start_new_session=True,
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def server(
    tmp_path_factory: pytest.TempPathFactory, new_port_base: Callable[[], int]
) -> Iterator[Settings]:
    """The server of the `postgres` service, with the password of the containers."""
    settings = settings_module.load(
        {
            "PATH": os.environ["PATH"],
            "CALLHOUSE_HOME": str(tmp_path_factory.mktemp("server")),
            "CALLHOUSE_PORT_BASE": str(new_port_base()),
            "CALLHOUSE_SECRET_POSTGRES_PASSWORD": "secret-of-CALLHOUSE_SECRET_POSTGRES_PASSWORD",
        }
    )
    if not (ROOT / ".venv" / "superset" / "bin" / "gunicorn").exists():
        pytest.skip("the environments are not installed: run `requirements/install`")
    cluster = postgres.embedded_cluster(settings)
    cluster.initialise()
    cluster.start()
    yield settings
    cluster.stop("immediate")
    shutil.rmtree(cluster.data_directory)


@pytest.fixture
def containers(server: Settings, tmp_path: Path) -> Iterator[Containers]:
    engine = Containers(tmp_path, server.port_base, server.postgres_port)
    yield engine
    engine.stop()


def test_the_services_become_healthy(containers: Containers) -> None:
    for service in ("warehouse-init", "airflow-init", "superset-init"):
        assert containers.run(service, containers.services[service]["command"]) == 0, service
    for service in components.BY_NAME:
        containers.start(service)
    waiting = dict.fromkeys(components.BY_NAME)
    deadline = time.monotonic() + 300
    while waiting and time.monotonic() < deadline:
        time.sleep(2)
        for service in list(waiting):
            check = containers.services[service]["healthcheck"]["test"][1:]
            if containers.run(service, check) == 0:
                del waiting[service]
    logs = {s: (containers.folder / f"{s}.log").read_text(errors="replace")[-800:] for s in waiting}
    assert not waiting, logs
    assert all(process.poll() is None for process in containers.running.values())
    # Every secret came from the environment: none was made up by a container for itself.
    made = [
        f.name for p in ("pipeline", "superset") for f in (containers.folder / p).glob("secrets/*")
    ]
    assert made == []
