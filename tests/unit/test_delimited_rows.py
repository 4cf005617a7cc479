"""From the bytes of a file to typed rows: times, durations, codes, and what goes wrong."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callhouse.sources import registry
from callhouse.sources.contract import RefusedError
from callhouse.sources.delimited import mapping, rows
from callhouse.sources.delimited import reader as reader_module
from callhouse.sources.delimited.reader import DelimitedFile

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "delimited" / "anonymous_bank.txt"
FEEDS = registry.HERE / "delimited" / "feeds"
FEED = """
feed: hotline
vendor: delimited
label: Hotline
time_zone: {zone}
records:
  - record: legs
    delimiter: comma
    encoding: {encoding}
    {extra}
    columns:
      call_id: id
      arrived_at: start
      released_at: end
      answered_at: start
      outcome: {{column: result, codes: {{A: answered, B: abandoned}}}}
      talk_seconds: {{column: talk, {talk}}}
      agent_id: agent
      channel: {{constant: human}}
"""
HEAD = b"id,start,end,result,talk,agent\n"


def read(path: Path, feed: mapping.Feed) -> tuple[list[dict[str, Any]], list[Any], list[str]]:
    """(rows, rejected, notes) of a file."""
    staged: list[dict[str, Any]] = []
    rejected = []
    with DelimitedFile(path, feed.records[0], feed.file.name) as file:
        seen = file.inspect()
        header = file.header()
        total = 0
        for raw in file.rows(header, seen.size_bytes):
            batch = rows.convert(raw, feed.records[0], feed, path.name)
            assert batch.read == batch.rows.height + len(batch.rejected)
            staged += batch.rows.to_dicts()
            rejected += batch.rejected
            total += batch.read
    return staged, rejected, header.notes


@pytest.fixture
def hotline(tmp_path: Path) -> Callable[..., Any]:
    """Reads content under a small mapping."""

    def run(
        content: bytes, *, zone: str = "UTC", encoding: str = "utf-8", extra: str = "",
        talk: str = "unit: s", name: str = "f.csv",
    ) -> tuple[list[dict[str, Any]], list[Any], list[str]]:  # fmt: skip
        file = tmp_path / "hotline.yaml"
        file.write_text(FEED.format(zone=zone, encoding=encoding, extra=extra, talk=talk))
        path = tmp_path / name
        path.write_bytes(content)
        return read(path, mapping.load(file))

    return run


def utc(value: int) -> str:
    """UTC time of microseconds."""
    moment = datetime.datetime.fromtimestamp(value / 1e6, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def row(number: int = 1, *, talk: str = "60", result: str = "A", agent: str = "ann") -> bytes:
    return f"c{number},2024-05-01 10:00:00,2024-05-01 10:01:00,{result},{talk},{agent}\n".encode()


# ------------------------------------------------------------------------------ the bank feed
def bank() -> dict[str, dict[str, Any]]:
    staged, rejected, _ = read(FIXTURE, mapping.load(FEEDS / "anonymous_bank.yaml"))
    assert rejected == []
    assert len(staged) == 11
    return {item["call_id"].split("-")[1]: item for item in staged}


def test_bank_outcomes_and_queues() -> None:
    calls = bank()
    shown = {n: (c["outcome"], c["abandon_stage"], c["queue_id"]) for n, c in calls.items()}
    assert shown["100"] == ("answered", None, "regular")
    assert shown["102"] == ("abandoned", "queue", "stock_exchange")
    assert shown["103"] == ("abandoned", "ivr", None)  # q_time 0: left before the queue
    assert shown["104"] == ("phantom", None, None)
    # An unknown type: the call stays, its queue is the unknown one, and the data say so.
    assert shown["106"] == ("answered", None, "unknown")
    assert calls["106"]["business_type"] is None
    assert "unknown_code:business_type=AA" in calls["106"]["data_issues"]
    assert {c["caller_region_code"] for c in calls.values()} == {"IL"}


def test_bank_missing_markers_and_callers() -> None:
    calls = bank()
    assert calls["100"]["caller"] == "7000001"
    assert calls["101"]["caller"] is None
    assert calls["101"]["queue_entered_at"] is None
    assert calls["105"]["caller"] is None and calls["105"]["data_issues"] == "unreadable:caller"
    assert calls["105"]["agent_id"] is None and calls["105"]["outcome"] == "answered"


def test_bank_durations() -> None:
    calls = bank()
    assert (calls["100"]["wait_seconds"], calls["100"]["talk_seconds"]) == (30, 180)
    # Negative, and so is the difference of its row times: unknown.
    assert calls["106"]["ivr_seconds"] is None
    assert "negative:ivr_seconds" in calls["106"]["data_issues"]
    # Service without an agent is dirt; the reported zero beats 60 s between the row times.
    assert calls["109"]["talk_seconds"] is None and calls["109"]["answered_at"] is None
    assert calls["109"]["data_issues"] == "unanswered:talk_seconds"
    assert calls["110"]["talk_seconds"] == 0
    assert calls["110"]["data_issues"] == "disagrees:talk_seconds"


def test_bank_midnight() -> None:
    calls = bank()
    over = calls["107"]  # queue exit 0:00:05, then service from 0:00:04: one second of disorder
    assert over["business_day"] == datetime.date(1999, 3, 1)
    assert utc(over["queue_left_at"]) == "1999-03-01 22:00:05"
    assert utc(over["answered_at"]) == "1999-03-01 22:00:04"
    assert utc(over["ended_at"]) == "1999-03-01 22:04:04"
    # 0:00:00 marks "did not happen", but 590 s of service end exactly at midnight.
    assert utc(calls["108"]["released_at"]) == "1999-03-01 22:00:00"


# ------------------------------------------------------------------------------ times
def test_ambiguous_hour_takes_the_first_pass_unless_the_order_forbids_it(
    hotline: Callable[..., Any],
) -> None:
    content = (
        HEAD
        + b"a,2024-10-27 02:30:00,2024-10-27 02:40:00,A,600,x\n"  # both in the first pass
        + b"b,2024-10-27 02:50:00,2024-10-27 02:10:00,A,1200,x\n"  # ends in the second pass
        + b"c,2024-10-27 01:30:00,2024-10-27 03:30:00,A,10800,x\n"  # three hours by the clock
    )
    staged, _, _ = hotline(content, zone="Europe/Berlin")
    assert [utc(r["arrived_at"])[11:] for r in staged] == ["00:30:00", "00:50:00", "23:30:00"]
    assert [utc(r["released_at"])[11:] for r in staged] == ["00:40:00", "01:10:00", "02:30:00"]
    assert "ambiguous_time:arrived_at" in staged[0]["data_issues"]
    assert "disagrees" not in staged[1]["data_issues"]
    assert staged[2]["data_issues"] is None
    assert staged[2]["talk_seconds"] == 10800


def test_time_in_the_spring_gap_is_kept_and_flagged(hotline: Callable[..., Any]) -> None:
    content = HEAD + b"a,2024-03-31 02:30:00,2024-03-31 03:31:00,A,60,x\n"
    staged, rejected, _ = hotline(content, zone="Europe/Berlin")
    assert rejected == []
    assert utc(staged[0]["arrived_at"]) == "2024-03-31 01:30:00"
    assert staged[0]["business_day"] == datetime.date(2024, 3, 31)
    assert "nonexistent_time:arrived_at" in staged[0]["data_issues"]


def test_business_day_is_local(hotline: Callable[..., Any]) -> None:
    content = HEAD + b"a,2024-05-01 00:10:00,2024-05-01 00:11:00,A,60,x\n"
    staged, _, _ = hotline(content, zone="Asia/Shanghai")
    assert staged[0]["business_day"] == datetime.date(2024, 5, 1)
    assert utc(staged[0]["arrived_at"]) == "2024-04-30 16:10:00"


# ------------------------------------------------------------------------------ numbers
@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("unit: s", "60", 60.0), ("unit: s", "60.5", 60.5), ("unit: ms", "61250", 61.25),
        ("unit: hms", "0:01:00", 60.0), ("unit: hms", "01:00", 60.0),
        ("unit: hms", "26:00:01", 93601.0), ('decimal: ","', '"60,25"', 60.25),
    ],
)  # fmt: skip
def test_duration_units(hotline: Callable[..., Any], option: str, text: str, value: float) -> None:
    staged, rejected, _ = hotline(HEAD + row(talk=text), talk=option)
    assert rejected == []
    assert staged[0]["talk_seconds"] == value


@pytest.mark.parametrize(
    ("option", "text", "fix"), [("unit: s", "60000", "unit: ms"), ("unit: ms", "60", "unit: s")]
)
def test_a_file_in_another_unit_is_refused(
    hotline: Callable[..., Any], option: str, text: str, fix: str
) -> None:
    """All talks a thousand times too long would be believed; a few are kept with an issue."""
    odd = [row(number, talk=text) for number in range(19)]
    staged, _, _ = hotline(HEAD + b"".join(odd), talk=option)
    assert {r["data_issues"] for r in staged} == {"disagrees:talk_seconds"}
    with pytest.raises(RefusedError, match=f"20 of 20 rows column 'talk'.*write '{fix}'"):
        hotline(HEAD + b"".join([*odd, row(20, talk=text)]), talk=option)
    right = b"".join(row(number, talk="60" if option == "unit: s" else "60000")
                     for number in range(20, 23))  # fmt: skip
    staged, _, _ = hotline(HEAD + b"".join(odd) + right, talk=option)
    assert len(staged) == 22


@pytest.mark.parametrize("text", ["soon", "nan", "inf", "1e999", "0x10"])
def test_an_unreadable_number_is_quarantined(hotline: Callable[..., Any], text: str) -> None:
    staged, rejected, _ = hotline(HEAD + row(1) + row(2, talk=text) + row(3))
    assert [r["call_id"] for r in staged] == ["c1", "c3"]
    assert rejected[0].code == "bad_number"
    assert rejected[0].line_number == 3
    assert "f.csv line 3: column 'talk'" in rejected[0].reason
    assert rejected[0].content == row(2, talk=text).rstrip(b"\n")


def test_negative_duration_is_replaced_by_the_row_times(hotline: Callable[..., Any]) -> None:
    staged, rejected, _ = hotline(HEAD + row(talk="-5"))
    assert rejected == []
    assert staged[0]["talk_seconds"] == 60
    assert staged[0]["data_issues"] == "negative:talk_seconds"


# ------------------------------------------------------------------------------ bad rows
def test_impossible_date_unknown_code_and_implausible_day(hotline: Callable[..., Any]) -> None:
    content = (
        HEAD + row(1)
        + row(2).replace(b"05-01 10:00", b"02-31 10:00", 1)
        + row(3, result="C")
        + row(4).replace(b"2024", b"1024")
        + b",2024-05-01 10:00:00,2024-05-01 10:01:00,A,60,x\n"
        + row(6)
    )  # fmt: skip
    staged, rejected, _ = hotline(content)
    assert [r["call_id"] for r in staged] == ["c1", "c6"]
    assert [(r.line_number, r.code) for r in rejected] == [
        (3, "bad_date"), (4, "unknown_code"), (5, "implausible_date"), (6, "missing_value"),
    ]  # fmt: skip
    assert "'C' is a code that the mapping does not know" in rejected[1].reason


def test_a_number_that_slipped_into_another_column_is_masked(hotline: Callable[..., Any]) -> None:
    _, rejected, _ = hotline(HEAD + row(1) + row(2, result="13812345678"))
    assert "13812345678" not in rejected[0].reason
    assert "'138########'" in rejected[0].reason


def test_wrong_widths_and_truncated_last_line(hotline: Callable[..., Any]) -> None:
    wide = b",".join([b"1"] * 300) + b"\n"
    content = HEAD + row(1) + b"c2,2024-05-01 10:00:00\n" + wide + row(4) + row(5)[:30]
    staged, rejected, _ = hotline(content)
    assert [r["call_id"] for r in staged] == ["c1", "c4"]
    assert [(r.line_number, r.code) for r in rejected] == [
        (3, "column_count"), (4, "column_count"), (6, "cut_off"),
    ]  # fmt: skip
    assert "300 columns instead of 6" in rejected[1].reason
    assert "the file ends within this line" in rejected[2].reason


def test_nul_bytes_bom_crlf_blank_lines_and_repeated_headers(hotline: Callable[..., Any]) -> None:
    body = HEAD + row(1) + b"\n   \n" + row(2).replace(b"ann", b"a\0n") + HEAD + row(3)
    content = b"\xef\xbb\xbf" + body.replace(b"\n", b"\r\n")
    staged, rejected, _ = hotline(content)
    assert [(r["call_id"], r["line_number"]) for r in staged] == [("c1", 2), ("c3", 7)]
    assert [(r.line_number, r.code) for r in rejected] == [(5, "nul_byte")]


def test_long_lines(hotline: Callable[..., Any]) -> None:
    content = HEAD + row(1) + b"x" * 10_000_000 + b"\n" + row(3, agent="y" * 10_000_000) + row(4)
    staged, rejected, _ = hotline(content)
    assert [r["call_id"] for r in staged] == ["c1", "c3", "c4"]
    assert [(r.line_number, r.code) for r in rejected] == [(3, "column_count")]


def test_blocks_do_not_change_the_result(
    hotline: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = HEAD + b"".join(
        row(i, talk="x" if i % 7 == 0 else "60", agent='"a\nb"' if i % 5 == 0 else "ann")
        for i in range(60)
    )
    whole = hotline(content)
    monkeypatch.setattr(reader_module, "BLOCK_BYTES", 100)
    parts = hotline(content)
    assert whole[0] == parts[0]
    assert [(r.line_number, r.reason) for r in whole[1]] == [
        (r.line_number, r.reason) for r in parts[1]
    ]
    assert len(whole[0]) + len(whole[1]) == 60


def test_quotes(hotline: Callable[..., Any]) -> None:
    content = (
        HEAD + row(1, agent='"Lee, Ann"') + row(2, agent='"two\nlines"')
        + row(3, agent='5" pipe') + row(4, agent='"open') + row(5, agent='"a ""b"""')
        + row(6)
    )  # fmt: skip
    staged, rejected, _ = hotline(content)
    assert rejected == []
    assert [r["agent_id"] for r in staged] == [
        "Lee, Ann", "two\nlines", '5" pipe', '"open', 'a "b"', "ann",
    ]  # fmt: skip
    assert [r["line_number"] for r in staged] == [2, 3, 5, 6, 7, 8]


