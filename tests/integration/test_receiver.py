"""What is pushed is staged as if it had come in a file, once, and its sender is told."""

from __future__ import annotations

import base64
import copy
import csv
import gzip
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from tests.conftest import Contents
from tests.faults import nemesis, world

from callhouse import capture, landing, warehouse
from callhouse.capture import devices
from callhouse.errors import CallhouseError
from callhouse.landing import replay
from callhouse.live import intake as intake_module
from callhouse.live import receiver, signing
from callhouse.live.intake import Intake
from callhouse.runner import lifecycle, postgres, supervision
from callhouse.settings import Settings
from callhouse.sources import document, pushes, registry
from callhouse.sources.delimited import mapping

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "amazon_connect"
CONTACT: dict[str, Any] = json.loads((FIXTURES / "contact.json").read_text("utf-8"))
CENTRE = """
feed: centre
vendor: delimited
label: Centre
time_zone: Asia/Shanghai
receive: {authorization: signed}
records:
  - record: legs
    files: calls_*.csv
    delimiter: comma
    columns:
      call_id: call
      caller: {column: caller.number, kind: phone, country: CN}
      queue_id: queue
      agent_id: agent
      outcome: outcome
      arrived_at: {column: arrived, format: "%Y-%m-%dT%H:%M:%S%z"}
      queue_entered_at: {column: queued, format: "%Y-%m-%dT%H:%M:%S%z"}
      answered_at: {column: answered, format: "%Y-%m-%dT%H:%M:%S%z"}
      ended_at: {column: ended, format: "%Y-%m-%dT%H:%M:%S%z"}
  - record: surveys
    files: surveys_*.csv
    delimiter: comma
    columns:
      survey_id: survey
      survey_type: {constant: csat}
      score: score
      offered_at: {column: asked, format: "%Y-%m-%dT%H:%M:%S%z"}
"""
FEEDS = {
    "centre": CENTRE,
    # As AWS: keys instead of signatures.
    "instance": "feed: instance\nvendor: amazon_connect\nrecord: contacts\nreceive: api_key\n",
    "log": "feed: log\nvendor: asterisk\ncountry: CN\nreceive: {quiet_seconds: 600}\n",
}
COLUMNS = ["call", "caller.number", "queue", "agent", "outcome", "arrived", "queued", "answered",
           "ended"]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(settings: Settings, cluster: postgres.Cluster) -> Settings:
    settings.feeds_directory.mkdir(parents=True)
    for name, text in FEEDS.items():
        (settings.feeds_directory / f"{name}.yaml").write_text(text)
    return settings


class Endpoint:
    """A receiver that listens, and a sender with the secrets."""

    def __init__(self, settings: Settings, intakes: list[Intake], port: int) -> None:
        self.settings, self.intakes = settings, {intake.name: intake for intake in intakes}
        self.said: list[str] = []
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def secret(self, feed: str) -> str:
        return self.settings.secret(signing.secret_name(feed))

    def send(
        self, path: str, body: bytes, media: str = "application/json", **headers: str
    ) -> httpx.Response:
        """A signed request as it is."""
        signed = signing.headers(self.secret(path.split("/")[0]), body)
        return self.client.post(
            f"/v1/events/{path}", content=body,
            headers={"Content-Type": media, **signed, **headers},
        )  # fmt: skip

    def push(self, path: str, *records: Any) -> dict[str, int]:
        """Counts that a push of records is answered with."""
        answer = self.send(path, json.dumps(records).encode())
        assert answer.status_code == 200, answer.text
        counts: dict[str, int] = answer.json()
        assert counts["read"] == counts["staged"] + counts["quarantined"] + counts["duplicates"]
        return counts


@contextmanager
def listening(settings: Settings) -> Iterator[Endpoint]:
    said: list[str] = []
    intakes = receiver.intakes(settings, said.append)
    app = receiver.Receiver(settings, intakes, said.append).app
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    stop = threading.Event()
    threads = [threading.Thread(target=server.run)]
    threads += [threading.Thread(target=intake.run, args=(stop,)) for intake in intakes]
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.01)
    endpoint = Endpoint(settings, intakes, server.servers[0].sockets[0].getsockname()[1])
    endpoint.said = said
    try:
        yield endpoint
    finally:
        endpoint.client.close()
        server.should_exit = True
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def running(prepared: Settings) -> Iterator[Endpoint]:
    with listening(prepared) as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(running: Endpoint) -> Iterator[Endpoint]:
    """With nothing landed; afterwards the ledger adds up."""
    empty(running.settings)
    running.said.clear()
    yield running
    world.check_ledger(running.settings)


