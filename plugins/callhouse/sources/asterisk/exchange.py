"""Feeds of an exchange's call detail records and channel events, and what these rows hold.

They add to the calls of a queue log, so their rows are rows of that feed's source: `exchange`.
"""

from __future__ import annotations

import datetime
import re
import zoneinfo
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from callhouse.errors import CallhouseError
from callhouse.sources import document
from callhouse.sources.contract import CallerRule, Field, Reader, Record, RefusedError

HEADS = "staging.asterisk_calls"
TABLES = ("staging.asterisk_events", "staging.asterisk_cdr_records", "staging.asterisk_cel_events")
DIRECTIONS = ("inbound", "callback", "outbound", "internal")
# What an application does for a caller; of others (Set, NoOp, Answer, Hangup …) nothing is said.
KINDS = ("menu", "bot", "announcement", "queue", "dial", "voicemail")
APPLICATIONS = {
    "agi": "bot", "eagi": "bot", "deadagi": "bot", "audiosocket": "bot", "stasis": "bot",
    "speechbackground": "bot", "background": "menu", "backgrounddetect": "menu", "read": "menu",
    "waitexten": "menu", "playback": "announcement", "controlplayback": "announcement",
    "busy": "announcement", "congestion": "announcement", "queue": "queue", "dial": "dial",
    "followme": "dial", "page": "dial", "voicemail": "voicemail", "voicemailmain": "voicemail",
    "minivmrecord": "voicemail",
}  # fmt: skip
DEFAULT_PLAUSIBLE_FROM = datetime.date(1990, 1, 1)

# Who the row is about: the channel (party A), and what it did.
CHANNEL = (
    Field("call_id"),
    Field("unique_id"),
    Field("linked_id"),
    Field("direction", "code", codes=DIRECTIONS),
    Field("context"),
    Field("channel"),
    Field("application"),
    Field("application_data", free="kept"),
    Field("application_kind", "code", codes=KINDS),
    Field("account_code", free="expires"),
    Field("user_field", free="expires"),
    Field("agent_id", member="agent"),
    Field("hotline_id", member="hotline"),
    Field("caller", "caller"),
    Field("caller_region_code", member="region"),
    Field("caller_carrier"),
)
CDR = Record(
    "cdr",
    "staging.asterisk_cdr_records",
    key=(),  # a record has no newer version
    day="business_day",
    partitioned=True,
    fields=(
        *CHANNEL,
        Field("destination"),
        Field("peer_channel"),
        Field("peer_account", free="expires"),
        Field("disposition"),
        Field("sequence", "integer"),
        Field("duration_seconds", "seconds"),
        Field("billed_seconds", "seconds"),
        Field("event_at", "instant", required=True),
        Field("began_at", "instant", required=True),
        Field("answered_at", "instant"),
        Field("ended_at", "instant"),
    ),
    heads=HEADS,
    heads_of=TABLES,
    # They may move events of the queue log to another day, and these shape its neighbours.
    reach_days=1,
)
CEL = Record(
    "cel",
    "staging.asterisk_cel_events",
    key=(),  # an event has no newer version
    day="business_day",
    partitioned=True,
    fields=(
        *CHANNEL,
        Field("event", required=True),
        Field("extension"),
        Field("peer"),
        Field("extra", free="expires"),
        Field("hangup_source"),
        Field("hangup_party", "code", codes=("customer", "agent", "system")),
        Field("hangup_cause", "integer"),
        Field("event_at", "instant", required=True),
        Field("began_at", "instant", required=True),
    ),
    heads=HEADS,
    heads_of=TABLES,
    # They may move events of the queue log to another day, and these shape its neighbours.
    reach_days=1,
)

