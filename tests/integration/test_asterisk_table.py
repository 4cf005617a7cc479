"""The realtime table `queue_log` against the files of the same exchange."""

from __future__ import annotations

import datetime
import functools
import os
import shutil
import subprocess
import time
import zoneinfo
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from psycopg import sql

from callhouse import landing, simulate, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources.asterisk import dialects, table

ZONE = zoneinfo.ZoneInfo("Asia/Shanghai")
PASSWORD = "a reader's, of this #test"
NAMES = ("time", "callid", "queuename", "agent", "event")


def local(epoch: int, form: str = "%Y-%m-%d %H:%M:%S.000000") -> str:
    return datetime.datetime.fromtimestamp(epoch, ZONE).strftime(form)


# For each server the types of `time`, and how an epoch is written.
SHAPES: dict[str, dict[str, Callable[[int], str]]] = {
    "postgresql": {
        "varchar(26)": local,
        "timestamptz": lambda epoch: datetime.datetime.fromtimestamp(epoch, ZONE).isoformat(),
        "timestamp": local,
        "bigint": str,
        "text": lambda epoch: f"{epoch}.25",
    },
    "mysql": {
        # Which a server may pad with blanks.
        "char(26)": lambda epoch: str(epoch) if epoch % 2 else f"{epoch}.25",
        "datetime(6)": local,
        # Written in the session's zone, which is not the feed's and not the server's.
        "timestamp(6)": lambda epoch: datetime.datetime.fromtimestamp(
            epoch, datetime.UTC
        ).isoformat(" ").partition("+")[0],
        "bigint": str,
        "varchar(26)": local,
    },
}  # fmt: skip
KINDS = [(server, kind) for server, kinds in SHAPES.items() for kind in kinds]
INSTANT = {"postgresql": "timestamptz", "mysql": "timestamp(6)"}

