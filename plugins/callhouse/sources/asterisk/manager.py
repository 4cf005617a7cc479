"""The manager interface of an exchange (AMI): its events of queues as the lines they stand for.

Which lines an exchange writes beside which events, and in which order, is told by its
`app_queue.c`; what no event tells is told by docs/decisions/0060.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from callhouse.errors import CallhouseError

ADDRESS = re.compile(
    r"(?P<scheme>amis?)://(?P<user>[^\s:/@]+)@(?P<host>[^\s:/@]+)(:(?P<port>[0-9]{1,5}))?/?"
)
PORTS = {"ami": 5038, "amis": 5039}
BANNER = b"Asterisk Call Manager/"
# Classes of events that the collector asks for, and the least that its user may read.
EVENTS = "agent,call"
END = b"\r\n\r\n"
LONGEST_MESSAGE = 1 << 20
RECEIVED_BYTES = 1 << 16
CONNECT_SECONDS = 10.0
# Without a word for as long the exchange is asked whether it is there, and then taken for gone.
ASK_SECONDS, GONE_SECONDS = 5.0, 12.0
WAIT_SECONDS = 0.5
# So long what may follow an event is waited for, where the events of two threads may cross.
SETTLE_SECONDS = 2.0
# Channels of which more is remembered than a telephone system has at once: their ends were missed.
MOST_CHANNELS = 20_000

Event = dict[str, str]


@dataclass(frozen=True)
class Address:
    """Where an exchange listens, and as whom it is asked."""

    user: str
    host: str
    port: int
    is_encrypted: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """`ami://user@host:5038`, or `amis://` over TLS."""
    found = ADDRESS.fullmatch(text)
    if not found:
        raise CallhouseError(
            f"'{text}' is no address of a manager interface: write ami://user@host:5038, or "
            "amis:// for TLS; its password is a secret of its own"
        )
    scheme = found["scheme"]
    port = int(found["port"] or PORTS[scheme])
    return Address(found["user"], found["host"], port, scheme == "amis")


class Session:
    """A login at the manager interface; CallhouseError or OSError where it has ended."""

    def __init__(self, where: Address, secret: str) -> None:
        self.where = where
        self._buffer = bytearray()
        self._translation = Translation(where)
        self._heard_at = self._asked_at = time.monotonic()
        self._socket = socket.create_connection((where.host, where.port), CONNECT_SECONDS)
        try:
            if where.is_encrypted:
                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=where.host)
            self._log_in(secret)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Leave without a word: there is nothing that the exchange would have to undo."""
        self._socket.close()

    def heard(self) -> Iterator[bytes]:
        """The lines of what has been told since; waits for half a second where nothing has."""
        now = time.monotonic()
        quiet = now - self._heard_at
        if quiet > GONE_SECONDS:
            raise CallhouseError(f"{self.where} has not answered for {quiet:.0f} s")
        if quiet > ASK_SECONDS and now - self._asked_at > ASK_SECONDS:
            self._asked_at = now
            self._send(Action="Ping")
        if END not in self._buffer:  # the first events may have come with the login's answer
            self._receive(WAIT_SECONDS)
        for message in self._messages():
            if "Event" in message:
                yield from map(_bytes, self._translation.lines(message, time.monotonic()))
        yield from map(_bytes, self._translation.settled(time.monotonic()))

    def rest(self) -> list[bytes]:
        """The lines of what still waited for something to follow."""
        return [_bytes(line) for line in self._translation.settled()]

    # -------------------------------------------------------------------------- protocol
    def _log_in(self, secret: str) -> None:
        """By a challenge: the password itself is never sent."""
        while b"\n" not in self._buffer:
            self._must_receive()
        banner, _, rest = bytes(self._buffer).partition(b"\n")
        if not banner.startswith(BANNER):
            raise CallhouseError(f"{self.where} is no manager interface: check the address")
        self._buffer = bytearray(rest)
        challenge = self._ask(Action="Challenge", AuthType="MD5").get("Challenge", "")
        key = hashlib.md5((challenge + secret).encode())  # noqa: S324  # what the interface takes
        answer = self._ask(
            Action="Login", AuthType="MD5", Username=self.where.user, Key=key.hexdigest(),
            Events=EVENTS,
        )  # fmt: skip
        if answer.get("Response") != "Success":
            raise CallhouseError(
                f"{self.where} refuses the user {self.where.user} "
                f"({answer.get('Message', 'no reason')}): check its password, and manager.conf"
            )

    def _ask(self, **fields: str) -> Event:
        self._send(**fields)
        while True:
            # Nothing but answers comes before the login, and its own comes ahead of all events.
            for message in self._messages(most=1):
                if "Response" in message:
                    return message
            self._must_receive()

    def _send(self, **fields: str) -> None:
        text = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._socket.settimeout(CONNECT_SECONDS)
        self._socket.sendall(f"{text}\r\n".encode())

    def _receive(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(RECEIVED_BYTES)
        except TimeoutError:
            return False
        if not data:
            raise CallhouseError(f"{self.where} has ended the connection")
        self._heard_at = time.monotonic()
        self._buffer += data
        return True

    def _must_receive(self) -> None:
        if not self._receive(CONNECT_SECONDS):
            raise CallhouseError(f"{self.where} does not answer: check the address")

    def _messages(self, most: int | None = None) -> list[Event]:
        """What has come whole; half a message waits for its end."""
        *whole, rest = bytes(self._buffer).split(END, *([most] if most else []))
        if not most and len(rest) > LONGEST_MESSAGE:
            raise CallhouseError(f"{self.where} sends what are no events: check the address")
        self._buffer = bytearray(rest)
        return [_fields(message) for message in whole]


def _fields(message: bytes) -> Event:
    found: Event = {}
    for line in message.decode("utf-8", "surrogateescape").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def _bytes(line: str) -> bytes:
    return line.encode("utf-8", "surrogateescape")


# ------------------------------------------------------------------------------ translation
@dataclass
class Waiting:
    """A caller in a queue, by what was told so far."""

    joined_at: int | None = None
    position: str = ""
    is_answered: bool = False  # by a member, who is connected next
    is_over: bool = False  # its end is told


@dataclass
class Held:
    """A line that waits for what tells it better. `due` is of the clock that never goes back."""

    due: float
    line: str


class Translation:
    """Turns events into lines, and remembers of channels what the next events leave out."""

    def __init__(self, where: Address | None = None) -> None:
        self.where = where
        self._waiting: dict[str, Waiting] = {}
        self._hung_up: dict[str, bool] = {}
        # When, and how, by the channels that took part.
        self._transfers: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._left: dict[str, Held] = {}  # by caller
        self._passed_on: dict[str, tuple[float, Event]] = {}  # by caller
        self._is_told_of_calls = False
        self._events: dict[str, Callable[[Event, float], Iterator[str]]] = {
            "QueueCallerJoin": self._join,
            "QueueCallerAbandon": self._abandon,
            "QueueCallerLeave": self._leave,
            "AgentConnect": self._connect,
            "AgentComplete": self._complete,
            "AgentRingNoAnswer": self._ring_no_answer,
            "AgentDump": self._dump,
            "AgentLogin": self._log_in,
            "AgentLogoff": self._log_off,
            "QueueMemberAdded": self._add,
            "QueueMemberRemoved": self._remove,
            "QueueMemberPause": self._pause,
            "DialEnd": self._dial_end,
            "BlindTransfer": self._blind,
            "AttendedTransfer": self._attended,
            "HangupRequest": self._hang_up,
            "SoftHangupRequest": self._hang_up,
            "Hangup": self._gone,
        }

    def lines(self, event: Event, now: float = 0.0) -> list[str]:
        """The lines of an event, in their order; CallhouseError where its user may not do."""
        if "call" in event.get("Privilege", "").split(","):
            self._is_told_of_calls = True
        tell = self._events.get(event["Event"])
        return list(tell(event, now)) if tell else []

    def settled(self, now: float = float("inf")) -> list[str]:
        """Lines for which nothing more was waited for until `now`."""
        lines: list[str] = []
        for caller, held in list(self._left.items()):
            if held.due <= now:
                lines += self._settle(caller)
        for caller, (due, event) in list(self._passed_on.items()):
            if due <= now:
                del self._passed_on[caller]
                lines.append(_passed(event, ("TRANSFER", "", "")))
        return lines

    # -------------------------------------------------------------------------- callers
    def _join(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        caller = event.get("Uniqueid", "")
        yield from self._settle(caller)  # of the queue before
        number = event.get("CallerIDNum", "")
        position = event.get("Position", "")
        line = _line(
            event, "ENTERQUEUE", "", "" if number == "<unknown>" else number, position,
            call=caller,
        )  # fmt: skip
        at = line.partition("|")[0]
        joined_at = int(at) if at.isdigit() else None
        _keep(self._waiting, caller, Waiting(joined_at, position))
        yield line

    def _abandon(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        """Raised of everyone who leaves the head of the queue unanswered: who hung up gave up."""
        caller = event.get("Uniqueid", "")
        waiting = self._of(caller)
        if waiting.is_over:  # an exchange may say it twice
            return
        self._must_be_told_of_calls()
        waiting.is_over = True
        yield _line(
            event, "ABANDON" if caller in self._hung_up else "EXITWITHTIMEOUT",
            event.get("Position", ""), event.get("OriginalPosition", ""),
            event.get("HoldTime", ""), call=caller,
        )  # fmt: skip

    def _leave(self, event: Event, now: float) -> Iterator[str]:
        """Where nothing else has told the end: connected next, or gone by a key."""
        caller = event.get("Uniqueid", "")
        waiting = self._of(caller)
        if waiting.is_over:
            self._waiting.pop(caller, None)
        elif not waiting.is_answered:
            self._must_be_told_of_calls()
            at = _at(event)
            wait = ""
            if waiting.joined_at is not None and at.isdigit():
                wait = str(max(0, int(at) - waiting.joined_at))
            line = _line(
                event, "EXITWITHKEY", "", event.get("Position", ""), waiting.position, wait,
                call=caller,
            )  # fmt: skip
            self._left[caller] = Held(now + SETTLE_SECONDS, line)
        yield from ()

    def _hang_up(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        caller = event.get("Uniqueid", "")
        _keep(self._hung_up, caller, True)
        yield from self._settle(caller)

    def _gone(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        channel = event.get("Uniqueid", "")
        yield from self._settle(channel)
        for known in (self._waiting, self._hung_up):
            known.pop(channel, None)

    def _settle(self, caller: str) -> Iterator[str]:
        if held := self._left.pop(caller, None):
            self._waiting.pop(caller, None)
            yield held.line

    def _of(self, caller: str) -> Waiting:
        """Of a caller who joined before the login nothing is known."""
        if caller not in self._waiting:
            _keep(self._waiting, caller, Waiting())
        return self._waiting[caller]

    def _must_be_told_of_calls(self) -> None:
        if not self._is_told_of_calls:
            user = self.where.user if self.where else "?"
            raise CallhouseError(
                f"{self.where} tells the user {user} nothing of calls, so that who gives up cannot "
                "be told from who is sent on: let it `read = agent,call` in manager.conf"
            )

    # -------------------------------------------------------------------------- conversations
    def _dial_end(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        caller = event.get("Uniqueid", "")
        if event.get("DialStatus") == "ANSWER" and caller:
            self._of(caller).is_answered = True
        yield from ()

    def _connect(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        caller = event.get("Uniqueid", "")
        self._waiting.pop(caller, None)
        self._left.pop(caller, None)
        yield _line(
            event, "CONNECT", event.get("HoldTime", ""), event.get("DestUniqueid", ""),
            event.get("RingTime", ""), call=caller, agent=_agent(event),
        )  # fmt: skip

    def _ring_no_answer(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        yield _line(
            event, "RINGNOANSWER", event.get("RingTime", ""),  # in milliseconds, as in the log
            call=event.get("Uniqueid", ""), agent=_agent(event),
        )  # fmt: skip

    def _dump(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        caller = event.get("Uniqueid", "")
        self._of(caller).is_answered = False
        yield _line(event, "AGENTDUMP", call=caller, agent=_agent(event))

    def _complete(self, event: Event, now: float) -> Iterator[str]:
        reason = event.get("Reason", "")
        if reason != "transfer":  # caller or agent
            yield _line(
                event, f"COMPLETE{reason.upper()}", event.get("HoldTime", ""),
                event.get("TalkTime", ""), "", call=event.get("Uniqueid", ""), agent=_agent(event),
            )  # fmt: skip
            return
        channels = (event.get("Uniqueid", ""), event.get("DestUniqueid", ""))
        for channel in channels:
            at, kind = self._transfers.pop(channel, (float("-inf"), ()))
            if now - at <= SETTLE_SECONDS:
                yield _passed(event, kind)
                return
        self._passed_on[channels[0]] = (now + SETTLE_SECONDS, event)

    def _blind(self, event: Event, now: float) -> Iterator[str]:
        kind = ("BLINDTRANSFER", event.get("Extension", ""), event.get("Context", ""))
        channels = ("TransfereeUniqueid", "TransfererUniqueid")
        yield from self._passed_by(event, now, kind, channels)

    def _attended(self, event: Event, now: float) -> Iterator[str]:
        how: tuple[str, ...]
        match event.get("DestType"):
            case "Bridge":
                how = ("BRIDGE", event.get("DestBridgeUniqueid", ""))
            case "App":
                how = ("APP", event.get("DestApp", ""))
            case "Link":
                how = ("LINK", event.get("LocalOneChannel", ""), event.get("LocalTwoChannel", ""))
            case _:
                return  # a conference, or nothing: the agent goes on talking
        channels = (
            "TransfereeUniqueid", "TransferTargetUniqueid", "OrigTransfererUniqueid",
            "SecondTransfererUniqueid",
        )  # fmt: skip
        yield from self._passed_by(event, now, ("ATTENDEDTRANSFER", *how), channels)

    def _passed_by(
        self, event: Event, now: float, kind: tuple[str, ...], names: tuple[str, ...]
    ) -> Iterator[str]:
        """A transfer, which is told before the end of the conversation, or just after it."""
        if event.get("Result") != "Success":
            return
        channels = [channel for name in names if (channel := event.get(name))]
        for caller, (_, complete) in list(self._passed_on.items()):
            if {caller, complete.get("DestUniqueid", "")} & set(channels):
                del self._passed_on[caller]
                yield _passed(complete, kind)
                return
        for channel in channels:
            _keep(self._transfers, channel, (now, kind))

    # -------------------------------------------------------------------------- agents
    def _log_in(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        yield _line(
            event, "AGENTLOGIN", event.get("Channel", ""), call=event.get("Uniqueid", ""),
            agent=event.get("Agent", ""),
        )  # fmt: skip

    def _log_off(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        yield _line(
            event, "AGENTLOGOFF", event.get("Channel", ""), event.get("Logintime", ""),
            call=event.get("Uniqueid", ""), agent=event.get("Agent", ""),
        )  # fmt: skip

    def _add(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        paused = "PAUSED" if event.get("Paused") == "1" else ""
        yield _line(event, "ADDMEMBER", paused, call="MANAGER", agent=_agent(event))

    def _remove(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        yield _line(event, "REMOVEMEMBER", "", call="MANAGER", agent=_agent(event))

    def _pause(self, event: Event, now: float) -> Iterator[str]:  # noqa: ARG002
        name = "PAUSE" if event.get("Paused") == "1" else "UNPAUSE"
        reason = event.get("Reason") or event.get("PausedReason", "")
        yield _line(event, name, reason, agent=_agent(event))


def _passed(event: Event, kind: tuple[str, ...]) -> str:
    """The end of a conversation that was passed on."""
    return _line(
        event, *kind, event.get("HoldTime", ""), event.get("TalkTime", ""), "",
        call=event.get("Uniqueid", ""), agent=_agent(event),
    )  # fmt: skip


def _agent(event: Event) -> str:
    return event.get("MemberName") or event.get("Interface", "")


def _at(event: Event) -> str:
    """The second of an event, as the log has it; what is no time is told by the line's reader."""
    if not (at := event.get("Timestamp")):
        raise CallhouseError(
            f"{event['Event']} comes without its time: set `timestampevents = yes` in manager.conf "
            "and reload it"
        )
    return at.partition(".")[0]


def _line(event: Event, name: str, *data: str, call: str = "", agent: str = "") -> str:
    fields = (_at(event), call or "NONE", event.get("Queue") or "NONE", agent or "NONE", name)
    # A bar within a value would move all that follows.
    return "|".join(field.replace("|", " ") for field in (*fields, *data))


def _keep(known: dict[str, Any], channel: str, value: Any) -> None:
    known[channel] = value
    if len(known) > MOST_CHANNELS:
        del known[next(iter(known))]
