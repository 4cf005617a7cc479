"""Free text lands redacted, of every vendor and in every table; and what is kept for how long."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import empty_warehouse, published_contents
from typer.testing import CliRunner

from callhouse import cli, landing, simulate, transform, warehouse
from callhouse.errors import CallhouseError
from callhouse.landing import quarantine, replay
from callhouse.runner import postgres
from callhouse.security import retention
from callhouse.settings import Settings
from callhouse.sources import registry
from callhouse.sources.asterisk.exchange import CDR_LAYOUTS, CEL_LAYOUTS
from callhouse.transform import dbt

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CANARIES = (
    "138 0013 8000", "一三八零零一三八零零零", "１３８００１３８０００", "王小明",
    "li.wei@mail.example", "6222 0212 3456 7890 128", "11010519491231002X",
    "one three eight zero zero one three",
    "1-3800-1380-00",
)  # fmt: skip
SPOKEN = "one three eight zero zero one three eight zero zero zero"
TEXT = (
    "我叫王小明，电话138 0013 8000 或 一三八零零一三八零零零/１３８００１３８０００; "
    f"li.wei@mail.example; 卡6222 0212 3456 7890 128; 11010519491231002X; {SPOKEN}"
)
ODD = "1-3800-1380-00"  # as a code or name of an event
LEFT = (
    "我叫<NAME>，电话<PHONE> 或 <PHONE>/<PHONE>; "
    "<EMAIL>; 卡<CARD>; <ID>; <PHONE>"
)  # fmt: skip
COLUMNS = ("survey", "type", "channel", "score", "comment", "offered")
SHOP = """
feed: shop
vendor: delimited
label: Shop
time_zone: Asia/Shanghai
records:
  - record: surveys
    files: ["surveys*.csv"]
    delimiter: comma
    header: true
    columns:
      survey_id: survey
      survey_type: type
      channel: channel
      score: score
      comment: comment
      offered_at: offered
  - record: agent_states
    files: ["states*.csv"]
    delimiter: comma
    header: true
    columns:
      agent_id: agent
      state: state
      reason: reason
      started_at: started
      ended_at: ended