# What the servers themselves say of what is wrong.
SAID = {
    "postgresql": {
        "grants": "permission denied", "login": "password", "database": "does not exist",
        "host": "nowhere.invalid", "nowhere": "there is no such table", "of_all": "{exchange}",
    },
    "mysql": {
        "grants": "denied", "login": "Access denied", "database": "Access denied",
        "host": "nowhere.invalid", "nowhere": "denied.*check the address", "of_all": "{database}",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """A server with an empty database, and the address of a reader whose password is in a file."""

    server: str
    address: str
    connected: Callable[[], Any]
    number: str  # a column that numbers rows

    def run(self, *statements: str) -> None:
        with self.connected() as own:
            for statement in statements:
                own.cursor().execute(statement)

    def fill(self, name: str, kind: str, lines: list[str], *, old: bool = False) -> None:
        data = ["data"] if old else [f"data{n}" for n in range(1, 6)]
        columns = [f"{column} varchar(400)" for column in (*NAMES[1:], *data)]
        self.run(
            f"create table {name} (id {self.number}, time {kind}, {', '.join(columns)})",
            f"grant select on {name} to exchange_reader",
        )
        self.add(name, kind, lines, old=old)

    def add(self, name: str, kind: str, lines: list[str], *, old: bool = False) -> None:
        data = ["data"] if old else [f"data{n}" for n in range(1, 6)]
        rows = []
        for line in lines:
            epoch, *cells = line.split("|", len(NAMES) + len(data) - 1)
            cells += [""] * (len(NAMES) + len(data) - 1 - len(cells))
            rows.append((SHAPES[self.server][kind](int(epoch)), *cells))
        marks = ", ".join(["%s"] * (len(NAMES) + len(data)))
        with self.connected() as own:
            own.cursor().executemany(
                f"insert into {name} ({', '.join((*NAMES, *data))}) values ({marks})", rows
            )


@pytest.fixture(scope="module")
def option_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of the account that runs Callhouse, where the servers' own clients look."""
    folder = tmp_path_factory.mktemp("account")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("PGPASSFILE", str(folder / ".pgpass"))
        yield folder


@pytest.fixture(scope="module")
def exchanges(
    settings: Settings, cluster: postgres.Cluster, option_folder: Path,
    tmp_path_factory: pytest.TempPathFactory, new_port_base: Callable[[], int],
) -> Iterator[Callable[[str], Exchange]]:  # fmt: skip
    """The warehouse's own server, or MariaDB where that is installed: started when asked for."""
    with ExitStack() as running:

        @functools.cache
        def started(server: str) -> Exchange:
            if server == "postgresql":
                return in_postgresql(settings, option_folder)
            return running.enter_context(
                in_mysql(tmp_path_factory.mktemp("mysql"), new_port_base(), option_folder)
            )

        yield started


@pytest.fixture(params=list(SHAPES))
def exchange(request: pytest.FixtureRequest, exchanges: Callable[[str], Exchange]) -> Exchange:
    return exchanges(request.param)


def in_postgresql(settings: Settings, option_folder: Path) -> Exchange:
    with psycopg.connect(settings.dsn("postgres"), autocommit=True) as server:
        server.execute(
            sql.SQL("create role exchange_reader login password {}").format(sql.Literal(PASSWORD))
        )
        server.execute("create database exchange")
    (option_folder / ".pgpass").write_text(f"*:*:*:exchange_reader:{PASSWORD}\n")
    (option_folder / ".pgpass").chmod(0o600)
    own = settings.dsn("postgres").replace("dbname=callhouse", "dbname=exchange")
    assert "dbname=exchange" in own
    port = settings.postgres_port
    return Exchange(
        "postgresql",
        f"postgresql://exchange_reader@{settings.database_host}:{port}/exchange",
        lambda: psycopg.connect(own, autocommit=True),
        "bigint generated always as identity",
    )


@contextmanager
def in_mysql(folder: Path, port: int, option_folder: Path) -> Iterator[Exchange]:
    path = f"{os.environ['PATH']}:/usr/sbin"
    server, install = (shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db"))
    if not server or not install or not shutil.which("my_print_defaults", path=path):
        pytest.skip("no MariaDB here: apt-get install mariadb-server-core mariadb-client-core")
    data = folder / "data"
    common = [f"--datadir={data}", "--innodb-log-file-size=4M"]
    if os.geteuid() == 0:
        common.append("--user=root")  # which it refuses to be unless it is told
    subprocess.run(
        [install, "--no-defaults", *common, "--auth-root-authentication-method=normal",
         "--skip-test-db", "--skip-name-resolve"],
        check=True, capture_output=True,
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [server, "--no-defaults", *common, f"--port={port}", "--bind-address=127.0.0.1",
             f"--socket={data}/socket", f"--pid-file={data}/pid", "--skip-name-resolve",
             # What a reader may not rely on.
             "--default-time-zone=+05:00", "--character-set-server=latin1",
             "--sql-mode=ANSI,PAD_CHAR_TO_FULL_LENGTH", "--transaction-isolation=READ-COMMITTED"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        connected = functools.partial(
            pymysql.connect, unix_socket=f"{data}/socket", user="root", charset="utf8mb4",
            autocommit=True, init_command="set time_zone = '+00:00'",
        )  # fmt: skip
        for _ in range(300):
            try:
                connected().close()
                break
            except pymysql.OperationalError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        with connected() as own:
            own.cursor().execute("create database exchange")
            for reader in ("exchange_reader", "database_reader"):
                own.cursor().execute(f"create user {reader} identified by %s", [PASSWORD])
            own.cursor().execute("grant select on exchange.* to database_reader")
        (option_folder / ".my.cnf").write_text(f'[client]\npassword="{PASSWORD}"\n')
        yield Exchange(
            "mysql",
            f"mysql://exchange_reader@127.0.0.1:{port}/exchange",
            functools.partial(connected, database="exchange"),
            "bigint auto_increment primary key",
        )
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(data)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four busy hours of an exchange, as lines."""
    folder = tmp_path_factory.mktemp("exchange")
    simulate.write(
        folder, seed=5, start=datetime.date(2026, 10, 26), days=1, calls_per_day=900, dirt=False,
        formats=("queue_log",),
    )  # fmt: skip
    files = sorted((folder / "queue_log").iterdir())
    lines = sorted(
        (
            line
            for file in files
            for line in file.read_text("utf-8").splitlines()
            if "10:30" <= local(int(line.split("|")[0]), "%H:%M") < "13:30"
        ),
        key=lambda line: line.split("|")[0],
    )
    assert len(lines) > 500
    return lines


@pytest.fixture(scope="module")
def files(settings: Settings, cluster: postgres.Cluster, log: list[str],
          tmp_path_factory: pytest.TempPathFactory) -> Path:  # fmt: skip
    """The exchange's own file, landed by the feed `files`."""
    path = tmp_path_factory.mktemp("files") / "queue_log"
    path.write_text("\n".join(log) + "\n")
    (result,) = landing.land(settings, feed(settings, "files"), [path])
    assert (result.status, result.quarantined) == ("landed", 0)
    return path


def feed(settings: Settings, name: str, location: str | None = None) -> str:
    settings.feeds_directory.mkdir(parents=True, exist_ok=True)
    (settings.feeds_directory / f"{name}.yaml").write_text(
        f"feed: {name}\nvendor: asterisk\ntime_zone: {ZONE.key}\ncountry: CN\n"
        + (f"location: {location}\n" if location else "")
    )
    return name


def staged(settings: Settings, source: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(
            "select event_at, call_id, reported_call_id, queue_id, agent_id, event, data1, data2, "
            "data3, data4, data5, wait_seconds, ring_seconds, talk_seconds, login_seconds, "
            "wrapup_seconds, caller_token is null, row_hash "
            "from staging.asterisk_events where source = %s order by row_hash",
            [source],
        ).fetchall()


@pytest.mark.parametrize(("exchange", "kind"), KINDS, indirect=["exchange"])
def test_a_table_tells_what_the_files_tell(
    settings: Settings, exchange: Exchange, log: list[str], files: Path, kind: str
) -> None:
    name = f"{exchange.server}_{kind.partition('(')[0]}"
    exchange.fill(name, kind, log)
    source = feed(settings, f"table_{name}", f"{exchange.address}/{name}")
    results = landing.land_inbox(settings, source)
    assert {result.status for result in results} == {"landed"}
    assert sum(result.read for result in results) == len(log)
    assert len(results) > 1 and not [r for r in results if "unreadable" in r.name]
    expected = staged(settings, "files")
    assert len(expected) > 500
    assert staged(settings, source) == expected
    # Nothing is new: nothing is fetched.
    assert landing.land_inbox(settings, source) == []


def test_the_older_single_data_column(
    settings: Settings, exchange: Exchange, log: list[str], files: Path
) -> None:
    exchange.fill("log_old", "bigint", log, old=True)
    schema = {"postgresql": "public", "mysql": "exchange"}[exchange.server]
    source = feed(settings, f"table_old_{exchange.server}")
    results = landing.land(settings, source, [f"{exchange.address}/{schema}.log_old"])
    assert sum(result.staged for result in results) == len(staged(settings, "files"))
    assert staged(settings, source) == staged(settings, "files")


def test_rows_that_come_late_are_found_and_none_is_doubled(
    settings: Settings, exchange: Exchange, log: list[str], files: Path
) -> None:
    """Every third row is added later; then the exchange's own file is landed as well."""
    late, kind = log[::3], INSTANT[exchange.server]
    exchange.fill("log_late", kind, [row for row in log if row not in set(late)])
    source = feed(settings, f"table_late_{exchange.server}", f"{exchange.address}/log_late")
    landing.land_inbox(settings, source)
    before = len(staged(settings, source))
    exchange.add("log_late", kind, late)
    again = landing.land_inbox(settings, source)
    assert sum(result.staged for result in again) == len(staged(settings, source)) - before > 150
    for result in again:
        assert result.read == result.staged + result.duplicates
    assert staged(settings, source) == staged(settings, "files")
    (result,) = landing.land(settings, source, [files])
    assert (result.staged, result.duplicates) == (0, len(log))


def test_a_kill_after_landing_stages_nothing_twice(
    settings: Settings, exchange: Exchange, log: list[str]
) -> None:
    exchange.fill("log_kill", "bigint", log[:300])
    source = feed(settings, f"table_kill_{exchange.server}", f"{exchange.address}/log_kill")
    landing.land_inbox(settings, source)
    before = staged(settings, source)
    with warehouse.connect(settings) as connection:  # the position is kept after the rows
        connection.execute("delete from ops.landed_objects where source = %s", [source])
    again = landing.land_inbox(settings, source)
    assert {result.status for result in again} == {"already_landed"}
    assert staged(settings, source) == before


@pytest.mark.parametrize(
    ("exchange", "kind"),
    [
        ("postgresql", "bigint"),
        ("postgresql", "timestamptz"),
        ("postgresql", "varchar(26)"),
        ("mysql", "bigint"),
        ("mysql", "varchar(26)"),
    ],
    indirect=["exchange"],
)
def test_a_first_look_that_breaks_off_goes_on_where_it_was(
    settings: Settings, exchange: Exchange, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Twelve days, one row each and one of the year 2037; the server fails at the fifth."""
    name = f"gap_{exchange.server}_{kind.partition('(')[0]}"
    start = int(datetime.datetime(2026, 9, 1, 10, 10, tzinfo=ZONE).timestamp())
    lines = [f"{start + day * 86_400}|NONE|q|Agent/1|PAUSE|x" for day in range(12)]
    lines.append("2114352000|NONE|q|Agent/1|PAUSE|x")
    exchange.fill(name, kind, lines)
    source = feed(settings, f"table_{name}", f"{exchange.address}/{name}")
    fetched, seen = table.Table.fetched, list[str]()

    def failing(self: table.Table, file: Any) -> Any:
        seen.append(file.address)
        if len(seen) == 5:
            raise CallhouseError("the server is gone")
        return fetched(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(table.Table, "fetched", failing)
        with pytest.raises(CallhouseError, match="gone"):
            landing.land_inbox(settings, source)
    assert len(staged(settings, source)) == 4
    assert sum(result.staged for result in landing.land_inbox(settings, source)) == 8
    assert len(staged(settings, source)) == 12
    # What the year 2037 holds is in quarantine, and hides no row of today.
    assert landing.land_inbox(settings, source) == []
    exchange.add(name, kind, [f"{start + 12 * 86_400}|NONE|q|Agent/1|UNPAUSE|"])
    (result,) = landing.land_inbox(settings, source)
    assert (result.read, result.staged) == (1, 1)


def test_an_hour_at_the_edge_of_the_look_is_not_cut(settings: Settings, exchange: Exchange) -> None:
    """Rows around the moment at which a look begins, nine days before the last one."""
    start = int(datetime.datetime(2026, 9, 30, 20, 10, tzinfo=ZONE).timestamp())
    times = [*range(start, start + 100_000, 1_900), start + 9 * 86_400 + 50_000]
    exchange.fill("log_edge", "bigint", [f"{time}|NONE|q|Agent/1|PAUSE|{time}" for time in times])
    source = feed(settings, f"table_edge_{exchange.server}", f"{exchange.address}/log_edge")
    landing.land_inbox(settings, source)
    assert len(staged(settings, source)) == len(times)
    assert landing.land_inbox(settings, source) == []


def test_what_is_no_time_goes_to_quarantine(
    settings: Settings, exchange: Exchange, log: list[str]
) -> None:
    kind = list(SHAPES[exchange.server])[-1]
    times = ("'soon'", "null", "'2026-11/02 10:15:03'", "'2026-11-02 10:75:03'")
    exchange.fill("log_bad", kind, log[:5])
    exchange.run(
        "insert into log_bad (time, callid, queuename, agent, event) values "
        + ", ".join(f"({time}, 'x', 'q', 'NONE', 'DID')" for time in times)
        # A time, but no part of a file's name.
        + ", ('2026-11-02/10:15:03', 'NONE', 'q', 'Agent/1', 'PAUSE')"
    )
    source = feed(settings, f"table_bad_{exchange.server}")
    results = landing.land(settings, source, [f"{exchange.address}/log_bad"])
    assert sum(result.read for result in results) == 6 + len(times)
    assert sum(result.quarantined for result in results) == len(times)
    with warehouse.connect(settings) as connection:
        codes = connection.execute(
            "select distinct q.reason_code from ops.quarantine as q inner join ops.units as u "
            "on q.unit_id = u.unit_id where u.source = %s",
            [source],
        ).fetchall()
    assert codes == [("unreadable_time",)]


@pytest.mark.parametrize("exchange", ["mysql"], indirect=True)
def test_a_table_in_mysql_that_is_as_old_as_its_exchange(
    settings: Settings, exchange: Exchange, tmp_path: Path
) -> None:
    """A character set for each column, bytes that are no text, no numbers, and MyISAM."""
    start = int(datetime.datetime(2026, 11, 2, 10, 10, tzinfo=ZONE).timestamp())
    exchange.run(
        "create table log_ancient (Time char(26) character set ascii, callid varchar(80), "
        "queuename varchar(80) character set gbk, agent varchar(80) character set utf8mb4, "
        "event varchar(32) character set latin1, data varbinary(255)) engine=MyISAM",
        "grant select on log_ancient to exchange_reader",
    )
    written = [
        (start, "1.1", "销售", "王芳😀", "PAUSE", b"caf\xe9|x|"),
        (start + 1, "", "q", "", "é", None),
    ]
    with exchange.connected() as own:
        own.cursor().executemany("insert into log_ancient values (%s, %s, %s, %s, %s, %s)", written)
    reader = table.Table(settings, ZONE.key)
    (hour,) = reader.files(f"{exchange.address}/log_ancient")
    with reader.fetched(hour) as path:
        assert path.read_bytes() == (
            f"{start}|1.1|销售|王芳😀|PAUSE|".encode()
            + b"caf\xe9|x\n"
            + f"{start + 1}||q||é\n".encode()
        )
    assert reader.files(f"{exchange.address}/log_ancient") == [hour]
    exchange.run("update log_ancient set event = 'è' where callid = ''")
    (changed,) = reader.files(f"{exchange.address}/log_ancient")
    assert changed.size_bytes == hour.size_bytes and changed.version != hour.version


@pytest.mark.parametrize("exchange", ["mysql"], indirect=True)
def test_a_look_into_mysql_is_one_moment_and_writes_nothing(
    settings: Settings, exchange: Exchange
) -> None:
    exchange.fill("log_moment", "bigint", ["1793585703|NONE|q|Agent/1|PAUSE|x"])
    exchange.run("grant insert on log_moment to exchange_reader")
    with dialects.MYSQL.connected(settings, exchange.address) as connection:
        exchange.add("log_moment", "bigint", ["1793585704|NONE|q|Agent/1|UNPAUSE|"])
        cursor = connection.cursor()
        cursor.execute("select count(*) from log_moment")
        assert cursor.fetchall() == (("1",),)
        with pytest.raises(pymysql.MySQLError, match="READ ONLY"):
            cursor.execute("insert into log_moment (time) values (1793585705)")


@pytest.mark.parametrize(
    ("exchange", "address", "sentence"),
    [
        (server, address, sentence)
        for server, scheme, file, told in (
            ("postgresql", "postgresql", "PGPASSFILE", SAID["postgresql"]),
            ("mysql", "mariadb", "my.cnf", SAID["mysql"]),
        )
        for address, sentence in (
            # MySQL tells no reader of single tables which others there are.
            ("{exchange}/nowhere", told["nowhere"]),
            (f"{told['of_all']}/nowhere", "there is no such table"),
            ("{exchange}/log_secret", f"{told['grants']}.*grants"),
            ("{exchange}/log_other", "is no queue_log: column callid is missing"),
            ("{exchange}", "no address of a table: write .*user@host/database/table"),
            (f"{scheme}://someone:hidden@127.0.0.1/exchange/log", f"may hold no password.*{file}"),
            (f"{scheme}://someone:hid/den@127.0.0.1/exchange/log", "may hold no password"),
            (f"{scheme}://someone@127.0.0.1:1/exchange/log", f"cannot be read .*{file}"),
            (
                f"{scheme}://someone@nowhere.invalid/exchange/log",
                f"cannot be read .*{told['host']}",
            ),
            ("{stranger}/log_ok", f"cannot be read .*{told['login']}"),
            ("{exchange}_of_another/log_ok", f"cannot be read .*{told['database']}"),
        )
    ],
    indirect=["exchange"],
)
def test_what_cannot_be_read_is_one_sentence(
    settings: Settings, exchange: Exchange, address: str, sentence: str
) -> None:
    columns = ", ".join(f"{name} varchar(26)" for name in (*NAMES, "data"))
    exchange.run(
        "create table if not exists log_other (time varchar(26))",
        f"create table if not exists log_ok ({columns})",
        f"create table if not exists log_secret ({columns})",
        "grant select on log_other to exchange_reader",
        "grant select on log_ok to exchange_reader",
    )
    written = address.format(
        exchange=exchange.address,
        database=exchange.address.replace("exchange_reader", "database_reader"),
        stranger=exchange.address.replace("exchange_reader", "stranger"),
    )
    with pytest.raises(CallhouseError, match=sentence) as error:
        landing.land(settings, feed(settings, "table_wrong"), [written])
    assert "hid" not in str(error.value) and PASSWORD not in str(error.value)
    assert "\n" not in str(error.value)
