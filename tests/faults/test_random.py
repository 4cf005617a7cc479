"""Random runs: a world delivered in any way, while whatever can break does, against its truth."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections import Counter
from pathlib import Path

from tests.conftest import published_contents
from tests.faults import nemesis, world
from tests.faults.world import Delivery

from callhouse import landing, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.transform import dbt

LANDING = (
    "none",
    "none",
    "killed",
    "killed after",
    "cut",
    "server",
    "two workers",
    "worker killed",
)
TRANSFORM = ("killed", "killed after", "cut", "dbt killed", "server", "two schedulers")
# A landing has some dozens of steps, a transform some hundreds and more of which dbt does most.
STEPS = {"land": 60, "transform": 1500}


@dataclasses.dataclass
class Figures:
    """What the random runs came to."""

    runs: int = 0
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    calls: int = 0
    rows_read: int = 0
    rows_staged: int = 0
    duplicates: int = 0
    quarantined: int = 0
    longest_recovery_seconds: float = 0.0

    def told(self) -> str:
        found = dataclasses.asdict(self) | {"faults": dict(self.faults)}
        return json.dumps(found | {"faults_survived": sum(self.faults.values())})


@dataclasses.dataclass
class Nemesis:
    """Runs commands and breaks them; each is tried again until it has done its work."""

    settings: Settings
    cluster: postgres.Cluster
    chance: random.Random
    figures: Figures

    def land(self, delivery: Delivery) -> None:
        """Land a file, whatever happens meanwhile."""
        fault = self.chance.choice(LANDING)
        if fault == "none":
            landing.land(self.settings, delivery.feed, [delivery.path])
        else:
            self._run(("land", delivery.feed, str(delivery.path)), fault)
            self._again(("land", delivery.feed, str(delivery.path)), fault)
        world.check_ledger(self.settings)

    def transform(self) -> None:
        """Build what is dirty, whatever happens meanwhile."""
        fault = self.chance.choice(TRANSFORM)
        self._run(("transform",), fault)
        self._again(("transform",), fault)
        assert transform.pending(self.settings) == 0
        with warehouse.connect(self.settings) as connection:
            assert connection.execute("select * from ops.held_days").fetchall() == []

    def _run(self, command: tuple[str, ...], fault: str) -> None:
        """The command, with the fault at some step of it."""
        at = self.chance.randint(3, STEPS[command[0]])
        with nemesis.Door(
            self.settings.postgres_port, at=at, after=fault.endswith("after")
        ) as door:
            first = nemesis.Command(self.settings, *command, port=door.port)
            others = [
                nemesis.Command(self.settings, *command)
                for _ in range(fault in ("two workers", "worker killed", "two schedulers"))
            ]
            is_hit = bool(others)
            if fault in ("two workers", "two schedulers"):
                door.strike = None
            elif fault == "dbt killed":
                while first.process.poll() is None and not first.children("dbt"):
                    time.sleep(0.05)
                time.sleep(self.chance.uniform(0, 10))
                for child in first.children("dbt"):
                    child.kill()
                    is_hit = True
            else:
                strikes = {"cut": door.cut, "server": lambda: self.cluster.stop("immediate")}
                door.strike = strikes.get(fault, first.kill)
            outcomes = [one.end() for one in (first, *others)]
            is_hit |= door.struck
        if fault == "server" and is_hit:
            self.cluster.start()  # which is the supervisor's work
        for outcome in outcomes:
            assert "Traceback" not in outcome.output, outcome.output
            assert outcome.code in ((0, 1, -9) if is_hit else (0,)), outcome.output
        for outcome in outcomes[1:]:
            assert outcome.code == 0, outcome.output
        if is_hit:
            self.figures.faults[f"{command[0]}: {fault}"] += 1

    def _again(self, command: tuple[str, ...], fault: str) -> None:
        """The retry, which must do; its time is that of the recovery."""
        outcome = nemesis.run(self.settings, *command)
        assert outcome.code == 0, f"after {fault}: {outcome.output}"
        assert outcome.seconds < nemesis.RECOVERY_SECONDS
        longest = max(self.figures.longest_recovery_seconds, outcome.seconds)
        self.figures.longest_recovery_seconds = round(longest, 1)


def test_random_runs(
    long_form: None, registered: Settings, cluster: postgres.Cluster, seed: int, fault_runs: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    """What a broken delivery leaves is what an undisturbed one does, and both are the truth."""
    figures = Figures()
    transform.prepare(registered, dbt.quiet)
    for number in range(fault_runs):
        name = f"{seed}.{number}"
        chance = random.Random(name)
        print(f"run {name}", flush=True)
        played = world.simulated(
            tmp_path / name, chance.randrange(10**6), chance.choice(world.STARTS),
            calls_per_day=chance.choice((40, 80, 150)),
        )  # fmt: skip
        deliveries = world.delivered(played, tmp_path / name / "sent", chance)
        world.empty(registered)
        landing.land(registered, world.HOTLINE, played.references)
        for delivery in deliveries:
            [result] = landing.land(registered, delivery.feed, [delivery.path])
            assert result.status in ("landed", "already_landed"), result.reason
        wanted = world.staged(registered)
        world.empty(registered)
        landing.land(registered, world.HOTLINE, played.references)

        broken = Nemesis(registered, cluster, chance, figures)
        builds = set(chance.sample(range(len(deliveries)), 2))
        for place, delivery in enumerate(deliveries):
            broken.land(delivery)
            if place in builds:
                broken.transform()
        found = world.staged(registered)
        assert [key for key in world.different(found, wanted) if key != "dirty days"] == []
        world.check_lines(registered, played)
        broken.transform()
        figures.calls += world.check_truth(registered, played)
        seen = published_contents(registered)
        transform.mark(registered, None, "again")
        transform.drain(registered, dbt.quiet)
        assert world.different(published_contents(registered), seen) == []
        figures.runs += 1
        with warehouse.connect(registered) as connection:
            read, staged, again, kept = warehouse.one(
                connection,
                "select sum(read_rows)::bigint, sum(staged_rows)::bigint,"
                " sum(duplicate_rows)::bigint, sum(quarantined_rows)::bigint from ops.units",
            )
        figures.rows_read += read
        figures.rows_staged += staged
        figures.duplicates += again
        figures.quarantined += kept
        print(figures.told(), flush=True)


def test_a_backfill_of_90_days_while_calls_come_in(
    long_form: None, registered: Settings, seed: int, tmp_path: Path
) -> None:
    """A day is landed piece by piece and published meanwhile; the old days take away nothing."""
    world.empty(registered)
    old = world.simulated(
        tmp_path / "old", seed, world.STARTS[0], days=90, calls_per_day=12, formats=("delimited",)
    )
    landing.land(registered, world.HOTLINE, old.references)
    days = sorted((tmp_path / "old").glob("calls_*.csv.gz"))
    assert len(days) == 90
    backfill = nemesis.Command(registered, "land", world.HOTLINE, *days[:-1])
    lines = old.lines["calls"]
    today = [
        line for line in lines if line.startswith(days[-1].name[6:16].replace("-", "").encode())
    ]
    assert today
    for place in range(0, len(today), 4):
        piece = world.written(
            old, tmp_path / f"calls_live_{place}.csv", "calls", today[: place + 4]
        )
        assert nemesis.run(registered, "land", piece.feed, piece.path).code == 0
        world.check_ledger(registered)
    building = nemesis.Command(registered, "transform")
    assert backfill.end().code == 0 and building.end(600).code == 0
    assert nemesis.Command(registered, "transform").end(600).code == 0
    details = [path for path in (tmp_path / "old").glob("*_*.csv.gz") if path not in days]
    landing.land(registered, world.HOTLINE, details)
    assert nemesis.Command(registered, "transform").end(600).code == 0
    world.check_ledger(registered)
    assert world.check_truth(registered, old) > 700
