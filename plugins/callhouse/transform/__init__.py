"""From staging to published marts: dirty days are claimed, built, audited, sealed and published.

Every step reads its work from tables and may be repeated: an Airflow task that is retried and a
command that was killed leave nothing to clean up. One lock lets a single build run at a time,
because the candidate schema is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psycopg
from psycopg import sql

from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.transform import dbt, marts, releases
from callhouse.transform.dbt import BuildError, Report

# Two months in one go; a build that fails is halved, so more would only cost more tries.
MAX_DAYS = 62
MAX_ROWS = 2_000_000
# Models read a day before and after, follow-ups eight of what is published.
READ_AROUND = 10
# What is dirty, built and published by itself (see ops.builds) → the dbt selector that builds it.
SELECTORS = {"facts": "production", "followups": "followups"}
# Follow-ups read what is published, so facts go first; but they do not wait for ever.
FOLLOWUPS_WAIT = "1 hour"
# A step holds the one, so that the candidate schema has one writer. Who goes from step to step
# holds the other as well: who claims between two steps takes the days over, and builds would chase
# each other without an end.
CANDIDATES, TURN, PREPARATION = "callhouse.transform", "callhouse.drain", "callhouse.prepare"


@dataclass(frozen=True)
class PublishReport:
    """What one build brought to the readers. Row counts are sums over all relations."""

    build_id: int
    lane: str
    published_days: tuple[date, ...]
    held_days: dict[date, str]
    inserted_rows: int
    deleted_rows: int


@dataclass(frozen=True)
class DrainReport:
    """Every build of one `drain`: `builds` of facts, `followups` of what looks across days."""

    builds: tuple[PublishReport, ...] = ()
    followups: tuple[PublishReport, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def published_days(self) -> int:
        """Days whose facts were brought to the readers."""
        return sum(len(b.published_days) for b in self.builds)

    @property
    def followed_up_days(self) -> int:
        """Days whose follow-ups were brought to the readers."""
        return sum(len(b.published_days) for b in self.followups)


@contextmanager
def _only_one(settings: Settings, lock: str = CANDIDATES) -> Iterator[psycopg.Connection]:
    """A session that holds a lock; waits up to ten minutes for it."""
    with warehouse.connect(settings, autocommit=True) as connection:
        connection.execute("set lock_timeout = '10min'")
        try:
            connection.execute("select pg_advisory_lock(hashtext(%s))", [lock])
        except psycopg.errors.LockNotAvailable:
            raise CallhouseError(
                "another transform has been running for ten minutes: see `./callhouse status`"
            ) from None
        yield connection


@contextmanager
def standstill(settings: Settings) -> Iterator[None]:
    """A block within which nothing is claimed, built or published."""
    with _only_one(settings, TURN), _only_one(settings):
        yield


def prepare(settings: Settings, report: Report = print) -> None:
    """Bring seeds, published tables and views up to date with the dbt project.

    One at a time: a second process would load the seeds again, and have every day built anew.
    """
    from callhouse.sources import registry

    with _only_one(settings, PREPARATION):
        with warehouse.connect(settings) as connection:
            registry.register(connection, *registry.feeds(settings))
            # The warehouse itself remembers which seeds it holds.
            loaded = "select obj_description('reference'::regnamespace)"
            seeds = dbt.project_hash(settings, ".csv")
            is_seeded = warehouse.one(connection, loaded)[0] == seeds
            if not is_seeded:
                # Seeds are made anew, and what reads them goes: no state is moved until its views
                # are back.
                connection.execute("set local role callhouse_owner")
                connection.execute("comment on schema live_intake is null")
        manifest = dbt.manifest(settings, is_seeding=not is_seeded)
        with warehouse.connect(settings) as connection:
            for change in marts.synchronise(connection, marts.from_manifest(manifest)):
                report(change)
        if is_seeded:
            return
        # Targets and names are written into the facts, so other seeds are other facts.
        mark(settings, None, "seeds changed")
        with warehouse.connect(settings) as connection:
            connection.execute("set role callhouse_owner")
            connection.execute(
                sql.SQL("comment on schema reference is {}").format(sql.Literal(seeds))
            )


def pending(settings: Settings) -> int:
    """Days that wait to be built, in any lane."""
    with warehouse.connect(settings) as connection:
        count = "select count(distinct (business_day, lane)) from ops.due_marks"
        return int(warehouse.one(connection, count)[0])


def mark(settings: Settings, days: Sequence[date] | None, reason: str) -> int:
    """Mark `days` (None: every day that was ever landed) dirty; returns how many.

    Their follow-ups are marked where publishing changes a call. Days of feeds that are kept on the
    live floor only are none of these.
    """
    from callhouse.sources import registry

    with warehouse.connect(settings) as connection:
        if days is None:
            registry.register(connection, *registry.feeds(settings))
            cursor = connection.execute(
                "insert into ops.dirty_marks (business_day, reason) select business_day, %s from ("
                " select d.business_day from ops.unit_days as d"
                " inner join ops.units as u on d.unit_id = u.unit_id"
                " inner join ops.sources as s on u.source = s.source where s.is_for_marts"
                " union select business_day from ops.published_days where lane = 'facts') as known",
                [reason],
            )
        else:
            cursor = connection.execute(
                "insert into ops.dirty_marks (business_day, reason) select unnest(%s::date[]), %s",
                [list(days), reason],
            )
        return cursor.rowcount


def mark_followups(settings: Settings, days: Sequence[date] | None, reason: str) -> int:
    """Mark the follow-ups of `days` (None: of every published day) dirty; returns how many."""
    with warehouse.connect(settings) as connection:
        return connection.execute(
            "insert into ops.dirty_marks (business_day, reason, lane) "
            "select distinct business_day, %(reason)s, 'followups' from ops.published_days "
            "where %(days)s::date[] is null or business_day = any(%(days)s::date[])",
            {"days": None if days is None else list(days), "reason": reason},
        ).rowcount


def mark_known(settings: Settings, day: date, reason: str) -> bool:
    """Mark a day and its follow-ups, if anything of it was ever landed; returns whether it was."""
    with warehouse.connect(settings) as connection:
        known = connection.execute(
            "select from ops.unit_days where business_day = %(day)s "
            "union all select from ops.published_days where business_day = %(day)s limit 1",
            {"day": day},
        ).fetchone()
    if known is None:
        return False
    mark(settings, [day], reason)
    mark_followups(settings, [day], reason)
    return True


def claim(settings: Settings, *, max_rows: int = MAX_ROWS) -> int | None:
    """Claim the oldest dirty days of one lane for a new build; None when nothing is dirty.

    Days to come, of which there are plans, wait until they have begun.

    At most `max_rows` staged rows and MAX_DAYS days, at least one day. A build that was left
    unfinished (killed process) is abandoned and its days are claimed anew; a `drain` that is
    running comes to its end first.
    """
    with _only_one(settings, TURN):
        return _claim(settings, max_rows)


def _claim(settings: Settings, max_rows: int = MAX_ROWS) -> int | None:
    with _only_one(settings) as connection, connection.transaction():
        connection.execute(
            "update ops.builds set status = 'abandoned' "
            "where status in ('claimed', 'built', 'audited')"
        )
        connection.execute("update ops.dirty_marks set build_id = null where build_id is not null")
        lane = connection.execute(
            "select lane from ops.due_marks group by lane order by "
            "lane = 'followups' and min(marked_at) > now() - %s::interval, lane desc limit 1",
            [FOLLOWUPS_WAIT],
        ).fetchone()
        if lane is None:
            return None
        rows = connection.execute(
            """
            select
                m.business_day,
                min(m.batch_limit) as batch_limit,
                coalesce(max(s.staged_rows), 0) as staged_rows
            from ops.due_marks as m
            left join (
                select business_day, sum(staged_rows) as staged_rows
                from ops.unit_days
                group by business_day
            ) as s on m.business_day = s.business_day
            where m.lane = %s
            group by m.business_day
            order by m.business_day
            """,
            lane,
        ).fetchall()
        limit = rows[0][1]
        days: list[date] = []
        total = 0
        for day, batch_limit, staged_rows in rows:
            # Days of a failed build come apart from the others, in ever smaller groups.
            if batch_limit != limit:
                continue
            total += int(staged_rows)
            if days and (total > max_rows or len(days) >= min(limit or MAX_DAYS, MAX_DAYS)):
                break
            days.append(day)
        created = "insert into ops.builds (lane) values (%s) returning build_id"
        build_id = int(warehouse.one(connection, created, lane)[0])
        connection.execute(
            "insert into ops.build_days (build_id, business_day) select %s, unnest(%s::date[])",
            [build_id, days],
        )
        connection.execute(
            "update ops.dirty_marks set build_id = %s where business_day = any(%s) and lane = %s",
            [build_id, days, *lane],
        )
        return build_id


def build(settings: Settings, build_id: int, report: Report = print) -> None:
    """Build the candidate days with one `dbt build`.

    Raises BuildError where the rows do not satisfy the project's tests. The days of the failed
    build are then claimed in halves, until the one that fails alone is held for a person.
    """
    with _only_one(settings) as connection:
        _check_status(connection, build_id, "claimed", "built")
        _read_back(settings, connection, build_id)
        prepare(settings, report)
        with connection.transaction():
            # What the build reads is what its audit compares: nothing else changes the views.
            connection.execute("set local role callhouse_owner")
            connection.execute("select ops.make_mart_rows(true)")
        selector = SELECTORS[_lane(connection, build_id)]
        try:
            results = dbt.run(settings, "build", "--selector", selector, report=report)
        except BuildError as failure:
            _record(connection, build_id, dbt.read_results(_results_file(settings)))
            _split(connection, build_id, str(failure))
            raise
        _record(connection, build_id, results)
        with connection.transaction():
            connection.execute("delete from ops.built_candidates")
            connection.execute("insert into ops.built_candidates values (%s)", [build_id])
            connection.execute(
                "update ops.builds set status = 'built', built_at = now() where build_id = %s",
                [build_id],
            )


def _read_back(settings: Settings, connection: psycopg.Connection, build_id: int) -> None:
    """What is archived of the build's days and those around them; nothing archives meanwhile."""
    from callhouse.landing import cold

    days = connection.execute(
        "select business_day from ops.build_days where build_id = %s", [build_id]
    ).fetchall()
    cold.thaw(settings, connection, (day for (day,) in days), reach=READ_AROUND)


