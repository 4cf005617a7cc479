"""The audit trail on a real server: what people do is in it once, and nobody can change it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from callhouse import security, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import components, postgres
from callhouse.security import people, trail
from callhouse.security.trail import journal
from callhouse.settings import REPOSITORY, Settings
from callhouse.transform import marts

Superuser = Callable[..., list[tuple[Any, ...]]]
EVERYTHING = (("all", "*"),)


@pytest.fixture(scope="module")
def superuser(settings: Settings, cluster: postgres.Cluster) -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.dsn("postgres"), autocommit=True) as server:
        for name in ("director", "auditor"):
            people.ensure(settings, server, people.Person(name, name, EVERYTHING))
        server.execute("update sec.people set level = 'auditor' where person = 'auditor'")
        yield server


@pytest.fixture
def collected(settings: Settings, superuser: psycopg.Connection) -> int:
    """Everything so far; the number of its last entry."""
    assert trail.collect(settings).problems == ()
    return last(superuser)


def last(superuser: psycopg.Connection) -> int:
    return int(warehouse.one(superuser, "select coalesce(max(entry_id), 0) from trail.entries")[0])


def since(settings: Settings, superuser: psycopg.Connection, entry: int) -> list[dict[str, Any]]:
    """What came after `entry`, the oldest first, but for log-ins that went well."""
    assert trail.collect(settings).problems == ()
    found = [
        e for e in trail.list_entries(settings) if e["entry_id"] > entry and e["action"] != "login"
    ]
    return found[::-1]


def psql(
    settings: Settings, person: str, *arguments: str, password: str | None = None
) -> subprocess.CompletedProcess[str]:
    """psql as `person` would call it, without this project between."""
    found = postgres.find_binaries(settings)
    assert found
    secret = security.login_password(settings, person) if password is None else password
    return subprocess.run(
        [found.directory / "psql", "-X", "-h", "127.0.0.1", "-p", str(settings.postgres_port),
         "-U", person, "-d", "callhouse", *arguments],
        env={**os.environ, "PGPASSWORD": secret}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_query_is_one_entry(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    statement = "select count(*) from bi.data_status where reason = 'call 13800138000'"
    assert psql(settings, "director", "-c", statement).returncode == 0
    (entry,) = since(settings, superuser, collected)
    assert entry["person"] == "director"
    assert (entry["origin"], entry["action"], entry["outcome"]) == ("postgres", "query", "ok")
    assert entry["address"] == "127.0.0.1"
    assert entry["program"] == "psql"
    assert entry["object_name"] == "data_status"
    assert entry["statement"] == statement.replace("13800138000", "#" * 11)
    assert not entry["is_export"]


def test_a_query_with_parameters_is_one_entry(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    password = security.login_password(settings, "director")
    with warehouse.connect_as(settings, "director", password) as connection:
        connection.execute(
            "select * from bi.data_status where reason = %s and business_day = %s",
            ["13800138000", "2026-10-05"],
        )
    (entry,) = since(settings, superuser, collected)
    assert entry["statement"].splitlines() == [
        "select * from bi.data_status where reason = $1 and business_day = $2",
        "-- parameters: $1 = '###########', $2 = '2026-10-05'",
    ]


def test_a_copy_is_one_export(
    settings: Settings, superuser: psycopg.Connection, collected: int, tmp_path: Path
) -> None:
    target = tmp_path / "rows.csv"
    copy = f"\\copy (select * from bi.data_status) to '{target}' csv"
    assert psql(settings, "director", "-c", copy).returncode == 0
    (entry,) = since(settings, superuser, collected)
    assert (entry["person"], entry["action"], entry["is_export"]) == ("director", "export", True)


def test_a_cursor_that_is_left_early_is_in_the_trail(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    password = security.login_password(settings, "director")
    with (
        warehouse.connect_as(settings, "director", password) as connection,
        connection.cursor("some") as cursor,
    ):
        cursor.execute("select generate_series(1, 1000)")
        assert len(cursor.fetchmany(3)) == 3
    texts = [entry["statement"] for entry in since(settings, superuser, collected)]
    assert any("generate_series" in text for text in texts)
    assert any(text.upper().startswith("FETCH") for text in texts)


def test_a_statement_that_is_denied_fails_or_is_cancelled_is_one_entry(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    assert psql(settings, "director", "-c", "select * from ops.units").returncode
    assert psql(settings, "director", "-c", "select 1 / 0").returncode
    slow = "set statement_timeout = 100; select pg_sleep(9)"
    assert psql(settings, "director", "-c", slow).returncode
    write = "create table bi.mine (number integer)"
    assert psql(settings, "director", "-c", write).returncode
    found = since(settings, superuser, collected)
    assert [(e["action"], e["outcome"]) for e in found] == [
        ("denied", "denied"), ("query", "failed"), ("query", "cancelled"), ("denied", "denied"),
    ]  # fmt: skip
    assert found[0]["statement"] == "select * from ops.units"
    assert {e["person"] for e in found} == {"director"}


def test_a_refused_log_in_is_one_entry_without_the_password(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    assert psql(settings, "director", "-c", "select 1", password="gu3ss").returncode
    assert psql(settings, "nobody_here", "-c", "select 1", password="gu3ss").returncode
    found = since(settings, superuser, collected)
    assert [(e["action"], e["person"], e["outcome"]) for e in found] == [
        ("login_failed", "director", "refused"), ("login_failed", "nobody_here", "refused"),
    ]  # fmt: skip
    assert not any("gu3ss" in json.dumps(e, default=str) for e in found)


def test_people_cannot_turn_it_off(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    assert psql(settings, "director", "-c", "set log_min_duration_statement = -1").returncode
    assert psql(
        settings, "director", "-c", "alter role director set log_min_duration_statement = -1"
    ).returncode
    assert [e["outcome"] for e in since(settings, superuser, collected)] == ["denied", "denied"]


def test_collecting_twice_doubles_nothing(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    psql(settings, "director", "-c", "select 41 + 1")
    assert len(since(settings, superuser, collected)) == 1
    now = last(superuser)
    assert set(trail.collect(settings).added.values()) == {0}
    # Even where the positions were lost.
    superuser.execute("delete from trail.positions")
    assert set(trail.collect(settings).added.values()) == {0}
    assert last(superuser) == now


def test_a_command_is_one_entry(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    environment = components.marked_environment(settings)
    for arguments in (["access", "list"], ["psql", "-c", "select 6 * 7 as answer"]):
        subprocess.run(
            [sys.executable, "-m", "callhouse", *arguments],
            env=environment, cwd=REPOSITORY, check=True, capture_output=True,
        )  # fmt: skip
    commands = [e for e in since(settings, superuser, collected) if e["origin"] == "callhouse"]
    assert [(e["statement"], e["outcome"]) for e in commands] == [
        ("./callhouse access list", "ok"),
        ("./callhouse psql -c 'select 6 * 7 as answer'", "started"),
    ]
    assert {e["person"] for e in commands} == {commands[0]["person"]}
    (query,) = [
        e for e in trail.list_entries(settings) if e["statement"] == "select 6 * 7 as answer"
    ]
    assert query["person"] == "callhouse_pipeline"
    assert query["program"] == f"callhouse psql {commands[0]['person']}"


def test_a_line_that_is_cut_off_is_told_and_the_next_is_kept(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    event = {"action": "dashboard", "person": "director", "object_name": "operations"}
    journal.write(settings, "superset", event)
    (file,) = journal.directory(settings).glob("superset-*")
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("ab") as log:
        log.write(b'{"happened_at": "2026-')
    journal.write(settings, "superset", event)
    found = [(e["action"], e["person"]) for e in since(settings, superuser, collected)]
    assert found == [("dashboard", "director"), ("unreadable", None), ("dashboard", "director")]


def test_old_logs_go_when_they_have_been_read(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    folder = journal.directory(settings)
    folder.mkdir(parents=True, exist_ok=True)
    event = b'{"happened_at": "2026-01-01T00:00:00Z", "action": "chart"}\n'
    old, cut = folder / "superset-2026-01-01.jsonl", folder / "superset-2026-01-02.jsonl"
    old.write_bytes(event)
    cut.write_bytes(event + b"{")
    for file in (old, cut):
        os.utime(file, (0, 0))
    assert len(since(settings, superuser, collected)) == 2
    trail.collect(settings)
    assert (old.exists(), cut.exists()) == (False, True)
    cut.unlink()
    assert trail.verify(settings).problem is None


def test_what_people_did_in_airflow_is_taken_once(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    with psycopg.connect(settings.dsn("airflow", "airflow"), autocommit=True) as airflow:
        airflow.execute(
            "create table log (id serial primary key, dttm timestamptz, dag_id text, task_id text,"
            " event text, run_id text, owner text, owner_display_name text, extra text)"
        )
        airflow.execute(
            "create table ab_user (username text, login_count integer, fail_login_count integer,"
            " last_login timestamp)"
        )
        airflow.execute(
            "insert into log (dttm, dag_id, event, owner, owner_display_name, extra) values"
            " (now(), 'land', 'trigger_dag_run', 'admin', 'admin', '{\"conf\": \"13800138000\"}'),"
            " (now(), 'land', 'success', 'data-engineering', null, null)"
        )
        # What is not collected yet must not be pruned.
        assert (trail.oldest_in_airflow(settings),) == airflow.execute(
            "select dttm from log where owner = 'admin'"
        ).fetchone()
        (entry,) = since(settings, superuser, collected)
        assert (entry["person"], entry["action"], entry["object_name"]) == (
            "admin", "trigger_dag_run", "land",
        )  # fmt: skip
        assert "13800138000" not in entry["statement"]
        assert trail.collect(settings).added["airflow"] == 0
        assert trail.oldest_in_airflow(settings) is None
        # Two that failed, one that went well, one that failed.
        for logins, failures, new in ((None, 2, 2), (1, 0, 1), (1, 1, 1), (1, 1, 0)):
            airflow.execute("delete from ab_user")
            airflow.execute("insert into ab_user values ('admin', %s, %s)", [logins, failures])
            assert trail.collect(settings).added["airflow"] == new
        airflow.execute("drop table log, ab_user")


def test_readers_reach_it_by_row_security_alone(
    connection: psycopg.Connection, collected: int
) -> None:
    # What publishing refuses: a relation that readers see without.
    assert marts.unprotected(connection) == []


def test_only_auditors_read_it(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    counts = {}
    for person in ("director", "auditor"):
        with warehouse.connect_as(
            settings, person, security.login_password(settings, person)
        ) as connection:
            counts[person] = warehouse.one(connection, "select count(*) from bi.fct_access_audit")[
                0
            ]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("select * from trail.entries")
    assert counts["director"] == 0
    assert counts["auditor"] >= collected > 0


WRITES = (
    "insert into trail.entries select * from trail.entries",
    "update trail.entries set person = 'somebody else'",
    "delete from trail.entries",
    "truncate trail.entries",
    "drop table trail.entries",
    "alter table trail.entries disable trigger all",
    "select trail.append('x', '{}', '[]')",
    "select trail.read_log('x.json', 0, 10)",
    "set role callhouse_trail_owner",
    "delete from trail.positions",
)


@pytest.mark.parametrize("statement", WRITES)
def test_neither_readers_nor_the_pipeline_write_it(
    settings: Settings, superuser: psycopg.Connection, collected: int, statement: str
) -> None:
    opened = [
        psycopg.connect(
            f"host=127.0.0.1 port={settings.postgres_port} dbname=callhouse", user="auditor",
            password=security.login_password(settings, "auditor"),
            options="-c default_transaction_read_only=off",
        ),
        psycopg.connect(settings.dsn("callhouse_pipeline")),
        psycopg.connect(settings.dsn("callhouse_superset")),
    ]  # fmt: skip
    for connection in opened:
        with connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    if "append" in statement or "read_log" in statement:
        return  # what the collector is for
    with (
        psycopg.connect(settings.dsn(trail.LOGIN)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_the_owner_and_the_superuser_are_refused_too(
    superuser: psycopg.Connection, collected: int
) -> None:
    for setting in ("session_replication_role = origin", "session_replication_role = replica"):
        superuser.execute(f"set {setting}".encode())
        for statement in WRITES[1:4]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed"):
                superuser.execute(statement.encode())
    superuser.execute("reset session_replication_role")


def test_the_collector_reads_no_other_file(settings: Settings, collected: int) -> None:
    with psycopg.connect(settings.dsn(trail.LOGIN), autocommit=True) as connection:
        for name in ("../postgresql.conf", "/etc/passwd", "../x.json", "a/../../x.json"):
            with pytest.raises(psycopg.errors.RaiseException, match="is no log"):
                connection.execute("select trail.read_log(%s, 0, 100)", [name])


@pytest.fixture
def forger(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> Iterator[psycopg.Connection]:
    """A superuser who has switched the guards off; afterwards everything is as it was."""
    for number in range(5):
        psql(settings, "director", "-c", f"select {number} as forged")
        trail.collect(settings)
    assert trail.verify(settings).problem is None
    superuser.execute("create table public.kept as table trail.entries")
    kept = trail.anchor_file(settings).read_bytes()
    superuser.execute("alter table trail.entries disable trigger all")
    yield superuser
    superuser.execute("truncate trail.entries")
    superuser.execute("insert into trail.entries table public.kept")
    superuser.execute("alter table trail.entries enable always trigger entries_are_kept")
    superuser.execute("drop table public.kept")
    trail.anchor_file(settings).write_bytes(kept)
    assert trail.verify(settings).problem is None


@pytest.mark.parametrize(
    "change",
    ["person = 'nobody'", "happened_at = happened_at - interval '1 microsecond'",
     "row_count = 0", "is_export = not is_export", "statement = 'x'", "outcome = 'fine'",
     "address = '10.0.0.1'", "source_position = 'elsewhere'", "recorded_at = now()"],
)  # fmt: skip
def test_verify_finds_a_changed_field(
    settings: Settings, forger: psycopg.Connection, change: str
) -> None:
    entry = last(forger) - 3
    forger.execute(f"update trail.entries set {change} where entry_id = {entry}".encode())
    assert trail.verify(settings).problem == f"entry {entry} was changed after it was written"


def test_verify_finds_a_removed_entry(settings: Settings, forger: psycopg.Connection) -> None:
    entry = last(forger) - 3
    forger.execute("delete from trail.entries where entry_id = %s", [entry])
    problem = trail.verify(settings).problem
    assert problem == f"entry {entry} is missing: the next one is entry {entry + 1}"


def test_verify_finds_a_cut_tail(settings: Settings, forger: psycopg.Connection) -> None:
    entry = last(forger) - 2
    forger.execute("delete from trail.entries where entry_id > %s", [entry])
    problem = trail.verify(settings).problem
    assert problem
    assert problem.startswith(f"entry {entry + 1} is missing: the chain is cut off")
    # The next minute notices it, too, and does not make it good.
    assert "not as it was anchored" in trail.collect(settings).problems[0]
    psql(settings, "director", "-c", "select 'more' as forged")
    trail.collect(settings)
    assert trail.verify(settings).problem


def test_verify_finds_an_entry_that_was_put_in(
    settings: Settings, forger: psycopg.Connection
) -> None:
    entry = last(forger) + 1
    forger.execute(
        "insert into trail.entries select (jsonb_populate_record(e, jsonb_build_object("
        " 'entry_id', entry_id + 1, 'source_position', 'forged'))).*"
        " from trail.entries as e where entry_id = %s",
        [entry - 1],
    )
    problem = trail.verify(settings).problem
    assert problem
    assert problem.startswith(f"entry {entry} does not follow entry {entry - 1}")


def chain_again(forger: psycopg.Connection, entry: int) -> None:
    """What somebody would do who knows how entries are hashed: all from `entry` on, anew."""
    rows = forger.execute(
        "select to_jsonb(e) - 'hash' - 'previous_hash' from trail.entries as e"
        " where entry_id >= %s order by entry_id",
        [entry],
    ).fetchall()
    changed = [row[0] for row in rows]
    changed[0]["person"] = "somebody_else"
    forger.execute("delete from trail.entries where entry_id >= %s", [entry])
    forger.execute("select trail.append('forged', '{}', %s::jsonb)", [json.dumps(changed)])


def test_verify_finds_a_chain_that_was_made_anew(
    settings: Settings, forger: psycopg.Connection
) -> None:
    entry = last(forger) - 3
    chain_again(forger, entry)
    verdict = trail.verify(settings)
    assert verdict.problem
    assert "is not the one that was anchored" in verdict.problem
    assert int(verdict.problem.split()[1]) >= entry
    # Whoever removes the anchors as well needs the copy, which is kept elsewhere.
    copy = settings.home / "copy"
    copy.write_bytes(trail.anchor_file(settings).read_bytes())
    trail.anchor_file(settings).unlink()
    assert "there is no anchor file" in (trail.verify(settings).problem or "")
    assert "is not the one that was anchored" in (trail.verify(settings, copy).problem or "")


def test_the_command_ends_with_3_and_names_the_entry(
    settings: Settings, forger: psycopg.Connection
) -> None:
    def verify() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "callhouse", "audit-trail", "verify"],
            env=components.marked_environment(settings), cwd=REPOSITORY,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    well = verify()
    assert well.returncode == 0
    assert well.stdout.startswith(f"{last(forger)} entries are as they were written")
    entry = last(forger) - 1
    forger.execute("update trail.entries set person = 'x' where entry_id = %s", [entry])
    found = verify()
    assert found.returncode == 3
    assert found.stdout == f"entry {entry} was changed after it was written\n"


WORKER = """
import psycopg, sys
with psycopg.connect(sys.argv[1], password=sys.argv[2], autocommit=True) as connection:
    for number in range(200):
        connection.execute(f"select {number} as number, {sys.argv[3]} as worker")
"""


def test_every_statement_at_once_is_there_once(
    settings: Settings, superuser: psycopg.Connection, collected: int
) -> None:
    """Several people while the trail is collected again and again."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c",
             WORKER, f"host=127.0.0.1 port={settings.postgres_port} dbname=callhouse user=director",
             security.login_password(settings, "director"), str(worker)],
        )
        for worker in range(3)
    ]  # fmt: skip
    while any(process.poll() is None for process in running):
        trail.collect(settings)
        time.sleep(0.05)
    assert [process.returncode for process in running] == [0, 0, 0]
    found = [e["statement"] for e in since(settings, superuser, collected)]
    assert len(found) == 600
    assert len(set(found)) == 600
    assert trail.verify(settings).problem is None


def test_a_log_of_another_zone_is_a_problem_told() -> None:
    from callhouse.security.trail.entries import of_server

    line = {"timestamp": "2026-10-05 09:30:00.123 CST", "user": "director", "error_severity": "LOG",
            "message": "duration: 1.0 ms  statement: select 2"}  # fmt: skip
    with pytest.raises(CallhouseError, match="log_timezone"):
        of_server(json.dumps(line).encode(), "x:0", frozenset())