"""


@pytest.fixture(scope="module")
def ready(settings: Settings, cluster: postgres.Cluster) -> Settings:
    settings.feeds_directory.mkdir(parents=True)
    (settings.feeds_directory / "shop.yaml").write_text(SHOP, encoding="utf-8")
    with warehouse.connect(settings) as connection:
        registry.register(connection)
    return settings


@pytest.fixture(autouse=True)
def empty(ready: Settings) -> None:
    empty_warehouse(ready)
    with warehouse.connect(ready) as connection:
        registry.register(connection, *registry.feeds(ready))


def land(settings: Settings, feed: str, path: Path, quarantined: int = 0) -> int:
    [result] = landing.land(settings, feed, [path])
    assert result.status == "landed", result.reason
    assert result.quarantined == quarantined
    assert result.unit_id is not None
    return result.unit_id


def table(path: Path, *rows: tuple[object, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def surveys(path: Path, *comments: str, offered: str = "2026-03-02 10:00:00") -> Path:
    rows = [(f"{path.stem}-{i}", "csat", "", 5, t, offered) for i, t in enumerate(comments)]
    return table(path, COLUMNS, *rows)


def line(columns: tuple[str, ...], **cells: str) -> str:
    return ",".join('"' + cells.get(name, "").replace('"', '""') + '"' for name in columns)


def everything(settings: Settings) -> str:
    """Every value of every table that landing writes, but for what is encrypted."""
    with warehouse.connect(settings) as connection:
        tables = connection.execute(
            "select oid::regclass::text from pg_class where relkind = 'r' "
            "and relnamespace in ('staging'::regnamespace, 'ops'::regnamespace)"
        ).fetchall()
        assert len(tables) > 20
        return "\n".join(
            str(row[0])
            for (name,) in tables
            for row in connection.execute(f"select to_jsonb(t)::text from {name} as t".encode())
        )


def values(settings: Settings, statement: str) -> list[Any]:
    with warehouse.connect(settings) as connection:
        return [row[0] for row in connection.execute(statement.encode())]


# ------------------------------------------------------------------------------ landing
def delimited(folder: Path) -> dict[str, Path]:
    states = table(
        folder / "states.csv", ("agent", "state", "reason", "started", "ended"),
        ("a1", "pause", TEXT, "2026-03-02 10:00:00", "2026-03-02 10:05:00"),
    )  # fmt: skip
    return {"shop": surveys(folder / "surveys.csv", TEXT, "很好", TEXT), "shop ": states}


def queue_log(folder: Path) -> dict[str, Path]:
    path = folder / "queue_log"
    path.write_text(
        f"1748908800|c1|q|NONE|ENTERQUEUE|http://crm/?name={TEXT}|13800138000|1\n"
        f"1748908801|c1|q|NONE|INFO|{TEXT}|{TEXT}||{TEXT}|{TEXT}\n"
        f"1748908802|c1|q|NONE|DIVERT_VIP|{TEXT}\n"
        f"1748908802|c1|q|NONE|OWN-{ODD}|x\n"
        f"1748908803|NONE|q|a1|PAUSE|{TEXT}\n"
        "1748908804|c1|q|a1|CONNECT|4|1709251200.1|3\n",
        encoding="utf-8",
    )
    return {"asterisk_queue_log": path}


def records(folder: Path) -> dict[str, Path]:
    cdr = line(
        CDR_LAYOUTS[-1], accountcode=TEXT, src="13800138000", dst="600", dcontext="from-trunk",
        channel="PJSIP/trunk-0000000a", lastapp="Background", lastdata=TEXT,
        start="2025-06-03 08:00:00", answer="2025-06-03 08:00:01", end="2025-06-03 08:00:41",
        duration="41", billsec="40", disposition="ANSWERED", amaflags="3", uniqueid="1748908800.10",
        linkedid="1748908800.10", userfield=TEXT, peeraccount=TEXT, sequence="7",
    )  # fmt: skip
    cel = line(
        CEL_LAYOUTS[-1], eventtype="CHAN_START", eventtime="1748908800.000100", exten="s",
        context="from-trunk", channame="PJSIP/trunk-0000000a", appdata=TEXT, accountcode=TEXT,
        uniqueid="1748908800.11", linkedid="1748908800.11", userfield=TEXT,
        extra=json.dumps({"note": TEXT}, ensure_ascii=False), eventextra=TEXT,
    )  # fmt: skip
    paths = {"asterisk_cdr": folder / "Master.csv", "asterisk_cel": folder / "cel.csv"}
    for path, content in zip(paths.values(), (cdr, cel), strict=True):
        path.write_text(content + "\n", encoding="utf-8")
    return paths


def connect(folder: Path) -> dict[str, Path]:
    contact = json.loads((FIXTURES / "amazon_connect" / "contact.json").read_text("utf-8"))
    contact["Attributes"] = {"business_type": TEXT, "priority": SPOKEN, "memo": TEXT, TEXT: "x"}
    contact["Tags"] = {"of": [TEXT, {"deep": TEXT}]}
    event = json.loads((FIXTURES / "amazon_connect" / "agent_event.json").read_text("utf-8"))
    event["Memo"] = {"text": TEXT}
    paths = {}
    for kind, content in (("contacts", contact), ("agent_events", event)):
        path = folder / f"{kind}.json"
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        paths[f"amazon_connect_{kind}"] = path
    return paths


@pytest.mark.parametrize("make", [delimited, queue_log, records, connect])
def test_nothing_personal_lands(ready: Settings, tmp_path: Path, make: Any) -> None:
    for feed, path in make(tmp_path).items():
        assert any(canary in path.read_text("utf-8") for canary in CANARIES)
        land(ready, feed.strip(), path)
    landed = everything(ready)
    assert [canary for canary in CANARIES if canary in landed] == []
    for label in ("<PHONE>", "<NAME>", "<EMAIL>"):
        assert label in landed


def test_the_rest_of_a_text_stays_readable(ready: Settings, tmp_path: Path) -> None:
    for feed, path in (delimited(tmp_path) | queue_log(tmp_path) | connect(tmp_path)).items():
        land(ready, feed.strip(), path)
    comments = "select comment from staging.delimited_surveys order by line_number"
    assert values(ready, comments) == [LEFT, "很好", LEFT]
    assert values(ready, "select reason from staging.delimited_agent_states") == [LEFT]
    [told] = values(ready, "select attributes ->> 'memo' from staging.amazon_connect_contacts")
    assert told.startswith("我叫<NAME>，电话")
    # What is no free text of its event stays, whatever it looks like.
    connected = "select data2 from staging.asterisk_events where event = 'CONNECT'"
    assert values(ready, connected) == ["1709251200.1"]


def test_what_cannot_be_read_is_redacted_too(ready: Settings, tmp_path: Path) -> None:
    path = table(
        tmp_path / "surveys_1.csv", COLUMNS,
        ("s1", "csat", ODD, 5, "很好", "2026-03-02 10:00:00"),
        ("s2", "csat", "", "138 0013 8000", TEXT, "2026-03-02 10:00:00"),
        ("s3", "csat", "", 5, TEXT, "一三八零零一三八零零零"),
    )  # fmt: skip
    unit = land(ready, "shop", path, quarantined=2)
    assert values(ready, "select data_issues[1] from staging.delimited_surveys") == [
        "unknown_code:channel=<PHONE>"
    ]
    landed = everything(ready)
    assert [canary for canary in CANARIES if canary in landed] == []
    shown = quarantine.show(ready, unit)
    assert [row.column for row in shown] == ["score", "offered"]
    assert "<PHONE>" in shown[1].reason
    # The bytes are whole: with a mended mapping they land, redacted.
    mended = SHOP.replace("score: score", "score: {column: score, unreadable: keep}")
    (ready.feeds_directory / "shop.yaml").write_text(mended, encoding="utf-8")
    try:
        [again] = replay.replay(ready, "ann", source="shop")
        assert (again.staged, again.unreadable, again.problem) == (1, 1, None)
    finally:
        (ready.feeds_directory / "shop.yaml").write_text(SHOP, encoding="utf-8")
    assert values(
        ready, "select comment from staging.delimited_surveys where survey_id = 's2'"
    ) == [LEFT]


# ------------------------------------------------------------------------------ retention
def apply(
    settings: Settings, *, days: int = 0, is_dry: bool = False, **kept: int | str
) -> dict[str, int]:
    """What went `days` from now, by class, with days of their own in the instance's file."""
    lines = [f"{name}: {value}\n" for name, value in kept.items()]
    settings.retention_file.write_text("".join(lines) or "{}\n", encoding="utf-8")
    try:
        outcomes = retention.apply(
            settings, "ann", is_dry=is_dry, now=datetime.now(UTC) + timedelta(days=days)
        )
    finally:
        settings.retention_file.unlink()
    assert [outcome.problem for outcome in outcomes if outcome.problem] == []
    return {outcome.name: outcome.removed for outcome in outcomes if outcome.removed}


