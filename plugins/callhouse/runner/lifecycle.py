"""Up, down, status: from an empty folder to a healthy instance, and back."""

from __future__ import annotations

import fcntl
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from callhouse.errors import CallhouseError
from callhouse.runner import components, health, postgres, preparation, processes, supervision
from callhouse.settings import Settings

Report = Callable[[str], None]

# Twenty times what an idle machine needs: a busy one must not fail for being busy.
HEALTH_TIMEOUT = 480.0
# A component that dies this often while `up` waits will not become healthy by waiting.
MOST_LIVES = 5


@dataclass(frozen=True)
class ComponentStatus:
    """Health of one component; `detail` is a word for people, "stopped" when it does not run."""

    name: str
    healthy: bool
    detail: str


@dataclass(frozen=True)
class Status:
    """An instance at a glance. `addresses` maps a product to its URL or host:port."""

    components: tuple[ComponentStatus, ...]
    addresses: dict[str, str]
    time_zone: str

    @property
    def healthy(self) -> bool:
        """Whether every component is."""
        return all(component.healthy for component in self.components)

    @property
    def running(self) -> bool:
        """Whether anything is."""
        return any(component.detail != "stopped" for component in self.components)


# ------------------------------------------------------------------------------------- status


def status(settings: Settings) -> Status:
    """Ask every component, all at once."""
    supervisor = supervision.Supervisor(settings)
    supervised = supervisor.processes()
    with ThreadPoolExecutor(3) as pool:
        airflow = pool.submit(health.airflow_report, settings)
        superset = pool.submit(health.superset_answers, settings)
        database = pool.submit(_database_answers, settings)
    found = [
        _judge(
            settings,
            supervised.get(name),
            name,
            airflow=airflow.result(),
            superset=superset.result(),
            database=database.result(),
        )
        for name in supervision.names(settings)
    ]
    if settings.postgres_host:
        state = "running" if database.result() else "does not answer"
        found.insert(0, ComponentStatus("postgres", database.result(), state))
    return Status(tuple(found), addresses(settings), settings.time_zone)


def addresses(settings: Settings) -> dict[str, str]:
    """Where people find the products."""
    found = {
        "superset": f"http://127.0.0.1:{settings.superset_port}",
        "airflow": f"http://127.0.0.1:{settings.airflow_port}",
        "postgres": f"{settings.database_host}:{settings.postgres_port}",
    }
    if components.RECEIVER.name in supervision.products(settings):
        found["receiver"] = f"http://127.0.0.1:{settings.receiver_port}/v1/events/"
    return found


def _judge(
    settings: Settings,
    process: supervision.Process | None,
    name: str,
    *,
    airflow: dict[str, Any] | None,
    superset: bool,
    database: bool,
) -> ComponentStatus:
    if process is None or process.state in ("STOPPED", "STOPPING"):
        return ComponentStatus(name, False, "stopped")
    if process.state != supervision.RUNNING:
        return ComponentStatus(name, False, "starting" if process.state != "FATAL" else "failed")
    if name == "postgres":
        well = database
    elif name == "airflow-api-server":
        well = airflow is not None
    elif name in health.HEARTBEATS:
        well = health.heartbeat_after(airflow, name, process.started)
    elif name == "superset-web":
        well = superset
    elif name == "notifier":
        well = health.notifier_works(settings, process.started)
    elif name == components.RECEIVER.name:
        well = health.receiver_answers(settings)
    elif name in (components.COLLECTOR.name, components.EXCHANGE.name):
        well = True  # whether it gets on, capture health judges by its heartbeats
    else:
        well = health.celery_ready(settings, name, process.started)
    return ComponentStatus(name, well, "running" if well else "starting")


def _database_answers(settings: Settings) -> bool:
    try:
        # The login that a fresh cluster has, too; on an external server only the socket is asked.
        if settings.postgres_host:
            return health.accepts(settings.database_host, settings.postgres_port)
        with psycopg.connect(settings.dsn("postgres", "postgres"), connect_timeout=3) as asked:
            asked.execute("select 1")
        return True
    except psycopg.Error:
        return False


# ----------------------------------------------------------------------------------------- up


def up(settings: Settings, report: Report) -> None:
    """Idempotent: nothing to do costs a second; what is missing or dead is started."""
    began = time.monotonic()
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one(settings, report):
        now = status(settings)
        if now.healthy:
            report("Callhouse is up: every component is healthy.")
            return
        supervisor = _supervisor(settings, report)
        _start_postgres(settings, supervisor, report)
        with _step(report, "warehouse roles and schemas"):
            preparation.bootstrap_warehouse(settings)
        _prepare_products(settings, report)
        for name in supervision.products(settings):
            supervisor.start(name)
        _wait_until_healthy(settings, report)
        report(f"up after {time.monotonic() - began:.0f} s")


