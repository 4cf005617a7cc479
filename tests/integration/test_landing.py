"""Landing into a real server: ledger, quarantine, duplicates, superseding, kills, bad files."""

from __future__ import annotations

import datetime
import gzip
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from callhouse import landing, transform, warehouse
from callhouse.landing import store
from callhouse.landing.callers import Cipher
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "delimited" / "anonymous_bank.txt"
LINES = FIXTURE.read_text().splitlines(keepends=True)
BANK = "anonymous_bank"
HOTLINE_HEAD = (
    "call_id,leg,hotline,caller,channel,business_type,arrived,ivr_start,ivr_end,ivr_s,queue,"
    "queue_start,queue_end,wait_s,ring_s,outcome,stage,agent,answered,released,talk_s,hold_s,"
    "acw_s,transfer,hangup_by,ended\n"
)


@pytest.fixture(autouse=True)
def empty(cluster: postgres.Cluster, settings: Settings) -> None:
    """Each test begins without feeds' rows, and drops its partitions (they hold locks)."""
    with warehouse.connect(settings) as connection:
        registry.register(connection, *registry.feeds(settings))
        connection.execute("set role callhouse_owner")
        connection.execute(
            "truncate staging.delimited_legs, staging.delimited_agents, "
            "staging.delimited_queues, staging.delimited_agent_states, staging.delimited_surveys, "
            "staging.delimited_schedules, "
            "staging.members, pii.callers, ops.units cascade"
        )
        connection.execute("delete from ops.dirty_marks")


def bank_file(tmp_path: Path, lines: list[str] | None = None, name: str = "m.txt") -> Path:
    path = tmp_path / name
    path.write_text("".join(LINES if lines is None else lines))
    return path


def land(settings: Settings, *paths: Path, feed: str = BANK) -> landing.UnitResult:
    results = landing.land(settings, feed, paths)
    assert len(results) == len(paths)
    for result in results:
        assert result.read == result.staged + result.quarantined + result.duplicates
    return results[0]


def one(connection: psycopg.Connection, statement: str, *values: object) -> tuple[Any, ...]:
    row = connection.execute(statement.encode(), values or None).fetchone()
    assert row is not None
    return row


def snapshot(connection: psycopg.Connection) -> tuple[tuple[Any, ...], ...]:
    """Everything a landing writes, without ids that count attempts."""
    return (
        one(connection, "select count(*), count(distinct (call_id, leg_number)), "
            "sum(hashtextextended(row(call_id, leg_number, line_number, row_hash, caller_token, "
            "outcome, wait_seconds, talk_seconds, arrived_at, ended_at)::text, 0)) "
            "from staging.delimited_legs"),
        one(connection, "select count(*), sum(line_number) from ops.quarantine"),
        one(connection, "select count(*), sum(read_rows), sum(staged_rows) from ops.units"),
        one(connection, "select count(*), min(business_day) from ops.dirty_marks"),
        one(connection, "select count(*) from pii.callers"),
        one(connection, "select count(*) from staging.members"),
        one(connection, "select sum(staged_rows) from ops.unit_days"),
    )  # fmt: skip


# ------------------------------------------------------------------------------ the good way
def test_a_file_lands_whole(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, float]] = []
    result = landing.land(settings, BANK, [FIXTURE], progress=lambda *values: seen.append(values))[
        0
    ]
    assert (result.status, result.read, result.staged, result.header_rows) == ("landed", 11, 11, 1)
    assert (result.first_day, result.last_day) == (
        datetime.date(1999, 3, 1), datetime.date(1999, 3, 2),
    )  # fmt: skip
    assert seen == [(FIXTURE.name, 11, 1.0)]
    unit = one(
        connection, "select status, read_rows, staged_rows, header_rows, name from ops.units"
    )
    assert unit == ("landed", 11, 11, 1, FIXTURE.name)
    days = connection.execute("select business_day from ops.dirty_marks order by 1").fetchall()
    assert days == [(datetime.date(1999, 3, 1),), (datetime.date(1999, 3, 2),)]
    counts = "select business_day, staged_rows from ops.unit_days order by 1"
    assert connection.execute(counts).fetchall() == [
        (datetime.date(1999, 3, 1), 9), (datetime.date(1999, 3, 2), 2),
    ]  # fmt: skip
    members: dict[str, int] = dict(
        connection.execute("select kind, count(*) from staging.members group by 1")
    )
    assert members == {"agent": 2, "queue": 6, "business_type": 6, "channel": 1, "region": 1}


