"""Callers' numbers: shown to whom it was granted, under other keys, and gone where erased."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from callhouse import cli, landing, semantic, simulate, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import quarantine, replay
from callhouse.landing.callers import Callers, Cipher, hold_keys
from callhouse.runner import diagnosis, postgres
from callhouse.security import callers, erasure, login_password, people, trail
from callhouse.security.trail import journal
from callhouse.semantic import query
from callhouse.settings import Settings
from callhouse.sources import contract

START, DAYS = date(2026, 10, 5), 2
PEOPLE = (
    people.Person("director", "d", (("all", "*"),)),
    people.Person("lead_gz_a", "l", (("team", "GZ-A"),), level="lead"),
    people.Person("analyst", "a", (("all", "*"),), level="analyst"),
    people.Person("executive", "e", (("all", "*"),), level="executive"),
)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two days, some of their rows damaged."""
    folder = tmp_path_factory.mktemp("sample")
    simulate.write(folder, seed=11, start=START, days=DAYS, calls_per_day=300, dirt=True)
    return folder


@pytest.fixture(scope="module")
def centre(settings: Settings, cluster: postgres.Cluster, sample: Path) -> Settings:
    """The sample, published, and people who look at it."""
    landing.land(settings, "sample_hotline", [sample])
    return published(settings)


def published(settings: Settings) -> Settings:
    transform.prepare(settings, print)
    assert transform.drain(settings, print).problems == ()
    with people.server(settings) as server:
        for person in PEOPLE:
            people.ensure(settings, server, person)
    return settings


