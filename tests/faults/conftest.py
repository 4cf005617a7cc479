"""Fixtures of the fault suite: what it draws from, and an empty warehouse."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from tests.faults import world
from tests.faults.world import World

from callhouse import warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("fault_seed"))


@pytest.fixture(scope="session")
def fault_runs(pytestconfig: pytest.Config) -> int:
    """Random runs; 0 in the short form."""
    return int(pytestconfig.getoption("fault_runs"))


@pytest.fixture
def long_form(fault_runs: int) -> None:
    if not fault_runs:
        pytest.skip("in the long form only: make test-faults")


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """The test's own source of chance, whatever other tests run."""
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="module")
def registered(settings: Settings, cluster: postgres.Cluster) -> Settings:
    with warehouse.connect(settings) as connection:
        registry.register(connection, *registry.feeds(settings))
    return settings


@pytest.fixture
def emptied(registered: Settings) -> Iterator[Settings]:
    """Nothing landed; afterwards the ledger adds up."""
    world.empty(registered)
    yield registered
    world.check_ledger(registered)


@pytest.fixture(scope="module")
def simulated(seed: int, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two days by three vendors."""
    start = world.STARTS[seed % len(world.STARTS)]
    return world.simulated(tmp_path_factory.mktemp("world"), seed, start)
