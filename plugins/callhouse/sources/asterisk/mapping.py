"""Feeds of Asterisk: what there is to say about them in YAML, and the record they hold."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.sources import document, pushes, storage
from callhouse.sources.asterisk import exchange, manager, table
from callhouse.sources.contract import Field, FileLayout, Reader, Record, RefusedError, Session

DEFAULT_PLAUSIBLE_FROM = datetime.date(1990, 1, 1)

EVENTS = Record(
    "events",
    "staging.asterisk_events",
    key=(),  # an event has no newer version
    day="business_day",
    partitioned=True,
    fields=(
        Field("call_id"),
        Field("reported_call_id"),
        Field("queue_id", member="queue"),
        Field("agent_id", member="agent"),
        Field("event", required=True, free="kept"),
        *(Field(f"data{number}", free="kept") for number in range(1, 6)),  # of some events
        Field("hotline_id", member="hotline"),
        Field("caller", "caller"),
        Field("caller_region_code", member="region"),
        Field("caller_carrier"),
        Field("wait_seconds", "seconds"),
        Field("ring_seconds", "seconds"),
        Field("talk_seconds", "seconds"),
        Field("login_seconds", "seconds"),
        Field("wrapup_seconds", "seconds"),
        Field("event_at", "instant", required=True),
        Field("began_at", "instant", required=True),
    ),
    reach_days=1,
    heads=exchange.HEADS,
    heads_of=exchange.TABLES,
)

RECORDS = {record.name: record for record in (EVENTS, exchange.CDR, exchange.CEL)}


@dataclass(frozen=True)
class Caller:
    """Callers are telephone numbers."""

    country: str


@dataclass(frozen=True)
class Feed:
    """The queue logs of one exchange."""

    name: str
    vendor: str
    label: str
    time_zone: str
    caller: Caller
    files: tuple[str, ...]
    plausible_from: datetime.date
    plausible_to: datetime.date | None
    file: Path
    is_told: bool = False  # by the manager interface: it takes no files
    is_overridable: bool = True
    told_as: str = "manager"

    @property
    def kinds(self) -> tuple[Record, ...]:
        """Events alone."""
        return (EVENTS,)

    def record_for(self, name: str) -> Record:
        """Events, if the name is one of a queue log."""
        if self.is_told and name != self.told_as:
            raise RefusedError(
                f"{name}: feed {self.name} listens to the manager interface, and each call would "
                "be there twice: land the queue log as another feed, one of the two with "
                "`marts: false`"
            )
        if any(fnmatch(name, pattern) for pattern in self.files):
            return EVENTS
        raise RefusedError(
            f"{name}: feed {self.name} takes no file of this name ({', '.join(self.files)}): "
            f"rename the file, or add a pattern under 'files' in {self.file.name}"
        )

    def open(self, path: Path) -> Reader:
        """The file, ready to be landed."""
        from callhouse.sources.asterisk.queue_log import QueueLog  # polars takes long to import

        return QueueLog(path, self)

    def open_lines(self, name: str, content: bytes, first_line: int, content_hash: str) -> Reader:
        """Lines of a log that grows."""
        from callhouse.sources.asterisk.queue_log import QueueLogLines

        return QueueLogLines(name, self, content, first_line, content_hash)

    def check_address(self, address: str) -> None:
        """CallhouseError where it is none of a manager interface."""
        manager.address(address)

    def session(self, address: str, secret: str) -> Session:
        """Log in at the manager interface."""
        return manager.Session(manager.address(address), secret)

    def take(self, record: Record, body: bytes, media: str) -> list[Any]:  # noqa: ARG002
        """Lines as an exchange writes them."""
        return pushes.lines(body, media)

    def identities(self, record: Record, items: Sequence[Any]) -> set[Hashable]:  # noqa: ARG002
        """Nothing: a line of a log has no versions."""
        return set()

    def open_items(
        self, record: Record, name: str, items: Sequence[Any], content_hash: str,  # noqa: ARG002
        layout: FileLayout | None,  # noqa: ARG002
    ) -> Reader:  # fmt: skip
        """Lines that were pushed."""
        return self.open_lines(name, b"".join(line + b"\n" for line in items), 1, content_hash)


join = exchange.join


def open_table(settings: Settings, feed: Feed | exchange.Feed) -> table.Table:
    """The table that a feed of queue logs is also read from."""
    if not isinstance(feed, Feed):
        raise CallhouseError(f"{feed.file.name}: only a queue log is read from a table")
    return table.Table(settings, feed.time_zone)


def load(file: Path, default_zone: str | None = None) -> Feed | exchange.Feed:
    """Read and check a feed; without a time zone of its own it has the instance's."""
    node = document.read(file)
    if node.text("records", "queue_log", ("queue_log", "cdr", "cel")) != "queue_log":
        return exchange.load(node, default_zone)
    plausible = node.block("plausible_days", {})
    is_told = storage.is_exchange(node.text("location", ""))
    if is_told:
        node.text("exchange", "")  # see registry
    feed = Feed(
        name=document.feed_name(node),
        vendor=node.text("vendor", "asterisk", ("asterisk",)),
        label=node.text("label", "Asterisk queue_log"),
        time_zone=document.time_zone(node, default_zone),
        caller=Caller(document.country(node, "CN")),
        files=("*",) if is_told else node.texts("files", ("*",)),
        plausible_from=plausible.date("from") or DEFAULT_PLAUSIBLE_FROM,
        plausible_to=plausible.date("to"),
        file=file,
        is_told=is_told,
    )
    plausible.finish()
    node.finish()
    return feed
