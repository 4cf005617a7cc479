"""The intake contract of landing: what a record holds, whatever vendor or file it came from.

A source turns its files into `Batch`es of these fields; `callhouse.landing` stores them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from callhouse.errors import CallhouseError

if TYPE_CHECKING:  # the DAG files read mappings, and polars takes long to import
    import polars as pl

Kind = Literal["text", "code", "integer", "seconds", "instant", "day", "caller", "json"]


@dataclass(frozen=True)
class Field:
    """One field of a record. `codes` is the closed list of a `code`; other texts are free."""

    name: str
    kind: Kind = "text"
    required: bool = False
    codes: tuple[str, ...] = ()
    member: str | None = None  # kind in staging.members that collects the field's values
    # Texts that people write: landing redacts them (`callhouse.security.redaction`). Those that no
    # model reads may expire (`callhouse.security.retention`).
    free: Literal["", "kept", "expires"] = ""


@dataclass(frozen=True)
class Record:
    """One kind of row, its staging table and its key within a source."""

    name: str
    table: str
    key: tuple[str, ...]
    day: str  # column that decides which days a row touches, and its partition if it has one
    partitioned: bool  # rows of calls, by business day; others are reference rows
    fields: tuple[Field, ...]
    # Table of call heads (source, call_id → arrival, business day): rows that are events of a call
    # belong to the day of its first event, wherever and whenever that one is landed.
    heads: str | None = None
    # Field with the key of the row before it in a chain, and the table of these links: a row is of
    # the call of the row before, unless its own `call_id` is its key.
    follows: str | None = None
    links: str | None = None
    # Days before and after its own that a row may shape, as a login that is still open at midnight
    # does: they are marked dirty too. Such a record has an `event_at`; the newest one of a source
    # ends what nothing else has ended.
    reach_days: int = 0
    # Every table whose calls have these heads (none: only `table`): their events move together.
    heads_of: tuple[str, ...] = ()
    # Reference rows that describe what calls and states name: they change every day of the source
    # from their own on.
    is_reference: bool = False
    # Of two different rows of one file with the same key the last counts. Not for rows of calls:
    # there the second may be another call, which could not be found again.
    last_counts: bool = False
    # Field whose largest value, of all rows with one key, is in the row that counts: whatever the
    # order of arrival. Where there is none, the newer file counts.
    version: str | None = None
    # Rows that agree in these fields are one plan of days to come: of several plans only the newest
    # counts, as a whole: the one with the largest `version`. Where there is none, a file is one.
    plan: tuple[str, ...] = ()
    # Table of what the rows say of agents, a row per agent and day.
    roster: str | None = None
    # Builds that read the rows; see ops.builds. Rows of `followups` are compared with published
    # calls, of the day before and after as well: a call at midnight may be on either side of it.
    lane: str = "facts"

    @property
    def by_name(self) -> dict[str, Field]:
        """Fields by their name."""
        return {item.name: item for item in self.fields}

    @property
    def free(self) -> tuple[Field, ...]:
        """Fields of free text."""
        return tuple(item for item in self.fields if item.free)

    @property
    def times(self) -> tuple[str, ...]:
        """Instants in order of time; the first one that a row has decides its day."""
        return tuple(item.name for item in self.fields if item.kind == "instant")

    @property
    def has_caller(self) -> bool:
        """Whether rows name callers, which landing replaces by tokens."""
        return any(item.kind == "caller" for item in self.fields)


OUTCOMES = (
    "answered", "abandoned", "timeout", "exit_key", "overflow_full", "overflow_empty",
    "overflow_diverted", "closed", "transferred", "callback_requested", "voicemail",
    "contained", "incomplete", "phantom",
)  # fmt: skip
ABANDON_STAGES = ("ivr", "bot", "queue", "ring", "hold", "voicemail")
TRANSFER_TYPES = ("blind", "attended", "consult")
CHANNELS = ("ivr", "bot", "human", "callback", "voicemail")
STATES = ("ready", "ring", "dial", "consult", "talk", "hold", "acw", "pause")
# What a plan wants of an agent: calls (`work`), something else (`break` to `training`), or nothing.
ACTIVITIES = ("work", "break", "lunch", "meeting", "training", "absence")
OFFER_OUTCOMES = ("answered", "no_answer", "rejected", "cancelled", "failed")
STEP_OUTCOMES = ("continued", "contained", "abandoned")
# Lowest and highest answer of each kind of survey.
SURVEY_SCALES = {"csat": (1, 5), "nps": (0, 10), "ces": (1, 7)}

# What stands in a file in the place of a caller that was erased (see landing.callers): pseudonym,
# keyed hash of the row, region. Readers take it for a caller.
ERASED_CALLER = r"erased-[0-9a-f]{32}(?:[0-9a-f]{32})?(?:-[A-Z]{2}(?:-[A-Z0-9]{1,3})?)?"

LONGEST_SECONDS = 10.0**8  # three years; beyond it a duration is no duration

# Columns of every staging table that landing fills in beside the record's fields.
CALLER_EXTRAS = ("caller_token", "caller_key_version")
DAY_EXTRAS = ("data_issues", "business_day")


def staged_columns(record: Record) -> tuple[str, ...]:
    """Columns that a COPY of `record` writes, apart from `source` and `unit_id`."""
    names = tuple(item.name for item in record.fields if item.kind != "caller")
    caller = CALLER_EXTRAS if record.has_caller else ()
    day = DAY_EXTRAS if record.partitioned else ()
    return ("line_number", "row_hash", *names, *caller, *day)


class RefusedError(CallhouseError):
    """The file as a whole cannot be landed; the message names file, line and fix."""


class ChangedError(RefusedError):
    """The file was still being written: it can be landed when it is complete."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be read: it goes to quarantine with its bytes."""

    line_number: int
    code: str
    reason: str
    column: str | None
    content: bytes


