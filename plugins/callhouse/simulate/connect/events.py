"""The agent event stream: logins, changes of state, heart beats.

Snapshots become JSON only when their day is written: a month of them would fill the memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from callhouse.simulate import world
from callhouse.simulate.connect.names import ACCOUNT, INSTANCE, Json, Names, text
from callhouse.simulate.records import Activity, Agent
from callhouse.simulate.states import Session, sessions

HEART_BEAT_SECONDS = 120
AFTER_LOGOUT_SECONDS = 3600
CONTACT_STATES = {
    "ring": "CONNECTING",
    "dial": "CONNECTING",
    "consult": "CONNECTING",
    "talk": "CONNECTED",
    "hold": "CONNECTED_ONHOLD",
    "acw": "ENDED",
}
STATUS = {"break": "Break", "lunch": "Lunch", "no_answer": "Missed call"}
AVAILABLE = ("Available", "ROUTABLE")
OFFLINE = ("Offline", "OFFLINE")


class Snapshot(NamedTuple):
    """An agent from a moment on."""

    agent: Agent
    status: tuple[str, str]
    since: int  # of the status
    at: int
    activity: Activity | None = None


class Event(NamedTuple):
    """An event at a second of the simulation; `number` counts the agent's changes of a session."""

    at: int
    kind: str
    number: int
    previous: Snapshot
    current: Snapshot


def of_agent(agent: Agent) -> Iterator[Event]:
    """All events of an agent in order of time."""
    played = sessions(agent)
    if not played:
        return
    previous = Snapshot(agent, OFFLINE, 0, 0)
    for number, session in enumerate(played):
        last = session.logout + AFTER_LOGOUT_SECONDS
        if number + 1 < len(played):
            last = min(last, played[number + 1].login)
        steps = list(_steps(session))
        for place, (kind, current) in enumerate(steps):
            yield Event(current.at, kind, place, previous, current)
            previous = current
            until = steps[place + 1][1].at if place + 1 < len(steps) else last
            for beat in range(current.at + HEART_BEAT_SECONDS, until, HEART_BEAT_SECONDS):
                yield Event(beat, "HEART_BEAT", place, current, current)


def _steps(session: Session) -> Iterator[tuple[str, Snapshot]]:
    """Changes of a session."""
    agent = session.agent
    status, since = AVAILABLE, session.login
    if session.states[0].state != "ready":
        yield "LOGIN", Snapshot(agent, status, since, since)
    kind = "LOGIN" if session.states[0].state == "ready" else "STATE_CHANGE"
    for state in session.states:
        wanted = (STATUS[state.reason], "CUSTOM") if state.state == "pause" else AVAILABLE
        if wanted != status:
            status, since = wanted, state.start
        yield kind, Snapshot(agent, status, since, state.start, state)
        kind = "STATE_CHANGE"
    yield "LOGOUT", Snapshot(agent, OFFLINE, session.logout, session.logout)


class Writer:
    """Turns events into lines; `of_leg` names the contact of a leg."""

    def __init__(self, names: Names, of_leg: dict[int, tuple[str, str | None, str]]) -> None:
        self._names = names
        self._of_leg = of_leg
        self._configurations: dict[tuple[str, str], str] = {}
        self._latest: dict[str, tuple[Snapshot, str]] = {}

    def line(self, event: Event) -> str:
        """One event; its current snapshot will be the agent's next previous one."""
        agent_id = event.current.agent.agent_id
        arn = self._names.arn("agent", agent_id)
        previous = self._snapshot(event.previous)
        current = previous if event.current is event.previous else self._snapshot(event.current)
        self._latest[agent_id] = event.current, current
        event_id = self._names.uuid(f"{agent_id}/{event.at}/{event.kind}/{event.number}")
        return (
            f'{{"AWSAccountId":"{ACCOUNT}","AgentARN":"{arn}","CurrentAgentSnapshot":{current},'
            f'"EventId":"{event_id}","EventTimestamp":"{self._names.milli(event.at)}",'
            f'"EventType":"{event.kind}","InstanceARN":"{INSTANCE}",'
            f'"PreviousAgentSnapshot":{previous},"Version":"2017-10-01"}}'
        )

    def _snapshot(self, snapshot: Snapshot) -> str:
        latest = self._latest.get(snapshot.agent.agent_id)
        if latest and latest[0] is snapshot:
            return latest[1]
        name, kind = snapshot.status
        status = {
            "ARN": self._names.arn("agent-state", name),
            "Name": name,
            "StartTimestamp": self._names.milli(snapshot.since),
            "Type": kind,
        }
        return (
            f'{{"AgentStatus":{text(status)},"Configuration":{self._configuration(snapshot)},'
            f'"Contacts":{text(self._engaged(snapshot.activity))},"NextAgentStatus":null}}'
        )

    def _configuration(self, snapshot: Snapshot) -> str:
        agent = snapshot.agent
        team = agent.team_on(snapshot.at // world.DAY)
        known = self._configurations.get((agent.agent_id, team))
        if known is None:
            queues = [self._names.queue(queue_id) for queue_id in agent.skills]
            first_name, last_name = agent.name.split()
            known = self._configurations[agent.agent_id, team] = text(
                {
                    "AgentHierarchyGroups": self._names.groups(team, "Name"),
                    "AutoAccept": False,
                    "FirstName": first_name,
                    "LastName": last_name,
                    "RoutingProfile": self._names.profile(agent)
                    | {
                        "Concurrency": [
                            {"AvailableSlots": 1, "Channel": "VOICE", "MaximumSlots": 1}
                        ],
                        "DefaultOutboundQueue": queues[0],
                        "InboundQueues": queues,
                    },
                    "Username": agent.agent_id,
                }
            )
        return known

    def _engaged(self, activity: Activity | None) -> list[Json]:
        if activity is None or activity.leg is None:
            return []
        leg = activity.leg
        contact_id, initial, method = self._of_leg[id(leg)]
        connected = activity.state in ("talk", "hold", "acw")
        return [
            {
                "Channel": "VOICE",
                "ConnectedToAgentTimestamp": self._names.milli(leg.answered) if connected else None,
                "ContactId": contact_id,
                "InitialContactId": initial,
                "InitiationMethod": method,
                "Queue": self._names.queue(leg.queue_id) if leg.queue_id else None,
                "QueueTimestamp": self._names.milli(leg.queue_start),
                "State": CONTACT_STATES[activity.state],
                "StateStartTimestamp": self._names.milli(activity.start),
            }
        ]


def repeat(events: list[Event], notes: list[Json], chance: random.Random) -> list[int]:
    """Positions of the events that are delivered twice."""
    places = sorted(chance.sample(range(len(events)), len(events) // 500))
    for place in places:
        event = events[place]
        notes.append(
            {
                "kind": "event_sent_again",
                "agent_id": event.current.agent.agent_id,
                "event_type": event.kind,
                "second": event.at,
            }
        )
    return places