# Master.csv of cdr_csv: what it always has, and what cdr.conf adds (loguniqueid, loguserfield,
# newcdrcolumns).
CDR_COLUMNS = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp",
    "lastdata", "start", "answer", "end", "duration", "billsec", "disposition", "amaflags",
)  # fmt: skip
CDR_NEW = ("peeraccount", "linkedid", "sequence")
CDR_LAYOUTS = (
    CDR_COLUMNS,
    (*CDR_COLUMNS, "uniqueid"),
    (*CDR_COLUMNS, "uniqueid", "userfield"),
    (*CDR_COLUMNS, *CDR_NEW),
    (*CDR_COLUMNS, "uniqueid", *CDR_NEW),
    (*CDR_COLUMNS, "uniqueid", "userfield", *CDR_NEW),
)
# The sample mapping of cel_custom, with and without the literal that newer samples show.
CEL_LAYOUTS = (
    (
        "eventtype", "-", "eventtime", "cidname", "cidnum", "cidani", "cidrdnis", "ciddnid",
        "exten", "context", "channame", "appname", "appdata", "amaflags", "accountcode", "uniqueid",
        "linkedid", "peer", "userfield", "userdeftype", "extra",
    ),
    (
        "eventtype", "eventtime", "cidname", "cidnum", "cidani", "cidrdnis", "ciddnid", "exten",
        "context", "channame", "appname", "appdata", "amaflags", "accountcode", "uniqueid",
        "linkedid", "peer", "userfield", "userdeftype", "extra",
    ),
)  # fmt: skip
NEEDED = {"cdr": ("channel", "start", "disposition"), "cel": ("eventtype", "eventtime", "channame")}
# Columns that are known beside those of the layouts; `-` is one that is not read.
FURTHER = {"cdr": (), "cel": ("eventenum", "peeraccount", "tenantid")}


class Exchange(Protocol):
    """What all feeds of one exchange share."""

    @property
    def name(self) -> str:
        """The source's name."""

    @property
    def label(self) -> str:
        """Name for people."""

    @property
    def time_zone(self) -> str:
        """Zone of business days."""

    @property
    def caller(self) -> CallerRule:
        """What callers are."""

    @property
    def plausible_from(self) -> datetime.date:
        """First day that can be."""

    @property
    def plausible_to(self) -> datetime.date | None:
        """Last day that can be; None: tomorrow."""


@dataclass(frozen=True)
class Caller:
    """Callers are telephone numbers."""

    country: str


@dataclass(frozen=True)
class Numbering:
    """Who is who in an exchange: patterns fit whole texts."""

    internal: str  # extensions of agents; nothing else of that form is a customer
    hotlines: str  # numbers of the centre, which may stand in clear
    agent: str  # id of an agent as queue_log has it, from {technology} and {party} of a channel
    contexts: tuple[tuple[str, str], ...]  # dialplan context → direction, where it decides
    applications: tuple[tuple[str, str], ...]  # application in lower case → its kind


@dataclass(frozen=True)
class Feed:
    """Call detail records or channel events of one exchange."""

    name: str
    vendor: str
    label: str
    time_zone: str
    caller: CallerRule
    record: Record
    layouts: tuple[tuple[str, ...], ...]
    clock: str  # zone of times without offset; empty: that of the business days
    numbering: Numbering
    files: tuple[str, ...]
    plausible_from: datetime.date
    plausible_to: datetime.date | None
    file: Path
    is_overridable: bool = True

    @property
    def kinds(self) -> tuple[Record, ...]:
        """The feed's one record."""
        return (self.record,)

    def record_for(self, name: str) -> Record:
        """The feed's one record, if the name is one of its files."""
        if any(fnmatch(name, pattern) for pattern in self.files):
            return self.record
        raise RefusedError(
            f"{name}: feed {self.file.stem} takes no file of this name ({', '.join(self.files)}): "
            f"rename the file, or add a pattern under 'files' in {self.file.name}"
        )

    def open(self, path: Path) -> Reader:
        """The file, ready to be landed."""
        # polars takes long to import
        if self.record is CDR:
            from callhouse.sources.asterisk.cdr import CallDetailRecords

            return CallDetailRecords(path, self)
        from callhouse.sources.asterisk.cel import ChannelEvents

        return ChannelEvents(path, self)


