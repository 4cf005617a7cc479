"""The simulator's own state of a call: every renderer and the truth are written from it.

Times are whole seconds after midnight (local) of the simulation's first day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True)
class Caller:
    """A customer. `number` is as the exchange shows it: empty or `anonymous` if withheld."""

    number: str
    region: str
    vip: bool

    @property
    def withheld(self) -> bool:
        """Whether nobody can tell who calls."""
        return self.region == "unknown"


@dataclass(frozen=True)
class Membership:
    """An agent's team from a day on (offset from the first day)."""

    team_id: str
    from_day: int


class Activity(NamedTuple):
    """What an agent did from `start` until `end`, for `leg` of `call` if for any."""

    start: int
    end: int
    state: str
    reason: str = ""  # of a pause
    call: Call | None = None
    leg: Leg | None = None


class Planned(NamedTuple):
    """A stretch of a shift as the planners wrote it."""

    start: int
    end: int
    activity: str  # work | break | lunch | absence


@dataclass(slots=True)
class Agent:
    """An agent; `free` means on duty and not busy with a call.

    `duty` holds the stretches of work of each working day, `work` what calls made of them; work
    never overlaps, but may run on after the stretch in which it began. `plans` are the shifts by
    day (offset), whether the agent came or not; `ill` are the days on which the agent did not.
    """

    agent_id: str
    name: str
    memberships: tuple[Membership, ...]
    skills: tuple[str, ...]
    pace: float  # factor on talk and after-call work
    on_duty: bool = False
    busy: bool = False
    idle_since: int = 0
    duty: list[list[tuple[int, int]]] = field(default_factory=list)
    work: list[Activity] = field(default_factory=list)
    plans: dict[int, list[Planned]] = field(default_factory=dict)
    ill: set[int] = field(default_factory=set)

    def book(
        self,
        start: int,
        end: int,
        state: str,
        call: Call | None = None,
        leg: Leg | None = None,
        reason: str = "",
    ) -> None:
        """Remember work that takes time."""
        if end > start:
            self.work.append(Activity(start, end, state, reason, call, leg))

    @property
    def free(self) -> bool:
        """Whether a call can be offered to the agent now."""
        return self.on_duty and not self.busy

    def team_on(self, day: int) -> str:
        """The team of the agent on day `day` (offset)."""
        return [entry.team_id for entry in self.memberships if entry.from_day <= day][-1]


class Ring(NamedTuple):
    """An attempt to reach an agent: `answered`, `no_answer` or `cancelled` by the caller."""

    agent_id: str
    start: int
    end: int
    result: str


@dataclass(slots=True)
class Leg:
    """The way of a call through at most one queue and at most one agent."""

    outcome: str = ""
    stage: str = ""
    queue_id: str = ""
    queue_start: int | None = None
    queue_end: int | None = None
    ring_seconds: int | None = None
    agent_id: str = ""
    answered: int | None = None
    released: int | None = None
    hold_seconds: int = 0
    acw_seconds: int = 0
    transfer: str = ""
    aside_seconds: int = 0  # last part of the hold: the agents speak before the hand-over
    position: int = 0  # in the queue on entry, from 1
    left_position: int = 0  # of a caller who left unanswered
    rings: list[Ring] = field(default_factory=list)

    @property
    def wait_seconds(self) -> int:
        """Queue entry to answer or departure, ringing included."""
        return _between(self.queue_start, self.queue_end)

    @property
    def talk_seconds(self) -> int:
        """Conversation without hold."""
        return _between(self.answered, self.released) - self.hold_seconds


class Step(NamedTuple):
    """A node of the menu (`ivr`) or of the voice bot (`bot`)."""

    channel: str
    node: str
    start: int
    end: int
    outcome: str  # continued | contained | abandoned


@dataclass(slots=True)
class Survey:
    """A question asked after a call about `leg`, the last conversation (None: self-service)."""

    survey_id: str
    kind: str  # csat | nps | ces
    offered: int
    leg: Leg | None
    answered: int | None = None
    score: int | None = None


def _between(start: int | None, end: int | None) -> int:
    """Seconds from `start` to `end`, 0 for what did not happen."""
    return 0 if start is None or end is None else end - start


@dataclass(slots=True)
class Call:
    """A customer contact from end to end."""

    call_id: str
    caller: Caller
    hotline: str
    business_type: str
    arrived: int
    channel: str = "human"
    ivr_start: int | None = None
    ivr_end: int | None = None
    hangup_by: str = ""
    ended: int = -1
    legs: list[Leg] = field(default_factory=list)
    requested_by: str = ""  # the call in which this call-back was asked for
    met_bot: bool = False  # began with the voice bot, wherever it ended
    steps: list[Step] = field(default_factory=list)
    survey: Survey | None = None

    @property
    def ivr_seconds(self) -> int:
        """Time in the menu or with the bot."""
        return _between(self.ivr_start, self.ivr_end)

    @property
    def outcome(self) -> str:
        """`answered` if any leg was, else the outcome of the last leg."""
        if any(leg.outcome == "answered" for leg in self.legs):
            return "answered"
        return self.legs[-1].outcome

    @property
    def stage(self) -> str:
        """Where the caller gave up, with or without having spoken to an agent."""
        return self.legs[-1].stage

    @property
    def transferred(self) -> bool:
        """Whether an agent passed the call on."""
        return any(leg.transfer for leg in self.legs)


@dataclass(frozen=True)
class Surge:
    """Extra calls of one business type on a spike day."""

    reason: str
    business_type: str
    share: float  # extra calls, as a share of the day's ordinary ones
    hour: float
    width_hours: float


@dataclass(frozen=True)
class World:
    """Everything that happened."""

    agents: list[Agent]
    calls: list[Call]  # in order of arrival
    surges: dict[int, Surge]  # by day offset
