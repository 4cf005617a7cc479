"""The realtime table `queue_log` against the files of the same exchange."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from callhouse import landing, simulate, warehouse
from callhouse.errors import CallhouseError
from callhouse.runner import postgres
from callhouse.settings import Settings
from callhouse.sources.asterisk import table

ZONE = zoneinfo.ZoneInfo("Asia/Shanghai")
PASSWORD = "a reader's, of this test"
SHAPES: dict[str, Callable[[int], str]] = {  # type of `time`, how an epoch is written
    "varchar(26)": lambda epoch: datetime.datetime.fromtimestamp(epoch, ZONE).strftime(
        "%Y-%m-%d %H:%M:%S.000000"
    ),
    "timestamptz": lambda epoch: datetime.datetime.fromtimestamp(epoch, ZONE).isoformat(),
    "timestamp": lambda epoch: (
        datetime.datetime.fromtimestamp(epoch, ZONE).replace(tzinfo=None).isoformat()
    ),
    "bigint": str,
    "text": lambda epoch: f"{epoch}.25",
}


@pytest.fixture(scope="module")
def exchange(
    settings: Settings, cluster: postgres.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database beside the warehouse, and the address of a reader whose password is in a file."""
    with psycopg.connect(settings.dsn("postgres"), autocommit=True) as server:
        server.execute(
            sql.SQL("create role exchange_reader login password {}").format(sql.Literal(PASSWORD))
        )
        server.execute("create database exchange")
    file = tmp_path_factory.mktemp("pgpass") / "pgpass"
    file.write_text(f"*:*:exchange:exchange_reader:{PASSWORD}\n")
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", str(file))
        yield (
            f"postgresql://exchange_reader@{settings.database_host}:{settings.postgres_port}"
            "/exchange"
        )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("exchange")
    simulate.write(
        folder, seed=5, start=datetime.date(2026, 10, 26), days=1, calls_per_day=450, dirt=False,
        formats=("queue_log",),
    )  # fmt: skip
    files = sorted((folder / "queue_log").iterdir())
    lines = sorted(
        (line for file in files for line in file.read_text("utf-8").splitlines()),
        key=lambda line: line.split("|")[0],
    )
    assert len(lines) > 1200
    return lines


def at(settings: Settings) -> psycopg.Connection[Any]:
    address = settings.dsn("postgres").replace("dbname=callhouse", "dbname=exchange")
    assert "dbname=exchange" in address
    return psycopg.connect(address, autocommit=True)


def filled(
    settings: Settings, name: str, kind: str, lines: list[str], *, old: bool = False
) -> None:
    columns = ["data"] if old else [f"data{n}" for n in range(1, 6)]
    with at(settings) as own:
        own.execute(f"drop table if exists {name}")
        own.execute(
            f"create table {name} (id bigint generated always as identity, time {kind}, "
            "callid varchar(80), queuename varchar(80), agent varchar(80), event varchar(32), "
            + ", ".join(f"{column} varchar(400)" for column in columns)
            + ")"
        )
        own.execute(f"grant select on {name} to exchange_reader")
        added(own, name, kind, lines, old=old)


def added(
    own: psycopg.Connection[Any], name: str, kind: str, lines: list[str], *, old: bool = False
) -> None:
    columns = ["data"] if old else [f"data{n}" for n in range(1, 6)]
    statement = (
        f"copy {name} (time, callid, queuename, agent, event, {', '.join(columns)}) from stdin"
    )
    with own.cursor().copy(statement) as copy:
        for line in lines:
            epoch, call, queue, agent, event, *data = line.split("|", 4 + len(columns))
            cells = data + [""] * (len(columns) - len(data))
            if old:
                cells = ["|".join(line.split("|")[5:])]
            copy.write_row((SHAPES[kind](int(epoch)), call, queue, agent, event, *cells))


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


def from_files(settings: Settings, tmp_path: Path, name: str, lines: list[str]) -> Path:
    path = tmp_path / "queue_log"
    path.write_text("\n".join(lines) + "\n")
    feed(settings, name)
    (result,) = landing.land(settings, name, [path])
    assert (result.status, result.quarantined) == ("landed", 0)
    return path


@pytest.mark.parametrize("kind", SHAPES)
def test_a_table_tells_what_the_files_tell(
    settings: Settings, exchange: str, log: list[str], tmp_path: Path, kind: str
) -> None:
    name = kind.partition("(")[0]
    from_files(settings, tmp_path, f"files_{name}", log)
    filled(settings, f"log_{name}", kind, log)
    source = feed(settings, f"table_{name}", f"{exchange}/log_{name}")
    results = landing.land_inbox(settings, source)
    assert {result.status for result in results} == {"landed"}
    assert sum(result.read for result in results) == len(log)
    expected = staged(settings, f"files_{name}")
    assert len(expected) > 1200
    assert staged(settings, source) == expected
    # Nothing is new: nothing is fetched.
    assert landing.land_inbox(settings, source) == []


def test_the_older_single_data_column(
    settings: Settings, exchange: str, log: list[str], tmp_path: Path
) -> None:
    from_files(settings, tmp_path, "files_old", log)
    filled(settings, "log_old", "bigint", log, old=True)
    results = landing.land(settings, feed(settings, "table_old"), [f"{exchange}/public.log_old"])
    assert sum(result.staged for result in results) == len(staged(settings, "files_old"))
    assert staged(settings, "table_old") == staged(settings, "files_old")