@dataclass(frozen=True)
class Unreadable:
    """What stands in a push where a record should be: it goes to quarantine with its bytes."""

    code: str
    reason: str
    content: bytes


@dataclass(frozen=True)
class Batch:
    """Some rows of a file. `rows` has the record's fields, `line_number` and `row_hash` (md5).

    Instants are UTC microseconds since 1970, `data_issues` is comma-separated. `caller` still holds
    the raw value and free text whatever was written; landing replaces both before anything is
    stored. Where a field is free text in some rows only, a boolean `is_free` says in which.
    """

    rows: pl.DataFrame
    rejected: list[Rejected] = field(default_factory=list)
    read: int = 0
    header_rows: int = 0
    blank_lines: int = 0
    position: float = 0.0  # share of the file that has been read, 0 to 1


# ------------------------------------------------------------------------------ vendors
CUT_OFF = "cut_off"
"""Reason code of what the file ends within: it lands with the complete file, and never alone."""

FileLayout = Mapping[str, Any]
"""What a row cannot tell of its file, as JSON: kept so that the row can be read again alone."""


@dataclass(frozen=True)
class Inspection:
    """What a first pass over a whole file found. The hash is of the uncompressed content."""

    content_hash: str
    size_bytes: int
    stat: tuple[int, int]


class CallerRule(Protocol):
    """What callers are: telephone numbers of a country, or (None) ids of customers."""

    @property
    def country(self) -> str | None:
        """Country of numbers without prefix."""


class Reader(Protocol):
    """One file. Open in its block: `inspect` comes first, then `batches`, then `is_unchanged`.

    Everything else (ledger, tokens, quarantine, duplicates, days, marks) is landing's. A reader
    raises RefusedError where the file as a whole cannot be landed.
    """

    notes: list[str]  # what a person should know of this file, complete after the last batch
    layout: FileLayout  # likewise

    @property
    def name(self) -> str:
        """The file's name."""

    @property
    def record(self) -> Record:
        """What its rows are."""

    @property
    def caller(self) -> CallerRule | None:
        """What the rows' callers are, if they have any."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def inspect(self) -> Inspection:
        """Hash the content and refuse what no row could be read from."""

    def batches(self, seen: Inspection) -> Iterator[Batch]:
        """The file's rows in its order; lines are numbered from 1, each in one batch."""

    def is_unchanged(self, seen: Inspection) -> bool:
        """Whether the file is still as it was inspected."""

    def again(self, kept: Sequence[Rejected], layout: FileLayout | None) -> Batch:
        """Rows that were set aside, each read by itself as `batches` would read it today.

        The file is gone: `layout` is what was kept of it (None: landed before that was kept).
        RefusedError where it does not tell enough. What `batches` would not make one row of is
        rejected again, with its number and bytes.
        """