def rows(settings: Settings, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(query.encode(), values).fetchall()


def numbers(settings: Settings) -> dict[uuid.UUID, str]:
    """What is kept: token → number."""
    with warehouse.connect(settings) as connection:
        cipher = Cipher(settings, hold_keys(connection).encryption)
        kept = connection.execute("select caller_token, content from pii.callers").fetchall()
    return {token: cipher.decrypt(content).decode() for token, content in kept}


def told(settings: Settings) -> list[dict[str, Any]]:
    """What the journal of this command line holds of numbers that were shown, or not."""
    lines = [
        json.loads(line)
        for file in sorted(journal.directory(settings).glob("callhouse-*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line
    ]
    return [line for line in lines if line["action"] == "reveal"]


# ---------------------------------------------------------------- unmask
@pytest.fixture
def seen(centre: Settings) -> dict[str, uuid.UUID]:
    """A caller of team GZ-A, and one of others only."""
    found = dict(
        rows(
            centre,
            "select bool_or(team_id = 'GZ-A')::text, caller_token from marts.fct_calls "
            "where caller_token is not null group by caller_token order by caller_token",
        )
    )
    return {"own": found["true"], "foreign": found["false"]}


def test_a_number_is_shown_under_a_grant_and_entered_into_the_trail(
    centre: Settings, seen: dict[str, uuid.UUID]
) -> None:
    token = seen["own"]
    before = len(told(centre))
    with pytest.raises(CallhouseError, match="holds no grant"):
        callers.reveal(centre, token, "lead_gz_a", "operator", "call back")
    callers.grant_unmask(centre, "lead_gz_a", HOUR, "operator", "complaint 7", token)
    number = callers.reveal(centre, token, "lead_gz_a", "operator", "asked by 13812345678")
    assert number == numbers(centre)[token]
    # The grant is of this caller alone, and a grant of all shows no more than the login sees.
    with pytest.raises(CallhouseError, match="holds no grant"):
        callers.reveal(centre, seen["foreign"], "lead_gz_a", "operator", "call back")
    callers.grant_unmask(centre, "lead_gz_a", HOUR, "operator", "complaints")
    with pytest.raises(CallhouseError, match="sees no call of it"):
        callers.reveal(centre, seen["foreign"], "lead_gz_a", "operator", "call back")
    with pytest.raises(CallhouseError, match="say why"):
        callers.reveal(centre, token, "lead_gz_a", "operator", " ")
    assert callers.end_unmask(centre, "lead_gz_a", "operator", "answered") == 2
    with pytest.raises(CallhouseError, match="holds no grant"):
        callers.reveal(centre, token, "lead_gz_a", "operator", "call back")
    entries = told(centre)[before:]
    assert [entry["outcome"] for entry in entries] == [
        "refused", "ok", "refused", "refused", "refused",
    ]  # fmt: skip
    assert {entry["person"] for entry in entries} == {"lead_gz_a"}
    for entry in entries:
        text = json.dumps(entry)
        assert number.removeprefix("+86") not in text and "13812345678" not in text
        assert str(token) not in text


def test_levels_without_masks_get_no_number(centre: Settings, seen: dict[str, uuid.UUID]) -> None:
    for name in ("analyst", "executive"):
        with pytest.raises(CallhouseError, match="sees no masks"):
            callers.grant_unmask(centre, name, HOUR, "operator", "curious")
    # A grant that came by another way, or from before the level changed, shows nothing either.
    with warehouse.connect(centre) as connection:
        connection.execute(
            "insert into sec.unmask_grant (person, valid, granted_by, reason) select person, "
            "tstzrange(now(), now() + interval '1 hour'), 'x', 'x' from sec.people "
            "where person in ('analyst', 'executive')"
        )
    with pytest.raises(CallhouseError, match="sees no mask of it"):
        callers.reveal(centre, seen["own"], "analyst", "operator", "curious")
    with pytest.raises(CallhouseError, match="sees no call of it"):
        callers.reveal(centre, seen["own"], "executive", "operator", "curious")
    with pytest.raises(CallhouseError, match="no grant"):
        callers.reveal(centre, seen["own"], "nobody", "operator", "curious")


def test_nothing_is_shown_that_the_trail_cannot_hold(
    centre: Settings, seen: dict[str, uuid.UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    callers.grant_unmask(centre, "director", HOUR, "operator", "complaint")

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(journal, "write", full)
    with pytest.raises(CallhouseError, match="audit trail cannot be written"):
        callers.reveal(centre, seen["own"], "director", "operator", "call back")


def test_grants_are_history_and_short(centre: Settings) -> None:
    callers.grant_unmask(centre, "director", HOUR, "operator", "complaint")
    insert = (
        "insert into sec.unmask_grant (person, valid, granted_by, reason)"
        " values ('director', {}, 'x', {})"
    )
    for statement in (
        "delete from sec.unmask_grant",
        "truncate sec.unmask_grant",
        "update sec.unmask_grant set person = 'lead_gz_a'",
        "update sec.unmask_grant set reason = 'other'",
        "update sec.unmask_grant set valid = tstzrange(lower(valid), upper(valid) + '1 minute')",
        "update sec.unmask_grant set caller_token = gen_random_uuid() where caller_token is null",
        insert.format("tstzrange(now(), now() + interval '25 hours')", "'long'"),
        insert.format("tstzrange(now(), null)", "'for ever'"),
        insert.format("tstzrange(now() - interval '1 hour', now())", "'backdated'"),
        insert.format("tstzrange(now(), now() + interval '1 hour')", "' '"),
    ):
        with warehouse.connect(centre) as connection:
            with pytest.raises(psycopg.Error):
                connection.execute(statement.encode())
            connection.rollback()


@pytest.mark.parametrize("text", ["0h", "25h", "2", "2d", "-1h", "1441m", ""])
def test_a_grant_is_no_longer_than_a_day(text: str) -> None:
    with pytest.raises(CallhouseError, match="up to 24 hours"):
        callers.parse_duration(text)
    assert callers.parse_duration("24h") == timedelta(hours=24)


def test_what_names_a_caller_is_not_noted() -> None:
    arguments = ["callers", "erase", "--number", "13800138000", "--id=bank:77", "--reason", "asks"]
    noted = cli._told(arguments)
    assert noted == ["callers", "erase", "--number", "***", "--id=***", "--reason", "asks"]


# ---------------------------------------------------------------- rotation
def facts(settings: Settings) -> dict[str, Any]:
    """All that is published, without what tokens are: which calls are one caller's is kept."""
    found: dict[str, Any] = {}
    with people.server(settings) as server:
        for (name,) in server.execute("select relation from ops.marts order by 1").fetchall():
            found[name] = [
                line
                for (line,) in server.execute(
                    sql.SQL(
                        "select (to_jsonb(r) - 'caller_token')::text from marts.{} as r order by 1"
                    ).format(sql.Identifier(name))
                )
            ]
        found["callers"] = server.execute(
            "select array_agg(call_key order by call_key) from marts.fct_calls "
            "where caller_token is not null group by caller_token order by 1"
        ).fetchall()
    assert len(found["callers"]) > 100 and found["agg_fcr_daily"] and found["agg_groups_daily"]
    return found


def rebuild(settings: Settings) -> None:
    transform.mark(settings, None, "test")
    transform.mark_followups(settings, None, "test")
    assert transform.drain(settings, print).problems == ()


def plain(file: Path) -> bytes:
    """The content of a file, uncompressed."""
    content = file.read_bytes()
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def again(
    settings: Settings, files: Path, folder: Path, ending: bytes = b"\n"
) -> list[landing.UnitResult]:
    """Land the calls of `files` in files of other content: each one ends with a line more."""
    folder.mkdir()
    for file in files.glob("calls_2*"):
        (folder / file.name.removesuffix(".gz")).write_bytes(plain(file) + ending)
    results = landing.land(settings, "sample_hotline", [folder])
    assert [(r.status, r.record, r.read > 150) for r in results] == [
        ("landed", "legs", True)
    ] * DAYS
    for result in results:
        assert (result.staged, result.duplicates) == (0, result.read - result.quarantined)
    return results


def staged_tokens(settings: Settings) -> set[uuid.UUID]:
    query = (
        "select distinct caller_token from staging.delimited_legs where caller_token is not null"
    )
    return {token for (token,) in rows(settings, query)}


def test_a_killed_rotation_leaves_the_old_state_whole(centre: Settings) -> None:
    before, kept, tokens = facts(centre), numbers(centre), staged_tokens(centre)
    program = (
        "from callhouse import settings; from callhouse.security import callers; "
        "callers.rotate(settings.load(), 'x', tokens=True, encryption=True)"
    )
    environment = {
        **os.environ, **centre.environment, "CALLHOUSE_POSTGRES_HOST": "127.0.0.1",
        "CALLHOUSE_POSTGRES_PORT": str(centre.postgres_port),
    }  # fmt: skip
    with warehouse.connect(centre) as blocker:
        # Everything is moved before the new versions are written down.
        blocker.execute("lock table pii.key_versions in share row exclusive mode")
        process = subprocess.Popen([sys.executable, "-c", program], env=environment)
        waiting = (
            "select pid from pg_stat_activity where wait_event_type = 'Lock' "
            "and query like 'insert into pii.key_versions%%'"
        )
        with people.server(centre) as server:
            server.autocommit = True
            until = time.monotonic() + 60
            while not (found := server.execute(waiting).fetchall()):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
            blocker.rollback()
            there = "select from pg_stat_activity where pid = %s"
            while server.execute(there, found[0]).fetchall():
                assert time.monotonic() < until
                time.sleep(0.1)
    assert (facts(centre), numbers(centre), staged_tokens(centre)) == (before, kept, tokens)
    assert rows(centre, "select max(version) from pii.key_versions") == [(1,)]
    with warehouse.connect(centre) as connection:
        assert hold_keys(connection).token == 1


def test_new_keys_change_no_number_and_the_old_ones_can_go(
    centre: Settings, sample: Path, tmp_path: Path, seen: dict[str, uuid.UUID]
) -> None:
    before, kept, tokens = facts(centre), numbers(centre), staged_tokens(centre)
    token = seen["own"]
    callers.grant_unmask(centre, "director", HOUR, "operator", "complaint", token)
    preserved = rows(centre, "select count(*), md5(string_agg(preview, '')) from ops.quarantine")
    assert preserved[0][0] > 0
    done = callers.rotate(centre, "operator", tokens=True, encryption=True)
    assert (done.token_version, done.encryption_version) == (2, 2)
    assert done.moved["marts.fct_calls"] and done.moved["sec.unmask_grant"] == 2
    for name in ("caller_key", "caller_encryption_key"):
        shutil.move(centre.home / "secrets" / name, tmp_path / name)
    assert facts(centre) == before
    now = numbers(centre)
    assert sorted(now.values()) == sorted(kept.values()) and not set(now) & set(kept)
    assert not staged_tokens(centre) & tokens and len(staged_tokens(centre)) == len(tokens)
    versions = "select distinct caller_key_version from staging.delimited_legs"
    assert set(rows(centre, versions)) == {(2,), (None,)}
    # What was granted is granted still, of the same caller.
    moved = next(new for new, number in now.items() if number == kept[token])
    assert callers.reveal(centre, moved, "director", "operator", "call back") == kept[token]
    with pytest.raises(CallhouseError, match="no grant"):
        callers.reveal(centre, token, "lead_gz_a", "operator", "call back")
    # The same rows are the same rows, and the same callers.
    again(centre, sample, tmp_path / "again")
    assert numbers(centre) == now
    rebuild(centre)
    assert facts(centre) == before
    assert not (centre.home / "secrets" / "caller_key").exists()
    assert rows(centre, "select count(*) from ops.quarantine where content is null") == [(0,)]
    assert quarantine.ledger(centre)[0].is_balanced
    # A second time, only one of them.
    assert callers.rotate(centre, "operator", tokens=False, encryption=True).token_version == 2
    assert numbers(centre) == now
    (centre.home / "secrets" / "caller_key_2").rename(tmp_path / "caller_key_2")
    with pytest.raises(CallhouseError, match="caller_key_2 is missing"):
        callers.rotate(centre, "operator", tokens=True, encryption=False)
    (tmp_path / "caller_key_2").rename(centre.home / "secrets" / "caller_key_2")


def test_no_table_with_tokens_is_forgotten(centre: Settings) -> None:
    with warehouse.connect(centre) as connection:
        found = {table for table, _ in callers.token_tables(connection)}
        columns = connection.execute(
            "select n.nspname || '.' || c.relname from pg_attribute as a "
            "inner join pg_class as c on a.attrelid = c.oid "
            "inner join pg_namespace as n on c.relnamespace = n.oid "
            "where a.attname = 'caller_token' and c.relkind in ('r', 'p') and not c.relispartition"
        ).fetchall()
    assert found == {table for (table,) in columns}
    assert {"pii.callers", "staging.delimited_legs", "staging.asterisk_events", "marts.fct_calls",
            "candidate.fct_calls", "sec.unmask_grant"} <= found  # fmt: skip


# ---------------------------------------------------------------- erasure
@pytest.fixture(scope="module")
def archived(centre: Settings, sample: Path) -> Path:
    """The sample's files as the `land` DAG leaves them, one of them compressed."""
    folder = centre.archive / "sample_hotline"
    folder.mkdir(parents=True)
    old = time.time() - 7 * 86400
    for number, file in enumerate(sorted(f for f in sample.iterdir() if f.is_file())):
        name = file.name.removesuffix(".gz")
        target = folder / (f"{name}.gz" if number % 2 else name)
        target.write_bytes(gzip.compress(plain(file)) if number % 2 else plain(file))
        os.utime(target, (old, old))
    return folder


def busiest(settings: Settings) -> uuid.UUID:
    """A caller with several calls and a mobile number."""
    known = numbers(settings)
    found: list[tuple[uuid.UUID]] = rows(
        settings,
        "select caller_token from marts.fct_calls where caller_token is not null "
        "group by caller_token order by count(*) desc, 1",
    )
    return next(token for (token,) in found if known.get(token, "").startswith("+861"))


def a_call(sample: Path) -> tuple[bytes, bytes]:
    """Header and first row of a file of calls."""
    file = next(f for f in sorted(sample.glob("calls_*")) if f.is_file())
    header, row = plain(file).split(b"\n")[:2]
    return header, row


def dump(settings: Settings, cluster: postgres.Cluster, database: str) -> bytes:
    """All that the superuser's pg_dump writes."""
    found = postgres.find_binaries(settings)
    assert found is not None
    result = subprocess.run(
        [found.directory / "pg_dump", "-h", "127.0.0.1", "-p", str(settings.postgres_port),
         "-U", "postgres", "-d", database],
        env={"PATH": os.environ["PATH"], "PGPASSWORD": cluster.password},
        capture_output=True, check=True,
    )  # fmt: skip
    return result.stdout


def occurrences(
    settings: Settings, cluster: postgres.Cluster, needles: list[bytes]
) -> dict[str, int]:
    """Where one of `needles` is found: databases, every file in the home, decrypted contents."""
    found: dict[str, int] = {}

    def look(place: str, content: bytes) -> None:
        if count := sum(content.lower().count(needle) for needle in needles):
            found[place] = count

    for database in ("callhouse", "superset", "airflow"):
        look(database, dump(settings, cluster, database))
    for file in settings.home.rglob("*"):
        inside = file.relative_to(settings.home).parts
        # The server's own files keep what is not vacuumed; its log is looked at.
        if file.is_file() and (inside[0] != "postgres" or "log" in inside):
            content = file.read_bytes()
            look(str(file), content)
            if content.startswith(b"\x1f\x8b"):
                look(str(file), gzip.decompress(content))
    for data in postgres.data_directories(settings):
        for file in (data / "log").glob("*"):
            look(str(file), file.read_bytes())
    with warehouse.connect(settings) as connection:
        cipher = Cipher(settings, hold_keys(connection).encryption)
        for table in ("pii.callers", "ops.quarantine"):
            kept = f"select content from {table} where content <> ''"
            for (content,) in connection.execute(kept.encode()):
                look(f"{table} decrypted", cipher.decrypt(content))
    return found


def test_an_erased_caller_is_nowhere_and_every_count_stays(
    centre: Settings, cluster: postgres.Cluster, sample: Path, archived: Path, tmp_path: Path
) -> None:
    token = busiest(centre)
    number = numbers(centre)[token]
    national = number.removeprefix("+86")
    needles = [national.encode(), str(token).encode(), token.hex.encode()]
    # Someone has asked for the caller, a reader's statement and Superset's have its token, and a
    # row that could not be read has the number.
    with psycopg.connect(
        centre.dsn("callhouse_pipeline").split(" user=")[0]
        + f" user=director password={login_password(centre, 'director')}"
    ) as own:
        own.execute(f"select count(*) from bi.fct_calls where caller_token = '{token}'".encode())
    with psycopg.connect(centre.dsn("superset", "superset")) as superset:
        superset.execute("create table query (id int, sql text)")
        superset.execute("create table key_value (id int, value bytea)")
        text = f"select 1 from bi.fct_calls where caller_token = '{token}' -- {national}"
        superset.execute("insert into query values (1, %s), (2, 'select 2')", [text])
        superset.execute("insert into key_value values (1, %s), (2, '{}')", [text.encode()])
    header, row = a_call(sample)
    broken = tmp_path / "calls_broken.csv"
    broken.write_bytes(b"\n".join((header, b"one column too many," + row.replace(
        row.split(b",")[header.split(b",").index(b"caller")], national.encode()
    ), row, b"")))  # fmt: skip
    assert landing.land(centre, "sample_hotline", [broken])[0].quarantined == 1
    assert transform.drain(centre, print).problems == ()
    cache = centre.home / "cache" / "data"
    cache.mkdir(parents=True)
    (cache / "answer").write_text(national, encoding="utf-8")
    log = centre.log_directory / "superset.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"asked for {token}\nand {national}\n", encoding="utf-8")
    trail.collect(centre)

    before, kept = facts(centre), numbers(centre)
    metrics = asked(centre)
    there = occurrences(centre, cluster, needles)
    assert {"callhouse", "superset", "pii.callers decrypted", "ops.quarantine decrypted",
            str(log), str(cache / "answer")} <= set(there)  # fmt: skip
    assert any("archive" in place for place in there)
    assert any(place.endswith(".gz") for place in there)

    dry = erasure.erase(
        centre, erasure.by_token(centre, token), "operator", "asks for it", is_dry=True
    )
    assert dry.is_dry_run and dry.erased["pii.callers (the encrypted number and its mask)"] == 1
    assert occurrences(centre, cluster, needles) == there and facts(centre) == before

    done = erasure.erase(
        centre, erasure.by_number(national), "operator", f"{national} asks for it", is_dry=False
    )
    assert occurrences(centre, cluster, needles) == {}
    assert facts(centre) == before and asked(centre) == metrics
    now = numbers(centre)
    assert set(now) == set(kept) - {token}
    # The certificate says where, and the trail has its hash.
    assert done.erased["ops.quarantine (content and preview)"] >= 1
    assert done.erased["database superset, public.query.sql"] == 1
    assert done.erased["database superset, key_value (removed)"] == 1
    assert any(place.startswith("archive/sample_hotline/") for place in done.erased)
    assert {p: n for p, n in dry.erased.items() if "." in p.split(" ")[0]}.items() <= (
        done.erased.items()
    )
    certificate = Path(done.file).read_bytes()
    assert national not in certificate.decode() and "asks for it" in certificate.decode()
    assert Path(done.file).with_suffix(".txt").read_text(encoding="utf-8") == done.text
    trail.collect(centre)
    assert trail.verify(centre).problem is None
    digest = hashlib.sha256(certificate).hexdigest()
    entry = next(e for e in trail.list_entries(centre) if e["action"] == "erase")
    assert entry["object_name"].endswith(f"sha256:{digest}") and entry["person"] == "operator"

    # Nothing brings the caller back, and no call is there twice: the same rows under other names,
    # the archive's own files, under their names and others, quarantine, and all of it built again.
    once_more = again(centre, sample, tmp_path / "once more", b"\n\n")
    calls = sum(result.erased for result in once_more)
    assert calls >= len(calls_of(centre, done)) > 1
    for result in landing.land(centre, "sample_hotline", [archived]):
        assert result.status == "already_landed", result
    marked = again(centre, archived, tmp_path / "marked", b"\n\n\n")
    assert sum(result.erased for result in marked) == calls
    replay.replay(centre, "operator")
    rebuild(centre)
    assert facts(centre) == before and asked(centre) == metrics
    assert numbers(centre) == now
    # What comes by the drop folder is archived without the number.
    inbox = centre.inbox / "sample_hotline"
    inbox.mkdir(parents=True, exist_ok=True)
    new = row.split(b",")
    new[header.split(b",").index(b"call_id")] = b"20261006-999999"
    new[header.split(b",").index(b"caller")] = national.encode()
    arrived = inbox / "calls_2026-10-06_late.csv"
    arrived.write_bytes(b"\n".join((header, b",".join(new), b"")))
    os.utime(arrived, (time.time() - 60, time.time() - 60))
    [result] = landing.land_inbox(centre, "sample_hotline")
    assert (result.staged, result.erased) == (1, 1) and not arrived.exists()
    shutil.rmtree(tmp_path)  # the test's own files
    assert occurrences(centre, cluster, needles) == {}
    assert numbers(centre) == now
    # Other keys change nothing about it.
    callers.rotate(centre, "operator", tokens=True, encryption=True)
    assert len(calls_of(centre, done)) > 1
    with pytest.raises(CallhouseError, match="no caller with that token"):
        erasure.by_token(centre, token)


def asked(settings: Settings) -> list[Any]:
    """Saved metrics about callers and calls, of everything there is."""
    catalogue = semantic.load(settings)
    names = ("calls", "calls_offered", "calls_answered", "repeat_rate", "fcr_24h", "repeat_calls")
    found: list[Any] = []
    for name in names:
        question = query.Question((name,), ("day",), None, None, ())
        found.append(query.ask(settings, catalogue, question, None))
    counted = "select business_day, region_code, count(distinct caller_token) from marts.fct_calls"
    return [*found, rows(settings, f"{counted} group by 1, 2 order by 1, 2")]


def calls_of(settings: Settings, done: erasure.Certificate) -> list[tuple[Any, ...]]:
    return rows(
        settings, "select call_key from marts.fct_calls where caller_token = %s", done.pseudonym
    )


BANK = (
    "AA0101\t{call}\t{customer}\t2\tPS\t9906{day:02d}\t9:07:{customer:02d}\t9:07:59\t1\t0:00:00\t"
    "0:00:00\t0\tAGENT\t9:08:00\t9:09:00\t60\tANN"
)
QUEUE_LOG = """\
1791100000|1791100000.1|support|NONE|ENTERQUEUE||{first}|1
1791100007|1791100000.1|support|SIP/101|CONNECT|7|1791100000.2|3
1791100067|1791100000.1|support|SIP/101|COMPLETECALLER|7|60|1
1791100100|1791100100.1|support|NONE|ENTERQUEUE||{second}|1
1791100109|1791100100.1|support|NONE|ABANDON|1|1|9
"""


@pytest.mark.parametrize(
    ("feed", "name", "content", "who", "cells"),
    [
        (
            "anonymous_bank",
            "bank.txt",
            "\n".join(
                BANK.format(call=call, customer=customer, day=day)
                for call, customer, day in ((7, 7, 7), (8, 7, 8), (7, 9, 9), (9, 0, 7))
            )
            + "\n",
            erasure.Who("id", "7", "anonymous_bank"),
            2,
        ),
        (
            "asterisk_queue_log",
            "queue_log",
            QUEUE_LOG.format(first="13800138111", second="+86 138 0013 8222"),
            erasure.Who("phone", "+8613800138111"),
            1,
        ),
        (
            "asterisk_queue_log",
            "queue_log.1",
            QUEUE_LOG.format(first="13800138333", second="+86 138 0013 8444").replace(
                "17911", "17912"
            ),
            erasure.Who("phone", "+8613800138444"),
            1,
        ),
    ],
    ids=["a short id", "a log", "another spelling"],
)
def test_marks_stand_where_the_caller_stood_and_are_read_as_the_same_rows(
    centre: Settings, tmp_path: Path, feed: str, name: str, content: str, who: erasure.Who,
    cells: int,
) -> None:  # fmt: skip
    path = centre.archive / feed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    [first] = landing.land(centre, feed, [path])
    assert (first.status, first.quarantined) == ("landed", 0)
    with warehouse.connect(centre) as connection:
        keys = hold_keys(connection)
    token = uuid.UUID(bytes=Callers(centre, who.source, None, keys).token(who.kind, who.value))
    table = "delimited_legs" if feed == "anonymous_bank" else "asterisk_events"
    mine = f"select count(*) from staging.{table} where caller_token = %s"
    everything = (
        f"select array_agg(to_jsonb(r) - 'row_hash' - 'caller_token' - 'caller_key_version' "
        f"order by unit_id, line_number) from staging.{table} as r"
    )
    before = rows(centre, everything)
    assert rows(centre, mine, token) == [(cells,)] and numbers(centre)[token] == who.value

    done = erasure.erase(centre, who, "operator", "asks for it", is_dry=False)
    assert done.erased[f"archive/{feed}/{name}"] == cells
    assert rows(centre, mine, done.pseudonym) == [(cells,)] and token not in numbers(centre)
    assert rows(centre, everything) == before
    marked = path.read_text(encoding="utf-8")
    assert marked.count("erased-") == cells
    pattern = re.compile(contract.ERASED_CALLER)
    separator = "\t" if feed == "anonymous_bank" else "|"
    for old, new in zip(content.splitlines(), marked.splitlines(), strict=True):
        differing = [
            (was, now)
            for was, now in zip(old.split(separator), new.split(separator), strict=True)
            if was != now
        ]
        assert all(pattern.fullmatch(now) for _, now in differing) and len(differing) < 2

    # Neither the archive's file nor the first one brings anything, whole or with a line more.
    assert landing.land(centre, feed, [path])[0].status == "already_landed"
    for number, text in enumerate((content, content + "\n", marked + "\n")):
        other = tmp_path / str(number) / name
        other.parent.mkdir()
        other.write_text(text, encoding="utf-8")
        [result] = landing.land(centre, feed, [other])
        assert (result.status, result.staged, result.erased) == ("landed", 0, cells)
    assert rows(centre, everything) == before and token not in numbers(centre)
    again_done = erasure.erase(centre, who, "operator", "asks again", is_dry=False)
    assert not [place for place in again_done.erased if "archive" in place or "staging" in place]


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["before", "after"])
def test_an_erasure_that_was_killed_is_undone_or_finished(
    centre: Settings, monkeypatch: pytest.MonkeyPatch, *, is_forgotten: bool
) -> None:
    """Killed before the database has forgotten, or between that and the files."""
    national = f"1390013900{is_forgotten:d}"
    who = erasure.Who("phone", f"+86{national}")
    path = centre.archive / "asterisk_queue_log" / f"queue_log.{5 + is_forgotten}"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = QUEUE_LOG.format(first=national, second=national).replace(
        "17911", f"1791{3 + is_forgotten}"
    )
    path.write_text(text, encoding="utf-8")
    landing.land(centre, "asterisk_queue_log", [path])

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if is_forgotten:
            patch.setattr(erasure, "_put_in_place", killed)
        else:
            patch.setattr(erasure._Case, "_know", killed)
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(centre, who, "operator", "asks for it", is_dry=False)
    assert path.read_text(encoding="utf-8") == text
    assert (who.value in numbers(centre).values()) is not is_forgotten
    found = diagnosis._erasures(centre)
    assert (found.ok, found.detail) == (False, "1 not finished")
    # Of somebody else.
    erasure.erase(centre, erasure.Who("phone", "+8613900139009"), "operator", "x", is_dry=False)
    assert (national in path.read_text(encoding="utf-8")) is not is_forgotten
    assert diagnosis._erasures(centre).ok
    done = erasure.erase(centre, who, "operator", "asks for it", is_dry=False)
    assert (f"archive/asterisk_queue_log/{path.name}" in done.erased) is not is_forgotten
    assert national not in path.read_text(encoding="utf-8")
    assert landing.land(centre, "asterisk_queue_log", [path])[0].status == "already_landed"


# Last: it takes numbers away that the other tests look for.
def test_callers_whose_number_went_by_retention_move_too(centre: Settings) -> None:
    rebuild(centre)  # what the tests before have landed
    before, gone = facts(centre), sorted(numbers(centre))[:3]
    with warehouse.connect(centre, "postgres") as connection:
        connection.execute("delete from pii.callers where caller_token = any(%s)", [gone])
    # Nobody knows why they are not there: it may be a restored backup.
    with pytest.raises(CallhouseError, match="no caller is kept"):
        callers.rotate(centre, "operator", tokens=True, encryption=False)
    with warehouse.connect(centre, "postgres") as connection:
        connection.execute(
            "insert into ops.retention_runs "
            "(class, ran_at, ran_by, kept_days, kept_from, removed) "
            "values ('callers', now(), 'test', 365, now(), 3)"
        )
        connection.execute(
            "update ops.quarantine set content = '', preview = '' where (unit_id, line_number) "
            "in (select unit_id, line_number from ops.quarantine limit 1)"
        )
    callers.rotate(centre, "operator", tokens=True, encryption=True)
    assert facts(centre) == before
    assert not staged_tokens(centre) & set(gone)
    rebuild(centre)
    assert facts(centre) == before
