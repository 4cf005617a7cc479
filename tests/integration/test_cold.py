"""Old days of staging in files: nothing is lost, nothing counted twice, and nobody is forgotten."""

from __future__ import annotations

import gzip
import json
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from psycopg import sql

# A server of its own: what is erased and archived here would be in what other tests look at.
from tests.conftest import published_contents
from tests.integration.test_free_text import delivered, everything, ready, values
from typer.testing import CliRunner

from callhouse import cli, landing, quality, simulate, transform, warehouse
from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.landing import cold, quarantine, store
from callhouse.landing.callers import Cipher, hold_keys
from callhouse.security import callers, erasure, retention
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.transform import dbt

__all__ = ["ready"]  # fixtures

BEFORE = date(2025, 11, 5)  # the sample is of the two days before
TABLES = sorted({record.table for record in registry.records() if record.partitioned})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    simulate.write(
        folder, seed=5, start=date(2025, 11, 3), days=2, calls_per_day=40,
        dirt=True, formats=simulate.FORMATS,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def landed(ready: Settings, folder: Path) -> Settings:
    """Two days of every vendor, published. Each test goes on with what the last one has left."""
    transform.prepare(ready, dbt.quiet)
    for path, feed in delivered(ready, folder).items():
        landing.land(ready, feed, [path])
    assert transform.drain(ready, dbt.quiet).problems == ()
    return ready


@pytest.fixture
def world(landed: Settings) -> Settings:
    cold.restore(landed)
    return landed


def staged(settings: Settings) -> dict[str, list[str]]:
    """Every row of every table of days, as texts."""
    found = {}
    with warehouse.connect(settings) as connection:
        for table in TABLES:
            statement = sql.SQL("select t::text from {} as t order by 1")
            rows = connection.execute(statement.format(store.identifier(table))).fetchall()
            found[table] = [text for (text,) in rows]
    return found


def archive(settings: Settings, before: date = BEFORE) -> list[cold.Moved]:
    moved = cold.archive(settings, before, "operator")
    assert [item.problem for item in moved if item.problem] == []
    return moved


def days(settings: Settings) -> set[date]:
    return {item.business_day for item in cold.archived(settings)}


def drained(settings: Settings) -> None:
    outcome = transform.drain(settings, dbt.quiet)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)


