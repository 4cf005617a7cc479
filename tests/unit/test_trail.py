"""How lines become entries of the audit trail, what is masked, how entries are hashed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, g, jsonify, redirect, request
from flask_login import LoginManager, UserMixin, login_user

from callhouse import settings as settings_module
from callhouse.bi import superset_trail
from callhouse.security.trail import chain, journal
from callhouse.security.trail.entries import Entry, masked, of_journal, of_server
from callhouse.settings import Settings

SERVICES = frozenset({"callhouse_pipeline", "callhouse_superset", "postgres"})


# What psycopg2 asks for itself.
HSTORE = (
    "SELECT t.oid, typarray\nFROM pg_type t JOIN pg_namespace ns\n"
    "    ON typnamespace = ns.oid\nWHERE typname = 'hstore';\n"
)


# ---------------------------------------------------------------------------- the server's log
def line(message: str, **told: Any) -> bytes:
    return json.dumps(
        {"timestamp": "2026-10-05 01:02:03.500 UTC", "user": "director", "dbname": "callhouse",
         "remote_host": "10.1.2.3", "session_id": "a.1", "error_severity": "LOG",
         "application_name": "DBeaver", "backend_type": "client backend", "message": message,
         **told}
    ).encode()  # fmt: skip


def entry(message: str, **told: Any) -> Entry | None:
    return of_server(line(message, **told), "x.json:0", SERVICES)


def test_a_statement_begins_when_its_duration_says() -> None:
    found = entry("duration: 1500.000 ms  statement: select *\nfrom bi.fct_calls join dim_queue")
    assert found == Entry(
        happened_at="2026-10-05T01:02:02+00:00", origin="postgres", action="query",
        source_position="x.json:0", person="director", address="10.1.2.3", program="DBeaver",
        object_name="dim_queue, fct_calls",
        statement="select *\nfrom bi.fct_calls join dim_queue",
    )  # fmt: skip


@pytest.mark.parametrize(
    "message",
    ["duration: 0.1 ms  parse <unnamed>: select * from bi.fct_calls",
     "duration: 0.1 ms  bind <unnamed>: select * from bi.fct_calls",
     "duration: 0.1 ms  statement: BEGIN",
     "duration: 0.1 ms  statement: set search_path to bi;",
     "duration: 0.1 ms  statement: SELECT 1",
     f"duration: 0.1 ms  statement: {HSTORE}",
     "duration: 6000.1 ms",
     "disconnection: session time: 0:00:01.2 user=director database=callhouse host=10.1.2.3",
     "connection received: host=10.1.2.3 port=4711",
     "checkpoint complete"],
)  # fmt: skip
def test_what_reads_nothing_is_no_entry(message: str) -> None:
    assert entry(message) is None


@pytest.mark.parametrize(
    ("text", "action"),
    [("begin; select * from bi.fct_calls", "query"),
     ("select 1 from bi.fct_calls", "query"),
     ("close c; fetch all from d", "query"),
     ("copy (select * from bi.fct_calls) to stdout", "export"),
     ("-- all\n/* of it */ COPY bi.fct_calls TO STDOUT", "export"),
     (";copy bi.fct_calls to stdout", "export")],
)  # fmt: skip
def test_nothing_hides_behind_what_is_left_out(text: str, action: str) -> None:
    for kind in ("statement", "execute <unnamed>", "execute fetch from <unnamed>/some"):
        found = entry(f"duration: 0.1 ms  {kind}: {text}")
        assert found
        assert (found.action, found.is_export) == (action, action == "export")


@pytest.mark.parametrize(
    ("severity", "state", "statement", "action", "outcome"),
    [("ERROR", "42501", "select * from ops.units", "denied", "denied"),
     ("ERROR", "25006", "delete from bi.fct_calls", "denied", "denied"),
     ("ERROR", "57014", "select pg_sleep(9)", "query", "cancelled"),
     ("ERROR", "42P01", "select * from nothing", "query", "failed"),
     ("FATAL", "08006", "copy bi.fct_calls to stdout", "export", "failed"),
     ("FATAL", "28P01", None, "login_failed", "refused"),
     ("FATAL", "28000", None, "login_failed", "refused"),
     ("FATAL", "42501", None, "login_failed", "denied"),
     ("FATAL", "57P01", None, None, None)],
)  # fmt: skip
def test_what_did_not_go_well(
    severity: str, state: str, statement: str | None, action: str | None, outcome: str | None
) -> None:
    told: dict[str, Any] = {"statement": statement} if statement else {}
    found = entry("some error", error_severity=severity, state_code=state, **told)
    assert (found and found.action, found and found.outcome) == (action, outcome)
    assert found is None or found.statement == statement


def test_of_programs_only_what_a_person_does_with_their_logins_counts() -> None:
    def pipeline(message: str, **told: Any) -> Entry | None:
        program = {"user": "callhouse_pipeline", "application_name": ""}
        return of_server(line(message, **{**program, **told}), "x.json:0", SERVICES)

    slow = "duration: 9000.0 ms  statement: select * from ops.units"
    assert pipeline(slow) is None
    assert pipeline("x", error_severity="ERROR", state_code="42501", statement="select 2") is None
    found = pipeline(slow, application_name="callhouse psql root")
    assert found and found.program == "callhouse psql root"
    authorized = "connection authorized: user=callhouse_pipeline database=callhouse"
    assert pipeline(authorized) is None
    assert pipeline(f"{authorized} application_name=dbt") is None
    found = pipeline(f"{authorized} application_name=psql")
    assert found and (found.action, found.program) == ("login", "psql")
    found = pipeline("x", error_severity="FATAL", state_code="28P01")
    assert found and found.action == "login_failed"


def test_log_ins_of_superset_for_each_query_are_not_told() -> None:
    authorized = "connection authorized: user=director database=callhouse"
    assert entry(f"{authorized} application_name=callhouse superset") is None
    assert entry(authorized)


AUDIT = 'AUDIT: SESSION,1,1,READ,SELECT,VIEW,bi.data_status,"select a, ""b"" from x"'


def test_of_programs_pgaudit_tells_and_of_people_the_statement_log() -> None:
    service = {"user": "callhouse_pipeline", "application_name": "psql"}
    found = entry(f"{AUDIT},<none>,12", **service)
    assert found
    assert (found.object_name, found.row_count) == ("bi.data_status", 12)
    assert found.statement == 'select a, "b" from x'
    found = entry(f"{AUDIT},13800138000", **service)
    assert found and found.statement == 'select a, "b" from x\n-- parameters: ###########'
    within_a_function = AUDIT.replace("1,1,", "1,2,")
    assert entry(f"{within_a_function},<none>", **service) is None
    # It would be the second entry of the same statement.
    assert entry(f"{AUDIT},<none>") is None
    assert entry(f"{AUDIT},<none>", user="postgres", application_name="callhouse psql x") is None


def test_a_damaged_line_is_told_and_shows_no_number() -> None:
    assert of_server(b"[]", "x.json:7", SERVICES)
    found = of_server(b'{"message": "13800138000', "x.json:7", SERVICES)
    assert found and found.action == "unreadable"
    assert "13800138000" not in json.dumps(vars(found))


# ------------------------------------------------------------------------------------ masking
@pytest.mark.parametrize(
    ("text", "shown"),
    [("where caller = '13800138000'", "where caller = '###########'"),
     ("where caller = 13800138000", "where caller = ###########"),
     ("in ('+86 138-0013-8000')", "in ('+## ###-####-####')"),
     ("like '%(020) 8123 4567%'", "like '%(###) #### ####%'"),
     ("'tel13800138000x'", "'tel###########x'"),
     ("'１３８００１３８０００'", "'###########'"),
     ("$$13800138000$$", "$$###########$$"),
     ("where mail = 'li@example.cn'", "where mail = '#############"),
     ("day >= '2026-10-05'", "day >= '2026-10-05'"),
     ("at >= '2026-10-05 13:00:00.123456'", "at >= '2026-10-05 13:00:00.123456'"),
     ("valid @> current_date and x in (1, 20, 300, 4000)",
      "valid @> current_date and x in (1, 20, 300, 4000)"),
     ("limit 10000", "limit 10000"),
     ("alter role me PASSWORD 's3cr''et'", "alter role me PASSWORD '***'")],
)  # fmt: skip
def test_what_looks_like_a_caller_is_masked(text: str, shown: str) -> None:
    assert masked(text).startswith(shown)
    assert masked(masked(text)) == masked(text)


# ----------------------------------------------------------------------------------- journals
@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return settings_module.load({"CALLHOUSE_HOME": str(tmp_path)})


def noted(home: Settings) -> list[dict[str, Any]]:
    return [
        json.loads(text)
        for file in sorted(journal.directory(home).glob("*.jsonl"))
        for text in file.read_text("utf-8").splitlines()
        if text
    ]


def test_an_event_comes_back_as_it_was_written(home: Settings) -> None:
    journal.write(home, "superset", {"action": "chart", "person": "李\n\x00\ud800", "row_count": 3})
    (file,) = journal.directory(home).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert journal.directory(home).stat().st_mode & 0o777 == 0o700
    texts = file.read_bytes().split(b"\n")
    found = [e for e in (of_journal(text, "p", "superset") for text in texts) if e]
    assert [(e.action, e.row_count, e.outcome) for e in found] == [("chart", 3, "ok")]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"happened_at": "yesterday", "action": "x"}',
     '{"happened_at": "2026-10-05T00:00:00", "action": "x"}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": {}}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": "x", "statement": []}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": "x", "unknown": 1}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": "x", "row_count": "many"}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": "x", "row_count": 9223372036854775808}',
     '{"happened_at": "2026-10-05T00:00:00Z", "action": "x", "is_export": null}'],
)  # fmt: skip
def test_no_line_stops_the_collection(text: str) -> None:
    found = of_journal(text.encode(), "p", "superset")
    assert found and found.action == "unreadable"


# ---------------------------------------------------------------------------------- the chain
MOMENT = datetime(2026, 10, 5, 9, 2, 3, 50, tzinfo=timezone(timedelta(hours=8)))
ROW = (1, MOMENT, MOMENT, "li", "postgres", None, "psql", "query", 'a"b', "x\n\t\x01李", 3, False,
       "ok", "f:0")  # fmt: skip


def test_an_entry_is_hashed_as_postgresql_prints_it() -> None:
    assert chain.canonical(ROW) == (
        '[1, "2026-10-05T01:02:03.000050Z", "2026-10-05T01:02:03.000050Z", "li", "postgres", null, '
        r'"psql", "query", "a\"b", "x\n\t\u0001李", 3, false, "ok", "f:0"]'
    )
    assert chain.hashed(chain.BEGINNING, ROW).hex() == (
        "7edb7f243dbed33c53d0b55f31f61fcfcfe9f7f5a93955d8f13a9ee59568d25e"
    )


def rows(count: int) -> list[list[Any]]:
    made: list[list[Any]] = []
    head = chain.BEGINNING
    for number in range(1, count + 1):
        row = [number, *ROW[1:-1], f"f:{number}"]
        digest = chain.hashed(head, row)
        made.append([*row, head, digest])
        head = digest
    return made


def anchors(made: list[list[Any]], *numbers: int) -> list[chain.Anchor]:
    return [chain.Anchor(n, made[n - 1][-1].hex(), "2026-10-05T01:03:00Z") for n in numbers]


def test_a_chain_as_it_was_written_is_well() -> None:
    made = rows(5)
    verdict = chain.verify(made, anchors(made, 2, 4))
    assert (verdict.entries, verdict.anchors, verdict.problem) == (5, 2, None)
    assert verdict.head == made[-1][-1].hex()
    assert chain.verify([], None).problem is None


def test_a_chain_made_anew_is_narrowed_down_by_its_anchors() -> None:
    made = rows(5)
    kept = anchors(made, 2, 4)
    other = rows(2) + [list(row) for row in made[2:]]
    head = other[1][-1]
    for row in other[2:]:
        row[3] = "somebody_else"
        row[-2], row[-1] = head, chain.hashed(head, row[:-2])
        head = row[-1]
    problem = chain.verify(other, kept).problem
    assert problem
    assert problem.startswith("entry 4 is not the one that was anchored")
    assert problem.endswith("the first between 3 and 4")


def test_a_trail_that_is_gone_is_noticed(tmp_path: Path) -> None:
    made = rows(3)
    problem = chain.verify([], anchors(made, 3)).problem
    assert problem and problem.startswith("entry 1 is missing: the chain is cut off after entry 0")
    assert "no anchor file" in (chain.verify(made, None).problem or "")
    assert "no entry was anchored" in (chain.verify(made, []).problem or "")


def test_anchors_survive_a_cut_line(tmp_path: Path) -> None:
    file = tmp_path / "trail" / "anchors"
    assert chain.read_anchors(file) is None
    chain.anchor(file, 2, bytes(32))
    with file.open("a") as half:
        half.write("4 00")
    chain.anchor(file, 4, bytes(32))
    assert file.stat().st_mode & 0o777 == 0o600
    assert [a.entry_id for a in chain.read_anchors(file) or ()] == [2, 4]


# ----------------------------------------------------------------------------------- Superset
class Person(UserMixin):  # type: ignore[misc]  # has no types
    def __init__(self, username: str) -> None:
        self.id = self.username = username


@pytest.fixture
def web(home: Settings) -> Iterator[Any]:
    """A Flask application with Superset's addresses."""
    app = Flask("superset")
    app.secret_key = "for a test"
    LoginManager(app).user_loader(Person)
    superset_trail.install(app, home)
    superset_trail._names.update(
        {("chart", "7"): (1e18, "Calls"), ("dashboard", "3"): (1e18, "operations"),
         ("dataset", "5"): (1e18, "fct_calls")}
    )  # fmt: skip

    @app.post("/login/")
    def login() -> Any:
        if request.form["password"] == "right":
            login_user(Person(request.form["username"]))
        return redirect("/")

    @app.post("/api/v1/chart/data")
    def data() -> Any:
        if request.args.get("deny"):
            return "no", 403
        if not request.args.get("cached"):
            superset_trail.log_query(Person("director"), "select 1 from bi.fct_calls")
        asked = request.get_json(silent=True) or json.loads(request.form["form_data"])
        if asked["result_format"] == "csv":
            return "a,b\n1,2\n3,4\n"
        return jsonify({"result": [{"rowcount": 2, "data": []}, {"rowcount": 3, "data": []}]})

    @app.get("/private")
    def private() -> Any:
        g.other = 1
        return "no", 403

    @app.put("/api/v1/dashboard/3/colors")
    def colors() -> Any:
        return "no", 403

    @app.get("/api/v1/dashboard/<id_or_slug>", endpoint=superset_trail.DASHBOARD)
    def board(id_or_slug: str) -> Any:
        return jsonify({"result": {}})

    yield app.test_client()
    superset_trail._names.clear()


