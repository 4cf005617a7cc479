"""Feeds of Amazon Connect: what there is to say about them in YAML, and the records they hold."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from callhouse.errors import CallhouseError
from callhouse.sources import document
from callhouse.sources.contract import Field, FileLayout, Reader, Record, RefusedError

DEFAULT_PLAUSIBLE_FROM = datetime.date(1990, 1, 1)
LEVELS = ("1", "2", "3", "4", "5")

AGENT = (
    Field("agent_name"),
    Field("team_id"),
    Field("team_name"),
    Field("agent_region_code", member="region"),
    Field("routing_profile"),
)

CONTACTS = Record(
    "contacts",
    "staging.amazon_connect_contacts",
    key=("contact_id",),
    day="business_day",
    partitioned=True,
    fields=(
        Field("contact_id", required=True),
        Field("call_id", required=True),
        Field("initial_contact_id"),
        Field("previous_contact_id"),
        Field("next_contact_id"),
        Field("contact_channel"),
        Field("initiation_method"),
        Field("disconnect_reason"),
        Field("queue_id", member="queue"),
        Field("agent_id", member="agent"),
        *AGENT,
        Field("caller", "caller"),
        Field("caller_region_code", member="region"),
        Field("caller_carrier"),
        Field("hotline_id", member="hotline"),
        Field("business_type", member="business_type", free="kept"),
        Field("priority", free="kept"),
        Field("self_service"),
        Field("ivr_outcome"),
        Field("queue_exit"),
        Field("voicemail"),
        Field("transferred_to"),
        Field("survey_type"),
        Field("attributes", "json", free="expires"),
        Field("other_fields", "json", free="expires"),
        Field("connection_attempts", "integer"),
        *(
            Field(name, "seconds")
            for name in (
                "queue_seconds", "talk_seconds", "hold_seconds", "acw_seconds", "survey_score",
            )
        ),
        *(
            Field(name, "instant", required=name in ("event_at", "last_update_at"))
            for name in (
                "event_at", "connected_to_system_at", "enqueued_at", "dequeued_at",
                "connected_to_agent_at", "acw_started_at", "acw_ended_at",
                "transfer_completed_at", "disconnected_at", "survey_offered_at",
                "survey_answered_at", "last_update_at",
            )
        ),
    ),
    heads="staging.amazon_connect_calls",
    version="last_update_at",
    follows="previous_contact_id",
    links="staging.amazon_connect_links",
    roster="staging.amazon_connect_agents",
)  # fmt: skip

AGENT_EVENTS = Record(
    "agent_events",
    "staging.amazon_connect_agent_events",
    key=("event_id",),
    day="business_day",
    partitioned=True,
    fields=(
        Field("event_id", required=True),
        Field("event_type", required=True),
        Field("agent_id", required=True, member="agent"),
        *AGENT,
        Field("status_name"),
        Field("status_type"),
        Field("call_id"),
        Field("contact_id"),
        Field("contact_state"),
        Field("initiation_method"),
        Field("queue_id", member="queue"),
        Field("previous_status_name"),
        Field("previous_status_type"),
        Field("previous_call_id"),
        Field("previous_contact_id"),
        Field("previous_contact_state"),
        Field("previous_initiation_method"),
        Field("previous_queue_id", member="queue"),
        Field("other_fields", "json", free="expires"),
        Field("event_at", "instant", required=True),
        Field("previous_started_at", "instant"),
    ),
    version="event_at",
    roster="staging.amazon_connect_agents",
    reach_days=1,
)

RECORDS = {record.name: record for record in (CONTACTS, AGENT_EVENTS)}
# What a contact attribute may tell: its place in the record, and the codes that are understood.
TOLD: Mapping[str, Mapping[str, str]] = {
    "business_type": {},
    "priority": {},
    "self_service": {"menu": "menu", "bot": "bot"},
    "contained": {"true": "contained", "false": ""},
    "queue_exit": {
        "timeout": "timeout", "exit_key": "exit_key", "callback_requested": "callback_requested",
    },
    "voicemail": {"left": "left", "none": "none"},
    "survey_type": {"csat": "csat", "nps": "nps", "ces": "ces"},
    "survey_score": {},
    "survey_offered_at": {},
    "survey_answered_at": {},
}  # fmt: skip


@dataclass(frozen=True)
class Caller:
    """Callers are telephone numbers."""

    country: str


@dataclass(frozen=True)
class Feed:
    """One kind of record of one Amazon Connect instance."""

    name: str
    vendor: str
    label: str
    time_zone: str
    record: Record
    caller: Caller
    files: tuple[str, ...]
    attributes: Mapping[str, str]  # what is told → name of the contact attribute
    hotlines: Mapping[str, str]  # address of the system's end → hotline
    team_level: str | None  # of the agent hierarchy; None: the deepest
    region_level: str | None  # None: agents have no region
    plausible_from: datetime.date
    plausible_to: datetime.date | None
    file: Path
    is_overridable: bool = True

    @property
    def kinds(self) -> tuple[Record, ...]:
        """The feed's one record."""
        return (self.record,)

    def record_for(self, name: str) -> Record:
        """The feed's record, if the name is one of its files."""
        if any(fnmatch(name, pattern) for pattern in self.files):
            return self.record
        raise RefusedError(
            f"{name}: feed {self.name} takes no file of this name ({', '.join(self.files)}): "
            f"rename the file, or add a pattern under 'files' in {self.file.name}"
        )

    def open(self, path: Path) -> Reader:
        """The file, ready to be landed."""
        # polars takes long to import.
        from callhouse.sources.amazon_connect.agent_events import AgentEvents
        from callhouse.sources.amazon_connect.contacts import Contacts

        return (Contacts if self.record is CONTACTS else AgentEvents)(path, self)

    def take(self, record: Record, body: bytes, media: str) -> list[Any]:  # noqa: ARG002
        """Records in any of the envelopes in which AWS hands them over."""
        from callhouse.sources.amazon_connect import envelopes

        return envelopes.opened(body, media)

    def identities(self, record: Record, items: Sequence[Any]) -> set[Hashable]:  # noqa: ARG002
        """Nothing: of several versions in a unit the newest counts, too."""
        return set()

    def open_items(
        self, record: Record, name: str, items: Sequence[Any], content_hash: str,  # noqa: ARG002
        layout: FileLayout | None,  # noqa: ARG002
    ) -> Reader:  # fmt: skip
        """Objects that were pushed."""
        from callhouse.sources.amazon_connect.agent_events import PushedAgentEvents
        from callhouse.sources.amazon_connect.contacts import PushedContacts

        kind = PushedContacts if self.record is CONTACTS else PushedAgentEvents
        return kind(name, self, items, content_hash)


