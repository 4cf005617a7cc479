"""What looks across days: follow-ups by brute force in any order of landing, and roll-ups."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest

from callhouse import landing, semantic, transform, warehouse
from callhouse.runner import postgres
from callhouse.semantic import query
from callhouse.settings import Settings
from callhouse.transform import dbt, state

# Clocks in Berlin are put back on 26 October 2025, and the year ends among these days. The gaps
# leave windows open until a much later day closes them.
DAYS = (
    date(2025, 10, 19), date(2025, 10, 25), date(2025, 10, 26), date(2025, 10, 27),
    date(2025, 11, 2), date(2025, 12, 30), date(2025, 12, 31), date(2026, 1, 1),
    date(2026, 1, 8), date(2026, 1, 9),
)  # fmt: skip
# Of one feed all days come at once; of the other some first, then the newest, which closes windows
# beyond a gap, and at last what is between.
AT_ONCE, IN_PIECES = "at_once", "in_pieces"
PIECES = ((4, 0), (9, 7, 2), (1, 3, 5, 6, 8))
CALLS_PER_DAY = 60
BERLIN = ZoneInfo("Europe/Berlin")
HOURS = {"1h": 1, "24h": 24, "48h": 48, "72h": 72, "7d": 168}
FEED = """
feed: {name}
vendor: delimited
label: {name}
time_zone: Europe/Berlin
records:
  - record: legs
    files: ["*.csv"]
    delimiter: comma
    header: true
    columns:
      call_id: call
      caller: {{column: caller, kind: phone, country: CN}}
      channel: channel
      business_type: type
      queue_id: queue
      agent_id: agent
      outcome: outcome
      abandon_stage: stage
      arrived_at: {{column: arrived, format: "%Y-%m-%dT%H:%M:%S%z"}}
      queue_entered_at: {{column: arrived, format: "%Y-%m-%dT%H:%M:%S%z"}}
      wait_seconds: wait
      talk_seconds: talk
