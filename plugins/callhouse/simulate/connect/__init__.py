"""A world as Amazon Connect streams it: contact records and agent events, JSON lines.

Format, limits and dirt: docs/contributors/sample-data.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.connect import events
from callhouse.simulate.connect.contacts import COLUMNS, ENQUEUED_NEVER, Contacts, Line, soiled
from callhouse.simulate.connect.names import Json, Names, text
from callhouse.simulate.records import World
from callhouse.simulate.rendering import Rendering, first_second, write_text

FOLDER = "connect"
OUTCOMES = {
    outcome: outcome
    for outcome in (
        "answered",
        "abandoned",
        "timeout",
        "exit_key",
        "callback_requested",
        "transferred",
        "incomplete",
    )
} | dict.fromkeys(ENQUEUED_NEVER, "")
LIMITS = (
    ("refused visits", "full, empty, diverted, closed: never enqueued, no Queue in any record"),
    ("timeout, exit_key, callback_requested", "only in Attributes.queue_exit; else just Queue"),
    ("abandoned", "Queue without Agent, left by the customer in the second of the dequeue"),
    ("incomplete", "TELECOM_PROBLEM; an unreached call-back OUTBOUND_ATTEMPT_FAILED, no Agent"),
    ("transferred", "the next contact has InitiationMethod QUEUE_TRANSFER"),
    ("ring", "part of Queue.Duration; AgentConnectionAttempts counts the rings"),
    ("blind transfer", "next contact TRANSFER, with a Queue or without both Queue and Agent"),
    ("attended, consult", "next contact TRANSFER with Agent, without Queue: carried as attended"),
    ("talk aside", "hold of the first agent; the second agent counts from the hand-over"),
    ("call-back", "CALLBACK contact that points to the one with the wish: a call of its own"),
    ("channel", "Attributes.self_service (menu, bot), contained, voicemail (left, none)"),
    ("surveys", "Attributes.Survey… of the last contact, whose queue and agent they are about"),
    ("business type, hotline", "Attributes.business_type, SystemEndpoint"),
    ("agent states", "ring, dial and consult are all CONNECTING; the rest exactly"),
)


def write(directory: Path, played: World, start: date, seed: int, dirt: bool) -> Rendering:
    """Write contact records and agent events of `played` into `directory`/connect."""
    names = Names(first_second(start), seed)
    notes: list[Json] = []
    contacts = Contacts(names, played)
    records = (record for call in played.calls for record in contacts.records(call))
    delivered: list[Line]
    if dirt:
        delivered = list(soiled(records, notes, stream(seed, "dirt/connect")))
    else:
        delivered = [(at, text(record)) for at, _, record in records]
    delivered.sort(key=itemgetter(0))
    paths: list[Path] = []
    counted: dict[str, int] = {}
    for name, lines in _by_day("contacts", delivered):
        paths.append(directory / FOLDER / name)
        counted[name] = len(lines)
        write_text(paths[-1], lines)

    stream_of_events = [event for agent in played.agents for event in events.of_agent(agent)]
    stream_of_events.sort(key=attrgetter("at"))
    again: set[int] = set()
    if dirt:
        again = set(events.repeat(stream_of_events, notes, stream(seed, "dirt/connect/events")))
    writer = events.Writer(names, contacts.of_leg)
    told = (
        (names.epoch + event.at, line)
        for place, event in enumerate(stream_of_events)
        for line in [writer.line(event)] * (2 if place in again else 1)
    )
    for name, lines in _by_day("agent_events", told):
        paths.append(directory / FOLDER / name)
        counted[name] = len(lines)
        write_text(paths[-1], lines)

    visits = [leg for call in played.calls for leg in call.legs if leg.queue_id]
    connections = sum(leg.outcome == "answered" for call in played.calls for leg in call.legs)
    return Rendering(
        "connect",
        paths,
        counted,
        notes,
        LIMITS,
        OUTCOMES,
        {"contacts": (COLUMNS, contacts.table)},
        {
            "calls": len(played.calls),
            "calls_carried": len(played.calls),
            "visits": len(visits),
            "visits_carried": sum(leg.outcome not in ENQUEUED_NEVER for leg in visits),
            "connections": connections,
            "connections_carried": connections,
        },
    )


def file_names(start: date, days: int) -> list[str]:
    """What a run may write: deliveries begin on the UTC day before the first."""
    return [
        f"{kind}_{day.isoformat()}.jsonl.gz"
        for kind in ("contacts", "agent_events")
        for day in world.days(start - timedelta(days=1), days + 3)
    ]


def _by_day(kind: str, delivered: Iterable[Line]) -> Iterator[tuple[str, list[str]]]:
    """Files per UTC day of the delivery; `delivered` is in order of time."""
    for day, lines in groupby(delivered, key=lambda line: line[0] // world.DAY):
        stamp = datetime.fromtimestamp(day * world.DAY, UTC).date().isoformat()
        yield f"{kind}_{stamp}.jsonl.gz", [content for _, content in lines]
