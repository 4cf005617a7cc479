"""Rows in quarantine read again: staged as if they had been read with their file, counted once."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from callhouse import cli, landing, simulate, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import quarantine, replay, store
from callhouse.landing.callers import Cipher
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.contract import Batch, Rejected
from callhouse.transform import state

START = date(2026, 10, 31)
SHOP = """
feed: shop
vendor: delimited
label: Shop
time_zone: Asia/Shanghai
records:
  - record: agent_states
    files: ["states*.csv"]
    delimiter: comma
    columns:
      agent_id: agent
      state: {column: state, codes: {ready: ready, talk: talk}}
      started_at: {column: from, format: "%Y-%m-%d %H:%M"}
      ended_at: {column: to, format: "%Y-%m-%d %H:%M"}
  - record: legs
    files: ["*.csv"]
    delimiter: comma
    columns:
      call_id: call
      queue_id: queue
      agent_id: agent
      caller: {column: caller, kind: phone, country: CN}
      outcome: {column: outcome, codes: {answered: answered}}
      arrived_at: {column: arrived, format: "%Y-%m-%d %H:%M"}
      queue_entered_at: {column: arrived, format: "%Y-%m-%d %H:%M"}
      wait_seconds: wait
"""
MENDED = SHOP.replace("{answered: answered}", "{answered: answered, lost: abandoned}").replace(
    "{ready: ready, talk: talk}", "{ready: ready, talk: talk, rest: pause}"
)
HEAD = "call,queue,agent,caller,outcome,arrived,wait\n"


@pytest.fixture(autouse=True)
def empty(cluster: postgres.Cluster, settings: Settings) -> Iterator[None]:
    clear(settings)
    map_shop(settings, SHOP)
    yield
    for file in settings.feeds_directory.glob("*.yaml"):
        file.unlink()


def clear(settings: Settings) -> None:
    """Nothing has landed yet."""
    with warehouse.connect(settings) as connection:
        registry.register(connection, *registry.feeds(settings))
        connection.execute("set role callhouse_owner")
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relnamespace = 'staging'::regnamespace "
            "and relkind in ('r', 'p') and not relispartition"
        ).fetchall()
        names = ", ".join(name for (name,) in tables)
        connection.execute(
            f"truncate {names}, pii.callers, ops.units restart identity cascade".encode()
        )
        connection.execute("delete from ops.dirty_marks")
        connection.execute("update ops.sources set newest_event_at = null")


def map_shop(settings: Settings, mapping: str) -> None:
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / "shop.yaml").write_text(mapping)


def asked(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(statement.encode()).fetchall()


def land(settings: Settings, feed: str, path: Path) -> landing.UnitResult:
    result = landing.land(settings, feed, [path])[0]
    assert result.status == "landed", result.reason
    check_ledger(settings)
    return result


def shop(settings: Settings, folder: Path, name: str, *rows: str) -> landing.UnitResult:
    path = folder / name
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return land(settings, "shop", path)


def again(settings: Settings, **options: Any) -> list[tuple[int, int, int]]:
    """Per unit: staged, duplicates, still unreadable."""
    results = replay.replay(settings, "owner", **options)
    assert [result.problem for result in results if result.problem] == []
    check_ledger(settings)
    return [(result.staged, result.duplicates, result.unreadable) for result in results]


def check_ledger(settings: Settings) -> None:
    """Every row read is in one place, by source, by unit, and by day."""
    assert all(item.is_balanced for item in quarantine.ledger(settings))
    assert asked(settings, "select unit_id from bi.fct_landed_units where missing_rows <> 0") == []
    staged = staged_rows(settings)
    counted: dict[tuple[int, str], int] = {}
    for _, row in staged:
        assert row["unit_id"] > 0
        if "business_day" in row:
            key = (row["unit_id"], row["business_day"])
            counted[key] = counted.get(key, 0) + 1
    days = asked(settings, "select unit_id, business_day::text, staged_rows from ops.unit_days")
    assert {(unit, day): count for unit, day, count in days} == counted
    units = asked(settings, "select sum(staged_rows) from ops.units")
    assert (units[0][0] or 0) == len(staged)


def staged_rows(settings: Settings) -> list[tuple[str, dict[str, Any]]]:
    """Every staged row of every table."""
    tables = {record.table for feed in registry.feeds(settings) for record in records(feed)}
    with warehouse.connect(settings) as connection:
        return [
            (table, row)
            for table in sorted(tables)
            for (row,) in connection.execute(f"select to_jsonb(t) from {table} as t".encode())
        ]


def records(feed: Any) -> list[Any]:
    if feed.vendor == "delimited":
        return [mapping.record for mapping in feed.records]
    return [feed.record_for("Master.csv")]


def picture(settings: Settings) -> dict[str, list[str]]:
    """All that landing leaves behind, except times and what tells when a row came."""
    found = {}
    for table in (
        "staging.asterisk_calls", "staging.amazon_connect_calls", "staging.amazon_connect_links",
        "staging.amazon_connect_agents", "staging.members", "ops.unit_days",
    ):  # fmt: skip
        rows = asked(settings, f"select to_jsonb(t)::text from {table} as t")
        found[table] = sorted(row for (row,) in rows)
    found["units"] = sorted(
        str(row)
        for row in asked(
            settings,
            "select unit_id, name, read_rows, staged_rows, quarantined_rows, duplicate_rows, "
            "header_rows, layout from ops.units",
        )
    )
    newest = "select source, newest_event_at from ops.sources where newest_event_at is not null"
    found["sources"] = [str(row) for row in asked(settings, newest)]
    found["callers"] = sorted(
        str(row) for (row,) in asked(settings, "select caller_token from pii.callers")
    )
    for table, row in staged_rows(settings):
        found.setdefault(table, []).append(json.dumps(row, sort_keys=True))
    return {name: sorted(rows) for name, rows in found.items()}


# ------------------------------------------------------------------------------ any file, any row
@dataclass(frozen=True)
class Stream:
    """Files of one feed, in the order in which they land."""

    feed: str
    name: str
    files: tuple[bytes, ...]


def lines_of(folder: Path, pattern: str) -> list[bytes]:
    """All lines of the files of one kind, in the order of their names."""
    found = []
    for path in sorted(folder.glob(pattern)):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        found += [line.rstrip(b"\n") + b"\n" for line in content.splitlines(keepends=True)]
    return found


def cut(
    lines: list[bytes], header: bytes, luck: random.Random, *, is_shuffled: bool
) -> list[bytes]:
    """Three files of the lines: the middle one lands last, so that calls begin in newer files."""
    if is_shuffled:
        luck.shuffle(lines)
    third = len(lines) // 3
    parts = (lines[:third], lines[2 * third :], lines[third : 2 * third])
    return [header + b"".join(part) for part in parts]


def changed(
    lines: list[bytes], header: bytes, luck: random.Random, column: str, value: str
) -> list[bytes]:
    """Some of the rows with another content under the same key."""
    place = next(csv.reader([header.decode()])).index(column)
    found = []
    for line in luck.sample(lines, max(1, len(lines) // 4)):
        [cells] = csv.reader([line.decode()])
        cells[place] = value
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow(cells)
        found.append(out.getvalue().encode())
    return found


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> list[Stream]:
    """The same two days by every vendor; calls, states and chains go on over midnight."""
    folder = tmp_path_factory.mktemp("world")
    simulate.write(
        folder, seed=11, start=START, days=2, calls_per_day=30, dirt=False,
        formats=simulate.FORMATS,
    )  # fmt: skip
    luck = random.Random(4)
    found = []
    for kind, column, values in (
        ("calls", "acw_s", ("991", "992")), ("agent_states", "reason", ("991", "992")),
        ("agents", "team", ("991", "992")), ("surveys", "queue", ("991", "992")),
        ("schedules", "planned", ("2026-10-30 09:00:00", "2026-10-31 09:00:00")),
    ):  # fmt: skip
        lines = lines_of(folder, f"{kind}*.csv*")
        header, rows = lines[0], [line for line in lines[1:] if line != lines[0]]
        # Corrections land in files of their own, and some of them twice in one file.
        newer = changed(rows, header, luck, column, values[0])
        first, second = rows[: len(rows) // 3], rows[len(rows) // 3 :]
        first += changed(first, header, luck, column, values[1])
        files = [header + b"".join(part) for part in (first, second, newer)]
        found.append(Stream("sample_hotline", kind + "_{}.csv", tuple(files)))
    for kind in ("queue_log", "cdr", "cel"):
        lines = lines_of(folder / kind, "*")
        files = cut(lines, b"", luck, is_shuffled=False)
        found.append(Stream(f"asterisk_{kind}", kind + ".{}", tuple(files)))
    for kind in ("contacts", "agent_events"):
        lines = lines_of(folder / "connect", f"{kind}_*")
        newer = []
        for line in luck.sample(lines, max(1, len(lines) // 4)):
            content = json.loads(line)
            content["LastUpdateTimestamp"] = "2026-11-03T00:00:00Z"
            newer.append(json.dumps(content).encode() + b"\n")
        files = cut([*lines, *(newer if kind == "contacts" else [])], b"", luck, is_shuffled=True)
        found.append(Stream(f"amazon_connect_{kind}", kind + ".{}", tuple(files)))
    assert all(file.count(b"\n") > 1 for stream in found for file in stream.files)
    return found


def spoil(patch: pytest.MonkeyPatch) -> None:
    """Let landing set rows aside at random, as with a mapping that does not know what they say."""
    original = landing.Unit.copy_all

    def copy_all(unit: landing.Unit, batches: Iterator[Batch]) -> None:
        luck = random.Random(unit.file.name)
        lines = unit.file.path.read_bytes().split(b"\n")  # type: ignore[attr-defined]

        def spoiled() -> Iterator[Batch]:
            for batch in batches:
                numbers = batch.rows.get_column("line_number").unique(maintain_order=True).to_list()
                bad = {number for number in numbers if luck.random() < 0.4}
                rejected = [
                    Rejected(number, "unknown_code", "…", None, lines[number - 1])
                    for number in sorted(bad)
                ]
                rows = batch.rows.filter(~batch.rows.get_column("line_number").is_in(list(bad)))
                read = batch.read - batch.rows.height + rows.height + len(bad)
                yield replace(batch, rows=rows, rejected=batch.rejected + rejected, read=read)

        original(unit, spoiled())

    patch.setattr(landing.Unit, "copy_all", copy_all)


@pytest.mark.parametrize("vendor", ["sample", "asterisk", "amazon"])
def test_what_is_replayed_is_as_if_it_had_been_read_with_its_file(
    settings: Settings,
    streams: list[Stream],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    vendor: str,
) -> None:
    """Whatever rows were set aside of whatever files, and in whatever order calls came together."""
    files = []
    for number in range(3):
        for stream in streams:
            if stream.feed.startswith(vendor):
                path = tmp_path / stream.name.format(number)
                path.write_bytes(stream.files[number])
                files.append((stream.feed, path))
    for feed, path in files:
        [result] = landing.land(settings, feed, [path])
        assert (result.status, result.quarantined) == ("landed", 0)
    wanted = picture(settings)
    clear(settings)
    with monkeypatch.context() as patch:
        spoil(patch)
        quarantined = sum(
            landing.land(settings, feed, [path])[0].quarantined for feed, path in files
        )
    check_ledger(settings)
    assert picture(settings) != wanted
    with warehouse.connect(settings) as connection:
        connection.execute("delete from ops.dirty_marks")
    replayed = again(settings)
    assert [sum(counts) for counts in zip(*replayed, strict=True)] == [quarantined, 0, 0]
    assert quarantined > 100
    found = picture(settings)
    for name, rows in wanted.items():
        assert found[name] == rows, name
    closed = "select count(*) from ops.quarantine where replayed_by = 'owner'"
    assert asked(settings, closed) == [(quarantined,)]
    marked = "select distinct reason from ops.dirty_marks"
    assert all(reason.startswith("replayed ") for (reason,) in asked(settings, marked))
    assert again(settings) == []


# ------------------------------------------------------------------------------ one row at a time
def call(number: int, outcome: str = "answered", day: str = "2026-03-02", wait: int = 5) -> str:
    return f"c{number},desk,7,1381234567{number % 10},{outcome},{day} 09:00,{wait}"


def legs(settings: Settings) -> list[tuple[Any, ...]]:
    return asked(
        settings,
        "select call_id, wait_seconds::int, unit_id, line_number, superseded_by "
        "from staging.delimited_legs order by call_id, unit_id, line_number",
    )


def test_a_row_comes_back_with_its_caller_its_day_and_its_ledger(
    settings: Settings, tmp_path: Path
) -> None:
    unit = shop(settings, tmp_path, "a.csv", call(1), call(2, "lost", "2026-03-04"), call(3, "?"))
    assert (unit.read, unit.staged, unit.quarantined) == (3, 1, 2)
    with warehouse.connect(settings) as connection:
        connection.execute("delete from ops.dirty_marks")
    assert again(settings) == [(0, 0, 2)]  # nothing was mended
    map_shop(settings, MENDED)
    assert again(settings, reason="bad_date") == []
    assert again(settings, reason="unknown_code", unit_id=unit.unit_id) == [(1, 0, 1)]
    assert legs(settings) == [("c1", 5, unit.unit_id, 2, None), ("c2", 5, unit.unit_id, 3, None)]
    assert asked(settings, "select business_day::text, reason, unit_id from ops.dirty_marks") == [
        ("2026-03-04", "replayed legs", unit.unit_id)
    ]
    ledger = "select read_rows, staged_rows, quarantined_rows, duplicate_rows, last_day::text "
    assert asked(settings, ledger + "from ops.units") == [(3, 2, 1, 0, "2026-03-04")]
    shown = "select staged_rows, open_rows, replayed_rows, missing_rows from bi.fct_landed_units"
    assert asked(settings, shown) == [(2, 1, 1, 0)]
    assert unit.unit_id is not None
    replayed, still_open = quarantine.show(settings, unit.unit_id)
    assert (replayed.replayed_as, replayed.replayed_by) == ("staged", "owner")
    assert replayed.replayed_at is not None and still_open.replayed_at is None
    # What is staged cannot be discarded as well, and what was discarded is not read again.
    assert quarantine.discard(settings, unit.unit_id, None, "rubbish", "owner") == 1
    with pytest.raises(CallhouseError, match="no open row"):
        quarantine.discard(settings, unit.unit_id, 3, "rubbish", "owner")
    assert again(settings) == []
    [status] = [s for s in state.data_state(settings)["freshness"] if s["source"] == "shop"]
    assert (status["staged"], status["quarantined"], status["replayed"]) == (2, 1, 1)
    # The number of the caller is where numbers are kept, encrypted, and nowhere else.
    [(content,)] = asked(
        settings,
        "select c.content from pii.callers as c inner join staging.delimited_legs as l "
        "on c.caller_token = l.caller_token where l.call_id = 'c2'",
    )
    assert Cipher(settings).decrypt(content) == b"+8613812345672"


def test_a_replayed_row_does_not_supersede_a_newer_correction(
    settings: Settings, tmp_path: Path
) -> None:
    older = shop(settings, tmp_path, "1.csv", call(1, wait=1), call(2, wait=1)).unit_id
    late = shop(
        settings, tmp_path, "2.csv", call(1, "lost", wait=2), call(2, "lost", wait=2)
    ).unit_id
    newer = shop(settings, tmp_path, "3.csv", call(1, wait=3)).unit_id
    assert legs(settings)[0] == ("c1", 1, older, 2, newer)
    map_shop(settings, MENDED)
    assert again(settings) == [(2, 0, 0)]
    assert legs(settings) == [
        ("c1", 1, older, 2, late), ("c1", 2, late, 2, newer), ("c1", 3, newer, 2, None),
        ("c2", 1, older, 3, late), ("c2", 2, late, 3, None),
    ]  # fmt: skip


def test_what_another_file_has_staged_meanwhile_is_a_duplicate(
    settings: Settings, tmp_path: Path
) -> None:
    bad = shop(settings, tmp_path, "1.csv", call(1, "lost"), call(2, "lost"), call(2, "lost"))
    map_shop(settings, MENDED)
    shop(settings, tmp_path, "2.csv", call(1, "lost"))
    with warehouse.connect(settings) as connection:
        connection.execute("delete from ops.dirty_marks")
    assert again(settings, is_dry=True) == [(1, 2, 0)]
    assert asked(settings, "select count(*) from ops.dirty_marks") == [(0,)]
    assert again(settings) == [(1, 2, 0)]
    assert [(row[0], row[2]) for row in legs(settings)] == [("c1", 2), ("c2", 1)]
    assert bad.unit_id is not None
    found = [row.replayed_as for row in quarantine.show(settings, bad.unit_id)]
    assert found == ["duplicate", "staged", "duplicate"]


def test_two_calls_of_a_file_with_one_id_keep_their_order(
    settings: Settings, tmp_path: Path
) -> None:
    shop(settings, tmp_path, "1.csv", call(1, "lost", wait=1), call(1, wait=2), call(1, wait=3))
    correction = shop(settings, tmp_path, "2.csv", call(1, wait=9)).unit_id
    map_shop(settings, MENDED)
    assert again(settings) == [(1, 0, 0)]
    assert [row[:2] + row[4:] for row in legs(settings)] == [
        ("c1", 1, correction), ("c1", 9, None), ("c1~2", 2, None), ("c1~3", 3, None),
    ]  # fmt: skip
    issues = "select call_id, data_issues from staging.delimited_legs where data_issues is not null"
    assert sorted(asked(settings, issues)) == [
        ("c1~2", ["repeated_key"]),
        ("c1~3", ["repeated_key"]),
    ]


def test_a_state_over_midnight_is_read_as_two(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "states.csv"
    path.write_text(
        "agent,state,from,to\n7,ready,2026-03-02 08:00,2026-03-02 09:00\n"
        "7,rest,2026-03-02 23:00,2026-03-03 01:00\n"
    )
    assert land(settings, "shop", path).read == 2
    map_shop(settings, MENDED)
    assert again(settings) == [(1, 0, 0)]
    ledger = "select read_rows, staged_rows, quarantined_rows, first_day::text, last_day::text"
    assert asked(settings, f"{ledger} from ops.units") == [(3, 3, 0, "2026-03-02", "2026-03-03")]


def test_what_was_cut_off_is_never_read_alone(settings: Settings, tmp_path: Path) -> None:
    """Neither by its code, nor where another reason came first, nor as older instances say it."""
    path = tmp_path / "a.csv"
    path.write_text(f"{HEAD}{call(1)}\n{call(2)[:20]}")
    land(settings, "shop", path)
    early = settings.feeds_directory / "asterisk_queue_log.yaml"
    feed = "feed: asterisk_queue_log\nvendor: asterisk\ntime_zone: UTC\n"
    early.write_text(feed + "plausible_days: {to: 2020-01-01}\n")
    log = tmp_path / "queue_log"
    log.write_text(
        "1577836800|c1|q|NONE|ENTERQUEUE||138|1\n1772413201|c2|q|a|CONNECT|5|c2|3\n"
        "1772413202|c2|q|a|COMPLETEAGENT|5|6"
    )
    assert land(settings, "asterisk_queue_log", log).quarantined == 2
    early.write_text(feed)
    codes = "select reason_code from ops.quarantine order by unit_id, line_number"
    assert asked(settings, codes) == [("cut_off",), ("implausible_day",), ("cut_off",)]
    results = replay.replay(settings, "owner")
    assert [(r.tried, r.staged, r.cut_off, r.problem) for r in results] == [
        (0, 0, 1, None), (1, 1, 1, None),
    ]  # fmt: skip
    # As they were kept before: no layout, and a day that could hide that the line was cut.
    with warehouse.connect(settings) as connection:
        connection.execute("update ops.units set layout = null, feed = null")
        connection.execute(
            "update ops.quarantine set reason_code = case unit_id when 1 then 'column_count' "
            "else 'implausible_day' end where replayed_at is null"
        )
    results = replay.replay(settings, "owner")
    assert [(r.tried, r.staged, r.cut_off, r.problem) for r in results] == [
        (0, 0, 1, None), (1, 0, 0, None),
    ]  # fmt: skip
    assert asked(settings, codes)[2] == ("cut_off",)
    check_ledger(settings)


def test_rows_that_cannot_be_tried_say_why_and_stay(settings: Settings, tmp_path: Path) -> None:
    shop(settings, tmp_path, "1.csv", call(1, "lost"))
    shop(settings, tmp_path, "2.csv", call(2, "lost"))

    def problems() -> list[str]:
        results = replay.replay(settings, "owner")
        assert [row[0] for row in legs(settings)] == []
        return [str(result.problem) for result in results]

    (settings.feeds_directory / "shop.yaml").unlink()
    assert problems()[0].startswith("unit 1: no feed 'shop': known are ")
    map_shop(settings, MENDED.replace('files: ["*.csv"]', 'files: ["2.csv"]'))
    with warehouse.connect(settings) as connection:
        connection.execute("update ops.units set layout = null, feed = null where unit_id = 2")
    first, second = problems()
    assert first.startswith("unit 1: 1.csv: no record of feed shop takes a file of this name")
    assert second == (
        "unit 2: 2.csv was landed before the columns of files were kept: "
        "land its lines again under their header"
    )
    map_shop(settings, MENDED.replace("call_id: call", "call_id: number"))
    assert "1.csv line 1 has no column 'number'" in problems()[0]
    map_shop(settings, MENDED)
    with warehouse.connect(settings) as connection:
        connection.execute("update ops.quarantine set content = 'x' || content where unit_id = 1")
    assert "secrets/caller_encryption_key is not the one it was kept with" in problems()[0]
    with warehouse.connect(settings) as connection:
        connection.execute("update ops.units set record = 'offers' where unit_id = 1")
    assert problems()[0] == (
        "unit 1: 1.csv was landed as offers of shop, and shop.yaml reads it as something else now"
    )


def test_rows_of_several_lines_and_without_header(settings: Settings, tmp_path: Path) -> None:
    """A quoted cell keeps its lines, stray quotes swallow no row, and the width is the file's."""
    quoted = SHOP.replace("queue_id: queue", "queue_id: queue\n      priority: caller")
    map_shop(settings, quoted)
    rows = [
        'c1,desk,7,"two\nlines",lost,2026-03-02 09:00,5',
        'c2,"desk,7,1,lost,2026-03-02 09:00,5',
        'c3,desk,7,"1,lost,2026-03-02 09:00,5',
        "c4,desk,7,1,lost,2026-03-02 09:00,5,6",
        "c5,desk,7,1,answered,2026-03-02 09:00,5,",
    ]
    assert shop(settings, tmp_path, "a.csv", *rows).quarantined == 4
    mended = quoted.replace("{answered: answered}", "{answered: answered, lost: abandoned}")
    map_shop(settings, mended.replace("delimiter: comma", "delimiter: comma\n    quote: none", 2))
    assert again(settings) == [(2, 0, 2)]  # as plain characters: neither line of c1 is a row
    assert [row[0] for row in legs(settings)] == ["c2", "c3", "c5"]
    map_shop(settings, mended)
    assert again(settings) == [(1, 0, 1)]
    assert [row[0] for row in legs(settings)] == ["c1", "c2", "c3", "c5"]
    [(priority, line)] = asked(
        settings, "select priority, line_number from staging.delimited_legs where call_id = 'c1'"
    )
    assert (priority, line) == ("two\nlines", 2)