def load(node: document.Node, default_zone: str | None) -> Feed:
    """Read and check a feed of records `cdr` or `cel`.

    With `exchange` its settings are that feed's (see `join`), and the file may not have them.
    """
    own_name = document.feed_name(node)
    kind = node.text("records", choices=("cdr", "cel"))
    exchange = node.text("exchange", "")
    zone, caller = default_zone or "UTC", Caller("CN")
    label, first, last = "", DEFAULT_PLAUSIBLE_FROM, None
    if not exchange:
        label = node.text("label", f"Asterisk {kind.upper()}")
        zone = document.time_zone(node, default_zone)
        caller = Caller(document.country(node, "CN"))
        plausible = node.block("plausible_days", {})
        first, last = plausible.date("from") or first, plausible.date("to")
        plausible.finish()
    feed = Feed(
        name=exchange or own_name,
        vendor=node.text("vendor", "asterisk", ("asterisk",)),
        label=label,
        time_zone=zone,
        caller=caller,
        record=CDR if kind == "cdr" else CEL,
        layouts=_layouts(node, kind),
        clock=_clock(node),
        numbering=Numbering(
            _pattern(node, "internal", "[0-9]{2,5}"),
            _pattern(node, "hotlines", ""),
            _agent(node),
            _contexts(node),
            _applications(node),
        ),
        files=node.texts("files", ("*",)),
        plausible_from=first,
        plausible_to=last,
        file=node.file,
    )
    node.finish()
    return feed


def join(feed: Feed, exchange: Exchange) -> Feed:
    """The feed with what its exchange says: one source has one zone, and a number one caller."""
    if isinstance(exchange, Feed) and exchange.name != exchange.file.stem:
        raise CallhouseError(
            f"{feed.file.name}: exchange: '{feed.name}' belongs to an exchange itself: "
            f"name {exchange.name}"
        )
    return replace(
        feed,
        label=exchange.label,
        time_zone=exchange.time_zone,
        caller=exchange.caller,
        plausible_from=exchange.plausible_from,
        plausible_to=exchange.plausible_to,
    )


def _layouts(node: document.Node, kind: str) -> tuple[tuple[str, ...], ...]:
    known = CDR_LAYOUTS if kind == "cdr" else CEL_LAYOUTS
    columns = node.texts("columns", ())
    if not columns:
        return known
    names = (*known[-1], *FURTHER[kind], "-")
    for name in columns:
        if name not in names:
            raise node.error(
                "columns", f"'{name}' is none{document.near(name, names)}: {', '.join(names)}"
            )
        if name != "-" and columns.count(name) > 1:
            raise node.error("columns", f"'{name}' is there twice")
    missing = [name for name in NEEDED[kind] if name not in columns]
    if not {"uniqueid", "linkedid"} & set(columns):
        missing.append("linkedid")
    if missing:
        raise node.error("columns", f"without {', '.join(missing)} no call can be told: add it")
    return (columns,)


def _clock(node: document.Node) -> str:
    zone = node.text("times", "local")
    if zone in ("local", "utc"):
        return {"local": "", "utc": "UTC"}[zone]
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise node.error("times", f"'{zone}' is neither local, utc nor a time zone") from None
    return zone


def _pattern(node: document.Node, key: str, default: str) -> str:
    patterns = node.texts(key, (default,) if default else ())
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise node.error(key, f"'{pattern}' is no pattern: {error}") from None
    return "|".join(f"(?:{pattern})" for pattern in patterns)


def _agent(node: document.Node) -> str:
    template = node.text("agent", "{technology}/{party}")
    parts = re.sub(r"\{(technology|party)\}", "", template)
    if "{party}" not in template or "{" in parts or "}" in parts:
        raise node.error("agent", f"'{template}': write {{party}}, and {{technology}} if wanted")
    return template


def _contexts(node: document.Node) -> tuple[tuple[str, str], ...]:
    pairs = node.pairs("contexts") if node.has("contexts") else (("callback", "callback"),)
    for context, direction in pairs:
        if direction not in DIRECTIONS:
            listed = ", ".join(DIRECTIONS)
            raise node.error("contexts", f"{context}: '{direction}' is not one of {listed}")
    return pairs


def _applications(node: document.Node) -> tuple[tuple[str, str], ...]:
    kinds = dict(APPLICATIONS)
    for application, kind in node.pairs("applications"):
        if kind not in KINDS:
            listed = ", ".join(KINDS)
            raise node.error("applications", f"{application}: '{kind}' is not one of {listed}")
        kinds[application.lower()] = kind
    return tuple(sorted(kinds.items()))
