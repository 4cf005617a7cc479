"""Contact records as typed rows: one object per contact and version of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from callhouse.sources.amazon_connect import fields, frames
from callhouse.sources.amazon_connect.fields import Reading
from callhouse.sources.amazon_connect.mapping import CONTACTS, TOLD, Caller, Feed
from callhouse.sources.amazon_connect.objects import (
    Found,
    Json,
    ObjectFile,
    PushedObjects,
    Row,
    cleaned,
)
from callhouse.sources.contract import Unreadable

CHANNELS = ("VOICE", "CHAT", "TASK", "EMAIL")
METHODS = (
    "INBOUND", "OUTBOUND", "TRANSFER", "QUEUE_TRANSFER", "CALLBACK", "API", "DISCONNECT",
    "MONITOR", "EXTERNAL_OUTBOUND", "WEBRTC_API", "AGENT_REPLY", "FLOW", "CAMPAIGN_PREVIEW",
    "CALLBACK_CUSTOMER_FIRST_QUEUED", "CALLBACK_CUSTOMER_FIRST_DIALED",
)  # fmt: skip
REASONS = (
    "CUSTOMER_DISCONNECT", "AGENT_DISCONNECT", "THIRD_PARTY_DISCONNECT", "TELECOM_PROBLEM",
    "BARGED", "CONTACT_FLOW_DISCONNECT", "OTHER", "EXPIRED", "API", "AGENT_COMPLETED",
    "TRANSFERRED", "AGENT_NETWORK_DISCONNECT", "CUSTOMER_NETWORK_DISCONNECT", "IDLE_DISCONNECT",
    "SYSTEM_ERROR", "DISCARDED", "OUTBOUND_DESTINATION_ENDPOINT_ERROR", "OUTBOUND_RESOURCE_ERROR",
    "OUTBOUND_ATTEMPT_FAILED", "OUTBOUND_PREVIEW_DISCARDED", "CUSTOMER_NEVER_ARRIVED",
    "CUSTOMER_CONNECTION_NOT_ESTABLISHED",
)  # fmt: skip
# A call-back begins a call: the customer has hung up, and may be called on another day.
BEGINNINGS = ("CALLBACK", "CALLBACK_CUSTOMER_FIRST_QUEUED")
CONTINUED_CALLBACK = "CALLBACK_CUSTOMER_FIRST_DIALED"
NO_CALLER = ("", "anonymous", "unknown", "restricted", "unavailable", "private")
# The same on every record of an instance, or of no meaning for a voice call.
UNINTERESTING = (
    "AWSAccountId", "AWSContactTraceRecordFormatVersion", "InstanceARN", "MediaStreams",
)  # fmt: skip
# What makes two versions of a record one, whatever wrote them.
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
# It writes plain objects likewise, in a tenth of the time.
SORTED = msgspec.json.Encoder(order="sorted")
OF_LANDING = ("caller", "caller_region_code", "caller_carrier")
TOLD_AS_THEY_ARE = tuple(name for name in TOLD if name not in ("contained", "survey_score"))
SCALES = {"csat": (1, 5), "nps": (0, 10), "ces": (1, 7)}


class Contacts(ObjectFile):
    """One open file of contact records."""

    def __init__(self, path: Path, feed: Feed) -> None:
        super().__init__(path)
        self.feed, self.notes = feed, list[str]()
        self.record = CONTACTS
        self.caller: Caller = feed.caller

    def read(self, found: Found) -> Row | tuple[str, str]:
        """The row of an object, or (code, reason) why it makes none."""
        return read(found, self.feed)


class PushedContacts(PushedObjects, Contacts):
    """Contact records that were pushed."""

    def __init__(
        self, name: str, feed: Feed, items: Sequence[str | Unreadable], content_hash: str
    ) -> None:
        Contacts.__init__(self, Path(name), feed)
        self.hold(items, content_hash)


def read(found: Found, feed: Feed) -> Row | tuple[str, str]:
    """A row, or (code, reason) of a record that says of no contact when it was."""
    content: Json = cleaned(found.content) if found.has_bad_text else found.content
    canonical = (
        SORTED.encode(content)
        if found.is_plain
        else CANONICAL.encode(content).encode("utf-8", "replace")
    )
    row_hash = hashlib.md5(canonical).digest()  # noqa: S324  # no secret
    reading = Reading()
    text, instant, block = reading.text, reading.instant, reading.block
    row = dict.fromkeys(OF_LANDING) | {"line_number": found.number, "row_hash": row_hash}
    contact_id = text(content, "ContactId")
    if contact_id is None:
        return "no_contact_id", "has no ContactId"
    began_at = instant(content, "InitiationTimestamp", "event_at")
    if began_at is None:
        return "unreadable_time", "has no readable InitiationTimestamp"
    day = frames.local_day(began_at, feed.time_zone)
    if reason := frames.implausible(day, feed):
        return "implausible_day", reason
    row |= {"contact_id": contact_id, "event_at": began_at, "business_day": day}
    method = reading.known(text(content, "InitiationMethod"), METHODS, "initiation_method")
    initial, previous = text(content, "InitialContactId"), text(content, "PreviousContactId")
    row["call_id"] = initial or contact_id
    if method in BEGINNINGS:
        row["call_id"] = contact_id
    elif method == CONTINUED_CALLBACK:
        row["call_id"] = previous or contact_id
    row |= {
        "initial_contact_id": initial,
        "previous_contact_id": previous,
        "next_contact_id": text(content, "NextContactId"),
        "contact_channel": reading.known(text(content, "Channel"), CHANNELS, "contact_channel"),
        "initiation_method": method,
        "disconnect_reason": reading.known(
            text(content, "DisconnectReason"), REASONS, "disconnect_reason"
        ),
        "connected_to_system_at": instant(
            content, "ConnectedToSystemTimestamp", "connected_to_system_at"
        ),
        "disconnected_at": instant(content, "DisconnectTimestamp", "disconnected_at"),
        "transfer_completed_at": instant(
            content, "TransferCompletedTimestamp", "transfer_completed_at"
        ),
        "last_update_at": instant(content, "LastUpdateTimestamp", "last_update_at"),
        "connection_attempts": _whole(
            reading.seconds(content, "AgentConnectionAttempts", "connection_attempts")
        ),
    }
    if row["last_update_at"] is None:
        reading.issues.append("missing:last_update_at")
        row["last_update_at"] = row["disconnected_at"] or began_at
    customer, system = block(content, "CustomerEndpoint"), block(content, "SystemEndpoint")
    address = text(customer, "Address")
    secrets = fields.secrets_of(address)
    is_number = text(customer, "Type") == "TELEPHONE_NUMBER"
    if is_number and address and address.lower() not in NO_CALLER:
        row["caller"] = address
    hotline = text(system, "Address")
    text(system, "Type")
    row["hotline_id"] = feed.hotlines.get(hotline, hotline) if hotline else None
    row |= _agent(reading, block(content, "Agent"), feed) | _queue(reading, block(content, "Queue"))
    outside = block(content, "TransferredToEndpoint")
    row["transferred_to"] = text(outside, "Type")
    text(outside, "Address")  # another person's number
    attributes = block(content, "Attributes")
    row |= _told(reading, attributes, feed, secrets)
    row["attributes"] = fields.kept(attributes, secrets, is_plain=found.is_plain)
    for name in ("Attributes", *UNINTERESTING):
        content.pop(name, None)
    row["other_fields"] = fields.kept(content, secrets, is_plain=found.is_plain)
    row["data_issues"] = ",".join(reading.issues) or None
    return row


def _agent(reading: Reading, agent: Json, feed: Feed) -> dict[str, Any]:
    groups = reading.block(agent, "HierarchyGroups")
    profile = reading.block(agent, "RoutingProfile")
    group = fields.team(groups, feed.team_level)
    row = {
        "agent_id": fields.reference(agent, "Username"),
        "agent_name": None,
        "team_id": group,
        "team_name": group,
        "agent_region_code": feed.region_level and fields.team(groups, feed.region_level),
        "routing_profile": fields.reference(profile),
        "talk_seconds": reading.seconds(agent, "AgentInteractionDuration", "talk_seconds"),
        "hold_seconds": reading.seconds(agent, "CustomerHoldDuration", "hold_seconds"),
        "acw_seconds": reading.seconds(agent, "AfterContactWorkDuration", "acw_seconds"),
        "connected_to_agent_at": reading.instant(
            agent, "ConnectedToAgentTimestamp", "connected_to_agent_at"
        ),
        "acw_started_at": reading.instant(
            agent, "AfterContactWorkStartTimestamp", "acw_started_at"
        ),
        "acw_ended_at": reading.instant(agent, "AfterContactWorkEndTimestamp", "acw_ended_at"),
    }
    for name in ("ARN", "Username", "HierarchyGroups", "RoutingProfile"):
        agent.pop(name, None)
    return row


def _queue(reading: Reading, queue: Json) -> dict[str, Any]:
    row = {
        "queue_id": fields.queue(queue),
        "queue_seconds": reading.seconds(queue, "Duration", "queue_seconds"),
        "enqueued_at": reading.instant(queue, "EnqueueTimestamp", "enqueued_at"),
        "dequeued_at": reading.instant(queue, "DequeueTimestamp", "dequeued_at"),
    }
    for name in ("ARN", "Name"):
        queue.pop(name, None)
    return row


def _told(
    reading: Reading, attributes: Json, feed: Feed, secrets: tuple[str, ...]
) -> dict[str, Any]:
    """What the contact attributes that the feed names tell."""
    told: dict[str, Any] = {}
    for name, attribute in feed.attributes.items():
        value = attributes.get(attribute)
        if value is None:
            continue
        text = None if isinstance(value, (dict, list)) else str(value).strip()
        codes = TOLD[name]
        if text and codes:
            reading.known(text.lower(), codes, name)
            text = codes.get(text.lower())
        told[name] = fields.masked(text, secrets) or None
    row = dict.fromkeys(TOLD_AS_THEY_ARE) | told
    row.pop("contained", None)
    row["ivr_outcome"] = told.get("contained")
    for name in ("survey_offered_at", "survey_answered_at"):
        raw = attributes.get(feed.attributes.get(name, ""))
        row[name] = reading.as_instant(str(raw).strip() or None, name) if raw else None
    score = reading.as_number(told.get("survey_score"), "survey_score")
    low, high = SCALES.get(row["survey_type"] or "", (0, 10))
    if score is not None and not low <= score <= high:
        reading.issues.append("out_of_scale:survey_score")
        score = None
    row["survey_score"] = score
    return row


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
