"""Claiming, sealing and publishing, with a small mart of its own: no dbt, no Great Expectations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from callhouse import transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.security import login_password, people
from callhouse.settings import Settings
from callhouse.transform import marts

PUBLISH = Path(warehouse.__file__).with_name("publish.sql")
DAY, NEXT_DAY = date(2026, 10, 31), date(2026, 11, 1)
MART = marts.Mart(
    name="fct_things",
    description="One row per thing.",
    columns=(
        ("business_day", "date", "Day of the thing."),
        ("thing_key", "text", "Its key."),
        ("region_code", "text", "Where."),
        ("seconds", "numeric", "How long; may be null."),
    ),
    primary_key=("business_day", "thing_key"),
    is_by_day=True,
    is_scoped=True,
)


@pytest.fixture
def things(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """A published mart and its candidate, both gone afterwards."""
    marts.synchronise(connection, [MART])
    connection.execute(
        "create unlogged table candidate.fct_things"
        " (business_day date, thing_key text, region_code text, seconds numeric)"
    )
    connection.commit()
    yield connection
    connection.rollback()
    connection.execute("drop view bi.fct_things; drop table marts.fct_things cascade")
    connection.execute("drop table candidate.fct_things")
    for table in ("seals", "publications", "held_days", "published_days", "dirty_marks",
                  "build_days", "marts", "builds"):  # fmt: skip
        connection.execute(f"delete from ops.{table}")


def fill(connection: psycopg.Connection, *rows: tuple[date, str, str, int | None]) -> None:
    connection.execute("truncate candidate.fct_things")
    with connection.cursor() as cursor:
        cursor.executemany("insert into candidate.fct_things values (%s, %s, %s, %s)", rows)
    connection.commit()


def audited(connection: psycopg.Connection, settings: Settings, *held: date) -> int:
    """Claim what is dirty, pretend that dbt built it, seal it, hold `held`."""
    build_id = transform.claim(settings)
    assert build_id is not None
    connection.execute("select ops.seal(%s)", [build_id])
    connection.execute(
        "update ops.build_days set is_held = true, reason = 'a test says so'"
        " where build_id = %s and business_day = any(%s)",
        [build_id, list(held)],
    )
    connection.execute("update ops.builds set status = 'audited' where build_id = %s", [build_id])
    connection.commit()
    return build_id


def published(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute("select * from marts.fct_things order by 1, 2").fetchall()


def test_only_the_difference_is_published(things: psycopg.Connection, settings: Settings) -> None:
    fill(things, (DAY, "a", "CN-GD", 1), (DAY, "b", "CN-SH", None), (NEXT_DAY, "c", "CN-GD", 3))
    transform.mark(settings, [DAY, NEXT_DAY], "test")
    first = transform.publish(settings, audited(things, settings))
    assert (first.inserted_rows, first.deleted_rows) == (3, 0)
    assert first.published_days == (DAY, NEXT_DAY)

    fill(things, (DAY, "a", "CN-GD", 2), (DAY, "b", "CN-SH", None), (DAY, "d", "CN-GD", 4))
    transform.mark(settings, [DAY], "test")
    second = transform.publish(settings, audited(things, settings))
    assert (second.inserted_rows, second.deleted_rows) == (2, 1)
    assert [row[1:] for row in published(things)] == [
        ("a", "CN-GD", 2), ("b", "CN-SH", None), ("d", "CN-GD", 4), ("c", "CN-GD", 3),
    ]  # fmt: skip
    revisions: dict[date, int] = dict(
        things.execute("select business_day, revision from ops.published_days").fetchall()
    )
    assert revisions == {DAY: 2, NEXT_DAY: 1}
    assert transform.pending(settings) == 0


def test_building_the_same_day_again_changes_nothing(
    things: psycopg.Connection, settings: Settings
) -> None:
    for _ in range(2):
        fill(things, (DAY, "a", "CN-GD", 1))
        transform.mark(settings, [DAY], "test")
        report = transform.publish(settings, audited(things, settings))
    assert (report.inserted_rows, report.deleted_rows) == (0, 0)
    assert things.execute("select revision from ops.published_days").fetchall() == [(1,)]


def test_a_mart_that_an_upgrade_took_away_is_a_revision(
    things: psycopg.Connection, settings: Settings
) -> None:
    """Else the restatement would be written down with a number that the next one has, too."""
    for revision in (1, 2, 3):
        fill(things, (DAY, "a", "CN-GD", 1))
        transform.mark(settings, [DAY], "test")
        transform.publish(settings, audited(things, settings))
        assert things.execute("select revision from ops.published_days").fetchall() == [(revision,)]
        things.execute(
            "insert into ops.seals select build_id, 'fct_gone', business_day, 5, 1 "
            "from ops.published_days"
        )
        things.commit()


def test_a_day_whose_calls_are_gone_is_emptied(
    things: psycopg.Connection, settings: Settings
) -> None:
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    fill(things)
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    assert published(things) == []


def test_a_held_day_keeps_its_last_good_version(
    things: psycopg.Connection, settings: Settings
) -> None:
    fill(things, (DAY, "good", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    fill(things, (DAY, "bad", "CN-GD", 1), (NEXT_DAY, "fine", "CN-GD", 1))
    transform.mark(settings, [DAY, NEXT_DAY], "test")
    report = transform.publish(settings, audited(things, settings, DAY))
    assert report.held_days == {DAY: "a test says so"}
    assert [row[1] for row in published(things)] == ["good", "fine"]
    status: dict[date, str] = dict(
        things.execute("select business_day, status from bi.data_status").fetchall()
    )
    assert status == {DAY: "held", NEXT_DAY: "complete"}


def test_an_emptied_candidate_is_never_published(
    things: psycopg.Connection, settings: Settings
) -> None:
    """Unlogged tables are empty after a crash: publishing them would empty the readers' day."""
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    fill(things, (DAY, "a", "CN-GD", 2))
    transform.mark(settings, [DAY], "test")
    build_id = audited(things, settings)
    things.execute("truncate candidate.fct_things")
    things.commit()
    with pytest.raises(CallhouseError, match="changed after its audit"):
        transform.publish(settings, build_id)
    assert [row[1] for row in published(things)] == ["a"]
    assert transform.claim(settings) is not None, "the day must be built again"


