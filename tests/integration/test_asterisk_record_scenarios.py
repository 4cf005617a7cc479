"""Calls worked by hand as queue log, CDR and CEL, landed in every order."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import zoneinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from callhouse import landing, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "asterisk"
SCENARIOS: list[dict[str, Any]] = yaml.safe_load(
    (FIXTURES / "record_scenarios.yaml").read_text("utf-8")
)
NAMES = [scenario["scenario"] for scenario in SCENARIOS]
KINDS = {"queue_log": "log", "cdr": "cdr", "cel": "cel"}
ZONE = zoneinfo.ZoneInfo("Asia/Shanghai")
FIRST = datetime.date(2025, 3, 1)
NO_ONE = ("", "NONE")
COLUMNS = (
    "hotline_id", "channel", "outcome", "abandon_stage", "hangup_party", "ivr_seconds",
    "data_issues", "business_day", "arrived_at", "ended_at",
)  # fmt: skip
FEED = """
feed: asterisk_{kind}
vendor: asterisk
records: {kind}
exchange: asterisk_queue_log
hotlines: "400[0-9]{{7}}"
agent: "Agent/{{party}}"
"""


def day_of(scenario: dict[str, Any]) -> datetime.date:
    """Three days apart: one is over midnight."""
    return FIRST + datetime.timedelta(days=3 * SCENARIOS.index(scenario))


def moment(scenario: dict[str, Any], text: str) -> datetime.datetime:
    day = day_of(scenario) + datetime.timedelta(days=text.startswith("+"))
    return datetime.datetime.combine(day, datetime.time.fromisoformat(text.lstrip("+")), ZONE)


def rows_of(scenario: dict[str, Any], section: str) -> list[list[str]]:
    return [line.split("|") for line in scenario.get(section, "").splitlines()]


def own(scenario: dict[str, Any], identity: str) -> str:
    return f"{scenario['scenario']}.{identity}"


def log_line(scenario: dict[str, Any], cells: list[str]) -> str:
    time, call, queue, agent, *rest = cells
    epoch = int(moment(scenario, time).timestamp())
    return "|".join([str(epoch), own(scenario, call), queue, agent, *rest])


def cdr_line(scenario: dict[str, Any], cells: list[str]) -> str:
    start, answer, end, duration, billsec, disposition, source, destination = cells[:8]
    channel, peer, application, data, unique, linked, sequence = cells[8:]
    times = [
        f"{moment(scenario, time):%Y-%m-%d %H:%M:%S}" if time else ""
        for time in (start, answer, end)
    ]
    return quoted(
        "", source, destination, scenario.get("context", "from-trunk"), f"<{source}>", channel,
        peer, application, data, *times, duration, billsec, disposition, "DOCUMENTATION",
        own(scenario, unique), "", "", own(scenario, linked), sequence,
    )  # fmt: skip


def cel_line(scenario: dict[str, Any], cells: list[str]) -> str:
    time, event, channel, unique, linked, application, data, number, *extra = cells
    return quoted(
        event, f"{moment(scenario, time).timestamp():.6f}", "", number, "", "", "", "s",
        "from-trunk", channel, application, data, "DOCUMENTATION", "", own(scenario, unique),
        own(scenario, linked), "", "", "", "|".join(extra),
    )  # fmt: skip


def quoted(*cells: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return buffer.getvalue().rstrip("\n")


LINES = {"queue_log": log_line, "cdr": cdr_line, "cel": cel_line}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file per kind of record, with all scenarios."""
    folder = tmp_path_factory.mktemp("records")
    found = {}
    for kind, line in LINES.items():
        lines = [
            line(scenario, cells)
            for scenario in SCENARIOS
            for cells in rows_of(scenario, KINDS[kind])
        ]
        found[kind] = folder / kind
        found[kind].write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return found


@pytest.fixture(scope="module", params=list(itertools.permutations(KINDS)), ids=" ".join)
def landed(
    request: pytest.FixtureRequest,
    settings: Settings,
    cluster: postgres.Cluster,
    files: dict[str, Path],
) -> Settings:
    """All scenarios, their kinds of record landed in this order."""
    if not settings.feeds_directory.exists():
        settings.feeds_directory.mkdir(parents=True)
        for kind in ("cdr", "cel"):
            path = settings.feeds_directory / f"asterisk_{kind}.yaml"
            path.write_text(FEED.format(kind=kind), encoding="utf-8")
        transform.prepare(settings, lambda _line: None)
        transform.dbt.run(
            settings, "run", "--select", "path:models/staging", report=transform.dbt.quiet
        )
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        connection.execute(
            "truncate staging.asterisk_events, staging.asterisk_cdr_records, "
            "staging.asterisk_cel_events, staging.asterisk_calls, ops.units cascade"
        )
    for kind in request.param:
        [result] = landing.land(settings, f"asterisk_{kind}", [files[kind]])
        assert (result.status, result.quarantined, result.duplicates) == ("landed", 0, 0)
        assert result.staged == result.read > 20
    return settings


def asked(settings: Settings, query: str, scenario: dict[str, Any]) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(query.encode(), [f"{scenario['scenario']}.%"]).fetchall()


def test_there_are_enough_scenarios() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 15
    for scenario in SCENARIOS:
        assert set(scenario) <= {"scenario", *KINDS.values(), "context", "calls", "connections"}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_calls(scenario: dict[str, Any], landed: Settings) -> None:
    found = {
        row[0].removeprefix(f"{scenario['scenario']}."): dict(zip(COLUMNS, row[1:], strict=True))
        for row in asked(
            landed,
            f"select call_id, {', '.join(COLUMNS)} from intake.stg_asterisk__calls "
            "where call_id like %s",
            scenario,
        )
    }
    assert found.keys() == scenario["calls"].keys()
    for call, expected in scenario["calls"].items():
        assert found[call]["business_day"] == day_of(scenario)
        for column, wanted in expected.items():
            if column.endswith("_at") and wanted:
                wanted = moment(scenario, wanted)
            value = found[call][column]
            assert (float(value) if isinstance(value, Decimal) else value) == wanted, (call, column)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_connections(scenario: dict[str, Any], landed: Settings) -> None:
    found: dict[str, dict[str, Any]] = {}
    for call, agent, talk in asked(
        landed,
        "select call_id, agent_id, talk_seconds from intake.stg_asterisk__agent_connections "
        "where call_id like %s",
        scenario,
    ):
        own_id = call.removeprefix(f"{scenario['scenario']}.")
        assert agent not in found.setdefault(own_id, {})
        found[own_id][agent] = None if talk is None else float(talk)
    assert found == scenario.get("connections", {})