@contextmanager
def _only_one(settings: Settings, report: Report) -> Iterator[None]:
    """Two `up` or `down` at once would undo each other's work."""
    settings.run_directory.mkdir(parents=True, exist_ok=True)
    with (settings.run_directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another up or down of this instance to finish")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _step(report: Report, name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    report(f"{name}: {time.monotonic() - began:.1f} s")


def _supervisor(settings: Settings, report: Report) -> supervision.Supervisor:
    supervisor = supervision.Supervisor(settings)
    if supervisor.answers():
        return supervisor
    if leftovers := processes.of_instance(settings):
        report(f"ending {len(leftovers)} processes that have lost their supervisor")
        processes.end(leftovers)
    _check_ports(settings)
    supervision.start(settings)
    return supervisor


def ports(settings: Settings) -> dict[str, int]:
    """The ports that this instance itself listens on."""
    products = {"Airflow": settings.airflow_port, "Superset": settings.superset_port}
    if components.RECEIVER.name in supervision.products(settings):
        products["the receiver"] = settings.receiver_port
    if settings.postgres_host:
        return products
    return {"PostgreSQL": settings.postgres_port, **products}


def port_problem(settings: Settings, product: str, port: int) -> str:
    """Why nothing can listen there now; empty if something can."""
    with socket.socket() as probe:
        # A connection of the instance before may still be fading.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1" if product == "PostgreSQL" else settings.host, port))
        except OSError as error:
            return error.strerror or "taken"
    return ""


def _check_ports(settings: Settings) -> None:
    for product, port in ports(settings).items():
        if reason := port_problem(settings, product, port):
            raise CallhouseError(
                f"port {port}, which {product} needs, cannot be used ({reason}): end the program "
                "that has it, or choose other ports with CALLHOUSE_PORT_BASE "
                f"(now {settings.port_base})"
            )


def _start_postgres(settings: Settings, supervisor: supervision.Supervisor, report: Report) -> None:
    if settings.postgres_host:
        if not _database_answers(settings):
            raise CallhouseError(
                f"no PostgreSQL answers at {settings.postgres_host}:{settings.postgres_port}: "
                "check CALLHOUSE_POSTGRES_HOST and CALLHOUSE_POSTGRES_PORT"
            )
        return
    with _step(report, "PostgreSQL"):
        cluster = postgres.embedded_cluster(settings)
        if supervisor.processes()["postgres"].state not in (supervision.RUNNING, "STARTING"):
            cluster.initialise()
            supervisor.start("postgres")
        deadline = time.monotonic() + 60
        while not _database_answers(settings):
            if time.monotonic() > deadline:
                tail = log_tail(settings, "postgres")
                raise CallhouseError(f"PostgreSQL does not answer:\n{tail}")
            time.sleep(0.1)


def _prepare_products(settings: Settings, report: Report) -> None:
    running = [
        preparation.start(settings, product)
        for product in ("airflow", "superset")
        if not preparation.is_prepared(settings, product)
    ]
    if running:
        report("preparing " + " and ".join(p.product for p in running) + " (once per version)")
    try:
        for each in running:
            seconds = preparation.finish(each)
            preparation.mark_prepared(settings, each.product)
            report(f"{each.product} metadata: {seconds:.1f} s")
    finally:
        for each in running:
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()


def _wait_until_healthy(settings: Settings, report: Report) -> None:
    began = time.monotonic()
    done: set[str] = set()
    lives: dict[str, set[int]] = {}
    while True:
        now = status(settings)
        for process in supervision.Supervisor(settings).processes().values():
            if process.pid:
                lives.setdefault(process.name, set()).add(process.pid)
        for component in now.components:
            if component.healthy and component.name not in done:
                done.add(component.name)
                report(f"{component.name}: healthy after {time.monotonic() - began:.1f} s")
        if now.healthy:
            return
        missing = [c.name for c in now.components if not c.healthy]
        for name in missing:
            if len(lives.get(name, ())) > MOST_LIVES:
                raise CallhouseError(f"{name} ends again and again:\n{log_tail(settings, name)}")
        if time.monotonic() - began > HEALTH_TIMEOUT:
            tails = "\n".join(f"{name}:\n{log_tail(settings, name)}" for name in missing)
            raise CallhouseError(f"not healthy after {HEALTH_TIMEOUT:.0f} s: {tails}")
        time.sleep(0.5)


def log_tail(settings: Settings, name: str, lines: int = 6) -> str:
    """The end of a component's log."""
    file = settings.log_directory / f"{name}.log"
    if not file.exists():
        return f"(no log {file})"
    text = file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(["  " + line for line in text] + [f"  ({file})"])


# --------------------------------------------------------------------------------------- down


def down(settings: Settings, report: Report) -> None:
    """Products first, then the server they write to; then whatever else carries our mark."""
    began = time.monotonic()
    if not settings.home.exists():
        report("Callhouse is not running.")
        return
    with _only_one(settings, report):
        supervisor = supervision.Supervisor(settings)
        found = processes.of_instance(settings)
        if not found:
            report("Callhouse is not running.")
            return
        if supervisor.answers():
            _stop(supervisor, [*components.BY_NAME, *components.OPTIONAL], 15)
            _stop(supervisor, ["postgres"], 40)
            supervisor.shut_down()
            deadline = time.monotonic() + 15
            while processes.of_instance(settings) and time.monotonic() < deadline:
                time.sleep(0.1)
        stubborn = processes.end(processes.of_instance(settings))
        supervision.socket_path(settings).unlink(missing_ok=True)
        if stubborn:
            pids = ", ".join(str(process.pid) for process in stubborn)
            raise CallhouseError(f"these processes do not end: {pids}")
    report(f"down after {time.monotonic() - began:.1f} s")


def _stop(supervisor: supervision.Supervisor, names: list[str], patience: float) -> None:
    deadline = time.monotonic() + patience
    active = [n for n, p in supervisor.processes().items() if n in names and p.pid]
    for name in active:
        supervisor.stop(name)
    while time.monotonic() < deadline:
        current = supervisor.processes()
        if not any(current[n].pid for n in active if n in current):
            return
        time.sleep(0.1)