def test_without_a_header_rows_have_the_width_of_their_file(
    settings: Settings, tmp_path: Path
) -> None:
    names = "[call, queue, agent, caller, outcome, arrived, wait]"
    headless = f'files: ["*.csv"]\n    header: false\n    names: {names}'
    map_shop(settings, SHOP.replace('files: ["*.csv"]', headless))
    path = tmp_path / "a.csv"
    rows = [call(1), call(2, "lost"), call(3), call(4)]
    path.write_text("".join(f"{row},more\n" for row in rows) + call(5, "lost") + "\n")
    assert land(settings, "shop", path).quarantined == 2
    map_shop(settings, MENDED)
    assert replay.replay(settings, "owner")[0].problem == (
        "unit 1: a.csv was landed without a header, which shop.yaml now asks for: set "
        "'header: optional', or land its lines again under a header"
    )
    map_shop(settings, MENDED.replace('files: ["*.csv"]', headless))
    assert again(settings) == [(1, 0, 1)]
    assert [row[0] for row in legs(settings)] == ["c1", "c2", "c3", "c4"]


def test_rows_of_another_encoding_are_read_in_theirs(settings: Settings, tmp_path: Path) -> None:
    """In that of their landing, whatever the feed's exports are in since then."""
    path = tmp_path / "a.csv"
    content = HEAD + f"{call(1)}\n" + call(2, "lost").replace("desk", "投诉") + "\n"
    for encoding in ("gb18030", "utf-16"):
        clear(settings)
        map_shop(settings, SHOP.replace('["*.csv"]', f'["*.csv"]\n    encoding: {encoding}'))
        path.write_bytes(content.encode(encoding))
        assert land(settings, "shop", path).quarantined == 1
        map_shop(settings, MENDED)
        assert again(settings) == [(1, 0, 0)]
        assert asked(settings, "select queue_id from staging.delimited_legs order by call_id") == [
            ("desk",), ("投诉",),
        ]  # fmt: skip
    clear(settings)
    path.write_bytes(content.replace("lost", "answered").encode("gb18030") + b"\n" * 9)
    assert land(settings, "shop", path).quarantined == 1
    map_shop(settings, SHOP.replace('["*.csv"]', '["*.csv"]\n    encoding: gb18030'))
    assert again(settings) == [(1, 0, 0)]