def test_what_fails_between_changes_nothing(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = staged(world)
    written = cold._write

    def killed(path: Path, frame: pl.DataFrame) -> None:
        written(path, frame)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cold, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            cold.archive(world, BEFORE, "operator")
    assert staged(world) == rows
    assert cold.archived(world) == []
    assert list(world.cold.rglob("*.parquet")) != []

    def lossy(path: Path, frame: pl.DataFrame) -> None:
        written(path, frame[1:])

    with monkeypatch.context() as patch:
        patch.setattr(cold, "_write", lossy)
        moved = cold.archive(world, BEFORE, "operator")
    assert {item.problem for item in moved} == {"its rows come back as others"}
    assert staged(world) == rows
    assert list(world.cold.rglob("*.parquet")) == []

    with warehouse.connect(world) as landing_now:
        cold.hold(landing_now)
        monkeypatch.setattr(cold, "PATIENCE", 0.1)
        moved = cold.archive(world, BEFORE, "operator")
        assert {item.problem for item in moved} == {"staging is in use"}
    with warehouse.connect(world) as reading:
        reading.execute("select from staging.delimited_legs limit 1")
        moved = [m for m in cold.archive(world, BEFORE, "operator") if m.problem]
        assert {(m.table, m.problem) for m in moved} == {
            ("delimited_legs", "the table is being read")
        }
    archive(world)
    cold.restore(world)
    assert staged(world) == rows


def test_a_damaged_or_missing_file_changes_nothing(world: Settings) -> None:
    rows = staged(world)
    archive(world)
    item = next(one for one in cold.archived(world) if one.table == "delimited_legs")
    left, path = staged(world), world.cold / item.file
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with warehouse.connect(world) as connection:
        with pytest.raises(CallhouseError, match=r"is not as it was\s+written"):
            cold.restore(world, {item.business_day})
        path.unlink()
        with pytest.raises(CallhouseError, match="cannot be read"):
            cold.thaw(world, connection, [item.business_day])
    # Nor does anyone begin an empty day in its place, or build without it.
    with (
        warehouse.connect(world, autocommit=True) as side,
        pytest.raises(CallhouseError, match="is archived in"),
    ):
        store.Partitions(side, "staging.delimited_legs").ensure([item.business_day])
    before = published_contents(world)
    transform.mark(world, [item.business_day], "again")
    with pytest.raises(CallhouseError, match="cannot be read"):
        transform.drain(world, dbt.quiet)
    assert published_contents(world) == before
    still = {one.table for one in cold.archived(world) if one.business_day == item.business_day}
    assert "delimited_legs" in still
    assert staged(world)["staging.delimited_legs"] == left["staging.delimited_legs"]
    path.write_bytes(content)
    drained(world)
    assert published_contents(world) == before
    cold.restore(world)
    assert staged(world) == rows


def test_only_finished_days_are_archived(world: Settings) -> None:
    dirty, day = date(2025, 11, 3), date(2025, 11, 4)
    with warehouse.connect(world) as connection:
        held = (
            "insert into ops.held_days (business_day, build_id, reason) "
            "select %s, max(build_id), 'looks wrong' from ops.builds"
        )
        connection.execute(held, [day])
    assert {m.business_day for m in archive(world)} & {day} == set()
    cold.restore(world)
    with warehouse.connect(world) as connection:
        connection.execute("delete from ops.held_days")
    transform.mark(world, [dirty], "again")
    assert {m.business_day for m in archive(world)} & {dirty, day} == set()
    assert transform.claim(world) is not None
    assert archive(world) == []  # a build that goes on reads the days around its own
    drained(world)
    assert {m.business_day for m in archive(world)} >= {dirty, day}


def test_everything_built_anew_is_the_same(world: Settings) -> None:
    before, rows = published_contents(world), staged(world)
    audited = quality.audit_published(world)
    assert archive(world)
    again = quality.audit_published(world)
    assert days(world) == set()
    assert again.failing_days == audited.failing_days
    assert {(r.suite, r.expectation, r.is_success, r.observed) for r in again.results} == {
        (r.suite, r.expectation, r.is_success, r.observed) for r in audited.results
    }
    assert archive(world)
    transform.mark(world, None, "again")
    transform.mark_followups(world, None, "again")
    drained(world)
    assert published_contents(world) == before
    assert staged(world) == rows
    assert days(world) == set()


def test_files_of_archived_days_are_known_and_late_rows_come_once(
    world: Settings, folder: Path
) -> None:
    before, rows = published_contents(world), staged(world)
    assert archive(world)
    legs = None
    for path, feed in delivered(world, folder).items():
        [same] = landing.land(world, feed, [path])
        assert (same.status, same.staged) == ("already_landed", 0)
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        again = path.with_name(path.name.removesuffix(".gz"))
        path.unlink()
        again.write_bytes(content + b"\n")
        [result] = landing.land(world, feed, [again])
        assert (result.status, result.staged) == ("landed", 0), (path, result)
        if feed == "sample_hotline" and result.record == "legs" and legs is None:
            legs = again
    assert staged(world) == rows
    drained(world)
    assert published_contents(world) == before

    # A call that comes late for a day in the archive.
    assert archive(world)
    assert legs is not None
    lines = legs.read_text("utf-8").splitlines()
    late = legs.with_name(legs.name.replace(".", "_late.", 1))
    index = next(i for i, line in enumerate(lines) if i and "2025-11-03" in line)
    first = lines[index].split(",")[0]
    late.write_text("\n".join([lines[0], lines[index].replace(first, "late-1")]) + "\n", "utf-8")
    for _ in range(2):
        [result] = landing.land(world, "sample_hotline", [late])
    assert result.status == "already_landed"
    extra = {
        table: sorted(set(now) - set(rows[table])) for table, now in staged(world).items()
        if len(now) != len(rows[table])
    }  # fmt: skip
    assert {table: len(new) for table, new in extra.items()} == {"staging.delimited_legs": 1}
    drained(world)
    after = published_contents(world)
    assert after["fct_calls"][0] == before["fct_calls"][0] + 1
    assert after["fct_agent_states"] == before["fct_agent_states"]
    statuses = dict.fromkeys(
        values(world, "select status from ops.data_status where business_day = '2025-11-03'")
    )
    assert list(statuses) == ["restated"]


def test_an_erasure_and_new_keys_reach_archived_days(world: Settings) -> None:
    with warehouse.connect(world) as connection:
        cipher = Cipher(world, hold_keys(connection).encryption)
        token, content = warehouse.one(
            connection,
            "select k.caller_token, k.content from staging.delimited_legs as c"
            " inner join pii.callers as k using (caller_token) where k.masked like '1%%'"
            " and c.business_day = '2025-11-03' group by 1, 2 order by count(*) desc, 1 limit 1",
        )
    number = cipher.decrypt(content).decode()
    tokens = "select count(distinct caller_token) from staging.delimited_legs"
    callers_before = values(world, tokens)
    assert archive(world)
    leftover = world.cold / "delimited_legs" / "2025-11-01.parquet"
    leftover.write_bytes(b"of a process that was killed")
    done = erasure.erase(world, erasure.by_number(number), "operator", "asks", is_dry=False)
    assert done.erased["staging.delimited_legs (token)"] >= 1
    assert str(token) not in everything(world)
    assert not leftover.exists()
    assert days(world) == set()
    drained(world)

    assert archive(world)
    rotated = callers.rotate(world, "operator", tokens=True, encryption=False)
    assert rotated.moved["staging.delimited_legs"] > 10
    assert values(world, tokens) == callers_before
    versions = (
        "select distinct caller_key_version from staging.delimited_legs "
        "where caller_token is not null order by 1"
    )
    assert values(world, versions) == [0, rotated.token_version]  # 0: the one who was erased


def test_retention_reads_what_it_judges_by(world: Settings) -> None:
    assert archive(world)
    kept = values(world, "select count(*) from pii.callers")
    with warehouse.connect(world) as connection:
        connection.execute("update pii.callers set added_at = now() - interval '3 years'")
    # Kept for longer than the archive was made with.
    world.retention_file.write_text("callers: 5000\nfree_text: 5000\n", "utf-8")
    try:
        outcomes = {o.name: o for o in retention.apply(world, "operator")}
        assert outcomes["callers"].removed < kept[0]
        assert days(world) == set()
        assert cold.archive(world, BEFORE, "operator") == []  # and so they stay
    finally:
        world.retention_file.unlink()
    texts = "select count(*) from staging.amazon_connect_contacts where attributes is not null"
    assert values(world, texts)[0] > 0
    assert archive(world)
    gone = {o.name: o for o in retention.apply(world, "operator")}
    assert gone["free_text"].problem is None
    assert days(world) == set()
    assert values(world, texts) == [0]


def test_young_days_stay_and_the_commands_say_what_they_do(
    world: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.now(UTC).date()
    assert cold.newest_before(world) == today - timedelta(days=365 + 14)
    world.retention_file.write_text("callers: forever\nfree_text: forever\n", "utf-8")
    try:
        assert cold.newest_before(world) == today - timedelta(days=90)
    finally:
        world.retention_file.unlink()
    monkeypatch.setattr(cli, "_settings", lambda: world)

    def call(*arguments: str) -> tuple[int, object]:
        result = CliRunner().invoke(cli.app, ["staging", *arguments, "--json"])
        return result.exit_code, json.loads(result.stdout) if result.stdout else result.exception

    code, problem = call("archive")
    assert (code, isinstance(problem, CallhouseError)) == (1, True)
    code, moved = call("archive", "--before", str(BEFORE))
    assert code == 0
    code, found = call("list")
    assert isinstance(moved, list)
    assert isinstance(found, list)
    assert [(f["table"], f["rows"]) for f in found] == [(m["table"], m["rows"]) for m in moved]
    code, back = call("restore", "--days", "2025-11-03..2025-11-03")
    assert isinstance(back, list)
    assert {m["business_day"] for m in back} == {"2025-11-03"}


def odd_values(settings: Settings) -> None:
    """What a file of texts may confuse, in tables that have a column for it."""
    with warehouse.connect(settings) as connection:
        run = connection.execute
        events = "update staging.asterisk_events set {} where (tableoid, ctid) = (select tableoid,"
        events += " ctid from staging.asterisk_events where data5 is null limit 1)"
        for change in (
            "data5 = ''",
            r"data5 = '\N'",
            r"data5 = '\.'",
            "data5 = E'a\"b,\\r\\n\\t客服😀'",
            "data5 = 'null', wait_seconds = 1.500, talk_seconds = 'NaN', ring_seconds = 1e-20",
            "data5 = ' x ', data_issues = array['a b', null, '', 'q\"\\']",
            "data5 = 'y', data_issues = '{}'",
            "data5 = 'z', login_seconds = 123456789012345678901234567890.5",
            "data5 = 't', event_at = '2025-11-03 23:59:59.999999+08', unit_id = unit_id",
        ):
            assert run(events.format(change).encode()).rowcount == 1
        assert run(
            "update staging.amazon_connect_contacts set attributes = %s "
            "where (tableoid, ctid) = "
                "(select tableoid, ctid from staging.amazon_connect_contacts limit 1)",
            [json.dumps({"a": "q\"'\\\n中", "n": 1.50, "none": None, "": []})],
        ).rowcount == 1  # fmt: skip


def test_what_is_read_back_is_what_was_archived(world: Settings) -> None:
    odd_values(world)
    before, rows, ledger = published_contents(world), staged(world), quarantine.ledger(world)
    assert all(rows[table] for table in TABLES if "carrier" not in table), rows.keys()
    with_rows = {table for table in TABLES if rows[table]}

    would = cold.archive(world, BEFORE, "operator", is_dry=True)
    assert staged(world) == rows
    moved = archive(world)

    assert {f"staging.{item.table}" for item in moved} == with_rows
    assert [(m.table, m.rows) for m in would] == [(m.table, m.rows) for m in moved]
    left = staged(world)
    assert sum(map(len, left.values())) == sum(map(len, rows.values())) - sum(
        item.rows for item in moved
    )
    assert sum(item.rows for item in moved) > 1000
    assert published_contents(world) == before
    assert quarantine.ledger(world) == ledger
    assert transform.pending(world) == 0
    for item in cold.archived(world):
        path = world.cold / item.file
        assert path.read_bytes()[:4] == b"PAR1"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    back = cold.restore(world)
    assert len(back) == len(moved)
    assert staged(world) == rows
    assert cold.archived(world) == []
    assert [path for path in world.cold.rglob("*") if path.is_file()] == []
    # And once more, with the rows of the day that is in the table of archives already.
    again = archive(world)
    assert [(m.table, m.rows) for m in again] == [(m.table, m.rows) for m in moved]
    cold.restore(world, {date(2025, 11, 3)})
    assert days(world) == {item.business_day for item in moved} - {date(2025, 11, 3)}


def test_the_days_are_a_number() -> None:
    def loaded(value: str) -> int | None:
        given = {"CALLHOUSE_HOME": "/nowhere", "CALLHOUSE_STAGING_ARCHIVE_DAYS": value}
        return settings_module.load(given).staging_archive_days

    assert (loaded(""), loaded("never"), loaded("400")) == (None, None, 400)
    for wrong in ("0", "-1", "soon", "４００"):
        with pytest.raises(CallhouseError, match="is no number of days"):
            loaded(wrong)
