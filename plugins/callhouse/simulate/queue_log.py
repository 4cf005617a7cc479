"""A world as Asterisk's queue_log, one rotated file per day.

Format, limits and dirt: docs/contributors/sample-data.md.
"""

from __future__ import annotations

import random
from datetime import date
from operator import itemgetter
from pathlib import Path
from typing import Any

from callhouse.simulate import world
from callhouse.simulate.chance import stream
from callhouse.simulate.channels import Channels
from callhouse.simulate.records import Call, Leg, World
from callhouse.simulate.rendering import Rendering, first_second, write_text
from callhouse.simulate.states import Session, sessions

FOLDER = "queue_log"
FEWEST_LINES = 40  # a smaller file stays clean
REFUSALS = {
    "overflow_full": "FULL",
    "overflow_empty": "JOINEMPTY",
    "closed": "CLOSED",
}
# Why the exchange diverts: too many callers per agent, or (one queue) too long a hold time.
DIVERSIONS = {"digital": "DIVERT_HOLDTIME"}
ENDS = ("COMPLETE", "ABANDON", "EXIT", "BLINDTRANSFER", "ATTENDEDTRANSFER")
KEYS = {"exit_key": 1, "callback_requested": 2}
OUTCOMES = {
    outcome: outcome
    for outcome in (
        "answered",
        "abandoned",
        "timeout",
        "exit_key",
        "overflow_full",
        "overflow_empty",
        "overflow_diverted",
        "closed",
        "incomplete",
    )
} | {"transferred": "overflow_empty", "callback_requested": "exit_key"}
LIMITS = (
    ("calls without a queue", "self-service only, call-backs: not in the file"),
    ("self-service, messages, time before and after a queue", "not in the file"),
    ("connections outside queues", "the colleague of an attended transfer, call-backs: no line"),
    ("hold", "not told apart: the talk of the file is talk + hold, the talk aside included"),
    ("after-call work", "WRAPUPSTART, planned seconds; only of connections through a queue"),
    ("ring of answered calls", "CONNECT, seconds; of others RINGNOANSWER, RINGCANCELED in ms"),
    ("transfer type", "attended and consult are both ATTENDEDTRANSFER: carried as attended"),
    ("incomplete", "ENTERQUEUE without an end: no wait"),
    (
        "transferred",
        "moved on at closing time: EXITEMPTY and LEAVEEMPTY, carried as overflow_empty",
    ),
    ("callback_requested", "EXITWITHKEY 2, carried as exit_key"),
    ("hang-up party", "only of answered calls that were not passed on (COMPLETE…)"),
    ("agent states", "login and pause exactly; not ready, consult and dial"),
    ("channel, business type, hotline, region", "not in the file; the number is in ENTERQUEUE"),
)
COLUMNS = (
    "call_id",
    "visit_number",
    "unique_id",
    "queue_id",
    "agent_id",
    "outcome",
    "entered_epoch",
    "wait_seconds",
    "ring_seconds",
    "talk_seconds",
    "acw_seconds",
    "transfer_type",
    "hangup_party",
)

Entry = tuple[int, int, str]  # epoch, rank within the second, line


def file_names(days: int) -> list[str]:
    """Names in order of time, as logrotate leaves them: the newest is `queue_log`."""
    older = [f"queue_log.{age}.gz" for age in range(days - 1, 1, -1)]
    return [*older, "queue_log.1", "queue_log"][-days:]


