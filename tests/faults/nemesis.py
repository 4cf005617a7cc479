"""What breaks things: the product's own commands as processes, and a door to PostgreSQL that kills.

The product has no hook for any of this. Its processes are told the door's port instead of the
server's. The door counts what they say to the server and, at the message it was told, kills the
process that said it, or the connection, before the message is passed on or after it was answered.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from callhouse.settings import REPOSITORY, Settings

# Recovery without a person: the retry of a command must have done its work within this time.
RECOVERY_SECONDS = 300.0
# Before its first typed message a client asks for encryption, and then says who it is.
NEGOTIATIONS = (80877103, 80877104)
# Simple query, execute, rows of a COPY and its end: each is a step of a client's work.
STEPS = (b"Q", b"E", b"d", b"c")

Strike = Callable[[], None]


@dataclass
class Door:
    """A way to the server that counts steps, and strikes at one of them.

    `strike` is called once, at the step number `at` (from 1), or at the first one with `word` in
    it. `after`: not before the server has answered that step. The step itself goes no further,
    but where the client `goes_on`.
    """

    server_port: int
    at: int = 0
    word: bytes = b""
    after: bool = False
    goes_on: bool = False
    strike: Strike | None = None
    steps: int = 0
    struck: bool = False
    port: int = 0
    _is_done: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sockets: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Door:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.struck:
            self._is_done.wait(60)
        # Only shutting down wakes up a thread that waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, as a lost network does; new ones may be made."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except OSError:  # the server is down: the client is told so by a closed door
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets += [client, server]
            awaited = threading.Event()  # the answer to the fatal step has not come yet
            threading.Thread(
                target=self._forth, args=(client, server, awaited), daemon=True
            ).start()
            threading.Thread(target=self._back, args=(server, client, awaited), daemon=True).start()

    def _forth(
        self, client: socket.socket, server: socket.socket, awaited: threading.Event
    ) -> None:
        """Pass on what the client says, message by message."""
        said = client.makefile("rb")
        is_typed = False
        try:
            while True:
                kind = said.read(1) if is_typed else b""
                size = said.read(4)
                if len(size) < 4:
                    break
                body = said.read(struct.unpack(">I", size)[0] - 4)
                if not is_typed:
                    is_typed = struct.unpack(">I", body[:4])[0] not in NEGOTIATIONS
                elif self._is_fatal(kind, body):
                    if self.after:
                        awaited.set()
                    else:
                        self._hit()
                        if not self.goes_on:
                            break
                server.sendall(kind + size + body)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _is_fatal(self, kind: bytes, body: bytes) -> bool:
        with self._lock:
            self.steps += kind in STEPS
            if self.word:
                is_it = kind in (b"Q", b"P") and self.word in body
            else:
                is_it = kind in STEPS and self.steps == self.at
            is_fatal = is_it and not self.struck and self.strike is not None
            self.struck |= is_fatal
            return is_fatal

    def _back(self, server: socket.socket, client: socket.socket, awaited: threading.Event) -> None:
        """Pass on what the server says; what answers the fatal step is the last thing it says."""
        try:
            while heard := server.recv(65536):
                if awaited.is_set():
                    self._hit()
                    break
                client.sendall(heard)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _hit(self) -> None:
        try:
            if self.strike:
                self.strike()
        finally:
            self._is_done.set()


# ------------------------------------------------------------------------------ processes
@dataclass(frozen=True)
class Outcome:
    """How a command ended. A negative code is the signal that killed it."""

    code: int
    output: str
    seconds: float


class Command:
    """`./callhouse …` as a process group of its own, through `port` of a door or the server's."""

    def __init__(
        self, settings: Settings, *arguments: str | Path, port: int | None = None,
        program: Sequence[str] = ("-m", "callhouse"),
    ) -> None:  # fmt: skip
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CALLHOUSE_")},
            **{k: v for k, v in settings.environment.items() if k.startswith("CALLHOUSE_")},
            "CALLHOUSE_HOME": str(settings.home),
            "CALLHOUSE_POSTGRES_HOST": "127.0.0.1",
            "CALLHOUSE_POSTGRES_PORT": str(port or settings.postgres_port),
            "PYTHONPATH": str(REPOSITORY / "plugins"),
        }
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._heard: list[bytes] = []
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.append(line)

    def said(self) -> str:
        """What it has printed so far."""
        return b"".join(self._heard).decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL to the process itself; what it has started lives on, as on a real machine."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def children(self, word: str) -> list[psutil.Process]:
        """Processes that it has started with `word` in their command line."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in found if any(word in part for part in child.cmdline())]
        return []

    def wait_for(self, word: str, timeout: float = RECOVERY_SECONDS) -> None:
        """Until it has printed `word`; fails where it ends before that."""
        until = time.monotonic() + timeout
        while word not in self.said():
            assert self.process.poll() is None, f"ended before {word!r}:\n{self.said()}"
            assert time.monotonic() < until, f"never said {word!r}:\n{self.said()}"
            time.sleep(0.02)

    def end(self, timeout: float = RECOVERY_SECONDS) -> Outcome:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} s:\n{self.said()}") from None
        self._ear.join(10)
        return Outcome(code, self.said(), time.monotonic() - self.started)


def run(settings: Settings, *arguments: str | Path, port: int | None = None) -> Outcome:
    """A command from its beginning to its end."""
    return Command(settings, *arguments, port=port).end()


def strike_at(
    settings: Settings, *arguments: str | Path, at: int = 0, word: bytes = b"",
    after: bool = False, cut: bool = False,
) -> tuple[Outcome, bool]:  # fmt: skip
    """Run a command that is killed, or loses the network (`cut`), at a step; whether it came to it.

    A killed client says no goodbye: the server hears nothing but the end of the connection.
    """
    door = Door(settings.postgres_port, at=at, word=word, after=after)
    born = threading.Event()
    found: list[Command] = []

    def strike() -> None:
        born.wait(10)
        if not cut:
            found[0].kill()
        else:
            door.cut()

    door.strike = strike
    with door:
        found.append(Command(settings, *arguments, port=door.port))
        born.set()
        outcome = found[0].end()
    return outcome, door.struck


@contextlib.contextmanager
def counted(settings: Settings) -> Iterator[Door]:
    """A door that only counts."""
    with Door(settings.postgres_port) as door:
        yield door
