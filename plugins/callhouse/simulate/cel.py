"""A world as Asterisk's channel event log (`cel_custom`, its sample mapping).

Format, limits and dirt: docs/contributors/sample-data.md.
"""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path
from typing import Any

from callhouse.simulate.chance import stream
from callhouse.simulate.channels import EXTENSIONS, Channel, Channels, by_day, comma_separated
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, Leg, World
from callhouse.simulate.rendering import Rendering, first_second, write_text

FOLDER = "cel"
LIMITS = (
    (
        "queue visits",
        "APP_START of Queue; how it ended is not said; a refusal is a Playback",
    ),
    ("hold, after-call work", "not in the file: hold is within the bridge"),
    ("connections", "BRIDGE_ENTER to BRIDGE_EXIT of the agent's channel: talk + hold"),
    ("self-service", "APP_START of Background (menu) or AGI (bot) to the next APP_START or HANGUP"),
    ("hang-up party", "extra.hangupsource of the caller's HANGUP: its own channel, another, none"),
    ("transfer type", "attended and consult are both ATTENDEDTRANSFER"),
    ("consultations", "a linkedid of their own until the hand-over: no calls"),
    ("messages", "APP_START of VoiceMail; whether one was left is not said"),
    ("call-backs", "the agent's channel is the first one, context callback"),
)
COLUMNS = (
    "call_id",
    "linked_id",
    "arrived_epoch",
    "ended_epoch",
    "ivr_seconds",
    "connections",
    "connected_seconds",
    "hangup_party",
)

Event = tuple[int, str]  # second of the simulation, text


def write(
    directory: Path, played: World, start: date, days: int, seed: int, dirt: bool
) -> Rendering:
    """Write the events of `played` into `directory`/cel, per local day."""
    clock, epoch = Clock(start, days + 2), first_second(start)
    events: list[Event] = []
    carried: list[tuple[object, ...]] = []
    for number, call in enumerate(played.calls, start=1):
        log = _Log(Channels(call, number, epoch))
        log.write()
        events.extend(log.events)
        answered = [leg for leg in call.legs if leg.outcome == "answered"]
        carried.append(
            (
                call.call_id,
                log.linked_id,
                epoch + call.arrived,
                epoch + call.ended,
                call.ivr_seconds,
                len(answered),
                sum(leg.talk_seconds + leg.hold_seconds for leg in answered),
                call.hangup_by,
            )
        )
    events.sort(key=lambda event: event[0])
    notes: list[dict[str, Any]] = []
    if dirt:
        events = _soiled(events, notes, stream(seed, "dirt/cel"))
    paths, counted = [], {}
    for name, texts in by_day("Master", clock, events):
        paths.append(directory / FOLDER / name)
        counted[name] = len(texts)
        write_text(paths[-1], texts)
    legs = [leg for call in played.calls for leg in call.legs]
    connections = sum(leg.outcome == "answered" for leg in legs)
    return Rendering(
        "cel",
        paths,
        counted,
        notes,
        LIMITS,
        {},
        {"calls": (COLUMNS, carried)},
        {
            "calls": len(played.calls),
            "calls_carried": len(played.calls),
            "visits": sum(bool(leg.queue_id) for leg in legs),
            "visits_carried": sum(bool(leg.position) for leg in legs),
            "connections": connections,
            "connections_carried": connections,
        },
    )