@pytest.mark.parametrize(
    "damage",
    ["delete from marts.fct_things", "update marts.fct_things set region_code = 'CN-SH'",
     "update marts.fct_things set thing_key = 'b'"],
)  # fmt: skip
def test_what_is_published_is_what_was_audited(
    things: psycopg.Connection, settings: Settings, damage: str
) -> None:
    """Also where the seals of both builds say that nothing has changed."""
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    good = published(things)
    things.execute(damage.encode())
    things.commit()
    transform.mark(settings, [DAY], "test")
    report = transform.publish(settings, audited(things, settings))
    assert report.inserted_rows == 1
    assert published(things) == good


def test_seals_of_an_older_version_are_made_anew(
    things: psycopg.Connection, settings: Settings
) -> None:
    """They are sums of another hash: every day would have changed with the upgrade."""
    fill(things, (DAY, "a", "CN-GD", 1), (NEXT_DAY, "b", "CN-GD", 2))
    transform.mark(settings, [DAY, NEXT_DAY], "test")
    transform.publish(settings, audited(things, settings))
    things.execute("update ops.seals set checksum = 1")
    things.execute(
        "create function ops.fingerprint(text, boolean) returns integer language sql return 1"
    )
    things.commit()
    with warehouse.connect(settings, "postgres") as superuser:
        superuser.execute(PUBLISH.read_bytes())
    fill(things, (DAY, "a", "CN-GD", 1), (NEXT_DAY, "b", "CN-GD", 3))
    transform.mark(settings, [DAY, NEXT_DAY], "test")
    report = transform.publish(settings, audited(things, settings))
    assert (report.inserted_rows, report.deleted_rows) == (1, 1)
    revisions: dict[date, int] = dict(
        things.execute("select business_day, revision from ops.published_days").fetchall()
    )
    assert revisions == {DAY: 1, NEXT_DAY: 2}


