"""The lander, killed, cut off and left without a server or a disk: all of a file, or nothing."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Contents, settings_in
from tests.faults import nemesis, world
from tests.faults.world import Delivery, World

from callhouse import landing, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry

# The first landing of a file takes so many steps at least: a shorter loop has not seen them.
FEWEST_STEPS = 30


def only(simulated: World, folder: Path, kind: str) -> Delivery:
    """A file with every line of a kind."""
    return world.cut(simulated, folder, kind)[0]


def land(settings: Settings, delivery: Delivery) -> landing.UnitResult:
    [result] = landing.land(settings, delivery.feed, [delivery.path])
    assert result.status in ("landed", "already_landed"), result.reason
    return result


def wanted(settings: Settings, simulated: World, delivery: Delivery) -> Contents:
    """What an undisturbed landing leaves behind; nothing of it is left here."""
    land(settings, delivery)
    found = world.staged(settings)
    world.check_lines(settings, replace(simulated, lines={delivery.kind: delivery.lines}))
    world.empty(settings)
    return found


def check_nothing_or_all(settings: Settings, complete: Contents, nothing: Contents) -> bool:
    """Whether the unit is committed; callers may be saved ahead of their calls, never behind."""
    world.check_ledger(settings)
    found = world.staged(settings)
    if not world.different(found, complete):
        return True
    assert set(world.different(found, nothing)) <= {"callers"}
    assert found["callers"][0] <= complete["callers"][0]
    return False


def check_retry(settings: Settings, delivery: Delivery, complete: Contents) -> float:
    """The same again gives the whole; how long it took."""
    began = time.monotonic()
    land(settings, delivery)
    took = time.monotonic() - began
    assert world.different(world.staged(settings), complete) == []
    world.check_ledger(settings)
    assert took < nemesis.RECOVERY_SECONDS
    return took


def check_told(outcome: nemesis.Outcome) -> None:
    """A person is told in one sentence, the last thing that is said."""
    assert "Traceback" not in outcome.output, outcome.output
    assert outcome.output.splitlines()[-1].startswith("callhouse: "), outcome.output


# ------------------------------------------------------------------------------ kills
@pytest.mark.parametrize("kind", ["calls", "queue_log", "contacts"])
def test_killed_at_every_step(
    emptied: Settings, simulated: World, tmp_path: Path, kind: str, chance: random.Random,
    fault_runs: int,
) -> None:  # fmt: skip
    """The short form takes every step of one kind, and some of the others."""
    delivery = only(simulated, tmp_path, kind)
    complete = wanted(emptied, simulated, delivery)
    nothing = world.staged(emptied)
    command = ("land", delivery.feed, delivery.path)
    with nemesis.counted(emptied) as door:
        assert nemesis.run(emptied, *command, port=door.port).code == 0
    world.empty(emptied)
    assert door.steps >= FEWEST_STEPS
    steps = list(range(1, door.steps + 1))
    if not fault_runs and kind != "calls":
        steps = sorted(chance.sample(steps, 3))
    committed = 0
    for step in steps:
        outcome, has_struck = nemesis.strike_at(emptied, *command, at=step)
        assert has_struck and outcome.code == -9, f"step {step}: {outcome}"
        committed += check_nothing_or_all(emptied, complete, nothing)
        check_retry(emptied, delivery, complete)
        world.empty(emptied)
    # The unit's commit is what the command does last.
    assert committed == 0


def test_killed_after_its_commit(emptied: Settings, simulated: World, tmp_path: Path) -> None:
    """The server has committed and the lander never heard of it."""
    delivery = only(simulated, tmp_path, "calls")
    complete = wanted(emptied, simulated, delivery)
    commits = 0
    for word in (b"update ops.units set read_rows", b"COMMIT"):
        nothing = world.staged(emptied)
        outcome, has_struck = nemesis.strike_at(
            emptied, "land", delivery.feed, delivery.path, word=word, after=True
        )
        assert has_struck and outcome.code == -9
        commits += check_nothing_or_all(emptied, complete, nothing)
        check_retry(emptied, delivery, complete)
        world.empty(emptied)
    assert commits == 0, "the first commit is that of the registration"
    outcome, _ = nemesis.strike_at(
        emptied, "land", delivery.feed, delivery.path, at=last_step(emptied, delivery), after=True
    )
    assert outcome.code == -9
    assert land(emptied, delivery).status == "already_landed"
    assert world.different(world.staged(emptied), complete) == []


def last_step(settings: Settings, delivery: Delivery) -> int:
    """The number of the step with which a landing ends: its commit."""
    with nemesis.counted(settings) as door:
        nemesis.run(settings, "land", delivery.feed, delivery.path, port=door.port)
    world.empty(settings)
    return door.steps


def test_the_network_is_lost_at_some_steps(
    emptied: Settings, simulated: World, tmp_path: Path, chance: random.Random, fault_runs: int
) -> None:
    """The lander says so in one sentence and leaves nothing behind."""
    delivery = only(simulated, tmp_path, "calls")
    complete = wanted(emptied, simulated, delivery)
    nothing = world.staged(emptied)
    for step in sorted(chance.sample(range(3, FEWEST_STEPS), 12 if fault_runs else 3)):
        outcome, has_struck = nemesis.strike_at(
            emptied, "land", delivery.feed, delivery.path, at=step, cut=True
        )
        assert has_struck and outcome.code == 1
        check_told(outcome)
        check_nothing_or_all(emptied, complete, nothing)
        check_retry(emptied, delivery, complete)
        world.empty(emptied)


# ------------------------------------------------------------------------------ the server
@pytest.mark.parametrize("way", ["immediate stop", "killed backend"])
def test_the_server_dies_during_a_load(
    emptied: Settings, cluster: postgres.Cluster, simulated: World, tmp_path: Path,
    chance: random.Random, way: str,
) -> None:  # fmt: skip
    """The supervisor starts it again; what was committed is there, what was not is gone."""
    first, second = world.cut(simulated, tmp_path, "calls", len(simulated.lines["calls"]) // 2)
    land(emptied, first)
    between = world.staged(emptied)
    land(emptied, second)
    complete = world.staged(emptied)
    world.empty(emptied)
    land(emptied, first)

    def strike() -> None:
        if way == "immediate stop":
            cluster.stop("immediate")
        else:
            kill_a_backend(emptied)

    step = chance.randint(8, FEWEST_STEPS)
    with nemesis.Door(emptied.postgres_port, at=step, strike=strike) as door:
        outcome = nemesis.run(emptied, "land", second.feed, second.path, port=door.port)
    assert door.struck and outcome.code == 1, outcome
    check_told(outcome)
    began = time.monotonic()
    if way == "immediate stop":
        cluster.start()
    wait_for_server(emptied)
    check_nothing_or_all(emptied, complete, between)
    check_retry(emptied, second, complete)
    assert time.monotonic() - began < nemesis.RECOVERY_SECONDS


def kill_a_backend(settings: Settings) -> None:
    """SIGKILL to a process of the server: it ends all others and recovers from its log."""
    connection = psycopg.connect(settings.dsn("postgres"))
    os.kill(connection.info.backend_pid, signal.SIGKILL)
    connection.close()


def wait_for_server(settings: Settings, timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while True:
        try:
            with warehouse.connect(settings) as connection:
                connection.execute("select 1")
            return
        except CallhouseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


# ------------------------------------------------------------------------------ company
def test_workers_on_one_unit(
    emptied: Settings, simulated: World, tmp_path: Path, chance: random.Random, fault_runs: int
) -> None:
    """Three processes land one file, and one of them is killed at some step."""
    delivery = only(simulated, tmp_path, "calls")
    complete = wanted(emptied, simulated, delivery)
    for _ in range(5 if fault_runs else 1):
        command = ("land", delivery.feed, delivery.path)
        with nemesis.Door(emptied.postgres_port, at=chance.randint(5, FEWEST_STEPS)) as door:
            workers = [nemesis.Command(emptied, *command) for _ in range(2)]
            killed = nemesis.Command(emptied, *command, port=door.port)
            door.strike = killed.kill
            outcomes = [worker.end() for worker in workers]
            assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
            told = "".join(outcome.output for outcome in outcomes)
            assert (told.count("\tlanded\t"), told.count("\talready_landed\t")) in ((1, 1), (0, 2))
            killed.end()
        assert world.different(world.staged(emptied), complete) == []
        world.check_ledger(emptied)
        world.empty(emptied)


# ------------------------------------------------------------------------------ the disk
@contextmanager
def small_disk(folder: Path, megabytes: int, owner: str | None) -> Iterator[None]:
    """A file system of a few megabytes at `folder`, for the account of the server."""
    folder.mkdir(parents=True)
    options = f"size={megabytes}m,mode=0700"
    if owner:
        account = pwd.getpwnam(owner)
        options += f",uid={account.pw_uid},gid={account.pw_gid}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here: it takes root")
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
        folder.rmdir()


def enlarge(folder: Path, megabytes: int) -> None:
    """What a person, or the cloud, does about it."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(folder)], check=True)


