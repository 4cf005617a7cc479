"""One simulated centre told by every format: the same marts, up to the limits of each format."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from callhouse import landing, simulate, transform, warehouse
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.simulate import channels

START, DAYS, CALLS_PER_DAY = date(2026, 10, 24), 4, 400
END = (START + timedelta(days=DAYS)).isoformat()
SOURCES = Path(landing.__file__).parents[1] / "sources"
# Format: its source, and its feeds with the folder of their files.
FORMATS = {
    "delimited": ("own", {"own": "."}),
    "queue_log": ("log", {"log": "queue_log"}),
    "asterisk": ("exchange", {"exchange": "queue_log", "cdr": "cdr", "cel": "cel"}),
    "connect": ("contacts", {"contacts": "connect", "agent_events": "connect"}),
}
RECORDS = "vendor: asterisk\nexchange: exchange\nhotlines: 400[0-9]{7}\nagent: Agent/{party}\n"
ASTERISK = "vendor: asterisk\ntime_zone: Asia/Shanghai\ncountry: CN\n"


def mappings() -> dict[str, str]:
    """The feeds, by name."""
    own = (SOURCES / "delimited/feeds/sample_hotline.yaml").read_text("utf-8")
    connect = {
        kind: (SOURCES / f"amazon_connect/feeds/amazon_connect_{kind}.yaml")
        .read_text("utf-8").replace(": amazon_connect_", ": ")
        for kind in ("contacts", "agent_events")
    }  # fmt: skip
    return {
        "own": own.replace("feed: sample_hotline", "feed: own"),
        "log": f"feed: log\n{ASTERISK}",
        "exchange": f"feed: exchange\n{ASTERISK}",
        "cdr": f"feed: cdr\nrecords: cdr\n{RECORDS}",
        "cel": f"feed: cel\nrecords: cel\n{RECORDS}",
        "contacts": connect["contacts"]
        + 'hotlines: {"+864000000001": service, "+864000000002": premium}\n'
        "hierarchy: {region: 1, team: 2}\n",
        "agent_events": connect["agent_events"],
    }


@pytest.fixture(scope="module")
def sample(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Path:  # fmt: skip
    """Simulate once, land every format, transform."""
    folder = tmp_path_factory.mktemp("sample")
    simulate.write(
        folder, seed=161, start=START, days=DAYS, dirt=False, formats=simulate.FORMATS,
        calls_per_day=pytestconfig.getoption("calls_per_day") or CALLS_PER_DAY,
    )  # fmt: skip
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    for feed, text in mappings().items():
        (settings.feeds_directory / f"{feed}.yaml").write_text(text, encoding="utf-8")
    for _, feeds in FORMATS.values():
        for feed, place in feeds.items():
            files = sorted((folder / place).glob(f"{feed}_*" if place == "connect" else "*"))
            results = landing.land(settings, feed, [file for file in files if file.is_file()])
            assert {result.status for result in results} == {"landed"}
            assert sum(result.quarantined for result in results) == 0
    transform.prepare(settings, lambda _line: None)
    outcome = transform.drain(settings, lambda _line: None)
    assert outcome.problems == ()
    assert [build.held_days for build in outcome.builds] == [{}] * len(outcome.builds)
    return folder


# ------------------------------------------------------------------------------ as the world names
Row = dict[str, str]
Key = tuple[str, ...]
COLUMNS = {
    "fct_calls": (
        "call_id", "business_day", "arrived_at", "answered_at", "ended_at", "hotline_id",
        "region_code", "caller_token", "caller_carrier", "channel", "business_type",
        "product_line", "priority", "outcome", "abandon_stage", "hangup_party", "queue_id",
        "agent_id", "team_id", "queue_visits_count", "agent_connections_count", "transfers_count",
        "ivr_seconds", "wait_seconds", "ring_seconds", "talk_seconds", "hold_seconds",
        "acw_seconds", "call_seconds", "data_issues",
    ),
    "fct_queue_visits": (
        "call_id", "visit_number", "business_day", "queue_id", "agent_id", "team_id",
        "region_code", "channel", "business_type", "hotline_id", "outcome", "abandon_stage",
        "entered_at", "left_at", "wait_seconds", "ring_seconds", "target_seconds",
        "short_abandon_seconds",
    ),
    "fct_agent_connections": (
        "call_id", "connection_number", "business_day", "queue_id", "agent_id", "team_id",
        "region_code", "channel", "business_type", "hotline_id", "transfer_type", "connected_at",
        "ended_at", "ring_seconds", "talk_seconds", "hold_seconds", "acw_seconds",
    ),
    "fct_agent_offers": (
        "call_id", "offer_number", "business_day", "queue_id", "agent_id", "team_id",
        "region_code", "outcome", "offered_at", "ended_at", "ring_seconds",
    ),
    "fct_agent_states": (
        "call_id", "business_day", "queue_id", "agent_id", "team_id", "region_code", "state",
        "reason", "is_provisional", "started_at", "ended_at",
    ),
}  # fmt: skip
KEYS = {
    "fct_calls": ("call_id",),
    "fct_queue_visits": ("call_id", "entered_at", "queue_id"),
    "fct_agent_connections": ("call_id", "connected_at", "agent_id"),
    "fct_agent_offers": ("call_id", "offered_at", "agent_id"),
}
SUMS = {
    "agg_queue_15min": (
        ("business_day", "queue_id"),
        (
            "queue_visits", "calls_offered", "calls_answered", "calls_abandoned",
            "answered_within_target", "abandoned_within_target", "answered_within_15s",
            "answered_within_20s", "answered_within_30s", "short_abandons", "answered_waits",
            "answered_wait_seconds", "abandoned_waits", "abandoned_wait_seconds",
            "agent_connections", "connections_handled", "connections_held", "transfers",
            "transfers_blind", "transfers_attended", "transfers_consult", "talk_seconds",
            "hold_seconds", "acw_seconds", "handle_seconds",
        ),
    ),
    "agg_agent_daily": (
        ("business_day", "agent_id"),
        (
            "agent_connections", "connections_handled", "connections_held", "transfers",
            "transfers_blind", "transfers_attended", "transfers_consult", "talk_seconds",
            "hold_seconds", "acw_seconds", "handle_seconds", "login_seconds", "ready_seconds",
            "pause_seconds", "state_ring_seconds", "state_dial_seconds", "state_consult_seconds",
            "state_talk_seconds", "state_hold_seconds", "state_acw_seconds",
        ),
    ),
}  # fmt: skip


def table(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (list, bool)):
        return ",".join(value) if isinstance(value, list) else str(value)
    # Channel events have fractions of a second, which only keep the simulator's events in order.
    return str(round(value)) if isinstance(value, Decimal) else str(value)


# The agent's status in Connect during a pause of the world.
STATUSES = {"Break": "break", "Lunch": "lunch", "Missed call": "no_answer"}


class Names(NamedTuple):
    """The ids of one format as those of the world."""

    calls: Mapping[str, str]
    hotlines: Mapping[str, str]
    agents: str  # what stands before an agent's number
    reasons: Mapping[str, str]

    def of(self, column: str, value: str) -> str:
        if column == "call_id" and value:
            return self.calls[value]
        if column == "hotline_id":
            return self.hotlines.get(value, value)
        if column == "agent_id":
            return value.removeprefix(self.agents)
        if column == "reason":
            return self.reasons.get(value, value)
        return value


def names(truth: Path) -> dict[str, Names]:
    own = {row["call_id"]: row["call_id"] for row in table(truth / "calls.csv")}
    log = {row["unique_id"]: row["call_id"] for row in table(truth / "queue_log_visits.csv")}
    cel = {row["linked_id"]: row["call_id"] for row in table(truth / "cel_calls.csv")}
    first: dict[str, str] = {}
    for row in table(truth / "connect_contacts.csv"):
        first.setdefault(row["call_id"], row["contact_id"])
    hotlines = {number: name for name, number in channels.EXTENSIONS.items()}
    return {
        "delimited": Names(own, {}, "", {}),
        "queue_log": Names(log, hotlines, "Agent/", {}),
        "asterisk": Names(cel, hotlines, "Agent/", {}),
        "connect": Names({contact: call for call, contact in first.items()}, {}, "", STATUSES),
    }


def asked(connection: psycopg.Connection, names: Names, statement: str, *columns: str) -> list[Row]:
    found = connection.execute(statement.encode())
    return [
        {c: names.of(c, plain(value)) for c, value in zip(columns, row, strict=True)}
        for row in found
    ]


Told = dict[str, dict[Key, Row]]  # fact → key → row


def told(connection: psycopg.Connection, source: str, names: Names) -> Told:
    """All that the marts tell of one source."""
    found: Told = {}
    for fact, columns in COLUMNS.items():
        rows = asked(
            connection, names,
            f"select {', '.join(columns)} from marts.{fact} where source = '{source}'", *columns,
        )  # fmt: skip
        if fact == "fct_agent_states":
            rows.sort(key=lambda row: (row["agent_id"], row["started_at"]))
            found[fact] = {(row["agent_id"], row["started_at"]): row for row in rows}
        else:
            found[fact] = {tuple(row[c] for c in KEYS[fact]): row for row in rows}
        assert len(found[fact]) == len(rows), fact
    for fact, (keys, sums) in SUMS.items():
        summed = ", ".join(f"sum({column})" for column in sums)
        rows = asked(
            connection, names,
            f"select {', '.join(keys)}, {summed} from marts.{fact} where source = '{source}'"
            f" group by {', '.join(keys)}", *keys, *sums,
        )  # fmt: skip
        # Agents' states end with the last midnight in one format, with the last logout in others;
        # a queue on which nothing happened is listed where queues are.
        found[fact] = {
            tuple(row[c] for c in keys): row
            for row in rows
            if row["business_day"] < END and any(row[c] not in ("", "0") for c in sums)
        }
    for rows_of_fact in found.values():
        for row in rows_of_fact.values():
            if "hold_seconds" in row:  # told also where the two are not told apart
                parts = (row["talk_seconds"], row["hold_seconds"])
                row["talk_and_hold_seconds"] = str(sum(int(part or 0) for part in parts))
    return found


# ------------------------------------------------------------------------------ limits
MISSING = "(no row)"


class Order(NamedTuple):
    """A value that is less, or more, than what another format tells."""

    less: bool

    def fits(self, told: str, instead: str) -> bool:
        if told.isdigit() or instead.isdigit():
            below = int(instead or 0) < int(told or 0)
        else:
            below = instead < told
        return below == self.less


LESS, MORE = Order(less=True), Order(less=False)
NOT_CARRIED = frozenset({"", "unknown"})
REFUSED = {"overflow_full", "overflow_empty", "overflow_diverted", "closed"}
Values = frozenset[str] | None  # None: any


class Limit(NamedTuple):
    """Where other formats tell `told`, this one tells `instead`; `words` as in the documents."""

    fact: str
    column: str
    format: str
    told: Values
    instead: Values | Order
    words: str
    of: tuple[str, frozenset[str]] | None  # column and values of the other format's row

    def fits(self, told: str | None, instead: str, other: Row) -> bool:
        """Whether it explains `instead`; of a `told` that is not known, None, too."""
        if self.of and other and other.get(self.of[0], "") not in self.of[1]:
            return False
        if isinstance(self.instead, Order):
            return told is not None and self.instead.fits(told, instead)
        if self.instead is not None and instead not in self.instead:
            return False
        return told is None or self.told is None or told in self.told


def limits(
    formats: str, facts: str, columns: str, words: str,
    told: str | set[str] | None = None, instead: str | set[str] | Order | None = NOT_CARRIED,  # type: ignore[assignment]
    of: tuple[str, set[str]] | None = None,
) -> list[Limit]:  # fmt: skip
    """A limit for each of some formats, facts and columns."""

    def values(given: Any) -> Any:
        return (
            frozenset({given} if isinstance(given, str) else given) if given is not None else None
        )

    return [
        Limit(
            fact, column, name, values(told),
            instead if isinstance(instead, Order) else values(instead), words,
            (of[0], frozenset(of[1])) if of else None,
        )
        for name in formats.split() for fact in facts.split() for column in columns.split()
    ]  # fmt: skip


CALLS, VISITS, CONNECTIONS = "fct_calls", "fct_queue_visits", "fct_agent_connections"
OFFERS, STATES = "fct_agent_offers", "fct_agent_states"
QUEUES, AGENTS = "agg_queue_15min", "agg_agent_daily"
LOGS = "queue_log asterisk"
NO_QUEUE = ("queue_id", {"none"})
HELD = "hold is part of talk"
OUTSIDE = "calls outside queues: not known, the agent is ready"
COLLEAGUES = "of queues; not colleagues who took over, not call-backs"
REFUSED_MISSING = "not of refused calls"

# What may not happen in the few days of a world; every other limit must show in them.
RARE = {
    "no offer cancelled within its second",
    "`transferred` is `overflow_empty`",
    "of answered visits",
    "of the first entry",
    "on the day of the first entry",
}
LIMITS = [
    # Amazon Connect
    *limits(
        "connect",
        VISITS,
        "row",
        "no visit that was refused (full, empty, diverted, closed)",
        instead=MISSING,
        of=("outcome", REFUSED),
    ),
    *limits("connect", VISITS, "visit_number", "refused visits are not counted", instead=LESS),
    *limits(
        "connect",
        OFFERS,
        "row",
        "no offer cancelled within its second",
        instead=MISSING,
        of=("ring_seconds", {"0"}),
    ),
    *limits(
        "connect",
        f"{CALLS} {VISITS} {CONNECTIONS}",
        "ring_seconds",
        "no; part of the wait",
        instead="",
    ),
    *limits(
        "connect",
        f"{CALLS} {VISITS}",
        "abandon_stage",
        "`queue` also while it rang",
        told="ring",
        instead="queue",
    ),
    *limits(
        "connect",
        CALLS,
        "abandon_stage",
        "`ivr` of refused callers who hung up",
        told="",
        instead="ivr",
        of=("outcome", REFUSED),
    ),
    *limits(
        "connect",
        CALLS,
        "outcome",
        "refused: `abandoned` or `incomplete`",
        told=REFUSED,
        instead={"abandoned", "incomplete"},
    ),
    *limits(
        "connect",
        CALLS,
        "channel",
        "`ivr` where the call was refused",
        told="human",
        instead="ivr",
        of=("outcome", REFUSED),
    ),
    *limits(
        "connect",
        CALLS,
        "hangup_party",
        "`system` where a call-back reached nobody",
        told="agent",
        instead="system",
        of=("channel", {"callback"}),
    ),
    *limits("connect", CALLS, "ivr_seconds", "with the message to refused callers", instead=MORE),
    *limits(
        "connect",
        CALLS,
        "wait_seconds",
        "no wait of 0 s where all visits were refused",
        told="0",
        instead="",
    ),
    *limits("connect", CALLS, "queue_id", "first queue that did not refuse", instead=None),
    *limits("connect", CALLS, "queue_visits_count", "without refused visits", instead=LESS),
    *limits(
        "connect",
        CONNECTIONS,
        "transfer_type",
        "`consult` is `attended`",
        told="consult",
        instead="attended",
    ),
    *limits(
        "connect",
        OFFERS,
        "row",
        "a colleague who is asked was offered the call, too",
        told=MISSING,
        instead="",
    ),
    *limits("connect", STATES, "state", "`consult` is `ring`", told="consult", instead="ring"),
    *limits(
        "connect",
        QUEUES,
        "row",
        "no row of refused visits alone",
        instead=MISSING,
        of=("calls_answered", {"0"}),
    ),
    *limits(
        "connect", QUEUES, "queue_visits calls_offered", "without refused visits", instead=LESS
    ),
    *limits(
        "connect", f"{QUEUES} {AGENTS}", "transfers_consult", "`consult` is `attended`", instead="0"
    ),
    *limits("connect", f"{QUEUES} {AGENTS}", "transfers_attended", "with `consult`", instead=MORE),
    *limits("connect", AGENTS, "state_consult_seconds", "`consult` is `ring`", instead="0"),
    *limits("connect", AGENTS, "state_ring_seconds", "with `consult`", instead=MORE),
    # Asterisk, with and without the other records
    *limits(LOGS, f"{CALLS} {VISITS} {CONNECTIONS}", "business_type", "no", instead="unknown"),
    *limits(LOGS, CALLS, "product_line", "no", instead="unknown"),
    *limits(
        LOGS,
        f"{CALLS} {VISITS} {CONNECTIONS} {OFFERS} {STATES}",
        "team_id",
        "no",
        instead="unknown",
    ),
    *limits(
        LOGS,
        f"{CONNECTIONS} {OFFERS}",
        "region_code",
        "the caller's, not the agent's",
        instead=None,
    ),
    *limits(LOGS, STATES, "region_code", "no", instead="unknown"),
    *limits(
        LOGS,
        f"{CALLS} {VISITS}",
        "abandon_stage",
        "`queue` also while it rang",
        told="ring",
        instead="queue",
    ),
    *limits(
        LOGS,
        f"{CALLS} {VISITS}",
        "outcome",
        "`callback_requested` is `exit_key`",
        told="callback_requested",
        instead="exit_key",
    ),
    *limits(
        LOGS,
        VISITS,
        "outcome",
        "`transferred` is `overflow_empty`",
        told="transferred",
        instead="overflow_empty",
    ),
    *limits(
        LOGS,
        f"{VISITS}",
        "ring_seconds",
        "of answered visits",
        instead="",
        of=("outcome", {"abandoned", "incomplete"}),
    ),
    *limits(LOGS, CALLS, "ring_seconds", "of answered visits", instead=LESS),
    *limits(LOGS, CALLS, "ring_seconds", "of answered visits", told="0", instead=""),
    *limits(
        LOGS,
        VISITS,
        "wait_seconds",
        "no wait of 0 s of refused visits",
        told="0",
        instead="",
        of=("outcome", REFUSED),
    ),
    *limits(
        LOGS,
        CALLS,
        "wait_seconds",
        "no wait of 0 s where all visits were refused",
        told="0",
        instead="",
    ),
    *limits(
        LOGS,
        f"{CALLS} {VISITS}",
        "wait_seconds",
        "no wait where the end is not told",
        instead="",
        of=("outcome", {"incomplete"}),
    ),
    *limits(
        LOGS,
        VISITS,
        "left_at",
        "no end of `incomplete`",
        instead="",
        of=("outcome", {"incomplete"}),
    ),
    *limits(
        LOGS,
        CALLS,
        "data_issues",
        "`missing:ended_at` of `incomplete`",
        told="",
        instead="missing:ended_at",
        of=("outcome", {"incomplete"}),
    ),
    *limits(LOGS, f"{CALLS} {CONNECTIONS}", "hold_seconds", f"no; {HELD}", instead=""),
    *limits(LOGS, f"{CALLS} {CONNECTIONS}", "talk_seconds", "with hold", instead=MORE),
    *limits(LOGS, f"{QUEUES} {AGENTS}", "talk_seconds", "with hold", instead=MORE),
    *limits(
        LOGS, f"{QUEUES} {AGENTS}", "hold_seconds connections_held", f"no; {HELD}", instead="0"
    ),
    *limits(
        LOGS, CONNECTIONS, "acw_seconds", "empty, not 0, where there was none", told="0", instead=""
    ),
    *limits(LOGS, CALLS, "acw_seconds", "empty, not 0, where there was none", told="0", instead=""),
    *limits("asterisk", CONNECTIONS, "acw_seconds", "of queues", instead="", of=NO_QUEUE),
    *limits(LOGS, CALLS, "acw_seconds", "of queues", instead=LESS),
    *limits(
        "asterisk", QUEUES, "acw_seconds handle_seconds", "of queues", instead=LESS, of=NO_QUEUE
    ),
    *limits(LOGS, AGENTS, "acw_seconds handle_seconds", "of queues", instead=LESS),
    *limits(
        LOGS,
        CONNECTIONS,
        "transfer_type",
        "`consult` is `attended`",
        told="consult",
        instead="attended",
    ),
    *limits(
        LOGS, f"{QUEUES} {AGENTS}", "transfers_consult", "`consult` is `attended`", instead="0"
    ),
    *limits(LOGS, f"{QUEUES} {AGENTS}", "transfers_attended", "with `consult`", instead=MORE),
    *limits(LOGS, STATES, "state", "`hold` is `talk`", told="hold", instead="talk"),
    *limits(LOGS, STATES, "state", OUTSIDE, instead="ready", of=NO_QUEUE),
    *limits(LOGS, STATES, "call_id", "of queues", instead="", of=NO_QUEUE),
    *limits(LOGS, AGENTS, "ready_seconds", "with calls outside queues", instead=MORE),
    *limits(LOGS, AGENTS, "state_acw_seconds", "of queues", instead=LESS),
    *limits(LOGS, AGENTS, "state_consult_seconds state_dial_seconds", "no", instead="0"),
    *limits(LOGS, AGENTS, "state_hold_seconds", f"no; {HELD}", instead="0"),
    *limits(LOGS, AGENTS, "state_talk_seconds", "with hold, of queues", instead=None),
    # Asterisk with CDR and CEL
    *limits(
        "asterisk",
        CALLS,
        "outcome",
        "`contained` where somebody hung up in the menu",
        told="abandoned",
        instead="contained",
    ),
    *limits(
        "asterisk",
        CALLS,
        "outcome",
        "`voicemail` also where no message was left",
        told="abandoned",
        instead="voicemail",
    ),
    *limits(
        "asterisk",
        CALLS,
        "abandon_stage",
        "not of self-service and voicemail",
        told={"ivr", "bot", "voicemail"},
        instead="",
    ),
    # The queue log alone
    *limits(
        "queue_log",
        CALLS,
        "row",
        "only calls that reached a queue",
        instead=MISSING,
        of=("queue_visits_count", {"0"}),
    ),
    *limits("queue_log", CONNECTIONS, "row", COLLEAGUES, instead=MISSING, of=NO_QUEUE),
    *limits("queue_log", QUEUES, "row", "only queues", instead=MISSING, of=NO_QUEUE),
    *limits("queue_log", CALLS, "arrived_at", "first entry into a queue", instead=MORE),
    # Who called before midnight and was in self-service until after it.
    *limits("queue_log", f"{CALLS} {VISITS}", "business_day", "of the first entry", instead=MORE),
    *limits("queue_log", QUEUES, "queue_visits", "on the day of the first entry", instead=LESS),
    *limits("queue_log", CALLS, "ended_at", "last event of a queue", instead=LESS),
    *limits("queue_log", CALLS, "call_seconds", "from first entry to last event", instead=LESS),
    *limits("queue_log", CALLS, "ivr_seconds", "no", instead=""),
    *limits(
        "queue_log", CALLS, "hangup_party", "of answered calls that were not passed on", instead=""
    ),
    *limits(
        "queue_log",
        f"{CALLS} {VISITS} {CONNECTIONS}",
        "hotline_id",
        "no, without DID events",
        instead="unknown",
    ),
    *limits(
        "queue_log", f"{CALLS} {VISITS}", "region_code", "not of refused calls", instead="unknown"
    ),
    *limits("queue_log", CALLS, "caller_token caller_carrier", "not of refused calls", instead=""),
    *limits(
        "queue_log",
        f"{CALLS} {VISITS}",
        "channel",
        "`voicemail` is `human`",
        told="voicemail",
        instead="human",
    ),
    *limits(
        "queue_log",
        CALLS,
        "outcome",
        "`voicemail` is how the queue was left",
        told={"voicemail", "abandoned"},
        instead={"timeout", "exit_key", "closed"},
        of=("channel", {"voicemail"}),
    ),
    *limits("queue_log", CALLS, "abandon_stage", "not of voicemail", told="voicemail", instead=""),
    *limits("queue_log", CALLS, "agent_connections_count", COLLEAGUES, instead=LESS),
    *limits("queue_log", f"{CALLS} {AGENTS}", "talk_and_hold_seconds", COLLEAGUES, instead=LESS),
    *limits("queue_log", f"{CALLS} {AGENTS}", "talk_seconds", COLLEAGUES, instead=LESS),
    *limits("queue_log", AGENTS, "agent_connections connections_handled", COLLEAGUES, instead=LESS),
]


# ------------------------------------------------------------------------------ comparisons
class Difference(NamedTuple):
    """What two formats tell of one thing."""

    fact: str
    column: str  # `row` where one of them lacks it
    key: Key
    values: tuple[str, str]
    rows: tuple[Row, Row]


def in_step(one: dict[Key, Row], other: dict[Key, Row]) -> Iterator[tuple[Key, Row, Row]]:
    """States of both, cut where either changes."""
    by_agent: dict[str, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((one, other)):
        for row in rows.values():
            if row["started_at"] < END:
                by_agent[row["agent_id"]][side].append(row)
    for agent, sides in by_agent.items():
        cuts = sorted(
            {row[c] for rows in sides for row in rows for c in ("started_at", "ended_at")}
        )
        places = [0, 0]
        for start, end in pairwise(cuts):
            now: list[Row] = []
            for side, states in enumerate(sides):
                while places[side] < len(states) and states[places[side]]["ended_at"] <= start:
                    places[side] += 1
                own = states[places[side]] if places[side] < len(states) else {}
                now.append(own if own and own["started_at"] <= start else {})
            if any(now):
                yield (agent, start, end), now[0], now[1]


def differences(one: Told, other: Told) -> Iterator[Difference]:
    for fact in one:
        if fact == "fct_agent_states":
            pairs = list(in_step(one[fact], other[fact]))
        else:
            keys = sorted(one[fact].keys() | other[fact].keys())
            pairs = [(key, one[fact].get(key, {}), other[fact].get(key, {})) for key in keys]
        for key, here, there in pairs:
            if not (here and there):
                values = ("" if here else MISSING, "" if there else MISSING)
                yield Difference(fact, "row", key, values, (here, there))
                continue
            for column in here:
                if fact == "fct_agent_states" and column in ("started_at", "ended_at"):
                    continue
                if here[column] != there[column]:
                    values = (here[column], there[column])
                    yield Difference(fact, column, key, values, (here, there))


def explained(difference: Difference, formats: tuple[str, str]) -> list[Limit]:
    """The limits that explain it: of one format, or of both together."""
    sides = [
        [
            limit for limit in LIMITS
            if (limit.format, limit.fact, limit.column)
            == (name, difference.fact, difference.column)
        ]
        for name in formats
    ]  # fmt: skip
    values, rows = difference.values, difference.rows
    for side in (0, 1):
        for limit in sides[side]:
            if limit.fits(values[1 - side], values[side], rows[1 - side]):
                return [limit]
    for one in sides[0]:
        for other in sides[1]:
            if not (one.told is None or other.told is None or one.told & other.told):
                continue
            if one.fits(None, values[0], rows[1]) and other.fits(None, values[1], rows[0]):
                return [one, other]
    return []


@pytest.fixture(scope="module")
def marts(settings: Settings, sample: Path) -> dict[str, Told]:
    """What the marts tell by each format."""
    ids = names(sample / "truth")
    with warehouse.connect(settings) as connection:
        connection.execute("set time zone 'Asia/Shanghai'")
        found = {name: told(connection, FORMATS[name][0], ids[name]) for name in FORMATS}
    for name in FORMATS:
        assert all(found[name].values())
    return found


def test_formats_agree_up_to_their_limits(marts: dict[str, Told]) -> None:
    unexplained: dict[tuple[Any, ...], list[Difference]] = defaultdict(list)
    used: Counter[Limit] = Counter()
    for pair in combinations(FORMATS, 2):
        for difference in differences(marts[pair[0]], marts[pair[1]]):
            limits = explained(difference, pair)
            used.update(limits)
            if not limits:
                unexplained[(*pair, *difference[:2])].append(difference)
    assert {key: (len(found), found[0]) for key, found in unexplained.items()} == {}
    assert [limit for limit in LIMITS if not used[limit] and limit.words not in RARE] == []
