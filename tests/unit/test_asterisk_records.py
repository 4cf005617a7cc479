"""Call detail records and channel events to typed rows, and the YAML of their feeds."""

from __future__ import annotations

import datetime
import gzip
import zoneinfo
from pathlib import Path
from typing import Any

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.asterisk import mapping
from callhouse.sources.asterisk.exchange import CDR_LAYOUTS, Feed
from callhouse.sources.contract import Rejected

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "asterisk"
NUMBERS = ("13800138000", "13800138001", "13800138002", "13800138003", "13900139000",
           "13700137000", "13600136000", "13500135000", "139 0013 9000", "Wang")  # fmt: skip
CDR_LINE = (
    '"","13800138000","600","from-trunk","","PJSIP/trunk-0000000a","","Background","menu",'
    '"{start}",{answer},"{end}",{duration},{billsec},"{disposition}","DOCUMENTATION",'
    '"{unique}","","","{unique}",7'
)
USUAL: dict[str, object] = {
    "start": "2025-06-03 08:00:00", "answer": '"2025-06-03 08:00:01"', "end": "2025-06-03 08:00:41",
    "duration": 41, "billsec": 40, "disposition": "ANSWERED", "unique": "1748908800.10",
}  # fmt: skip
CEL_LINE = (
    '"{event}","{time}","","13800138000","","","","s","from-trunk","{channel}","","",'
    '"DOCUMENTATION","","{unique}","{unique}","","","",""'
)
EVENT: dict[str, object] = {
    "event": "CHAN_START", "time": "1748908800.000100", "channel": "PJSIP/trunk-0000000a",
    "unique": "1748908800.10",
}  # fmt: skip


def feed(tmp_path: Path, kind: str, *more: str, zone: str = "Asia/Shanghai") -> Feed:
    """A feed of an exchange of its own."""
    path = tmp_path / f"{kind}.yaml"
    lines = [f"feed: {kind}", "vendor: asterisk", f"records: {kind}", f"time_zone: {zone}"]
    if not any(line.startswith("hotlines") for line in more):
        lines.append('hotlines: "400[0-9]{7}"')
    path.write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")
    loaded = mapping.load(path)
    assert isinstance(loaded, Feed)
    return loaded


def read(own: Feed, path: Path) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """(rows, rejected) of a file."""
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    with own.open(path) as file:
        seen = file.inspect()
        for batch in file.batches(seen):
            assert batch.read == batch.rows.height + len(batch.rejected)
            rows += batch.rows.to_dicts()
            rejected += batch.rejected
        assert file.is_unchanged(seen)
    return rows, rejected


def of(own: Feed, tmp_path: Path, *lines: str) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """(rows, rejected) of lines."""
    path = tmp_path / "Master.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read(own, path)


def instant(text: str) -> int:
    """Microseconds since 1970 of a time with offset."""
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1_000_000)


