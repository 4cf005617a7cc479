"""Reports by mail from the running product, saved templates, and analyses without SQL."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.conftest import MailSink
from tests.e2e.test_access import Session

from callhouse import reports, warehouse
from callhouse.reports import definitions
from callhouse.security import people, trail
from callhouse.settings import Settings

pytestmark = pytest.mark.timeout(1800)

START, END = "2026-11-02", "2026-11-09"
AS_OF = date(2026, 11, 9)
# Written by hand: whose agents each of them may see.
MODEL = {"lead_gz_a": "team_id = 'GZ-A'", "manager_gd": "region_code = 'CN-GD'"}
EVERY_KIND = {**MODEL, "director": "true", "agent_103": "agent_id = '103'"}
# Sees groups only, and no row of what the board is made of.
SEES_NONE = "executive"


@pytest.fixture
def recipients(product: Settings) -> Iterator[None]:
    """All with an address and, for the time of the test, the right to export."""
    with warehouse.connect(product) as connection:
        for name in (*EVERY_KIND, SEES_NONE):
            people.contact(connection, name, mail=f"{name}@example.org")
        before = connection.execute(
            "select person, rights, language from sec.people where person = any(%s)",
            [[*EVERY_KIND, SEES_NONE]],
        ).fetchall()
        connection.execute(
            "update sec.people set rights = array['export'], language = case person"
            " when 'lead_gz_a' then 'zh' else 'en' end where person = any(%s)",
            [[*EVERY_KIND, SEES_NONE]],
        )
    yield
    with warehouse.connect(product) as connection:
        for name, rights, language in before:
            connection.execute(
                "update sec.people set rights = %s, language = %s, mail = null where person = %s",
                [rights, language, name],
            )


@pytest.fixture
def sender(product: Settings, mail_sink: MailSink, recipients: None) -> Settings:
    del recipients
    return replace(product, environment={**product.environment, **mail_sink.environment()})


def say(line: str) -> None:
    print(line)


def agents(settings: Settings, condition: str) -> dict[str, int]:
    """Connections handled by each agent and team in the week, for those who did any."""
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select agent_name || ', ' || team_name, sum(connections_handled)"
            " from marts.agg_agent_daily where source = 'sample_hotline'"
            f" and business_day >= '{START}' and business_day < '{END}' and {condition}"
            " group by 1".encode()
        ).fetchall()
    return {name: int(number) for name, number in rows}


def parts(message: EmailMessage) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.setdefault(part.get_content_type(), []).append(content)
    return found


def test_people_of_every_kind_get_a_board_with_their_own_rows(
    sender: Settings, mail_sink: MailSink, artefacts: Path
) -> None:
    report = definitions.find(sender, "agent_coaching_pack")
    drawings = sender.home / "reports" / "drawings"
    left = set(drawings.iterdir()) if drawings.exists() else set()
    *outcomes, refused = reports.send(sender, report, say, (*EVERY_KIND, SEES_NONE), AS_OF)
    assert [one.status for one in outcomes] == ["sent"] * len(EVERY_KIND), outcomes
    assert refused.status == "failed" and "sees no row" in str(refused.detail)
    assert not mail_sink.to(f"{SEES_NONE}@example.org")
    everybody = set(agents(sender, "true"))
    subjects = set()
    for name, condition in EVERY_KIND.items():
        wanted = agents(sender, condition)
        foreign = {who.split(",")[0] for who in everybody} - {who.split(",")[0] for who in wanted}
        assert foreign or name == "director", "all but one do not see everybody"
        (message,) = mail_sink.to(f"{name}@example.org")
        subjects.add(str(message["Subject"]))
        found = parts(message)
        assert {kind: len(some) for kind, some in found.items()} == {
            "text/plain": 1, "text/html": 1, "image/png": 1, "application/pdf": 1, "text/csv": 1,
        }  # fmt: skip
        (artefacts / f"report_{name}.png").write_bytes(found["image/png"][0])
        (artefacts / f"report_{name}.pdf").write_bytes(found["application/pdf"][0])
        assert found["image/png"][0].startswith(b"\x89PNG")
        assert found["application/pdf"][0].startswith(b"%PDF")
        header, *rows = csv.reader(io.StringIO(found["text/csv"][0].decode("utf-8-sig")))
        assert {f"{row[0]}, {row[1]}": int(row[2]) for row in rows} == wanted
        assert header[0] == ("坐席姓名" if name == "lead_gz_a" else "Agent name")
        text = b" ".join(content for some in found.values() for content in some)
        assert not [who for who in foreign if who.encode() in text]
    assert subjects == {
        "坐席辅导材料: 2026-11-02 至 2026-11-08", "Agent coaching pack: 2026-11-02 to 2026-11-08",
    }  # fmt: skip
    assert set(drawings.iterdir()) <= left, "pictures stay"
    # The trail: who got which board with how many rows.
    trail.collect(sender)
    listed = [
        entry
        for entry in trail.list_entries(sender, "lead_gz_a")
        if entry["action"] == "report" and entry["object_name"] == "agent_coaching_pack"
    ]
    assert (listed[0]["outcome"], listed[0]["is_export"]) == ("sent", True)
    assert listed[0]["row_count"] == outcomes[0].row_count
    assert outcomes[0].row_count and outcomes[0].row_count > len(agents(sender, MODEL["lead_gz_a"]))


def test_changes_of_a_month_are_the_recipients_own(sender: Settings, mail_sink: MailSink) -> None:
    report = definitions.find(sender, "monthly_changes")
    outcomes = reports.send(sender, report, say, tuple(MODEL), date(2026, 12, 1))
    assert [one.status for one in outcomes] == ["sent", "sent"], outcomes
    # Calls that nobody took are of no team: what counts them is not told to a lead (decision 61).
    rows = {}
    for name in MODEL:
        (message,) = mail_sink.to(f"{name}@example.org")
        _, *rows[name] = csv.reader(io.StringIO(parts(message)["text/csv"][0].decode("utf-8-sig")))
    assert (len(rows["manager_gd"]), len(rows["lead_gz_a"])) == (7, 3)
    offered = "select sum(calls_offered) from marts.fct_queue_visits"
    handled = (
        "select sum(handle_seconds) / sum(connections_handled) from marts.fct_agent_connections"
    )
    aht = {name: told[-2] for name, told in rows.items()}
    for name, row, statement in (
        ("manager_gd", rows["manager_gd"][0], offered),
        ("manager_gd", aht["manager_gd"], handled),
        ("lead_gz_a", aht["lead_gz_a"], handled),
    ):
        with warehouse.connect(sender) as connection:
            wanted = [
                warehouse.one(
                    connection,
                    f"{statement} where date_trunc('month', business_day) = '{month}'"
                    f" and {MODEL[name]}",
                )[0]
                for month in ("2026-11-01", "2026-10-01")
            ]
        assert [float(cell) for cell in row[1:3]] == pytest.approx([*map(float, wanted)]), (
            name,
            row,
        )
    assert aht["lead_gz_a"][1:3] != aht["manager_gd"][1:3]


def test_a_saved_chart_reloads_identically_and_becomes_a_report(
    sender: Settings, mail_sink: MailSink
) -> None:
    director, lead = Session(sender, "director"), Session(sender, "lead_gz_a")
    listed = director.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    dataset = next(one["id"] for one in listed if one["table_name"] == "fct_calls")
    form = {
        "datasource": f"{dataset}__table", "viz_type": "table", "query_mode": "raw",
        "all_columns": ["call_key", "arrived_at"], "row_limit": 10_000, "page_length": 20,
        "adhoc_filters": [
            {"clause": "WHERE", "expressionType": "SIMPLE", "subject": "business_day",
             "operator": "TEMPORAL_RANGE", "comparator": "No filter"},
            {"clause": "WHERE", "expressionType": "SIMPLE", "subject": "source",
             "operator": "==", "comparator": "sample_hotline"},
        ],
    }  # fmt: skip
    name = "Template of the test: calls of a day"
    saved = director.post(
        "/api/v1/chart/",
        {"slice_name": name, "viz_type": "table", "datasource_id": dataset,
         "datasource_type": "table", "params": json.dumps(form)},
    )  # fmt: skip
    assert saved.status_code == 201, saved.text
    number = saved.json()["id"]
    try:
        for person in (director, lead):
            reloaded = person.get(f"/api/v1/explore/?slice_id={number}").json()["result"]
            assert form.items() <= reloaded["form_data"].items()
        changed = lead.http.put(
            f"{lead.base}/api/v1/chart/{number}", json={"slice_name": "mine"}, timeout=60
        )
        assert changed.status_code in (403, 404), "it is shared to be read"
        content: dict[str, Any] = {
            "title": {"en": name, "zh": name}, "chart": name, "period": "last_day",
            "schedule": {"every": "day", "at": "07:30"},
        }  # fmt: skip
        report = definitions.parse("saved_chart", content)
        (outcome,) = reports.send(sender, report, say, ("lead_gz_a",), AS_OF)
    finally:
        director.http.delete(f"{director.base}/api/v1/chart/{number}", timeout=60)
    assert outcome.status == "sent", outcome
    (message,) = mail_sink.to("lead_gz_a@example.org")
    found = parts(message)
    _, *rows = csv.reader(io.StringIO(found["text/csv"][0].decode("utf-8-sig")))
    with warehouse.connect(sender) as connection:
        calls = connection.execute(
            "select call_key, team_id = 'GZ-A', arrived_at from marts.fct_calls"
            " where source = 'sample_hotline' and business_day = '2026-11-08'"
        ).fetchall()
    zone = ZoneInfo("Asia/Shanghai")
    assert {(row[0], row[1]) for row in rows} == {
        (key, at.astimezone(zone).isoformat(timespec="seconds")) for key, own, at in calls if own
    }
    assert outcome.row_count == len(rows)
    # Canaries: calls of other teams are in no part of the mail.
    text = b" ".join(content for some in found.values() for content in some)
    foreign = [key for key, own, _ in calls if not own]
    assert foreign and not [key for key in foreign if f"{key}\r".encode() in text
                            or f"{key},".encode() in text]  # fmt: skip


@pytest.mark.parametrize("person", ["analyst", "manager_gd"])
@pytest.mark.parametrize(
    ("table", "dimensions", "metric"),
    [
        ("agg_calls_daily", ["queue_name", "channel", "business_type"], "calls_offered"),
        ("fct_calls", ["team_name", "outcome", "week_start"], "calls"),
    ],
)
def test_three_dimensions_are_combined_without_sql(
    product: Settings, person: str, table: str, dimensions: list[str], metric: str
) -> None:
    session = Session(product, person)
    listed = session.get("/api/v1/dataset/?q=(page_size:100)").json()["result"]
    dataset = next(one["id"] for one in listed if one["table_name"] == table)
    assert session.get(f"/api/v1/explore/?datasource_id={dataset}&datasource_type=table").ok
    answer = session.ask(dataset, {"columns": dimensions, "metrics": [metric], "row_limit": 10_000})
    rows = answer.json()["result"][0]["data"]
    condition = MODEL.get(person, "true")
    columns = ", ".join(dimensions)
    with warehouse.connect(product) as connection:
        groups, total = warehouse.one(
            connection,
            f"select count(*), sum(n) from (select {columns}, sum({metric}) as n"
            f" from marts.{table} where {condition} group by {columns}) as groups",
        )
    assert groups > 10
    assert (len(rows), sum(row[metric] for row in rows)) == (groups, total)
