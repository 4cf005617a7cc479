"""Lines of a queue_log to typed events, and the YAML of their feeds."""

from __future__ import annotations

import datetime
import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given, strategies

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import files, registry
from callhouse.sources.asterisk import mapping, table
from callhouse.sources.contract import RefusedError, Rejected

PACKAGED = registry.HERE / "asterisk" / "feeds" / "asterisk_queue_log.yaml"
SHANGHAI = mapping.load(PACKAGED, "Asia/Shanghai")


def read(path: Path, content: bytes) -> tuple[list[dict[str, Any]], list[Rejected]]:
    """(events, rejected) of a file with this content."""
    path.write_bytes(content)
    events: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    with SHANGHAI.open(path) as file:
        seen = file.inspect()
        for batch in file.batches(seen):
            assert batch.read == batch.rows.height + len(batch.rejected)
            events += batch.rows.to_dicts()
            rejected += batch.rejected
        assert file.is_unchanged(seen)
    return events, rejected


def event(tmp_path: Path, rest: str, call: str = "c1") -> dict[str, Any]:
    """The one event of a line at 08:00:00 on 2025-06-03 in Shanghai."""
    events, rejected = read(tmp_path / "queue_log", f"1748908800|{call}|{rest}\n".encode())
    assert rejected == []
    (only,) = events
    return only


@pytest.mark.parametrize(
    ("rest", "wait", "talk", "ring"),
    [
        ("q|a|CONNECT|10|1.2|4", 10, None, 4),
        ("q|a|COMPLETEAGENT|10|50|1", 10, 50, None),
        ("q|a|COMPLETECALLER|10|50|1", 10, 50, None),
        ("q|NONE|ABANDON|1|2|30", 30, None, None),
        ("q|NONE|EXITEMPTY|1|2|30", 30, None, None),
        ("q|NONE|EXITWITHTIMEOUT|1|2|30", 30, None, None),
        ("q|NONE|EXITWITHKEY|5|1|2|30", 30, None, None),
        ("q|a|RINGNOANSWER|15000", None, None, 15),
        ("q|a|RINGNOANSWER|500", None, None, 0.5),
        ("q|a|RINGCANCELED|8500", None, None, 8.5),
        ("q|a|RINGCANCELED|", None, None, None),
        ("q|a|BLINDTRANSFER|2002|default|5|25|1", 5, 25, None),
        ("q|a|TRANSFER|2002|default|5|25|1", 5, 25, None),
        ("q|a|ATTENDEDTRANSFER|BRIDGE|id|5|25|1", 5, 25, None),
        ("q|a|ATTENDEDTRANSFER|APP|name|5|25|1", 5, 25, None),
        ("q|a|ATTENDEDTRANSFER|LINK|SIP/1|SIP/2|5|25|1", 5, 25, None),
        ("q|a|ATTENDEDTRANSFER|LINK|SIP/1|SIP/2|5|25", 5, 25, None),
        ("q|NONE|ENTERQUEUE||13800138000|1", None, None, None),
        ("q|NONE|LEAVEEMPTY", None, None, None),
    ],
)
def test_durations_stand_where_the_event_has_them(
    tmp_path: Path, rest: str, wait: float | None, talk: float | None, ring: float | None
) -> None:
    found = event(tmp_path, rest)
    assert (found["wait_seconds"], found["talk_seconds"], found["ring_seconds"]) == (
        wait, talk, ring,
    )  # fmt: skip
    assert found["login_seconds"] is found["wrapup_seconds"] is None
    assert found["event_at"] == 1748908800_000000
    assert found["began_at"] == found["event_at"] - ((wait or 0) + (talk or 0)) * 1_000_000
    assert found["business_day"] == datetime.date(2025, 6, 3)
    assert found["data_issues"] is None


def test_an_unreadable_duration_is_an_issue(tmp_path: Path) -> None:
    found = event(tmp_path, "q|a|COMPLETEAGENT|-3|x|1")
    assert (found["wait_seconds"], found["talk_seconds"]) == (None, None)
    assert found["data_issues"] == "unreadable:wait_seconds,unreadable:talk_seconds"


def test_caller_and_name_leave_the_data(tmp_path: Path) -> None:
    found = event(tmp_path, "q|SIP/9|ENTERQUEUE|http://x|13800138000|3|Front|desk")
    assert found["caller"] == "13800138000"
    assert [found[f"data{n}"] for n in range(1, 6)] == ["http://x", None, "3", None, None]
    assert found["agent_id"] is None
    assert event(tmp_path, "q|NONE|ENTERQUEUE||anonymous|1")["caller"] is None


def test_long_numbers_in_free_text_are_masked(tmp_path: Path) -> None:
    found = event(tmp_path, "q|NONE|MOOD_MUSIC|13800138000|track 7|x|y|z 13800138000|end")
    assert found["data1"] == "#######"
    assert (found["data2"], found["data5"]) == ("track 7", "z #######|end")
    assert found["data_issues"] == "unknown_event:MOOD_MUSIC"
    assert event(tmp_path, "q|NONE|INFO|from 13800138000")["data1"] == "from #######"
    assert event(tmp_path, "q|NONE|DIVERT_HOLDTIME|13800138000")["data1"] == "#######"
    entry = event(tmp_path, "q|NONE|ENTERQUEUE|http://crm/?n=13800138000|13800138000|1")
    assert entry["data1"] == "http://crm/?n=#######"
    assert event(tmp_path, "NONE|NONE|DID|4008001234")["hotline_id"] == "4008001234"