def test_every_kind_of_value_survives_the_copy(
    settings: Settings, connection: psycopg.Connection
) -> None:
    land(settings, FIXTURE)
    row = one(
        connection,
        "select leg_number, outcome, queue_id, wait_seconds::text, talk_seconds::text, "
        "hold_seconds, business_day, arrived_at, released_at, data_issues, caller_key_version, "
        "length(caller_token::text), priority, line_number from staging.delimited_legs "
        "where call_id like 'AA0101-100-%'",
    )
    at = datetime.datetime(1999, 3, 1, 6, tzinfo=datetime.UTC)
    assert row == (
        1, "answered", "regular", "30", "180", None, at.date(), at,
        at + datetime.timedelta(seconds=220), None, 1, 36, "1", 2,
    )  # fmt: skip
    issues = one(
        connection,
        "select data_issues from staging.delimited_legs where call_id like 'AA0104-106-%'",
    )[0]
    assert issues == ["unknown_code:business_type=AA", "negative:ivr_seconds"]


def test_numbers_and_texts_in_binary_copy(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    def line(call: str, wait: str, queue: str) -> str:
        stamps = "2026-05-01 10:00:00,,"
        return f"{call},1,,,human,,{stamps},,{queue},,,{wait},,abandoned,queue,,,,,,,,customer,\n"

    waits = ["0", "0.125", "9999", "10000", "123456.789", "19999.5", "86400"]
    path = tmp_path / "calls_x.csv"
    path.write_text(
        HOTLINE_HEAD
        + "".join(line(f"c{i}", wait, '"a ""b"", 客服"') for i, wait in enumerate(waits))
    )
    result = land(settings, path, feed="sample_hotline")
    assert (result.staged, result.reason) == (len(waits), None)
    rows = connection.execute(
        "select wait_seconds, queue_id from staging.delimited_legs order by line_number"
    ).fetchall()
    assert [float(wait) for wait, _ in rows] == [float(wait) for wait in waits]
    assert {queue for _, queue in rows} == {'a "b", 客服'}


def test_reference_records_mark_the_days_from_their_validity_on(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    rows = [
        f"c{day},1,,13800138000,human,,2026-05-0{day} 10:00:00,,,,,,,,,abandoned,ivr,,,,,,,,,\n"
        for day in (1, 2, 3)
    ]
    calls = tmp_path / "calls_x.csv"
    calls.write_text(HOTLINE_HEAD + "".join(rows))
    land(settings, calls, feed="sample_hotline")
    region = one(connection, "select distinct caller_region_code from staging.delimited_legs")
    assert region == ("CN-BJ",)
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    agents = tmp_path / "agents.csv"
    head = "agent,name,team,team_name,region,valid_from\n"
    agents.write_text(head + "a1,李,t0,Team,CN-GD,2026-04-01\n")
    land(settings, agents, feed="sample_hotline")
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    agents.write_text(head + "a1,李,t1,Team,CN-GD,2026-05-02\n")
    result = land(settings, agents, feed="sample_hotline")
    assert (result.record, result.staged) == ("agents", 1)
    days = connection.execute("select business_day from ops.dirty_marks order by 1").fetchall()
    assert days == [(datetime.date(2026, 5, 2),), (datetime.date(2026, 5, 3),)]
    # A new version of the same validity supersedes; within a file the last line counts.
    connection.commit()
    agents.write_text(head + "a1,李,t2,Team,CN-GD,2026-05-02\na1,李,t3,Team,CN-GD,2026-05-02\n")
    land(settings, agents, feed="sample_hotline")
    current = "select team_id from staging.delimited_agents where superseded_by is null order by 1"
    assert connection.execute(current).fetchall() == [("t0",), ("t3",)]


def test_partitions_are_daily_attached_and_owned_by_the_owner(
    settings: Settings, connection: psycopg.Connection
) -> None:
    land(settings, FIXTURE)
    owners = connection.execute(
        "select c.relname, pg_get_userbyid(c.relowner) from pg_inherits as i "
        "inner join pg_class as c on i.inhrelid = c.oid "
        "where i.inhparent = 'staging.delimited_legs'::regclass and c.relname like '%1999_03_0%'"
    ).fetchall()
    assert ("delimited_legs_1999_03_01", "callhouse_owner") in owners
    assert {owner for _, owner in owners} == {"callhouse_owner"}


# ------------------------------------------------------------------------------ bad input
def test_bad_rows_go_to_quarantine_and_nothing_else_is_lost(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    lines = list(LINES)
    lines[1] = lines[1].replace("990301", "990231")  # impossible date
    lines[2] = lines[2].replace("AGENT", "ROBOT")  # unknown outcome
    lines[3] = lines[3].rstrip("\n") + "\textra\n"  # one column too many
    lines[4] = lines[4].replace("\t990301", "", 1)  # shifted columns
    lines[-1] = lines[-1][:40]  # truncated last line
    result = land(settings, bank_file(tmp_path, lines))
    assert (result.status, result.read, result.staged, result.quarantined) == ("landed", 11, 6, 5)
    rows = connection.execute(
        "select line_number, reason_code, reason, preview, content from ops.quarantine order by 1"
    ).fetchall()
    assert [(line, code) for line, code, *_ in rows] == [
        (2, "bad_date"), (3, "unknown_code"), (4, "column_count"), (5, "column_count"),
        (12, "cut_off"),
    ]  # fmt: skip
    cipher = Cipher(settings)
    for line, _, reason, preview, content in rows:
        assert reason.startswith(f"m.txt line {line}: ")
        assert not any(character.isdigit() for character in preview)
        assert cipher.decrypt(content).decode() == lines[line - 1].rstrip("\n")


def test_unknown_code_and_negative_duration_stay_in_the_data(
    settings: Settings, connection: psycopg.Connection
) -> None:
    result = land(settings, FIXTURE)
    assert result.quarantined == 0
    issues: dict[str, int] = dict(connection.execute(
        "select issue, count(*) from staging.delimited_legs, unnest(data_issues) as issue "
        "group by 1"
    ).fetchall())  # fmt: skip
    assert issues == {
        "unknown_code:business_type=AA": 1, "negative:ivr_seconds": 1, "unreadable:caller": 1,
        "unanswered:talk_seconds": 2, "disagrees:talk_seconds": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        ("".join(LINES).replace("\t", ";").encode(), ["line 1", "delimiter: semicolon"]),
        ("".join(LINES).replace("q_time", "queue_time").replace("ser_exit", "x").encode(),
         ["line 1", "'q_time'"]),
        ("".join(LINES).replace("NOA", "李").replace("RON", "王").encode("gbk"),
         ["line 2", "utf-8", "gb18030"]),
        (gzip.compress("".join(LINES).encode() * 50, mtime=0)[:-9], ["cut off"]),
        ("".join([LINES[0], *(LINES[1].replace("990301", "99-03-01") for _ in range(25))]).encode(),
         ["none of its 25 rows can be read", "line 2", "%y%m%d"]),
    ],
    ids=["empty", "delimiter", "column", "encoding", "truncated gzip", "date format"],
)  # fmt: skip
def test_a_bad_file_is_refused_and_the_others_land(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path, content: bytes,
    words: list[str],
) -> None:  # fmt: skip
    bad = tmp_path / "bad.txt"
    bad.write_bytes(content)
    refused, landed = landing.land(settings, BANK, [bad, FIXTURE])
    assert (refused.status, landed.status) == ("refused", "landed")
    assert refused.reason is not None and refused.reason.startswith("bad.txt")
    for word in words:
        assert word in refused.reason
    ledger = one(
        connection, "select name, read_rows, reason from ops.units where status = 'refused'"
    )
    assert ledger == ("bad.txt", 0, refused.reason)
    assert one(connection, "select count(*) from staging.delimited_legs") == (11,)
    assert one(connection, "select count(*) from ops.quarantine") == (0,)
    # Once mended, the same name lands.
    bad.write_text("".join([LINES[0], LINES[1].replace("AA0101", "AA0116")]))
    assert land(settings, bad).status == "landed"


def test_a_missing_file_is_refused_and_the_others_land(settings: Settings, tmp_path: Path) -> None:
    refused, landed = landing.land(settings, BANK, [tmp_path / "nowhere.txt", FIXTURE])
    assert (refused.status, landed.status) == ("refused", "landed")
    assert "nowhere.txt" in (refused.reason or "")


def test_extra_columns_are_noted_and_the_rows_land(settings: Settings, tmp_path: Path) -> None:
    lines = [
        line.rstrip("\n") + ("\tmood\n" if i == 0 else "\tgood\n") for i, line in enumerate(LINES)
    ]
    result = land(settings, bank_file(tmp_path, lines))
    assert (result.status, result.staged) == ("landed", 11)
    assert result.notes == ("columns not in the mapping: mood",)


def test_monsters_do_not_kill_the_landing(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    body = "".join(LINES).replace("\n", "\r\n").encode()
    monsters = (
        b"\0" * 4096
        + b"\r\n"
        + b"\t".join([b"9"] * 300)
        + b"\r\n\r\n"
        + b"x" * 10_000_000
        + b"\r\n"
    )
    path = tmp_path / "m.txt"
    path.write_bytes(b"\xef\xbb\xbf" + body + monsters + body)
    result = land(settings, path)
    assert (result.read, result.staged, result.quarantined, result.duplicates) == (25, 11, 3, 11)
    assert result.header_rows == 2
    assert "1 blank lines skipped" in result.notes
    codes = connection.execute("select line_number, reason_code from ops.quarantine order by 1")
    assert codes.fetchall() == [(13, "nul_byte"), (14, "column_count"), (16, "column_count")]


# ------------------------------------------------------------------------------ again and again
def test_the_same_file_twice_is_already_landed(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    land(settings, FIXTURE)
    before = snapshot(connection)
    connection.commit()
    packed = tmp_path / "other-name.txt.gz"
    packed.write_bytes(gzip.compress(FIXTURE.read_bytes()))
    for path in (FIXTURE, packed):
        again = land(settings, path)
        assert (again.status, again.read, again.duplicates) == ("already_landed", 11, 11)
    assert snapshot(connection) == before


def test_the_same_name_with_other_content_is_compared_row_by_row(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    first = land(settings, bank_file(tmp_path, LINES[:8]))
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    # The first seven rows again, one of them corrected, and four new ones.
    lines = list(LINES)
    lines[1] = lines[1].replace("\t180\t", "\t181\t")
    second = land(settings, bank_file(tmp_path, lines))
    assert (second.read, second.staged, second.duplicates) == (11, 5, 6)
    assert second.notes == ("1 earlier rows are superseded by newer versions",)
    current = one(
        connection,
        "select count(*), count(distinct call_id), "
        "max(talk_seconds) filter (where call_id like '%-100-%') "
        "from staging.delimited_legs where superseded_by is null",
    )
    assert current == (11, 11, 181)
    old = one(
        connection,
        "select unit_id, superseded_by from staging.delimited_legs where superseded_by is not null",
    )
    assert old == (first.unit_id, second.unit_id)
    assert one(connection, "select sum(staged_rows) from ops.unit_days") == (12,)


def test_a_correction_that_moves_a_call_over_midnight_marks_both_days(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    def line(day: int) -> str:
        return f"c1,1,,,human,,2026-05-0{day} 10:00:00,,,,,,,,,abandoned,ivr,,,,,,,,,\n"

    path = tmp_path / "calls_x.csv"
    path.write_text(HOTLINE_HEAD + line(4))
    land(settings, path, feed="sample_hotline")
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    path.write_text(HOTLINE_HEAD + line(5))
    land(settings, path, feed="sample_hotline")
    days = connection.execute("select business_day from ops.dirty_marks order by 1").fetchall()
    assert days == [(datetime.date(2026, 5, 4),), (datetime.date(2026, 5, 5),)]
    assert one(
        connection, "select count(*) from staging.delimited_legs where superseded_by is null"
    ) == (1,)


def test_only_duplicates_make_no_day_dirty(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    land(settings, FIXTURE)
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    result = land(settings, bank_file(tmp_path, LINES[:5]))
    assert (result.status, result.staged, result.duplicates) == ("landed", 0, 4)
    assert one(connection, "select count(*) from ops.dirty_marks") == (0,)


@pytest.mark.parametrize("remembered", [landing.MOST_HASHES, 5])
def test_a_key_twice_in_one_file_loses_no_call(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, remembered: int,
) -> None:  # fmt: skip
    """Also in a file with more rows than are remembered: the server finds them."""
    monkeypatch.setattr(landing, "MOST_HASHES", remembered)
    other = LINES[1].replace("\t180\t", "\t99\t")
    result = land(settings, bank_file(tmp_path, [*LINES, other, LINES[1], other]))
    assert (result.read, result.staged, result.duplicates) == (14, 12, 2)
    calls = connection.execute(
        "select call_id, talk_seconds::int, data_issues from staging.delimited_legs "
        "where call_id like 'AA0101-100-%' order by line_number"
    ).fetchall()
    assert calls == [
        ("AA0101-100-990301-8:00:00", 180, None),
        ("AA0101-100-990301-8:00:00~2", 99, ["repeated_key", "disagrees:talk_seconds"][::-1]),
    ]
    # The same rows in another file are still recognised.
    connection.commit()
    again = land(settings, bank_file(tmp_path, [LINES[0], LINES[1], other]))
    assert (again.staged, again.duplicates) == (0, 2)


def test_landing_order_of_separate_files_does_not_matter(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    parts = [bank_file(tmp_path, [LINES[0], *LINES[i : i + 4]], f"{i}.txt") for i in (1, 5, 9)]
    for path in reversed(parts):
        land(settings, path)
    keys = "select array_agg(call_id order by call_id) from staging.delimited_legs"
    backwards = one(connection, keys)
    assert len(backwards[0]) == 11


# ------------------------------------------------------------------------------ kills, company
def test_a_failure_anywhere_leaves_nothing_and_a_retry_gives_the_same(
    settings: Settings, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(settings, FIXTURE)
    wanted = snapshot(connection)
    (callers,) = one(connection, "select count(*) from pii.callers")
    assert callers > 0
    connection.execute("set role callhouse_owner")
    connection.execute(
        "truncate staging.delimited_legs, staging.members, pii.callers, ops.units cascade"
    )
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    for step in ("copy", "settle", "save_callers", "count_days", "mark_dirty"):
        with monkeypatch.context() as patch:
            original = getattr(store, step)

            def fail(*args: Any, _original: Any = original, **options: Any) -> None:
                _original(*args, **options)
                raise RuntimeError("power cut")

            patch.setattr(store, step, fail)
            with pytest.raises(RuntimeError, match="power cut"):
                landing.land(settings, BANK, [FIXTURE])
        assert one(connection, "select count(*) from ops.units") == (0,)
        assert one(connection, "select count(*) from staging.delimited_legs") == (0,)
        # Saved ahead of their rows: never a call whose caller is lost.
        assert one(connection, "select count(*) from pii.callers")[0] <= callers
        connection.commit()
    land(settings, FIXTURE)
    assert snapshot(connection) == wanted


def test_kill_minus_nine_at_random_moments(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    rows = [
        LINES[1 + i % 11].replace("AA01", f"AA{i % 90 + 10}").replace("\t10", f"\t{i}", 1)
        for i in range(40_000)
    ]
    path = bank_file(tmp_path, [LINES[0], *rows])
    land(settings, path)
    wanted = snapshot(connection)
    connection.execute("set role callhouse_owner")
    connection.execute(
        "truncate staging.delimited_legs, staging.members, pii.callers, ops.units cascade"
    )
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path; "
        "from callhouse import landing, settings; s = settings.load(); "
        "print('ready', flush=True); landing.land(s, sys.argv[1], [Path(sys.argv[2])])"
    )
    environment = {
        **os.environ, "CALLHOUSE_HOME": str(settings.home), "CALLHOUSE_POSTGRES_HOST": "127.0.0.1",
        "CALLHOUSE_POSTGRES_PORT": str(settings.postgres_port),
    }  # fmt: skip
    for wait in (0.05, 0.2, 0.4, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-c", program, BANK, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    result = land(settings, path)
    assert result.status in ("landed", "already_landed")
    assert snapshot(connection) == wanted


def test_two_at_once_land_a_file_once(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: land(settings, FIXTURE), range(4)))
    assert sorted(r.status for r in results) == ["already_landed"] * 3 + ["landed"]
    assert one(connection, "select count(*) from staging.delimited_legs") == (11,)


# ------------------------------------------------------------------------------ drop folder
def test_the_drop_folder_is_landed_and_cleared(settings: Settings, tmp_path: Path) -> None:
    folder = settings.inbox / BANK
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.txt").write_bytes(FIXTURE.read_bytes())
    (folder / "bad.txt").write_bytes(b"")
    (folder / "half.txt.part").write_bytes(b"x")
    then = time.time() - 60
    for path in folder.iterdir():
        os.utime(path, (then, then))
    results = {r.name: r.status for r in landing.land_inbox(settings, BANK)}
    assert results == {"good.txt": "landed", "bad.txt": "refused"}
    assert (settings.archive / BANK / "good.txt").exists()
    assert (folder / "refused" / "bad.txt").exists()
    assert [p.name for p in landing.inbox(settings, BANK)] == []
    assert (folder / "half.txt.part").exists()
    # The same name again does not overwrite what is archived.
    (folder / "good.txt").write_text("".join(LINES[:3]))
    os.utime(folder / "good.txt", (then, then))
    landing.land_inbox(settings, BANK)
    assert (settings.archive / BANK / "good.txt.2").exists()


# ------------------------------------------------------------------------------ details of days
STATES_HEAD = "agent,state,reason,call_id,queue,started,ended\n"
NIGHT = "101,talk,,c,q,2026-03-01 23:50:00,2026-03-02 00:10:00\n"
EVENING = "101,ready,,,,2026-03-01 23:40:00,2026-03-01 23:50:00\n"


def states_file(tmp_path: Path, number: int, *lines: str) -> Path:
    path = tmp_path / f"agent_states_{number}.csv"
    path.write_text(STATES_HEAD + "".join(lines))
    return path


def states(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select business_day::text, agent_id, state, "
        "to_char(ended_at at time zone 'Asia/Shanghai', 'HH24:MI'), superseded_by is null "
        "from staging.delimited_agent_states order by 1, started_at, unit_id, line_number"
    ).fetchall()


def test_a_state_over_midnight_is_a_row_of_both_days(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """Read, staged and marked on both; a second copy is a duplicate on both."""
    result = land(settings, states_file(tmp_path, 1, EVENING, NIGHT, NIGHT), feed="sample_hotline")
    assert (result.read, result.staged, result.duplicates) == (5, 3, 2)
    assert states(connection) == [
        ("2026-03-01", "101", "ready", "23:50", True),
        ("2026-03-01", "101", "talk", "00:10", True),
        ("2026-03-02", "101", "talk", "00:10", True),
    ]
    days = connection.execute("select business_day::text from ops.dirty_marks order by 1")
    assert days.fetchall() == [("2026-03-01",), ("2026-03-02",)]
    again = land(settings, states_file(tmp_path, 2, NIGHT), feed="sample_hotline")
    assert (again.read, again.staged, again.duplicates) == (2, 0, 2)
    assert len(states(connection)) == 3


def test_a_corrected_state_leaves_no_piece_behind(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """The correction ends before midnight: the next day loses its piece and is dirty."""
    land(settings, states_file(tmp_path, 1, NIGHT), feed="sample_hotline")
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    land(settings, states_file(tmp_path, 2, NIGHT.replace("03-02 00:10", "03-01 23:55")),
         feed="sample_hotline")  # fmt: skip
    assert states(connection) == [
        ("2026-03-01", "101", "talk", "00:10", False),
        ("2026-03-01", "101", "talk", "23:55", True),
        ("2026-03-02", "101", "talk", "00:10", False),
    ]
    days = connection.execute("select business_day::text from ops.dirty_marks order by 1")
    assert days.fetchall() == [("2026-03-01",), ("2026-03-02",)]


def test_of_two_versions_in_one_file_the_last_counts(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """Also where the first runs over midnight and the last does not; no agent is made up."""
    short = NIGHT.replace("03-02 00:10", "03-01 23:55")
    result = land(settings, states_file(tmp_path, 1, NIGHT, short), feed="sample_hotline")
    assert (result.read, result.staged) == (3, 3)
    assert "the last of each counts" in " ".join(result.notes)
    assert states(connection) == [
        ("2026-03-01", "101", "talk", "00:10", False),
        ("2026-03-01", "101", "talk", "23:55", True),
        ("2026-03-02", "101", "talk", "00:10", False),
    ]


def test_a_late_answer_supersedes_the_open_survey(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """The answer comes with a later file and dirties the day of the call."""
    head = "survey_id,call_id,type,channel,queue,agent,score,arrived,offered,answered\n"
    line = "S1,c,csat,human,q,101,{},2026-03-01 23:50:00,2026-03-02 00:01:00,{}\n"
    for number, fields in enumerate((("", ""), ("4", "2026-03-02 09:00:00")), 1):
        connection.execute("delete from ops.dirty_marks")
        connection.commit()
        path = tmp_path / f"surveys_{number}.csv"
        path.write_text(head + line.format(*fields))
        land(settings, path, feed="sample_hotline")
        days = connection.execute("select business_day::text from ops.dirty_marks").fetchall()
        assert days == [("2026-03-01",)]
        connection.commit()
    found = connection.execute(
        "select score, superseded_by is null from staging.delimited_surveys order by unit_id"
    )
    assert found.fetchall() == [(None, False), (4, True)]


# ------------------------------------------------------------------------------ plans
PLANS_HEAD = "agent,shift,activity,paid,starts,ends,planned\n"
WORK = "101,2026-03-01,work,yes,2026-03-01 09:00:00,2026-03-01 12:00:00,{}\n"
LUNCH = "101,2026-03-01,lunch,no,2026-03-01 12:00:00,2026-03-01 13:00:00,{}\n"
LATE = "101,2026-03-01,work,yes,2026-03-01 22:00:00,2026-03-02 02:00:00,{}\n"
NEXT = "101,2026-03-02,work,yes,2026-03-02 22:00:00,2026-03-02 23:00:00,{}\n"


def plan_file(tmp_path: Path, number: int, *lines: str, planned: str = "") -> Path:
    path = tmp_path / f"schedules_{number}.csv"
    path.write_text(PLANS_HEAD + "".join(line.format(planned) for line in lines))
    return path


def plans(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """What counts: day, shift, activity, start."""
    return connection.execute(
        "select business_day::text, shift_date::text, activity, "
        "to_char(starts_at at time zone 'Asia/Shanghai', 'HH24:MI') "
        "from staging.delimited_schedules where superseded_by is null order by 1, starts_at"
    ).fetchall()


def marked(connection: psycopg.Connection) -> list[str]:
    """The marks since the last call."""
    rows = connection.execute("delete from ops.dirty_marks returning business_day::text")
    days = sorted(day for (day,) in rows)
    connection.commit()
    return days


def test_a_plan_that_is_sent_again_takes_the_place_of_the_old_one_as_a_whole(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """The unchanged lunch stays, the evening is gone, on both of its days; the next shift stays."""
    first = plan_file(tmp_path, 1, WORK, LUNCH, LATE, NEXT)
    assert land(settings, first, feed="sample_hotline").staged == 5
    assert marked(connection) == ["2026-03-01", "2026-03-02"]
    assert plans(connection) == [
        ("2026-03-01", "2026-03-01", "work", "09:00"),
        ("2026-03-01", "2026-03-01", "lunch", "12:00"),
        ("2026-03-01", "2026-03-01", "work", "22:00"),
        ("2026-03-02", "2026-03-01", "work", "22:00"),
        ("2026-03-02", "2026-03-02", "work", "22:00"),
    ]
    changed = WORK.replace("09:00", "10:00")
    result = land(settings, plan_file(tmp_path, 2, changed, LUNCH), feed="sample_hotline")
    assert (result.staged, result.duplicates) == (2, 0)
    assert "4 earlier rows are superseded" in " ".join(result.notes)
    assert marked(connection) == ["2026-03-01", "2026-03-02"]
    counting = [
        ("2026-03-01", "2026-03-01", "work", "10:00"),
        ("2026-03-01", "2026-03-01", "lunch", "12:00"),
        ("2026-03-02", "2026-03-02", "work", "22:00"),
    ]
    assert plans(connection) == counting
    # The plan that counts once more, beside a new one: its rows are duplicates.
    other = NEXT.replace("101,", "102,")
    result = land(settings, plan_file(tmp_path, 3, LUNCH, changed, other), feed="sample_hotline")
    assert (result.staged, result.duplicates) == (1, 2)
    assert marked(connection) == ["2026-03-02"]
    # The first plan once more is a decision, not a repetition.
    result = land(settings, plan_file(tmp_path, 4, WORK, LUNCH, LATE), feed="sample_hotline")
    assert (result.staged, result.duplicates) == (4, 0)
    assert [row[3] for row in plans(connection)] == ["09:00", "12:00", "22:00"] + ["22:00"] * 3


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_newest_version_of_a_plan_counts_whatever_comes_first(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path, order: tuple[int, int]
) -> None:
    """The version is the plan's own word; files may come in any order."""
    files = {
        1: plan_file(tmp_path, 1, WORK, LATE, planned="2026-02-01 12:00:00"),
        2: plan_file(tmp_path, 2, LUNCH, planned="2026-02-28 12:00:00"),
    }
    for number in order:
        land(settings, files[number], feed="sample_hotline")
    assert plans(connection) == [("2026-03-01", "2026-03-01", "lunch", "12:00")]


def test_a_version_of_a_plan_may_come_in_several_files(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """A row that is there already is a duplicate; the older version counts in none of its parts."""
    february, march = "2026-02-01 12:00:00", "2026-03-01 01:00:00"
    land(settings, plan_file(tmp_path, 1, WORK, planned=march), feed="sample_hotline")
    land(settings, plan_file(tmp_path, 2, WORK, LATE, planned=february), feed="sample_hotline")
    result = land(settings, plan_file(tmp_path, 3, WORK, LUNCH, planned=march),
                  feed="sample_hotline")  # fmt: skip
    assert (result.staged, result.duplicates) == (1, 1)
    assert [row[2:] for row in plans(connection)] == [("work", "09:00"), ("lunch", "12:00")]


def test_two_versions_of_a_plan_in_one_file(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """Both are staged, the newer one counts."""
    lines = WORK.format("2026-02-01 12:00:00"), LUNCH.format("2026-02-02 12:00:00")
    result = land(settings, plan_file(tmp_path, 1, *lines), feed="sample_hotline")
    assert (result.read, result.staged) == (2, 2)
    assert plans(connection) == [("2026-03-01", "2026-03-01", "lunch", "12:00")]


def test_days_to_come_wait_until_they_have_begun(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """They are planned and marked; what is told of days to be built, and of the newest day, is not
    of them."""
    later = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=40)
    line = NEXT.replace("2026-03-02", later.isoformat())
    result = land(settings, plan_file(tmp_path, 1, WORK, line), feed="sample_hotline")
    assert (result.staged, result.quarantined) == (2, 0)
    due = "select business_day::text from ops.due_marks order by 1"
    assert connection.execute(due).fetchall() == [("2026-03-01",)]
    assert one(connection, "select newest_day from ops.source_ledger where source = %s",
               "sample_hotline") == (None,)  # fmt: skip
    connection.execute("delete from ops.dirty_marks where business_day = '2026-03-01'")
    connection.commit()
    assert transform.pending(settings) == 0
    assert transform.claim(settings) is None
    assert one(connection, "select count(*) from ops.data_status where business_day = %s",
               later) == (0,)  # fmt: skip
    connection.commit()
    assert marked(connection) == [later.isoformat()]


def test_a_roster_changes_days_on_which_agents_only_waited(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """A day without a call has states all the same, and they belong to a team."""
    land(settings, states_file(tmp_path, 1, EVENING), feed="sample_hotline")
    connection.execute("delete from ops.dirty_marks")
    connection.commit()
    roster = tmp_path / "agents.csv"
    roster.write_text("agent,name,team,team_name,region,valid_from\n101,Lin,t,T,CN-GD,2026-01-01\n")
    land(settings, roster, feed="sample_hotline")
    days = connection.execute("select business_day::text from ops.dirty_marks").fetchall()
    assert days == [("2026-03-01",)]


def test_the_first_line_of_an_agent_changes_earlier_days_too(
    settings: Settings, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """It describes the agent from ever on; a later line only from its own day on."""
    land(settings, states_file(tmp_path, 1, EVENING), feed="sample_hotline")
    roster = tmp_path / "agents.csv"
    head = "agent,name,team,team_name,region,valid_from\n"
    for line, wanted in (
        ("101,Lin,t,T,CN-GD,2026-04-01\n", [("2026-03-01",)]),
        ("101,Lin,u,U,CN-GD,2026-04-02\n", []),
        ("101,Lin,v,V,CN-GD,2026-03-31\n", [("2026-03-01",)]),
    ):
        connection.execute("delete from ops.dirty_marks")
        connection.commit()
        roster.write_text(head + line)
        land(settings, roster, feed="sample_hotline")
        days = connection.execute("select business_day::text from ops.dirty_marks").fetchall()
        assert days == wanted, line
        connection.commit()
