"""The manager interface (AMI) of a simulated exchange: what its queue log writes, told as events.

Lines become the events that `app_queue.c` raises beside them, with those of their channels; lines
that only a dialplan writes become none. It listens on this machine alone, and to one user.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from callhouse.errors import CallhouseError

LISTEN, PORT = "127.0.0.1", 5038
BANNER = b"Asterisk Call Manager/9.0.0\r\n"
CLASSES = {
    "Newchannel": "call", "DialEnd": "call", "HangupRequest": "call", "Hangup": "call",
    "BlindTransfer": "call", "AttendedTransfer": "call",
}  # fmt: skip
Fields = dict[str, str]


def message(event: Fields) -> bytes:
    """As it goes over the wire."""
    return "".join(f"{name}: {value}\r\n" for name, value in event.items()).encode() + b"\r\n"


class Events:
    """Lines of a queue log, one after the other, as events."""

    def __init__(self) -> None:
        self._members: dict[str, list[str]] = {}  # queues by agent
        self._talks: dict[str, str] = {}  # channel of the agent by caller

    def of(self, line: str) -> list[Fields]:
        """The events of a line, in their order."""
        at, call, queue, agent, event, *data = line.split("|")
        data += [""] * (5 - len(data))
        return [
            {
                "Event": name,
                "Privilege": f"{CLASSES.get(name, 'agent')},all",
                "Timestamp": f"{at}.500000",
                **fields,
            }
            for name, fields in self._told(call, queue, agent, event, data)
        ]

    def _told(
        self, call: str, queue: str, agent: str, event: str, data: list[str]
    ) -> Iterator[tuple[str, Fields]]:
        channel = {"Channel": f"PJSIP/trunk-{call}", "Uniqueid": call, "Linkedid": call}
        caller = {**channel, "Queue": queue}
        member = {"Queue": queue, "MemberName": agent, "Interface": f"Local/{agent}@agents"}
        both = {**channel, "DestUniqueid": self._talks.get(call, ""), **member}
        match event:
            case "ENTERQUEUE":
                number = data[1] or "<unknown>"
                yield "Newchannel", channel
                yield "QueueCallerJoin", {**caller, "CallerIDNum": number, "Position": data[2]}
            case "ABANDON":
                yield "HangupRequest", channel
                yield from self._unanswered(caller, *data[:3])
                yield "Hangup", channel
            case "EXITWITHTIMEOUT" | "EXITEMPTY":
                yield from self._unanswered(caller, *data[:3])
            case "EXITWITHKEY":
                yield "QueueCallerLeave", {**caller, "Position": data[1]}
            case "RINGNOANSWER":
                yield "AgentRingNoAnswer", {**both, "RingTime": data[0]}
            case "CONNECT":
                self._talks[call] = data[1]
                bridged = {**both, "DestUniqueid": data[1]}
                yield "DialEnd", {**channel, "DestUniqueid": data[1], "DialStatus": "ANSWER"}
                yield "QueueCallerLeave", {**caller, "Position": "1"}
                yield "AgentConnect", {**bridged, "HoldTime": data[0], "RingTime": data[2]}
            case "COMPLETECALLER" | "COMPLETEAGENT":
                by = event.removeprefix("COMPLETE").lower()
                gone = call if by == "caller" else self._talks.get(call, "")
                yield "HangupRequest", {"Channel": "PJSIP/leg", "Uniqueid": gone}
                yield "AgentComplete", self._complete(both, data[0], data[1], by)
                yield "Hangup", channel
                self._talks.pop(call, None)
            case "BLINDTRANSFER" | "ATTENDEDTRANSFER":
                yield from self._transfer(event, both, data)
                self._talks.pop(call, None)
            case "AGENTLOGIN":
                yield "AgentLogin", {"Channel": data[0], "Uniqueid": call, "Agent": agent}
            case "AGENTLOGOFF":
                yield (
                    "AgentLogoff",
                    {"Channel": data[0], "Uniqueid": call, "Agent": agent, "Logintime": data[1]},
                )
            case "ADDMEMBER":
                self._members.setdefault(agent, []).append(queue)
                yield "QueueMemberAdded", {**member, "Membership": "dynamic", "Paused": "0"}
            case "REMOVEMEMBER":
                self._members[agent] = [q for q in self._members.get(agent, []) if q != queue]
                yield "QueueMemberRemoved", {**member, "Membership": "dynamic"}
            case "PAUSEALL" | "UNPAUSEALL":
                paused = "1" if event == "PAUSEALL" else "0"
                for every in self._members.get(agent, []):
                    reason = {"Paused": paused, "PausedReason": data[0]}
                    yield "QueueMemberPause", {**member, "Queue": every, **reason}

    def _unanswered(
        self, caller: Fields, position: str, original: str, wait: str
    ) -> Iterator[tuple[str, Fields]]:
        places = {"Position": position, "OriginalPosition": original, "HoldTime": wait}
        yield "QueueCallerAbandon", {**caller, **places}
        yield "QueueCallerLeave", {**caller, "Position": position}

    def _complete(self, both: Fields, hold: str, talk: str, reason: str) -> Fields:
        return {**both, "HoldTime": hold, "TalkTime": talk, "Reason": reason}

    def _transfer(self, event: str, both: Fields, data: list[str]) -> Iterator[tuple[str, Fields]]:
        parties = {"Result": "Success", "TransfereeUniqueid": both["Uniqueid"]}
        if event == "BLINDTRANSFER":
            parties |= {"TransfererUniqueid": both["DestUniqueid"]}
            yield event_name(event), {**parties, "Extension": data[0], "Context": data[1]}
            yield "AgentComplete", self._complete(both, data[2], data[3], "transfer")
            return
        parties |= {"OrigTransfererUniqueid": both["DestUniqueid"]}
        match data[0]:
            case "LINK":
                how = {"DestType": "Link", "LocalOneChannel": data[1], "LocalTwoChannel": data[2]}
                hold, talk = data[3], data[4].partition("|")[0]
            case "APP":
                how, hold, talk = {"DestType": "App", "DestApp": data[1]}, data[2], data[3]
            case _:
                how = {"DestType": "Bridge", "DestBridgeUniqueid": data[1]}
                hold, talk = data[2], data[3]
        told = [
            (event_name(event), {**parties, **how}),
            ("AgentComplete", self._complete(both, hold, talk, "transfer")),
        ]
        # Two threads tell them: now and then the later one is the faster.
        yield from reversed(told) if data[0] == "LINK" else told


def event_name(event: str) -> str:
    """Of a transfer in the log."""
    return "BlindTransfer" if event == "BLINDTRANSFER" else "AttendedTransfer"


class _Login(socketserver.StreamRequestHandler):
    """One session: a challenge, a login, and pings."""

    server: Exchange

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # it has gone, without a word
            self._serve()

    def _serve(self) -> None:
        challenge = f"{secrets.randbelow(10**9)}"
        self.wfile.write(BANNER)
        while action := self._action():
            match action.get("Action"):
                case "Challenge":
                    self._answer("Success", Challenge=challenge)
                case "Login":
                    if not self.server.is_key(action, challenge):
                        self._answer("Error", Message="Authentication failed")
                        return
                    self._answer("Success", Message="Authentication accepted")
                    self.server.admit(self.request)
                case "Ping":
                    self._answer("Success", Ping="Pong")
                case _:
                    self._answer("Error", Message="Permission denied")

    def _action(self) -> Fields:
        found: Fields = {}
        for line in self.rfile:
            name, colon, value = line.decode().strip().partition(": ")
            if colon:
                found[name] = value
            else:
                return found
        return {}

    def _answer(self, response: str, **fields: str) -> None:
        with self.server.lock:
            self.request.sendall(message({"Response": response, **fields}))

    def finish(self) -> None:
        self.server.dismiss(self.request)


class Exchange(socketserver.ThreadingTCPServer):
    """Serves the interface, in its block, at `port` (0: any) of this machine to `user`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, user: str, secret: str, port: int = 0) -> None:
        super().__init__((LISTEN, port), _Login)
        self.user, self.secret = user, secret
        self.lock = threading.RLock()
        self.events = Events()
        self._listening: list[socket.socket] = []

    def __enter__(self) -> Exchange:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.hang_up()
        self.server_close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def listeners(self) -> int:
        """How many are logged in."""
        return len(self._listening)

    def is_key(self, action: Fields, challenge: str) -> bool:
        """Whether a login has the key to its challenge."""
        key = hashlib.md5((challenge + self.secret).encode()).hexdigest()  # noqa: S324  # as AMI
        return (action.get("Username"), action.get("Key")) == (self.user, key)

    def admit(self, session: socket.socket) -> None:
        """From now on it is told what happens."""
        with self.lock:
            self._listening.append(session)

    def dismiss(self, session: socket.socket) -> None:
        """It has gone."""
        with self.lock:
            if session in self._listening:
                self._listening.remove(session)

    def hang_up(self) -> None:
        """End all sessions."""
        with self.lock:
            for session in self._listening:
                with contextlib.suppress(OSError):
                    session.shutdown(socket.SHUT_RDWR)
            self._listening.clear()

    def send(self, data: bytes) -> None:
        """Bytes to all who are logged in; who cannot take them has gone."""
        with self.lock:
            for session in list(self._listening):
                try:
                    session.sendall(data)
                except OSError:
                    self.dismiss(session)

    def tell(self, text: str) -> None:
        """Lines of the log, as they are written."""
        for line in text.splitlines():
            self.send(b"".join(map(message, self.events.of(line))))


def serving(address: str, secret: str) -> Exchange:
    """The exchange that a feed listens to at `address`, which must be one of this machine."""
    where = urlsplit(address)
    if where.scheme != "ami" or where.hostname not in (LISTEN, "localhost"):
        raise CallhouseError(f"only ami://…@{LISTEN} can be played, not {address}")
    return Exchange(where.username or "", secret, where.port or PORT)
