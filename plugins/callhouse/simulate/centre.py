"""The centre as a SimPy model: a call is a process, agents are picked by skill and idle time.

The clock counts whole seconds, so every recorded duration is exactly the difference of its times.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import date
from typing import Any

import simpy

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.demand import Demand
from callhouse.simulate.records import (
    Agent,
    Call,
    Caller,
    Leg,
    Membership,
    Planned,
    Ring,
    World,
)

Process = Generator[simpy.Event, Any, None]
Progress = Callable[[str], None]

AGENTS_AT_3000_CALLS = 60
LONGEST_WAIT = 7 * 60
NO_ANSWER_SECONDS = 20
IVR_ABANDON = 0.045
BOT_ABANDON = 0.07
LINE_DROP = 0.0006


@dataclass(slots=True, eq=False)
class Ticket:
    """A caller's place in a queue, valid until `waiting` is false."""

    since: int
    event: simpy.Event
    waiting: bool = True
    agent: Agent | None = None


class Centre:
    """Runs the world from the first midnight until the last call is over."""

    def __init__(
        self, seed: int, start: date, days: int, calls_per_day: int, progress: Progress | None
    ) -> None:
        self._clock = simpy.Environment()
        self._chance = stream(seed, "centre")
        self._days = world.days(start, days + 2)  # calls of the last day may run on
        self._count = days
        self._progress = progress
        self._demand = Demand(seed, start, days, calls_per_day)
        self._agents = _staff(stream(seed, "staff"), calls_per_day, days)
        self._skilled: dict[str, list[tuple[int, Agent]]] = {
            queue: [
                (agent.skills.index(queue), agent)
                for agent in self._agents
                if queue in agent.skills
            ]
            for queue in world.QUEUES
        }
        self._waiting: dict[str, deque[Ticket]] = {queue: deque() for queue in world.QUEUES}
        self._lengths = dict.fromkeys(world.QUEUES, 0)
        self._hours = [
            {queue.queue_id: world.opening(queue, day) for queue in world.QUEUES.values()}
            for day in self._days
        ]
        self._calls: list[Call] = []
        self._numbers: dict[int, int] = {}
        for index, agent in enumerate(self._agents):
            chance = stream(seed, f"roster/{agent.agent_id}")
            self._clock.process(self._shifts(agent, index, chance))
        self._clock.process(self._arrivals())

    def run(self) -> World:
        """Play all days and hand over what happened."""
        self._clock.run()
        return World(self._agents, self._calls, self._demand.surges)

    # -- arrivals ----------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock.now)

    def _arrivals(self) -> Process:
        for offset in range(self._count):
            for second, caller, business_type in self._demand.of_day(offset):
                if second > self._clock.now:
                    yield self._clock.timeout(second - self._clock.now)
                self._clock.process(self._inbound(caller, business_type))
            if self._progress:
                calls = self._numbers.get(offset, 0)
                self._progress(f"{self._days[offset]}: {calls} calls simulated")

    def _new_call(self, caller: Caller, hotline: str, business_type: str) -> Call:
        now = self._now()
        day = now // world.DAY
        number = self._numbers[day] = self._numbers.get(day, 0) + 1
        call = Call(f"{self._days[day]:%Y%m%d}-{number:06d}", caller, hotline, business_type, now)
        self._calls.append(call)
        return call

    def _later(self, delay: float, process: Callable[[], Process]) -> None:
        """Start `process` after `delay` seconds unless that is after the last day."""
        if self._clock.now + delay < self._count * world.DAY:
            self._clock.process(self._after(int(delay), process))

    def _after(self, delay: int, process: Callable[[], Process]) -> Process:
        yield self._clock.timeout(delay)
        yield from process()

    # -- a call ------------------------------------------------------------------------------

    def _inbound(self, caller: Caller, business_type: str) -> Process:
        hotline = "premium" if caller.vip else "service"
        call = self._new_call(caller, hotline, business_type)
        handling = world.HANDLING[business_type]
        bot = not caller.vip and self._chance.random() < handling.bot_share
        call.met_bot = bot
        outcome, seconds = self._self_service(caller, handling, bot)
        call.ivr_start = call.arrived
        yield self._clock.timeout(seconds)
        call.ivr_end = self._now()
        if outcome:
            call.channel = "bot" if bot else "ivr"
            stage = call.channel if outcome == "abandoned" else ""
            call.legs.append(Leg(outcome=outcome, stage=stage))
            call.hangup_by = "customer" if outcome == "abandoned" else self._either("system", 0.3)
        else:
            queue_id = "vip" if caller.vip else world.QUEUE_OF_TYPE[business_type]
            if not self._open(queue_id) and self._open("service"):
                queue_id = "service"
            yield from self._human(call, queue_id)
        call.ended = self._now()
        self._maybe_repeat(call)

    def _self_service(self, caller: Caller, handling: world.Handling, bot: bool) -> tuple[str, int]:
        """How IVR or bot end (empty: an agent is wanted) and after how many seconds."""
        chance = self._chance
        contained = handling.contained * (0.15 if caller.vip else 1.25 if bot else 1.0)
        # With nobody to ask, more people help themselves.
        hour = self._now() % world.DAY / world.HOUR
        if hour < 7 or hour >= 22:
            contained += 0.25
        draw = chance.random()
        if draw < (BOT_ABANDON if bot else IVR_ABANDON):
            return "abandoned", 1 + int(chance.expovariate(1 / (38 if bot else 24)))
        if draw > 1 - contained:
            return "contained", 15 + int(chance.lognormvariate(4.5 if bot else 4.2, 0.5))
        if caller.vip:
            return "", 6 + int(chance.lognormvariate(1.9, 0.4))
        return "", 10 + int(chance.lognormvariate(3.6 if bot else 3.1, 0.5))

    def _human(self, call: Call, queue_id: str) -> Process:
        """Queues, agents and transfers until the call is over."""
        diverted = False
        patience = self._patience()
        while queue_id:
            leg = Leg(queue_id=queue_id, queue_start=self._now())
            call.legs.append(leg)
            refused = self._refused(queue_id, diverted, call.caller.vip)
            if refused:
                leg.outcome, leg.queue_end = refused, leg.queue_start
                queue_id = self._overflow(queue_id) if refused != "closed" else ""
                diverted = True
                if not queue_id:
                    yield from self._refusal(call, refused)
                continue
            agent = yield from self._queue(call, leg, patience)
            if agent is None:
                queue_id = ""
                if leg.outcome == "transferred":
                    queue_id = self._overflow(leg.queue_id)
                if not queue_id:
                    yield from self._left_queue(call, leg)
                patience = max(5.0, patience - leg.wait_seconds)
                continue
            queue_id = yield from self._conversation(call, leg, agent)
            patience = self._patience()

    def _refusal(self, call: Call, refused: str) -> Process:
        """An announcement; some leave a message, the rest are released."""
        yield self._clock.timeout(self._chance.randint(6, 14))
        if self._chance.random() < (0.12 if refused == "closed" else 0.25):
            yield from self._voicemail(call)
        else:
            call.hangup_by = self._either("customer", 0.55, "system")

    def _left_queue(self, call: Call, leg: Leg) -> Process:
        if leg.outcome in ("exit_key", "timeout"):
            yield from self._voicemail(call)
        elif leg.outcome == "callback_requested":
            yield self._clock.timeout(self._chance.randint(8, 20))
            call.hangup_by = self._either("system", 0.4)
            delay = 600 + self._chance.lognormvariate(8.0, 0.6)
            queue_id = leg.queue_id
            self._later(delay, lambda: self._call_back(call, queue_id))
        else:
            call.hangup_by = "customer" if leg.outcome == "abandoned" else "system"

    def _voicemail(self, call: Call) -> Process:
        if call.outcome != "answered":  # else a transfer that nobody took
            call.channel = "voicemail"
        if self._chance.random() < 0.3:
            yield self._clock.timeout(self._chance.randint(2, 9))
            call.legs.append(Leg(outcome="abandoned", stage="voicemail"))
        else:
            yield self._clock.timeout(8 + int(self._chance.lognormvariate(3.2, 0.6)))
            call.legs.append(Leg(outcome="voicemail"))
        call.hangup_by = "customer"

    def _call_back(self, request: Call, queue_id: str) -> Process:
        """The agent's call to a customer who asked for it: a call of its own, outside queues."""
        while True:
            agent = self._pick(queue_id) if not self._lengths[queue_id] else None
            if agent and self._open(queue_id):
                break
            if self._clock.now + 300 >= self._count * world.DAY:
                return
            yield self._clock.timeout(300)
        agent.busy = True
        call = self._new_call(request.caller, request.hotline, request.business_type)
        call.channel = "callback"
        call.requested_by = request.call_id
        leg = Leg(agent_id=agent.agent_id)
        call.legs.append(leg)
        reached = self._chance.random() < 0.74
        yield self._clock.timeout(self._chance.randint(6, 18) if reached else 30)
        agent.book(call.arrived, self._now(), "dial", call, leg)
        if reached:
            leg.outcome = "answered"
            leg.answered = self._now()
            talk, leg.hold_seconds, acw = self._handle_times(call, agent)
            yield self._clock.timeout(talk + leg.hold_seconds)
            leg.released = self._now()
            leg.acw_seconds = acw
            _book_connection(call, leg, agent)
            call.hangup_by = self._either("customer", 0.7)
        else:
            leg.outcome, acw = "incomplete", 0
            call.hangup_by = "agent"
        call.ended = self._now()
        self._free_after(agent, acw)

    def _maybe_repeat(self, call: Call) -> None:
        """People whose matter is open call again: soon when they gave up, next days otherwise."""
        chance = self._chance
        outcome = call.outcome
        if outcome == "answered":
            again, delay = world.HANDLING[call.business_type].unresolved, (10.9, 1.0)
        elif outcome == "abandoned":
            again, delay = 0.38, (6.7, 1.1)
        elif outcome == "contained":
            again, delay = 0.05, (9.5, 1.3)
        elif outcome in ("overflow_full", "overflow_empty", "incomplete"):
            again, delay = 0.5, (7.2, 0.9)
        elif outcome == "closed":
            again, delay = 0.4, (0.0, 0.0)
        else:
            again, delay = 0.04, (10.9, 0.8)
        if chance.random() >= again:
            return
        if outcome == "closed":  # next morning
            second = call.ended % world.DAY
            wait = (world.DAY if second > 12 * world.HOUR else 0) + 8 * world.HOUR - second
            seconds = max(300.0, wait) + chance.expovariate(1 / (1.5 * world.HOUR))
        else:
            seconds = 20 + chance.lognormvariate(*delay)
            # Nobody rings about yesterday's matter in the middle of the night.
            hour = (self._clock.now + seconds) % world.DAY / world.HOUR
            if seconds > 2 * world.HOUR and hour < 7:
                seconds += chance.gauss(10.3, 1.2) * world.HOUR - hour * world.HOUR
        self._later(seconds, lambda: self._inbound(call.caller, call.business_type))

    def _either(self, party: str, probability: float, other: str = "") -> str:
        other = other or ("agent" if party == "customer" else "customer")
        return party if self._chance.random() < probability else other

    # -- queues ------------------------------------------------------------------------------

    def _closing(self, queue_id: str) -> int | None:
        """When `queue_id` closes, or None if it is closed now."""
        day, second = divmod(self._now(), world.DAY)
        hours = self._hours[day][queue_id] if day < len(self._hours) else None
        if hours is None or not hours[0] <= second < hours[1]:
            return None
        return day * world.DAY + hours[1]

    def _open(self, queue_id: str) -> bool:
        return self._closing(queue_id) is not None

    def _overflow(self, queue_id: str) -> str:
        other = world.QUEUES[queue_id].overflow
        return other if other and self._open(other) else ""

    def _refused(self, queue_id: str, diverted: bool, vip: bool) -> str:
        """Why the queue takes no further call, or empty."""
        queue = world.QUEUES[queue_id]
        if not self._open(queue_id):
            return "closed"
        on_duty = sum(agent.on_duty for _, agent in self._skilled[queue_id])
        if not on_duty:
            return "overflow_empty"
        length = self._lengths[queue_id]
        if length >= 3 + queue.capacity_share * on_duty and not vip:
            return "overflow_full"
        if not diverted and length >= 2 + queue.divert_share * on_duty:
            other = self._overflow(queue_id)
            if other and self._lengths[other] < length:
                return "overflow_diverted"
        return ""

    def _patience(self) -> float:
        """Seconds until the caller gives up: a few at once, most after minutes."""
        if self._chance.random() < 0.012:
            return 1 + self._chance.expovariate(1 / 3.5)
        return 6 + self._chance.weibullvariate(330, 1.25)

    def _departure(self, call: Call, queue_id: str, patience: float) -> tuple[int, str, str]:
        """When and how the caller will leave the queue if no agent answers first."""
        now, chance = self._now(), self._chance
        plans = [(now + int(patience), "abandoned", "queue"), (now + LONGEST_WAIT, "timeout", "")]
        draw = chance.random()
        if draw < 0.10 and not call.caller.withheld:
            plans.append((now + 90 + int(chance.expovariate(1 / 25)), "callback_requested", ""))
        elif 0.10 <= draw < 0.125:
            plans.append((now + 60 + int(chance.expovariate(1 / 30)), "exit_key", ""))
        if chance.random() < LINE_DROP:
            plans.append((now + int(chance.expovariate(1 / 8)), "incomplete", ""))
        closing = self._closing(queue_id)
        other = world.QUEUES[queue_id].overflow
        if closing is not None and other:
            hours = self._hours[closing // world.DAY][other]
            if hours and hours[0] <= closing % world.DAY < hours[1]:
                plans.append((closing, "transferred", ""))
        return min(plans)

    def _queue(
        self, call: Call, leg: Leg, patience: float
    ) -> Generator[simpy.Event, Any, Agent | None]:
        """Wait and ring until an agent answers (returned) or the caller leaves (None)."""
        clock, since, queue_id = self._clock, self._now(), leg.queue_id
        leave_at, outcome, stage = self._departure(call, queue_id, patience)
        leg.position = self._lengths[queue_id] + 1
        agent = self._pick(queue_id)
        if agent:
            agent.busy = True
        while True:
            if agent is None:
                if self._now() >= leave_at:
                    break
                ticket = Ticket(since, clock.event())
                self._join(queue_id, ticket)
                yield ticket.event | clock.timeout(leave_at - self._now())
                agent = ticket.agent
                if agent is None:
                    leg.left_position = self._position(queue_id, ticket)
                    ticket.waiting = False
                    self._lengths[queue_id] -= 1
                    break
            ring_start = self._now()
            no_answer = self._chance.random() < 0.012
            ring = NO_ANSWER_SECONDS if no_answer else self._ring_seconds()
            if outcome in ("abandoned", "incomplete") and leave_at < ring_start + ring:
                yield clock.timeout(max(0, leave_at - ring_start))
                leg.ring_seconds = self._now() - ring_start
                self._rang(call, leg, agent, ring_start, "cancelled")
                stage = "ring" if outcome == "abandoned" else ""
                self._release(agent)
                break
            yield clock.timeout(ring)
            self._rang(call, leg, agent, ring_start, "no_answer" if no_answer else "answered")
            if not no_answer:
                leg.ring_seconds = ring
                leg.queue_end = leg.answered = self._now()
                leg.outcome, leg.agent_id = "answered", agent.agent_id
                return agent
            self._free_after(agent, 60)  # set to "not ready" by the exchange
            agent.book(self._now(), self._now() + 60, "pause", reason="no_answer")
            agent = self._pick(queue_id)
            if agent:
                agent.busy = True
        leg.queue_end = self._now()
        leg.outcome, leg.stage = outcome, stage
        return None

    def _rang(self, call: Call, leg: Leg, agent: Agent, since: int, result: str) -> None:
        leg.rings.append(Ring(agent.agent_id, since, self._now(), result))
        agent.book(since, self._now(), "ring", call, leg)

    def _position(self, queue_id: str, ticket: Ticket) -> int:
        """The place of a waiting ticket, from 1."""
        position = 1
        for other in self._waiting[queue_id]:
            if other is ticket:
                break
            position += other.waiting
        return position

    def _ring_seconds(self) -> int:
        return 2 + int(self._chance.triangular(0, 9, 2))

    def _join(self, queue_id: str, ticket: Ticket) -> None:
        queue = self._waiting[queue_id]
        if queue and queue[0].since > ticket.since:  # a call that rang in vain goes first
            queue.appendleft(ticket)
        else:
            queue.append(ticket)
        self._lengths[queue_id] += 1

    def _pick(self, queue_id: str) -> Agent | None:
        """The free agent with the best skill, then the longest idle."""
        best: Agent | None = None
        best_rank = (0, 0)
        for rank, agent in self._skilled[queue_id]:
            if agent.on_duty and not agent.busy:
                key = (rank, agent.idle_since)
                if best is None or key < best_rank:
                    best, best_rank = agent, key
        return best

    # -- agents ------------------------------------------------------------------------------

    def _free_after(self, agent: Agent, seconds: int) -> None:
        if seconds:
            timeout = self._clock.timeout(seconds)
            timeout.callbacks.append(lambda _: self._release(agent))
        else:
            self._release(agent)

    def _release(self, agent: Agent) -> None:
        agent.busy = False
        agent.idle_since = self._now()
        self._serve(agent)

    def _serve(self, agent: Agent) -> None:
        """Give a free agent the waiting call that is due: premium first, then the longest wait;
        a call outside the agent's first skill counts as 30 s younger."""
        if not agent.free:
            return
        best: tuple[float, str] | None = None
        for rank, queue_id in enumerate(agent.skills):
            queue = self._waiting[queue_id]
            while queue and not queue[0].waiting:
                queue.popleft()
            if queue:
                urgency = queue[0].since + 30 * rank - (1e6 if queue_id == "vip" else 0)
                if best is None or urgency < best[0]:
                    best = (urgency, queue_id)
        if best:
            ticket = self._waiting[best[1]].popleft()
            ticket.waiting = False
            ticket.agent = agent
            self._lengths[best[1]] -= 1
            agent.busy = True
            ticket.event.succeed()

    def _shifts(self, agent: Agent, index: int, chance: random.Random) -> Process:
        """Logins, breaks and logoffs; who is in a call finishes it first."""
        for offset in range(self._count):
            stretches = _duty(agent, index, offset, self._days[offset], chance)
            if stretches:
                agent.duty.append([])
            for begin, end in stretches:
                yield self._clock.timeout(max(0, begin - self._clock.now))
                since = self._now()
                agent.on_duty = True
                if not agent.busy:
                    agent.idle_since = self._now()
                    self._serve(agent)
                yield self._clock.timeout(max(0, end - self._clock.now))
                agent.on_duty = False
                agent.duty[-1].append((since, self._now()))

    def _handle_times(self, call: Call, agent: Agent) -> tuple[int, int, int]:
        """Talk, hold and after-call work in seconds."""
        chance, handling = self._chance, world.HANDLING[call.business_type]
        if chance.random() < 0.012:  # cut off or hung up at once
            return chance.randint(1, 9), 0, chance.randint(0, 5)
        talk = agent.pace * chance.lognormvariate(0, handling.talk_sigma) * handling.talk_median
        hold = 0
        if chance.random() < handling.hold_probability:
            hold = 5 + int(chance.expovariate(1 / 50))
        acw = 0
        if chance.random() > 0.07:
            acw = 3 + int(agent.pace * chance.lognormvariate(0, 0.6) * handling.acw_median)
        return min(5400, 12 + int(talk)), hold, min(900, acw)

    def _conversation(self, call: Call, leg: Leg, agent: Agent) -> Generator[simpy.Event, Any, str]:
        """Talk until released or passed on; returns the queue of a blind transfer, if any."""
        talk, hold, acw = self._handle_times(call, agent)
        target = self._transfer_target(call, leg, talk)
        if not target:
            yield self._clock.timeout(talk + hold)
            self._end_connection(call, leg, agent, hold, acw)
            call.hangup_by = self._either("customer", 0.84)
            return ""
        # A call that has to go elsewhere is recognised early.
        talk = max(15, int(talk * 0.45))
        yield self._clock.timeout(talk + hold)
        draw = self._chance.random()
        colleague = self._pick(target) if draw > 0.5 else None
        if colleague is None:
            leg.transfer = "blind"
            self._end_connection(call, leg, agent, hold, acw // 2)
            return target
        # The caller is on hold while the agents speak; consulting takes longer than announcing.
        colleague.busy = True
        leg.transfer = "attended" if draw < 0.83 else "consult"
        aside = self._ring_seconds() + int(
            self._chance.lognormvariate(3.0 if leg.transfer == "attended" else 4.2, 0.5)
        )
        yield self._clock.timeout(aside)
        leg.aside_seconds = aside
        self._end_connection(call, leg, agent, hold + aside, acw // 2)
        second = Leg(outcome="answered", agent_id=colleague.agent_id, answered=self._now())
        call.legs.append(second)
        colleague.book(self._now() - aside, self._now(), "consult", call, second)
        talk, hold, acw = self._handle_times(call, colleague)
        yield self._clock.timeout(talk + hold)
        self._end_connection(call, second, colleague, hold, acw)
        call.hangup_by = self._either("customer", 0.84)
        return ""

    def _end_connection(self, call: Call, leg: Leg, agent: Agent, hold: int, acw: int) -> None:
        leg.released = self._now()
        leg.hold_seconds = hold
        leg.acw_seconds = acw
        _book_connection(call, leg, agent)
        self._free_after(agent, acw)

    def _transfer_target(self, call: Call, leg: Leg, talk: int) -> str:
        """The queue an agent will pass the call on to, or empty: at most two transfers a call."""
        passed_on = sum(1 for earlier in call.legs if earlier.transfer)
        likely = world.HANDLING[call.business_type].transfer * (1.0, 0.5, 0.0)[passed_on]
        if talk < 20 or self._chance.random() >= likely:
            return ""
        targets = world.TRANSFER_TARGETS[leg.queue_id]
        target = self._chance.choices(
            [queue for queue, _ in targets], weights=[share for _, share in targets]
        )[0]
        return target if self._open(target) else ""


def _book_connection(call: Call, leg: Leg, agent: Agent) -> None:
    """Talk, hold and after-call work in order: the hold lies in the middle of the talk, the talk
    aside at the end of the connection."""
    at = leg.answered or 0
    half = leg.talk_seconds // 2
    for state, seconds in (
        ("talk", half),
        ("hold", leg.hold_seconds - leg.aside_seconds),
        ("talk", leg.talk_seconds - half),
        ("hold", leg.aside_seconds),
        ("acw", leg.acw_seconds),
    ):
        agent.book(at, at + seconds, state, call, leg)
        at += seconds


def _staff(chance: random.Random, calls_per_day: int, days: int) -> list[Agent]:
    """Agents in turn over teams and skills; small centres need relatively more of them."""
    count = max(18, round(AGENTS_AT_3000_CALLS * (calls_per_day / 3000) ** 0.85))
    agents = []
    for index in range(count):
        team = world.TEAMS[index * len(world.TEAMS) // count]
        memberships = [Membership(team.team_id, 0)]
        # Two people change to their town's other team in the course of a longer simulation.
        sibling = {"GZ-A": "GZ-B", "CD-B": "CD-A"}.get(team.team_id)
        first_of_team = index == 0 or world.TEAMS[(index - 1) * len(world.TEAMS) // count] != team
        if sibling and first_of_team and days > 15:
            memberships.append(Membership(sibling, 15))
        skills = world.SKILLS[index % len(world.SKILLS)]
        pace = min(1.5, max(0.7, chance.gauss(1.0, 0.12)))
        name = f"Agent {101 + index}"
        agents.append(Agent(str(101 + index), name, tuple(memberships), skills, pace))
    return agents


def _duty(
    agent: Agent, index: int, offset: int, day: date, chance: random.Random
) -> list[tuple[int, int]]:
    """Stretches of work of one agent and day, in seconds of the simulation; notes the plan."""
    week = (offset + 7 - day.weekday()) // 7
    off = world.DAYS_OFF[(index * 7 + week * 3) % len(world.DAYS_OFF)]
    shifts = world.SHIFTS[agent.skills[0]]
    begin, end = shifts[(index // len(world.SKILLS) + index + week) % len(shifts)]
    late, ill, meal = chance.gauss(0, 90), chance.random() < 0.045, chance.gauss(0, 0.1)
    if world.weekday(day) in off:
        return []
    if world.is_holiday(day):
        if not {"service", "vip"} & set(agent.skills):
            return []
        begin, end = (8.9, 18.1) if agent.skills[0] != "vip" else (13.5, 22.2)
    # Breaks are staggered, or a whole queue would have lunch at once.
    turn = (index // len(world.SKILLS) % 5 - 2) * 0.45
    agent.plans[offset] = _plan(offset * world.DAY, begin, end, _pauses(begin, end, turn))
    if ill:
        agent.ill.add(offset)
        return []
    pauses = _pauses(begin, end, turn + meal)
    stretches, resume = [], begin * world.HOUR + late
    for at, hours in pauses:
        stretches.append((resume, at * world.HOUR))
        resume = (at + hours) * world.HOUR
    stretches.append((resume, end * world.HOUR + abs(chance.gauss(0, 120))))
    base = offset * world.DAY
    return [(base + int(start), base + int(stop)) for start, stop in stretches]


def _pauses(begin: float, end: float, turn: float) -> list[tuple[float, float]]:
    """Start and length of break, lunch and break, in hours."""
    return [
        (begin + 2.1 + turn / 3, 0.2),
        ((begin + end) / 2 + turn, 0.75),
        (end - 1.8 + turn / 3, 0.2),
    ]


def _plan(
    midnight: int, begin: float, end: float, pauses: list[tuple[float, float]]
) -> list[Planned]:
    """The shift as planners write it, in whole minutes."""

    def second(hours: float) -> int:
        return midnight + round(hours * 60) * 60

    planned, resume = [], begin
    for (at, hours), activity in zip(pauses, ("break", "lunch", "break"), strict=True):
        planned.append(Planned(second(resume), second(at), "work"))
        resume = at + hours
        planned.append(Planned(second(at), second(resume), activity))
    return [*planned, Planned(second(resume), second(end), "work")]