# ------------------------------------------------------------------------------ call details
def test_records_as_cdr_csv_writes_them(tmp_path: Path) -> None:
    rows, rejected = read(feed(tmp_path, "cdr"), FIXTURES / "cdr_master.csv")
    assert rejected == []
    assert [row["direction"] for row in rows] == [
        "inbound", "inbound", "inbound", "inbound", "outbound", "internal", "callback", "inbound",
    ]  # fmt: skip
    assert [row["caller"] for row in rows] == [
        "13800138000", "13800138001", "13800138002", "13800138002", "13700137000", None,
        "13600136000", None,
    ]  # fmt: skip
    assert [row["agent_id"] for row in rows] == [
        None, "PJSIP/1001", "PJSIP/1001", "PJSIP/1002", "PJSIP/1001", "PJSIP/1001", "PJSIP/1003",
        None,
    ]  # fmt: skip
    first, queue, _, busy, _, _, callback, external = rows
    assert first["call_id"] == first["unique_id"] == "1748908800.10"
    assert first["hotline_id"] == first["destination"] == "4000000001"
    assert first["event_at"] == first["began_at"] == instant("2025-06-03T08:00:00+08:00")
    assert first["answered_at"] == instant("2025-06-03T08:00:01+08:00")
    assert first["ended_at"] == instant("2025-06-03T08:00:41+08:00")
    assert (first["duration_seconds"], first["billed_seconds"], first["sequence"]) == (41, 40, 1)
    assert (first["disposition"], first["application_kind"]) == ("ANSWERED", "menu")
    assert first["business_day"] == datetime.date(2025, 6, 3)
    assert queue["call_id"] == "pbx-1748908860.11"
    assert queue["application_data"] == "support,t,,,60"
    assert queue["user_field"] == "order ###########"
    assert (busy["account_code"], busy["answered_at"]) == ("shop###########", None)
    assert callback["hotline_id"] == "4000000001"
    assert external["channel"] == "SIP/###########-00000016"
    assert external["peer_channel"] == "SIP/###########-00000017"
    # 08:09:00 to 08:10:10 are 70 seconds: the reported 90 stays, and the contradiction is told.
    assert external["duration_seconds"] == 90
    assert [row["data_issues"] for row in rows] == [None] * 7 + ["disagrees:duration_seconds"]


@pytest.mark.parametrize("kind", ["cdr", "cel"])
def test_no_number_is_left_in_clear(tmp_path: Path, kind: str) -> None:
    rows, _ = read(feed(tmp_path, kind), FIXTURES / f"{kind}_master.csv")
    assert len(rows) >= 8
    for row in rows:
        row.pop("caller")  # landing puts the token in its place
        assert [number for number in NUMBERS if number in repr(row)] == []


@pytest.mark.parametrize("layout", CDR_LAYOUTS, ids=len)
def test_the_layouts_of_cdr_csv(tmp_path: Path, layout: tuple[str, ...]) -> None:
    cells = CDR_LINE.format(**USUAL).split(",")
    columns = dict(zip(CDR_LAYOUTS[-1], cells, strict=True))
    rows, rejected = of(feed(tmp_path, "cdr"), tmp_path, ",".join(columns[name] for name in layout))
    if {"uniqueid", "linkedid"} & set(layout):
        assert [row["call_id"] for row in rows] == ["1748908800.10"]
        assert rows[0]["sequence"] == (7 if "sequence" in layout else None)
    else:
        assert [item.code for item in rejected] == ["no_call_id"]
        assert "newcdrcolumns=yes" in rejected[0].reason


def test_columns_of_one_s_own(tmp_path: Path) -> None:
    own = feed(
        tmp_path, "cdr", "columns: [start, '-', disposition, channel, linkedid, src, duration]"
    )
    line = '"1748908800.5","x","no_answer","SIP/a-1","1748908800.9","13800138000","7"'
    rows, rejected = of(own, tmp_path, line)
    assert rejected == []
    assert rows[0]["event_at"] == 1_748_908_800_500_000
    assert (rows[0]["disposition"], rows[0]["ended_at"]) == ("NO ANSWER", None)
    assert rows[0]["duration_seconds"] == 7


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"start": "yesterday"}, "unreadable_time"),
        ({"start": "2025-02-31 08:00:00"}, "unreadable_time"),
        ({"end": "ANSWERED"}, "unreadable_time"),
        ({"answer": '"soon"'}, "unreadable_time"),
        ({"duration": '"ANSWERED"'}, "unreadable_number"),
        ({"billsec": '"x"'}, "unreadable_number"),
        ({"unique": ""}, "no_call_id"),
        ({"unique": "13800138000"}, "unreadable_id"),
        ({"start": "1970-01-02 08:00:00"}, "implausible_day"),
        ({"disposition": 'ANSWERED","more'}, "column_count"),
        ({"disposition": 'ANSWERED""'}, None),
        ({"disposition": 'ANSWERED" "'}, None),
    ],
)
def test_what_is_no_record(tmp_path: Path, change: dict[str, object], code: str | None) -> None:
    good = CDR_LINE.format(**USUAL)
    rows, rejected = of(
        feed(tmp_path, "cdr"), tmp_path, good, CDR_LINE.format(**{**USUAL, **change}), good
    )
    assert [item.code for item in rejected] == ([code] if code else [])
    assert len(rows) == (2 if code else 3)
    if code is None:
        assert rows[1]["data_issues"] == "unknown_code:disposition"
        assert rows[1]["disposition"] is None


