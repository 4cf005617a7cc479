"""Agent events as typed rows: what an agent was busy with before and after each event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from callhouse.sources.amazon_connect import fields, frames
from callhouse.sources.amazon_connect.contacts import BEGINNINGS, METHODS
from callhouse.sources.amazon_connect.fields import Reading
from callhouse.sources.amazon_connect.mapping import AGENT_EVENTS, Feed
from callhouse.sources.amazon_connect.objects import (
    Found,
    Json,
    ObjectFile,
    PushedObjects,
    Row,
    cleaned,
)
from callhouse.sources.contract import CallerRule, Unreadable

TYPES = ("LOGIN", "LOGOUT", "STATE_CHANGE", "HEART_BEAT")
STATUS_TYPES = ("ROUTABLE", "CUSTOM", "OFFLINE", "SYSTEM")
# Of several contacts the agent is busy with the first of these: a conversation before work after
# another one, and a voice contact before any other.
STATES = (
    "CONNECTED", "CONNECTED_ONHOLD", "INCOMING", "PENDING", "CONNECTING", "ENDED", "PAUSED",
    "MISSED", "REJECTED", "ERROR",
)  # fmt: skip
RANKS = {state: rank for rank, state in enumerate(STATES)}
KNOWN_SNAPSHOT = ("AgentStatus", "Configuration", "Contacts", "NextAgentStatus")
UNINTERESTING = ("AWSAccountId", "InstanceARN", "Version")


class AgentEvents(ObjectFile):
    """One open file of agent events."""

    def __init__(self, path: Path, feed: Feed) -> None:
        super().__init__(path)
        self.feed, self.notes = feed, list[str]()
        self.record = AGENT_EVENTS
        self.caller: CallerRule | None = None

    def read(self, found: Found) -> Row | tuple[str, str]:
        """The row of an object, or (code, reason) why it makes none."""
        return read(found, self.feed)


class PushedAgentEvents(PushedObjects, AgentEvents):
    """Agent events that were pushed."""

    def __init__(
        self, name: str, feed: Feed, items: Sequence[str | Unreadable], content_hash: str
    ) -> None:
        AgentEvents.__init__(self, Path(name), feed)
        self.hold(items, content_hash)


def read(found: Found, feed: Feed) -> Row | tuple[str, str]:
    """A row, or (code, reason) of an event that does not say whose it is and when."""
    content: Json = cleaned(found.content) if found.has_bad_text else found.content
    reading = Reading()
    event_id, kind = reading.text(content, "EventId"), reading.text(content, "EventType")
    if event_id is None or kind is None:
        return "no_event", "has no EventId or no EventType"
    event_at = reading.instant(content, "EventTimestamp", "event_at")
    if event_at is None:
        return "unreadable_time", "has no readable EventTimestamp"
    day = frames.local_day(event_at, feed.time_zone)
    if reason := frames.implausible(day, feed):
        return "implausible_day", reason
    current = reading.block(content, "CurrentAgentSnapshot")
    previous = reading.block(content, "PreviousAgentSnapshot")
    arn = reading.text(content, "AgentARN")
    agent = _agent(reading, current or previous, feed)
    agent_id = agent["agent_id"] or (arn and arn.rpartition("/")[2])
    if not agent_id:
        return "no_agent", "names no agent"
    now, _ = _snapshot(reading, current, "")
    before, started_at = _snapshot(reading, previous, "previous_")
    row: dict[str, Any] = {
        "event_id": event_id,
        "event_type": reading.known(kind, TYPES, "event_type"),
        "event_at": event_at,
        "business_day": day,
        "previous_started_at": started_at,
        **agent,
        "agent_id": agent_id,
        **now,
        **before,
    }
    for name in ("CurrentAgentSnapshot", "PreviousAgentSnapshot", *UNINTERESTING):
        content.pop(name, None)
    unknown = {name: value for name, value in current.items() if name not in KNOWN_SNAPSHOT}
    row["other_fields"] = fields.kept(content | unknown) if content or unknown else None
    row["data_issues"] = ",".join(dict.fromkeys(reading.issues)) or None
    told = json.dumps(list(row.values()), default=str).encode()
    row["row_hash"] = hashlib.md5(told).digest()  # noqa: S324  # no secret
    row["line_number"] = found.number
    return row


def _agent(reading: Reading, snapshot: Json, feed: Feed) -> dict[str, Any]:
    configuration = reading.block(snapshot, "Configuration")
    groups = reading.block(configuration, "AgentHierarchyGroups")
    names = (configuration.get("FirstName"), configuration.get("LastName"))
    team = fields.team(groups, feed.team_level)
    return {
        "agent_id": fields.reference(configuration, "Username"),
        "agent_name": " ".join(str(name) for name in names if name) or None,
        "team_id": team,
        "team_name": team,
        "agent_region_code": feed.region_level and fields.team(groups, feed.region_level),
        "routing_profile": fields.reference(reading.block(configuration, "RoutingProfile")),
    }


def _snapshot(reading: Reading, snapshot: Json, prefix: str) -> tuple[dict[str, Any], int | None]:
    """(fields, since when) of a snapshot."""
    status = reading.block(snapshot, "AgentStatus")
    contact = _main_contact(snapshot)
    method = reading.text(contact, "InitiationMethod")
    contact_id = reading.text(contact, "ContactId")
    initial = reading.text(contact, "InitialContactId")
    row = {
        "status_name": reading.text(status, "Name"),
        "status_type": reading.known(reading.text(status, "Type"), STATUS_TYPES, "status_type"),
        "call_id": contact_id if method in BEGINNINGS else initial,
        "contact_id": contact_id,
        "contact_state": reading.known(reading.text(contact, "State"), STATES, "contact_state"),
        "initiation_method": reading.known(method, METHODS, "initiation_method"),
        "queue_id": fields.queue(reading.block(contact, "Queue")),
    }
    row["call_id"] = row["call_id"] or contact_id
    since = reading.text(contact, "StateStartTimestamp") or reading.text(status, "StartTimestamp")
    started_at = reading.as_instant(since, "state_started_at") if prefix else None
    return {prefix + name: value for name, value in row.items()}, started_at


def _main_contact(snapshot: Json) -> Json:
    """The contact that the agent is busy with, empty where there is none."""
    contacts = snapshot.get("Contacts")
    listed = contacts if isinstance(contacts, list) else []
    found = [item for item in listed if isinstance(item, dict)]
    if len(found) < 2:
        return found[0] if found else {}
    return min(
        found,
        key=lambda item: (
            item.get("Channel") != "VOICE",
            RANKS.get(str(item.get("State")), len(RANKS)),
            str(item.get("StateStartTimestamp")),
            str(item.get("ContactId")),
        ),
    )
