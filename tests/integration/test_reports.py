"""What becomes of reports that are due: once each, to nobody who may not, and owners are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MailSink

from callhouse import reports, warehouse
from callhouse.bi import notes
from callhouse.errors import CallhouseError
from callhouse.reports import definitions, mail
from callhouse.runner import postgres
from callhouse.security import people
from callhouse.security.trail import journal
from callhouse.settings import Settings

PEOPLE = (
    people.Person("owner", "Owner", (("all", "*"),), mail="owner@example.org"),
    people.Person("lead_a", "Lead", (("team", "A"),), level="lead", mail="lead@example.org"),
    people.Person("leaver", "Leaver", (("team", "A"),), level="lead", mail="leaver@example.org"),
)
REPORT: dict[str, Any] = {
    "title": {"en": "Changes", "zh": "变化"},
    "changes": ["connections_handled"],
    "period": "last_month",
    "schedule": {"every": "day", "at": "07:30"},
    "owner": "owner",
    "recipients": ["lead_a"],
}
# Wednesday, 08:00 in Shanghai.
NOW = datetime(2026, 11, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def people_known(settings: Settings, cluster: postgres.Cluster) -> Settings:
    with people.server(settings) as server:
        for person in PEOPLE:
            people.ensure(settings, server, person)
    return settings


@pytest.fixture
def instance(people_known: Settings, mail_sink: MailSink) -> Iterator[Settings]:
    """An instance without marts: what is due cannot be made, which owners are told."""
    known = people_known
    yield replace(known, environment={**known.environment, **mail_sink.environment()})
    with warehouse.connect(known) as connection:
        connection.execute("truncate ops.report_sends, ops.report_pauses")
    for file in definitions.directory(known).glob("*.yaml"):
        file.unlink()


def told(settings: Settings) -> list[dict[str, Any]]:
    """What the audit trail will collect about reports."""
    events = []
    for file in sorted(journal.directory(settings).glob("callhouse-*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        events += [json.loads(line) for line in lines if line]
    return [event for event in events if event["action"] == "report"]


def states(settings: Settings) -> list[tuple[str, str]]:
    rows = reports.history(settings)
    return [(row["person"], row["status"]) for row in reversed(rows)]


def say(_: str) -> None:
    pass


def test_what_is_due_is_taken_once(instance: Settings, mail_sink: MailSink) -> None:
    definitions.write(instance, "daily", REPORT)
    assert reports.send_due(instance, say, NOW) == [], "nobody is sent what was due before"
    assert reports.send_due(instance, say, NOW + timedelta(hours=20)) == []
    assert states(instance) == [("lead_a", "subscribed")]
    tomorrow = NOW + timedelta(days=1)
    (outcome,) = reports.send_due(instance, say, tomorrow)
    assert outcome.due_at == datetime(2026, 11, 4, 23, 30, tzinfo=UTC)
    assert (outcome.person, outcome.status) == ("lead_a", "failed")
    assert reports.send_due(instance, say, tomorrow + timedelta(minutes=5)) == []
    # After days without a look only the last one is sent.
    (later,) = reports.send_due(instance, say, NOW + timedelta(days=5))
    assert later.due_at == datetime(2026, 11, 8, 23, 30, tzinfo=UTC)
    assert mail_sink.to("lead@example.org") == []


def test_a_failed_report_tells_its_owner_and_the_trail(
    instance: Settings, mail_sink: MailSink
) -> None:
    report = definitions.write(instance, "daily", REPORT)
    before = len(told(instance))
    (outcome,) = reports.send(instance, report, say)
    assert outcome.status == "failed"
    (message,) = mail_sink.messages
    assert message["To"] == "owner@example.org"
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "lead_a" in text and str(outcome.detail) in " ".join(text.split())
    # The database's words may quote rows: they are in no mail.
    assert "relation" not in text
    (event,) = told(instance)[before:]
    assert (event["person"], event["outcome"], event["row_count"]) == ("lead_a", "failed", None)
    assert event["object_name"] == "changes of connections_handled"


def test_changes_that_no_team_has_are_no_empty_page(
    instance: Settings, mail_sink: MailSink
) -> None:
    report = definitions.write(instance, "daily", {**REPORT, "changes": ["calls_offered"]})
    (outcome,) = reports.send(instance, report, say)
    assert outcome.status == "failed"
    assert "calls_offered is of queues" in str(outcome.detail)
    assert [message["To"] for message in mail_sink.messages] == ["owner@example.org"]


def test_a_board_of_one_source_shows_one_with_rows_and_names_the_others(
    instance: Settings, tmp_path: Path
) -> None:
    """The board would choose the first by name, of which the period may have nothing."""
    relation = "bi.fct_calls"
    content = {key: REPORT[key] for key in ("title", "schedule")}
    content |= {"board": "agent_coaching_pack", "period": "last_week"}
    report = definitions.parse("pack", content)

    def chosen(days: dict[str, str]) -> tuple[list[str], list[str]]:
        with warehouse.connect(instance) as connection:
            connection.execute(f"truncate {relation}".encode())
            insert = f"insert into {relation} values (%s, %s)".encode()
            for pair in days.items():
                connection.execute(insert, pair)
            person = reports.recipient(instance, connection, "lead_a")
        drawing = reports._Drawing(instance, report, person, NOW, None, tmp_path)
        before = len(drawing.heading)
        return list(drawing._filters().values()), drawing.heading[before:]

    with warehouse.connect(instance) as connection:
        connection.execute(f"create table {relation} (source text, business_day date)".encode())
        connection.execute(f"grant select on {relation} to lead_a".encode())
    try:
        assert chosen({"a": "1999-01-04", "b": "2026-10-26"}) == (["b"], [])
        values, (line,) = chosen({"a": "1999-01-04", "b": "2026-10-26", "c": "2026-11-01"})
        assert values == ["b"]
        assert line == (
            "Source: b. Not in it: c; each has a report of its own, with source=… as its filter."
        )
        assert chosen({"b": "1999-01-04", "a": "2026-11-02"}) == (["a"], [])
        with pytest.raises(CallhouseError, match="lead_a sees no row"):
            chosen({})
    finally:
        with warehouse.connect(instance) as connection:
            connection.execute(f"drop table {relation}".encode())


def test_who_is_no_longer_entitled_gets_nothing(
    instance: Settings, mail_sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = definitions.write(instance, "daily", {**REPORT, "recipients": ["leaver", "nobody"]})
    drawn: list[str] = []

    def draw(drawing: Any) -> Any:
        """The entitlement ends while the report is drawn."""
        drawn.append(drawing.person.name)
        with people.server(instance) as server:
            people.revoke(server, "leaver", None, "owner", "moved")
        return reports._Drawn(b"picture", b"document", [])

    monkeypatch.setattr(reports._Drawing, "draw", draw)
    first = {one.person: one for one in reports.send(instance, report, say)}
    assert drawn == ["leaver"]
    assert first["leaver"].status == "refused" and first["nobody"].status == "refused"
    again = {one.person: one for one in reports.send(instance, report, say)}
    assert drawn == ["leaver"], "nothing is drawn for who is not entitled"
    assert again["leaver"].detail == "is not entitled to anything now"
    assert mail_sink.to("leaver@example.org") == []
    assert {message["To"] for message in mail_sink.messages} == {"owner@example.org"}
    assert {event["outcome"] for event in told(instance) if event["person"] == "leaver"} == {
        "refused"
    }
    with people.server(instance) as server:
        people.close(server, "leaver", "owner", "left")
    closed = {one.person: one for one in reports.send(instance, report, say)}
    assert closed["leaver"].detail == "has left"


def _drawn(_drawing: Any) -> Any:
    return reports._Drawn(b"picture", b"document", [])


def test_a_mail_that_the_server_refuses_has_failed(
    instance: Settings, mail_sink: MailSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports._Drawing, "draw", _drawn)
    report = definitions.write(instance, "daily", REPORT)
    mail_sink.refuses.add("lead@example.org")
    (outcome,) = reports.send(instance, report, say)
    assert outcome.status == "failed" and "did not take it" in str(outcome.detail)
    assert [message["To"] for message in mail_sink.messages] == ["owner@example.org"]
    mail_sink.refuses.clear()
    (outcome,) = reports.send(instance, report, say)
    assert outcome.status == "sent"
    assert len(mail_sink.to("lead@example.org")) == 1


def test_without_a_mail_server_it_is_kept_and_status_says_so(
    instance: Settings, people_known: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports._Drawing, "draw", _drawn)
    report = definitions.write(instance, "daily", REPORT)
    (outcome,) = reports.send(people_known, report, say)
    assert outcome.status == "kept"
    assert str(outcome.detail).startswith(str(mail.directory(people_known)))
    found = reports.summary(people_known)
    assert found["mail_server"] is None and found["subscriptions"] == 1
    assert found["last_seven_days"] == {"kept": 1}
    assert "no mail server, kept in" in reports.sentence(found)


def test_nothing_is_sent_while_paused_nor_what_was_due_meanwhile(
    instance: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports._Drawing, "draw", _drawn)
    # Moments are compared with the clock of the pause.
    now = datetime.now(UTC)
    minutes = (now + timedelta(hours=8, minutes=-1)).strftime("%H:%M")
    definitions.write(instance, "daily", {**REPORT, "schedule": {"every": "day", "at": minutes}})
    assert reports.send_due(instance, say, now - timedelta(days=2)) == []
    reports.pause(instance, "daily", "owner")
    assert reports.send_due(instance, say, now) == []
    assert (
        next(row for row in reports.listed(instance) if row["report"] == "daily")["state"]
        == "paused"
    )
    reports.resume(instance, "daily")
    assert reports.send_due(instance, say, now) == []
    (outcome,) = reports.send_due(instance, say, now + timedelta(days=1))
    assert outcome.status == "sent"


def test_a_mail_that_was_interrupted_is_told_and_not_repeated(
    instance: Settings, mail_sink: MailSink, connection: Any
) -> None:
    definitions.write(instance, "daily", REPORT)
    connection.execute(
        "insert into ops.report_sends (report, person, due_at, status, started_at)"
        " values ('daily', 'lead_a', %s, 'sending', now() - interval '2 hours')",
        [NOW],
    )
    connection.commit()
    (outcome,) = reports.send_due(instance, say, NOW + timedelta(hours=1))
    assert (outcome.status, outcome.detail) == (
        "failed", "it was interrupted, and may have been sent"
    )  # fmt: skip
    assert [message["To"] for message in mail_sink.messages] == ["owner@example.org"]
    assert reports.send_due(instance, say, NOW + timedelta(hours=1)) == []


def test_the_access_file_says_where_mails_go(instance: Settings, tmp_path: Path) -> None:
    file = tmp_path / "access.csv"
    file.write_text(
        "person,label,level,scope,mail,language,time_zone\n"
        "from_file,Lead,lead,team=A,b@example.org,zh,America/New_York\n",
        encoding="utf-8",
    )
    assert people.synchronise(instance, file, "git") == ["from_file: brought up to date"]
    assert people.synchronise(instance, file, "git") == []
    with warehouse.connect(instance) as connection:
        found = reports.recipient(instance, connection, "from_file")
    assert (found.mail, found.language, found.time_zone, found.refusal) == (
        "b@example.org", "zh", "America/New_York", None,
    )  # fmt: skip
    file.write_text(file.read_text(encoding="utf-8").replace("zh", "de"), encoding="utf-8")
    with pytest.raises(CallhouseError, match="'de' is no language"):
        people.synchronise(instance, file, "git")


def test_readers_see_neither_addresses_nor_what_was_sent(
    instance: Settings, connection: Any
) -> None:
    reach: Callable[[str], bool] = lambda relation: bool(  # noqa: E731
        warehouse.one(
            connection, "select has_any_column_privilege('callhouse_reader', %s, 'select')",
            [relation],
        )[0]
    )  # fmt: skip
    assert reach("bi.data_status")
    for relation in ("ops.report_sends", "ops.report_pauses", "sec.people"):
        assert not reach(relation), relation


def test_a_note_is_listed_until_it_is_withdrawn(instance: Settings, connection: Any) -> None:
    connection.execute(
        "insert into ops.sources (source, vendor, label, time_zone)"
        " values ('one', 'delimited', 'One', 'UTC'), ('two', 'delimited', 'Two', 'UTC')"
    )
    connection.commit()
    days = (date(2026, 11, 10), date(2026, 11, 12))
    number = notes.add(instance, " Double  Eleven ", days, by="analyst")
    (row,) = notes.listed(instance)
    assert (row["annotation_id"], row["kind"], row["title"]) == (
        number,
        "campaign",
        "Double Eleven",
    )
    rows = connection.execute(
        "select business_day, source, title from bi.fct_annotations order by 1, 2"
    ).fetchall()
    # Of every source: it stands with each.
    assert rows == [
        (date(2026, 11, day), source, "Double Eleven")
        for day in (10, 11, 12)
        for source in ("one", "two")
    ]
    for start, end, found in (
        (date(2026, 11, 1), date(2026, 11, 10), 0),
        (date(2026, 11, 1), date(2026, 11, 11), 1),
        (date(2026, 11, 12), date(2026, 12, 1), 1),
        (date(2026, 11, 13), date(2026, 12, 1), 0),
    ):
        assert len(notes.within(connection, (start, end))) == found
    assert notes.withdraw(instance, number, "analyst") == "Double Eleven"
    assert notes.listed(instance) == []
    assert connection.execute("select from bi.fct_annotations").fetchall() == []
    with pytest.raises(CallhouseError, match="no note"):
        notes.withdraw(instance, number, "analyst")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "  "}, "1 to 80 characters"),
        ({"title": "x" * 81}, "1 to 80 characters, this one 81"),
        ({"kind": "party"}, "'party' is not one of campaign"),
        ({"source": "nowhere"}, "no source 'nowhere'"),
        ({"days": (date(2026, 11, 2), date(2026, 11, 1))}, "2026-11-01 is before 2026-11-02"),
    ],
)
def test_a_note_that_cannot_be_is_refused(
    instance: Settings, change: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"title": "A", "days": (date(2026, 11, 1),) * 2, "by": "a", **change}
    with pytest.raises(CallhouseError, match=said):
        notes.add(instance, given.pop("title"), given.pop("days"), **given)
    assert notes.listed(instance) == []