def test_damaged_lines_do_not_take_others_along(tmp_path: Path) -> None:
    path = tmp_path / "Master.csv.gz"
    good = CDR_LINE.format(**USUAL).encode()
    lines = [good, b"", good.replace(b'"menu"', b'"menu'), good.replace(b"menu", b"me\0nu"), good]
    # The file ends within its last number: with the whole file it would be another record.
    path.write_bytes(gzip.compress(b"\r\n".join([*lines, good])))
    rows, rejected = read(feed(tmp_path, "cdr"), path)
    assert [(item.line_number, item.code) for item in rejected] == [
        (3, "open_quote"), (4, "nul_byte"), (6, "cut_off"),
    ]  # fmt: skip
    assert [row["line_number"] for row in rows] == [1, 5]
    assert rows[0]["row_hash"] == rows[1]["row_hash"]


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        ({"duration": 44}, "disagrees:duration_seconds"),
        ({"duration": 43}, None),
        ({"billsec": 43}, "disagrees:billed_seconds"),
        ({"billsec": 38}, None),
        ({"duration": -41}, "negative:duration_seconds"),
        ({"billsec": -1}, "negative:billed_seconds"),
    ],
)
def test_durations_against_times(
    tmp_path: Path, change: dict[str, object], issue: str | None
) -> None:
    rows, rejected = of(feed(tmp_path, "cdr"), tmp_path, CDR_LINE.format(**{**USUAL, **change}))
    assert rejected == []
    assert rows[0]["data_issues"] == issue


def test_times_in_utc(tmp_path: Path) -> None:
    rows, _ = of(feed(tmp_path, "cdr", "times: utc"), tmp_path, CDR_LINE.format(**USUAL))
    assert rows[0]["event_at"] == instant("2025-06-03T08:00:00+00:00")
    assert rows[0]["business_day"] == datetime.date(2025, 6, 3)


def test_the_hour_that_happens_twice(tmp_path: Path) -> None:
    """02:30 comes twice; the channel's id and the durations tell which one is meant."""
    berlin = feed(tmp_path, "cdr", zone="Europe/Berlin")
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    second = datetime.datetime(2025, 10, 26, 2, 30, tzinfo=zone).replace(fold=1)
    late = {
        "start": "2025-10-26 02:30:00", "answer": '"2025-10-26 02:30:05"',
        "end": "2025-10-26 02:31:00", "duration": 60, "billsec": 55,
        "unique": f"{round(second.timestamp())}.1",
    }  # fmt: skip
    # From the first 02:50 until the second 02:10: twenty minutes.
    across = {
        "start": "2025-10-26 02:50:00", "answer": '"2025-10-26 02:50:10"',
        "end": "2025-10-26 02:10:00", "duration": 1200, "billsec": 1190,
        "unique": f"{round(second.timestamp()) - 2400}.2",
    }  # fmt: skip
    nobody = {**late, "unique": "room.7"}
    rows, rejected = of(
        berlin, tmp_path, *(CDR_LINE.format(**{**USUAL, **own}) for own in (late, across, nobody))
    )
    assert rejected == []
    assert rows[0]["event_at"] == instant("2025-10-26T02:30:00+01:00")
    assert rows[0]["answered_at"] == instant("2025-10-26T02:30:05+01:00")
    assert rows[0]["ended_at"] == instant("2025-10-26T02:31:00+01:00")
    assert rows[1]["event_at"] == instant("2025-10-26T02:50:00+02:00")
    assert rows[1]["ended_at"] == instant("2025-10-26T02:10:00+01:00")
    assert rows[2]["event_at"] == instant("2025-10-26T02:30:00+02:00")
    assert [row["data_issues"] for row in rows] == [None, None, "ambiguous_time:event_at"]


