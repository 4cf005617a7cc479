"""The running product: brought up in a fresh home, or one that is already running.

CALLHOUSE_E2E_HOME names the home of a running instance (CALLHOUSE_E2E_PORT_BASE its first port,
default 8400): quick while a board is being drawn. Screenshots go to artefacts/ in the checkout.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from callhouse import settings as settings_module
from callhouse.settings import REPOSITORY, Settings

UP_SECONDS = 900
PORT_OFFSETS = (32, 80, 88)


def _free_port_base() -> int:
    """A base whose ports nothing listens on now."""
    for base in range(21000, 29000, 100):
        try:
            for offset in PORT_OFFSETS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    pytest.fail("no free ports between 21000 and 29000")


def _callhouse(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Output to files, not pipes: the components inherit them and would keep a pipe open.
    log = settings.home.parent / f"callhouse_{arguments[0]}.log"
    with log.open("w", encoding="utf-8") as output:
        result = subprocess.run(
            [REPOSITORY / "callhouse", *arguments],
            env=dict(settings.environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=UP_SECONDS,
            cwd=REPOSITORY,
        )
    result.stdout = log.read_text(encoding="utf-8", errors="replace")
    return result


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a product that is up, with the sample calls published."""
    environment = {**os.environ, "CALLHOUSE_DEMO": "1"}
    environment.pop("PYTHONPATH", None)
    if running := os.environ.get("CALLHOUSE_E2E_HOME"):
        environment["CALLHOUSE_HOME"] = running
        environment["CALLHOUSE_PORT_BASE"] = os.environ.get("CALLHOUSE_E2E_PORT_BASE", "8400")
        yield settings_module.load(environment)
        return
    environment["CALLHOUSE_HOME"] = str(tmp_path_factory.mktemp("product") / "home")
    environment["CALLHOUSE_PORT_BASE"] = str(_free_port_base())
    settings = settings_module.load(environment)
    settings.home.mkdir()
    try:
        result = _callhouse(settings, "up")
        if result.returncode:
            pytest.fail(f"./callhouse up failed:\n{result.stdout[-3000:]}")
        yield settings
    finally:
        _callhouse(settings, "down")


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept for people to look at."""
    directory = Path(os.environ.get("CALLHOUSE_ARTEFACTS") or REPOSITORY / "artefacts")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium, which the project does not install."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no chromium here: apt-get install chromium")
