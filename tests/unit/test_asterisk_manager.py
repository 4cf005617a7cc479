"""The manager interface: which line each event is, and what a session does when it goes wrong.

Fields are those of Asterisk's documentation (AMI Events of 16 to 22), and the order of events that
of `app_queue.c`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from callhouse import settings as settings_module
from callhouse.errors import CallhouseError
from callhouse.settings import Settings
from callhouse.simulate.manager import Exchange, message
from callhouse.sources import registry
from callhouse.sources.asterisk import manager
from callhouse.sources.asterisk.manager import Address, Event, Session, Translation

CALLER = """\
Channel: PJSIP/trunk-00000a12
ChannelState: 6
ChannelStateDesc: Up
CallerIDNum: 13800138000
CallerIDName: <unknown>
ConnectedLineNum: <unknown>
ConnectedLineName: <unknown>
Language: en
AccountCode:
Context: hotline
Exten: 4000000001
Priority: 3
Uniqueid: 1796000000.2578
Linkedid: 1796000000.2578
"""
AGENT = """\
DestChannel: PJSIP/1001-00000a13
DestChannelState: 6
DestCallerIDNum: 1001
DestUniqueid: 1796000021.2579
DestLinkedid: 1796000000.2578
Queue: sales
MemberName: Agent/1001
Interface: PJSIP/1001
"""
MEMBER = """\
Queue: sales
MemberName: Agent/1001
Interface: PJSIP/1001
StateInterface: PJSIP/1001
Membership: dynamic
Penalty: 0
CallsTaken: 3
LastCall: 1795999000
InCall: 0
Status: 1
"""
CALL = "1796000000.2578"


def event(name: str, at: float, *parts: str, privilege: str = "agent,all") -> Event:
    head = f"Event: {name}\r\nPrivilege: {privilege}\r\nTimestamp: {at:.6f}\r\n"
    body = "".join(parts).replace("\n", "\r\n")
    return manager._fields((head + body).encode())


def of_calls(name: str, at: float, *parts: str) -> Event:
    return event(name, at, *parts, privilege="call,all")


def lines(*events: Event) -> list[str]:
    translation = Translation(Address("u", "pbx", 5038, is_encrypted=False))
    found = [line for item in events for line in translation.lines(item)]
    return [*found, *translation.settled()]


JOIN = event("QueueCallerJoin", 1796000001.9, CALLER, "Queue: sales\nPosition: 2\nCount: 2\n")
LEAVE = event("QueueCallerLeave", 1796000021.5, CALLER, "Queue: sales\nPosition: 1\nCount: 0\n")
PLACES = "Queue: sales\nPosition: 1\nOriginalPosition: 2\nHoldTime: 20\n"
ABANDON = event("QueueCallerAbandon", 1796000021.4, CALLER, PLACES)
REQUEST = of_calls("HangupRequest", 1796000021.3, CALLER)
GONE = of_calls("Hangup", 1796000021.6, CALLER, "Cause: 16\nCause-txt: Normal Clearing\n")
NEW = of_calls("Newchannel", 1796000000.1, CALLER)
ANSWERED = of_calls("DialEnd", 1796000021.4, CALLER, AGENT, "DialStatus: ANSWER\n")
CONNECT = event("AgentConnect", 1796000021.6, CALLER, AGENT, "HoldTime: 20\nRingTime: 4\n")
TALK = "HoldTime: 20\nTalkTime: 61\n"
ENTRY = f"1796000001|{CALL}|sales|NONE|ENTERQUEUE||13800138000|2"


def complete(reason: str) -> Event:
    return event("AgentComplete", 1796000082.7, CALLER, AGENT, TALK, f"Reason: {reason}\n")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (JOIN, ENTRY),
        (CONNECT, f"1796000021|{CALL}|sales|Agent/1001|CONNECT|20|1796000021.2579|4"),
        (complete("caller"), f"1796000082|{CALL}|sales|Agent/1001|COMPLETECALLER|20|61|"),
        (complete("agent"), f"1796000082|{CALL}|sales|Agent/1001|COMPLETEAGENT|20|61|"),
        (
            event("AgentRingNoAnswer", 1796000015.0, CALLER, AGENT, "RingTime: 12000\n"),
            f"1796000015|{CALL}|sales|Agent/1001|RINGNOANSWER|12000",
        ),
        (
            event("AgentDump", 1796000015.0, CALLER, AGENT),
            f"1796000015|{CALL}|sales|Agent/1001|AGENTDUMP",
        ),
        (
            event("QueueMemberAdded", 1796000000.0, MEMBER, "Paused: 0\nPausedReason:\n"),
            "1796000000|MANAGER|sales|Agent/1001|ADDMEMBER|",
        ),
        (
            event("QueueMemberAdded", 1796000000.0, MEMBER, "Paused: 1\nPausedReason: new\n"),
            "1796000000|MANAGER|sales|Agent/1001|ADDMEMBER|PAUSED",
        ),
        (
            event("QueueMemberRemoved", 1796000000.0, MEMBER),
            "1796000000|MANAGER|sales|Agent/1001|REMOVEMEMBER|",
        ),
        (
            event("QueueMemberPause", 1796000000.0, MEMBER, "Paused: 1\nPausedReason: lunch\n"),
            "1796000000|NONE|sales|Agent/1001|PAUSE|lunch",
        ),
        (
            event("QueueMemberPause", 1796000000.0, MEMBER, "Paused: 0\nReason: back\n"),
            "1796000000|NONE|sales|Agent/1001|UNPAUSE|back",
        ),
        (
            event("AgentLogin", 1796000000.0, CALLER, "Agent: 1001\n"),
            f"1796000000|{CALL}|NONE|1001|AGENTLOGIN|PJSIP/trunk-00000a12",
        ),
        (
            event("AgentLogoff", 1796000600.0, CALLER, "Agent: 1001\nLogintime: 600\n"),
            f"1796000600|{CALL}|NONE|1001|AGENTLOGOFF|PJSIP/trunk-00000a12|600",
        ),
        # Without a name a member is its interface, and a caller without a number nobody.
        (
            event("QueueMemberRemoved", 1796000000.0, MEMBER.replace("Agent/1001", "")),
            "1796000000|MANAGER|sales|PJSIP/1001|REMOVEMEMBER|",
        ),
        (
            {**JOIN, "CallerIDNum": "<unknown>"},
            f"1796000001|{CALL}|sales|NONE|ENTERQUEUE|||2",
        ),
        # A bar would move what follows it.
        ({**JOIN, "Queue": "sales|east"}, ENTRY.replace("sales", "sales east")),
        # What is no time is for quarantine.
        ({**JOIN, "Timestamp": "soon"}, ENTRY.replace("1796000001", "soon")),
    ],
)  # fmt: skip
def test_each_event_is_its_line(told: Event, expected: str) -> None:
    assert lines(NEW, told) == [expected]


def test_what_says_nothing_of_queues_is_no_line() -> None:
    status = event("QueueMemberStatus", 1796000000.0, MEMBER, "Paused: 0\n")
    assert lines(NEW, status, REQUEST, GONE, ANSWERED) == []


def test_who_hangs_up_gives_up_and_who_is_sent_on_does_not() -> None:
    """The exchange raises QueueCallerAbandon of both: only one has asked to hang up before."""
    ended = f"1796000021|{CALL}|sales|NONE|{{}}|1|2|20"
    assert lines(NEW, JOIN, REQUEST, ABANDON, LEAVE, GONE) == [ENTRY, ended.format("ABANDON")]
    assert lines(NEW, JOIN, ABANDON, LEAVE) == [ENTRY, ended.format("EXITWITHTIMEOUT")]
    # Who hung up while the agent was greeted is said to have gone twice.
    twice = lines(NEW, JOIN, ANSWERED, REQUEST, ABANDON, ABANDON, LEAVE, GONE)
    assert twice == [ENTRY, ended.format("ABANDON")]
    # A hang-up of another channel is none of the caller's.
    other = {**REQUEST, "Uniqueid": "1796000000.9999"}
    assert lines(NEW, JOIN, other, ABANDON)[1] == ended.format("EXITWITHTIMEOUT")


def test_without_events_of_calls_no_end_is_invented() -> None:
    for told in (ABANDON, LEAVE):
        with pytest.raises(CallhouseError, match="tells the user u nothing of calls"):
            lines(JOIN, told)


def test_who_leaves_is_connected_next_or_has_pressed_a_key() -> None:
    """A connected caller leaves the queue first, and what the agent hears takes its time."""
    connected = f"1796000021|{CALL}|sales|Agent/1001|CONNECT|20|1796000021.2579|4"
    exited = f"1796000021|{CALL}|sales|NONE|EXITWITHKEY||1|2|20"
    translation = Translation()
    assert translation.lines(NEW) + translation.lines(JOIN) == [ENTRY]
    assert translation.lines(ANSWERED, 0.0) + translation.lines(LEAVE, 0.0) == []
    assert translation.settled() == []
    assert translation.lines(CONNECT, 60.0) == [connected]
    assert lines(NEW, JOIN, LEAVE) == [ENTRY, exited]
    # Should nobody have told of the answer, the connection itself does.
    assert lines(NEW, JOIN, LEAVE, CONNECT) == [ENTRY, connected]
    # The next queue of a caller comes after the end of the one before.
    again = {**JOIN, "Timestamp": "1796000021.8", "Queue": "service"}
    there = f"1796000021|{CALL}|service|NONE|ENTERQUEUE||13800138000|2"
    assert lines(NEW, JOIN, LEAVE, again) == [ENTRY, exited, there]
    assert lines(NEW, JOIN, LEAVE, GONE) == [ENTRY, exited]
    # Who had joined before anybody listened has waited for an unknown time.
    assert lines(NEW, LEAVE) == [f"1796000021|{CALL}|sales|NONE|EXITWITHKEY||1||"]
    waited = Translation()
    for told in (NEW, JOIN):
        waited.lines(told, 0.0)
    assert waited.lines(LEAVE, 10.0) == waited.settled(10.0) == []
    assert waited.settled(10.0 + manager.SETTLE_SECONDS) == [exited]


BLIND = of_calls(
    "BlindTransfer", 1796000082.6, "Result: Success\nTransfererUniqueid: 1796000021.2579\n",
    f"TransfereeUniqueid: {CALL}\nContext: internal\nExtension: 1002\nIsExternal: Yes\n",
)  # fmt: skip
ATTENDED = (
    "Result: Success\nOrigTransfererUniqueid: 1796000021.2579\n"
    "SecondTransfererUniqueid: 1796000050.2580\n"
)
METHODS = {
    "DestType: Bridge\nDestBridgeUniqueid: 5a1f\n": "BRIDGE|5a1f",
    "DestType: App\nDestApp: VoiceMail\n": "APP|VoiceMail",
    "DestType: Link\nLocalOneChannel: Local/2@a;1\nLocalTwoChannel: Local/2@a;2\n":
        "LINK|Local/2@a;1|Local/2@a;2",
}  # fmt: skip


def test_a_conversation_that_is_passed_on_ends_by_its_transfer() -> None:
    end = f"1796000082|{CALL}|sales|Agent/1001|"
    blind = f"{end}BLINDTRANSFER|1002|internal|20|61|"
    assert lines(BLIND, complete("transfer")) == [blind]
    assert lines(complete("transfer"), BLIND) == [blind]
    for how, method in METHODS.items():
        attended = of_calls("AttendedTransfer", 1796000082.6, ATTENDED, how)
        told = f"{end}ATTENDEDTRANSFER|{method}|20|61|"
        assert lines(attended, complete("transfer")) == [told]
        assert lines(complete("transfer"), attended) == [told]
    # The agent's channel may be gone in between; an old transfer is another one.
    assert lines(BLIND, {**GONE, "Uniqueid": "1796000021.2579"}, complete("transfer")) == [blind]
    translation = Translation()
    assert translation.lines(BLIND, 0.0) + translation.lines(complete("transfer"), 10.0) == []
    assert translation.settled() == [f"{end}TRANSFER|||20|61|"]
    # Of a transfer that failed, or made a conference, or is another call's, nothing is known.
    failed = {**BLIND, "Result": "Fail"}
    conference = of_calls("AttendedTransfer", 1796000082.6, ATTENDED, "DestType: Threeway\n")
    other = {**BLIND, "TransfererUniqueid": "1.1", "TransfereeUniqueid": "1.2"}
    for told_too in (failed, conference, other):
        assert lines(told_too, complete("transfer")) == [f"{end}TRANSFER|||20|61|"]
        assert lines(told_too, complete("agent")) == [f"{end}COMPLETEAGENT|20|61|"]


def test_an_event_without_its_time_is_told_with_the_setting() -> None:
    with pytest.raises(CallhouseError, match="QueueCallerJoin comes without its time: set `times"):
        lines({key: value for key, value in JOIN.items() if key != "Timestamp"})


def test_what_is_remembered_of_channels_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "MOST_CHANNELS", 3)
    translation = Translation()
    for number in range(10):
        for told in (NEW, JOIN, REQUEST, ANSWERED, BLIND):
            translation.lines(
                {**told, "Uniqueid": f"1.{number}", "TransfereeUniqueid": f"2.{number}"}
            )
    assert len(translation._waiting) == len(translation._hung_up) == 3
    assert len(translation._transfers) == 3
    gone = Translation()
    for told in (NEW, JOIN, REQUEST, ABANDON, LEAVE, GONE):
        gone.lines(told)
    assert not gone._waiting and not gone._hung_up


# ------------------------------------------------------------------------------ sessions
SECRET = "wörd"


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange("callhouse", SECRET) as served:
        yield served


def session_of(exchange: Exchange, user: str = "callhouse", secret: str = SECRET) -> Session:
    return Session(Address(user, "127.0.0.1", exchange.port, is_encrypted=False), secret)


def heard(session: Session, count: int) -> list[bytes]:
    found: list[bytes] = []
    until = time.monotonic() + 10
    while len(found) < count and time.monotonic() < until:
        found += session.heard()
    return found


def test_a_session_hears_what_comes_in_pieces(exchange: Exchange) -> None:
    session = session_of(exchange)
    whole = b"".join(message(told) for told in (NEW, JOIN, REQUEST, ABANDON, LEAVE, GONE))
    until = time.monotonic() + 10
    while not exchange.listeners and time.monotonic() < until:
        time.sleep(0.01)
    for start in range(0, len(whole), 97):  # within names, values and line ends
        exchange.send(whole[start : start + 97])
        time.sleep(0.001)
    found = heard(session, 2)
    assert found == [ENTRY.encode(), f"1796000021|{CALL}|sales|NONE|ABANDON|1|2|20".encode()]
    # What ends within an event is none: half of it says nothing.
    exchange.send(message(JOIN)[:-9])
    exchange.hang_up()
    with pytest.raises(CallhouseError, match="has ended the connection"):
        heard(session, 1)
    assert session.rest() == []
    session.close()


def test_bytes_stay_as_they_are(exchange: Exchange) -> None:
    session = session_of(exchange)
    time.sleep(0.1)
    told = event("QueueMemberPause", 1796000000.0, MEMBER, "Paused: 1\n")
    exchange.send(message(told)[:-2] + b"Reason: caf\xc3\xa9 \xff\r\n\r\n")
    assert heard(session, 1) == [b"1796000000|NONE|sales|Agent/1001|PAUSE|caf\xc3\xa9 \xff"]
    session.close()


@pytest.mark.parametrize(("user", "secret"), [("callhouse", "wrong"), ("nobody", SECRET)])
def test_a_login_that_is_refused(exchange: Exchange, user: str, secret: str) -> None:
    with pytest.raises(CallhouseError) as problem:
        session_of(exchange, user, secret)
    assert f"refuses the user {user} (Authentication failed): check its password" in str(
        problem.value
    )
    assert secret not in str(problem.value)
    assert exchange.listeners == 0


@contextlib.contextmanager
def somebody(said: bytes) -> Iterator[Address]:
    """Who answers everything with the same words, and then says nothing more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as found:
            found.sendall(said)
            with contextlib.suppress(ConnectionError):
                while found.recv(1024):
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield Address("callhouse", "127.0.0.1", listener.getsockname()[1], is_encrypted=False)
    listener.close()
    thread.join(5)