# ------------------------------------------------------------------------------ channel events
def test_events_as_cel_custom_writes_them(tmp_path: Path) -> None:
    own = feed(tmp_path, "cel", 'agent: "Agent/{party}"')
    rows, rejected = read(own, FIXTURES / "cel_master.csv")
    assert rejected == []
    assert [row["event"] for row in rows] == [
        "CHAN_START", "APP_START", "APP_START", "CHAN_START", "BRIDGE_ENTER", "HANGUP", "HANGUP",
        "SURVEY", "MUSIC_TIRED",
    ]  # fmt: skip
    assert [row["data_issues"] for row in rows] == [None] * 8 + ["unknown_event:MUSIC_TIRED"]
    assert [row["direction"] for row in rows[2:5]] == ["inbound", "internal", "internal"]
    assert [row["caller"] for row in rows[2:5]] == ["13800138000", None, None]
    assert [row["agent_id"] for row in rows[2:5]] == [None, "Agent/1001", "Agent/1001"]
    assert [row["application_kind"] for row in rows[1:3]] == ["menu", "queue"]
    assert {row["call_id"] for row in rows[:6]} == {"1748908800.10"}
    assert rows[0]["hotline_id"] == "4000000001"
    assert rows[0]["event_at"] == instant("2025-06-03T08:00:00.000100+08:00")
    assert [(row["hangup_party"], row["hangup_cause"]) for row in rows[4:7]] == [
        (None, None), ("agent", 16), ("system", 17),
    ]  # fmt: skip
    assert rows[5]["hangup_source"] == "PJSIP/1001-0000000b"
    assert rows[7]["extra"] == '{"extra":"call ### #### ####"}'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"time": "noon"}, "unreadable_time"),
        ({"event": ""}, "unreadable_event"),
        ({"event": "1748908800"}, "unreadable_event"),
        ({"event": "CALL_13800138000"}, "unreadable_event"),
        ({"unique": "13800138000"}, "unreadable_id"),
        ({"channel": "", "unique": ""}, "no_channel"),
        ({"time": "99999999999"}, "implausible_day"),
        ({"channel": 'A","B'}, "unreadable_time"),  # as the sample with its literal
        ({"channel": 'A","B","C'}, "column_count"),
    ],
)
def test_what_is_no_event(tmp_path: Path, change: dict[str, object], code: str) -> None:
    good = CEL_LINE.format(**EVENT)
    rows, rejected = of(
        feed(tmp_path, "cel"), tmp_path, good, CEL_LINE.format(**{**EVENT, **change})
    )
    assert [item.code for item in rejected] == [code]
    assert len(rows) == 1


def test_the_sample_mapping_with_its_literal(tmp_path: Path) -> None:
    line = CEL_LINE.format(**EVENT).replace('"CHAN_START",', '"CHAN_START","My Literal",')
    rows, rejected = of(feed(tmp_path, "cel"), tmp_path, line)
    assert rejected == []
    assert [(row["event"], row["call_id"]) for row in rows] == [("CHAN_START", "1748908800.10")]


def test_the_dialplan_s_own_event_has_its_name_in_two_columns(tmp_path: Path) -> None:
    """As cel_custom writes it where cel.conf does not say show_user_defined."""
    line = CEL_LINE.format(**{**EVENT, "event": "SURVEY"})
    named = line.removesuffix('"",""') + '"SURVEY",""'
    rows, _ = of(feed(tmp_path, "cel"), tmp_path, named, line)
    assert [row["data_issues"] for row in rows] == [None, "unknown_event:SURVEY"]


