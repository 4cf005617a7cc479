"""supervisord for one instance: its configuration, and talking to it."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from callhouse.errors import CallhouseError
from callhouse.runner import components
from callhouse.settings import Settings

# The kernel's limit for a socket path is 107 bytes; supervisord first binds `<path>.<pid>`.
LONGEST_SOCKET = 107 - len(".4194304")
RUNNING = "RUNNING"
# Seconds before SIGKILL. The api-server waits for idle browser connections to close; it has no
# state that could suffer.
PATIENCE = {"postgres": 30, "airflow-api-server": 3, "superset-web": 6}


@dataclass(frozen=True)
class Process:
    """A component as supervisord sees it. `started` is in seconds since the epoch, 0 if not."""

    name: str
    state: str
    pid: int
    started: int
    description: str


def names(settings: Settings) -> list[str]:
    """All components under supervision, in the order in which they start."""
    embedded = [] if settings.postgres_host else ["postgres"]
    return [*embedded, *products(settings)]


def products(settings: Settings) -> list[str]:
    """All but the server."""
    from callhouse.sources import registry  # takes long to import

    feeds = registry.feeds(settings)
    follows = any(registry.tail(feed) or registry.listens(feed) for feed in feeds)
    receives = any(registry.receive(feed) for feed in feeds)
    plays = (settings.feeds_directory / f"{components.SAMPLE_FEED}.yaml").exists()
    return [
        *components.BY_NAME,
        *([components.COLLECTOR.name] if follows else []),
        *([components.RECEIVER.name] if receives else []),
        *([components.EXCHANGE.name] if plays else []),
    ]


def socket_path(settings: Settings) -> Path:
    """Control socket: in the home, or below the system's temporary folder if that is too long."""
    path = settings.run_directory / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET:
        return path
    return Path(tempfile.gettempdir()) / f"callhouse-{components.instance_id(settings)}.sock"


def configuration(settings: Settings) -> str:
    """Text of supervisord.conf. It carries no secret of a component."""
    run, logs = settings.run_directory, settings.log_directory
    user = getpass.getuser()
    lines = [
        "[supervisord]",
        f"logfile={_value(logs / 'supervisord.log')}",
        "logfile_maxbytes=10MB",
        "logfile_backups=2",
        f"pidfile={_value(run / 'supervisord.pid')}",
        f"childlogdir={_value(logs)}",
        f"directory={_value(settings.home)}",
        "strip_ansi=true",
        *([f"user={user}"] if os.geteuid() == 0 else []),
        "",
        "[unix_http_server]",
        f"file={_value(socket_path(settings))}",
        "chmod=0600",
        "username=callhouse",
        f"password={_value(settings.secret('supervisor_password'))}",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for priority, name in enumerate(names(settings)):
        command = shlex.join([sys.executable, "-m", "callhouse.runner", "run", name])
        server = name == "postgres"
        # These end their own children in good order; a signal to all at once breaks it.
        component = components.named(name)
        leads = server or (component is not None and component.kind == "superset")
        lines += [
            "",
            f"[program:{name}]",
            f"command={_value(command)}",
            f"priority={priority}",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000",
            f"stopsignal={'INT' if server else 'TERM'}",
            f"stopasgroup={'false' if leads else 'true'}",
            "killasgroup=true",
            f"stopwaitsecs={PATIENCE.get(name, 10)}",
            f"stdout_logfile={_value(logs / (name + '.log'))}",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
            "redirect_stderr=true",
        ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    return str(value).replace("%", "%%")


def start(settings: Settings) -> None:
    """Start supervisord in the background, with no component yet."""
    for directory in (settings.run_directory, settings.log_directory):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    file = settings.run_directory / "supervisord.conf"
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(configuration(settings))
    socket_path(settings).unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(file)],
        env=components.marked_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if result.returncode:
        raise CallhouseError(f"supervisord did not start: {result.stderr.strip()[-400:]}")
    deadline = time.monotonic() + 15
    while not Supervisor(settings).answers():
        if time.monotonic() > deadline:
            raise CallhouseError(
                f"supervisord does not answer: see {settings.log_directory / 'supervisord.log'}"
            )
        time.sleep(0.1)


class Supervisor:
    """A running supervisord, over its socket."""

    def __init__(self, settings: Settings) -> None:
        self._address = f"unix://{socket_path(settings)}"
        self._password = settings.secret("supervisor_password")

    def answers(self) -> bool:
        """Whether there is a supervisord that works."""
        try:
            state = self._call("getState")
        except OSError:
            return False
        return bool(state["statename"] == RUNNING)

    def processes(self) -> dict[str, Process]:
        """All components by name; empty when no supervisord answers."""
        try:
            found = self._call("getAllProcessInfo")
        except OSError:
            return {}
        return {
            p["name"]: Process(
                p["name"], p["statename"], p["pid"], p["start"] if p["pid"] else 0, p["description"]
            )
            for p in found
        }

    def start(self, name: str) -> None:
        """Start a component without waiting for it."""
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "BAD_NAME" in fault.faultString:
                raise CallhouseError(
                    f"{name} is new here: run `./callhouse down`, then `./callhouse up`"
                ) from None
            if "ALREADY_STARTED" not in fault.faultString:
                raise CallhouseError(f"{name} did not start: {fault.faultString}") from None

    def stop(self, name: str) -> None:
        """Stop a component without waiting for it."""
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise CallhouseError(f"{name} did not stop: {fault.faultString}") from None

    def shut_down(self) -> None:
        """End supervisord and what it still runs."""
        # It may be going already.
        with contextlib.suppress(xmlrpc.client.Fault, OSError):
            self._call("shutdown")

    def _call(self, method: str, *arguments: object) -> Any:
        # A connection per call: the transport does not recover from one that broke.
        transport = SupervisorTransport("callhouse", self._password, self._address)
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except (http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise ConnectionError(str(error)) from None
        finally:
            transport.close()
