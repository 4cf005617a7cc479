"""The simulated exchange: what it plays is a queue_log as it grows, dated now."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from callhouse.errors import CallhouseError
from callhouse.live import signing
from callhouse.simulate import live, manager
from callhouse.simulate.live import Episode

PLAYED = Episode(seed=3, began_at=1_796_000_000.0, speed=4.0, calls_per_day=200)


def test_an_episode_is_in_order_and_whole() -> None:
    lines = list(PLAYED.lines())
    assert lines == list(PLAYED.lines())
    instants = [instant for instant, _ in lines]
    assert instants == sorted(instants) and instants[0] == PLAYED.began_at
    begun, ended = set(), set()
    for instant, line in lines:
        at, call, _, _, event, *data = line.split("|")
        assert int(at) == int(instant)
        if event in live.BEGINNINGS:
            begun.add(call)
        elif event in ("COMPLETEAGENT", "COMPLETECALLER", "ABANDON"):
            assert call in begun
            ended.add(call)
        elif event == "AGENTLOGOFF":
            assert 0 < int(data[1]) <= instant - PLAYED.began_at + 1
    assert len(ended) > 50


def test_time_that_goes_faster_shortens_what_lasts() -> None:
    def talks(speed: float) -> list[int]:
        episode = Episode(3, PLAYED.began_at, speed, 200)
        found = [line.split("|") for _, line in episode.lines()]
        return [int(fields[6]) for fields in found if fields[4] == "COMPLETECALLER"]

    slow, fast = talks(1.0), talks(4.0)
    assert len(slow) == len(fast) > 20
    assert all(abs(a - 4 * b) <= 2 for a, b in zip(slow, fast, strict=True))


def test_a_player_goes_on_where_the_one_before_was_killed(tmp_path: Path) -> None:
    past = Episode(3, time.time() - 7200, 4.0, 200)
    (tmp_path / "episode.json").write_text(json.dumps(vars(past)), encoding="utf-8")
    due = [line for instant, line in past.lines() if instant <= time.time()]
    half = due[: len(due) // 2]
    log = tmp_path / "queue_log"
    log.write_text("".join(f"{line}\n" for line in half) + due[len(half)][:9], encoding="utf-8")
    stop = threading.Event()
    player = threading.Thread(target=live.play, args=(tmp_path, 1.0, stop, lambda _: None))
    player.start()
    deadline = time.monotonic() + 60
    while log.read_text("utf-8").count("\n") < len(due) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    player.join()
    assert log.read_text("utf-8").splitlines()[: len(due)] == due


class Receiver(BaseHTTPRequestHandler):
    """Takes what is signed, but is away for the first request."""

    taken: ClassVar[list[str]] = []
    refused: ClassVar[list[str]] = []
    answers: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signing.verify("secret", dict(self.headers), body)
        status = self.answers.pop() if self.answers else 200
        (self.taken if status == 200 else self.refused).append(body.decode())
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_lines_are_pushed_until_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Episode(3, time.time() - 7200, 4.0, 200)
    (tmp_path / "episode.json").write_text(json.dumps(vars(past)), encoding="utf-8")
    due = [line for instant, line in past.lines() if instant <= time.time()]
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Receiver, "answers", [503, 429])
    stop, log = threading.Event(), tmp_path / "queue_log"
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/events/floor"
        said: list[str] = []
        push = live.pusher(url, "secret", stop, said.append)
        player = threading.Thread(target=live.play, args=(tmp_path, 1.0, stop, said.append, push))
        player.start()
        deadline = time.monotonic() + 60
        while not log.exists() or log.read_text("utf-8").count("\n") < len(due):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        stop.set()
        player.join()
        assert "".join(Receiver.taken).splitlines()[: len(due)] == due
        assert log.read_text("utf-8").splitlines()[: len(due)] == due
        assert len(Receiver.refused) == 2 and "503" in " ".join(said)
        monkeypatch.setattr(Receiver, "answers", [403])
        stop.clear()
        with pytest.raises(live.PushError, match="403"):
            push("line\n")
        server.shutdown()


def test_lines_are_told_to_who_has_logged_in(tmp_path: Path) -> None:
    """By the manager interface: nothing before somebody listens, then each line that has events."""
    past = Episode(3, time.time() - 7200, 4.0, 200)
    (tmp_path / "episode.json").write_text(json.dumps(vars(past)), encoding="utf-8")
    due = [line for instant, line in past.lines() if instant <= time.time()]
    stop, log, said = threading.Event(), tmp_path / "queue_log", list[str]()
    with manager.Exchange("u", "word") as exchange:
        tell = live.teller(exchange, stop)
        player = threading.Thread(target=live.play, args=(tmp_path, 1.0, stop, said.append, tell))
        player.start()
        time.sleep(0.5)
        assert log.read_text("utf-8") == ""
        with socket.create_connection(("127.0.0.1", exchange.port)) as client:
            client.settimeout(10)
            asked = "Action: Challenge\r\nAuthType: MD5\r\n\r\n"
            client.sendall(asked.encode())
            heard = b""
            while b"Challenge: " not in heard or not heard.endswith(b"\r\n\r\n"):
                heard += client.recv(4096)
            challenge = heard.partition(b"Challenge: ")[2].strip().decode()
            key = hashlib.md5(f"{challenge}word".encode()).hexdigest()
            client.sendall(f"Action: Login\r\nUsername: u\r\nKey: {key}\r\n\r\n".encode())
            entries = sum("|ENTERQUEUE|" in line for line in due)
            heard = b""
            while heard.count(b"Event: QueueCallerJoin\r\n") < entries:
                heard += client.recv(65536)
        stop.set()
        player.join()
    assert entries > 20 and log.read_text("utf-8").splitlines()[: len(due)] == due
    with pytest.raises(CallhouseError, match="can be played, not ami"):
        manager.serving("ami://u@pbx.example", "word")