def test_who_is_no_exchange_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        somebody(b"HTTP/1.1 400 Bad Request\r\n\r\n") as where,
        pytest.raises(CallhouseError, match="is no manager interface: check the address"),
    ):
        Session(where, SECRET)
    monkeypatch.setattr(manager, "CONNECT_SECONDS", 0.2)
    with somebody(b"Asterisk") as where, pytest.raises(CallhouseError, match="does not answer"):
        Session(where, SECRET)
    # Encryption is not left out where the other side does not know it.
    with somebody(b"Asterisk Call Manager/9.0.0\r\n") as where, pytest.raises(ssl.SSLError):
        Session(Address(where.user, where.host, where.port, is_encrypted=True), SECRET)


WELCOME = b"".join(
    [
        b"Asterisk Call Manager/9.0.0\r\n",
        b"Response: Success\r\nChallenge: 1\r\n\r\n",
        b"Response: Success\r\nMessage: Authentication accepted\r\n\r\n",
        b"Event: FullyBooted\r\nPrivilege: system,all\r\nStatus: Fully Booted\r\n\r\n",
    ]
)


def test_what_comes_with_the_login_is_heard() -> None:
    with somebody(WELCOME + message(NEW) + message(JOIN)) as where:
        session = Session(where, SECRET)
        assert list(session.heard()) == [ENTRY.encode()]
        session.close()