def test_a_failure_anywhere_leaves_everything_and_a_retry_gives_the_same(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(
        settings, tmp_path, "1.csv", call(1, wait=1), call(2, "lost"), call(1, "lost"), call(3, "?")
    )
    map_shop(settings, MENDED)
    kept = "select to_jsonb(q)::text from ops.quarantine as q order by line_number"
    before = (picture(settings), asked(settings, kept))
    steps = [
        (store, name) for name in ("copy", "settle", "settle_late", "save_roster", "mark_dirty")
    ]
    for owner, step in (*steps, (replay._Again, "set_aside"), (replay._Again, "_balance")):
        original = getattr(owner, step)

        def fail(*args: Any, _original: Any = original, **options: Any) -> None:
            _original(*args, **options)
            raise RuntimeError("power cut")

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, fail)
            with pytest.raises(RuntimeError, match="power cut"):
                replay.replay(settings, "owner")
        after = picture(settings)
        # Callers are saved ahead of their rows, as in landing.
        assert {**after, "callers": []} == {**before[0], "callers": []}, step
        assert asked(settings, kept) == before[1]
        check_ledger(settings)
    assert again(settings) == [(2, 0, 1)]
    assert [row[:2] for row in legs(settings)] == [("c1", 1), ("c1~2", 5), ("c2", 5)]


