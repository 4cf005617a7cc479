"""Contact records: one per part of a call between transfers."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from callhouse.simulate import world
from callhouse.simulate.connect.names import ACCOUNT, INSTANCE, Json, Names, text
from callhouse.simulate.records import Call, Leg, World

NUMBERS = {"service": "+864000000001", "premium": "+864000000002"}
ENQUEUED_NEVER = ("overflow_full", "overflow_empty", "overflow_diverted", "closed")
COLUMNS = (
    "contact_id",
    "call_id",
    "contact_number",
    "initiation_method",
    "queue_id",
    "agent_id",
    "outcome",
    "enqueued_epoch",
    "wait_seconds",
    "talk_seconds",
    "hold_seconds",
    "acw_seconds",
    "transfer_type",
)
HANGUPS = {
    "customer": "CUSTOMER_DISCONNECT",
    "agent": "AGENT_DISCONNECT",
    "system": "CONTACT_FLOW_DISCONNECT",
}

Record = tuple[int, str, Json]  # epoch of the delivery, contact, content
Line = tuple[int, str]  # epoch of the delivery, text


@dataclass(slots=True)
class Contact:
    """The legs of a call that one contact record describes; at most one of them was enqueued."""

    contact_id: str
    method: str
    legs: list[Leg]

    @property
    def queued(self) -> Leg | None:
        """The leg that was in a queue."""
        for leg in self.legs:
            if leg.queue_id and leg.outcome not in ENQUEUED_NEVER:
                return leg
        return None

    @property
    def answered(self) -> Leg | None:
        """The leg with an agent."""
        for leg in self.legs:
            if leg.outcome == "answered":
                return leg
        return None


class Contacts:
    """Builds the records, and the table of what they carry."""

    def __init__(self, names: Names, played: World) -> None:
        self._names = names
        self._agents = {agent.agent_id: agent for agent in played.agents}
        self._callback: dict[str, str] = {
            call.requested_by: names.uuid(f"{call.call_id}/1")
            for call in played.calls
            if call.requested_by
        }
        self._ends: dict[str, tuple[str, str]] = {}  # first and last contact by call
        self.of_leg: dict[int, tuple[str, str | None, str]] = {}  # by the identity of the leg
        self.table: list[tuple[object, ...]] = []

    def records(self, call: Call) -> Iterator[Record]:
        """The records of a call with the second of their last update."""
        contacts = self._chain(call)
        first = contacts[0].contact_id
        origin = call.requested_by
        initial, previous = self._ends[origin] if origin else (first, None)
        self._ends[call.call_id] = initial, contacts[-1].contact_id
        at = call.arrived
        for number, contact in enumerate(contacts):
            following = contacts[number + 1] if number + 1 < len(contacts) else None
            next_id = following.contact_id if following else self._callback.get(call.call_id)
            related = initial if previous else None
            end = _end(call, contact, following)
            record = self._record(call, contact, following, at, end)
            record["InitialContactId"] = related
            record["PreviousContactId"] = previous
            record["NextContactId"] = next_id
            answered = contact.answered
            for leg in contact.legs:
                self.of_leg[id(leg)] = (contact.contact_id, related, contact.method)
            updated = max(end, (answered.released or 0) + answered.acw_seconds if answered else 0)
            if not following and call.survey:  # its answer is written into the last contact
                updated = max(updated, call.survey.answered or call.survey.offered)
            # The last update follows the end of all work within the minute.
            updated += 20 + int(contact.contact_id[:4], 16) % 40
            record["LastUpdateTimestamp"] = self._names.stamp(updated)
            self._carry(call, contact, number + 1)
            yield self._names.epoch + updated, contact.contact_id, record
            previous, at = contact.contact_id, end
            if following and answered:
                at = end - answered.aside_seconds

    def _chain(self, call: Call) -> list[Contact]:
        """Contacts of a call: a further one after each transfer."""
        method = "CALLBACK" if call.requested_by else "INBOUND"
        contacts = [Contact(self._names.uuid(f"{call.call_id}/1"), method, [])]
        for number, leg in enumerate(call.legs):
            earlier = call.legs[number - 1] if number else None
            if earlier and (earlier.transfer or earlier.outcome == "transferred"):
                method = "TRANSFER" if earlier.transfer else "QUEUE_TRANSFER"
                name = f"{call.call_id}/{len(contacts) + 1}"
                contacts.append(Contact(self._names.uuid(name), method, []))
            contacts[-1].legs.append(leg)
        return contacts

    def _record(
        self, call: Call, contact: Contact, following: Contact | None, at: int, end: int
    ) -> Json:
        queued, answered = contact.queued, contact.answered
        return {
            "AWSAccountId": ACCOUNT,
            "AWSContactTraceRecordFormatVersion": "2017-03-10",
            "Agent": self._agent(call, answered) if answered else None,
            "AgentConnectionAttempts": _attempts(contact),
            "AnsweringMachineDetectionStatus": None,
            "Attributes": _attributes(call, contact) | ({} if following else self._survey(call)),
            "Campaign": {"CampaignId": None},
            "Channel": "VOICE",
            "ConnectedToSystemTimestamp": self._connected(contact, at),
            "ContactId": contact.contact_id,
            "CustomerEndpoint": {
                "Address": _international(call.caller.number),
                "Type": "TELEPHONE_NUMBER",
            },
            "DisconnectReason": _reason(call, contact, following),
            "DisconnectTimestamp": self._names.stamp(end),
            "InitialContactId": None,
            "InitiationMethod": contact.method,
            "InitiationTimestamp": self._names.stamp(at),
            "InstanceARN": INSTANCE,
            "LastUpdateTimestamp": None,
            "MediaStreams": [{"Type": "AUDIO"}],
            "NextContactId": None,
            "PreviousContactId": None,
            "Queue": {
                **self._names.queue(queued.queue_id),
                "DequeueTimestamp": self._names.stamp(queued.queue_end),
                "Duration": queued.wait_seconds,
                "EnqueueTimestamp": self._names.stamp(queued.queue_start),
            }
            if queued
            else None,
            "Recordings": [],
            "References": [],
            "ScheduledTimestamp": None,
            "SystemEndpoint": {"Address": NUMBERS[call.hotline], "Type": "TELEPHONE_NUMBER"},
            "TransferCompletedTimestamp": self._names.stamp(end) if following else None,
            "TransferredToEndpoint": None,
        }

    def _connected(self, contact: Contact, at: int) -> str | None:
        if contact.method == "CALLBACK":  # the customer picked up, or did not
            return self._names.stamp(contact.legs[0].answered)
        return self._names.stamp(at)

    def _survey(self, call: Call) -> dict[str, str]:
        """What the survey flow writes down; without an answer only that it was offered."""
        survey = call.survey
        if survey is None:
            return {}
        attributes = {
            "survey_type": survey.kind,
            "survey_offered_at": str(self._names.stamp(survey.offered)),
        }
        if survey.score is not None:
            attributes["survey_score"] = str(survey.score)
            attributes["survey_answered_at"] = str(self._names.stamp(survey.answered))
        return attributes

    def _agent(self, call: Call, leg: Leg) -> Json:
        agent = self._agents[leg.agent_id]
        team = agent.team_on(call.arrived // world.DAY)
        released, aside = leg.released or 0, leg.aside_seconds
        holds = [hold for hold in (leg.hold_seconds - aside, aside) if hold]
        return {
            "ARN": self._names.arn("agent", leg.agent_id),
            "AfterContactWorkDuration": leg.acw_seconds,
            "AfterContactWorkEndTimestamp": self._names.stamp(released + leg.acw_seconds),
            "AfterContactWorkStartTimestamp": self._names.stamp(released),
            "AgentInteractionDuration": leg.talk_seconds,
            "ConnectedToAgentTimestamp": self._names.stamp(leg.answered),
            "CustomerHoldDuration": leg.hold_seconds,
            "HierarchyGroups": self._names.groups(team, "GroupName"),
            "LongestHoldDuration": max(holds, default=0),
            "NumberOfHolds": len(holds),
            "RoutingProfile": self._names.profile(agent),
            "StateTransitions": None,
            "Username": leg.agent_id,
        }

    def _carry(self, call: Call, contact: Contact, number: int) -> None:
        queued, answered = contact.queued, contact.answered
        transfer = answered.transfer if answered else ""
        self.table.append(
            (
                contact.contact_id,
                call.call_id,
                number,
                contact.method,
                queued.queue_id if queued else "",
                answered.agent_id if answered else "",
                queued.outcome if queued else "answered" if answered else "",
                self._names.epoch + (queued.queue_start or 0) if queued else "",
                queued.wait_seconds if queued else "",
                answered.talk_seconds if answered else "",
                answered.hold_seconds if answered else "",
                answered.acw_seconds if answered else "",
                "attended" if transfer == "consult" else transfer,
            )
        )


def _end(call: Call, contact: Contact, following: Contact | None) -> int:
    last = contact.legs[-1]
    if following is None:
        return call.ended
    return (last.released if last.transfer else last.queue_end) or 0


def _attempts(contact: Contact) -> int:
    rings = sum(len(leg.rings) for leg in contact.legs)
    return rings or int(any(leg.agent_id for leg in contact.legs))


def _attributes(call: Call, contact: Contact) -> dict[str, str]:
    """What the flow and the customer queue flow write down."""
    attributes = {"business_type": call.business_type}
    if contact.method == "INBOUND":
        bot = call.channel == "bot"
        attributes["self_service"] = "bot" if bot else "menu"
    for leg in contact.legs:
        if leg.outcome == "contained":
            attributes["contained"] = "true"
        elif leg.outcome in ("timeout", "exit_key", "callback_requested"):
            attributes["queue_exit"] = leg.outcome
        elif leg.outcome == "voicemail" or leg.stage == "voicemail":
            attributes["voicemail"] = "left" if leg.outcome == "voicemail" else "none"
    return attributes


def _reason(call: Call, contact: Contact, following: Contact | None) -> str | None:
    """Unknown while the customer is passed on: the contact goes on in the next one."""
    if following:
        return None
    if contact.legs[-1].outcome == "incomplete":
        return "OUTBOUND_ATTEMPT_FAILED" if contact.method == "CALLBACK" else "TELECOM_PROBLEM"
    return HANGUPS[call.hangup_by]


def _international(number: str) -> str:
    """E.164; who withholds the number is shown as `anonymous`."""
    if not number or number[0] in "+a":
        return number or "anonymous"
    return f"+86{number.removeprefix('0')}"


def soiled(records: Iterable[Record], notes: list[Json], chance: random.Random) -> Iterator[Line]:
    """At-least-once delivery: the same again, older versions before or after, unknown fields."""
    for at, contact_id, record in records:
        draw = chance.random()
        if draw > 0.994:
            record["QualityPreview"] = {"Score": round(chance.random(), 3)}
            notes.append({"kind": "unknown_field", "contact_id": contact_id})
        whole = text(record)
        yield at, whole
        if draw < 0.006:
            lag = chance.choice((30, 600, 90_000))
            yield at + lag, whole
            notes.append({"kind": "sent_again", "contact_id": contact_id, "later_seconds": lag})
        elif draw < 0.014 and record["Agent"]:
            lag = chance.choice((-5, 45, 3600))
            yield at + lag, text(_earlier(record))
            notes.append(
                {
                    "kind": "older_version" if lag < 0 else "older_version_last",
                    "contact_id": contact_id,
                    "later_seconds": lag,
                }
            )
        elif draw < 0.015:
            cut = whole[: chance.randint(100, 500)]
            yield at + 1, cut
            notes.append({"kind": "truncated_line", "contact_id": contact_id, "text": cut})


def _earlier(record: Json) -> Json:
    """The record before after-call work was over: less known, an older update."""
    older = copy.deepcopy(record)
    agent = older["Agent"]
    for name in ("Duration", "EndTimestamp", "StartTimestamp"):
        agent[f"AfterContactWork{name}"] = None
    for name in [name for name in older["Attributes"] if name.startswith("Survey")]:
        del older["Attributes"][name]
    older["LastUpdateTimestamp"] = older["DisconnectTimestamp"]
    return older