def _results_file(settings: Settings) -> Path:
    return dbt.target(settings) / "run_results.json"


def _lane(connection: psycopg.Connection, build_id: int) -> str:
    return str(
        warehouse.one(connection, "select lane from ops.builds where build_id = %s", [build_id])[0]
    )


def _check_status(connection: psycopg.Connection, build_id: int, *wanted: str) -> None:
    row = connection.execute(
        "select status from ops.builds where build_id = %s", [build_id]
    ).fetchone()
    status = row[0] if row else "unknown"
    if status not in wanted:
        raise CallhouseError(
            f"build {build_id} is {status}, not {' or '.join(wanted)}: another transform has "
            "taken its days over, so there is nothing left to do for this one"
        )


def _record(connection: psycopg.Connection, build_id: int, results: list[dbt.NodeResult]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.model_results"
            " (build_id, node, status, seconds, affected_rows, failures, message)"
            " values (%s, %s, %s, %s, %s, %s, %s)",
            [
                (build_id, r.node, r.status, r.seconds, r.affected_rows, r.failures, r.message)
                for r in results
            ],
        )


def _check_candidates(connection: psycopg.Connection, build_id: int) -> None:
    """Nothing is there to audit after a crash: empty candidates would hold their days."""
    if connection.execute(
        "select 1 from ops.built_candidates where build_id = %s", [build_id]
    ).fetchone():
        return
    problem = f"the server has crashed since build {build_id} was built: its days are built again"
    connection.execute(
        "update ops.builds set status = 'failed', problem = %s where build_id = %s",
        [problem, build_id],
    )
    raise CallhouseError(problem)