def test_the_command_tells_what_became_of_each_unit(settings: Settings, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli, "_settings", lambda: settings)
            return CliRunner().invoke(cli.app, ["quarantine", *arguments])

    shop(settings, tmp_path, "1.csv", call(1), call(2, "lost"))
    map_shop(settings, MENDED)
    dry = run("replay", "--dry-run", "--source", "shop")
    assert dry.exit_code == 0
    assert "1\tshop\t1.csv\t1\t1\t0\t0\t0" in dry.stdout
    assert "shop: read 2 = staged 1 + open 1 + discarded 0 + duplicates 0" in dry.stdout
    assert "nothing is changed: this was a dry run" in dry.stdout
    assert asked(settings, "select count(*) from pii.callers") == [(1,)]
    done = json.loads(run("replay", "--json").stdout)
    assert done["units"][0]["staged"] == 1 and done["ledger"][0]["staged"] == 2
    assert f"replayed by {cli._account()}: staged" in run("show", "1:3").stdout
    assert run("replay").exit_code == 0
    unknown = run("replay", "--source", "shpo")
    assert "nothing of 'shpo' was ever landed" in str(unknown.exception)
    shop(settings, tmp_path, "2.csv", call(3, "?"))
    (settings.feeds_directory / "shop.yaml").unlink()
    lost = run("replay")
    assert lost.exit_code == cli.NEEDS_A_PERSON
    assert "unit 2: no feed 'shop'" in lost.stdout
    with pytest.raises(psycopg.errors.CheckViolation, match="quarantine_replay"):
        asked(
            settings, "update ops.quarantine set replayed_as = null where replayed_by is not null"
        )
