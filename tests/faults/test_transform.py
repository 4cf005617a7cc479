"""Builds, audits and publishing, killed at any moment: readers see the old day or the new one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

import psutil
import psycopg
import pytest
from tests.conftest import Contents, published_contents
from tests.faults import nemesis, odd, world
from tests.faults.world import World

from callhouse import landing, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

# The statements with which a build is published; a shorter loop has not seen them.
FEWEST_STEPS = 8


@dataclass(frozen=True)
class Published:
    """A warehouse whose days are published, and what is in them."""

    settings: Settings
    world: World
    contents: Contents
    odd: dict[str, World]  # what each odd source has told

    def check(self) -> None:
        """Readers see what they saw, the ledger adds up, and no day waits or is held."""
        assert world.different(published_contents(self.settings), self.contents) == []
        world.check_ledger(self.settings)
        with warehouse.connect(self.settings) as connection:
            held = connection.execute("select business_day, reason from ops.held_days").fetchall()
        assert held == []

    def recover(self, *, is_due: bool = True) -> None:
        """The next run of the scheduler does everything that is left to do."""
        assert (transform.pending(self.settings) > 0) == is_due
        outcome = nemesis.run(self.settings, "transform")
        assert outcome.code == 0, outcome.output
        assert outcome.seconds < nemesis.RECOVERY_SECONDS
        assert transform.pending(self.settings) == 0
        self.check()

    def mark(self) -> None:
        """Every day is to be built again: nothing that is seen may change by it."""
        assert transform.mark(self.settings, None, "again") >= 2


@pytest.fixture(scope="module")
def published(
    registered: Settings, simulated: World, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    landing.land(registered, world.HOTLINE, simulated.references)
    for kind, feed in world.KINDS.items():
        for path in [d.path for d in world.cut(simulated, simulated.folder / "whole", kind)]:
            [result] = landing.land(registered, feed, [path])
            assert result.status == "landed", result.reason
    told = odd.land_all(registered, simulated, tmp_path_factory.mktemp("odd"))
    transform.prepare(registered, dbt.quiet)
    outcome = transform.drain(registered, dbt.quiet)
    assert outcome.problems == ()
    world.check_lines(registered, simulated)
    assert world.check_truth(registered, simulated) > 50
    found = Published(registered, simulated, published_contents(registered), told)
    found.check()
    return found


def step(
    published: Published, name: str, build_id: int, port: int | None = None
) -> nemesis.Command:
    """A step of a build as a task of the scheduler runs it: in a process of its own."""
    program = (
        "import sys; from callhouse import settings, transform; "
        "getattr(transform, sys.argv[1])(settings.load(), int(sys.argv[2]))"
    )
    return nemesis.Command(
        published.settings, name, str(build_id), port=port, program=("-c", program)
    )


def status(settings: Settings, build_id: int) -> str:
    with warehouse.connect(settings) as connection:
        return str(
            warehouse.one(
                connection, "select status from ops.builds where build_id = %s", [build_id]
            )[0]
        )


def claimed(published: Published) -> int:
    build_id = transform.claim(published.settings)
    assert build_id is not None
    return build_id


def in_the_middle(command: nemesis.Command) -> list[psutil.Process]:
    """The processes of its dbt, when dbt has made some of the models."""
    command.wait_for(" of ")
    command.wait_for("OK created")
    found = command.children("dbt")
    assert found
    return found


# ------------------------------------------------------------------------------ odd sources
@pytest.mark.parametrize("name", sorted(odd.CHANGES))
def test_calls_of_an_odd_source_are_the_truth(published: Published, name: str) -> None:
    """None is lost or doubled, and no duration is another one."""
    assert world.check_truth(published.settings, published.odd[name], name) > 20
    with warehouse.connect(published.settings) as connection:
        days = connection.execute(
            "select business_day, count(*)::int from marts.fct_calls"
            " where source = %s and calls = 1 group by 1", [name],
        ).fetchall()  # fmt: skip
        arrivals = Counter(
            (datetime.fromisoformat(row["arrived_at"])
             + timedelta(seconds=odd.CLOCKS.get(name, 0))).date()
            for row in published.odd[name].truth("calls.csv")
        )  # fmt: skip
        assert dict(days) == arrivals, "a call is of the day that its own clock says"
        agents = connection.execute(
            "select distinct agent_id from marts.fct_agent_connections where source = %s", [name]
        ).fetchall()
        assert agents
        if name == "unknown_members":
            assert all(agent.startswith("new-") for (agent,) in agents)
            known = "select count(*) from marts.dim_{0} where source = %s and {0}_id like 'new-%%'"
            for member in ("agent", "queue"):
                assert warehouse.one(connection, known.format(member), [name])[0] > 0
        if name in odd.BERLIN:
            quarters = connection.execute(
                "select distinct count(*) from marts.agg_queue_15min"
                " where source = %s and business_day = %s group by queue_id",
                [name, odd.BERLIN[name][0]],
            ).fetchall()
            assert quarters == [(odd.BERLIN[name][1],)]


# ------------------------------------------------------------------------------ steps
def test_each_step_is_killed_and_tried_again(published: Published, chance: random.Random) -> None:
    """As a scheduler does that loses its tasks; publishing is killed at every statement."""
    published.mark()
    build_id = claimed(published)
    building = step(published, "build", build_id)
    for process in in_the_middle(building):
        process.kill()
    assert building.end().code == 1 and status(published.settings, build_id) == "claimed"
    published.check()
    transform.build(published.settings, build_id, dbt.quiet)

    with nemesis.Door(published.settings.postgres_port, at=chance.randint(20, 60)) as door:
        auditing = step(published, "audit", build_id, door.port)
        door.strike = auditing.kill
        assert auditing.end().code == -9
    assert status(published.settings, build_id) == "built"
    published.check()
    transform.audit(published.settings, build_id, dbt.quiet)

    number = 0
    while True:
        number += 1
        with nemesis.Door(published.settings.postgres_port, at=number) as door:
            publishing = step(published, "publish", build_id, door.port)
            door.strike = publishing.kill
            outcome = publishing.end()
        published.check()
        if not door.struck:
            break
        assert outcome.code == -9, outcome
    assert outcome.code == 0 and number > FEWEST_STEPS
    report = transform.publish(published.settings, build_id)
    assert (report.inserted_rows, report.deleted_rows) == (0, 0)
    assert report.held_days == {} and transform.pending(published.settings) == 0


# ------------------------------------------------------------------------------ the server
def crash(settings: Settings) -> None:
    """SIGKILL to a process of the server: candidates are unlogged, so all of them are empty."""
    connection = psycopg.connect(settings.dsn("postgres"))
    os.kill(connection.info.backend_pid, signal.SIGKILL)
    connection.close()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with warehouse.connect(settings) as connection:
                if warehouse.one(connection, "select count(*) from candidate.fct_calls") == (0,):
                    return
        except CallhouseError:
            time.sleep(0.1)
    pytest.fail("the server is not back, or its candidates are not empty")


def test_a_crash_then_a_killed_scheduler_then_two(published: Published) -> None:
    """One trouble after the other, without a person between them.

    Candidates that a crash has emptied are no verdict on their days: nothing is held. The dbt of a
    killed scheduler does not go on behind the back of the next one, and its days are taken over.
    """
    published.mark()
    build_id = claimed(published)
    transform.build(published.settings, build_id, dbt.quiet)
    crash(published.settings)
    with pytest.raises(CallhouseError, match="built again"):
        transform.audit(published.settings, build_id, dbt.quiet)
    published.check()

    killed = nemesis.Command(published.settings, "transform")
    orphans = in_the_middle(killed)
    killed.kill()
    assert killed.end().code == -9
    _, alive = psutil.wait_procs(orphans, timeout=5)
    assert not alive, f"dbt goes on without its transform: {alive}"
    published.check()

    both = [nemesis.Command(published.settings, "transform") for _ in range(2)]
    outcomes = [command.end() for command in both]
    assert [outcome.code for outcome in outcomes] == [0, 0], [o.output for o in outcomes]
    days = [int(o.output.splitlines()[-1].split()[0]) for o in outcomes]
    assert min(days) == 0 and max(days) >= 2, "each day is built by one of them"
    assert transform.pending(published.settings) == 0
    published.check()


def test_candidates_emptied_after_their_audit(long_form: None, published: Published) -> None:
    published.mark()
    build_id = claimed(published)
    transform.build(published.settings, build_id, dbt.quiet)
    transform.audit(published.settings, build_id, dbt.quiet)
    crash(published.settings)
    with pytest.raises(CallhouseError, match="changed after its audit"):
        transform.publish(published.settings, build_id)
    published.recover()


def test_the_server_stops_in_the_middle_of_a_build(
    long_form: None, published: Published, cluster: postgres.Cluster
) -> None:
    published.mark()
    building = nemesis.Command(published.settings, "transform")
    in_the_middle(building)
    cluster.stop("immediate")
    outcome = building.end()
    cluster.start()
    assert outcome.code == 1 and "Traceback" not in outcome.output, outcome.output
    published.recover()


# ------------------------------------------------------------------------------ again
def test_every_day_three_times(long_form: None, published: Published) -> None:
    for _ in range(3):
        assert nemesis.run(published.settings, "transform", "--full").code == 0
        published.check()
        world.check_truth(published.settings, published.world)


def test_transforms_killed_at_random_steps(
    long_form: None, published: Published, chance: random.Random, fault_runs: int
) -> None:
    """Of dbt's statements, of the audit's and of the lock's, whichever it comes to."""
    for _ in range(min(fault_runs, 10)):
        published.mark()
        at, after = chance.randint(5, 900), chance.random() < 0.5
        outcome, has_struck = nemesis.strike_at(
            published.settings, "transform", at=at, after=after, cut=chance.random() < 0.3
        )
        print(f"step {at}, after {after}: struck {has_struck}, code {outcome.code}")
        published.check()
        if transform.pending(published.settings):
            published.recover()