ASKED = {
    "datasource": {"id": 5, "type": "table"}, "result_format": "json", "result_type": "full",
    "queries": [{"columns": ["a"], "filters": [{"col": "a", "op": "==", "val": "x"}],
                 "row_limit": 10}],
    "form_data": {"slice_id": 7, "dashboardId": 3},
}  # fmt: skip


def test_log_ins_are_told_without_the_password(web: Any, home: Settings) -> None:
    web.post("/login/", data={"username": "director", "password": "gu3ss"})
    web.post("/login/", data={"username": "director", "password": "right"})
    assert [(e["action"], e["person"], e["outcome"], e["address"]) for e in noted(home)] == [
        ("login_failed", "director", "refused", "127.0.0.1"),
        ("login", "director", "ok", "127.0.0.1"),
    ]  # fmt: skip
    assert "gu3ss" not in json.dumps(noted(home))


def test_a_chart_is_one_event_with_its_statement_and_rows(web: Any, home: Settings) -> None:
    web.post("/login/", data={"username": "director", "password": "right"})
    web.post("/api/v1/chart/data", json=ASKED)
    web.post("/api/v1/chart/data?cached=1", json=ASKED)
    _, shown, cached = noted(home)
    assert shown["person"] == "director"
    assert (shown["action"], shown["row_count"], shown["is_export"]) == ("chart", 5, False)
    assert shown["object_name"] == "operations / Calls / fct_calls"
    assert shown["statement"] == "select 1 from bi.fct_calls"
    assert json.loads(cached["statement"]) == ASKED["queries"]