def many(simulated: World, folder: Path, times: int) -> Delivery:
    """So many calls that they need megabytes: the world's, under other ids."""
    lines = simulated.lines["calls"]
    more = [b"%d-%s" % (number, line) for number in range(times) for line in lines]
    return world.written(simulated, folder / "calls_many.csv", "calls", more)


def test_the_disk_of_the_data_is_full(
    emptied: Settings, cluster: postgres.Cluster, simulated: World, tmp_path: Path
) -> None:
    """Half of the file would fit. Nothing of it is there until there is room for the whole."""
    delivery = many(simulated, tmp_path, 150)
    nothing = world.staged(emptied)
    disk = cluster.data_directory.parent / f"{cluster.data_directory.name}-small"
    with small_disk(disk, 4, cluster.account):
        with psycopg.connect(emptied.dsn("postgres"), autocommit=True) as server:
            server.execute(f"create tablespace small location '{disk}'".encode())
            server.execute("grant create on tablespace small to callhouse_owner")
            server.execute("alter role callhouse_pipeline set default_tablespace = small")
        try:
            outcome = nemesis.run(emptied, "land", delivery.feed, delivery.path)
            assert outcome.code == 1 and "No space left on device" in outcome.output
            check_told(outcome)
            world.check_ledger(emptied)
            assert set(world.different(world.staged(emptied), nothing)) <= {"callers"}
            enlarge(disk, 64)
            assert land(emptied, delivery).staged == len(delivery.lines)
            world.check_ledger(emptied)
            world.empty(emptied)
        finally:
            with psycopg.connect(emptied.dsn("postgres"), autocommit=True) as server:
                server.execute("alter role callhouse_pipeline reset default_tablespace")
                world.empty(emptied)
                server.execute("drop tablespace small")