def test_rows_that_land_during_a_build_are_built_next(
    things: psycopg.Connection, settings: Settings
) -> None:
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "first file")
    build_id = audited(things, settings)
    transform.mark(settings, [DAY], "second file, while the first is built")
    transform.publish(settings, build_id)
    assert transform.pending(settings) == 1


def test_an_unfinished_build_gives_its_days_back(
    things: psycopg.Connection, settings: Settings
) -> None:
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    killed = audited(things, settings)
    taken_over = audited(things, settings)
    with pytest.raises(CallhouseError, match="abandoned"):
        transform.publish(settings, killed)
    assert transform.publish(settings, taken_over).published_days == (DAY,)


def test_days_of_a_failed_build_come_in_halves_and_the_culprit_is_held(
    things: psycopg.Connection, settings: Settings
) -> None:
    days = [date(2026, 10, n) for n in range(1, 6)]
    culprit = days[3]
    transform.mark(settings, days, "test")
    fill(things, *[(day, "x", "CN-GD", 1) for day in days])
    sizes = []
    while (build_id := transform.claim(settings)) is not None:
        claimed = [
            row[0]
            for row in things.execute(
                "select business_day from ops.claimed_days order by 1"
            ).fetchall()
        ]
        things.commit()
        sizes.append(len(claimed))
        if culprit in claimed:
            transform._split(things, build_id, "assert_something: 1 row")
        else:
            things.execute("delete from candidate.fct_things where not business_day = any(%s)",
                           [claimed])  # fmt: skip
            fill(things, *[(day, "x", "CN-GD", 1) for day in claimed])
            things.execute("select ops.seal(%s)", [build_id])
            things.execute("update ops.builds set status = 'audited' where build_id = %s",
                           [build_id])  # fmt: skip
            things.commit()
            transform.publish(settings, build_id)
    assert sizes == [5, 3, 2, 1, 1] or len(sizes) <= 7
    assert [row[0] for row in published(things)] == [d for d in days if d != culprit]
    held = things.execute("select business_day, reason from ops.held_days").fetchall()
    assert held == [(culprit, "assert_something: 1 row")]


def test_a_failed_follow_up_is_held_and_the_facts_of_its_day_are_not(
    things: psycopg.Connection, settings: Settings
) -> None:
    days = [date(2026, 10, n) for n in range(1, 4)]
    transform.mark(settings, days, "test")
    fill(things, *[(day, "x", "CN-GD", 1) for day in days])
    transform.publish(settings, audited(things, settings))
    assert transform.mark_followups(settings, None, "test") == 3
    # Facts go first, and a mark in one lane is none in the other.
    transform.mark(settings, [NEXT_DAY], "test")
    fill(things, (NEXT_DAY, "y", "CN-GD", 1))
    assert transform.publish(settings, audited(things, settings)).lane == "facts"
    sizes = []
    while (build_id := transform.claim(settings)) is not None:
        claimed = [r[0] for r in things.execute("select business_day from ops.claimed_days")]
        things.commit()
        sizes.append(len(claimed))
        if days[0] in claimed:
            transform._split(things, build_id, "key: 1 row")
        else:
            things.execute("select ops.seal(%s)", [build_id])
            things.execute("update ops.builds set status = 'audited' where build_id = %s",
                           [build_id])  # fmt: skip
            things.commit()
            assert transform.publish(settings, build_id).lane == "followups"
    assert sizes == [3, 2, 1, 1, 1] or sum(sizes) <= 9
    status = {
        row[0]: row[1:]
        for row in things.execute(
            "select business_day, status, followup_status from bi.data_status"
        ).fetchall()
    }
    assert status == {
        days[0]: ("complete", "held"),
        days[1]: ("complete", "complete"),
        days[2]: ("complete", "complete"),
        NEXT_DAY: ("complete", None),
    }
    assert len(published(things)) == 4, "follow-ups must leave facts alone"


