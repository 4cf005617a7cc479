"""Fixtures: settings in a throwaway home, and a throwaway PostgreSQL server."""

from __future__ import annotations

import os
import random
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from callhouse import settings as settings_module
from callhouse import warehouse
from callhouse.errors import CallhouseError
from callhouse.live.listener import Listener
from callhouse.runner import postgres
from callhouse.settings import Settings

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "anonymous_bank"


# Below the ports that systems give to outgoing connections: one of those may be taken between the
# probe and the server's start. For the same reason processes that test side by side have their own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
TEST_PORTS = range(20_000 + 100 * WORKER, 32_000, 100 * WORKERS)
# A base's own port; PostgreSQL, Airflow, Superset and the receiver of an instance.
PORT_OFFSETS = (0, 32, 80, 88, 90)
PORT_BASES = cycle(random.sample(TEST_PORTS, len(TEST_PORTS)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """How large the simulated centres of comparisons with their truth are, and how long to try."""
    parser.addoption(
        "--calls-per-day", type=int, dest="calls_per_day",
        help="simulated calls a day where marts are compared with the truth (else a few hundred)",
    )  # fmt: skip
    parser.addoption(
        "--examples", type=int,
        help="examples of each property of landing and marts (else a few)",
    )  # fmt: skip
    parser.addoption(
        "--every-board", action="store_true", dest="every_board",
        help="draw each board in each language for people of each kind (else for one of them)",
    )  # fmt: skip
    parser.addoption(
        "--fault-runs", type=int, dest="fault_runs", default=0,
        help="the long form of the fault suite, with as many random runs (else its short form)",
    )  # fmt: skip
    parser.addoption(
        "--fault-seed", type=int, dest="fault_seed", default=1,
        help="what the fault suite draws from: the same seed, the same faults",
    )  # fmt: skip


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, so that what fails can be repeated."""
    return f"faults: --fault-seed {config.getoption('fault_seed')}"


class ByServer(LoadScopeScheduling):  # type: ignore[misc]  # has no types
    """A module stays in one process, with its server; all of e2e share one running product."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0]
        return "e2e" if "e2e" in Path(file).parts else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServer:
    """Which tests go to which process."""
    return ByServer(config, log)


def free_port_base() -> int:
    """A port base on whose ports nothing listens now, and that was given to nobody for long.

    Two that are asked for one after the other, before anything listens, are never the same.
    """
    for base in islice(PORT_BASES, len(TEST_PORTS)):
        try:
            for offset in PORT_OFFSETS:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    pytest.fail(f"no free ports between {TEST_PORTS.start} and {TEST_PORTS.stop}")


@pytest.fixture(scope="session")
def new_port_base() -> Callable[[], int]:
    """`free_port_base`, for fixtures of every scope."""
    return free_port_base


@pytest.fixture(scope="session")
def bank_data() -> Path:
    """The AnonymousBank months, which the project may use but not carry."""
    if not SHARED_DATA.exists():
        pytest.skip("AnonymousBank files are not here (../shared/data)")
    return SHARED_DATA


def settings_in(home: Path) -> Settings:
    """Settings of a throwaway instance."""
    environment = {
        "PATH": os.environ["PATH"],
        "CALLHOUSE_HOME": str(home),
        "CALLHOUSE_POSTGRES": os.environ.get("CALLHOUSE_POSTGRES", "auto"),
    }
    loaded = settings_module.load(environment)
    return replace(loaded, postgres_host="127.0.0.1", postgres_external_port=free_port_base())


@contextmanager
def running_server(settings: Settings) -> Iterator[postgres.Cluster]:
    """A running, empty server with the warehouse's roles and databases."""
    server = postgres.embedded_cluster(settings)
    server.initialise()
    server.start()
    try:
        superuser = (
            f"host=127.0.0.1 port={settings.postgres_port} user=postgres password={server.password}"
        )
        warehouse.bootstrap(settings, superuser)
        yield server
    finally:
        server.stop("immediate")
        # Below a private folder it lies outside the test's own, where nothing would remove it.
        shutil.rmtree(server.data_directory)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the module's instance; its server is started by `cluster`."""
    return settings_in(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def cluster(settings: Settings) -> Iterator[postgres.Cluster]:
    """The module's own server: what another module left would be in its numbers."""
    with running_server(settings) as server:
        yield server


@pytest.fixture
def connection(settings: Settings, cluster: postgres.Cluster) -> Iterator[psycopg.Connection]:
    """A pipeline connection to the throwaway warehouse."""
    with warehouse.connect(settings) as opened:
        yield opened


def look_until(listener: Listener, is_done: Callable[[], bool]) -> None:
    """As the collector does, which goes on when something is away, for a minute at most."""
    until = time.monotonic() + 60
    while True:
        with suppress(CallhouseError):
            while listener.look():
                pass
        if is_done():
            return
        assert time.monotonic() < until, listener._problem
        time.sleep(0.02)


Contents = dict[str, tuple[Any, ...]]


def empty_warehouse(settings: Settings) -> None:
    """Nothing landed, nothing published and no run recorded; what is registered stays."""
    with warehouse.connect(settings) as connection:
        connection.execute("set role callhouse_owner")
        tables = connection.execute(
            "select oid::regclass::text from pg_class where not relispartition"
            " and relkind in ('r', 'p') and (relnamespace = 'staging'::regnamespace"
            " or relnamespace = 'marts'::regnamespace and relname in (select relation"
            " from ops.marts))"
        ).fetchall()
        names = [*(name for (name,) in tables), "pii.callers", "ops.units", "ops.published_days",
                 "ops.source_horizons", "ops.dirty_marks", "ops.restatements",
                 "ops.retention_runs"]  # fmt: skip
        connection.execute(f"truncate {', '.join(names)} cascade".encode())
        connection.execute("update ops.sources set newest_event_at = null")


def published_contents(settings: Settings) -> Contents:
    """Rows of each published fact and aggregate, and a checksum over all their columns."""
    with warehouse.connect(settings) as connection:
        names = connection.execute("select relation from ops.marts where is_by_day").fetchall()
        return {
            relation: warehouse.one(
                connection,
                sql.SQL(
                    "select count(*), sum(hashtextextended(to_jsonb(t)::text, 0)::numeric)"
                    " from marts.{} as t"
                ).format(sql.Identifier(relation)),
            )
            for (relation,) in names
        }


@dataclass
class MailSink:
    """A mail server that keeps what it is given; addresses in `refuses` it does not take."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    def to(self, address: str) -> list[EmailMessage]:
        """Messages to one address."""
        return [message for message in self.messages if message["To"] == address]

    def environment(self) -> dict[str, str]:
        """The settings by which mails are handed in here."""
        return {
            "CALLHOUSE_SMTP_HOST": "127.0.0.1",
            "CALLHOUSE_SMTP_PORT": str(self.port),
            "CALLHOUSE_SMTP_SECURITY": "none",
            "CALLHOUSE_SMTP_FROM": "reports@callhouse.example",
        }


@pytest.fixture
def mail_sink() -> Iterator[MailSink]:
    """A mail server on a port of its own."""
    sink = MailSink()

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().strip().decode():
                verb = line[:4].upper()
                if verb == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    content = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        content += part.removeprefix(b".") if part.startswith(b"..") else part
                    sink.messages.append(message_from_bytes(content, policy=default))
                elif verb == "RCPT" and line.split("<")[1].split(">")[0] in sink.refuses:
                    self.wfile.write(b"550 no such mailbox\r\n")
                    continue
                self.wfile.write(b"221 bye\r\n" if verb == "QUIT" else b"250 well\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        sink.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield sink
        server.shutdown()
        thread.join()