def test_padding_is_trimmed(hotline: Callable[..., Any]) -> None:
    staged, _, _ = hotline(HEAD + row(1, agent=" ann ") + row(2, talk=" 60"))
    assert [r["agent_id"] for r in staged] == ["ann", "ann"]
    assert staged[1]["talk_seconds"] == 60


# ------------------------------------------------------------------------------ encodings
def test_one_line_in_another_encoding_is_quarantined(hotline: Callable[..., Any]) -> None:
    gbk = row(2, agent="李").decode().encode("gbk")
    content = HEAD + row(1) + gbk + b"".join(row(i, agent="王") for i in range(3, 10))
    staged, rejected, _ = hotline(content)
    assert [(r.line_number, r.code) for r in rejected] == [(3, "encoding")]
    assert len(staged) == 8
    assert staged[1]["agent_id"] == "王"


def test_gbk_under_its_own_name_is_read(hotline: Callable[..., Any]) -> None:
    content = (HEAD + row(1, agent="李雷")).decode().encode("gb18030")
    staged, _, _ = hotline(content, encoding="gb18030")
    assert staged[0]["agent_id"] == "李雷"


def test_utf16_under_its_own_name_is_read(hotline: Callable[..., Any]) -> None:
    staged, _, _ = hotline((HEAD + row(1, agent="李")).decode().encode("utf-16"), encoding="utf-16")
    assert staged[0]["agent_id"] == "李"


