"""The time of the agents: sessions from login to logout, tiled by states.

A state is `ready`, `ring` (a call is offered), `dial` (calling a customer back), `consult` (with
the colleague who is about to hand over), `talk`, `hold`, `acw` or `pause`. What calls demand goes
before a break, and who is in a call at the end of the shift logs out after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from callhouse.simulate.records import Activity, Agent

STATES = ("ready", "ring", "dial", "consult", "talk", "hold", "acw", "pause")


@dataclass(frozen=True, slots=True)
class Session:
    """One login; `states` are in order, without gap or overlap, none of 0 s."""

    agent: Agent
    login: int
    logout: int
    states: list[Activity]


def sessions(agent: Agent) -> list[Session]:
    """All logins of an agent in order of time."""
    played, work = [], 0
    for number, stretches in enumerate(agent.duty):
        login, logout = stretches[0][0], stretches[-1][1]
        later = agent.duty[number + 1][0][0] if number + 1 < len(agent.duty) else None
        busy = []
        while work < len(agent.work) and (later is None or agent.work[work].start < later):
            busy.append(agent.work[work])
            work += 1
        if busy:
            logout = max(logout, busy[-1].end)
        if logout > login:
            idle = _idle(stretches, logout)
            played.append(Session(agent, login, logout, _tiled(busy, idle, login, logout)))
    return played


def _idle(stretches: list[tuple[int, int]], logout: int) -> list[Activity]:
    """The roster alone: ready on duty, paused between the stretches."""
    idle: list[Activity] = []
    for number, (begin, end) in enumerate(stretches):
        if end > begin:
            idle.append(Activity(begin, end, "ready"))
        until = stretches[number + 1][0] if number + 1 < len(stretches) else logout
        if until > end:
            idle.append(Activity(end, until, "pause", "lunch" if number == 1 else "break"))
    return idle


def _tiled(busy: list[Activity], idle: list[Activity], login: int, logout: int) -> list[Activity]:
    """Work, and between it what the roster says."""
    tiles: list[Activity] = []
    place = 0
    for gap_start, gap_end, follows in _gaps(busy, login, logout):
        while place < len(idle) and idle[place].end <= gap_start:
            place += 1
        look = place
        while look < len(idle) and idle[look].start < gap_end:
            start, end = max(idle[look].start, gap_start), min(idle[look].end, gap_end)
            if end > start:
                tiles.append(idle[look]._replace(start=start, end=end))
            look += 1
        if follows:
            tiles.append(follows)
    return tiles


def _gaps(busy: list[Activity], login: int, logout: int) -> list[tuple[int, int, Activity | None]]:
    """The time before each piece of work and after the last, with the work that ends it."""
    gaps: list[tuple[int, int, Activity | None]] = []
    at = login
    for piece in busy:
        gaps.append((at, piece.start, piece))
        at = piece.end
    gaps.append((at, logout, None))
    return gaps
