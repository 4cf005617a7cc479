"""Object storage and tables that answer badly: errors, halves, pages twice or not at all."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import psycopg
import pytest
from moto.server import ThreadedMotoServer
from tests.faults import nemesis, world
from tests.faults.world import World

from callhouse import landing, warehouse
from callhouse.errors import CallhouseError
from callhouse.settings import Settings

BUCKET, FEED, SECRET = "calls-of-the-floor", "faulty_contacts", "only-for-the-test-0123456789"
# What an answer may be instead of the right one. `empty` and `again` are for pages of a listing.
FAULTS = ("503", "429", "403", "cut", "short", "drop")
PAGE = 3  # objects on a page

Plan = Callable[[str, bool], str]
"""What becomes of a request: its path, and whether it lists."""


@contextmanager
def front(server: str, plan: Plan) -> Iterator[str]:
    """The address of an object storage that answers as `plan` says; `server` is behind it."""
    first: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # named by the library
            lists = "list-type=2" in self.path
            path = self.path + (f"&max-keys={PAGE}" if lists else "")
            asked = http.client.HTTPConnection(server.removeprefix("http://"))
            asked.request("GET", path, headers=dict(self.headers))
            answer = asked.getresponse()
            body, fault = answer.read(), plan(self.path, lists)
            if lists and "continuation-token" not in self.path:
                first["page"] = body
            if fault in ("503", "429", "403"):
                code = {"503": "SlowDown", "429": "TooManyRequests", "403": "ExpiredToken"}[fault]
                body = f"<Error><Code>{code}</Code><Message>{fault}</Message></Error>".encode()
                self._send(int(fault), [("Content-Type", "application/xml")], body)
            elif fault == "drop":
                self.close_connection = True
            elif fault == "again" and "page" in first:
                self._send(200, answer.getheaders(), first["page"])
            elif fault == "empty":  # a page that ends the listing before its end
                body = re.sub(rb"<Contents>.*</Contents>", b"", body, flags=re.S)
                body = body.replace(b"<IsTruncated>true", b"<IsTruncated>false")
                self._send(200, answer.getheaders(), body)
            else:
                kept = len(body) if fault in ("", "again") else len(body) // 2
                promised = len(body) if fault == "cut" else kept
                self._send(answer.status, answer.getheaders(), body[:kept], promised)
                self.close_connection = fault == "cut"

        do_HEAD = do_GET  # noqa: N815

        def _send(
            self, status: int, headers: Any, body: bytes, promised: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if promised is None else promised))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}"
    finally:
        listener.shutdown()
        listener.server_close()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def stored(emptied: Settings, simulated: World, moto: str) -> Iterator[Settings]:
    """A feed that looks at ten objects with all contacts of the world."""
    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="writer",
        aws_secret_access_key=SECRET,
    )  # fmt: skip
    client.create_bucket(Bucket=BUCKET)
    lines = simulated.lines["contacts"]
    for number in range(10):
        body = b"".join(lines[number::10])
        client.put_object(Bucket=BUCKET, Key=f"contacts/part-{number}", Body=body)
    emptied.feeds_directory.mkdir(parents=True, exist_ok=True)
    file = emptied.feeds_directory / f"{FEED}.yaml"
    file.write_text(
        f"feed: {FEED}\nvendor: amazon_connect\nrecord: contacts\n"
        f"location: s3://{BUCKET}/contacts/\n"
    )
    yield replace(
        emptied, s3_endpoint=moto, s3_region="eu-west-1", s3_access_key="reader",
        environment={**emptied.environment, "CALLHOUSE_SECRET_S3_SECRET_KEY": SECRET},
    )  # fmt: skip
    file.unlink()
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def check_contacts(settings: Settings, simulated: World) -> None:
    wanted = Counter(json.loads(line)["ContactId"] for line in simulated.lines["contacts"])
    with warehouse.connect(settings) as connection:
        rows = connection.execute(
            "select contact_id, count(*)::int from staging.amazon_connect_contacts"
            " where source = %s group by 1", [FEED],
        ).fetchall()  # fmt: skip
    assert dict(rows) == wanted
    world.check_ledger(settings)


def look(settings: Settings) -> list[str]:
    """What one look at the storage came to; a problem is one sentence without the secret."""
    problem = ""
    try:
        results = landing.land_inbox(settings, FEED)
    except CallhouseError as error:
        problem = str(error)
    assert "\n" not in problem and SECRET not in problem
    return ["problem"] if problem else [result.status for result in results]


@pytest.mark.parametrize("fault", [*FAULTS, "again", "empty"])
def test_answers_that_are_none(
    stored: Settings, simulated: World, moto: str, fault: str, chance: random.Random,
    fault_runs: int,
) -> None:  # fmt: skip
    """Some of the first answers are wrong. The looks that follow bring everything, once."""
    is_for_pages = fault in ("again", "empty")
    # A page comes twice but once: the token of its next page would go round in a circle.
    count, of = (1, 4) if is_for_pages else (6 if fault_runs else 3, 14)
    wrong = set(chance.sample(range(2, of + 1), count))
    asked: Counter[str] = Counter()

    def plan(path: str, lists: bool) -> str:
        asked["requests"] += lists or not is_for_pages
        is_wrong = lists >= is_for_pages and asked["requests"] in wrong
        wrong.discard(asked["requests"])
        asked["faults"] += is_wrong
        return fault if is_wrong else ""

    looks: list[list[str]] = []
    until = time.monotonic() + nemesis.RECOVERY_SECONDS
    with front(moto, plan) as address:
        while wrong or looks[-1]:
            looks.append(look(replace(stored, s3_endpoint=address)))
            assert time.monotonic() < until, looks
    print(fault, dict(asked), looks)
    assert asked["faults"] == count
    assert look(stored) == []
    check_contacts(stored, simulated)


def test_one_object_that_cannot_be_read_keeps_no_other_away(
    stored: Settings, simulated: World, moto: str
) -> None:
    """It is told at every look, and landed when it can be."""
    with front(moto, lambda path, _lists: "403" if "part-3" in path else "") as address:
        faulty = replace(stored, s3_endpoint=address)
        assert Counter(look(faulty)) == {"landed": 9, "refused": 1}
        assert look(faulty) == ["refused"]
    assert look(stored) == ["landed"]
    check_contacts(stored, simulated)


def test_a_table_whose_server_goes_away_while_it_is_read(
    emptied: Settings, simulated: World, chance: random.Random
) -> None:
    """Hours that were read are landed; the next look brings the others."""
    lines = [line.decode().rstrip("\n").split("|") for line in simulated.lines["queue_log"]]
    with psycopg.connect(emptied.dsn("postgres"), autocommit=True) as server:
        server.execute("create database exchange")
    reader = emptied.dsn("postgres", "exchange")
    address = "postgresql://postgres@127.0.0.1:{}/exchange/queue_log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", emptied.secret("postgres_password"))
        with psycopg.connect(reader, autocommit=True) as exchange:
            exchange.execute(
                "create table queue_log (id bigserial, time text, callid text, queuename text,"
                " agent text, event text, data1 text, data2 text, data3 text, data4 text,"
                " data5 text)"
            )
            with exchange.cursor().copy(
                "copy queue_log (time, callid, queuename, agent, event, data1, data2, data3,"
                " data4, data5) from stdin"
            ) as stream:
                for cells in lines:
                    stream.write_row((cells + [None] * 10)[:10])
        for step in chance.sample(range(4, 40), 3):
            with nemesis.Door(emptied.postgres_port, at=step) as door:
                door.strike = door.cut
                with suppress(CallhouseError):
                    results = landing.land(
                        emptied, "asterisk_queue_log", [address.format(door.port)]
                    )
                    assert {r.status for r in results} <= {"landed", "already_landed", "refused"}
                assert door.struck
            world.check_ledger(emptied)
        results = landing.land(
            emptied, "asterisk_queue_log", [address.format(emptied.postgres_port)]
        )
    assert {result.status for result in results} <= {"landed", "already_landed"}
    world.check_lines(
        emptied, replace(simulated, lines={"queue_log": simulated.lines["queue_log"]})
    )
    with psycopg.connect(emptied.dsn("postgres"), autocommit=True) as server:
        server.execute("drop database exchange with (force)")