@pytest.mark.parametrize(
    ("rest", "login", "wrapup", "issues"),
    [
        ("NONE|a|AGENTLOGOFF|SIP/1|3600", 3600, None, None),
        ("NONE|a|AGENTCALLBACKLOGOFF|1002@default|1800|CommandLogoff", 1800, None, None),
        ("NONE|a|AGENTLOGOFF|SIP/1|-1", None, None, "unreadable:login_seconds"),
        ("NONE|a|AGENTLOGIN|SIP/1", None, None, None),
        ("q|a|WRAPUPSTART|30", None, 30, None),
    ],
)
def test_durations_of_agents(
    tmp_path: Path, rest: str, login: float | None, wrapup: float | None, issues: str | None
) -> None:
    found = event(tmp_path, rest)
    assert (found["login_seconds"], found["wrapup_seconds"]) == (login, wrapup)
    assert found["data_issues"] == issues
    assert found["began_at"] == found["event_at"]


@pytest.mark.parametrize(
    ("call", "rest"),
    [
        ("NONE", "NONE|NONE|QUEUESTART|"),
        ("REALTIME", "q|SIP/1|ADDMEMBER|"),
        ("MANAGER", "q|SIP/1|PAUSE|lunch"),
        ("c1", "NONE|SIP/1|AGENTLOGIN|SIP/1-00"),
        ("NONE", "NONE|SIP/1|WRAPUPSTART|30"),
    ],
)
def test_events_of_no_call(tmp_path: Path, call: str, rest: str) -> None:
    found = event(tmp_path, rest, call)
    assert found["call_id"] is None
    assert found["reported_call_id"] == call


def test_fractions_time_zones_and_line_ends(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbf1748880000.000001|a|q|NONE|LEAVEEMPTY\r\n\r\n1748879999.9|b|q|NONE|FULL|\n"
    )
    events, rejected = read(tmp_path / "queue_log", content)
    assert rejected == []
    assert [e["line_number"] for e in events] == [1, 3]
    assert [e["event_at"] for e in events] == [1748880000_000001, 1748879999_900000]
    assert [e["business_day"].day for e in events] == [3, 2]  # midnight in Shanghai


def test_text_that_is_no_utf8_is_kept_with_an_issue(tmp_path: Path) -> None:
    events, rejected = read(tmp_path / "q", b"1748908800|c|q|NONE|ENTERQUEUE||138|1|M\xfcller\n")
    assert rejected == []
    assert events[0]["data_issues"] == "unreadable:text"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"1748908800|c1|q", "column_count"),
        (b"2025-06-03 08:00:00|c1|q|NONE|FULL|", "unreadable_time"),
        (b"17489088001234|c1|q|NONE|FULL|", "unreadable_time"),
        (b"|c1|q|NONE|FULL|", "unreadable_time"),
        (b"1748908800|c1|q|NONE||1", "unreadable_event"),
        (b"1748908800|c1|q|NONE|12|1", "unreadable_event"),
        (b"4748908800|c1|q|NONE|FULL|", "implausible_day"),
        (b"1748908800|c1|q|NO\0NE|FULL|", "nul_byte"),
    ],
)
def test_what_is_no_event_is_set_aside(tmp_path: Path, line: bytes, code: str) -> None:
    good = b"1748908800|c1|q|NONE|FULL|\n"
    events, rejected = read(tmp_path / "queue_log", good + line + b"\n" + good)
    assert len(events) == 2
    assert [(r.line_number, r.code, r.content) for r in rejected] == [(2, code, line)]
    assert rejected[0].reason.startswith("queue_log line 2: ")


def test_a_line_that_is_being_written_is_no_event_yet(tmp_path: Path) -> None:
    """Not even with all its fields: a wait of 12 may be the beginning of 120."""
    whole = b"1748908800|c1|q|a|COMPLETEAGENT|10|123|1"
    for line in (whole, whole[:-4]):
        events, rejected = read(tmp_path / "queue_log", line)
        assert events == []
        assert [r.code for r in rejected] == ["cut_off"]
        assert len(read(tmp_path / "queue_log", line + b"\n")[0]) == 1  # so it was written


