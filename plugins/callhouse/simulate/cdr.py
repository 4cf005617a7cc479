"""A world as Asterisk's call detail records (`cdr_csv` with its optional columns).

Format, limits and dirt: docs/contributors/sample-data.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from callhouse.simulate.chance import stream
from callhouse.simulate.channels import EXTENSIONS, Channel, Channels, by_day, comma_separated
from callhouse.simulate.clock import Clock
from callhouse.simulate.records import Call, Leg, World
from callhouse.simulate.rendering import Rendering, first_second, write_text

FOLDER = "cdr"
LIMITS = (
    ("queue visits", "no entry, no wait, no outcome: lastapp and lastdata name the last queue"),
    ("answer", "the menu answers every call: nothing tells when an agent did"),
    ("hold, after-call work, hang-up party", "not in the file"),
    ("several records per call", "uniqueid is the call; sequence orders its records"),
    ("consultations", "records of their own with another linkedid, dcontext agents: no calls"),
    ("agents", "dstchannel; of call-backs channel"),
    ("rings in vain", "records with disposition NO ANSWER"),
    ("self-service", "its time is part of the first record"),
)
COLUMNS = (
    "call_id",
    "unique_id",
    "source",
    "started_epoch",
    "duration_seconds",
    "answered_records",
    "unanswered_records",
    "agents",
)

Line = tuple[int, str]  # second of the simulation, text


def write(
    directory: Path, played: World, start: date, days: int, seed: int, dirt: bool
) -> Rendering:
    """Write the records of `played` into `directory`/cdr, per local day of their end."""
    clock, epoch = Clock(start, days + 2), first_second(start)
    lines: list[Line] = []
    carried: list[tuple[object, ...]] = []
    for number, call in enumerate(played.calls, start=1):
        records = _Records(Channels(call, number, epoch), clock)
        records.write()
        lines.extend(records.lines)
        carried.append(records.carried(epoch))
    lines.sort(key=lambda line: line[0])
    notes: list[dict[str, Any]] = []
    if dirt:
        lines = list(_soiled(lines, notes, stream(seed, "dirt/cdr")))
    paths, counted = [], {}
    for name, texts in by_day("Master", clock, lines):
        paths.append(directory / FOLDER / name)
        counted[name] = len(texts)
        write_text(paths[-1], texts)
    connections = sum(leg.outcome == "answered" for call in played.calls for leg in call.legs)
    return Rendering(
        "cdr",
        paths,
        counted,
        notes,
        LIMITS,
        {},
        {"calls": (COLUMNS, carried)},
        {
            "calls": len(played.calls),
            "calls_carried": len(played.calls),
            "visits": sum(bool(leg.queue_id) for call in played.calls for leg in call.legs),
            "visits_carried": 0,
            "connections": connections,
            "connections_carried": connections,
        },
    )


class _Records:
    """The records of one call; those of the caller's channel follow each other without a gap."""

    def __init__(self, channels: Channels, clock: Clock) -> None:
        self._channels = channels
        self._call = channels.call
        self._clock = clock
        self._caller = channels.caller
        self._at = channels.call.arrived
        self._sequence = channels.number * 20
        self._in_vain = 0
        self._agents: list[str] = []
        self.lines: list[Line] = []
        self._answered = self._unanswered = 0

    def write(self) -> None:
        """All records."""
        call = self._call
        if call.channel == "callback":
            self._call_back(call, call.legs[0])
            return
        for number, leg in enumerate(call.legs, start=1):
            for ring in leg.rings:
                if ring.result != "answered":
                    channel = self._channels.in_vain(self._in_vain, ring)
                    self._in_vain += 1
                    self._add(leg, channel, ring.start, None, ring.end)
            if leg.outcome == "answered":
                self._agents.append(leg.agent_id)
                released = leg.released or 0
                self._add(leg, self._channels.agent(number, leg), self._at, self._at, released)
                self._at = released
                if leg.aside_seconds:
                    self._consultation(number, leg, call.legs[number])
        if self._at < call.ended or not self._answered:
            self._add(call.legs[-1], None, self._at, self._at, call.ended)

    def carried(self, epoch: int) -> tuple[object, ...]:
        """What the records say about the call."""
        call = self._call
        return (
            call.call_id,
            self._caller.unique_id,
            call.caller.number,
            epoch + call.arrived,
            call.ended - call.arrived,
            self._answered,
            self._unanswered,
            " ".join(self._agents),
        )

    def _add(
        self, leg: Leg, agent: Channel | None, start: int, answer: int | None, end: int
    ) -> None:
        application, data = _application(self._call, leg)
        self._line(
            self._call.caller.number,
            leg.queue_id or EXTENSIONS[self._call.hotline],
            "from-trunk",
            self._caller,
            agent.name if agent else "",
            application,
            data,
            (start, answer, end),
            self._caller.unique_id,
        )

    def _call_back(self, call: Call, leg: Leg) -> None:
        self._agents.append(leg.agent_id)
        self._line(
            EXTENSIONS[call.hotline],
            call.caller.number,
            "callback",
            self._caller,
            self._channels.customer().name,
            "Dial",
            f"PJSIP/{call.caller.number}@trunk",
            (call.arrived, leg.answered, call.ended),
            self._caller.unique_id,
        )

    def _consultation(self, number: int, leg: Leg, second: Leg) -> None:
        channel = self._channels.consulting(number, leg)
        released = leg.released or 0
        since = released - leg.aside_seconds
        self._line(
            leg.agent_id,
            second.agent_id,
            "agents",
            channel,
            self._channels.agent(number + 1, second).name,
            "Dial",
            f"PJSIP/{second.agent_id}",
            (since, min(since + 2, released), released),
            channel.unique_id,
        )

    def _line(
        self,
        source: str,
        destination: str,
        context: str,
        channel: Channel,
        other: str,
        application: str,
        data: str,
        times: tuple[int, int | None, int],
        linked_id: str,
    ) -> None:
        start, answer, end = times
        if context != "agents":
            self._answered += answer is not None
            self._unanswered += answer is None
        self._sequence += 1
        fields: list[str | int] = [
            "",
            source,
            destination,
            context,
            f'"{source}" <{source}>',
            channel.name,
            other,
            application,
            data,
            self._clock.stamp(start),
            self._clock.stamp(answer),
            self._clock.stamp(end),
            end - start,
            0 if answer is None else end - answer,
            "NO ANSWER" if answer is None else "ANSWERED",
            "DOCUMENTATION",
            channel.unique_id,
            "",
            "",
            linked_id,
            self._sequence,
        ]
        self.lines.append((end, comma_separated(fields)))


def _application(call: Call, leg: Leg) -> tuple[str, str]:
    """The dialplan application that the channel was in last."""
    if leg.outcome == "voicemail" or leg.stage == "voicemail":
        return "VoiceMail", EXTENSIONS[call.hotline]
    if leg.queue_id:
        return "Queue", leg.queue_id
    if leg.agent_id:
        return "Dial", f"PJSIP/{leg.agent_id}"
    return ("AGI", "bot") if call.channel == "bot" else ("Background", "menu")


def _soiled(
    lines: list[Line], notes: list[dict[str, Any]], chance: random.Random
) -> Iterator[Line]:
    """Records twice, and batches lost in a crash."""
    lost = 0
    for at, text in lines:
        draw = chance.random()
        if draw < 0.0002 and not lost:
            lost = chance.randint(2, 6)
        if lost:
            lost -= 1
            notes.append({"kind": "lost_in_batch", "text": text})
            continue
        yield at, text
        if draw > 0.998:
            notes.append({"kind": "sent_again", "text": text})
            yield at, text