def test_rows_that_come_late_are_found_and_none_is_doubled(
    settings: Settings, exchange: str, log: list[str], tmp_path: Path
) -> None:
    """Every third row is added later; then the exchange's own file is landed as well."""
    late = log[::3]
    filled(settings, "log_late", "timestamptz", [row for row in log if row not in set(late)])
    source = feed(settings, "table_late", f"{exchange}/log_late")
    landing.land_inbox(settings, source)
    before = len(staged(settings, source))
    with at(settings) as own:
        added(own, "log_late", "timestamptz", late)
    again = landing.land_inbox(settings, source)
    assert sum(result.staged for result in again) == len(staged(settings, source)) - before > 300
    for result in again:
        assert result.read == result.staged + result.duplicates
    path = from_files(settings, tmp_path, "files_late", log)
    assert staged(settings, source) == staged(settings, "files_late")
    (result,) = landing.land(settings, source, [path])
    assert (result.staged, result.duplicates) == (0, len(log))


def test_a_kill_after_landing_stages_nothing_twice(
    settings: Settings, exchange: str, log: list[str]
) -> None:
    filled(settings, "log_kill", "bigint", log)
    source = feed(settings, "table_kill", f"{exchange}/log_kill")
    landing.land_inbox(settings, source)
    before = staged(settings, source)
    with warehouse.connect(settings) as connection:  # the position is kept after the rows
        connection.execute("delete from ops.landed_objects where source = %s", [source])
    again = landing.land_inbox(settings, source)
    assert {result.status for result in again} == {"already_landed"}
    assert staged(settings, source) == before


@pytest.mark.parametrize("kind", ["bigint", "timestamptz", "varchar(26)"])
def test_a_first_look_that_breaks_off_goes_on_where_it_was(
    settings: Settings, exchange: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Thirty days, one row each and one of the year 2099; the server fails at the fifth."""
    name = "gap_" + kind.partition("(")[0]
    start = int(datetime.datetime(2026, 9, 1, 10, 10, tzinfo=ZONE).timestamp())
    lines = [f"{start + day * 86_400}|NONE|q|Agent/1|PAUSE|x" for day in range(30)]
    lines.append("4070908800|NONE|q|Agent/1|PAUSE|x")
    filled(settings, name, kind, lines)
    source = feed(settings, f"table_{name}", f"{exchange}/{name}")
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
    assert sum(result.staged for result in landing.land_inbox(settings, source)) == 26
    assert len(staged(settings, source)) == 30
    # What the year 2099 holds is in quarantine, and hides no row of today.
    assert landing.land_inbox(settings, source) == []
    with at(settings) as own:
        added(own, name, kind, [f"{start + 30 * 86_400}|NONE|q|Agent/1|UNPAUSE|"])
    (result,) = landing.land_inbox(settings, source)
    assert (result.read, result.staged) == (1, 1)


def test_an_hour_at_the_edge_of_the_look_is_not_cut(settings: Settings, exchange: str) -> None:
    start = int(datetime.datetime(2026, 10, 1, 10, 10, tzinfo=ZONE).timestamp())
    lines = [
        f"{start + minute * 60}|NONE|q|Agent/1|PAUSE|{minute}" for minute in range(0, 13_000, 13)
    ]
    filled(settings, "log_edge", "bigint", lines)
    source = feed(settings, "table_edge", f"{exchange}/log_edge")
    landing.land_inbox(settings, source)
    assert len(staged(settings, source)) == len(lines)
    assert landing.land_inbox(settings, source) == []


def test_what_is_no_time_goes_to_quarantine(
    settings: Settings, exchange: str, log: list[str]
) -> None:
    filled(settings, "log_bad", "text", log[:5])
    with at(settings) as own:
        own.execute(
            "insert into log_bad (time, callid, queuename, agent, event) "
            "values ('soon', 'x', 'q', 'NONE', 'DID'), (null, 'x', 'q', 'NONE', 'DID')"
        )
    results = landing.land(settings, feed(settings, "table_bad"), [f"{exchange}/log_bad"])
    assert sum(result.read for result in results) == 7
    assert sum(result.quarantined for result in results) == 2
    with warehouse.connect(settings) as connection:
        codes = connection.execute(
            "select distinct q.reason_code from ops.quarantine as q inner join ops.units as u "
            "on q.unit_id = u.unit_id where u.source = 'table_bad'"
        ).fetchall()
    assert codes == [("unreadable_time",)]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("{exchange}/nowhere", "there is no such table"),
        ("{exchange}/log_secret", "permission denied.*grants"),
        ("{exchange}/log_other", "is no queue_log: column callid is missing"),
        ("{exchange}", "no address of a table"),
        ("postgresql://someone:hidden@127.0.0.1/exchange/log", "may hold no password"),
        ("postgresql://someone@127.0.0.1:1/exchange/log", "cannot be read .*PGPASSFILE"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    settings: Settings, exchange: str, address: str, sentence: str
) -> None:
    with at(settings) as own:
        own.execute("create table if not exists log_other (time text)")
        own.execute("grant select on log_other to exchange_reader")
        own.execute(
            "create table if not exists log_ok "
            "(time text, callid text, queuename text, agent text, event text, data1 text)"
        )
        own.execute("create table if not exists log_secret (like log_ok)")
    source = feed(settings, "table_wrong")
    with pytest.raises(CallhouseError, match=sentence) as error:
        landing.land(settings, source, [address.format(exchange=exchange)])
    assert "hidden" not in str(error.value) and PASSWORD not in str(error.value)