# ------------------------------------------------------------------------------ whole files
@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, ["f.csv is empty"]),
        (b"\n\n", {}, ["blank lines"]),
        (HEAD.replace(b",", b";"), {}, ["line 1", "delimiter comma", "delimiter: semicolon"]),
        (HEAD.replace(b"talk", b"tlk") + row(), {}, ["line 1", "no column 'talk'", "hotline.yaml"]),
        (HEAD.replace(b"agent", b"talk") + row(), {}, ["line 1"]),
        (b"PK\x03\x04rest", {}, ["zip archive"]),
        ("\ufeffid".encode("utf-16-le"), {}, ["UTF-16", "encoding: utf-16"]),
        (b"".join([HEAD, *(row(i, agent="李").decode().encode("gbk") for i in range(5))]), {},
         ["f.csv line 2 is not utf-8", "gb18030", "encoding"]),
        (b"".join([HEAD, *(row(i, agent="客服李雷") for i in range(5))]), {"encoding": "gb18030"},
         ["is UTF-8", "encoding: utf-8"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_a_sentence(
    hotline: Callable[..., Any], content: bytes, options: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(RefusedError) as caught:
        hotline(content, **options)
    for word in words:
        assert word in str(caught.value)


def test_truncated_gzip_is_refused(hotline: Callable[..., Any]) -> None:
    packed = gzip.compress(HEAD + b"".join(row(i) for i in range(1000)))
    assert len(hotline(packed, name="f.csv.gz")[0]) == 1000
    with pytest.raises(RefusedError, match=r"f\.csv\.gz is cut off"):
        hotline(packed[:-20], name="f.csv.gz")


def test_extra_columns_are_a_note(hotline: Callable[..., Any]) -> None:
    staged, rejected, notes = hotline(
        HEAD.replace(b"\n", b",mood\n") + row().replace(b"\n", b",good\n")
    )
    assert (len(staged), rejected) == (1, [])
    assert notes == ["columns not in the mapping: mood"]


def test_files_without_header(hotline: Callable[..., Any]) -> None:
    names = "names: [id, start, end, result, talk, agent]"
    staged, _, _ = hotline(row(1) + row(2), extra=f"header: false\n    {names}")
    assert [r["line_number"] for r in staged] == [1, 2]
    for content, lines in ((HEAD + row(1), [2]), (row(1), [1])):
        staged, _, _ = hotline(content, extra=f"header: optional\n    {names}")
        assert [r["line_number"] for r in staged] == lines


def test_columns_may_come_in_another_order(hotline: Callable[..., Any]) -> None:
    content = (
        b"talk,agent,result,end,start,id\n60,ann,A,2024-05-01 10:01:00,2024-05-01 10:00:00,c1\n"
    )
    staged, _, _ = hotline(content)
    assert (staged[0]["call_id"], staged[0]["talk_seconds"]) == ("c1", 60)


def test_the_empty_one_of_joined_columns_is_named(tmp_path: Path) -> None:
    lines = FIXTURE.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split("\t")
    cells[1] = ""
    path = tmp_path / "joined.txt"
    path.write_text("\n".join([lines[0], "\t".join(cells), lines[2]]) + "\n", encoding="utf-8")
    staged, rejected, _ = read(path, mapping.load(FEEDS / "anonymous_bank.yaml"))
    assert len(staged) == 1
    assert [(r.code, r.column) for r in rejected] == [("missing_value", "call_id")]
    assert "column 'call_id' is empty" in rejected[0].reason


# ------------------------------------------------------------------------------ agents, surveys
DETAILS = """
feed: details
vendor: delimited
label: Details
time_zone: {zone}
records:
  - record: {record}
    delimiter: comma
    columns:
{columns}
"""
STATES = """
      agent_id: agent
      state: {column: state, codes: {READY: ready, TALK: talk}}
      started_at: start
      ended_at: end
"""
SURVEYS = """
      survey_id: id
      survey_type: type
      score: {column: score, codes: {"1": "5", "2": "3", "9": "10"}, unreadable: keep}
      arrived_at: arrived
      offered_at: offered
"""
SCHEDULES = """
      agent_id: agent
      activity: {column: what, codes: {W: work, B: break, OFF: absence}}
      paid: {column: paid, codes: {"1": "yes", "0": "no"}}
      shift_date: {column: shift, format: "%d.%m.%Y"}
      starts_at: {column: start, format: "%d.%m.%Y %H:%M"}
      ends_at: {column: end, format: "%d.%m.%Y %H:%M"}
"""
OFFERS = """
      call_id: call
      agent_id: agent
      outcome: result
      ring_seconds: ring
      arrived_at: arrived
      offered_at: offered
      ended_at: ended
"""


@pytest.fixture
def details(tmp_path: Path) -> Callable[..., Any]:
    """Reads lines of a detail record."""

    def run(
        record: str, columns: str, *lines: str, zone: str = "UTC"
    ) -> tuple[list[dict[str, Any]], list[Any]]:
        file = tmp_path / "details.yaml"
        file.write_text(DETAILS.format(zone=zone, record=record, columns=columns.strip("\n")))
        path = tmp_path / "details.csv"
        path.write_text("\n".join(lines) + "\n")
        staged, rejected, _ = read(path, mapping.load(file))
        return staged, rejected

    return run


def test_a_state_over_midnight_is_on_both_days(details: Callable[..., Any]) -> None:
    """Shanghai's midnight is 16:00 UTC; a state that ends there has no part in the next day."""
    staged, rejected = details(
        "agent_states", STATES, "agent,state,start,end",
        "101,READY,2024-05-01 23:50:00,2024-05-02 00:00:00",
        "101,TALK,2024-05-01 23:55:00,2024-05-02 00:10:00",
        "101,READY,2024-05-02 00:10:00,2024-05-02 00:10:00",
        zone="Asia/Shanghai",
    )  # fmt: skip
    assert rejected == []
    assert [(r["line_number"], str(r["business_day"]), utc(r["started_at"])) for r in staged] == [
        (2, "2024-05-01", "2024-05-01 15:50:00"),
        (3, "2024-05-01", "2024-05-01 15:55:00"),
        (3, "2024-05-02", "2024-05-01 15:55:00"),
        (4, "2024-05-02", "2024-05-01 16:10:00"),
    ]
    assert staged[1]["row_hash"] == staged[2]["row_hash"]


def test_the_days_of_a_state_follow_the_local_clock(details: Callable[..., Any]) -> None:
    """Berlin, 30 March 2025: 02:00 is 03:00. The day ends at 22:00 UTC, the one before at 23:00."""
    staged, _ = details(
        "agent_states", STATES, "agent,state,start,end",
        "101,TALK,2025-03-29 23:30:00,2025-03-30 03:30:00",
        "101,READY,2025-03-30 22:00:00,2025-03-31 00:30:00",
        zone="Europe/Berlin",
    )  # fmt: skip
    assert [(str(r["business_day"]), utc(r["started_at"]), utc(r["ended_at"])) for r in staged] == [
        ("2025-03-29", "2025-03-29 22:30:00", "2025-03-30 01:30:00"),
        ("2025-03-30", "2025-03-29 22:30:00", "2025-03-30 01:30:00"),
        ("2025-03-30", "2025-03-30 20:00:00", "2025-03-30 22:30:00"),
        ("2025-03-31", "2025-03-30 20:00:00", "2025-03-30 22:30:00"),
    ]


def test_states_that_cannot_be_are_set_aside(details: Callable[..., Any]) -> None:
    staged, rejected = details(
        "agent_states", STATES, "agent,state,start,end",
        "101,READY,2024-05-01 10:00:00,2024-05-01 09:59:59",
        "101,READY,2024-05-01 00:00:00,2024-05-01 20:00:00",
        "101,READY,2024-05-01 00:00:00,2024-05-01 20:00:01",
        "101,AWAY,2024-05-01 10:00:00,2024-05-01 11:00:00",
        "101,READY,2024-05-01 10:00:00,",
    )  # fmt: skip
    assert [r["line_number"] for r in staged] == [3]
    assert [(r.line_number, r.code) for r in rejected] == [
        (2, "disorder"), (4, "too_long"), (5, "unknown_code"), (6, "missing_value"),
    ]  # fmt: skip


def test_a_planned_night_is_on_both_days_and_of_one_shift(details: Callable[..., Any]) -> None:
    """Berlin, 26 October 2025: 03:00 is 02:00 again, so work from 22:00 to 06:00 is nine hours."""
    staged, rejected = details(
        "schedules", SCHEDULES, "agent,shift,what,paid,start,end",
        "101,25.10.2025,W,1,25.10.2025 22:00,26.10.2025 06:00",
        "101,25.10.2025,B,0,26.10.2025 06:00,26.10.2025 06:30",
        "102,26.10.2025,OFF,1,26.10.2025 00:00,27.10.2025 00:00",
        zone="Europe/Berlin",
    )  # fmt: skip
    assert rejected == []
    assert [
        (str(r["business_day"]), str(r["shift_date"]), r["activity"], r["paid"],
         utc(r["starts_at"]), utc(r["ends_at"]))
        for r in staged
    ] == [
        ("2025-10-25", "2025-10-25", "work", "yes", "2025-10-25 20:00:00", "2025-10-26 05:00:00"),
        ("2025-10-26", "2025-10-25", "work", "yes", "2025-10-25 20:00:00", "2025-10-26 05:00:00"),
        ("2025-10-26", "2025-10-25", "break", "no", "2025-10-26 05:00:00", "2025-10-26 05:30:00"),
        ("2025-10-26", "2025-10-26", "absence", "yes", "2025-10-25 22:00:00",
         "2025-10-26 23:00:00"),
    ]  # fmt: skip


def test_plans_that_cannot_be_are_set_aside(details: Callable[..., Any]) -> None:
    """And plans of days to come are read, of days too far away are not."""
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=60)
    staged, rejected = details(
        "schedules", SCHEDULES, "agent,shift,what,paid,start,end",
        "101,01.05.2024,W,1,01.05.2024 10:00,01.05.2024 10:00",
        "101,01.05.2024,OFF,1,01.05.2024 00:00,02.05.2024 01:00",
        "101,01.05.2024,OFF,1,01.05.2024 00:00,02.05.2024 01:01",
        "101,03.05.2024,W,1,01.05.2024 10:00,01.05.2024 11:00",
        "101,01.05.2024,W,1,02.05.2024 10:00,02.05.2024 11:00",
        "101,01.05.2024,Q,1,01.05.2024 10:00,01.05.2024 11:00",
        "101,01.05.2024,W,,01.05.2024 10:00,01.05.2024 11:00",
        f"101,{later:%d.%m.%Y},W,1,{later:%d.%m.%Y} 10:00,{later:%d.%m.%Y} 11:00",
        "101,01.05.2224,W,1,01.05.2224 10:00,01.05.2224 11:00",
    )  # fmt: skip
    assert [r["line_number"] for r in staged] == [3, 3, 6, 9]
    assert [(r.line_number, r.code) for r in rejected] == [
        (2, "disorder"), (4, "too_long"), (5, "other_shift"), (7, "unknown_code"),
        (8, "missing_value"), (10, "implausible_date"),
    ]  # fmt: skip


def test_a_survey_belongs_to_the_day_of_its_call(details: Callable[..., Any]) -> None:
    """Without the call's arrival to that of its offer; scores may be coded, and have a scale."""
    staged, rejected = details(
        "surveys", SURVEYS, "id,type,score,arrived,offered",
        "a,csat,1,2024-05-01 23:50:00,2024-05-02 00:05:00",
        "b,csat,2,,2024-05-02 00:05:00",
        "c,nps,9,2024-05-01 10:00:00,2024-05-01 10:05:00",
        "d,csat,9,2024-05-01 10:00:00,2024-05-01 10:05:00",
        "e,ces,,2024-05-01 10:00:00,2024-05-01 10:05:00",
        "f,csat,7,2024-05-01 10:00:00,2024-05-01 10:05:00",
    )  # fmt: skip
    found = {r["survey_id"]: (str(r["business_day"]), r["score"]) for r in staged}
    assert found == {
        "a": ("2024-05-01", 5), "b": ("2024-05-02", 3), "c": ("2024-05-01", 10),
        "e": ("2024-05-01", None), "f": ("2024-05-01", None),
    }  # fmt: skip
    assert [(r.line_number, r.code) for r in rejected] == [(5, "out_of_scale")]
    assert {r["survey_id"]: r["data_issues"] for r in staged}["f"] == "unreadable:score"


def test_durations_of_details_follow_the_ruling(details: Callable[..., Any]) -> None:
    """What the source reports counts; what it does not is the difference of the row's times."""
    staged, _ = details(
        "offers", OFFERS, "call,agent,result,ring,arrived,offered,ended",
        "a,101,answered,4,2024-05-01 10:00:00,2024-05-01 10:00:30,2024-05-01 10:00:34",
        "b,101,no_answer,,2024-05-01 10:00:00,2024-05-01 10:00:30,2024-05-01 10:00:50",
        "c,101,no_answer,-20,2024-05-01 10:00:00,2024-05-01 10:00:30,2024-05-01 10:00:50",
        "d,101,answered,9,2024-05-01 10:00:00,2024-05-01 10:00:30,2024-05-01 10:00:34",
    )  # fmt: skip
    assert [(r["ring_seconds"], r["data_issues"]) for r in staged] == [
        (4, None), (20, None), (20, "negative:ring_seconds"), (9, "disagrees:ring_seconds"),
    ]  # fmt: skip


def test_a_carrier_s_line_without_an_id_is_named_by_its_content(tmp_path: Path) -> None:
    """So that the same line is the same call in whatever file; an unknown number is quarantined."""
    file = tmp_path / "trunk.yaml"
    file.write_text(
        """
feed: trunk
vendor: delimited
label: Trunk
time_zone: Asia/Shanghai
records:
  - record: carrier_calls
    delimiter: comma
    columns:
      carrier_call_id: id
      caller: {column: from, kind: phone, country: CN}
      hotline_id: {column: to, codes: {"400": service}}
      started_at: at
      call_seconds: seconds
"""
    )
    lines = (b"7,1,400,2025-03-03 23:59:59,5", b",1,400,2025-03-03 09:00:00,-1",
             b",2,400,2025-03-03 09:00:00,5", b"9,1,401,2025-03-03 09:00:00,5")  # fmt: skip
    found = []
    for name, order in (("a.csv", 1), ("b.csv", -1)):
        path = tmp_path / name
        path.write_bytes(b"\n".join([b"id,from,to,at,seconds", *lines[::order]]) + b"\n")
        found.append(read(path, mapping.load(file)))
    (staged, rejected, _), (again, _, _) = found
    first, unnamed, other = staged
    assert first["carrier_call_id"] == "7" and str(first["business_day"]) == "2025-03-03"
    assert unnamed["carrier_call_id"] == unnamed["row_hash"].hex() != other["carrier_call_id"]
    assert (unnamed["call_seconds"], unnamed["data_issues"]) == (None, "negative:call_seconds")
    assert [row["carrier_call_id"] for row in again] == [
        row["carrier_call_id"] for row in reversed(staged)
    ]
    assert [(r.line_number, r.code, r.column) for r in rejected] == [(5, "unknown_code", "to")]