def test_a_file_is_an_export_however_it_is_asked_for(web: Any, home: Settings) -> None:
    as_csv = {**ASKED, "result_format": "csv"}
    web.post("/api/v1/chart/data", json=as_csv)
    web.post("/api/v1/chart/data", data={"form_data": json.dumps(as_csv)})
    for event in noted(home):
        assert (event["action"], event["is_export"], event["row_count"]) == ("export", True, 2)


def test_drilling_down_is_told_apart(web: Any, home: Settings) -> None:
    web.post("/api/v1/chart/data", json={**ASKED, "result_type": "drill_detail"})
    assert [e["action"] for e in noted(home)] == ["drill"]


def test_whatever_is_refused_is_told(web: Any, home: Settings) -> None:
    web.get("/private")
    web.post("/api/v1/chart/data?deny=1", json=ASKED)
    found = noted(home)
    assert [(e["action"], e["outcome"], e["object_name"]) for e in found] == [
        ("denied", "denied", "GET /private"),
        ("denied", "denied", "operations / Calls / fct_calls"),
    ]


def test_a_board_is_one_event_and_pages_without_data_are_none(web: Any, home: Settings) -> None:
    web.get("/api/v1/dashboard/operations")
    web.get("/nowhere")
    web.put("/api/v1/dashboard/3/colors")
    assert [(e["action"], e["object_name"]) for e in noted(home)] == [("dashboard", "operations")]


def test_an_answer_that_cannot_be_noted_is_not_given(web: Any, home: Settings) -> None:
    home.log_directory.mkdir(parents=True)
    journal.directory(home).write_text("a file where the folder should be")
    answer = web.post("/api/v1/chart/data", json=ASKED)
    assert answer.status_code == 500
    assert b"rowcount" not in answer.data