def test_the_disk_of_the_server_is_full(
    long_form: None, simulated: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without room for its log the server stops; with room it starts and knows what it knew."""
    delivery = many(simulated, tmp_path, 400)
    own = settings_in(tmp_path_factory.mktemp("home"))
    server = postgres.embedded_cluster(own)
    disk = server.data_directory.parent / "small"
    server = replace(server, data_directory=disk / "postgres")
    with small_disk(disk, 160, server.account):
        server.initialise()
        server.start()
        try:
            address = f"host=127.0.0.1 port={own.postgres_port} user=postgres"
            warehouse.bootstrap(own, f"{address} password={server.password}")
            with warehouse.connect(own) as connection:
                registry.register(connection, *registry.feeds(own))
            land(own, only(simulated, tmp_path, "queue_log"))
            before = world.staged(own)
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(shutil.disk_usage(disk).free - (12 << 20)))
            outcome = nemesis.run(own, "land", delivery.feed, delivery.path)
            assert outcome.code == 1, outcome
            check_told(outcome)
            ballast.unlink()
            if not is_up(own):
                server.start()
            world.check_ledger(own)
            assert set(world.different(world.staged(own), before)) <= {"callers"}
            assert land(own, delivery).staged == len(delivery.lines)
            world.check_ledger(own)
        finally:
            server.stop("immediate")


def is_up(settings: Settings) -> bool:
    try:
        wait_for_server(settings, 5)
    except CallhouseError:
        return False
    return True