"""


@dataclass(frozen=True)
class Call:
    """A call as it is written to the file."""

    call_id: str
    day: date
    arrived: datetime
    caller: str
    channel: str
    business_type: str
    outcome: str

    @property
    def is_contact(self) -> bool:
        """Made by a customer."""
        return self.outcome != "phantom" and self.channel != "callback"


def made_up_calls() -> list[Call]:
    """Few customers who call often, some at the very second at which a window ends."""
    chance = random.Random(11)
    calls = []
    for day in DAYS:
        midnight = datetime(day.year, day.month, day.day, tzinfo=BERLIN)
        length = (midnight + timedelta(days=1)).astimezone(ZoneInfo("UTC")) - midnight
        for number in range(CALLS_PER_DAY):
            second = chance.randrange(int(length.total_seconds()))
            if number % 3 == 0:
                second = second // 3600 * 3600  # full hours: many windows end at a call
            arrived = midnight.astimezone(ZoneInfo("UTC")) + timedelta(seconds=second)
            channel, outcome = chance.choice(
                (("human", "answered"), ("human", "answered"), ("human", "abandoned"),
                 ("ivr", "contained"), ("bot", "contained"), ("ivr", "abandoned"),
                 ("callback", "answered"), ("human", "phantom"))
            )  # fmt: skip
            calls.append(
                Call(
                    call_id=f"{day:%Y%m%d}-{number:03}",
                    day=day,
                    arrived=arrived,
                    caller=chance.choice(["", *(f"138000000{n:02}" for n in range(12))]),
                    channel=channel,
                    business_type=chance.choice(("cards", "loans", "")),
                    outcome=outcome,
                )
            )
    return calls


CALLS = made_up_calls()


def write(calls: list[Call], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("call", "caller", "channel", "type", "queue", "agent", "outcome",
                         "stage", "arrived", "wait", "talk"))  # fmt: skip
        for call in calls:
            human = call.channel in ("human", "callback")
            answered = call.outcome == "answered"
            stage = ("queue" if human else "ivr") if call.outcome == "abandoned" else ""
            writer.writerow(
                (call.call_id, call.caller, call.channel, call.business_type,
                 "desk" if human else "", "101" if answered else "", call.outcome, stage,
                 call.arrived.strftime("%Y-%m-%dT%H:%M:%S%z"), 5 if human else "",
                 60 if answered else "")
            )  # fmt: skip


def drain(settings: Settings) -> transform.DrainReport:
    outcome = transform.drain(settings, dbt.quiet)
    assert outcome.problems == ()
    for build in (*outcome.builds, *outcome.followups):
        assert build.held_days == {}
    return outcome


@pytest.fixture(scope="module")
def followed(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    """Both feeds landed, transformed after each piece."""
    feeds = settings.home / "feeds"
    feeds.mkdir(parents=True, exist_ok=True)
    for name in (AT_ONCE, IN_PIECES):
        (feeds / f"{name}.yaml").write_text(FEED.format(name=name), encoding="utf-8")
    folder = tmp_path_factory.mktemp("calls")
    for number, piece in enumerate(PIECES):
        wanted = {DAYS[n] for n in piece}
        # The call that goes on after midnight and the next day's are in one file.
        file = folder / IN_PIECES / f"{number}.csv"
        write([call for call in reversed(CALLS) if call.day in wanted], file)
        results = landing.land(settings, IN_PIECES, [file])
        if number == len(PIECES) - 1:
            write(CALLS, folder / AT_ONCE / "all.csv")
            results += landing.land(settings, AT_ONCE, [folder / AT_ONCE])
        assert {(r.status, r.quarantined) for r in results} == {("landed", 0)}
        if number == 0:
            transform.prepare(settings, dbt.quiet)
        drain(settings)
    return settings


@pytest.fixture
def published(settings: Settings, followed: Settings) -> Iterator[psycopg.Connection]:
    with warehouse.connect(settings) as connection:
        yield connection


def flags(call: Call, calls: list[Call], newest: datetime) -> dict[str, int]:
    """What METRICS says of a contact, by looking at every other call."""
    same = [
        other for other in calls
        if other.is_contact and other is not call
        and (other.caller, other.business_type) == (call.caller, call.business_type)
    ]  # fmt: skip
    found = {}
    for window, hours in HOURS.items():
        length = timedelta(hours=hours)
        mature = newest > call.arrived + length
        first = not any(call.arrived - length <= o.arrived and order(o) < order(call) for o in same)
        last = not any(o.arrived <= call.arrived + length and order(o) > order(call) for o in same)
        contained = call.channel in ("ivr", "bot") and call.outcome == "contained"
        served = call.channel == "human" and call.outcome == "answered" and first
        found[f"mature_contacts_{window}"] = int(mature)
        found[f"immature_contacts_{window}"] = int(not mature)
        found[f"first_contacts_{window}"] = int(mature and first)
        found[f"resolved_first_contacts_{window}"] = int(mature and first and last)
        found[f"resolved_requests_{window}"] = int(mature and last and (contained or served))
    longest = timedelta(hours=168)
    found["repeat_calls"] = int(
        any(call.arrived - longest <= o.arrived and order(o) < order(call) for o in same)
    )
    return found


def order(call: Call) -> tuple[datetime, str]:
    return call.arrived, call.call_id


def expected_flags() -> dict[str, dict[str, int]]:
    newest = max(call.arrived for call in CALLS if call.outcome != "phantom")
    return {
        call.call_id: flags(call, CALLS, newest)
        for call in CALLS
        if call.is_contact and call.caller
    }


@pytest.mark.parametrize("source", [AT_ONCE, IN_PIECES])
def test_follow_ups_are_those_of_brute_force(published: psycopg.Connection, source: str) -> None:
    expected = expected_flags()
    names = list(next(iter(expected.values())))
    rows = published.execute(
        f"select call_id, {', '.join(names)} from marts.fct_call_followups where source = %s",
        [source],
    ).fetchall()
    found = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
    assert found.keys() == expected.keys()
    wrong = {call: found[call] for call in expected if found[call] != expected[call]}
    assert wrong == {}
    for name in names:
        assert 0 < sum(row[name] for row in expected.values()) < len(expected), name


def test_order_and_split_of_landing_leave_no_trace(published: psycopg.Connection) -> None:
    def content(source: str) -> list[tuple[object, ...]]:
        return published.execute(
            "select to_jsonb(f) - 'source' - 'call_key' - 'previous_call_key' - 'next_call_key',"
            " split_part(previous_call_key, ':', 2), split_part(next_call_key, ':', 2)"
            " from marts.fct_call_followups as f where source = %s order by call_id",
            [source],
        ).fetchall()

    assert len(content(AT_ONCE)) > 300
    assert content(AT_ONCE) == content(IN_PIECES)


def test_no_follow_up_waits(published: psycopg.Connection, settings: Settings) -> None:
    assert transform.pending(settings) == 0
    statuses = published.execute(
        "select followup_status, count(*) from bi.data_status group by 1"
    ).fetchall()
    assert statuses == [("complete", len(DAYS))]
    lines = state.sentences(state.data_state(settings))
    assert f"follow-ups: {len(DAYS)} complete, 0 provisional, 0 held" in lines
    assert any(
        line.startswith("days: ") and line.endswith(", 0 provisional, 0 held") for line in lines
    )
    assert all("as_of" not in line for line in lines)


def test_anonymous_contacts_are_left_out_and_counted(
    published: psycopg.Connection, settings: Settings
) -> None:
    contacts = [call for call in CALLS if call.is_contact]
    anonymous = [call for call in contacts if not call.caller]
    catalogue = semantic.load(settings)
    _, rows = query.ask(
        settings,
        catalogue,
        query.Question(
            ("contacts", "fcr_anonymous_share", "identified_contacts"),
            where=(("source", AT_ONCE),),
        ),
    )
    (row,) = rows
    assert row[0] == len(contacts)
    assert float(row[1]) == pytest.approx(len(anonymous) / len(contacts))
    assert row[2] == len(contacts) - len(anonymous)


def test_fcr_and_resolution_by_channel(published: psycopg.Connection, settings: Settings) -> None:
    channel = {call.call_id: call.channel for call in CALLS}
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for call_id, row in expected_flags().items():
        for name, number in row.items():
            sums[channel[call_id]][name] += number
    expected = [
        [name,
         pytest.approx(s["resolved_first_contacts_72h"] / s["first_contacts_72h"]),
         pytest.approx(s["resolved_requests_72h"] / s["mature_contacts_72h"])]
        for name, s in sorted(sums.items())
    ]  # fmt: skip
    assert [row[0] for row in expected] == ["bot", "human", "ivr"]
    _, rows = query.ask(
        settings,
        semantic.load(settings),
        query.Question(
            ("fcr_72h", "resolution_rate_72h"), ("channel",), where=(("source", IN_PIECES),)
        ),
    )
    assert [[row[0], float(row[1]), float(row[2])] for row in rows] == expected


def test_unchanged_calls_mark_no_follow_up(followed: Settings) -> None:
    transform.mark(followed, None, "test")
    outcome = drain(followed)
    assert outcome.published_days == len(DAYS)
    assert outcome.followups == ()


def test_another_full_build_of_follow_ups_changes_no_row(followed: Settings) -> None:
    assert transform.mark_followups(followed, None, "test") == len(DAYS)
    outcome = drain(followed)
    assert outcome.builds == ()
    assert outcome.followed_up_days == len(DAYS)
    assert [(b.inserted_rows, b.deleted_rows) for b in outcome.followups] == [(0, 0)]


def test_any_metric_of_calls_can_be_asked_by_product_line(
    published: psycopg.Connection, settings: Settings
) -> None:
    """Each call once: cards, lending for loans, unknown where the business type is."""
    lines = {"cards": "cards", "loans": "lending", "": "unknown"}
    expected: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for call in CALLS:
        if call.outcome != "phantom":
            expected[lines[call.business_type]][0] += 1
        if call.is_contact:
            expected[lines[call.business_type]][1] += 1
    _, rows = query.ask(
        settings,
        semantic.load(settings),
        query.Question(("calls", "contacts"), ("product_line",), where=(("source", AT_ONCE),)),
    )
    assert {row[0]: row[1:] for row in rows} == expected
    for relation in ("fct_calls", "agg_calls_daily"):
        sums = published.execute(
            f"select product_line, sum(calls) from marts.{relation} where source = %s group by 1",
            [AT_ONCE],
        ).fetchall()
        assert dict(sums) == {line: counts[0] for line, counts in expected.items()}


GRAINS = {"week": "week", "month": "month", "quarter": "quarter", "year": "year"}


def test_roll_ups_agree_with_their_days(published: psycopg.Connection, settings: Settings) -> None:
    """Counts of a period are the sums of its days; ratios are those of the sums."""
    catalogue = semantic.load(settings)
    ratios = [m for m in catalogue.metrics.values() if m.denominator]
    parts = {part for m in ratios for part in (m.numerator, m.denominator)}
    # Calls are told apart by their key; each has one business day, so their days add up, too.
    counts = [
        m.name for m in catalogue.metrics.values()
        if not m.denominator and ((m.is_additive and m.unit == "count") or m.name in parts)
    ]  # fmt: skip
    assert parts <= set(counts)
    assert len(counts) > 60
    assert len(ratios) > 30
    wanted = [*counts, *(m.name for m in ratios)]

    def asked(grain: str) -> dict[date, dict[str, Decimal | None]]:
        columns, rows = query.ask(settings, catalogue, query.Question(tuple(wanted), (grain,)))
        return {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}

    days = asked("day")
    assert len(days) == len(DAYS)
    for grain in GRAINS:
        periods = asked(grain)
        assert len(periods) == len({start_of(day, grain) for day in DAYS})
        for start, found in periods.items():
            within = [row for day, row in days.items() if start_of(day, grain) == start]
            for name in counts:
                total = sum(Decimal(row[name] or 0) for row in within)
                assert Decimal(found[name] or 0) == total, (grain, start, name)
            for metric in ratios:
                known = [row for row in within if row[metric.numerator] is not None]
                top = sum(Decimal(row[metric.numerator] or 0) for row in known)
                bottom = sum(Decimal(row[metric.denominator] or 0) for row in within)
                value = found[metric.name]
                if bottom == 0 or not known:
                    assert value is None, (grain, start, metric.name)
                else:
                    assert value is not None, (grain, start, metric.name)
                    assert float(value) == pytest.approx(float(top / bottom)), (grain, metric.name)


def start_of(day: date, grain: str) -> date:
    if grain == "week":
        return day - timedelta(days=day.weekday())
    if grain == "month":
        return day.replace(day=1)
    if grain == "quarter":
        return date(day.year, day.month - (day.month - 1) % 3, 1)
    return date(day.year, 1, 1)