def _split(connection: psycopg.Connection, build_id: int, problem: str) -> None:
    with connection.transaction():
        connection.execute(
            "update ops.builds set status = 'failed', problem = %s where build_id = %s",
            [problem, build_id],
        )
        days = [
            row[0]
            for row in connection.execute(
                "select business_day from ops.build_days where build_id = %s", [build_id]
            ).fetchall()
        ]
        if len(days) > 1:
            connection.execute(
                "update ops.dirty_marks set build_id = null, batch_limit = %s where build_id = %s",
                [(len(days) + 1) // 2, build_id],
            )
            return
        connection.execute("delete from ops.dirty_marks where build_id = %s", [build_id])
        connection.execute(
            "insert into ops.held_days (business_day, lane, build_id, reason) "
            "values (%s, %s, %s, %s) on conflict (business_day, lane) do update "
            "set build_id = excluded.build_id, reason = excluded.reason, held_at = now()",
            [days[0], _lane(connection, build_id), build_id, problem],
        )


def audit(settings: Settings, build_id: int, report: Report = print) -> dict[date, str]:
    """Seal the candidates and audit them; returns the days that must not be published, and why."""
    with _only_one(settings) as connection:
        _check_status(connection, build_id, "built", "audited")
        _check_candidates(connection, build_id)
        # Both only read the candidates, which nobody changes as long as the lock is held.
        with ThreadPoolExecutor(max_workers=1) as pool:
            sealed = pool.submit(_seal, settings, build_id)
            # Great Expectations takes seconds to import, and only this step needs it.
            from callhouse import quality

            outcome = quality.audit(settings, build_id, report)
            sealed.result()
        failures = {day: outcome.failures_of(day) for day in outcome.failing_days}
        let_through = releases.released(connection, build_id, failures)
        held = {d: reason for d, reason in outcome.failing_days.items() if d not in let_through}
        with connection.transaction():
            # What an earlier try of this audit held is judged anew.
            connection.execute(
                "update ops.build_days set is_held = false, reason = null where build_id = %s",
                [build_id],
            )
            reasons = {day: found.sentence for day, found in let_through.items()} | held
            for day, reason in reasons.items():
                connection.execute(
                    "update ops.build_days set is_held = %s, reason = %s "
                    "where build_id = %s and business_day = %s",
                    [day in held, reason, build_id, day],
                )
            connection.execute(
                "update ops.builds set status = 'audited', audited_at = now() where build_id = %s",
                [build_id],
            )
        for found in let_through.values():
            report(f"{found.business_day} goes on, {found.sentence}")
    return held


def _seal(settings: Settings, build_id: int) -> None:
    with warehouse.connect(settings) as connection:
        connection.execute("select ops.seal(%s)", [build_id])


def publish(settings: Settings, build_id: int) -> PublishReport:
    """Publish the audited days that passed; held days keep their last good version."""
    with _only_one(settings) as connection:
        _check_status(connection, build_id, "audited", "published", "held")
        row = connection.execute(
            "select status from ops.builds where build_id = %s", [build_id]
        ).fetchone()
        if row and row[0] == "audited":
            try:
                with connection.transaction():
                    connection.execute("select ops.publish(%s)", [build_id])
            except psycopg.errors.RaiseException as error:
                # The candidates are not what was audited: have their days built again.
                with connection.transaction():
                    connection.execute(
                        "update ops.builds set status = 'failed', problem = %s where build_id = %s",
                        [str(error), build_id],
                    )
                raise CallhouseError(f"build {build_id} was not published: {error}") from None
        open_relations = marts.unprotected(connection)
        if open_relations:
            raise CallhouseError(
                f"{open_relations[0]} can be read without row security: revoke the grant"
            )
        return _publish_report(connection, build_id)


def _publish_report(connection: psycopg.Connection, build_id: int) -> PublishReport:
    days = connection.execute(
        "select business_day, is_held, reason from ops.build_days where build_id = %s "
        "order by business_day",
        [build_id],
    ).fetchall()
    counts = warehouse.one(
        connection,
        "select coalesce(sum(inserted_rows), 0), coalesce(sum(deleted_rows), 0) "
        "from ops.publications where build_id = %s",
        [build_id],
    )
    return PublishReport(
        build_id=build_id,
        lane=_lane(connection, build_id),
        published_days=tuple(d[0] for d in days if not d[1]),
        held_days={d[0]: d[2] or "audit failed" for d in days if d[1]},
        inserted_rows=int(counts[0]),
        deleted_rows=int(counts[1]),
    )


def drain(settings: Settings, report: Report = print) -> DrainReport:
    """Build and publish until nothing is dirty. Days that fail are held, the others go on."""
    reports: list[PublishReport] = []
    problems: list[str] = []
    with _only_one(settings, TURN):
        while (build_id := _claim(settings)) is not None:
            try:
                build(settings, build_id, report)
            except BuildError as failure:
                problems.append(str(failure))
                continue
            audit(settings, build_id, report)
            reports.append(publish(settings, build_id))
    return DrainReport(
        builds=tuple(r for r in reports if r.lane == "facts"),
        followups=tuple(r for r in reports if r.lane == "followups"),
        problems=tuple(problems),
    )