def test_an_event_s_time_as_cel_conf_formats_it(tmp_path: Path) -> None:
    line = CEL_LINE.format(**{**EVENT, "time": "2025-06-03 08:00:00.250"})
    rows, _ = of(feed(tmp_path, "cel"), tmp_path, line)
    assert rows[0]["event_at"] == instant("2025-06-03T08:00:00.250+08:00")


# ------------------------------------------------------------------------------ feeds
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("columns: [start, channel, disposition]", "without linkedid no call can be told"),
        ("columns: [start, chanel]", "did you mean 'channel'"),
        ("columns: [start, start, channel, disposition, linkedid]", "is there twice"),
        ("internal: '('", "is no pattern"),
        ("agent: Agent", "write {party}"),
        ("agent: '{name}{party}'", "write {party}"),
        ("times: noon", "is neither local, utc nor a time zone"),
        ("contexts: {dialer: away}", "is not one of inbound"),
        ("applications: {AGI: robot}", "is not one of menu"),
        ("colour: red", "unknown key"),
    ],
)
def test_a_wrong_key_is_answered_with_the_fix(tmp_path: Path, line: str, problem: str) -> None:
    with pytest.raises(CallhouseError, match=problem.replace("{", r"\{").replace("}", r"\}")):
        feed(tmp_path, "cdr", line)


def test_contexts_and_applications_decide(tmp_path: Path) -> None:
    own = feed(
        tmp_path, "cel", "contexts: {from-trunk: outbound}", "applications: {Background: bot}"
    )
    rows, _ = read(own, FIXTURES / "cel_master.csv")
    assert (rows[0]["direction"], rows[0]["caller"]) == ("outbound", None)
    assert rows[1]["application_kind"] == "bot"


@pytest.fixture
def instance(tmp_path: Path) -> Settings:
    loaded = settings_module.load({"CALLHOUSE_HOME": str(tmp_path), "PATH": ""})
    loaded.feeds_directory.mkdir(parents=True, exist_ok=True)
    return loaded


def test_records_are_rows_of_their_exchange(instance: Settings) -> None:
    """Its zone, country and label hold for all: one source has one business day."""
    (instance.feeds_directory / "asterisk_queue_log.yaml").write_text(
        "feed: asterisk_queue_log\nvendor: asterisk\nlabel: Front office\n"
        "time_zone: Europe/Berlin\ncountry: DE\nplausible_days: {from: 2020-01-01}\n"
    )
    for kind in ("cdr", "cel"):
        found = registry.feed(instance, f"asterisk_{kind}")
        assert isinstance(found, Feed)
        assert found.file.stem == f"asterisk_{kind}"
        assert (found.name, found.label) == ("asterisk_queue_log", "Front office")
        assert (found.time_zone, found.caller.country) == ("Europe/Berlin", "DE")
        assert found.plausible_from == datetime.date(2020, 1, 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("exchange: nowhere", "there is no feed nowhere to add to"),
        ("exchange: sample_hotline", "is of vendor"),
        ("exchange: asterisk_queue_log\ntime_zone: Asia/Tokyo", "unknown key"),
        ("exchange: asterisk_cel", "belongs to an exchange itself"),
    ],
)
def test_an_exchange_that_is_none(instance: Settings, text: str, problem: str) -> None:
    (instance.feeds_directory / "records.yaml").write_text(
        f"feed: records\nvendor: asterisk\nrecords: cdr\n{text}\n"
    )
    with pytest.raises(CallhouseError, match=problem):
        registry.feed(instance, "records")


def test_records_without_a_queue_log_are_a_source_of_their_own(instance: Settings) -> None:
    (instance.feeds_directory / "branch.yaml").write_text(
        "feed: branch\nvendor: asterisk\nrecords: cdr\ncountry: DE\nlabel: Branch\n"
    )
    found = registry.feed(instance, "branch")
    assert (found.name, found.label) == ("branch", "Branch")
