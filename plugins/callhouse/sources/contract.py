"""The intake contract of landing: what a record holds, whatever vendor or file it came from.

A source turns its files into `Batch`es of these fields; `callhouse.landing` stores them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from callhouse.errors import CallhouseError

if TYPE_CHECKING:  # the DAG files read mappings, and polars takes long to import
    import polars as pl

Kind = Literal["text", "code", "integer", "seconds", "instant", "day", "caller"]


@dataclass(frozen=True)
class Field:
    """One field of a record. `codes` is the closed list of a `code`; other texts are free."""

    name: str
    kind: Kind = "text"
    required: bool = False
    codes: tuple[str, ...] = ()
    member: str | None = None  # kind in staging.members that collects the field's values


@dataclass(frozen=True)
class Record:
    """One kind of row, its staging table and its key within a source."""

    name: str
    table: str
    key: tuple[str, ...]
    day: str  # column that decides which days a row touches, and its partition if it has one
    partitioned: bool
    fields: tuple[Field, ...]

    @property
    def by_name(self) -> dict[str, Field]:
        """Fields by their name."""
        return {item.name: item for item in self.fields}


OUTCOMES = (
    "answered", "abandoned", "timeout", "exit_key", "overflow_full", "overflow_empty",
    "overflow_diverted", "closed", "transferred", "callback_requested", "voicemail",
    "contained", "incomplete", "phantom",
)  # fmt: skip
ABANDON_STAGES = ("ivr", "bot", "queue", "ring", "hold", "voicemail")
CHANNELS = ("ivr", "bot", "human", "callback", "voicemail")

# In the order in which they happen.
LEG_TIMES = (
    "arrived_at", "ivr_entered_at", "ivr_left_at", "queue_entered_at", "queue_left_at",
    "answered_at", "released_at", "ended_at",
)  # fmt: skip
# Reported durations and the row times that bound them (METRICS.md, ruling 1).
LEG_DURATIONS = {
    "ivr_seconds": ("ivr_entered_at", "ivr_left_at"),
    "wait_seconds": ("queue_entered_at", "queue_left_at"),
    "talk_seconds": ("answered_at", "released_at"),
}
LONGEST_SECONDS = 10.0**8  # three years; beyond it a duration is no duration
SERVICE = ("talk_seconds", "hold_seconds", "acw_seconds")

LEGS = Record(
    "legs",
    "staging.delimited_legs",
    key=("call_id", "leg_number"),
    day="business_day",
    partitioned=True,
    fields=(
        Field("call_id", required=True),
        Field("leg_number", "integer"),
        Field("caller", "caller"),
        Field("caller_region_code", member="region"),
        Field("caller_carrier"),
        Field("hotline_id", member="hotline"),
        Field("channel", "code", codes=CHANNELS, member="channel"),
        Field("business_type", member="business_type"),
        Field("queue_id", member="queue"),
        Field("agent_id", member="agent"),
        Field("priority"),
        Field("outcome", "code", required=True, codes=OUTCOMES),
        Field("abandon_stage", "code", codes=ABANDON_STAGES),
        Field("transfer_type", "code", codes=("blind", "attended", "consult")),
        Field("hangup_party", "code", codes=("customer", "agent", "system")),
        *(Field(name, "seconds") for name in ("ivr_seconds", "wait_seconds", "ring_seconds")),
        *(Field(name, "seconds") for name in SERVICE),
        Field("arrived_at", "instant", required=True),
        *(Field(name, "instant") for name in LEG_TIMES[1:]),
    ),
)
AGENTS = Record(
    "agents",
    "staging.delimited_agents",
    key=("agent_id", "valid_from"),
    day="valid_from",
    partitioned=False,
    fields=(
        Field("agent_id", required=True, member="agent"),
        Field("agent_name"),
        Field("team_id", member="team"),
        Field("team_name"),
        Field("region_code", member="region"),
        Field("valid_from", "day", required=True),
    ),
)
QUEUES = Record(
    "queues",
    "staging.delimited_queues",
    key=("queue_id", "valid_from"),
    day="valid_from",
    partitioned=False,
    fields=(
        Field("queue_id", required=True, member="queue"),
        Field("queue_name"),
        Field("business_type", member="business_type"),
        Field("valid_from", "day", required=True),
    ),
)
RECORDS = {record.name: record for record in (LEGS, AGENTS, QUEUES)}

# Columns of every staging table that landing fills in beside the record's fields.
LEG_EXTRAS = ("caller_token", "caller_key_version", "data_issues", "business_day")


def staged_columns(record: Record) -> tuple[str, ...]:
    """Columns that a COPY of `record` writes, apart from `source` and `unit_id`."""
    names = tuple(item.name for item in record.fields if item.kind != "caller")
    extras = LEG_EXTRAS if record is LEGS else ()
    return ("line_number", "row_hash", *names, *extras)


class RefusedError(CallhouseError):
    """The file as a whole cannot be landed; the message names file, line and fix."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: it goes to quarantine with its bytes."""

    line_number: int
    code: str
    reason: str
    column: str | None
    content: bytes


@dataclass(frozen=True)
class Batch:
    """Some rows of a file. `rows` has the record's fields, `line_number` and `row_hash` (md5).

    Instants are UTC microseconds since 1970, `data_issues` is comma-separated, and `caller` still
    holds the raw value; landing replaces it before anything is written.
    """

    rows: pl.DataFrame
    rejected: list[Rejected] = field(default_factory=list)
    read: int = 0
    header_rows: int = 0
    position: float = 0.0  # share of the file that has been read, 0 to 1