@contextmanager
def held(settings: Settings, feed: str) -> Iterator[None]:
    """Nothing of the feed is landed within the block."""
    with warehouse.connect(settings) as connection:
        connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"land {feed}"]
        )
        yield


def empty(settings: Settings) -> None:
    with ExitStack() as stack:
        for feed in FEEDS:  # a landing within which a table is truncated waits for itself
            stack.enter_context(held(settings, feed))
        world.empty(settings)


def asked(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with warehouse.connect(settings) as connection:
        return connection.execute(statement.encode()).fetchall()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def call(number: int, **changed: Any) -> dict[str, Any]:
    """A call of 2026-06-03 as a centre sends it."""
    minute = f"2026-06-03T10:{number % 60:02d}"
    return {
        "call": f"c-{number}", "caller": {"number": f"1380013{number:04d}"}, "queue": "sales",
        "agent": "a-7", "outcome": "answered", "arrived": f"{minute}:00+0800",
        "queued": f"{minute}:05+0800", "answered": f"{minute}:20+0800",
        "ended": f"{minute}:50+0800",
    } | changed  # fmt: skip


def file_of(path: Path, *calls: dict[str, Any], columns: list[str] | None = None) -> Path:
    """The same calls as an export writes them."""
    text = io.StringIO()
    names = columns or COLUMNS
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(names)
    for item in calls:
        flat = item | {"caller.number": item["caller"]["number"]}
        rows.writerow([flat.get(name, "") for name in names])
    path.write_text(text.getvalue())
    return path


def rows(settings: Settings) -> Contents:
    found = world.staged(settings)
    assert any(count for name, (count, *_) in found.items() if name.startswith(("delimited_legs",
               "amazon_connect_contacts", "asterisk_events"))), found  # fmt: skip
    return found


# ------------------------------------------------------------------------------ the same rows
def test_pushed_rows_are_those_of_a_file(endpoint: Endpoint, tmp_path: Path) -> None:
    settings, calls = endpoint.settings, [call(number) for number in range(40)]
    path = file_of(tmp_path / "calls_1.csv", *calls)
    assert endpoint.push("centre/legs", *calls[:1])["staged"] == 1
    assert endpoint.push("centre/legs", *calls[1:])["staged"] == 39
    pushed = rows(settings)
    (result,) = landing.land(settings, "centre", [path])
    assert (result.status, result.read, result.duplicates) == ("landed", 40, 40)
    assert rows(settings) == pushed
    empty(settings)
    (result,) = landing.land(settings, "centre", [path])
    assert result.staged == 40
    assert rows(settings) == pushed
    assert endpoint.push("centre/legs", *calls) == {
        "read": 40, "staged": 0, "quarantined": 0, "duplicates": 40,
    }  # fmt: skip
    assert rows(settings) == pushed
    kinds = asked(settings, "select kind, name, record from ops.units order by unit_id")
    assert kinds == [("file", "calls_1.csv", "legs"), ("push", "calls_push.csv", "legs")]


def test_columns_in_another_order_are_the_same_rows(endpoint: Endpoint, tmp_path: Path) -> None:
    """Once a file was landed its order is known; before that the newer row counts."""
    settings, columns = endpoint.settings, ["agent", "extra", *COLUMNS[:3], *COLUMNS[4:]]
    count = "select count(*), count(superseded_by) from staging.delimited_legs"
    endpoint.push("centre/legs", call(1))
    landing.land(settings, "centre", [file_of(tmp_path / "calls_1.csv", call(1), columns=columns)])
    assert asked(settings, count) == [(2, 1)]
    assert endpoint.push("centre/legs", call(1), call(2)) == {
        "read": 2, "staged": 1, "quarantined": 0, "duplicates": 1,
    }  # fmt: skip
    two = file_of(tmp_path / "calls_2.csv", call(1), call(2), columns=columns)
    (result,) = landing.land(settings, "centre", [two])
    assert (result.staged, result.duplicates) == (0, 2)
    assert asked(settings, count) == [(3, 1)]


def test_versions_that_come_together_are_no_two_calls(endpoint: Endpoint) -> None:
    """Two rows of one key in one file are two calls; of two requests the later one is newer."""
    known = [call(1, ended=f"2026-06-03T10:01:{second}+0800") for second in range(30, 40)]
    intake = endpoint.intakes["centre"]
    with ThreadPoolExecutor(20) as pool, held(endpoint.settings, "centre"):
        sent = [pool.submit(endpoint.push, "centre/legs", known[0])]
        until(lambda: intake.is_landing and not intake.waiting)
        for number, item in enumerate((*known[1:], call(2), call(3)), 1):
            sent.append(pool.submit(endpoint.push, "centre/legs", item))
            until(lambda: len(intake.waiting) == number)  # noqa: B023  # called at once
    assert sum(answer.result()["staged"] for answer in sent) == 12
    counted = asked(
        endpoint.settings,
        "select call_id, ended_at from staging.delimited_legs where superseded_by is null "
        "order by 1",
    )
    assert [call_id for call_id, _ in counted] == ["c-1", "c-2", "c-3"]
    assert counted[0][1] == datetime(2026, 6, 3, 2, 1, 39, tzinfo=UTC)
    # The newest version and the other calls are one unit.
    assert asked(endpoint.settings, "select count(*) from ops.units") == [(10,)]


def test_json_lines_and_records_of_several_kinds(endpoint: Endpoint) -> None:
    body = b"\n\n".join(json.dumps(call(number)).encode() for number in range(3)) + b"\n"
    for media in ("application/x-ndjson", "application/x-ndjson; charset=utf-8"):
        answer = endpoint.send("centre/legs", body, media)
        assert answer.json() | {"staged": 0, "duplicates": 0} == {
            "read": 3, "staged": 0, "quarantined": 0, "duplicates": 0,
        }, answer.text  # fmt: skip
    survey = {"survey": "s-1", "score": 4, "asked": "2026-06-03T10:10:00+0800"}
    assert endpoint.push("centre/surveys", survey)["staged"] == 1
    (found,) = asked(endpoint.settings, "select score, survey_type from staging.delimited_surveys")
    assert found == (4, "csat")


def test_a_packed_body_is_what_it_holds(endpoint: Endpoint) -> None:
    lines = [json.dumps(call(number)).encode() + b"\n" for number in range(3)]
    packed = gzip.compress(lines[0] + lines[1]) + gzip.compress(lines[2])
    zipped = {"Content-Encoding": "GZIP"}
    answer = endpoint.send("centre/legs", packed, "application/x-ndjson", **zipped)
    assert answer.json() == {"read": 3, "staged": 3, "quarantined": 0, "duplicates": 0}
    # Packed or not, it is the same push.
    again = endpoint.send("centre/legs", b"".join(lines), "application/x-ndjson")
    assert again.json() == {"read": 3, "staged": 0, "quarantined": 0, "duplicates": 3}


def test_lines_of_a_queue_log(endpoint: Endpoint, tmp_path: Path) -> None:
    second = int(time.time()) - 5
    lines = [
        f"{second}|{second}.1|NONE|NONE|DID|4008001234",
        f"{second}|{second}.1|sales|NONE|ENTERQUEUE||13800138000|1",
        f"{second + 1}|{second}.2|sales|NONE|ENTERQUEUE||13800138001|2",
    ]
    body = "\n".join(lines).encode()
    answer = endpoint.send("log", body, "text/plain")
    assert answer.json() == {"read": 3, "staged": 3, "quarantined": 0, "duplicates": 0}
    over = f"{second + 3}|{second}.1|sales|NONE|ABANDON|1|1|3"
    assert endpoint.send("log", over.encode(), "text/plain").json()["staged"] == 1
    (tmp_path / "queue_log").write_bytes(body + b"\n" + over.encode() + b"\n")
    (result,) = landing.land(endpoint.settings, "log", [tmp_path / "queue_log"])
    assert (result.read, result.duplicates) == (4, 4)


# ------------------------------------------------------------------------------ AWS
def contact(number: int) -> dict[str, Any]:
    content = copy.deepcopy(CONTACT)
    content["ContactId"] = content["InitialContactId"] = f"contact-{number}"
    content["PreviousContactId"] = content["NextContactId"] = None
    return content


def wrapped(how: str, items: list[dict[str, Any]]) -> Any:
    """Records as AWS hands them over."""
    data = [base64.b64encode(json.dumps(item).encode()).decode() for item in items]
    return {
        "plain": items[0],
        "rule": {"version": "0", "detail-type": "Contact Record", "detail": items[0]},
        "pipe": [
            {"eventSource": "aws:kinesis", "kinesisSchemaVersion": "1.0", "data": item}
            for item in data
        ],
        "firehose": {"requestId": "r-1", "timestamp": 1, "records": [{"data": d} for d in data]},
        # A producer that aggregates.
        "joined": {
            "requestId": "r-2", "timestamp": 1,
            "records": [{"data": base64.b64encode(
                "".join(json.dumps(item) for item in items).encode()).decode()}],
        },
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", ["plain", "rule", "pipe", "firehose", "joined"])
def test_contact_records_in_their_envelopes(
    endpoint: Endpoint, tmp_path: Path, how: str
) -> None:  # fmt: skip
    items = [contact(number) for number in range(1 if how in ("plain", "rule") else 4)]
    headers = {"X-Amz-Firehose-Access-Key": endpoint.secret("instance"), "Content-Type":
               "application/json", receiver.FIREHOSE_ID: "r-1"}  # fmt: skip
    answer = endpoint.client.post("/v1/events/instance", json=wrapped(how, items), headers=headers)
    found = answer.json()
    assert answer.status_code == 200 and found.pop("requestId") == "r-1"
    assert abs(found.pop("timestamp") / 1000 - time.time()) < 60
    count = len(items)
    assert found == {"read": count, "staged": count, "quarantined": 0, "duplicates": 0}
    pushed = rows(endpoint.settings)
    path = tmp_path / "contacts"
    path.write_text("".join(json.dumps(item, sort_keys=True) for item in items))
    (result,) = landing.land(endpoint.settings, "instance", [path])
    assert (result.read, result.duplicates) == (count, count)
    empty(endpoint.settings)
    landing.land(endpoint.settings, "instance", [path])
    assert rows(endpoint.settings) == pushed


# ------------------------------------------------------------------------------ bad records
def test_bad_records_are_set_aside_and_the_sender_is_told(endpoint: Endpoint) -> None:
    settings = endpoint.settings
    body = b"\n".join([
        json.dumps(call(1)).encode(),
        b'{"call": ',
        json.dumps(call(2, arrived="yesterday")).encode(),
        b"17",
        b"{}",
        json.dumps(call(3, agent="a\0b")).encode(),
        json.dumps(call(1)).encode(),
    ])  # fmt: skip
    for repeat in range(2):
        answer = endpoint.send("centre/legs", body, "application/x-ndjson")
        staged = 1 - repeat
        assert answer.json() == {
            "read": 7, "staged": staged, "quarantined": 5, "duplicates": 2 - staged,
        }  # fmt: skip
    kept = asked(settings, "select line_number, reason_code from ops.quarantine order by 1")
    assert kept == [(2, "broken_json"), (3, "unreadable_value"), (4, "broken_json"),
                    (5, "no_column"), (6, "nul_byte")] or kept  # fmt: skip
    assert [number for number, _ in kept] == [2, 3, 4, 5, 6]
    reason = asked(settings, "select reason from ops.quarantine where line_number = 3")[0][0]
    assert "calls_push.csv line 3" in reason and "arrived" in reason
    instance = {"X-API-Key": endpoint.secret("instance")}
    answer = endpoint.client.post(
        "/v1/events/instance", headers=instance,
        json=[contact(1), 5, {"ContactId": "x"}, {"requestId": "r", "records": [{"data": "?"}]}],
    )  # fmt: skip
    assert answer.json() == {"read": 4, "staged": 1, "quarantined": 3, "duplicates": 0}


def test_a_bad_record_comes_back_once_the_mapping_is_mended(endpoint: Endpoint) -> None:
    settings = endpoint.settings
    counts = endpoint.push("centre/legs", call(1), call(2, outcome="gone"))
    assert counts["quarantined"] == 1
    mapping = settings.feeds_directory / "centre.yaml"
    mapping.write_text(CENTRE.replace(
        "outcome: outcome",
        "outcome: {column: outcome, codes: {answered: answered, gone: abandoned}}",
    ))  # fmt: skip
    try:
        (found,) = replay.replay(settings, "somebody", "centre")
    finally:
        mapping.write_text(CENTRE)
    assert found.staged == 1
    outcomes = "select outcome from staging.delimited_legs order by call_id"
    assert asked(settings, outcomes) == [("answered",), ("abandoned",)]
    empty(settings)  # what was replayed stays in quarantine, and `check_ledger` counts it there


# ------------------------------------------------------------------------------ who may, and what
def test_requests_that_are_refused(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "MOST_ATTEMPTS", 100)
    body = json.dumps([call(1)]).encode()
    foreign = signing.headers("of another feed", body)
    old = signing.headers(endpoint.secret("centre"), body, time.time() - 400)

    def told(answer: httpx.Response) -> tuple[int, str]:
        assert set(answer.json()) == {"error", "message"}
        return answer.status_code, answer.json()["error"]

    assert told(endpoint.client.post("/v1/events/centre/legs", content=body)) == (
        401, "unauthorized")  # fmt: skip
    assert told(endpoint.send("centre/legs", body, **foreign)) == (403, "forbidden")
    assert told(endpoint.send("centre/legs", body, **old)) == (403, "forbidden")
    changed = body.replace(b"c-1", b"c-2")
    signed = signing.headers(endpoint.secret("centre"), body)
    assert told(endpoint.send("centre/legs", changed, **signed)) == (403, "forbidden")
    # A key is no signature where the feed asks for signatures.
    key = {"X-API-Key": endpoint.secret("centre")}
    assert told(endpoint.client.post("/v1/events/centre/legs", content=body, headers=key)) == (
        401, "unauthorized")  # fmt: skip
    other = {"Authorization": f"Bearer {endpoint.secret('centre')}"}
    assert told(endpoint.client.post("/v1/events/instance", content=body, headers=other)) == (
        403, "forbidden")  # fmt: skip
    assert told(endpoint.client.post("/v1/events/nobody", content=body)) == (404, "not_found")
    assert told(endpoint.send("centre", body)) == (404, "not_found")
    assert told(endpoint.send("centre/calls", body)) == (404, "not_found")
    assert told(endpoint.send("centre/legs", body, "text/csv")) == (415, "unsupported_media_type")
    assert told(endpoint.send("centre/legs", body, **{"Content-Encoding": "br"})) == (
        415, "unsupported_media_type")  # fmt: skip
    packed, zipped = gzip.compress(body), {"Content-Encoding": "gzip"}
    for broken in (body, packed[:-9], packed + b"more", packed[:-8] + bytes(8)):
        assert told(endpoint.send("centre/legs", broken, **zipped)) == (422, "unreadable")
    signed = signing.headers(endpoint.secret("centre"), body)  # not of what is sent
    assert told(endpoint.send("centre/legs", packed, **zipped, **signed)) == (403, "forbidden")
    assert told(endpoint.send("centre/legs", body[:-1])) == (422, "unreadable")
    deep = b"[" * 100_000 + b"]" * 100_000
    assert told(endpoint.send("centre/legs", deep)) == (422, "unreadable")
    monkeypatch.setattr(receiver, "LARGEST_BODY", len(body))
    assert told(endpoint.send("centre/legs", body + b" ")) == (413, "too_large")
    bomb = gzip.compress(bytes(len(body) + 1))
    assert len(bomb) < len(body)
    assert told(endpoint.send("centre/legs", bomb, **zipped)) == (413, "too_large")
    parts = iter([body, b" "])  # without Content-Length
    signed = signing.headers(endpoint.secret("centre"), body + b" ")
    assert told(endpoint.client.post("/v1/events/centre/legs", content=parts, headers=signed)) == (
        413, "too_large")  # fmt: skip
    assert asked(endpoint.settings, "select count(*) from ops.units") == [(0,)]
    assert endpoint.send("centre/legs", body).status_code == 200
    assert not any("13800130001" in line or "127.0.0.1" in line for line in endpoint.said)


def test_who_guesses_is_slowed_down_and_nobody_else(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MOST_ATTEMPTS", 3)
    with listening(endpoint.settings) as fresh:
        codes = [
            fresh.client.post("/v1/events/instance", headers={"X-API-Key": str(n)}).status_code
            for n in range(5)
        ]
        assert codes == [403, 403, 403, 429, 429]
        assert fresh.push("centre/legs", call(1))["staged"] == 1
        assert fresh.said == ["1 requests without valid credentials"]


def test_without_a_server_senders_come_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake, body = endpoint.intakes["centre"], json.dumps([call(1)]).encode()
    intake.disconnect()
    with monkeypatch.context() as broken:
        broken.setattr(Settings, "postgres_port", property(lambda _: 9))
        answer = endpoint.send("centre/legs", body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert endpoint.send("centre/legs", body).json()["staged"] == 1
    monkeypatch.setattr(intake_module, "MOST_WAITING_BYTES", 1)
    with ThreadPoolExecutor(2) as pool, held(endpoint.settings, "centre"):
        sent = [pool.submit(endpoint.push, "centre/legs", call(2))]
        until(lambda: intake.is_landing and not intake.waiting)
        sent.append(pool.submit(endpoint.push, "centre/legs", call(3)))
        until(lambda: len(intake.waiting) == 1)
        answer = endpoint.send("centre/legs", json.dumps([call(4)]).encode())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert [answer.result()["staged"] for answer in sent] == [1, 1]
    assert endpoint.push("centre/legs", call(4))["staged"] == 1


def test_two_receivers_of_one_request_at_once(endpoint: Endpoint) -> None:
    """Both would find it new: the second one waits, and then knows it."""
    body = json.dumps([call(1), call(2, arrived="never"), call(3)]).encode()
    with listening(endpoint.settings) as other, ThreadPoolExecutor(2) as pool:
        with held(endpoint.settings, "centre"):
            sent = [pool.submit(each.send, "centre/legs", body) for each in (endpoint, other)]
            until(lambda: all(each.intakes["centre"].is_landing for each in (endpoint, other)))
            time.sleep(0.5)
        answers = [answer.result() for answer in sent]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert sorted(answer.json()["staged"] for answer in answers) == [0, 2]
    assert [answer.json()["quarantined"] for answer in answers] == [1, 1]
    assert asked(endpoint.settings, "select count(*) from ops.quarantine") == [(1,)]


# ------------------------------------------------------------------------------ the runner
def test_the_runner_starts_it_where_a_feed_receives(prepared: Settings, tmp_path: Path) -> None:
    assert "receiver" in supervision.names(prepared)
    assert lifecycle.ports(prepared)["the receiver"] == prepared.port_base + 90
    assert lifecycle.addresses(prepared)["receiver"].endswith("/v1/events/")
    without = replace(prepared, feeds_directory=tmp_path)
    assert "receiver" not in supervision.names(without)
    assert "the receiver" not in lifecycle.ports(without)
    with pytest.raises(CallhouseError, match="nothing to receive"):
        receiver.intakes(without)
    told = nemesis.run(prepared, "live", "secret", "centre")
    assert (told.code, told.output.strip()) == (
        0, prepared.secret(signing.secret_name("centre")),
    )  # fmt: skip
    assert nemesis.run(prepared, "live", "secret", "sample_hotline").code != 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("receive: yes", "'yes' is not one of signed, api_key"),
        ("receive: {authorization: none}", "'none' is not one of signed, api_key"),
        ("receive: {quiet_seconds: 30}", "at least 120"),
        ("receive: {silence: 300}", "unknown key"),
    ],
)
def test_what_a_feed_may_say(tmp_path: Path, change: str, problem: str) -> None:
    file = tmp_path / "centre.yaml"
    file.write_text(CENTRE.replace("receive: {authorization: signed}", change))
    with pytest.raises(CallhouseError, match=problem):
        pushes.read(document.read(file))


def test_a_push_needs_a_name_that_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "centre.yaml"
    file.write_text(CENTRE)
    assert registry.receive(mapping.load(file)) == pushes.Receive("signed", None)
    file.write_text(CENTRE.replace("surveys_*.csv", '"[s]urveys.csv"'))
    with pytest.raises(CallhouseError, match="add 'surveys_"):
        registry.receive(mapping.load(file))


# ------------------------------------------------------------------------------ the watch
def test_a_silent_sender_is_an_incident(endpoint: Endpoint) -> None:
    """Where the feed says that its sender is never silent: else only the receiver may be."""
    settings = endpoint.settings
    promised, other = (devices.push_name(endpoint.intakes[name].feed) for name in ("log", "centre"))
    answer = endpoint.send("log", b"", "text/plain")  # nothing to tell: it lives
    assert answer.json() == {"read": 0, "staged": 0, "quarantined": 0, "duplicates": 0}
    capture.watch(settings)
    with warehouse.connect(settings) as connection:
        connection.execute("update ops.heartbeats set beat_at = beat_at - interval '1000 s'")
        connection.execute("update ops.capture_devices set registered_at = now() - interval '1 d'")
        connection.execute("update ops.capture_watch set watching_since = now() - interval '1 d'")
    opened = {incident.device for incident in capture.watch(settings).opened}
    assert promised in opened and other in opened
    endpoint.send("log", b"", "text/plain")
    endpoint.intakes["centre"]._beat_at = 0.0
    beats = "select count(*) from ops.heartbeats where beat_at > now() - interval '60 s'"
    until(lambda: asked(settings, beats)[0][0] >= 2)
    kinds = asked(settings, "select device, kind from ops.capture_devices where device ~ '_push'")
    assert dict(kinds) == {"centre_push": "collector", "instance_push": "collector",
                           "log_push": "pbx"}  # fmt: skip