def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"".join(b"%d|c%d|q|NONE|FULL|\n" % (1748908800 + n, n) for n in range(50))
    whole = read(tmp_path / "a", lines)
    monkeypatch.setattr(files.LineFile._uncompressed, "__defaults__", (70,))
    assert read(tmp_path / "b", lines) == whole
    assert read(tmp_path / "c.gz", gzip.compress(lines)) == whole
    assert [e["line_number"] for e in whole[0]] == list(range(1, 51))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and so on", "zip archive"),
        (gzip.compress(b"1748908800|c1|q|NONE|FULL|\n" * 500, mtime=0)[:-20], "cut off or damaged"),
        ("1748908800|c1".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_that_are_no_log_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        read(tmp_path / "queue_log", content)


# ------------------------------------------------------------------------------ feeds
@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    base = settings_module.load(
        {"CALLHOUSE_HOME": str(tmp_path), "CALLHOUSE_TIME_ZONE": "Europe/Berlin"}
    )
    return replace(base, feeds_directory=tmp_path)


def test_the_packaged_feed_has_the_instance_s_time_zone(settings: Settings) -> None:
    feed = registry.feed(settings, "asterisk_queue_log")
    assert (feed.vendor, feed.time_zone) == ("asterisk", "Europe/Berlin")
    assert feed.record_for("queue_log.3.gz") is mapping.EVENTS


def test_a_file_in_the_feeds_folder_takes_its_place(settings: Settings) -> None:
    file = settings.feeds_directory / "asterisk_queue_log.yaml"
    file.write_text(
        "feed: asterisk_queue_log\nvendor: asterisk\nlabel: Front\ntime_zone: Asia/Tokyo\n"
        "country: JP\nfiles: queue_log*\nplausible_days: {from: 2020-01-01}\n"
    )
    feed = registry.feed(settings, "asterisk_queue_log")
    assert (feed.label, feed.time_zone) == ("Front", "Asia/Tokyo")
    with pytest.raises(RefusedError, match="takes no file of this name"):
        feed.record_for("cdr.csv")
    assert registry.problems(settings) == []


def test_a_mistake_in_it_is_told_and_the_packaged_feed_not_used(settings: Settings) -> None:
    file = settings.feeds_directory / "asterisk_queue_log.yaml"
    file.write_text("feed: asterisk_queue_log\nvendor: asterisk\ntimezone: Asia/Tokyo\n")
    with pytest.raises(CallhouseError, match=r"unknown key.*time_zone"):
        registry.feed(settings, "asterisk_queue_log")
    assert "asterisk_queue_log" not in [feed.name for feed in registry.feeds(settings)]


def test_a_second_exchange_is_a_second_feed(settings: Settings) -> None:
    file = settings.feeds_directory / "branch_queue_log.yaml"
    file.write_text("feed: branch_queue_log\nvendor: asterisk\nlabel: Branch\ncountry: DE\n")
    assert registry.feed(settings, "branch_queue_log").label == "Branch"
    file.write_text("feed: branch_queue_log\nvendor: asterix\n")
    with pytest.raises(CallhouseError, match="did you mean 'asterisk'"):
        registry.feed(settings, "branch_queue_log")


@pytest.mark.parametrize(
    ("zone", "time", "epoch"),
    [
        ("Asia/Shanghai", "2026-11-02 10:15:03.999999", "1793585703"),
        ("UTC", "2026-11-02T10:15:03", "1793614503"),
        ("UTC", "2026-11-02 10:15:03+08", "1793585703"),
        ("UTC", "1793585703.75", "1793585703"),
        # The hour that the clock change repeats: its first run.
        ("Europe/Berlin", "2026-10-25 02:30:00", "1792888200"),
        ("UTC", "soon", "soon"),
        ("UTC", None, ""),
    ],
)
def test_rows_of_a_table_become_the_lines_of_a_file(
    zone: str, time: str | None, epoch: str
) -> None:
    reader = table.Table(settings_module.load(), zone)
    row = (time, "17.5", "sales", "Agent/7", "COMPLETECALLER", "4", "6\n1 ", "1", "", None)
    assert reader.line(row) == f"{epoch}|17.5|sales|Agent/7|COMPLETECALLER|4|6 1|1\n"


WORDS = strategies.text(
    strategies.characters(exclude_characters="|\r\n", exclude_categories=["C"]), max_size=8
)
LINES = strategies.builds(
    lambda second, call, event, data: f"{1748908800 + second}|{call}|q|a|{event}|{'|'.join(data)}",
    strategies.integers(0, 200_000),
    strategies.sampled_from(["c1", "c2", "NONE"]),
    strategies.sampled_from(["ENTERQUEUE", "CONNECT", "ABANDON", "COMPLETEAGENT", "MOOD", ""]),
    strategies.lists(WORDS, max_size=5),
)


@hypothesis.settings(max_examples=30, derandomize=True, deadline=None)
@given(strategies.lists(LINES, min_size=1, max_size=12), strategies.integers(0, 12))
def test_a_line_says_the_same_in_whatever_file_it_stands(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")

    def told(*files: list[str]) -> tuple[list[dict[str, Any]], list[tuple[str, bytes]]]:
        events: list[dict[str, Any]] = []
        rejected: list[tuple[str, bytes]] = []
        for number, part in enumerate(files):
            if part:
                content = "".join(f"{line}\n" for line in part).encode()
                found, refused = read(folder / f"queue_log.{number}", content)
                events += [row | {"line_number": 0} for row in found]
                rejected += [(row.code, row.content) for row in refused]
        assert len(events) + len(rejected) == sum(map(len, files))
        return events, rejected

    assert told(lines[:cut], lines[cut:]) == told(lines)
