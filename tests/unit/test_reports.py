"""Reports by mail: when they are due, what they are, how mails are made, and the statistics."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from callhouse import reports
from callhouse import settings as settings_module
from callhouse.bi import layout, render, superset_report
from callhouse.errors import CallhouseError
from callhouse.reports import changes, definitions, mail, pages
from callhouse.reports.changes import Change
from callhouse.reports.schedule import Schedule, period
from callhouse.security import people
from callhouse.settings import LANGUAGES, Settings

SHIPPED = {
    "agent_coaching_pack", "monthly_changes", "monthly_service_review", "product_line_peaks",
    "regional_comparison", "weekly_operations",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def moments(schedule: Schedule, zone: str, start: datetime, days: int) -> list[datetime]:
    """Due moments that somebody who looks every ten minutes finds, local."""
    found: list[datetime] = []
    for minutes in range(0, days * 24 * 60, 10):
        latest = schedule.latest(start + timedelta(minutes=minutes), ZoneInfo(zone))
        assert latest <= start + timedelta(minutes=minutes)
        if latest >= start and latest not in found:
            found.append(latest)
    return [one.astimezone(ZoneInfo(zone)) for one in found]


@pytest.mark.parametrize(
    ("start", "odd"),
    [
        # Clocks go from 02:00 to 03:00 on 28 March, and from 03:00 to 02:00 on 31 October.
        (datetime(2027, 3, 26, 12, tzinfo=UTC), "2027-03-28T03:30:00+02:00"),
        (datetime(2027, 10, 29, 12, tzinfo=UTC), "2027-10-31T02:30:00+02:00"),
    ],
)
def test_a_daily_report_is_due_once_on_each_day_across_daylight_saving(
    start: datetime, odd: str
) -> None:
    found = moments(Schedule("day", time(2, 30)), "Europe/Berlin", start, 5)
    assert [one.date() for one in found] == [
        start.date() + timedelta(days=number) for number in range(1, 6)
    ]
    assert odd in [one.isoformat() for one in found]
    assert sum(one.strftime("%H:%M") == "02:30" for one in found) >= 4


def test_the_recipients_clock_decides() -> None:
    weekly = Schedule.parse({"every": "week", "day": "monday", "at": "07:30"})
    now = datetime(2026, 11, 9, 0, 0, tzinfo=UTC)  # Monday 08:00 in Shanghai, Sunday in New York
    assert weekly.latest(now, ZoneInfo("Asia/Shanghai")).isoformat() == "2026-11-08T23:30:00+00:00"
    assert weekly.latest(now, ZoneInfo("America/New_York")) == datetime(
        2026, 11, 2, 12, 30, tzinfo=UTC
    )


def test_months_of_every_length_have_their_day() -> None:
    monthly = Schedule.parse({"every": "month", "day": 28, "at": "08:00"})
    found = moments(monthly, "Asia/Shanghai", datetime(2027, 1, 1, tzinfo=UTC), 90)
    assert [one.date().isoformat() for one in found] == ["2027-01-28", "2027-02-28", "2027-03-28"]


def test_periods_are_complete() -> None:
    on = date(2027, 1, 4)  # a Monday
    assert period("last_day", on) == (date(2027, 1, 3), on)
    assert period("last_week", on) == (date(2026, 12, 28), on)
    assert period("last_week", date(2027, 1, 3)) == (date(2026, 12, 21), date(2026, 12, 28))
    assert period("last_month", on) == (date(2026, 12, 1), date(2027, 1, 1))


def test_shipped_reports_name_boards_tiles_and_metrics_that_exist(home: Settings) -> None:
    found = definitions.load(home)
    assert set(found) == SHIPPED
    metrics = {
        metric["metric_name"]
        for file in (render.COMMITTED / "datasets").rglob("*.yaml")
        for metric in yaml.safe_load(file.read_text(encoding="utf-8"))["metrics"]
    }
    for report in found.values():
        assert report.recipients == () and not report.is_own, "a template sends nothing by itself"
        assert set(report.changes) <= metrics
        if report.board:
            board = layout.load(render.BOARDS / f"{report.board}.yaml", "en")
            assert set(report.rows) <= {tile.name for tile in board.tiles}
            assert any(one.kind == "time" for one in board.filters), "its period could not be set"


GOOD: dict[str, Any] = {
    "title": {"en": "Week", "zh": "周报"},
    "board": "operations_overview",
    "period": "last_week",
    "filters": {"region": "Guangdong"},
    "schedule": {"every": "week", "day": "monday", "at": "07:30"},
    "owner": "director",
    "recipients": ["lead_gz_a"],
}


def test_an_own_report_is_kept_as_it_was_given_and_replaces_the_shipped_one(
    home: Settings,
) -> None:
    written = definitions.write(home, "weekly_operations", GOOD)
    assert definitions.content_of(written) == GOOD
    assert definitions.find(home, "weekly_operations") == written
    assert written.recipients == ("lead_gz_a",)
    assert definitions.remove(home, "weekly_operations"), "the shipped one takes its place"
    assert definitions.find(home, "weekly_operations").recipients == ()
    with pytest.raises(CallhouseError, match="ships"):
        definitions.remove(home, "weekly_operations")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"chart": "Calls"}, "exactly one"),
        ({"board": ""}, "exactly one"),
        ({"title": {"en": "Week"}}, "title in en and zh"),
        ({"period": "last_year"}, "period 'last_year'"),
        ({"owner": ""}, "needs an owner"),
        ({"recipients": ["Lead@example.org"]}, "cannot be a person's login"),
        ({"mail": "somebody@example.org"}, "unknown keys mail"),
        ({"board": "", "chart": "Calls"}, "only boards take filters"),
        ({"board": "", "filters": {}, "changes": ["calls"]}, "last_month"),
        ({"schedule": {"every": "week", "day": 3, "at": "07:30"}}, "none of day, week"),
        ({"schedule": {"every": "month", "day": 31, "at": "07:30"}}, "none of day, week"),
        ({"schedule": {"every": "day", "at": "25:00"}}, "needs every and at"),
    ],
)
def test_a_malformed_report_is_refused_with_a_sentence(change: dict[str, Any], told: str) -> None:
    with pytest.raises(CallhouseError, match=told):
        definitions.parse("weekly", {**GOOD, **change})
    with pytest.raises(CallhouseError, match="no name of a report"):
        definitions.parse("../weekly", GOOD)


def test_both_languages_have_all_words() -> None:
    assert set(pages.WORDS) == set(LANGUAGES)
    assert set(pages.WORDS["en"]) == set(pages.WORDS["zh"])
    assert all(all(words.values()) for words in pages.WORDS.values())


def test_a_mail_carries_picture_within_and_files_attached(home: Settings) -> None:
    message = mail.compose(
        "Week\r\nBcc: other@example.org", ["A <b> line"], ("Open", "http://h/?a=1&b=2"),
        b"\x89PNG", {"week.pdf": b"%PDF", "rows.csv": b"a\r\n"},
    )  # fmt: skip
    file = mail.deliver(home, message, None, "lead_gz_a")
    assert file is not None and Path(file).stat().st_mode & 0o777 == 0o600
    read = message_from_bytes(Path(file).read_bytes(), policy=default)
    assert read["Bcc"] is None and read["Subject"] == "Week Bcc: other@example.org"
    kinds = [(part.get_content_type(), part.get_content_disposition()) for part in read.walk()
             if not part.is_multipart()]  # fmt: skip
    assert kinds == [
        ("text/plain", None), ("text/html", None), ("image/png", "inline"),
        ("application/pdf", "attachment"), ("text/csv", "attachment"),
    ]  # fmt: skip
    page = read.get_body(("html",))
    assert page is not None
    picture = next(part for part in read.walk() if part.get_content_type() == "image/png")
    assert f'src="cid:{picture["Content-ID"][1:-1]}"' in page.get_content()
    assert "A &lt;b&gt; line" in page.get_content()


def test_kept_mails_are_removed_after_a_month(home: Settings) -> None:
    folder = mail.directory(home)
    folder.mkdir(parents=True)
    old = folder / "old.eml"
    old.write_text("rows")
    import os

    then = (datetime.now(UTC) - timedelta(days=mail.KEPT_DAYS + 1)).timestamp()
    os.utime(old, (then, then))
    mail.deliver(home, mail.compose("s", ["l"]), None, "director")
    assert len(list(folder.iterdir())) == 1 and not old.exists()


def test_rows_are_read_by_spreadsheets_and_run_nothing() -> None:
    at = datetime(2026, 11, 8, 16, 30, tzinfo=UTC).timestamp() * 1000
    day = datetime(2026, 11, 8, tzinfo=UTC).timestamp() * 1000
    written = mail.table(
        ["business_day", "arrived_at", "queue", "n"], ["Day", "Arrived", "=Queue", "N"],
        [[day, at, "=cmd|' /C calc'!A0", -3], [day, None, "排队", None]],
        ["business_day", "arrived_at"], "Asia/Shanghai",
    )  # fmt: skip
    assert written.startswith(b"\xef\xbb\xbf"), "spreadsheets know UTF-8 by it"
    rows = list(csv.reader(io.StringIO(written.decode("utf-8-sig"))))
    assert rows == [
        ["Day", "Arrived", "'=Queue", "N"],
        ["2026-11-08", "2026-11-09T00:30:00+08:00", "'=cmd|' /C calc'!A0", "-3"],
        ["2026-11-08", "", "排队", ""],
    ]


def test_two_proportions_worked_by_hand() -> None:
    # 50 of 100 against 70 of 100: pooled 0.6, z = 0.2 / sqrt(0.24 × 0.02) = 2.8868, p = 0.00389.
    assert changes.two_proportions((50, 100), (70, 100)) == pytest.approx(0.003892, abs=1e-6)
    assert changes.two_proportions((50, 100), (50, 100)) == 1.0
    assert changes.two_proportions((100, 100), (200, 200)) == 1.0
    assert changes.two_proportions((5, 10), (7, 10)) is None, "too few calls"
    assert changes.two_proportions((150, 100), (70, 100)) is None, "is no share"


def test_welch_worked_by_hand() -> None:
    # Means 12 and 18, variances 2.5 and 10 of five each: t = 6 / sqrt(2.5) = 3.7947, 5.88 degrees.
    p = changes.welch([10, 11, 12, 13, 14], [14, 16, 18, 20, 22])
    assert p == pytest.approx(0.00927, abs=1e-4)
    assert changes.welch([1, 2, 3, 4], [5, 6, 7, 8, 9]) is None, "too few days"
    assert changes.welch([3] * 6, [3] * 6) is None, "nothing varies"


def change(name: str, p: float | None) -> Change:
    return Change(name, (name, name), "count", 1.0, 2.0, "welch", p)


def test_p_values_are_adjusted_for_their_number() -> None:
    found = changes.adjusted(
        [change("a", 0.01), change("b", None), change("c", 0.04), change("d", 0.03)]
    )
    # Holm: 3 × 0.01, then 2 × 0.03, then never below the one before.
    assert [one.p_value for one in found] == [
        pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06),
    ]  # fmt: skip
    assert [one.is_significant for one in found] == [True, False, False, False]


def test_numbers_are_written_as_people_write_them() -> None:
    assert pages.number(0.8264, "rate") == "82.6%"
    assert pages.number(331.4, "seconds") == "5:31"
    assert pages.number(-5.2, "seconds") == "-0:05"
    assert pages.number(15355, "count") == "15,355"
    assert pages.number(None, "count") == "–"
    rate = Change("r", ("r", "r"), "rate", 0.8, 0.75)
    assert pages.difference(rate, "en") == "+5.0 pts"
    assert pages.difference(rate, "zh") == "+5.0 个百分点"
    count = Change("c", ("c", "c"), "count", 3000.0, 3100.0, days=(30, 31))
    assert pages.difference(count, "en") == "0 a day (0.0%)", "a day less is no fall"
    less = Change("c", ("c", "c"), "count", 2700.0, 3100.0, days=(30, 31))
    assert pages.difference(less, "en") == "-10 a day (-10.0%)"
    assert pages.difference(less, "zh") == "-10/日 (-10.0%)"
    days = [date(2026, 10, 31), date(2026, 11, 1), date(2026, 10, 5), date(2026, 11, 2)]
    assert pages.ranges(days) == "2026-10-05, 2026-10-31 – 2026-11-02"


def test_where_mails_go_is_checked_with_the_person() -> None:
    good = people.Person("lead_b", "Lead", (), mail="b@example.org", language="zh",
                         time_zone="Asia/Shanghai")  # fmt: skip
    assert good.check() == good
    for field, value in (
        ("mail", "a@example.org, b@example.org"), ("mail", "nobody"), ("language", "de"),
        ("time_zone", "Mars/Olympus"),
    ):  # fmt: skip
        with pytest.raises(CallhouseError, match="is no"):
            people.Person("lead_b", "Lead", (), **{field: value}).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"CALLHOUSE_SMTP_FROM": ""}, "CALLHOUSE_SMTP_FROM"),
        ({"CALLHOUSE_SMTP_SECURITY": "ssl"}, "starttls, tls, none"),
        ({"CALLHOUSE_SMTP_PORT": "0"}, "is no port"),
    ],
)
def test_a_mail_server_is_checked(given: dict[str, str], told: str) -> None:
    server = {"CALLHOUSE_SMTP_HOST": "mail.example.org", "CALLHOUSE_SMTP_FROM": "c@example.org"}
    found = settings_module.load(server).mail_server
    assert found is not None and (found.port, found.security) == (587, "starttls")
    assert settings_module.load({}).mail_server is None
    with pytest.raises(CallhouseError, match=told):
        _ = settings_module.load({**server, **given}).mail_server


def test_what_a_failure_says_holds_no_session() -> None:
    # Playwright's own words: the owner would have been mailed the recipient's cookie.
    error = RuntimeError(
        "Route.fetch: socket hang up\nCall log:\n - → GET http://h/\n - cookie: session=secret"
    )
    assert superset_report._said(error) == "Route.fetch: socket hang up"


def test_words_are_translated_wherever_superset_keeps_them() -> None:
    words = {"Queues": "技能组", "Offered": "呼入量"}
    answer = {
        "slice_name": "Queues",
        "position_json": '{"ROW": {"text": "Queues", "width": 6}}',
        "verbose_map": {"calls_offered": "Offered", "queue": "[not json"},
    }
    assert superset_report._replaced(answer, words) == {
        "slice_name": "技能组",
        "position_json": '{"ROW": {"text": "技能组", "width": 6}}',
        "verbose_map": {"calls_offered": "呼入量", "queue": "[not json"},
    }


DRAWING = """
import pathlib, sys, time
from callhouse import reports, settings
with reports.drawings(settings.load({"CALLHOUSE_HOME": sys.argv[1]})) as folder:
    pathlib.Path(folder, "director.png").write_text("rows")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_report_had_drawn_is_removed_by_the_next(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture has rows of a person: it was left in the system's folder for temporary files."""
    drawing = [
        subprocess.Popen(
            [sys.executable, "-c", DRAWING, str(home.home)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        killed, lives = (Path(str(one.stdout and one.stdout.readline().strip())) for one in drawing)
        assert {killed.parent, lives.parent} == {home.home / "reports" / "drawings"}
        assert {one.stat().st_mode & 0o777 for one in (killed.parent, killed)} == {0o700}
        drawing[0].send_signal(signal.SIGKILL)
        drawing[0].wait(timeout=60)
        reports.sweep(home)
        assert killed.exists(), "as new as one that is about to be locked"
        monkeypatch.setattr(reports, "NOT_LOCKED_YET_SECONDS", 0)
        with reports.drawings(home) as mine:
            assert sorted(mine.parent.iterdir()) == sorted([lives, mine])
        assert list(lives.parent.iterdir()) == [lives]
        assert (lives / "director.png").exists()
    finally:
        for one in drawing:
            one.kill()
            one.wait(timeout=60)