def write(
    directory: Path, played: World, start: date, days: int, seed: int, dirt: bool
) -> Rendering:
    """Write the files of `played` into `directory`/queue_log."""
    log, epoch = _log(played, start, days), first_second(start)
    files: list[list[str]] = [[] for _ in range(days)]
    for at, _, line in log.entries:
        files[min((at - epoch) // world.DAY, days - 1)].append(line)
    names = file_names(days)
    notes: list[dict[str, Any]] = []
    broken = set()
    if dirt:
        broken = _soil(files, names, notes, stream(seed, "dirt/queue_log"))
    paths = []
    for name, lines in zip(names, files, strict=True):
        paths.append(directory / FOLDER / name)
        write_text(paths[-1], lines, whole=name not in broken)
    return Rendering(
        "queue_log",
        paths,
        {name: len(lines) for name, lines in zip(names, files, strict=True)},
        notes,
        LIMITS,
        OUTCOMES,
        {"visits": (COLUMNS, log.visits)},
        {
            "calls": len(played.calls),
            "calls_carried": log.calls,
            "visits": len(log.visits),
            "visits_carried": len(log.visits),
            "connections": sum(
                leg.outcome == "answered" for call in played.calls for leg in call.legs
            ),
            "connections_carried": log.connections,
        },
    )


def _log(played: World, start: date, days: int) -> _Log:
    """Every line of the log, in order."""
    log = _Log(first_second(start))
    for offset in range(days):
        log.add(
            offset * world.DAY, 0, f"NONE|NONE|NONE|{'CONFIGRELOAD' if offset else 'QUEUESTART'}|"
        )
    for number, call in enumerate(played.calls, start=1):
        log.call(call, number)
    for agent in played.agents:
        for session in sessions(agent):
            log.session(session)
    log.entries.sort(key=itemgetter(0, 1))
    return log


def lines(played: World, start: date) -> list[str]:
    """The log of one day, clean."""
    return [line for _, _, line in _log(played, start, 1).entries]


class _Log:
    """Collects the lines, and with each visit what they say about it."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self.entries: list[Entry] = []
        self.visits: list[tuple[object, ...]] = []
        self.calls = 0
        self.connections = 0

    def add(self, second: int, rank: int, rest: str) -> None:
        """A line without its time; ranks order the lines of one second."""
        at = self._epoch + second
        self.entries.append((at, rank, f"{at}|{rest}"))

    def call(self, call: Call, number: int) -> None:
        """The queue visits of a call."""
        channels = Channels(call, number, self._epoch)
        unique_id = channels.caller.unique_id
        visits = 0
        for leg_number, leg in enumerate(call.legs, start=1):
            if not leg.queue_id:
                continue
            visits += 1
            following = call.legs[leg_number] if leg_number < len(call.legs) else None
            start = leg.queue_start or 0
            head = f"{unique_id}|{leg.queue_id}|"
            refusal = REFUSALS.get(leg.outcome)
            if leg.outcome == "overflow_diverted":
                refusal = DIVERSIONS.get(leg.queue_id, "DIVERT_CA_RATIO")
            if refusal:
                self.add(start, 1, f"{head}NONE|{refusal}|")
            else:
                caller = call.caller.number
                self.add(start, 1, f"{head}NONE|ENTERQUEUE||{caller}|{leg.position}")
                self._rings(head, leg)
                if leg.outcome == "answered":
                    self._connection(channels, leg_number, leg, following, head)
                else:
                    self._departure(leg, head)
            self._carry(call, visits, unique_id, leg)
        self.calls += bool(visits)

    def _rings(self, head: str, leg: Leg) -> None:
        for ring in leg.rings:
            if ring.result != "answered":
                event = "RINGNOANSWER" if ring.result == "no_answer" else "RINGCANCELED"
                milliseconds = 1000 * (ring.end - ring.start)
                self.add(ring.end, 1, f"{head}Agent/{ring.agent_id}|{event}|{milliseconds}")

    def _departure(self, leg: Leg, head: str) -> None:
        end, wait = leg.queue_end or 0, leg.wait_seconds
        places = f"{leg.left_position or 1}|{leg.position}|{wait}"
        match leg.outcome:
            case "abandoned":
                self.add(end, 1, f"{head}NONE|ABANDON|{places}")
            case "timeout":
                self.add(end, 1, f"{head}NONE|EXITWITHTIMEOUT|{places}")
            case "exit_key" | "callback_requested":
                self.add(end, 1, f"{head}NONE|EXITWITHKEY|{KEYS[leg.outcome]}|{places}")
            case "transferred":
                self.add(end, 1, f"{head}NONE|EXITEMPTY|{places}")
                self.add(end, 1, f"{head}NONE|LEAVEEMPTY|")

    def _connection(
        self, channels: Channels, number: int, leg: Leg, following: Leg | None, head: str
    ) -> None:
        self.connections += 1
        call, agent = channels.call, f"Agent/{leg.agent_id}"
        answered, released = leg.answered or 0, leg.released or 0
        bridged = channels.agent(number, leg).unique_id
        wait = leg.wait_seconds
        self.add(answered, 1, f"{head}{agent}|CONNECT|{wait}|{bridged}|{leg.ring_seconds}")
        times = f"{wait}|{released - answered}|{leg.position}"
        if leg.transfer == "blind":
            target = following.queue_id if following else ""
            event = f"BLINDTRANSFER|{target}|queues|{times}"
        elif leg.transfer:
            event = f"ATTENDEDTRANSFER|{_method(leg, following, channels.number)}|{times}"
        elif call.hangup_by == "agent":
            event = f"COMPLETEAGENT|{times}"
        else:
            event = f"COMPLETECALLER|{times}"
        self.add(released, 1, f"{head}{agent}|{event}")
        if leg.acw_seconds:
            # Depends on the dialplan: some write it without queue and call.
            about = head if int(leg.agent_id) % 2 else "NONE|NONE|"
            self.add(released, 1, f"{about}{agent}|WRAPUPSTART|{leg.acw_seconds}")

    def _carry(self, call: Call, number: int, unique_id: str, leg: Leg) -> None:
        answered = leg.outcome == "answered"
        self.visits.append(
            (
                call.call_id,
                number,
                unique_id,
                leg.queue_id,
                leg.agent_id,
                OUTCOMES[leg.outcome],
                self._epoch + (leg.queue_start or 0),
                "" if leg.outcome == "incomplete" else leg.wait_seconds,
                leg.ring_seconds if answered else "",
                leg.talk_seconds + leg.hold_seconds if answered else "",
                leg.acw_seconds if answered else "",
                "attended" if leg.transfer == "consult" else leg.transfer,
                call.hangup_by if answered and not leg.transfer else "",
            )
        )

    def session(self, session: Session) -> None:
        """Login, membership and pauses of an agent."""
        agent = f"Agent/{session.agent.agent_id}"
        login = self._epoch + session.login
        channel = f"PJSIP/{session.agent.agent_id}-{login % 2**32:08x}"
        unique_id = f"{login}.{session.agent.agent_id}"
        self.add(session.login, 0, f"{unique_id}|NONE|{agent}|AGENTLOGIN|{channel}")
        for queue in session.agent.skills:
            self.add(session.login, 0, f"MANAGER|{queue}|{agent}|ADDMEMBER|")
        for state in session.states:
            if state.state == "pause":
                self.add(state.start, 2, f"NONE|NONE|{agent}|PAUSEALL|{state.reason}")
                self.add(state.end, 0, f"NONE|NONE|{agent}|UNPAUSEALL|{state.reason}")
        for queue in session.agent.skills:
            self.add(session.logout, 3, f"MANAGER|{queue}|{agent}|REMOVEMEMBER|")
        seconds = session.logout - session.login
        self.add(session.logout, 3, f"{unique_id}|NONE|{agent}|AGENTLOGOFF|{channel}|{seconds}")


def _method(leg: Leg, following: Leg | None, channel: int) -> str:
    """How the parties were brought together; LINK has a field more than the others."""
    colleague = following.agent_id if following else ""
    if leg.transfer == "consult":
        local = f"Local/{colleague}@agents-{channel:08x}"
        return f"LINK|{local};1|{local};2"
    if int(leg.agent_id) % 4 == 0:
        return "APP|Dial"
    return f"BRIDGE|{leg.released or 0:08x}-0000-4000-8000-{channel:012x}"


def _soil(
    files: list[list[str]], names: list[str], notes: list[dict[str, Any]], chance: random.Random
) -> set[str]:
    """Damage lines and note it; returns the files that end without a line end.

    The first files have what is otherwise rare, so that a short run shows it too.
    """
    broken = set()
    tail: list[str] = []
    for number, (name, lines) in enumerate(zip(names, files, strict=True)):
        again, tail = tail, []
        if len(lines) >= FEWEST_LINES:
            marked: list[tuple[str, dict[str, Any] | None]] = []
            crash, died = _crash(lines, chance, number == 2)
            lost = _lost(lines, chance) | dict.fromkeys(died, "missing_after_crash")
            for index, line in enumerate(lines):
                if index == crash:
                    restart = f"{line.split('|', 1)[0]}|NONE|NONE|NONE|QUEUESTART|"
                    marked.append((restart, {"kind": "restart", "text": restart}))
                if index in lost:
                    notes.append({"kind": lost[index], "file": name, "text": line})
                else:
                    marked.append((line, None))
            _swap(marked, chance)
            if number + 1 < len(files) and (chance.random() < 0.3 or not number):
                tail = [line for line, _ in marked[-chance.randint(3, 25) :]]
            if chance.random() < 0.2 or number == 1:
                whole = marked[-1][0]
                cut = whole[: chance.randint(12, 22)]
                marked.append((cut, {"kind": "truncated_line", "text": cut}))
                broken.add(name)
        else:
            marked = [(line, None) for line in lines]
        marked[:0] = [
            (line, {"kind": "sent_again", "first_file": names[number - 1]}) for line in again
        ]
        notes.extend(
            {**note, "file": name, "line": place}
            for place, (_, note) in enumerate(marked, start=1)
            if note
        )
        lines[:] = [line for line, _ in marked]
    return broken


def _crash(lines: list[str], chance: random.Random, certain: bool) -> tuple[int, list[int]]:
    """Now and then the exchange restarts: the lines before which it did (or -1), and those that
    the calls of that moment did not write any more."""
    crash = chance.randrange(len(lines) // 4, len(lines) * 3 // 4)
    if chance.random() > 0.25 and not certain:
        return -1, []
    waiting: set[str] = set()
    died: list[int] = []
    ended: set[tuple[str, str]] = set()
    for index, line in enumerate(lines):
        at, call, _, agent, event = line.split("|", 5)[:5]
        if index < crash:
            if event == "ENTERQUEUE":
                waiting.add(call)
            elif event.startswith(ENDS):
                waiting.discard(call)
        elif call in waiting:
            died.append(index)
            ended.add((at, agent))
        elif event == "WRAPUPSTART" and (at, agent) in ended:
            died.append(index)
    return crash, died


def _lost(lines: list[str], chance: random.Random) -> dict[int, str]:
    """Lines that were never written, by index."""
    events: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        events.setdefault(line.split("|", 5)[4], []).append(index)
    lost: dict[int, str] = {}
    ends = events.get("COMPLETECALLER", []) + events.get("COMPLETEAGENT", [])
    for index in chance.sample(ends, min(len(ends), max(1, len(ends) // 700))):
        lost[index] = "missing_end"
    unpauses = events.get("UNPAUSEALL", [])
    if unpauses and chance.random() < 0.5:
        lost[chance.choice(unpauses)] = "missing_unpause"
    logoffs = events.get("AGENTLOGOFF", [])
    if logoffs and chance.random() < 0.3:
        picked = chance.choice(logoffs)
        time, _, _, agent, _ = lines[picked].split("|", 4)
        for index in events["REMOVEMEMBER"]:
            if lines[index].startswith(f"{time}|") and f"|{agent}|" in lines[index]:
                lost[index] = "missing_logoff"
        lost[picked] = "missing_logoff"
    return lost


def _swap(marked: list[tuple[str, dict[str, Any] | None]], chance: random.Random) -> None:
    """Neighbours in the wrong order: the file is written by several threads."""
    for _ in range(max(1, len(marked) // 2000)):
        index = chance.randrange(len(marked) - 1)
        (first, note), (second, other) = marked[index], marked[index + 1]
        if note is None and other is None and first.split("|", 1)[0] != second.split("|", 1)[0]:
            marked[index] = (second, {"kind": "out_of_order", "text": second})
            marked[index + 1] = (first, None)