def age_callers(settings: Settings) -> None:
    """As if every number had been added last week."""
    with warehouse.connect(settings) as connection:
        connection.execute("update pii.callers set added_at = now() - interval '7 days'")


def call(folder: Path, name: str, caller: str, at: datetime) -> Path:
    path = folder / name
    moment = at.timestamp()
    path.write_text(
        f"{moment:.0f}|{name}|q|NONE|ENTERQUEUE||{caller}|1\n"
        f"{moment + 9:.0f}|{name}|q|NONE|ABANDON|1|1|9\n",
        encoding="utf-8",
    )
    return path


def test_a_number_goes_with_the_last_call(ready: Settings, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    for name, caller, days in (
        ("a", "13800138000", 400), ("b", "13800138000", 10), ("c", "13900139000", 400),
    ):  # fmt: skip
        land(ready, "asterisk_queue_log",
             call(tmp_path, name, caller, now - timedelta(days=days)))  # fmt: skip
    tokens = "select caller_token from staging.asterisk_events where call_id = '{}' and data3 = '1'"
    # Of a file that is being landed right now no row is there yet.
    assert apply(ready) == {}
    age_callers(ready)
    assert apply(ready, is_dry=True) == {"callers": 1}
    assert apply(ready) == {"callers": 1}
    assert apply(ready) == {}
    left = values(ready, "select caller_token from pii.callers")
    assert left == values(ready, tokens.format("b"))
    assert values(ready, tokens.format("c")) != []  # the call still has its token
    # Who calls again is known again.
    land(ready, "asterisk_queue_log", call(tmp_path, "d", "13900139000", now))
    assert set(values(ready, "select caller_token from pii.callers")) == {
        *left, *values(ready, tokens.format("c")),
    }  # fmt: skip


def test_callers_wait_for_a_landing(ready: Settings, tmp_path: Path) -> None:
    land(ready, "asterisk_queue_log",
         call(tmp_path, "a", "13800138000", datetime.now(UTC) - timedelta(days=400)))  # fmt: skip
    age_callers(ready)
    with warehouse.connect(ready) as landing_now:
        landing_now.execute(
            "select pg_advisory_xact_lock(hashtextextended('land asterisk_queue_log', 0))"
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGOPTIONS", "-c lock_timeout=300")
            outcomes = retention.apply(ready, "ann")
    problems = [outcome for outcome in outcomes if outcome.problem]
    assert [outcome.name for outcome in problems] == ["callers"]
    assert values(ready, "select class from ops.retention_runs where problem is not null") == [
        "callers"
    ]
    assert apply(ready) == {"callers": 1}


def test_free_text_goes_with_its_day(ready: Settings, tmp_path: Path) -> None:
    comments = "select comment from staging.delimited_surveys order by survey_id, line_number"
    today = datetime.now(UTC)
    old, new = (
        f"{today - timedelta(days=days):%Y-%m-%d} 10:00:00" for days in (400, 100)
    )  # fmt: skip
    land(ready, "shop", surveys(tmp_path / "surveys_a.csv", "old", offered=old))
    land(ready, "shop", surveys(tmp_path / "surveys_b.csv", "new", offered=new))
    assert apply(ready, is_dry=True) == {"free_text": 1}
    assert values(ready, comments) == ["old", "new"]
    assert apply(ready) == {"free_text": 1}
    assert values(ready, comments) == [None, "new"]
    # A file of old days that comes later is seen by the next run, though its days were done.
    land(ready, "shop", surveys(tmp_path / "surveys_c.csv", "late", offered=old))
    assert apply(ready) == {"free_text": 1}
    assert apply(ready, free_text=90) == {"free_text": 1}
    assert values(ready, comments) == [None, None, None]
    # The same file again is still known: its hash is of what it said.
    again = surveys(tmp_path / "surveys_a.csv", "old", offered=old)
    again.write_text(again.read_text() + "surveys_a-9,csat,,4,x,2026-03-02 10:00:00\n")
    [result] = landing.land(ready, "shop", [again])
    assert (result.staged, result.duplicates) == (1, 1)


def test_a_row_in_quarantine_is_emptied_after_its_decision(ready: Settings, tmp_path: Path) -> None:
    path = table(
        tmp_path / "surveys_1.csv", COLUMNS,
        ("s1", "csat", "", 5, "很好", "2026-03-02 10:00:00"),
        ("s2", "csat", "", "x", TEXT, "2026-03-02 10:00:00"),
        ("s3", "csat", "", "y", TEXT, "2026-03-02 10:00:00"),
    )  # fmt: skip
    unit = land(ready, "shop", path, quarantined=2)
    quarantine.discard(ready, unit, 3, "a test", "ann")
    before = quarantine.ledger(ready)
    assert apply(ready, days=29, archive="forever") == {}
    assert apply(ready, days=31, is_dry=True) == {"quarantine": 1}
    assert apply(ready, days=31) == {"quarantine": 1}
    assert apply(ready, days=31) == {}
    with warehouse.connect(ready) as connection:
        rows = connection.execute(
            "select line_number, octet_length(content) > 0, preview <> '' from ops.quarantine "
            "order by line_number"
        ).fetchall()
    assert rows == [(3, False, False), (4, True, True)]  # the other one is still open
    assert quarantine.ledger(ready) == before and before[0].is_balanced
    [replayed] = replay.replay(ready, "ann", source="shop")
    assert (replayed.tried, replayed.unreadable, replayed.problem) == (1, 1, None)


def test_files_go_by_the_time_they_came(ready: Settings) -> None:
    archive = ready.archive / "shop"
    cache = ready.home / "superset" / "cache" / "data"
    for folder in (archive, cache):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (archive / "link").symlink_to(cache / "file")
    assert apply(ready, days=2) == {"superset_cache": 1}
    assert apply(ready, days=179, is_dry=True) == {}
    assert apply(ready, days=181, is_dry=True) == {"archive": 1}
    assert (archive / "file").exists()
    assert apply(ready, days=181) == {"archive": 1}
    assert not (archive / "file").exists()


def test_histories_of_superset_go(ready: Settings) -> None:
    with psycopg.connect(ready.dsn("superset", "superset")) as connection:
        connection.execute("create table query (id int, changed_on timestamp)")
        connection.execute("create table logs (id int, dttm timestamp)")
        connection.execute("create table key_value (id int, expires_on timestamp)")
        for name in ("query", "logs", "key_value"):
            connection.execute(
                f"insert into {name} values (1, now() - interval '100 days'), (2, now()), (3, null)"
                .encode()
            )  # fmt: skip
    try:
        assert apply(ready, is_dry=True) == {"superset_cache": 1, "superset_queries": 1}
        assert apply(ready) == {"superset_cache": 1, "superset_queries": 1}
        assert apply(ready, superset_log=60) == {"superset_log": 1}
        with psycopg.connect(ready.dsn("superset", "superset")) as connection:
            assert connection.execute("select id from logs order by id").fetchall() == [(2,), (3,)]
    finally:
        with psycopg.connect(ready.dsn("superset", "superset")) as connection:
            connection.execute("drop table query, logs, key_value")


def test_days_are_the_file_s(ready: Settings) -> None:
    usual = retention.days_kept(ready)
    assert usual["audit_trail"] is None
    assert all(days for name, days in usual.items() if name != "audit_trail")
    for wrong, why in (
        ("caller: 3", "did you mean 'callers'"), ("callers: never", "nor 'forever'"),
        ("callers: 0", "nor 'forever'"), ("audit_trail: 30", "unknown key"),
    ):  # fmt: skip
        ready.retention_file.write_text(wrong + "\n", encoding="utf-8")
        try:
            with pytest.raises(CallhouseError, match=why):
                retention.apply(ready, "ann")
        finally:
            ready.retention_file.unlink()
    assert values(ready, "select count(*) from ops.retention_runs") == [0]


def test_the_command_tells_and_records(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_settings", lambda: ready)
    told = CliRunner().invoke(cli.app, ["retention", "--dry-run", "--json"])
    assert told.exit_code == 0, told.output
    classes = {item["name"]: item for item in json.loads(told.stdout)["classes"]}
    assert set(classes) == {item.name for item in retention.CLASSES}
    assert values(ready, "select count(*) from ops.retention_runs") == [0]
    shown = CliRunner().invoke(cli.app, ["retention"])
    assert shown.exit_code == 0, shown.output
    assert "forever" in shown.stdout
    recorded = values(ready, "select class from ops.retention_runs order by run_id")
    assert recorded == [item.name for item in retention.CLASSES if item.days]


# ------------------------------------------------------------------------------ metrics
def delivered(settings: Settings, folder: Path) -> dict[Path, str]:
    """Simulated files of every vendor, and the feed that each is of."""
    folders = {"asterisk_queue_log": "queue_log", "asterisk_cdr": "cdr", "asterisk_cel": "cel",
               "sample_hotline": ""}  # fmt: skip
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        below = path.parent.relative_to(folder).as_posix().replace(".", "")
        for feed in (feed.file.stem for feed in registry.feeds(settings)):
            is_connect = feed.startswith("amazon_connect") and path.name.startswith(
                feed.removeprefix("amazon_connect_")
            )
            if is_connect or folders.get(feed) == below:
                found[path] = feed
    return found


@pytest.fixture
def world(ready: Settings, tmp_path: Path) -> Settings:
    """Two days of every vendor, published."""
    transform.prepare(ready, dbt.quiet)
    simulate.write(
        tmp_path, seed=5, start=datetime(2025, 11, 3, tzinfo=UTC).date(), days=2, calls_per_day=40,
        dirt=True, formats=simulate.FORMATS,
    )  # fmt: skip
    for path, feed in delivered(ready, tmp_path).items():
        landing.land(ready, feed, [path])
    assert transform.drain(ready, dbt.quiet).problems == ()
    return ready


def test_no_metric_changes(world: Settings) -> None:
    before = published_contents(world)
    assert before["fct_calls"][0] > 100
    assert before["fct_survey_responses"][0] > 0
    texts = (
        "select count(*) from staging.amazon_connect_contacts where attributes is not null "
        "or other_fields is not null"
    )
    assert values(world, texts)[0] > 20
    age_callers(world)
    with warehouse.connect(world) as connection:
        connection.execute(
            "update ops.quarantine set discarded_at = now(), discarded_by = 'ann', "
            "discard_reason = 'dirt' where line_number % 2 = 0"
        )
    ledgers = quarantine.ledger(world)
    gone = apply(world, days=1000)
    assert {"callers", "free_text", "quarantine"} <= set(gone)
    assert values(world, texts) == [0]
    assert values(world, "select count(*) from pii.callers") == [0]
    assert published_contents(world) == before
    assert quarantine.ledger(world) == ledgers
    # Nor when everything is built anew from what is left.
    with warehouse.connect(world) as connection:
        for lane in ("facts", "followups"):
            connection.execute(
                "insert into ops.dirty_marks (business_day, reason, lane) "
                "select distinct business_day, 'again', %s from ops.unit_days",
                [lane],
            )
    assert transform.drain(world, dbt.quiet).problems == ()
    assert published_contents(world) == before
