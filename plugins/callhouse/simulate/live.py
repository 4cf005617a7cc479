"""A simulated floor that plays into a queue_log as an exchange writes it: lines dated now.

Or it pushes the lines as a program beside the exchange would, signed, or tells them as the
exchange's manager interface does: the log is then its memory of what has gone out.

One after the other, working days from the morning to the evening. What a day is made of and when it
began is kept beside the log: whoever plays it on writes what was missed meanwhile, as the exchange
would have written it while nobody read.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from callhouse.errors import CallhouseError
from callhouse.live import signing
from callhouse.simulate import queue_log
from callhouse.simulate.centre import Centre
from callhouse.simulate.manager import Exchange
from callhouse.simulate.rendering import UTC_OFFSET, first_second
from callhouse.simulate.states import sessions

CALLS_PER_DAY = 4000
RETRY_SECONDS = 2.0
MOST_AT_ONCE = 500  # lines
# Of the simulated day: the morning's peak comes soon, the last agents leave at night.
OPENS, CLOSES = 9 * 3600, 23 * 3600
NAMED_BY_TIME = re.compile(r"[0-9]{9,11}\.[0-9]+")
BEGINNINGS = ("ENTERQUEUE", "FULL", "JOINEMPTY", "CLOSED", "DIVERT_CA_RATIO", "DIVERT_HOLDTIME")
GOES_ON = ("ENTERQUEUE", "CONNECT", "RINGNOANSWER", "RINGCANCELED")
# Where events report durations: places among the fields after the event, from behind if negative.
DURATIONS = {
    "CONNECT": (0, 2),
    "COMPLETEAGENT": (0, 1),
    "COMPLETECALLER": (0, 1),
    "BLINDTRANSFER": (-3, -2),
    "ATTENDEDTRANSFER": (-3, -2),
    "ABANDON": (2,),
    "EXITEMPTY": (2,),
    "EXITWITHTIMEOUT": (2,),
    "EXITWITHKEY": (3,),
    "RINGNOANSWER": (0,),
    "RINGCANCELED": (0,),
    "WRAPUPSTART": (0,),
    "AGENTLOGOFF": (1,),
}


@dataclass(frozen=True)
class Episode:
    """One simulated working day; `began_at` is the instant (epoch seconds) of its opening."""

    seed: int
    began_at: float
    speed: float
    calls_per_day: int = CALLS_PER_DAY

    def lines(self) -> Iterator[tuple[float, str]]:
        """(instant, line) in order of time. The same episode has the same lines."""
        date = (datetime.fromtimestamp(self.began_at, UTC) + UTC_OFFSET).date()
        # Weekends and holidays are quiet: play the nearest day that is neither.
        day = date - timedelta(days=max(date.weekday() - 4, 0))
        world = Centre(self.seed, day, 1, self.calls_per_day, None).run()
        midnight = first_second(day)
        known: set[str] = set()
        logged_in: dict[str, float] = {}
        on_duty = {
            f"Agent/{agent.agent_id}"
            for agent in world.agents
            for session in sessions(agent)
            if session.login < OPENS < session.logout
        }
        opening: list[tuple[float, str]] = []
        later: list[tuple[float, str]] = []
        written = [line.split("|") for line in queue_log.lines(world, day)]
        # A call without an end, which is there for the batch lane, would wait for two hours.
        whole = {call for _, call, _, _, event, *_ in written if event not in GOES_ON}
        for at, call, queue, agent, event, *data in written:
            second = int(at) - midnight
            instant = self.began_at + max(second - OPENS, 0) / self.speed
            if event == "AGENTLOGIN":
                logged_in[agent] = instant
            elif event == "AGENTLOGOFF":
                data[1] = f"{(instant - logged_in[agent]) * self.speed}"
            elif event in BEGINNINGS and OPENS <= second < CLOSES and call in whole:
                known.add(call)
            played = (instant, self._written(instant, call, queue, agent, event, data))
            if second < OPENS:
                # Who is there already has logged in; calls of before are over.
                if event in ("AGENTLOGIN", "ADDMEMBER") and agent in on_duty:
                    opening.append(played)
            elif call in known or event.startswith("AGENTLOG") or not NAMED_BY_TIME.fullmatch(call):
                later.append(played)
        yield from opening
        yield from later

    def _written(
        self, instant: float, call: str, queue: str, agent: str, event: str, data: list[str]
    ) -> str:
        for place in DURATIONS.get(event, ()):
            data[place] = f"{round(float(data[place]) / self.speed)}"
        if NAMED_BY_TIME.fullmatch(call):  # as many days are played, as many names there are
            call = f"{int(self.began_at)}.{call.replace('.', '')}"
        return "|".join((f"{int(instant)}", call, queue, agent, event, *data))


Sink = Callable[[str], bool]


class PushError(CallhouseError):
    """The receiver takes none of it, however often it is sent."""


def pusher(url: str, secret: str, stop: threading.Event, say: Callable[[str], None]) -> Sink:
    """A way to push lines to `url`: sent until they are taken (True), or until `stop` (False)."""
    client = httpx.Client(timeout=30)
    told = ""

    def push(text: str) -> bool:
        nonlocal told
        body = text.encode()
        while not stop.is_set():
            try:
                signed = {**signing.headers(secret, body), "Content-Type": "text/plain"}
                answer = client.post(url, content=body, headers=signed)
                if answer.is_success:
                    told = ""
                    return True
                problem = f"{answer.status_code} {answer.text[:200]}"
                if 400 <= answer.status_code < 500 and answer.status_code != 429:
                    raise PushError(f"{url} answers {problem}")
            except httpx.TransportError as error:
                problem = f"does not answer ({type(error).__name__})"
            if problem != told:
                told = problem
                say(f"{url}: {problem}; trying again")
            stop.wait(RETRY_SECONDS)
        return False

    return push


def teller(exchange: Exchange, stop: threading.Event) -> Sink:
    """A way to tell lines to who is logged in at `exchange`, once somebody was (until `stop`)."""
    has_begun = False

    def tell(text: str) -> bool:
        nonlocal has_begun
        while not has_begun:
            has_begun = exchange.listeners > 0
            if not has_begun and stop.wait(0.1):
                return False
        exchange.tell(text)
        return True

    return tell


def play(
    directory: Path, speed: float, stop: threading.Event, say: Callable[[str], None],
    push: Sink | None = None,
) -> None:  # fmt: skip
    """Write `directory`/queue_log until `stop`, one episode after the other.

    With `push` lines are written once they were pushed: what was in between comes twice, and is
    known by then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log, kept = directory / "queue_log", directory / "episode.json"
    log.touch()
    while not stop.is_set():
        if kept.exists():
            episode = Episode(**json.loads(kept.read_text(encoding="utf-8")))
        else:
            episode = Episode(seed=int(time.time()), began_at=float(int(time.time())), speed=speed)
            if log.stat().st_size:
                log.replace(directory / "queue_log.1")
                log.touch()
            kept.write_text(json.dumps(vars(episode)), encoding="utf-8")
        say(f"plays day {episode.seed} at {episode.speed:g} times its speed into {log}")
        if _play(episode, log, stop, push):
            kept.unlink()


def _play(episode: Episode, log: Path, stop: threading.Event, push: Sink | None) -> bool:
    """Write what the log lacks of an episode; whether it came to its end."""
    written = log.read_bytes().count(b"\n")
    due: list[str] = []
    with log.open("r+b") as file:
        file.truncate(log.read_bytes().rfind(b"\n") + 1)  # half a line of a player that was killed
        file.seek(0, 2)

        def write() -> bool:
            """What is due, at once; False where it was stopped before that arrived."""
            text = "".join(f"{line}\n" for line in due)
            due.clear()
            if text and push and not push(text):
                return False
            file.write(text.encode())
            file.flush()
            return True

        for number, (instant, line) in enumerate(episode.lines()):
            if number < written:
                continue
            if (instant > time.time() or len(due) == MOST_AT_ONCE) and not write():
                return False
            if stop.wait(max(0.0, instant - time.time())):
                return False
            due.append(line)
        return write()