class _Log:
    """The events of one call. Within a second the fraction keeps their order."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._call = channels.call
        self._caller = channels.caller
        self.linked_id = self._caller.unique_id
        self._in_vain = 0
        self._application = ("", "")
        self.events: list[Event] = []

    def write(self) -> None:
        """The call from end to end."""
        call, caller = self._call, self._caller
        self._add(call.arrived, "CHAN_START", caller)
        if call.channel == "callback":
            self._call_back(call, call.legs[0])
        else:
            self._add(call.arrived, "ANSWER", caller)
            self._start(
                call.arrived, *(("AGI", "bot") if call.channel == "bot" else ("Background", "menu"))
            )
            partner: Channel | None = None
            for number, leg in enumerate(call.legs, start=1):
                partner = self._leg(number, leg)
            if call.hangup_by == "agent" and partner:
                source = partner.name
            else:
                source = caller.name if call.hangup_by == "customer" else ""
            self._hang_up(call.ended, caller, source)
        self._add(call.ended, "LINKEDID_END", caller)

    def _leg(self, number: int, leg: Leg) -> Channel | None:
        """Returns the channel of the agent who was connected."""
        call, caller = self._call, self._caller
        if leg.outcome == "voicemail" or leg.stage == "voicemail":
            before = call.legs[number - 2].queue_end
            self._start(before or 0, "VoiceMail", EXTENSIONS[call.hotline])
            return None
        if not leg.queue_id and not leg.agent_id:
            return None
        if leg.queue_id:
            if not leg.position:  # refused: an announcement
                self._start(leg.queue_start or 0, "Playback", f"{leg.queue_id}-{leg.outcome}")
                return None
            self._start(leg.queue_start or 0, "Queue", leg.queue_id)
        for ring in leg.rings:
            if ring.result != "answered":
                channel = self._channels.in_vain(self._in_vain, ring)
                self._in_vain += 1
                self._add(ring.start, "CHAN_START", channel)
                self._hang_up(ring.end, channel, "", cause=19)
        if leg.outcome != "answered":
            return None
        agent = self._channels.agent(number, leg)
        answered, released = leg.answered or 0, leg.released or 0
        if leg.queue_id:
            self._add(answered - (leg.ring_seconds or 0), "CHAN_START", agent)
            self._add(answered, "ANSWER", agent)
        self._add(answered, "BRIDGE_ENTER", agent, peer=caller.name)
        self._add(answered, "BRIDGE_ENTER", caller, peer=agent.name)
        if leg.aside_seconds:
            self._consultation(number, leg, call.legs[number])
        if leg.transfer:
            self._transfer(leg, agent, call.legs[number])
        self._add(released, "BRIDGE_EXIT", agent, peer=caller.name)
        self._add(released, "BRIDGE_EXIT", caller, peer=agent.name)
        ended_it = call.hangup_by == "agent" and leg is call.legs[-1]
        self._hang_up(released, agent, agent.name if ended_it or leg.transfer else caller.name)
        return agent

    def _transfer(self, leg: Leg, agent: Channel, following: Leg) -> None:
        extra = {
            "transferee_channel_name": self._caller.name,
            "transferee_channel_uniqueid": self._caller.unique_id,
        }
        if leg.transfer == "blind":
            extra = {"extension": following.queue_id, "context": "queues"} | extra
            self._add(leg.released or 0, "BLINDTRANSFER", agent, extra=extra)
        else:
            extra = {"transfer_target_channel_name": f"PJSIP/{following.agent_id}"} | extra
            self._add(leg.released or 0, "ATTENDEDTRANSFER", agent, extra=extra)

    def _consultation(self, number: int, leg: Leg, second: Leg) -> None:
        """Two channels that belong to no call of a customer before the hand-over."""
        mine = self._channels.consulting(number, leg)
        other = self._channels.agent(number + 1, second)
        released = leg.released or 0
        since, whole = released - leg.aside_seconds, mine.unique_id
        for at, kind, channel in (
            (since, "CHAN_START", mine),
            (since, "CHAN_START", other),
            (min(since + 2, released), "ANSWER", other),
            (min(since + 2, released), "BRIDGE_ENTER", mine),
            (min(since + 2, released), "BRIDGE_ENTER", other),
            (released, "BRIDGE_EXIT", other),
            (released, "BRIDGE_EXIT", mine),
        ):
            self._add(at, kind, channel, linked_id=whole, context="agents")
        self._hang_up(released, mine, mine.name, linked_id=whole, context="agents")
        self._add(released, "LINKEDID_END", mine, linked_id=whole, context="agents")

    def _call_back(self, call: Call, leg: Leg) -> None:
        agent, customer = self._caller, self._channels.customer()
        self._add(call.arrived, "CHAN_START", customer)
        if leg.answered is not None:
            self._add(leg.answered, "ANSWER", customer)
            self._add(leg.answered, "BRIDGE_ENTER", customer, peer=agent.name)
            self._add(leg.answered, "BRIDGE_ENTER", agent, peer=customer.name)
            self._add(call.ended, "BRIDGE_EXIT", customer, peer=agent.name)
            self._add(call.ended, "BRIDGE_EXIT", agent, peer=customer.name)
        source = customer.name if call.hangup_by == "customer" else agent.name
        self._hang_up(call.ended, customer, source)
        self._hang_up(call.ended, agent, source)

    def _start(self, at: int, application: str, data: str) -> None:
        """The caller's channel enters an application and has left the one before."""
        if self._application[0]:
            self._add(at, "APP_END", self._caller)
        self._application = (application, data)
        self._add(at, "APP_START", self._caller)

    def _hang_up(
        self,
        at: int,
        channel: Channel,
        source: str,
        cause: int = 16,
        linked_id: str = "",
        context: str = "",
    ) -> None:
        extra = {"hangupcause": cause, "hangupsource": source, "dialstatus": ""}
        self._add(at, "HANGUP", channel, extra=extra, linked_id=linked_id, context=context)
        self._add(at, "CHAN_END", channel, linked_id=linked_id, context=context)

    def _add(
        self,
        at: int,
        kind: str,
        channel: Channel,
        peer: str = "",
        extra: dict[str, Any] | None = None,
        linked_id: str = "",
        context: str = "",
    ) -> None:
        call = self._call
        number = call.caller.number if channel is self._caller else ""
        own = channel is self._caller
        application, data = self._application if own else ("", "")
        if not context:
            context = (
                "callback" if call.channel == "callback" else "from-trunk" if own else "agents"
            )
        fields: list[str | int] = [
            kind,
            f"{self._channels.epoch + at}.{len(self.events):06d}",
            number,
            number,
            number,
            "",
            EXTENSIONS[call.hotline] if own else "",
            data if application == "Queue" else "s",
            context,
            channel.name,
            application,
            data,
            "DOCUMENTATION",
            "",
            channel.unique_id,
            linked_id or self.linked_id,
            peer,
            "",
            "",
            json.dumps(extra, separators=(",", ":")) if extra else "",
        ]
        self.events.append((at, comma_separated(fields)))


def _soiled(events: list[Event], notes: list[dict[str, Any]], chance: random.Random) -> list[Event]:
    """Neighbours of different channels swapped, the end of an application or a chain missing."""
    kept: list[Event] = []
    for at, text in events:
        draw = chance.random()
        if draw < 0.004 and text.startswith(('"APP_END"', '"LINKEDID_END"')):
            notes.append({"kind": "missing_event", "text": text})
            continue
        kept.append((at, text))
        if draw > 0.999 and len(kept) > 1 and kept[-2][0] == at:
            kept[-2:] = kept[-1], kept[-2]
            notes.append({"kind": "out_of_order", "text": text})
    return kept