def test_who_says_nothing_is_asked_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(manager, "GONE_SECONDS", 1.0)
    monkeypatch.setattr(manager, "WAIT_SECONDS", 0.05)
    with somebody(WELCOME) as where:
        session = Session(where, SECRET)
        with pytest.raises(CallhouseError, match="has not answered for 1 s"):
            heard(session, 1)
        session.close()
    with Exchange("callhouse", SECRET) as exchange:  # who answers stays
        session = session_of(exchange)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert list(session.heard()) == []
        session.close()


def test_what_never_ends_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "LONGEST_MESSAGE", 10_000)
    with somebody(WELCOME + b"x" * 30_000) as where:
        session = Session(where, SECRET)
        with pytest.raises(CallhouseError, match="sends what are no events"):
            heard(session, 1)
        session.close()


# ------------------------------------------------------------------------------ feeds
@pytest.fixture
def settings(tmp_path: object) -> Settings:
    found = settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})
    found.feeds_directory.mkdir(parents=True)
    return found


def declared(settings: Settings, name: str, said: str) -> None:
    text = f"feed: {name}\nvendor: asterisk\ncountry: CN\n{said}\n"
    (settings.feeds_directory / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_an_exchange_that_is_listened_to(settings: Settings) -> None:
    declared(settings, "floor", "location: ami://callhouse@pbx.example:5038\nmarts: false")
    feed = registry.feed(settings, "floor")
    assert registry.listens(feed) == "ami://callhouse@pbx.example:5038"
    assert registry.locations(feed) == []  # no place where files lie
    assert manager.address("amis://callhouse@pbx.example") == Address(
        "callhouse", "pbx.example", 5039, is_encrypted=True
    )
    with pytest.raises(CallhouseError, match="listens to the manager interface, and each call wo"):
        feed.record_for("queue_log.1")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("location: ami://pbx.example\nmarts: false", "write ami://user@host:5038"),
        ("location: ami://u:word@pbx.example\nmarts: false", "its password is a secret of its own"),
        ("location: ami://u@pbx.example", "marts: write `true` where its queue log comes by no"),
        ("location: ami://u@pbx\nmarts: false\ntail: /var/log/asterisk/queue_log",
         "tail: brings what `location` tells a second time"),
        ("location: ami://u@pbx\nmarts: false\nreceive: signed", "receive: brings what `location`"),
        ("location: ami://u@pbx\nmarts: false\nfiles: q*", "files: unknown key"),
        ("location: ami://u@pbx\nmarts: false\nrecords: cdr", "only for a feed of queue logs"),
        ("location: ami://u@pbx\nmarts: false\nexchange: nowhere", "'nowhere' is no feed of its"),
    ],
)  # fmt: skip
def test_a_feed_that_cannot_listen_so(settings: Settings, said: str, sentence: str) -> None:
    declared(settings, "floor", said)
    with pytest.raises(CallhouseError, match=r"floor\.yaml: ") as problem:
        registry.feed(settings, "floor")
    assert sentence in str(problem.value)


def test_one_exchange_is_counted_once(settings: Settings) -> None:
    """Its queue log in one feed and its events in another would both be calls of the marts."""
    twice = r"floor\.yaml: marts: feed log brings the calls of this exchange as well, and each"
    at = "location: ami://callhouse@pbx.example"
    table = "location: mysql://reader@pbx.example:3306/asterisk/queue_log"
    for log, marts in (("tail: /var/log/asterisk/queue_log", "exchange: log\n"), (table, "")):
        declared(settings, "log", log)
        declared(settings, "floor", f"{at}\n{marts}marts: true")
        with pytest.raises(CallhouseError, match=twice):
            registry.feed(settings, "floor")
        assert registry.feed(settings, "log")  # the log goes on
        declared(settings, "floor", f"{at}\n{marts}marts: false")
        assert registry.listens(registry.feed(settings, "floor"))
        declared(settings, "floor", f"{at}\n{marts}marts: true")
        declared(settings, "log", f"{log}\nmarts: false")
        assert registry.listens(registry.feed(settings, "floor"))
    # Another exchange is nobody's double.
    declared(settings, "log", table.replace("pbx", "other"))
    assert registry.listens(registry.feed(settings, "floor"))