def test_follow_ups_wait_for_facts_but_not_for_ever(
    things: psycopg.Connection, settings: Settings
) -> None:
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    transform.mark_followups(settings, [DAY], "test")
    transform.mark(settings, [DAY], "test")

    def claimed_lane() -> str:
        build_id = transform.claim(settings)
        row = things.execute("select lane from ops.builds where build_id = %s", [build_id])
        return str((row.fetchone() or ("",))[0])

    assert claimed_lane() == "facts"
    things.execute(
        "update ops.dirty_marks set marked_at = now() - interval '2 hours' where lane = 'followups'"
    )
    things.commit()
    assert claimed_lane() == "followups"


CALLS = marts.Mart(
    name="fct_calls",
    description="One row per call.",
    columns=(
        ("business_day", "date", "Day of the call."),
        ("call_key", "text", "Its key."),
        ("source", "text", "Where it is from."),
        ("calls", "integer", "0 for a phantom."),
        ("arrived_at", "timestamp with time zone", "When."),
    ),
    primary_key=("business_day", "call_key"),
    is_by_day=True,
    is_scoped=True,
    indexes=(("source", "arrived_at"),),
)


@pytest.fixture
def calls(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Published calls and their candidate, both gone afterwards."""
    marts.synchronise(connection, [CALLS])
    connection.execute(
        "create unlogged table candidate.fct_calls (business_day date, call_key text,"
        " source text, calls integer, arrived_at timestamptz)"
    )
    connection.execute(
        "insert into ops.sources (source, vendor, label, time_zone)"
        " values ('s', 'delimited', 's', 'Asia/Shanghai')"
    )
    connection.commit()
    yield connection
    connection.rollback()
    connection.execute("drop view bi.fct_calls; drop table marts.fct_calls cascade")
    connection.execute("drop table candidate.fct_calls")
    for table in ("seals", "publications", "held_days", "published_days", "dirty_marks",
                  "build_days", "marts", "builds", "source_horizons", "sources"):  # fmt: skip
        connection.execute(f"delete from ops.{table}")


def test_published_calls_mark_the_follow_ups_that_they_change(
    calls: psycopg.Connection, settings: Settings
) -> None:
    """Every day's call arrives at 01:00 UTC, 09:00 in Shanghai."""

    def marked(day: date, *arrivals: str) -> list[date]:
        """Publish `day` with calls at `arrivals`; the days whose follow-ups that makes dirty."""
        calls.execute("truncate candidate.fct_calls")
        for arrival in arrivals:
            calls.execute(
                "insert into candidate.fct_calls values (%s, %s, 's', 1, %s)",
                [day, arrival, arrival],
            )
        calls.commit()
        transform.mark(settings, [day], "test")
        transform.publish(settings, audited(calls, settings))
        rows = calls.execute(
            "delete from ops.dirty_marks where lane = 'followups' returning business_day"
        ).fetchall()
        calls.commit()
        return sorted({row[0] for row in rows})

    first, near, far = date(2026, 10, 1), date(2026, 10, 9), date(2026, 11, 20)
    assert marked(first, "2026-10-01T01:00Z") == [first]
    # Beyond the gap nobody calls back, but the windows of the first day are over now.
    assert marked(far, "2026-11-20T01:00Z") == [first, far]
    assert marked(far, "2026-11-20T01:00Z") == [], "no call has changed"
    # Eight days later a call may repeat one of the first day; the reach stays what it was.
    assert marked(near, "2026-10-09T01:00Z") == [first, near]
    # A later call of the newest day: its own windows, and those that were open until now.
    assert marked(far, "2026-11-20T01:00Z", "2026-11-20T02:00Z") == [far]
    # The newest day is gone: the windows of the days before it are open again.
    assert marked(far) == [first, near, far]


def test_each_person_reads_their_region_only(
    things: psycopg.Connection, settings: Settings, cluster: postgres.Cluster
) -> None:
    fill(things, (DAY, "a", "CN-GD", 1), (DAY, "b", "CN-SH", 2))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    with psycopg.connect(settings.dsn("postgres")) as server:
        for person in people.DEMO_PEOPLE:
            people.ensure(settings, server, person)
        people.ensure(settings, server, people.Person("nobody_yet", "No scope", ()))

    def rows(person: str, statement: str = "select thing_key from bi.fct_things order by 1"):  # type: ignore[no-untyped-def]
        with psycopg.connect(
            settings.dsn("callhouse_pipeline").split(" user=")[0]
            + f" user={person} password={login_password(settings, person)}",
            # People may switch their read-only default off: it is no protection.
            options="-c default_transaction_read_only=off",
        ) as own:
            return own.execute(statement).fetchall()

    assert rows("director") == [("a",), ("b",)]
    assert rows("manager_gd") == [("a",)]
    assert rows("nobody_yet") == []
    for statement in (
        "select * from marts.fct_things",
        "select * from marts.fct_things_2026_10",
        "select * from candidate.fct_things",
        "select * from sec.entitlement",
        "create temp table t (a int)",
        "set role callhouse_owner",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows("manager_gd", statement)
    assert marts.unprotected(things) == []
    things.execute("grant select on candidate.fct_things to callhouse_reader")
    assert marts.unprotected(things) == ["candidate.fct_things"]


def test_a_new_rule_of_who_sees_a_row_reaches_tables_that_are_there(
    things: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marts.Mart, "condition", "(select sec.sees_all()) and region_code = 'HK'")
    marts.synchronise(things, [MART])
    rules = things.execute(
        "select qual from pg_policies where tablename = 'fct_things' and policyname = 'reader'"
    ).fetchall()
    assert len(rules) == 1 and "'HK'" in rules[0][0]


def test_a_new_column_is_added_and_a_changed_one_refused(
    things: psycopg.Connection, settings: Settings
) -> None:
    # What is published lies in partitions of who publishes: on those a new column once failed.
    fill(things, (DAY, "a", "CN-GD", 1))
    transform.mark(settings, [DAY], "test")
    transform.publish(settings, audited(things, settings))
    # In the contract it stands where it belongs; the view of an older instance has no such place.
    columns = (*MART.columns[:2], ("note", "text", "New."), *MART.columns[2:])
    wider = marts.Mart(**{**MART.__dict__, "columns": columns})
    assert marts.synchronise(things, [wider]) == ["added marts.fct_things.note"]
    assert things.execute("select note, region_code from marts.fct_things").fetchall() == [
        (None, "CN-GD")
    ]
    things.execute("select note, region_code from bi.fct_things")
    assert things.execute("select current_user = session_user").fetchone() == (True,)
    retyped = marts.Mart(
        **{**MART.__dict__, "columns": (*MART.columns[:3], ("seconds", "text", "Other."))}
    )
    with pytest.raises(CallhouseError, match=r"seconds is numeric.*migration"):
        marts.synchronise(things, [retyped])


def test_a_new_key_of_a_dimension_is_taken_and_of_a_fact_refused(
    things: psycopg.Connection,
) -> None:
    plain = marts.Mart(**{**MART.__dict__, "name": "dim_things", "is_by_day": False})
    versioned = marts.Mart(
        **{
            **plain.__dict__,
            "columns": (*MART.columns, ("valid_from", "date", "Since when.")),
            "primary_key": ("thing_key", "valid_from"),
        }
    )
    marts.synchronise(things, [MART, plain])
    things.execute("insert into marts.dim_things values ('2026-10-31', 'a', 'CN-GD', 1)")
    assert marts.synchronise(things, [MART, versioned]) == [
        "added marts.dim_things.valid_from",
        "changed the key of marts.dim_things",
    ]
    things.execute(
        "insert into marts.dim_things values ('2026-10-31', 'a', null, null, '1900-01-01'),"
        " ('2026-10-31', 'a', null, null, '2026-01-01')"
    )
    rekeyed = marts.Mart(**{**MART.__dict__, "primary_key": ("business_day", "region_code")})
    with pytest.raises(CallhouseError, match=r"another key.*migration"):
        marts.synchronise(things, [rekeyed, versioned])
    things.rollback()
    things.execute("drop view if exists bi.dim_things; drop table if exists marts.dim_things")