def join(feed: Feed, instance: Feed) -> Feed:
    """The feed with what its instance says: one source has one zone and one set of teams."""
    if instance.record is feed.record:
        raise CallhouseError(
            f"{feed.file.name}: instance: {instance.name} delivers {feed.record.name} itself: "
            "leave 'instance' out, or name the feed of the other records"
        )
    return replace(
        feed,
        label=instance.label,
        time_zone=instance.time_zone,
        caller=instance.caller,
        team_level=instance.team_level,
        region_level=instance.region_level,
        plausible_from=instance.plausible_from,
        plausible_to=instance.plausible_to,
    )


def load(file: Path, default_zone: str | None = None) -> Feed:
    """Read and check a feed; without a time zone of its own it has the instance's."""
    node = document.read(file)
    plausible = node.block("plausible_days", {})
    hierarchy = node.block("hierarchy", {})
    attributes = node.block("attributes", {})
    own_name = document.feed_name(node)
    feed = Feed(
        name=node.text("instance", own_name),
        vendor=node.text("vendor", "amazon_connect", ("amazon_connect",)),
        label=node.text("label", "Amazon Connect"),
        time_zone=document.time_zone(node, default_zone),
        record=RECORDS[node.text("record", choices=tuple(RECORDS))],
        caller=Caller(document.country(node, "CN")),
        files=node.texts("files", ("*",)),
        attributes={told: attributes.text(told) for told in TOLD if attributes.has(told)},
        hotlines=dict(node.pairs("hotlines")),
        team_level=_level(hierarchy, "team"),
        region_level=_level(hierarchy, "region"),
        plausible_from=plausible.date("from") or DEFAULT_PLAUSIBLE_FROM,
        plausible_to=plausible.date("to"),
        file=file,
    )
    for block in (plausible, hierarchy):
        block.finish()
    attributes.finish(allowed=tuple(TOLD))
    node.finish()
    return feed


def _level(hierarchy: document.Node, name: str) -> str | None:
    """`Level1` to `Level5`, None where the feed names none."""
    if not hierarchy.has(name):
        hierarchy.used.append(name)
        return None
    return f"Level{hierarchy.text(name, choices=LEVELS)}"