class Feed(Protocol):
    """A source of files. Made by `load` of the vendor's `mapping` module from a YAML file."""

    @property
    def name(self) -> str:
        """The source's name everywhere in the warehouse.

        Drop folder, DAG and command line go by the name of the file. Where the two differ, the
        rows are another feed's source: see `registry`.
        """

    @property
    def vendor(self) -> str:
        """The folder in `sources/` that reads it."""

    @property
    def label(self) -> str:
        """Name for people."""

    @property
    def time_zone(self) -> str:
        """Zone of its business days."""

    @property
    def file(self) -> Path:
        """The YAML file."""

    @property
    def kinds(self) -> tuple[Record, ...]:
        """What its files may hold."""

    @property
    def is_overridable(self) -> bool:
        """Whether a file of the same name in the feeds folder may take this one's place.

        Not where it says how columns are read: what is landed would then mean two things.
        """

    def record_for(self, name: str) -> Record:
        """What a file of this name holds; RefusedError where none is expected."""

    def open(self, path: Path) -> Reader:
        """The file, ready to be landed."""


@runtime_checkable
class Tailed(Feed, Protocol):
    """A feed whose log may be read line by line while it grows."""

    def open_lines(self, name: str, content: bytes, first_line: int, content_hash: str) -> Reader:
        """Lines of the log `name`, the first of which is number `first_line` of it.

        Only where the log ends may the last one lack its line end: it is cut off.
        """


class Session(Protocol):
    """A connection on which an exchange tells what happens: once, to who listens then.

    CallhouseError or OSError from any of its methods: it has ended, and says why.
    """

    def heard(self) -> Iterator[bytes]:
        """The lines of what was told since, without line ends; waits a moment for the first."""

    def rest(self) -> list[bytes]:
        """Lines of what still waited for something to follow, when the session has ended."""

    def close(self) -> None:
        """Let go of the connection."""


@runtime_checkable
class Listened(Tailed, Protocol):
    """A feed whose exchange may be listened to. What it tells becomes lines of the feed's log."""

    @property
    def told_as(self) -> str:
        """Name of the log that these lines are of."""

    def check_address(self, address: str) -> None:
        """CallhouseError where it is none of such an exchange."""

    def session(self, address: str, secret: str) -> Session:
        """Connect to the exchange and log in; CallhouseError or OSError where that fails."""


@runtime_checkable
class Pushed(Feed, Protocol):
    """A feed whose records a sender may push, some at a time."""

    @property
    def files(self) -> Sequence[str]:
        """Patterns of its files' names: a push is called as one of them (see `pushes.name`)."""

    def take(self, record: Record, body: bytes, media: str) -> list[Any]:
        """What a request holds, in its order: records as the vendor reads them, or `Unreadable`.

        RefusedError where its body as a whole cannot be read, or is of another media type.
        """

    def identities(self, record: Record, items: Sequence[Any]) -> set[Hashable]:
        """What tells records apart of which the later one counts; empty where none replaces others.

        Requests that share one must not be one unit: within a file such rows may be two calls.
        """

    def open_items(
        self, record: Record, name: str, items: Sequence[Any], content_hash: str,
        layout: FileLayout | None,
    ) -> Reader:  # fmt: skip
        """Records that were taken, numbered from 1.

        `layout` is that of the newest unit there is: a row of a push and one of a file are the same
        only where they are written the same way.
        """
